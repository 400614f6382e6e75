"""Every kind of channel in HDiT can be removed, alone and with all others, as in cuts made by hand."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import compressor as cp
from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.models import Everywhere, HDiT, Neighborhood, ShiftedWindow, hdit_layers, hdit_small, hdit_xl2
from compressor.models.hdit_layers import Level
from compressor.models.token_attention import Reach
from tests.core.driver import Net, assert_mask, assert_prunes_exactly, explained, masks

UPPER, LOWER, DIM, COND = 32, 48, 16, 20  # widths of the two levels, of a head, of the conditioning
UPPER_LAYERS, LOWER_LAYERS = ("down_levels.0.0", "up_levels.0.0"), ("mid_level.0", "mid_level.1")
Cuts = dict[tuple[str, int], set[int]]  # (tensor, axis) -> indices that go


def network(reach: Reach, **options: int) -> HDiT:
    """Two levels, 16 x 16 pixels as 8 x 8 and 4 x 4 tokens; no weight is zero."""
    torch.manual_seed(0)
    levels = Level(UPPER, 1, reach, head_dim=DIM), Level(LOWER, 2, Everywhere(), head_dim=DIM)
    return scrambled(HDiT(levels, patch=2, mapping_depth=1, mapping_width=COND, **options))


@torch.no_grad()
def scrambled(net: HDiT) -> HDiT:
    for parameter in net.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.2)
    return net.eval()


@pytest.fixture(scope="module")
def inputs() -> tuple[Tensor, Tensor]:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)), torch.tensor([0.3, 0.8])


@pytest.fixture(scope="module")
def graph(inputs: tuple[Tensor, Tensor]) -> Graph:
    return capture(network(Neighborhood(7)), *inputs)


# -- cuts by hand --------------------------------------------------------------------------------


def head(layer: str, width: int, h: int) -> Cuts:
    """Its rows of queries, keys and values, its scale, its frequencies, and what reads it."""
    dims = range(h * DIM, (h + 1) * DIM)
    return {
        (f"{layer}.self_attn.qkv_proj.weight", 0): {part * width + i for part in range(3) for i in dims},
        (f"{layer}.self_attn.scale", 0): {h},
        (f"{layer}.self_attn.pos_emb.freqs", 0): {h},
        (f"{layer}.self_attn.out_proj.weight", 1): set(dims),
    }


def frequency(layer: str, width: int, f: int) -> Cuts:
    """In every head the dims that it turns: r frequencies, so j and j + 2 r for rows and for columns."""
    r = DIM // 8
    return {
        **_of_queries_and_keys(layer, width, [f, f + r, f + 2 * r, f + 3 * r]),
        (f"{layer}.self_attn.pos_emb.freqs", 1): {f},
    }


def still_dim(layer: str, width: int, j: int) -> Cuts:
    """A dim of queries and keys that does not turn, in the second half of every head."""
    return _of_queries_and_keys(layer, width, [DIM // 2 + j])


def _of_queries_and_keys(layer: str, width: int, dims: Iterable[int]) -> Cuts:
    starts = [part * width + h * DIM for part in (0, 1) for h in range(width // DIM)]
    return {(f"{layer}.self_attn.qkv_proj.weight", 0): {s + j for s in starts for j in dims}}


def value_dim(layer: str, width: int, j: int) -> Cuts:
    heads = range(width // DIM)
    return {
        (f"{layer}.self_attn.qkv_proj.weight", 0): {2 * width + h * DIM + j for h in heads},
        (f"{layer}.self_attn.out_proj.weight", 1): {h * DIM + j for h in heads},
    }


def hidden(block: str, width: int, i: int) -> Cuts:
    """A value and its gate."""
    return {
        (f"{block}.up_proj.weight", 0): {i, i + 3 * width},
        (f"{block}.down_proj.weight", 1): {i},
    }


def fourier(features: str, reader: str, i: int) -> Cuts:
    """A random frequency of time, its cosine and its sine."""
    return {(f"{features}.weight", 0): {i}, (f"{reader}.weight", 1): {i, i + COND // 2}}


def _in_layer(layer: str, c: int) -> Cuts:
    return {
        (f"{layer}.self_attn.norm.linear.weight", 0): {c},
        (f"{layer}.self_attn.qkv_proj.weight", 1): {c},
        (f"{layer}.self_attn.out_proj.weight", 0): {c},
        (f"{layer}.ff.norm.linear.weight", 0): {c},
        (f"{layer}.ff.up_proj.weight", 1): {c},
        (f"{layer}.ff.down_proj.weight", 0): {c},
    }


def upper_stream(c: int) -> Cuts:
    copies = {k * UPPER + c for k in range(4)}  # (row, column, channel) of what merges and splits
    return union(
        {("patch_in.proj.weight", 0): {c}, ("out_norm.scale", 0): {c}, ("patch_out.proj.weight", 1): {c}},
        {("merges.0.proj.weight", 1): copies, ("splits.0.proj.weight", 0): copies},
        *(_in_layer(layer, c) for layer in UPPER_LAYERS),
    )


def lower_stream(c: int) -> Cuts:
    return union(
        {("merges.0.proj.weight", 0): {c}, ("splits.0.proj.weight", 1): {c}},
        *(_in_layer(layer, c) for layer in LOWER_LAYERS),
    )


def conditioning(c: int) -> Cuts:
    norms = [f"{layer}.{part}" for layer in UPPER_LAYERS + LOWER_LAYERS for part in ("self_attn", "ff")]
    block = "mapping.blocks.0"
    return {
        ("time_in_proj.weight", 0): {c},
        ("aug_in_proj.weight", 0): {c},
        ("mapping.in_norm.scale", 0): {c},
        (f"{block}.norm.scale", 0): {c},
        (f"{block}.up_proj.weight", 1): {c},
        (f"{block}.down_proj.weight", 0): {c},
        ("mapping.out_norm.scale", 0): {c},
        **{(f"{norm}.norm.linear.weight", 1): {c} for norm in norms},
    }


def union(*cuts: Cuts) -> Cuts:
    whole: Cuts = {}
    for cut in cuts:
        for key, indices in cut.items():
            whole[key] = whole.get(key, set()) | indices
    return whole


KINDS: dict[str, Cuts] = {
    "head": head("down_levels.0.0", UPPER, 1),
    "heads": union(head("mid_level.1", LOWER, 0), head("mid_level.1", LOWER, 2)),
    "frequency": frequency("up_levels.0.0", UPPER, 1),
    "still dims": union(*(still_dim("mid_level.0", LOWER, j) for j in (0, 3, 7))),
    "value dims": union(*(value_dim("down_levels.0.0", UPPER, j) for j in (2, 3, 11))),
    "hidden": union(*(hidden("mid_level.0.ff", LOWER, i) for i in (0, 77, 143))),
    "fourier": union(*(fourier("time_emb", "time_in_proj", i) for i in (1, 6))),
    "fourier of augmentation": fourier("aug_emb", "aug_in_proj", 4),
    "hidden of the mapping": hidden("mapping.blocks.0", COND, 31),
    "upper stream": union(*map(upper_stream, (0, 9, 30))),
    "lower stream": union(*map(lower_stream, (5, 6, 47))),
    "conditioning": union(*map(conditioning, (0, 19))),
}
KINDS["all"] = union(*KINDS.values())


def plan_of_units(graph: Graph, cuts: Cuts) -> cp.Plan:
    """The plan for the units of one axis of each cut, the one with most of them; the rest must follow."""
    mask = torch.zeros(graph.n_units, dtype=torch.bool).numpy()
    for axis in graph.axes:
        gone = sorted(cuts.get((axis.tensor, axis.axis), ()))
        for units in axis.units.reshape(-1, axis.units.shape[-1]):
            # a unit goes where all of its channels on this axis do: a head, not the dims of all heads
            for unit in {int(u) for u in units[gone] if u >= 0}:
                if set((units == unit).nonzero()[0].tolist()) <= set(gone):
                    mask[unit] = True
    return graph.plan(mask)


# -- references by hand --------------------------------------------------------------------------


def sliced(net: HDiT, cuts: Cuts) -> dict[str, Tensor]:
    """The tensors of the network without these rows and columns."""
    state = dict(net.state_dict())
    for (name, axis), gone in cuts.items():
        kept = [i for i in range(state[name].shape[axis]) if i not in gone]
        state[name] = state[name].index_select(axis, torch.tensor(kept))
    return state


@torch.no_grad()
def silenced(net: HDiT, cuts: Cuts) -> HDiT:
    """The whole network in float64 with zeros for what goes, and norms that do not count the zeros."""
    whole = copy.deepcopy(net).double()
    for (name, axis), gone in cuts.items():
        if not name.endswith(("scale", "freqs")):
            tensor = whole.state_dict()[name]
            tensor.index_fill_(axis, torch.tensor(sorted(gone)), 0.0)
    counted = {
        "patch_in.proj.weight": (
            *(f"{layer}.{p}.norm" for layer in UPPER_LAYERS for p in ("self_attn", "ff")),
            "out_norm",
        ),
        "merges.0.proj.weight": tuple(
            f"{layer}.{p}.norm" for layer in LOWER_LAYERS for p in ("self_attn", "ff")
        ),
        "time_in_proj.weight": ("mapping.in_norm", "mapping.blocks.0.norm", "mapping.out_norm"),
    }
    for writer, norms in counted.items():
        size = whole.state_dict()[writer].shape[0]
        left = (size - len(cuts.get((writer, 0), ()))) / size
        for norm in norms:
            whole.get_submodule(norm).register_forward_hook(lambda m, args, y, left=left: y * left**0.5)
    return whole


@pytest.fixture
def _exact_norms(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With no epsilon to speak of, zeros among the channels change a norm by a factor only."""
    monkeypatch.setattr(hdit_layers, "EPS", 1e-200)
    yield


@pytest.mark.usefixtures("_exact_norms")
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_channel_is_cut_as_by_hand(
    kind: str, graph: Graph, inputs: tuple[Tensor, Tensor]
) -> None:
    net, cuts = graph.model, KINDS[kind]
    assert isinstance(net, HDiT)
    plan = plan_of_units(graph, cuts)
    small = cp.apply(net, plan)
    expected = sliced(net, cuts)
    found = small.state_dict()
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name

    x, t = (part.double() for part in inputs)
    with torch.no_grad():
        torch.testing.assert_close(small.double()(x, t), silenced(net, cuts)(x, t), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_cut_is_verified(kind: str, graph: Graph, inputs: tuple[Tensor, Tensor]) -> None:
    plan = plan_of_units(graph, KINDS[kind])
    small = cp.apply(graph.model, plan)
    assert cp.verify(graph.model, small, plan, *inputs, graph=graph).error < 1e-9


def test_the_oracle_sees_a_wrong_dim(graph: Graph, inputs: tuple[Tensor, Tensor]) -> None:
    net = graph.model
    assert isinstance(net, HDiT)
    x, t = (part.double() for part in inputs)
    small = cp.apply(net, plan_of_units(graph, KINDS["still dims"])).double()
    wrong = union(*(still_dim("mid_level.0", LOWER, j) for j in (0, 3, 6)))
    with torch.no_grad():
        assert (small(x, t) - silenced(net, wrong)(x, t)).abs().max() > 1e-6


# -- what can go ---------------------------------------------------------------------------------

# in each layer: heads, frequencies, dims that do not turn, dims of values, hidden
LAYERS = [width // DIM + DIM // 8 + DIM // 2 + DIM + 3 * width for width in (UPPER, UPPER, LOWER, LOWER)]
TIME = 2 * (COND // 2) + 9 + COND + 3 * COND  # the nine numbers of augmentation are zeros
UNITS = sum(LAYERS) + UPPER + LOWER + TIME


def test_everything_but_pixels_can_go(graph: Graph) -> None:
    assert graph.n_units == UNITS, explained(graph)
    fixed = {
        (axis.tensor, axis.axis)
        for axis in graph.axes
        if (axis.units.reshape(-1, axis.units.shape[-1]) < 0).all(0).any()
    }
    assert fixed == {("patch_in.proj.weight", 1), ("patch_out.proj.weight", 0)}
    assert not graph.patch_rules


def test_groups_say_which_norms_count_fewer_channels(graph: Graph) -> None:
    statistics = {
        group.name: group.statistics for group in graph.groups if group.size in (UPPER, LOWER, COND)
    }
    assert statistics == {
        "patch_in.proj.weight": True,
        "merges.0.proj.weight": True,
        "time_in_proj.weight": True,
    }


REACHES = [Everywhere(), Neighborhood(7, tile=1), Neighborhood(5, tile=3), ShiftedWindow(4)]


@pytest.mark.parametrize("reach", REACHES, ids=str)
def test_random_cuts_are_exact_whatever_tokens_see(reach: Reach, inputs: tuple[Tensor, Tensor]) -> None:
    assert_prunes_exactly(network(reach), *inputs, free=UNITS)


def test_three_levels_are_cut_exactly() -> None:
    torch.manual_seed(0)
    levels = (
        Level(16, 1, Neighborhood(3), head_dim=8),
        Level(24, 1, Neighborhood(3), head_dim=8),
        Level(32, 1, Everywhere(), head_dim=16),
    )
    net = scrambled(HDiT(levels, patch=1, mapping_depth=2, mapping_width=8, in_channels=4))
    graph = assert_prunes_exactly(net, torch.rand(1, 4, 12, 16), torch.tensor([0.4]))
    assert {group.size for group in graph.groups} >= {16, 24, 32, 8}


def test_without_time_the_ones_in_its_place_go_one_by_one(inputs: tuple[Tensor, Tensor]) -> None:
    assert_prunes_exactly(network(Everywhere()), inputs[0], free=UNITS + COND // 2)


def test_small_heads_stay_of_one_size(graph: Graph) -> None:
    small = cp.apply(graph.model, plan_of_units(graph, KINDS["all"]))
    attention = small.get_submodule("mid_level.1.self_attn")
    assert isinstance(attention, hdit_layers.SelfAttention)
    assert attention.heads == 1 and attention.scale.shape == (1,)
    assert attention.pos_emb.freqs.shape == (1, DIM // 8)
    assert (attention.key_width, attention.value_width) == (DIM, DIM)
    first = small.get_submodule("down_levels.0.0.self_attn")
    assert isinstance(first, hdit_layers.SelfAttention)
    assert (first.heads, first.key_width, first.value_width) == (1, DIM, DIM - 3)


# -- from end to end -----------------------------------------------------------------------------


def test_a_pruned_network_runs_in_onnxruntime(
    graph: Graph, inputs: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    small = cp.apply(graph.model, plan_of_units(graph, KINDS["all"]))
    # the older exporter takes a fifth of the time; the newer one is for the slow test
    exporter = cp.export.Exporter.TORCHSCRIPT
    report = cp.export.onnx(small, *inputs, tmp_path / "net.onnx", exporter=exporter)
    assert "t [batch]" in str(report) and "[3, 3, 16, 16]" in str(report)  # at a second batch size, too


@pytest.mark.slow
@pytest.mark.parametrize("reach", [None, Everywhere(), ShiftedWindow(8)], ids=str)
def test_the_small_network_is_exported_at_half_of_its_macs(reach: Reach | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = scrambled(hdit_small(reach=reach))
    x, t = torch.rand(2, 3, 32, 32), torch.tensor([0.3, 0.8])
    small = cp.prune(net, x, t, budget=cp.budget.Macs(0.5))
    assert cp.profile(small, x, t).macs <= 0.5 * cp.profile(net, x, t).macs
    with warnings.catch_warnings():
        warnings.simplefilter("error", cp.errors.ExporterWarning)  # the newer exporter takes it
        cp.export.onnx(small, x, t, tmp_path / "net.onnx")


def test_a_pruned_network_is_saved_and_loaded(
    graph: Graph, inputs: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    small = cp.apply(graph.model, plan_of_units(graph, KINDS["all"]))
    cp.save(small, tmp_path / "net")
    again = cp.load(tmp_path / "net", lambda: network(Neighborhood(7)))
    with torch.no_grad():
        assert torch.equal(again(*inputs), small(*inputs))


def integrated(net: nn.Module, z: Tensor, steps: int) -> Tensor:
    for step in range(steps):
        z = z + net(z, torch.full((len(z),), step / steps)) / steps
    return z


def test_a_light_cut_moves_samples_little_and_a_deep_one_keeps_them_finite(
    graph: Graph, inputs: tuple[Tensor, Tensor]
) -> None:
    z, _ = inputs
    moved = {}
    for kind in ("hidden", "all"):
        small = cp.apply(graph.model, plan_of_units(graph, KINDS[kind]))
        with torch.no_grad():
            whole, samples = (integrated(net, z, 10) for net in (graph.model, small))
        assert samples.isfinite().all()
        moved[kind] = float((samples - whole).norm() / (whole - z).norm())
    assert 0 < moved["hidden"] < 0.1 < moved["all"]


def test_a_sampler_of_several_steps_loses_what_one_step_can(inputs: tuple[Tensor, Tensor]) -> None:
    sampler = Net(lambda m, z: integrated(m.net, z, 2), net=network(Everywhere()))
    found = capture(sampler, inputs[0])
    assert found.n_units == UNITS, explained(found)
    assert_mask(found, next(masks(found)), second_batch=False)


@pytest.mark.slow
def test_the_large_network_is_cut_to_half_of_its_macs() -> None:
    torch.manual_seed(0)
    net = hdit_xl2().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    small = cp.prune(net, torch.rand(1, 3, 64, 64), torch.tensor([0.3]), budget=cp.budget.Macs(0.5))
    assert 0.4 < sum(p.numel() for p in small.parameters()) / 121_544_221 < 0.6
