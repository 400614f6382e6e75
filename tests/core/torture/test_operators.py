"""Operators along axes without labels: channels pass through, next to whatever else happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.core.capture import capture
from tests.core.driver import Net, assert_mask, explained, masks, unchanged

X = torch.randn(2, 3, 6, 8)
Body = Callable[[Any, Tensor, Tensor], Tensor]
Part = Callable[[], Any]
# Body of a block between two convolutions, with 8 features y and the input x; how many units are free;
# and the block's own layers and parameters.
Entry = tuple[Body, int, dict[str, Part]]


def entry(body: Body, free: int = 8, **parts: Part) -> Entry:
    return body, free, parts


def parameter(*shape: int) -> Part:
    return lambda: nn.Parameter(torch.randn(shape))


def network(body: Body, parts: dict[str, Part]) -> nn.Module:
    torch.manual_seed(0)
    made = {name: make() for name, make in parts.items()}
    ends = {"stem": nn.Conv2d(3, 8, 1), "head": nn.Conv2d(8, 2, 1)}
    return Net(lambda m, x: m.head(body(m, torch.relu(m.stem(x)), x)), **ends, **made)


def modulated(m: Any, y: Tensor) -> Tensor:
    """Karras et al. 2020: a kernel for each sample, side by side in one grouped convolution."""
    w = m.w[None] * m.s(y.mean((2, 3)))[:, None, :, None, None]
    w = w * torch.rsqrt(w.square().sum((2, 3, 4), keepdim=True) + 1e-8)
    out = F.conv2d(y.reshape(1, -1, *y.shape[2:]), w.flatten(0, 1), groups=len(y))
    return out.view(len(y), -1, *y.shape[2:])


ENTRIES: dict[str, Entry] = {
    "cumsum": entry(lambda m, y, x: y.cumsum(-1)),
    "cumprod": entry(lambda m, y, x: y.cumprod(2)),
    "cummax": entry(lambda m, y, x: y.cummax(-1).values),
    "cummin": entry(lambda m, y, x: y.cummin(-1)[0]),
    "logcumsumexp": entry(lambda m, y, x: y.logcumsumexp(-1)),
    "sort": entry(lambda m, y, x: y.sort(-1).values),
    "sort stable": entry(lambda m, y, x: y.sort(dim=-1, stable=True).values),
    "argsort gather": entry(lambda m, y, x: y.gather(-1, y.argsort(-1))),
    "topk": entry(lambda m, y, x: y.topk(3, -1).values),
    "topk indices gather": entry(lambda m, y, x: (y * 2).gather(3, y.topk(3, -1).indices)),
    "gather expand": entry(lambda m, y, x: y.gather(3, x.argsort(-1)[:, :1].expand(-1, y.shape[1], -1, -1))),
    "take_along_dim": entry(lambda m, y, x: torch.take_along_dim(y, x.argsort(-1)[:, :1], -1)),
    "kthvalue": entry(lambda m, y, x: y.kthvalue(2, -1, keepdim=True).values),
    "median": entry(lambda m, y, x: y - y.median(-1, keepdim=True).values),
    "mode": entry(lambda m, y, x: y - y.mode(-1, keepdim=True).values),
    "quantile": entry(lambda m, y, x: y - y.quantile(0.5, -1, keepdim=True)),
    "argmax": entry(lambda m, y, x: y * y.argmax(-1, keepdim=True)),
    "amax": entry(lambda m, y, x: y - y.amax((2, 3), keepdim=True)),
    "amin": entry(lambda m, y, x: y - y.amin((2, 3), keepdim=True)),
    "aminmax": entry(lambda m, y, x: y - y.aminmax(dim=-1, keepdim=True)[0]),
    "max dim": entry(lambda m, y, x: y - y.max(-1, keepdim=True).values),
    "var_mean": entry(
        lambda m, y, x: (
            (y - torch.var_mean(y, (2, 3), keepdim=True)[1])
            / (torch.var_mean(y, (2, 3), keepdim=True)[0] + 1)
        )
    ),
    "std_mean": entry(lambda m, y, x: y / (1 + torch.std_mean(y, -1, keepdim=True)[0])),
    "std": entry(lambda m, y, x: y / (1 + y.std((2, 3), keepdim=True))),
    "norm": entry(lambda m, y, x: y / (1 + y.norm(dim=(2, 3), keepdim=True))),
    "norm p1": entry(lambda m, y, x: y / (1 + y.norm(p=1, dim=-1, keepdim=True))),
    "normalize space": entry(lambda m, y, x: F.normalize(y.flatten(2), dim=2).view(y.shape)),
    "logsumexp": entry(lambda m, y, x: y - y.logsumexp((2, 3), keepdim=True)),
    "prod": entry(lambda m, y, x: y * y.prod(-1, keepdim=True)),
    "nansum nanmean": entry(lambda m, y, x: y * y.nansum(-1, keepdim=True) + y.nanmean(-1, keepdim=True)),
    "any all": entry(lambda m, y, x: y * (y > 0).any(-1, keepdim=True) * (y > -1).all(-1, keepdim=True)),
    "count_nonzero": entry(lambda m, y, x: y * y.count_nonzero(-1)[..., None]),
    "softmin": entry(lambda m, y, x: F.softmin(y, -1)),
    "gumbel": entry(lambda m, y, x: F.log_softmax(y, -1) + F.softmax(y, 2, dtype=torch.float32)),
    "nan_to_num": entry(lambda m, y, x: y.nan_to_num()),
    "lerp": entry(lambda m, y, x: torch.lerp(y, y * 2, 0.3) + torch.lerp(y, y * 2, y.sigmoid())),
    "addcmul": entry(lambda m, y, x: torch.addcmul(y, y, y, value=2) + torch.addcdiv(y, y, y + 1)),
    "where scalar": entry(lambda m, y, x: torch.where(x[:, :1] > 0, y, 0.0)),
    "masked_fill": entry(lambda m, y, x: y.masked_fill(x[:, :1] > 0, -1.0)),
    "masked_fill per pos": entry(lambda m, y, x: y.masked_fill(torch.ones(6, 8).triu().bool(), -1.0)),
    "bitwise": entry(lambda m, y, x: y * ((y > 0) & (y < 1) | (y > 2) ^ (y > 3))),
    "bucketize": entry(lambda m, y, x: y * torch.bucketize(y, torch.tensor([0.1, 0.5, 1.0], dtype=y.dtype))),
    "clamp tensor": entry(lambda m, y, x: y.clamp(min=y.mean((2, 3), keepdim=True))),
    "hypot atan2": entry(
        lambda m, y, x: torch.hypot(y, y) + torch.atan2(y, y + 1) + torch.copysign(y, x[:, :1])
    ),
    "xlogy": entry(
        lambda m, y, x: torch.xlogy(y, y + 1) + torch.special.expm1(-y) + torch.erf(y) + torch.special.i0(y)
    ),
    "ldexp": entry(
        lambda m, y, x: (
            torch.ldexp(y, torch.tensor(2)) + torch.pow(y, 2) + torch.remainder(y, 0.5) + torch.fmod(y, 0.3)
        )
    ),
    "maximum": entry(lambda m, y, x: torch.maximum(y, y * 0.5) + torch.fmin(y, y * 2)),
    "reflect pad": entry(lambda m, y, x: F.pad(y, (1, 1, 2, 2), mode="reflect")),
    "replicate pad": entry(lambda m, y, x: F.pad(y, (1, 1, 2, 2), mode="replicate")),
    "circular pad": entry(lambda m, y, x: F.pad(y, (1, 1, 2, 2), mode="circular")),
    "constant pad": entry(lambda m, y, x: F.pad(y, (1, 1, 2, 2), value=3.0)),
    "avg_pool ceil": entry(lambda m, y, x: F.avg_pool2d(y, 3, 2, 1, ceil_mode=True, count_include_pad=False)),
    "lp_pool": entry(lambda m, y, x: F.lp_pool2d(y, 2, 2)),
    "max_pool1d": entry(lambda m, y, x: F.max_pool1d(y.flatten(2), 2)[..., None]),
    "avg_pool1d": entry(lambda m, y, x: F.avg_pool1d(y.flatten(2), 2)[..., None]),
    "adaptive1d": entry(
        lambda m, y, x: (F.adaptive_avg_pool1d(y.flatten(2), 4) + F.adaptive_max_pool1d(y.flatten(2), 4))[
            ..., None
        ]
    ),
    "pool3d": entry(lambda m, y, x: F.max_pool3d(F.avg_pool3d(y[:, :, None], (1, 2, 2)), (1, 1, 2))[:, :, 0]),
    "adaptive3d": entry(
        lambda m, y, x: (
            F.adaptive_avg_pool3d(y[:, :, None], (1, 2, 2)) + F.adaptive_max_pool3d(y[:, :, None], (1, 2, 2))
        )[:, :, 0]
    ),
    "fractional": entry(
        lambda m, y, x: F.fractional_max_pool2d(
            y, 2, output_size=3, _random_samples=torch.full((y.shape[0], y.shape[1], 2), 0.5, dtype=y.dtype)
        )
    ),
    "interpolate": entry(
        lambda m, y, x: (
            F.interpolate(y, scale_factor=2, mode="bicubic")
            + F.interpolate(y, size=(12, 16), mode="area")
            + F.interpolate(y, scale_factor=2, mode="nearest-exact")
            + F.interpolate(y, size=(12, 16), mode="bilinear", antialias=True)
        )
    ),
    "trilinear": entry(
        lambda m, y, x: (
            F.interpolate(y[:, :, None], scale_factor=2, mode="trilinear")[:, :, 0]
            + F.interpolate(y.flatten(2), scale_factor=2, mode="linear")[:, :, : 24 * 4]
            .view(y.shape[0], -1, 12, 8)
            .repeat(1, 1, 1, 2)[:, :, :, :16]
        )
    ),
    "grid_sample": entry(
        lambda m, y, x: F.grid_sample(
            y,
            F.affine_grid(torch.eye(2, 3, dtype=y.dtype).expand(len(y), 2, 3), y.shape, align_corners=False),
            align_corners=False,
        )
    ),
    "unfold fold": entry(lambda m, y, x: F.fold(F.unfold(y, 3, padding=1), y.shape[2:], 3, padding=1)),
    "pixel": entry(lambda m, y, x: F.pixel_shuffle(F.pixel_unshuffle(y, 2), 2)),
    "conv_tbc": entry(
        lambda m, y, x: (
            torch.conv_tbc(y.flatten(2).permute(2, 0, 1).contiguous(), m.w, m.b, 1)
            .permute(1, 2, 0)
            .reshape(y.shape[0], -1, 6, 8)
        ),
        16,
        w=parameter(3, 8, 8),
        b=parameter(8),
    ),
    "bilinear": entry(
        lambda m, y, x: m.bl(y.movedim(1, -1).contiguous(), y.movedim(1, -1).contiguous()).movedim(-1, 1),
        16,
        bl=lambda: nn.Bilinear(8, 8, 8),
    ),
    "bilinear2": entry(
        lambda m, y, x: m.bl(y.movedim(1, -1).contiguous(), m.o(x).movedim(1, -1).contiguous()).movedim(
            -1, 1
        ),
        21,
        bl=lambda: nn.Bilinear(8, 5, 8),
        o=lambda: nn.Conv2d(3, 5, 1),
    ),
    "baddbmm": entry(
        lambda m, y, x: torch.baddbmm(y.flatten(2), m.w.expand(len(y), -1, -1), y.flatten(2)).view(y.shape),
        w=parameter(1, 8, 8),
    ),
    "cdist": entry(
        lambda m, y, x: y * torch.cdist(y.flatten(2).transpose(1, 2), m.w).mean(-1).view(y.shape[0], 1, 6, 8),
        13,
        w=parameter(5, 8),
    ),
    "cdist p1": entry(
        lambda m, y, x: (
            y * torch.cdist(y.flatten(2).transpose(1, 2), m.w, p=1.0).mean(-1).view(y.shape[0], 1, 6, 8)
        ),
        13,
        w=parameter(5, 8),
    ),
    "cosine": entry(lambda m, y, x: y * F.cosine_similarity(y, m.w, dim=1)[:, None], w=parameter(8, 1, 1)),
    "pairwise": entry(
        lambda m, y, x: y * F.pairwise_distance(y.movedim(1, -1), m.w)[:, None], w=parameter(8)
    ),
    "instance_norm F": entry(lambda m, y, x: F.instance_norm(y, weight=m.w, bias=m.w), w=parameter(8)),
    "group_norm F": entry(lambda m, y, x: F.group_norm(y, 4, m.w), w=parameter(8)),
    "batch_norm F": entry(
        lambda m, y, x: F.batch_norm(y, m.a, m.a.abs() + 1, m.w), w=parameter(8), a=lambda: torch.randn(8)
    ),
    "layer_norm F": entry(
        lambda m, y, x: F.layer_norm(y.movedim(1, -1), (y.shape[1],), m.w).movedim(-1, 1), w=parameter(8)
    ),
    "rms_norm F": entry(
        lambda m, y, x: F.rms_norm(y.movedim(1, -1), (y.shape[1],), m.w).movedim(-1, 1), w=parameter(8)
    ),
    "tril": entry(lambda m, y, x: y.tril() + y.triu(1)),
    "diagonal": entry(lambda m, y, x: y * y.diagonal(0, 2, 3).mean(-1)[..., None, None]),
    "diag_embed": entry(lambda m, y, x: torch.diag_embed(y.mean(2))),
    "scatter": entry(lambda m, y, x: torch.zeros_like(y).scatter(3, y.argsort(-1), y)),
    "scatter_add": entry(
        lambda m, y, x: torch.zeros_like(y).scatter_add(3, x[:, :1].argsort(-1).expand_as(y), y)
    ),
    "scatter_reduce": entry(
        lambda m, y, x: torch.zeros_like(y).scatter_reduce(3, x[:, :1].argsort(-1).expand_as(y), y, "amax")
    ),
    "index_add": entry(lambda m, y, x: torch.zeros_like(y).index_add(3, torch.tensor([1, 1, 2]), y[..., :3])),
    "index_copy": entry(lambda m, y, x: y.clone().index_copy_(3, torch.tensor([1, 3]), y[..., :2] * 2)),
    "index_fill": entry(lambda m, y, x: y.index_fill(3, torch.tensor([1, 3]), 2.0)),
    "index 1": entry(lambda m, y, x: y[:, :, torch.tensor([0, 2, 2])]),
    "index 2": entry(lambda m, y, x: y[:, :, torch.tensor([0, 2, 2]), torch.tensor([1, 0, 3])][..., None]),
    "index split": entry(lambda m, y, x: y[torch.tensor([0, 1, 1]), :, torch.tensor([0, 2, 2])][..., None]),
    "index mask": entry(lambda m, y, x: y.movedim(1, -1)[x[:, 0] > -9].view(len(y), 6, 8, -1).movedim(-1, 1)),
    "index 2d": entry(lambda m, y, x: y[:, :, torch.tensor([[0, 2], [2, 1]]), 0]),
    "index_put": entry(lambda m, y, x: y.index_put((torch.tensor([0]),), y[1:2] * 2) if True else y),
    "index_put mask": entry(
        lambda m, y, x: [z := y.movedim(1, -1).clone(), z.__setitem__(x[:, 0] > 0, 0.5), z.movedim(-1, 1)][-1]
    ),
    "index_put token": entry(
        lambda m, y, x: [
            z := y.movedim(1, -1).clone(),
            z.__setitem__(x[:, 0] > -9, m.tok),
            z.movedim(-1, 1) * y,
        ][-1],
        tok=parameter(8),
    ),
    "index_put trailing": entry(
        lambda m, y, x: [
            z := y.clone(),
            z.__setitem__((slice(None), slice(None), torch.tensor([0, 2])), y[:, :, :2] * 2),
            z,
        ][-1]
    ),
    "where token": entry(lambda m, y, x: torch.where(x[:, :1] > 0, m.tok, y), tok=parameter(8, 1, 1)),
    "repeat_interleave": entry(lambda m, y, x: y.repeat_interleave(2, -1)),
    "repeat_interleave t": entry(lambda m, y, x: y.repeat_interleave(torch.tensor([1, 2, 1, 0, 1, 1]), 2)),
    "repeat_interleave ch": entry(
        lambda m, y, x: m.o(y.repeat_interleave(2, 1)), 16, o=lambda: nn.Conv2d(16, 8, 1)
    ),
    "meshgrid": entry(
        lambda m, y, x: (
            y * torch.stack(torch.meshgrid(torch.arange(6.0), torch.arange(8.0), indexing="ij")).sum(0)
        )
    ),
    "one_hot": entry(lambda m, y, x: y + F.one_hot(x[:, :1].argmax(-1), 8) * 1.0),
    "roll flip rot": entry(lambda m, y, x: y.roll(2, -1).flip(2).rot90(2, (2, 3))),
    "slice_scatter": entry(lambda m, y, x: y.slice_scatter(y[..., :2] * 2, 3, 0, 2)),
    "select_scatter": entry(lambda m, y, x: y.select_scatter(y[..., 0] * 2, 3, 1)),
    "unfold method": entry(lambda m, y, x: y.unfold(3, 4, 2).mean(-1)),
    "einsum bhw": entry(lambda m, y, x: torch.einsum("bchw,bcxy->bxyhw", y, y).mean((1, 2))[:, None] * y),
    "einsum perm": entry(lambda m, y, x: torch.einsum("bchw->bhwc", y).movedim(-1, 1)),
    "einsum diag": entry(
        lambda m, y, x: torch.einsum("bchw,oc,c->bohw", y, m.w, m.v), 16, w=parameter(8, 8), v=parameter(8)
    ),
    "einsum ellipsis": entry(
        lambda m, y, x: torch.einsum("b...c,co->b...o", y.movedim(1, -1), m.w).movedim(-1, 1),
        16,
        w=parameter(8, 8),
    ),
    "einsum batch": entry(
        lambda m, y, x: torch.einsum("bchw,cd->bcdhw", y, m.w).sum(2), 13, w=parameter(8, 5)
    ),
    "tensordot": entry(
        lambda m, y, x: torch.tensordot(y, m.w, ([1], [0])).movedim(-1, 1), 16, w=parameter(8, 8)
    ),
    "conv F": entry(
        lambda m, y, x: F.conv2d(y, m.w, m.b, padding="same"), 16, w=parameter(8, 8, 3, 3), b=parameter(8)
    ),
    "conv_transpose F": entry(
        lambda m, y, x: F.conv_transpose2d(y, m.w, m.b, stride=2), 16, w=parameter(8, 8, 2, 2), b=parameter(8)
    ),
    "conv1d F": entry(lambda m, y, x: F.conv1d(y.flatten(2), m.w)[..., None], 16, w=parameter(8, 8, 1)),
    "conv3d F": entry(
        lambda m, y, x: F.conv3d(y[:, :, None], m.w, padding=(0, 1, 1))[:, :, 0],
        16,
        w=parameter(8, 8, 1, 3, 3),
    ),
    "dropouts": entry(
        lambda m, y, x: F.alpha_dropout(
            F.dropout2d(
                F.feature_alpha_dropout(F.dropout(y, 0.5, m.training), 0.5, m.training), 0.5, m.training
            ),
            0.5,
            m.training,
        )
    ),
    "dropout always": entry(lambda m, y, x: F.dropout(y, 0.5)),
    "celu etc": entry(
        lambda m, y, x: (
            F.celu(y)
            + F.selu(y)
            + F.mish(y)
            + F.softshrink(y)
            + F.hardshrink(y)
            + F.tanhshrink(y)
            + F.threshold(y, 0.1, 0.2)
            + F.rrelu(y)
            + F.logsigmoid(y)
            + F.hardtanh(y)
            + F.softplus(y)
            + F.softsign(y)
            + F.elu(y)
            + F.relu6(y)
        )
    ),
    "glu": entry(lambda m, y, x: m.o(F.glu(y, 1)), 12, o=lambda: nn.Conv2d(4, 8, 1)),
    "inplace zoo": entry(
        lambda m, y, x: (
            y.mul_(2)
            .add_(1)
            .sub_(0.5)
            .div_(2)
            .clamp_(0, 9)
            .sqrt_()
            .pow_(2)
            .neg_()
            .abs_()
            .exp_()
            .log_()
            .sigmoid_()
            .tanh_()
            .sin_()
            .square_()
            .reciprocal_()
            .add_(y)
            .fmod_(3)
            .lerp_(y, 0.5)
            .addcmul_(y, y)
            .masked_fill_(x[:, :1] > 0, 0.3)
            .clamp_min_(0)
            .relu_()
        )
    ),
    "inplace fn": entry(lambda m, y, x: F.elu_(F.hardtanh_(F.leaky_relu_(F.threshold_(y, 0.1, 0.2))))),
    "inplace others": entry(
        lambda m, y, x: F.silu(
            F.hardswish(
                F.selu(
                    F.celu(
                        F.relu6(F.hardsigmoid(F.mish(F.dropout(y, 0.5, False, True), True), True), True),
                        inplace=True,
                    ),
                    True,
                ),
                True,
            ),
            True,
        )
    ),
    "slice assign": entry(
        lambda m, y, x: [
            z := torch.zeros_like(y),
            z[:, :, 1:3].copy_(y[:, :, :2]),
            z.__setitem__((slice(None), slice(None), 0), y[:, :, 3]),
            z[..., 0].mul_(3),
            z + y,
        ][-1]
    ),
    "slice assign iadd": entry(
        lambda m, y, x: [z := y.clone(), z[:, :, ::2].add_(1), z.__setitem__((Ellipsis, 0), 5.0), z][-1]
    ),
    "out=": entry(
        lambda m, y, x: (
            [z := torch.empty_like(y), torch.mul(y, 2, out=z), z][-1]
            if not torch.is_grad_enabled()
            else y * 2
        )
    ),
    "set item bool": entry(lambda m, y, x: [z := y.clone(), z.__setitem__(z > 1, 1.0), z][-1]),
    "complex of y": entry(lambda m, y, x: torch.view_as_real(torch.complex(y, y)).sum(-1)),
    "searchsorted": entry(lambda m, y, x: y * torch.searchsorted(torch.tensor([0.1, 0.5], dtype=y.dtype), y)),
    "histc etc": entry(lambda m, y, x: y * torch.histc(x, 4).sum()),
    "logaddexp": entry(
        lambda m, y, x: torch.logaddexp(y, y * 2) + torch.sinc(y) + torch.special.entr(y + 1) + y
    ),
    "unflatten dims": entry(lambda m, y, x: y.unflatten(2, (2, 3)).flatten(2, 3)),
    "diff": entry(lambda m, y, x: torch.diff(y, dim=-1) + torch.trapezoid(y, dim=-1)[..., None]),
    "cov": entry(lambda m, y, x: y * torch.linalg.matrix_norm(y)[..., None, None]),
    "norm all": entry(lambda m, y, x: y / (1 + y.norm())),
    "tensor_split": entry(
        lambda m, y, x: (
            torch.cat(torch.tensor_split(y, 3, dim=-1), -1)
            + torch.cat(y.chunk(2, 2), 2)
            + torch.cat(torch.hsplit(y.movedim(1, -1), 2), 1).movedim(-1, 1)
        )
    ),
    "atleast": entry(lambda m, y, x: torch.atleast_3d(y).swapaxes(2, 3).mT),
    "expand dims": entry(lambda m, y, x: y[:, None].expand(-1, 3, -1, -1, -1).mean(1)),
    "broadcast": entry(lambda m, y, x: torch.broadcast_to(y.mean((2, 3), keepdim=True), y.shape) + y),
    "tile": entry(lambda m, y, x: y.tile(1, 1, 2, 1)),
    "kron": entry(lambda m, y, x: torch.kron(y, torch.ones(1, 1, 2, 2, dtype=y.dtype))),
    "nonzero": entry(lambda m, y, x: y * len((x > 9).nonzero())),
    "isfinite": entry(lambda m, y, x: torch.where(torch.isfinite(y), y, torch.zeros_like(y))),
    "max of two pooled idx": entry(
        lambda m, y, x: F.max_unpool2d(*F.max_pool2d(y, 2, return_indices=True), 2)
    ),
    "polygamma": entry(
        lambda m, y, x: (
            torch.lgamma(y + 1)
            + torch.digamma(y + 1)
            + torch.erfinv(y.tanh() * 0.5)
            + torch.logit(y.sigmoid())
        )
    ),
    "ceil floor": entry(lambda m, y, x: y.ceil() + y.floor() + y.round() + y.trunc() + y.frac() + y.sign()),
    "modulated convolution": entry(
        lambda m, y, x: m.o(modulated(m, y)),
        22,
        s=lambda: nn.Linear(8, 8),
        w=parameter(6, 8, 1, 1),
        o=lambda: nn.Conv2d(6, 8, 1),
    ),
}
# Autograd refuses what they write, or the layout of what comes back.
UNTRAINABLE = ("inplace", "conv_tbc")


@pytest.mark.parametrize("name", ENTRIES)
def test_cuts_are_exact(name: str) -> None:
    body, free, parts = ENTRIES[name]
    model = network(body, parts).eval()
    with unchanged(model):
        graph = capture(model, X)
    assert graph.n_units == free, explained(graph)
    first, *_, deepest = masks(graph)
    for mask in (first, deepest):
        assert_mask(graph, mask, second_batch=not name.startswith(UNTRAINABLE))


# -- refused with a reason -----------------------------------------------------------------------

PINNED: dict[str, tuple[Body, str]] = {
    "responses of neighbouring channels": (lambda m, y, x: F.local_response_norm(y, 3), "pooling"),
    "an inverse": (lambda m, y, x: torch.linalg.inv(y[..., :6] + 9 * torch.eye(6)), "no rule for operator"),
    "a cumulative sum over channels": (lambda m, y, x: y.cumsum(1), "along this axis"),
    "sorted channels": (lambda m, y, x: y.sort(1).values, "along this axis"),
    "the median channel": (lambda m, y, x: y - y.median(1, keepdim=True).values, "along this axis"),
    "the best channel": (lambda m, y, x: y * y.argmax(1, keepdim=True), "read as a position"),
    "the best of all": (lambda m, y, x: y * y.argmax(), "read as a position"),
    "channels gathered": (lambda m, y, x: y.gather(1, y.argsort(-1).clamp(max=7)), "indices"),
    "channels scattered": (lambda m, y, x: y.scatter(1, y.argsort(-1).clamp(max=7), y), "indices"),
    "channels written by index": (lambda m, y, x: y.index_fill(1, torch.tensor([1]), 0.0), "indices"),
    "channels put by index": (
        lambda m, y, x: y.index_put((torch.arange(2), torch.tensor([1, 2])), torch.zeros(6, 8)),
        "indices",
    ),
    "some channels replaced": (lambda m, y, x: y.slice_scatter(y[:, :2] * 2, 1, 0, 2), "a part of the axis"),
    "a matrix of channels": (lambda m, y, x: torch.diag_embed(y.mean((2, 3))) @ y.flatten(2), "diagonal"),
    "channels below the diagonal": (lambda m, y, x: y.movedim(1, -1).tril().movedim(-1, 1), "diagonal"),
}


@pytest.mark.parametrize("name", PINNED)
def test_what_does_not_follow_is_pinned_with_a_reason(name: str) -> None:
    body, reason = PINNED[name]
    parts = {"o": nn.Identity} if "matrix" not in name else {}
    model = network(
        lambda m, y, x: body(m, y, x).view(len(y), 8, 6, 8) if "matrix" in name else body(m, y, x), parts
    )
    graph = capture(model.eval(), X)
    text = graph.explain("stem.weight")
    assert "pinned: " in text and reason in text, text
    for mask in masks(graph) if graph.n_units else ():
        assert_mask(graph, mask, second_batch=False)
