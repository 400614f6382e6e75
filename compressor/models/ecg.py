"""Small networks for the rhythm in one second of a twelve-lead ECG, seen as scalograms.

Source: P. N. Aarotale, A. Rattani, 2023, Computing in Cardiology 50, paper 350, arXiv 2312.09426:
time-frequency images of one second, twelve leads stacked row-wise, read by fine-tuned 2-D networks
(`backbones.replace_classifier_`), a 1-D CNN and a 1-D CNN-LSTM. The paper's code and layer tables are not
public: the layers here are ours, in the kinds that its abstract names.

An image has 12·S rows (S frequencies of each lead, lead after lead) and T columns (time). The 2-D network
takes it as [N, 1, 12·S, T]; to the 1-D networks the rows are channels, [N, 12·S, T]. All give logits
[N, n_classes].
"""

from __future__ import annotations

from torch import Tensor, nn

from compressor.models.options import require_positive
from compressor.models.registry import model

__all__ = ["EcgCnn1d", "EcgCnn2d", "EcgCnnLstm"]

_BANDS = 15  # rows that the 2-D network pools to: those that 120 rows have after three poolings


@model("ecg_cnn2d")
class EcgCnn2d(nn.Module):
    """Three 3x3 convolutions of `width`, 2·`width` and 4·`width` channels on images [N, 1, rows, T].

    At the end time is averaged away, and the rows are pooled to 15 bands (fewer where `rows` // 8 are fewer).
    Images with another number of rows are taken, too; the smallest are 8x8.

    >>> import torch
    >>> net = EcgCnn2d()
    >>> sum(p.numel() for p in net.parameters())
    16120
    >>> net(torch.zeros(2, 1, 216, 500)).shape
    torch.Size([2, 4])
    """

    def __init__(self, *, n_classes: int = 4, rows: int = 120, width: int = 12) -> None:
        super().__init__()
        require_positive("EcgCnn2d", n_classes=n_classes, rows=rows, width=width)
        bands = max(1, min(_BANDS, rows // 8))
        self.features = nn.Sequential(
            *_convolution_2d(1, width),
            *_convolution_2d(width, 2 * width),
            *_convolution_2d(2 * width, 4 * width),
        )
        self.pool = nn.AdaptiveAvgPool2d((bands, 1))
        self.classifier = nn.Linear(4 * width * bands, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.pool(self.features(x)).flatten(1))
        return logits


@model("ecg_cnn1d")
class EcgCnn1d(nn.Module):
    """Two convolutions over time of `width` and 2·`width` channels on [N, rows, T], averaged over time.

    T is any length from 2 on.

    >>> import torch
    >>> net = EcgCnn1d()
    >>> sum(p.numel() for p in net.parameters())
    29988
    >>> net(torch.zeros(2, 120, 50)).shape
    torch.Size([2, 4])
    """

    def __init__(self, *, n_classes: int = 4, rows: int = 120, width: int = 32) -> None:
        super().__init__()
        require_positive("EcgCnn1d", n_classes=n_classes, rows=rows, width=width)
        self.features = nn.Sequential(*_convolutions_1d(rows, width))
        self.classifier = nn.Linear(2 * width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.features(x).mean(2))
        return logits


@model("ecg_cnn_lstm")
class EcgCnnLstm(nn.Module):
    """The convolutions of `EcgCnn1d`, then an LSTM over time whose last state is classified.

    T is any length from 2 on.

    >>> import torch
    >>> net = EcgCnnLstm()
    >>> sum(p.numel() for p in net.parameters())
    63268
    >>> net(torch.zeros(2, 120, 50)).shape
    torch.Size([2, 4])
    """

    def __init__(self, *, n_classes: int = 4, rows: int = 120, width: int = 32) -> None:
        super().__init__()
        require_positive("EcgCnnLstm", n_classes=n_classes, rows=rows, width=width)
        self.features = nn.Sequential(*_convolutions_1d(rows, width))
        self.lstm = nn.LSTM(2 * width, 2 * width, batch_first=True)
        self.classifier = nn.Linear(2 * width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.lstm(self.features(x).transpose(1, 2))
        logits: Tensor = self.classifier(steps[:, -1])
        return logits


def _convolution_2d(in_channels: int, channels: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2)


def _convolutions_1d(rows: int, width: int) -> tuple[nn.Module, ...]:
    first, second = nn.Conv1d(rows, width, 5, padding=2), nn.Conv1d(width, 2 * width, 5, padding=2)
    norms = nn.BatchNorm1d(width), nn.BatchNorm1d(2 * width)
    return first, norms[0], nn.ReLU(), second, norms[1], nn.ReLU(), nn.MaxPool1d(2)
