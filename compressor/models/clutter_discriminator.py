"""The discriminator of the clutter filter's adversarial training: a residual network over space and time.

Source: M. Tabassian, S. Akbari, S. Queiros, J. D'hooge 2024, "Deep spatiotemporal clutter filtering of
transthoracic echocardiographic images", arXiv 2401.13147; sizes and order are those of the authors' released
Keras code. Departures: it returns the logit, whose sigmoid is the published probability; the two convolutions
behind the stages follow the input's size, where theirs are written for 128x128x50.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from compressor.errors import InputError
from compressor.models.options import require_positive
from compressor.models.registry import model

__all__ = ["ClutterDiscriminator", "ResidualModule"]


def _conv_norm(before: int, after: int, kernel: int) -> list[nn.Module]:
    """A convolution that keeps H, W and T, and a batch norm as Keras has it by default."""
    return [
        nn.Conv3d(before, after, kernel, padding=kernel // 2),
        nn.BatchNorm3d(after, eps=1e-3, momentum=0.01),
    ]


class ResidualModule(nn.Module):
    """`depth` convolutions of `width` filters and a last one of 2 · `width`, beside a 1x1x1 shortcut.

    >>> import torch
    >>> ResidualModule(3, 4, depth=2)(torch.ones(2, 3, 4, 4, 2)).shape
    torch.Size([2, 8, 4, 4, 2])
    """

    def __init__(self, channels: int, width: int, *, depth: int, dropout: float = 0.05) -> None:
        super().__init__()
        self.shortcut = nn.Sequential(*_conv_norm(channels, 2 * width, 1))
        layers: list[nn.Module] = []
        for index in range(depth):
            before = width if index else channels
            layers += [*_conv_norm(before, width, 3), nn.ReLU(), nn.Dropout(dropout)]
        self.body = nn.Sequential(*layers, *_conv_norm(width, 2 * width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.body(x))


class ClutterDiscriminator(nn.Module):
    """How real volumes [N, 1, H, W, T] of one `size` (H, W, T) are: logits [N, 1].

    `depths` are the convolutions of each stage; a stage halves H, W and T (rounded down, 50 frames become
    25, 12, 6 and 3) and doubles the filters. Raises InputError for sizes that the stages use up, and for
    volumes of another size.

    >>> net = ClutterDiscriminator(size=(32, 32, 8), width=4, depths=(1, 1))
    >>> import torch
    >>> net(torch.rand(2, 1, 32, 32, 8)).shape
    torch.Size([2, 1])
    """

    def __init__(
        self,
        *,
        size: tuple[int, int, int] = (128, 128, 50),
        width: int = 16,
        depths: Sequence[int] = (3, 4, 6, 3),
        dropout: float = 0.05,
    ) -> None:
        super().__init__()
        require_positive("ClutterDiscriminator", width=width, stages=len(depths))
        require_positive("ClutterDiscriminator", **{f"depths[{i}]": depth for i, depth in enumerate(depths)})
        self.size = tuple(size)
        left = [length // 2 ** len(depths) for length in self.size]
        if len(left) != 3 or min(left) < 1:
            raise InputError(
                f"ClutterDiscriminator: {len(depths)} stages halve H, W and T each, of which nothing is left "
                f"of size={self.size}; take fewer depths or larger volumes"
            )
        self.stem = nn.Sequential(*_conv_norm(1, width, 3), nn.ReLU())
        stages: list[nn.Module] = []
        channels = width
        for index, depth in enumerate(depths):
            inner = width * 2**index
            stages += [nn.MaxPool3d(2), ResidualModule(channels, inner, depth=depth, dropout=dropout)]
            channels = 2 * inner
        self.stages = nn.Sequential(*stages)
        half, eighth = max(channels // 2, 1), max(channels // 8, 1)
        self.over_time = nn.Conv3d(channels, half, (1, 1, left[2]))
        self.over_space = nn.Conv3d(half, eighth, (left[0], left[1], 1))
        self.head = nn.Sequential(
            nn.Linear(eighth, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU()
        )
        self.logit = nn.Linear(16, 1)
        self.apply(_initialise_)

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != (1, *self.size):
            raise InputError(
                f"ClutterDiscriminator: expected volumes [N, 1, {', '.join(map(str, self.size))}], got "
                f"{list(x.shape)}; make it with size=(H, W, T) of your volumes"
            )
        maps = self.stages(self.stem(x))
        seen = F.relu(self.over_space(F.relu(self.over_time(maps))))
        logits: Tensor = self.logit(self.head(seen.flatten(1)))
        return logits


def _initialise_(module: nn.Module) -> None:
    """The defaults of Keras."""
    if isinstance(module, nn.Conv3d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)  # type: ignore[arg-type] # every layer here has one


model("clutter_discriminator")(ClutterDiscriminator)
model("clutter_discriminator_small")(
    partial(ClutterDiscriminator, size=(64, 64, 8), width=4, depths=(1, 1, 1))
)
