"""Every width of the clutter filter and its discriminator is really cut, and what is left is exact."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import compressor as cp
from compressor.errors import InputError
from compressor.models import ClutterDiscriminator, ClutterFilter
from compressor.recovery import reconstruct_, remove_silenced
from compressor.training.sparsity import silence_
from tests.core.driver import assert_prunes_exactly, random_removal

FILTERS: dict[str, dict[str, Any]] = {
    "3d": {"levels": 3},
    "relu": {"levels": 3, "activation": nn.ReLU},
    "without gates": {"levels": 3, "gates": False},
    "without skip": {"levels": 2, "in_skip": False},
    "reflected": {"levels": 2, "reflect": True},
    "deep": {"levels": 4},
    "2d": {"levels": 3, "dims": 2},
    "2d deep": {"levels": 4, "dims": 2},
}
WIDTH = 4


def example(dims: int = 3, reflect: bool = False, **_: Any) -> Tensor:
    sizes = (13, 10) if reflect else (16, 8)
    return torch.rand(2, 1, *sizes, 3) if dims == 3 else torch.rand(2, 1, *sizes)


def scrambled_(net: nn.Module) -> Any:
    """In float64, with statistics and scales of some training."""
    for module in net.double().eval().modules():
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if name == "running_var":
                nn.init.uniform_(tensor, 0.5, 2.0)
            elif tensor.dim() == 1:
                nn.init.normal_(tensor)
    return net


def units_by_hand(levels: int, *, gates: bool = True) -> int:
    """Two widths in each encoder block; up, gate and two widths in each decoder block."""
    own: list[int] = [WIDTH * 2 ** (level + 1) for level in range(levels)]
    encoder = sum(width // 2 + width for width in own)
    decoder = sum(2 * width + width // 2 * gates + 2 * width for width in own[:-1])
    return encoder + decoder


@pytest.mark.parametrize("name", FILTERS)
def test_nothing_but_the_outer_channels_is_pinned(name: str) -> None:
    options = FILTERS[name]
    graph = cp.capture(ClutterFilter(width=WIDTH, **options).eval(), example(**options))
    assert graph.n_units == units_by_hand(options["levels"], gates=options.get("gates", True))
    outer = ("encoder.0.0.weight", 1), ("psi.weight", 0), ("psi.bias", 0), ("final.", 0)
    for axis in graph.axes:
        if axis.axis < 2 and axis.size > 1:  # further ones are those of the kernel
            assert axis.free.all(), (axis, graph.explain(axis.tensor))
        elif axis.axis < 2:
            assert any(part in axis.tensor and axis.axis == where for part, where in outer), axis


@pytest.mark.parametrize("name", FILTERS)
def test_every_cut_is_exact(name: str) -> None:
    options = FILTERS[name]
    assert_prunes_exactly(scrambled_(ClutterFilter(width=WIDTH, **options)), example(**options).double())


def readers_by_hand(levels: int, gates: bool) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Each writer, and the convolutions that read it: their names, and where its channels begin there."""
    for level in range(levels):
        yield f"encoder.{level}.0", [(f"encoder.{level}.4", 0)]
        up = levels - 2 - level  # the decoder that this level's features go to
        if level == levels - 1:
            read = [("decoder.0.up.conv", 0)] + [("decoder.0.gate.phi", 0)] * gates
        else:
            read = [(f"encoder.{level + 1}.0", 0), (f"decoder.{up}.block.0", 0)]
            read += [(f"decoder.{up}.gate.theta", 0)] * gates
        yield f"encoder.{level}.4", read
    for level in range(levels - 1):
        own = WIDTH * 2 ** (levels - 1 - level)
        if gates:
            yield f"decoder.{level}.gate.theta", [(f"decoder.{level}.gate.psi", 0)]
        yield f"decoder.{level}.up.conv", [(f"decoder.{level}.block.0", own)]
        yield f"decoder.{level}.block.0", [(f"decoder.{level}.block.4", 0)]
        following = [(f"decoder.{level + 1}.up.conv", 0)] + [(f"decoder.{level + 1}.gate.phi", 0)] * gates
        yield f"decoder.{level}.block.4", following if level < levels - 2 else [("final.0", 0)]


@pytest.mark.parametrize("name", FILTERS)
def test_a_pruned_filter_is_the_one_whose_readers_do_not_listen(name: str) -> None:
    """Without a word of the library's own oracle: readers are listed by hand, and their slices zeroed."""
    options = FILTERS[name]
    levels, gates = options["levels"], options.get("gates", True)
    net, x = scrambled_(ClutterFilter(width=WIDTH, **options)), example(**options).double()
    graph = cp.capture(net, x)
    plan = graph.plan(random_removal(graph, 1))
    small, deaf = cp.apply(net, plan), copy.deepcopy(net)
    removed = {cut.tensor: list(cut.removed) for cut in plan.cuts if cut.role == "writer" and cut.axis == 0}
    silenced = 0
    for writer, readers in readers_by_hand(levels, gates):
        gone = removed.get(f"{writer}.weight", [])
        silenced += len(gone)
        for reader, begin in readers:
            layer: Any = deaf.get_submodule(reader)
            layer.weight.data[:, [begin + channel for channel in gone]] = 0
    assert silenced == int(random_removal(graph, 1).sum()) > 0
    torch.testing.assert_close(small(x), deaf(x), rtol=1e-10, atol=1e-10)
    assert not torch.allclose(small(x), net(x), atol=1e-3)


def test_the_gates_two_inputs_lose_the_same_channels() -> None:
    net = ClutterFilter(width=WIDTH, levels=3).eval()
    small: Any = cp.prune(net, example(), budget=cp.budget.Uniform(0.5))
    for decoder, own in zip(small.decoder, (16, 8), strict=True):
        gate: Any = decoder.gate
        assert gate.theta.out_channels == gate.phi.out_channels == gate.psi.in_channels == own // 4
        assert gate.psi.out_channels == 1


def test_the_discriminator_is_cut_everywhere() -> None:
    net = ClutterDiscriminator(size=(16, 16, 4), width=4, depths=(2, 1)).double().eval()
    graph = assert_prunes_exactly(net, torch.rand(2, 1, 16, 16, 4).double())
    # Stem; two stages with one width for all inner convolutions but each its own, and a tied outer one; then
    # the convolutions over time and space, and three linear layers.
    assert graph.n_units == 4 + (2 * 4 + 8) + (8 + 16) + (8 + 2) + (64 + 32 + 16)


# -- linear activations: what is silent goes without a trace ---------------------------------------------


@pytest.mark.parametrize("gates", [True, False])
def test_silent_channels_go_exactly(gates: bool) -> None:
    net = scrambled_(ClutterFilter(width=WIDTH, levels=2, gates=gates))
    x = torch.rand(3, 1, 16, 8, 3, dtype=torch.float64)
    graph = cp.capture(net, x)
    plan = graph.plan(random_removal(graph, 0))
    silence_(plan, graph, tolerance=1e9)
    tensors = dict(net.named_parameters())
    for cut in plan.cuts:
        if cut.role == "writer" and cut.tensor.endswith(".bias"):
            tensors[cut.tensor].data[list(cut.removed)] = 0
    before = net(x)
    removal = remove_silenced(plan, graph, [x])
    torch.testing.assert_close(removal.model(x), before, rtol=0, atol=1e-12)
    assert removal.border == 0


def test_constants_are_folded_but_at_borders() -> None:
    """Behind scales of zero the shifts are left; linear layers carry them on as constants."""
    net = scrambled_(ClutterFilter(width=WIDTH, levels=2, gates=False))
    x = torch.rand(2, 1, 28, 28, 20, dtype=torch.float64)
    graph = cp.capture(net, x)
    plan = graph.plan(random_removal(graph, 0))
    silence_(plan, graph, tolerance=1e9)
    removal = remove_silenced(plan, graph, [x])
    difference = (removal.model(x) - net(x)).detach().abs()
    assert removal.border > 0.1 and float(difference.max()) > 1e-3
    # As far as the network sees: 2 + 2 · 2 pixels down, one step of 2 up, then 3, and 7 frames.
    assert float(difference[:, :, 11:-11, 11:-11, 8:-8].max()) < 1e-12


def test_a_constant_that_a_gate_multiplies_is_refused() -> None:
    net = scrambled_(ClutterFilter(width=WIDTH, levels=2))
    x = torch.rand(3, 1, 16, 8, 3, dtype=torch.float64)
    graph = cp.capture(net, x)
    plan = graph.plan(random_removal(graph, 0))
    silence_(plan, graph, tolerance=1e9)
    with pytest.raises(InputError, match="where a gate multiplies the constant, its shift, too"):
        remove_silenced(plan, graph, [x])


def test_what_another_channel_says_as_well_is_learnt_from_that_one() -> None:
    """Every second channel is a copy of the one before it: readers can make up for its loss."""
    net = scrambled_(ClutterFilter(width=WIDTH, levels=3))
    for tensor in net.state_dict().values():
        if tensor.dim() > 0 and len(tensor) > 1:
            tensor[1::2] = tensor[::2].clone()
    batches = [torch.rand(4, 1, 16, 16, 4, dtype=torch.float64) for _ in range(2)]
    graph = cp.capture(net, batches[0])
    removed = np.zeros(graph.n_units, dtype=bool)
    for group in graph.groups:
        removed[group.cells[0][1::2]] = True
    small = cp.apply(net, plan := graph.plan(removed))
    with torch.no_grad():
        expected, before = net(batches[0]), small(batches[0])
        assert not reconstruct_(small, net, batches, plan=plan, ridge=1e-10).left
        after = small(batches[0])
    assert float((before - expected).std()) > 1e-2 * float(expected.std())
    assert float((after - expected).std()) < 1e-6 * float(expected.std())


# -- export -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [2, 3])
def test_a_pruned_filter_runs_in_onnxruntime_on_any_size(dims: int, tmp_path: Path) -> None:
    x = torch.rand(2, 1, 16, 8, 3)[..., 0] if dims == 2 else torch.rand(2, 1, 16, 8, 3)
    net = ClutterFilter(width=WIDTH, levels=2, dims=dims, final_gamma=0.3, reflect=True).eval()
    small = cp.prune(net, x, budget=cp.budget.Macs(0.5))
    cp.export.onnx(small, x, tmp_path / "filter.onnx", dynamic=(0, 2, 3, 4)[: dims + 1])
    session = onnxruntime.InferenceSession(tmp_path / "filter.onnx")
    other = torch.rand(3, 1, 9, 14, 5)[..., 0] if dims == 2 else torch.rand(3, 1, 9, 14, 5)
    (found,) = session.run(None, {session.get_inputs()[0].name: other.numpy()})
    np.testing.assert_allclose(found, small(other).detach().numpy(), atol=1e-5)
