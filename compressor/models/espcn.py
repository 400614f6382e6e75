"""ESPCN: super-resolution by convolutions at low resolution and a pixel shuffle at the end.

Source: Shi, Caballero, Huszár, Totz, Aitken, Bishop, Rueckert, Wang 2016, "Real-Time Single Image and Video
Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network", arXiv 1609.05158, section 3. The
paper says nothing of borders: they are padded with zeros, so that an image of h x w becomes r * h x r * w;
nor of the first weights: those are torch's defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from compressor.errors import InputError
from compressor.models.options import require_positive
from compressor.models.registry import model

__all__ = ["ESPCN", "espcn", "espcn_pytorch_examples"]


class ESPCN(nn.Module):
    """Convolutions with an activation between them, the last to channels * scale² maps, which are shuffled.

    Input [n, channels, h, w], in 0..1; output [n, channels, scale * h, scale * w], nothing at its end. Maps
    c * scale² + dy * scale + dx of the last convolution are the pixels (dy, dx) of channel c. Raises
    InputError for images of other channels.

    >>> import torch
    >>> net = ESPCN([(5, 8)], last=3, scale=2, channels=1, activation=nn.Tanh)
    >>> net(torch.zeros(1, 1, 10, 7)).shape
    torch.Size([1, 1, 20, 14])
    """

    def __init__(
        self,
        hidden: Sequence[tuple[int, int]],
        *,
        last: int,
        scale: int,
        channels: int,
        activation: Callable[[], nn.Module],
    ) -> None:
        """`hidden` are (kernel, filters) of all convolutions but the last, whose kernel is `last`."""
        super().__init__()
        self.scale, self.channels = scale, channels
        layers: list[nn.Module] = []
        width = channels
        for kernel, filters in hidden:
            layers += [nn.Conv2d(width, filters, kernel, padding=kernel // 2), activation()]
            width = filters
        self.features = nn.Sequential(*layers)
        self.sub_pixel = nn.Conv2d(width, channels * scale**2, last, padding=last // 2)
        self.shuffle = nn.PixelShuffle(scale)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise InputError(
                f"ESPCN: expected images [N, {self.channels}, H, W], got {list(x.shape)}; of a colour image "
                f"give the luminance, as data.images.upscale_colour does, or make the network with channels=3"
            )
        high: Tensor = self.shuffle(self.sub_pixel(self.features(x)))
        return high


@model("espcn")
def espcn(*, scale: int = 3, channels: int = 1, activation: Callable[[], nn.Module] = nn.Tanh) -> ESPCN:
    """The paper's network: 5x5 to 64, 3x3 to 32, 3x3 to channels * scale², tanh between them.

    One network for each scale; the paper's has one channel, luminance. `activation=nn.ReLU` is the variant of
    the paper's table 1.

    Source: Shi et al. 2016 (see the top of this file), section 3.2.

    >>> sum(p.numel() for p in espcn(scale=3).parameters())
    22729
    """
    require_positive("espcn", scale=scale, channels=channels)
    return ESPCN([(5, 64), (3, 32)], last=3, scale=scale, channels=channels, activation=activation)


@model("espcn_pytorch_examples")
def espcn_pytorch_examples(*, scale: int = 3, channels: int = 1) -> ESPCN:
    """The four-layer relative that PyTorch's examples and its ONNX tutorial call by the paper's name.

    5x5 to 64, 3x3 to 64, 3x3 to 32, 3x3 to channels * scale², ReLU between them, orthogonal weights (with the
    gain of a ReLU but in the last layer): 2.6 times the paper's parameters.

    Source: github.com/pytorch/examples, super_resolution/model.py.

    >>> sum(p.numel() for p in espcn_pytorch_examples(scale=3).parameters())
    59657
    """
    require_positive("espcn_pytorch_examples", scale=scale, channels=channels)
    hidden = [(5, 64), (3, 64), (3, 32)]
    net = ESPCN(hidden, last=3, scale=scale, channels=channels, activation=nn.ReLU)
    for layer in net.features:
        if isinstance(layer, nn.Conv2d):
            nn.init.orthogonal_(layer.weight, nn.init.calculate_gain("relu"))
    nn.init.orthogonal_(net.sub_pixel.weight)
    return net
