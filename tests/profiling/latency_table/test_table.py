"""What a table predicts, against a runtime whose times are known."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import compressor as cp
from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.core.surgery import apply
from compressor.errors import FileError, InputError, LatencyWarning
from compressor.profiling import LatencyTable, latency_table
from compressor.profiling.latency_table import measuring
from compressor.profiling.latency_table.identity import identity_of
from compressor.profiling.latency_table.measuring import REFERENCE
from compressor.runtimes import Eager
from tests.core.networks import Case
from tests.profiling.latency_table.conftest import network
from tests.profiling.latency_table.synthetic import Synthetic


def removal(graph: Graph, kept: tuple[int, ...]) -> np.ndarray:
    gone = np.zeros(graph.n_units, dtype=bool)
    for group, keep in zip(graph.groups, kept, strict=True):
        for cell in group.cells:
            gone[cell[keep:]] = True
    return gone


def true_ms(graph: Graph, table: LatencyTable, gone: np.ndarray) -> float:
    assert isinstance(table.runtime, Synthetic)
    return table.runtime.ms(apply(graph.model, graph.plan(gone)), graph.args, graph.kwargs)


@settings(max_examples=15, deadline=None)
@given(kept=st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 3)))
def test_whole_blocks_are_predicted_within_a_few_percent(
    kept: tuple[int, ...], graph: Graph, in_blocks: LatencyTable
) -> None:
    gone = removal(graph, tuple(16 * k for k in kept))
    assert in_blocks.predict(graph, gone) == pytest.approx(true_ms(graph, in_blocks, gone), rel=0.05)


@settings(max_examples=15, deadline=None)
@given(kept=st.tuples(st.integers(17, 64), st.integers(17, 96), st.integers(17, 48)))
def test_any_width_of_a_smooth_runtime_is_predicted_within_a_few_percent(
    kept: tuple[int, ...], graph: Graph, smooth: LatencyTable
) -> None:
    gone = removal(graph, kept)
    assert smooth.predict(graph, gone) == pytest.approx(true_ms(graph, smooth, gone), rel=0.05)


@settings(max_examples=15, deadline=None)
@given(kept=st.tuples(st.integers(33, 64), st.integers(49, 96), st.integers(33, 48)))
def test_widths_that_fit_no_block_are_predicted_roughly(
    kept: tuple[int, ...], graph: Graph, in_blocks: LatencyTable
) -> None:
    gone = removal(graph, kept)
    assert in_blocks.predict(graph, gone) == pytest.approx(true_ms(graph, in_blocks, gone), rel=0.35)


def test_the_error_on_models_left_out_is_reported(in_blocks: LatencyTable, smooth: LatencyTable) -> None:
    assert 0 < in_blocks.error < 0.05
    assert 0 < smooth.error < 0.05


def test_a_plan_and_its_removal_are_predicted_alike(graph: Graph, in_blocks: LatencyTable) -> None:
    gone = removal(graph, (32, 48, 16))
    assert in_blocks.predict(graph, graph.plan(gone)) == in_blocks.predict(graph, gone)


def test_the_shares_of_modules_sum_up_to_the_whole(graph: Graph, in_blocks: LatencyTable) -> None:
    gone = removal(graph, (33, 47, 20))
    shares = in_blocks.cost(graph).by_module(gone)
    assert sum(shares.values()) == pytest.approx(in_blocks.predict(graph, gone))
    assert set(shares) >= {"0", "3", "5", "7", "10"}


def test_many_candidates_at_once_cost_what_each_costs(graph: Graph, in_blocks: LatencyTable) -> None:
    order = [np.stack(group.cells) for group in graph.groups]
    at = in_blocks.cost(graph).along(order)
    lost = np.array([[0, 0, 0], [32, 16, 16], [1, 2, 3], [63, 95, 47]])
    expected = [in_blocks.predict(graph, removal(graph, tuple([64, 96, 48] - row))) for row in lost]
    assert at(lost).tolist() == pytest.approx(expected)


def test_widths_that_pay_are_whole_blocks(graph: Graph, in_blocks: LatencyTable) -> None:
    kept = [group.size - rungs for group, rungs in zip(graph.groups, in_blocks.rungs(graph), strict=True)]
    assert in_blocks.round_to == 16
    assert [widths[widths >= 16].tolist() for widths in kept] == [
        [64, 48, 32, 16],
        [96, 80, 64, 48, 32, 16],
        [48, 32, 16],
    ]


def test_a_smooth_runtime_leaves_widths_alone(graph: Graph, smooth: LatencyTable) -> None:
    assert smooth.round_to <= 2
    assert all(
        len(rungs) > group.size // 4 for group, rungs in zip(graph.groups, smooth.rungs(graph), strict=True)
    )


def test_no_width_that_pays_is_as_slow_as_a_wider_one(graph: Graph, in_blocks: LatencyTable) -> None:
    cost = in_blocks.cost(graph)
    for position, rungs in enumerate(in_blocks.rungs(graph)):
        kept = [group.size for group in graph.groups]
        times = []
        for lost in rungs.tolist():
            kept[position] = graph.groups[position].size - lost
            times.append(cost.total(removal(graph, tuple(kept))))
        assert (np.diff(times) < 0).all()


def test_a_machine_that_gets_slower_does_not_matter(
    graph: Graph, in_blocks: LatencyTable, tmp_path: Path
) -> None:
    busy = latency_table(graph, runtime=Synthetic(block=16, odd=3.0, drift=1e-3), path=tmp_path / "busy.json")
    gone = removal(graph, (32, 48, 16))
    ratio = busy.predict(graph, gone) / busy.predict(graph)
    assert ratio == pytest.approx(in_blocks.predict(graph, gone) / in_blocks.predict(graph), rel=0.05)


def test_a_second_call_measures_nothing(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = latency_table(graph, runtime=Synthetic(), path=tmp_path / "t.json")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(measuring, "measure_samples", refuse)
    again = latency_table(graph, runtime=Synthetic(), path=tmp_path / "t.json")
    assert again.rows == first.rows
    assert again.predict(graph) == first.predict(graph)


def test_an_interrupted_table_goes_on_where_it_was(
    graph: Graph, in_blocks: LatencyTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compressor.profiling.latency_table import building

    calls = []

    def twice_then_stop(rows: list[object], *args: object, **kwargs: object) -> list[float]:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(rows)
        return measuring.measure_rows(rows, *args, **kwargs)  # type: ignore[arg-type]

    path = tmp_path / "t.json"
    monkeypatch.setattr(building, "measure_rows", twice_then_stop)
    with pytest.raises(KeyboardInterrupt):
        latency_table(graph, runtime=Synthetic(block=16, odd=3.0), path=path)
    monkeypatch.undo()
    assert len(json.loads(path.read_text())["rows"]) == sum(map(len, calls)) > 0
    assert latency_table(graph, runtime=Synthetic(block=16, odd=3.0), path=path).rows == in_blocks.rows


def test_layers_that_a_table_has_are_not_measured_for_another_network(graph: Graph, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    before = latency_table(graph, runtime=Synthetic(), path=path)
    wider = network()
    wider[10] = nn.Linear(48, 20)
    other = capture(wider, torch.zeros(1, 3, 16, 16))
    after = latency_table(other, runtime=Synthetic(), path=path)
    assert {str(row.layer) for row in set(after.rows) - set(before.rows)} == {"Linear on 1"}
    assert len(after.refinements) == 2
    assert after.predict(graph) == before.predict(graph)


def test_a_table_comes_back_from_its_file(graph: Graph, tmp_path: Path) -> None:
    runtime = cp.runtimes.Eager()
    table = latency_table(graph, runtime=Synthetic(), path=tmp_path / "t.json")
    table = replace(table, runtime=runtime)
    table.save(tmp_path / "u.json")
    back = LatencyTable.load(tmp_path / "u.json")
    assert (back.rows, back.refinements, back.identity) == (table.rows, table.refinements, table.identity)
    assert back.runtime == runtime
    assert back.predict(graph) == table.predict(graph)


def test_a_table_of_another_runtime_is_refused(graph: Graph, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    latency_table(graph, runtime=Synthetic(), path=path)
    with pytest.raises(InputError, match=r"measured elsewhere: its runtime is 'Synthetic.*block=16"):
        latency_table(graph, runtime=Synthetic(block=16), path=path)


def test_a_table_of_another_machine_is_refused_and_can_be_loaded(graph: Graph, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    table = latency_table(graph, runtime=Synthetic(), path=path)
    phone = replace(table, runtime=cp.runtimes.Eager(), identity=replace(table.identity, processor="Phone"))
    phone.save(path)
    with pytest.raises(InputError, match="its processor is 'Phone'"):
        latency_table(graph, runtime=Synthetic(), path=path)
    assert LatencyTable.load(path).predict(graph) == table.predict(graph)
    with pytest.raises(InputError, match="cannot be checked here"):
        LatencyTable.load(path).check(graph.model, graph.model, *graph.args, fraction=0.5)


def _signed(content: dict[str, object]) -> str:
    """A file whose digest is right, whatever is in it."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps({"format": "compressor latency table", "version": 2, "digest": digest, **content})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "no latency table that can be read"),
        ("[]", "is no latency table"),
        ('{"format": "another"}', "is no latency table"),
        ('{"format": "compressor latency table", "version": 99}', "version 99"),
        ('{"format": "compressor latency table", "version": 2}', "was changed after it was written"),
        (_signed({}), "damaged"),
    ],
)
def test_a_file_that_is_no_table_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.raises(FileError, match=message):
        LatencyTable.load(path)


@pytest.mark.parametrize("old, new", [('"reference_ms": 0.1', '"reference_ms": 0.2'), ("0.1", "0.3")])
def test_a_number_that_was_changed_is_noticed(old: str, new: str, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    LatencyTable(identity_of(Eager()), Eager(), 0.1, {REFERENCE: 0.1}).save(path)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(FileError, match=r"t\.json was changed after it was written; delete it"):
        LatencyTable.load(path)
    path.write_bytes(text.encode()[: len(text) // 2])
    with pytest.raises(FileError, match=r"t\.json is no latency table that can be read"):
        LatencyTable.load(path)


def test_an_unknown_network_is_refused(in_blocks: LatencyTable) -> None:
    other = capture(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)), torch.zeros(1, 4))
    with pytest.raises(InputError, match=r"knows 1 networks and not this Sequential.*latency_table\(graph"):
        in_blocks.predict(other)


def test_what_is_no_graph_is_refused() -> None:
    with pytest.raises(InputError, match="latency_table needs a captured graph, got"):
        latency_table(network())  # type: ignore[arg-type]


def test_a_model_on_another_device_is_refused(graph: Graph) -> None:
    elsewhere = replace(graph, model=network().to("meta"))
    with pytest.raises(InputError, match="Sequential lies on meta: capture it on the CPU"):
        latency_table(elsewhere, runtime=Synthetic())


def test_what_is_no_runtime_is_refused(graph: Graph) -> None:
    with pytest.raises(InputError, match=r"runtimes\.OnnxRuntime\(\) is expected"):
        latency_table(graph, runtime="onnxruntime")  # type: ignore[arg-type]


def test_a_folder_that_cannot_be_written_is_named(graph: Graph, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="COMPRESSOR_CACHE"):
        latency_table(graph, runtime=Synthetic(), path=tmp_path / "file" / "t.json")


def test_the_cache_folder_can_be_named(graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPRESSOR_CACHE", str(tmp_path))
    latency_table(graph, runtime=Synthetic())
    assert [path.name.startswith("latency-") for path in tmp_path.iterdir()] == [True]


def test_predictions_that_are_off_are_said_to_be(graph: Graph, tmp_path: Path) -> None:
    with pytest.warns(LatencyWarning, match=r"off by up to \d+%"):
        latency_table(graph, runtime=Jumpy(), path=tmp_path / "t.json")


class Jumpy(Synthetic):
    """Whole models take twice as long when they are of more than five layers and narrow."""

    def ms(self, model: nn.Module, args: object, kwargs: object) -> float:
        plain = super().ms(model, args, kwargs)  # type: ignore[arg-type]
        channels = sum(m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d))
        return plain * (2.0 if len(list(model)) > 5 and channels % 3 == 0 else 1.0)  # type: ignore[call-overload]


def test_groups_whose_cells_hold_more_units_than_can_go_are_measured(tmp_path: Path) -> None:
    net, x = Case(2, ("padded", "halves"), 0).build()
    graph = capture(net, x)
    assert any(len(set(map(len, group.cells))) > 1 for group in graph.groups)
    table = latency_table(graph, runtime=Synthetic(block=4), path=tmp_path / "table.json")
    assert (
        cp.profile(cp.prune(net, x, budget=cp.budget.Latency(0.8, table)), x).macs < cp.profile(net, x).macs
    )
