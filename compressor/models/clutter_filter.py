"""The clutter filter for echocardiograms: a U-Net over space and time with attention gates, and its 2-D twin.

Source: M. Tabassian, S. Akbari, S. Queiros, J. D'hooge 2024, "Deep spatiotemporal clutter filtering of
transthoracic echocardiographic images", arXiv 2401.13147; sizes and order are those of the authors' released
Keras code. Volumes are [N, 1, H, W, T] here (there: [N, H, W, T, 1]), grey values in [0, 1]; time is never
down-sampled.

Departures: running variances are those of torch (unbiased), Keras keeps the biased ones of the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.errors import InputError
from compressor.models.options import require_positive
from compressor.models.registry import model

__all__ = ["AttentionGate", "ClutterFilter"]

_CONV: dict[int, Callable[..., nn.Conv2d | nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM: dict[int, Callable[..., nn.BatchNorm2d | nn.BatchNorm3d]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_POOL: dict[int, Callable[..., nn.MaxPool2d | nn.MaxPool3d]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
# Axes are H, W and, in three dimensions, T; F.pad counts them from the last one.
_HALVED: dict[int, tuple[int, ...]] = {2: (2, 2), 3: (2, 2, 1)}
_TIME_PADDING: dict[int, tuple[int, ...]] = {2: (0, 0), 3: (0, 0, 1)}
_END_OF_H_W: dict[int, list[int]] = {2: [0, 1, 0, 1], 3: [0, 0, 0, 1, 0, 1]}
_END_OF_ALL: dict[int, list[int]] = {2: [0, 1, 0, 1], 3: [0, 1, 0, 1, 0, 1]}


class AttentionGate(nn.Module):
    """Weighs features x [N, C, H, W, T] by one mask that a coarser gate g [N, D, H/2, W/2, T] has a say in.

    y = x · up(sigmoid(ψ(relu(φ(g) + θ(x))))), the mask repeated over channels and 2x2 pixels. θ is a
    convolution with stride 2 whose "same" padding lies behind the last row and column only, as in Keras.

    *Source: O. Oktay et al., 2018, arXiv 1804.03999, figure 2*, with the sizes of the clutter filter.

    >>> AttentionGate(8, 16, 4)(torch.ones(1, 8, 4, 4, 3), torch.ones(1, 16, 2, 2, 3)).shape
    torch.Size([1, 8, 4, 4, 3])
    """

    def __init__(self, channels: int, gate_channels: int, hidden: int, *, dims: int = 3) -> None:
        super().__init__()
        conv = _CONV[dims]
        self.theta = conv(channels, hidden, 3, stride=_HALVED[dims], padding=_TIME_PADDING[dims])
        self.phi = conv(gate_channels, hidden, 1)
        self.psi = conv(hidden, 1, 1)
        self.up = nn.Upsample(scale_factor=_HALVED[dims])
        self._padding = _END_OF_H_W[dims]

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        together = F.relu(self.phi(g) + self.theta(F.pad(x, self._padding)))
        mask: Tensor = self.up(torch.sigmoid(self.psi(together)))
        return mask * x


class _Up(nn.Module):
    """Nearest up-sampling of H and W, and a convolution of 2 in every axis, padded at the ends only."""

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__()
        self.up = nn.Upsample(scale_factor=_HALVED[dims])
        self.conv = _CONV[dims](channels, channels, 2)
        self._padding = _END_OF_ALL[dims]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.pad(self.up(x), self._padding))
        return out


class _Decoder(nn.Module):
    """One level up: the encoder's features (gated), then the up-sampled ones, then two convolutions."""

    def __init__(self, up: _Up, gate: AttentionGate | None, block: nn.Sequential) -> None:
        super().__init__()
        self.up, self.gate, self.block = up, gate, block

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        kept = x if self.gate is None else self.gate(x, g)
        out: Tensor = self.block(torch.cat([kept, self.up(g)], 1))
        return out


class ClutterFilter(nn.Module):
    """Filtered volumes [N, 1, H, W, T] of cluttered ones (`dims=2`: frames [N, 1, H, W]).

    - `width` filters in the first convolution, doubled by the second one of each of the `levels` of the
      encoder. H and W must be multiples of 2^(levels − 1), T is any number of frames.
    - `activation` follows every batch norm but the last: `nn.Identity` as in the released configuration,
      whose only nonlinearities are poolings and gates; with `nn.ReLU` it is the usual
      U-Net.
    - `gates` weigh what goes from the encoder to the decoder; `in_skip` adds the input to the output, so
      that the network learns what to take away.
    - `final_gamma` is the scale that the last batch norm starts from. With 1, as published, the first
      residual has a standard deviation of 1 in an image of [0, 1], which at the published learning rate takes
      some 10,000 steps to unlearn; 0.1 starts near the identity.
    - `momentum` of the batch norms, 0.01 as published (0.99 in Keras' sense).
    - `reflect` takes H and W of any size: the image is reflected at its lower and right end, and the result
      cropped. Keras would raise, and so does this network without it.

    Weights start as in Keras: uniform after Glorot, biases zero. Raises InputError for sizes that do not
    divide, naming them.

    >>> net = ClutterFilter(width=4, levels=3)
    >>> sum(p.numel() for p in net.parameters())
    76825
    >>> net(torch.rand(1, 1, 16, 24, 5)).shape
    torch.Size([1, 1, 16, 24, 5])
    """

    def __init__(
        self,
        *,
        width: int = 16,
        levels: int = 4,
        dims: int = 3,
        activation: Callable[[], nn.Module] = nn.Identity,
        gates: bool = True,
        in_skip: bool = True,
        dropout: float = 0.05,
        final_dropout: float = 1e-4,
        final_gamma: float = 1.0,
        momentum: float = 0.01,
        reflect: bool = False,
    ) -> None:
        super().__init__()
        require_positive("ClutterFilter", width=width, levels=levels)
        if dims not in _CONV:
            raise InputError(f"ClutterFilter: dims must be 2 (frames) or 3 (volumes), got {dims!r}")
        self.dims, self.in_skip, self.reflect = dims, in_skip, reflect
        self._multiple = 2 ** (levels - 1)
        block = partial(_block, dims=dims, activation=activation, dropout=dropout, momentum=momentum)
        widths = [width * 2 ** (level + 1) for level in range(levels)]
        self.encoder = nn.ModuleList(
            block(before, (after // 2, after)) for before, after in zip([1, *widths], widths, strict=False)
        )
        self.pool = _POOL[dims](_HALVED[dims])
        self.decoder = nn.ModuleList(
            _Decoder(
                _Up(below, dims),
                AttentionGate(own, below, own // 2, dims=dims) if gates else None,
                block(own + below, (own, own)),
            )
            for own, below in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.final = nn.Sequential(
            _CONV[dims](widths[0], 1, 1),
            _NORM[dims](1, eps=1e-3, momentum=momentum),
            nn.Dropout(final_dropout),
        )
        self.apply(_initialise_)
        nn.init.constant_(self.final[1].weight, final_gamma)  # type: ignore[arg-type] # a batch norm's

    def forward(self, x: Tensor) -> Tensor:
        height, width = self._checked(x)
        if not self.reflect:
            return self._filtered(x)
        # By nothing where the sizes divide: an exported file has no branch, and takes any size.
        ends = [0, -width % self._multiple, 0, -height % self._multiple]
        whole = F.pad(x, ends if self.dims == 2 else [0, 0, *ends], mode="reflect")
        return self._filtered(whole)[:, :, :height, :width]

    def _filtered(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        out = x
        for level, block in enumerate(self.encoder):
            out = block(self.pool(out) if level else out)
            kept.append(out)
        for decoder, features in zip(self.decoder, kept[-2::-1], strict=True):
            out = decoder(features, out)
        residual: Tensor = self.final(out)
        return x + residual if self.in_skip else residual

    def _checked(self, x: Tensor) -> tuple[int, int]:
        """H and W of an input that the network can take."""
        axes = "[N, 1, H, W, T]" if self.dims == 3 else "[N, 1, H, W]"
        if x.dim() != self.dims + 2 or x.shape[1] != 1:
            raise InputError(
                f"ClutterFilter: expected grey {'volumes' if self.dims == 3 else 'frames'} {axes}, got "
                f"{list(x.shape)}; colour has to be made grey, and a sequence needs its axes in this order"
            )
        height, width = x.shape[2], x.shape[3]
        multiple = self._multiple
        if self.reflect:
            least = min(height, width)
            if max(-height % multiple, -width % multiple) >= least:
                raise InputError(
                    f"ClutterFilter: an image of {height}x{width} is too small to be reflected up to a "
                    f"multiple of {multiple}; enlarge it first"
                )
        elif height % multiple or width % multiple:
            raise InputError(
                f"ClutterFilter: H and W must be multiples of {multiple} (with {len(self.encoder)} levels), "
                f"got {height}x{width}; resize or crop the images, or make the network with reflect=True, "
                f"which pads and crops them"
            )
        return height, width


def _block(
    before: int,
    widths: tuple[int, ...],
    *,
    dims: int,
    activation: Callable[[], nn.Module],
    dropout: float,
    momentum: float,
) -> nn.Sequential:
    """Convolutions of 3 in every axis, each with batch norm, activation and dropout."""
    layers: list[nn.Module] = []
    for after in widths:
        layers += [
            _CONV[dims](before, after, 3, padding=1),
            _NORM[dims](after, eps=1e-3, momentum=momentum),
            activation(),
            nn.Dropout(dropout),
        ]
        before = after
    return nn.Sequential(*layers)


def _initialise_(module: nn.Module) -> None:
    """The defaults of Keras."""
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


model("clutter_filter")(ClutterFilter)
model("clutter_filter_2d")(partial(ClutterFilter, dims=2))
model("clutter_filter_small")(partial(ClutterFilter, width=4, levels=3))
