"""Heads, their dims, hidden widths, the stream and the tail of SwinIR are really cut, and exactly."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import compressor as cp
from compressor.core.graph import Graph
from compressor.models import SwinIR, create
from tests.core.driver import assert_mask, assert_prunes_exactly, masks

WIDTH, HEADS, DIM, FEATURES = 12, 3, 4, 6
BLOCKS = [f"layers.{g}.residual_group.blocks.{b}" for g, b in ((0, 0), (0, 1), (1, 0))]


def small() -> Any:
    """Scrambled, in float64: three blocks, one of them shifted."""
    net = SwinIR(width=WIDTH, depths=(2, 1), heads=HEADS, window=4, unshuffle=2, features=FEATURES)
    for name, parameter in net.named_parameters():
        nn.init.normal_(parameter, mean=1 if "norm" in name and name.endswith("weight") else 0, std=0.3)
    return net.double().eval()


def image() -> Tensor:
    return torch.rand(2, 3, 16, 16, dtype=torch.float64)


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(0)
    return cp.capture(small(), image())


def test_every_width_can_be_cut(graph: Graph) -> None:
    """By hand: the stream; heads, dims of queries with keys and dims of values, hidden units; the tail."""
    per_block = HEADS + 2 * DIM + 2 * WIDTH
    assert graph.n_units == WIDTH + 3 * per_block + FEATURES * 3  # before_upsample, one up, hr
    free = {(axis.tensor, axis.axis) for axis in graph.axes if axis.free.all()}
    ends = {("conv_first.1.weight", 1), ("conv_last.weight", 0), ("conv_last.bias", 0), ("mean", 1)}
    for axis in graph.axes:
        offsets = axis.tensor.endswith("bias_table") and axis.axis == 0
        kernel = axis.axis >= 2
        if axis.size > 1 and not offsets and not kernel:
            here = (axis.tensor, axis.axis)
            assert (here in free) != (here in ends), graph.explain(axis.tensor)
    for block in BLOCKS:
        assert {(f"{block}.attn.relative_position_bias_table", 1), (f"{block}.attn.qkv.weight", 0)} <= free


def test_every_cut_is_exact() -> None:
    graph = assert_prunes_exactly(small(), image())
    assert any(group.statistics for group in graph.groups)


def test_the_tiny_one_is_cut_exactly_on_an_image_that_is_padded() -> None:
    net = create("swinir_tiny").double().eval()
    graph = cp.capture(net, torch.rand(1, 1, 40, 64, dtype=torch.float64))
    assert_mask(graph, next(masks(graph)), second_batch=False)


# -- against hand-made references ------------------------------------------------------------------------


def removed_of(graph: Graph, tensor: str, axis: int, keep: Callable[[int], bool]) -> Any:
    """The removal of those units that channels of this axis have, and of no others."""
    (found,) = [a for a in graph.axes if (a.tensor, a.axis) == (tensor, axis)]
    mask = np.zeros(graph.n_units, dtype=bool)
    for channel in range(found.size):
        if not keep(channel):
            mask[found.units[..., channel]] = True
    return mask


def cut(graph: Graph, mask: Any) -> Any:
    assert mask.any()
    return cp.apply(graph.model, graph.plan(mask))


def assert_same(one: nn.Module, other: nn.Module) -> None:
    x = image()
    torch.testing.assert_close(one(x), other(x), rtol=1e-9, atol=1e-9)


def factor(graph: Graph, block: str, size: int, cells: int) -> Any:
    """The group of heads, or that of dims, of a block's attention."""
    name = f"{block}.attn.qkv.weight"
    (found,) = [g for g in graph.groups if g.name == name and (g.size, len(g.cells)) == (size, cells)]
    return found


@pytest.mark.parametrize("block", BLOCKS)
def test_a_head_is_what_the_projection_does_not_read(graph: Graph, block: str) -> None:
    mask = np.zeros(graph.n_units, dtype=bool)
    mask[factor(graph, block, HEADS, 1).cells[0][1]] = True
    pruned, deaf = cut(graph, mask), copy.deepcopy(graph.model)
    attn: Any = pruned.get_submodule(f"{block}.attn")
    assert attn.num_heads == HEADS - 1
    assert attn.qkv.weight.shape == (3 * (HEADS - 1) * DIM, WIDTH)
    assert attn.relative_position_bias_table.shape == (49, HEADS - 1)
    layer: Any = deaf.get_submodule(f"{block}.attn.proj")
    layer.weight.data[:, DIM : 2 * DIM] = 0
    assert_same(pruned, deaf)


def test_dims_of_queries_and_keys_go_together_and_those_of_values_apart(graph: Graph) -> None:
    name = f"{BLOCKS[1]}.attn.qkv.weight"
    dims = set(np.concatenate(factor(graph, BLOCKS[1], DIM, 2).cells).tolist())
    units = next(a for a in graph.axes if (a.tensor, a.axis) == (name, 0)).units
    mask = np.zeros(graph.n_units, dtype=bool)
    for row in (2, 2 * WIDTH + 3):  # a query's dim, and another one of a value
        mask[[unit for unit in units[:, row].tolist() if unit in dims]] = True
    assert mask.sum() == 2
    gone = [2, WIDTH + 2, 2 * WIDTH + 3]  # of the first head
    expected = sorted(row + head * DIM for row in gone for head in range(HEADS))
    assert np.flatnonzero(mask[units].any(0)).tolist() == expected
    pruned, deaf = cut(graph, mask), copy.deepcopy(graph.model)
    attn: Any = deaf.get_submodule(f"{BLOCKS[1]}.attn")
    for head in range(HEADS):
        attn.qkv.weight.data[head * DIM + 2] = 0  # a query of 0 adds nothing to q · k
        attn.qkv.bias.data[head * DIM + 2] = 0
        attn.proj.weight.data[:, head * DIM + 3] = 0
    assert_same(pruned, deaf)


@pytest.mark.parametrize(
    ("writer", "reader"),
    [
        (f"{BLOCKS[0]}.mlp.fc1", f"{BLOCKS[0]}.mlp.fc2"),
        ("conv_before_upsample.0", "conv_up1"),
        ("conv_up1", "conv_hr"),
        ("conv_hr", "conv_last"),
    ],
)
def test_a_hidden_channel_is_what_its_reader_does_not_read(graph: Graph, writer: str, reader: str) -> None:
    pruned = cut(graph, removed_of(graph, f"{writer}.weight", 0, lambda channel: channel % 2 == 0))
    deaf = copy.deepcopy(graph.model)
    layer: Any = deaf.get_submodule(reader)
    layer.weight.data[:, 1::2] = 0
    assert_same(pruned, deaf)
    layers: list[Any] = [pruned.get_submodule(writer), graph.model.get_submodule(writer)]
    left, before = (len(layer.weight) for layer in layers)
    assert 2 * left == before


def test_the_stream_is_one_whose_norms_count_what_is_left(graph: Graph) -> None:
    """Means and variances over the kept channels alone; what is removed leaves the norms as zero."""
    keep = torch.tensor([c for c in range(WIDTH) if c % 3])
    pruned = cut(graph, removed_of(graph, "conv_first.1.weight", 0, lambda channel: channel % 3 > 0))
    reference: Any = copy.deepcopy(graph.model)

    def over_kept(norm: Any, args: tuple[Tensor], _: Tensor) -> Tensor:
        x = args[0][..., keep]
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + norm.eps).sqrt()
        out = torch.zeros_like(args[0])
        out[..., keep] = scaled * norm.weight[keep] + norm.bias[keep]
        return out

    norms = [module for module in reference.modules() if isinstance(module, nn.LayerNorm)]
    assert len(norms) == 8
    for module in norms:
        module.register_forward_hook(over_kept)
    convs = [reference.layers[0].conv, reference.layers[1].conv, reference.conv_before_upsample[0]]
    for conv in convs:
        conv.weight.data[:, ::3] = 0
    assert_same(pruned, reference)
    assert all(m.normalized_shape == (len(keep),) for m in pruned.modules() if isinstance(m, nn.LayerNorm))


def test_a_pruned_one_trains_and_runs_on_other_sizes(graph: Graph) -> None:
    pruned = cp.prune(graph.model, image(), budget=cp.budget.Macs(0.5)).train()
    pruned(torch.rand(2, 3, 24, 9).double()).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in pruned.parameters())


@pytest.mark.parametrize(
    "free", [pytest.param((0,), id="batch"), pytest.param((0, 2, 3), id="any size", marks=pytest.mark.slow)]
)
def test_a_pruned_one_runs_in_onnxruntime(graph: Graph, free: tuple[int, ...], tmp_path: Path) -> None:
    x = image().float()
    pruned = cp.prune(copy.deepcopy(graph.model).float(), x, budget=cp.budget.Macs(0.5))
    cp.export.onnx(pruned, x, tmp_path / "swinir.onnx", dynamic=free)
    session = onnxruntime.InferenceSession(tmp_path / "swinir.onnx")
    other = torch.rand(3, 3, 16, 16) if free == (0,) else torch.rand(3, 3, 24, 13)
    (found,) = session.run(None, {session.get_inputs()[0].name: other.numpy()})
    np.testing.assert_allclose(found, pruned(other).detach().numpy(), atol=1e-4)
