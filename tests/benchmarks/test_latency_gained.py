"""Latency gained: what the cuts keep to, what the tables say, which files are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import compressor as cp
from benchmarks import latency_cuts, latency_gained
from benchmarks.figures import latency_gained as figures
from benchmarks.latency_cuts import BASE
from benchmarks.latency_gained_tables import tables
from benchmarks.phone_nets import Net
from benchmarks.results import Table
from tests.profiling.latency_table.synthetic import Synthetic

BLOCK = 16


def _net() -> Net:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(32, 48, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, 10, bias=False),
    )
    x = torch.randn(1, 3, 8, 8)
    return Net("net", model.eval(), x, [x], "random")


def _macs(model: nn.Module) -> int:
    first, second, last = model[0], model[2], model[6]
    assert isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d) and isinstance(last, nn.Linear)
    assert last.out_features == 10, "a class is gone"
    return (
        64 * 9 * (3 * first.out_channels + first.out_channels * second.out_channels) + 10 * last.in_features
    )


def test_every_cut_keeps_to_its_fraction_and_to_its_multiples(tmp_path: Path) -> None:
    net = _net()
    graph = cp.capture(net.model, net.x)
    runtime = Synthetic(block=BLOCK)
    table = cp.profiling.latency_table(
        graph, runtime=runtime, path=tmp_path / "table.json", row_rounds=1, whole_rounds=1
    )
    models, facts = latency_cuts.networks(net, 0.5, table, cache=tmp_path)
    assert list(facts) == [BASE, *latency_cuts.ours(0.5, net, table, None), *latency_cuts.theirs(net)]
    whole = _macs(net.model)
    assert {name: fact["macs"] for name, fact in facts.items()} == {n: _macs(m) for n, m in models.items()}
    cuts = {name: model for name, model in models.items() if name != BASE}
    assert all(_macs(model) <= 0.5 * whole for name, model in cuts.items() if "latency" not in name)
    for name in ("ours, multiples of 8", "torch-pruning, multiples of 8"):
        assert models[name][0].out_channels % 8 == models[name][2].out_channels % 8 == 0
    assert models["ours, widths of the table"][0].out_channels % BLOCK == 0
    ms = runtime.ms(net.model, (net.x,), {}) / runtime.ms(models["ours, latency"], (net.x,), {})
    assert ms >= 1.9  # half of the time, as far as the table predicts it
    assert facts["ours, latency"]["promised"] == pytest.approx(ms, rel=0.1)


def test_a_cut_that_torch_pruning_cannot_make_is_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: object) -> nn.Module:
        raise IndexError("out of range")

    monkeypatch.setattr(latency_cuts, "largest_within", fails)
    monkeypatch.setattr(latency_cuts, "ours", lambda *given: {})
    net = _net()
    models, facts = latency_cuts.networks(net, 0.5, None, cache=tmp_path)  # type: ignore[arg-type]
    assert [*models] == [BASE]
    assert facts["torch-pruning"] == {"failure": "IndexError: out of range"}


def _timing(speedup: float) -> dict[str, float]:
    return {"speedup": speedup, "speedup_p10": speedup - 0.1, "speedup_p90": speedup + 0.1}


def _row() -> dict[str, Any]:
    timings = {BASE: _timing(1.0), "ours": _timing(1.5), "torch-pruning": _timing(1.25)}
    return {
        "case": "net 0.5",
        "network": "net",
        "fraction": 0.5,
        "weights": "trained",
        "rounds": 9,
        "images": {"tested": 1000, "norms": 256},
        "cuts": {
            BASE: {"macs": 800, "params": 40},
            "ours": {"macs": 400, "params": 10, "promised": 1.6},
            "torch-pruning": {"macs": 392, "params": 20},
            "torch-pruning, multiples of 8": {"failure": "IndexError"},
        },
        "measured": {
            "default": timings,
            "accuracy": {name: {"as_cut": 0.5, "norms": 0.75} for name in timings},
        },
        "skipped": {"extended": "no such level"},
    }


def _column(table: Table, name: str) -> list[str]:
    return [row[table.columns.index(name)] for row in table.rows]


def test_the_table_has_macs_speed_ups_and_accuracy_of_every_cut() -> None:
    _, table = tables([_row()])
    assert _column(table, "MACs left") == ["1.000", "0.500", "0.490", "-"]
    assert _column(table, "parameters left") == ["1.000", "0.250", "0.500", "-"]
    assert _column(table, "promised") == ["-", "1.60x", "-", "-"]
    assert _column(table, "onnxruntime")[1:3] == ["1.50x (1.40-1.60)", "1.25x (1.15-1.35)"]
    assert _column(table, "norms anew %")[:3] == ["75.0"] * 3
    assert _column(table, "note") == ["", "", "", "IndexError"]
    assert "extended skipped: no such level" in table.notes
    assert "Accuracy of 1,000 test images; norms measured anew on 256 " in table.notes[0]


def test_the_fastest_of_ours_that_is_no_less_accurate_is_held_against_the_fastest_of_theirs() -> None:
    row = _row()
    row["cuts"] |= {name: {"macs": 400, "params": 10} for name in ("ours, careless", "ours, latency")}
    row["measured"]["default"] |= {"ours, careless": _timing(1.9), "ours, latency": _timing(2.0)}
    row["measured"]["accuracy"] |= {
        "ours, careless": {"as_cut": 0.5, "norms": 0.74},
        "ours, latency": {"as_cut": 0.5, "norms": 0.9},
    }
    (line,) = tables([row])[0].rows
    assert line[2:] == (
        *("onnxruntime", "torch-pruning (0.490)", "1.25x", "75.0"),
        *("ours (0.500)", "1.50x", "75.0", "1.20"),
    )
    row["measured"]["accuracy"] = {}  # not measured yet
    assert tables([row])[0].rows[0][6:] == ("-", "-", "-", "-")
    row["weights"] = "random"
    (line,) = tables([row])[0].rows
    assert line[6:] == ("careless (0.500)", "1.90x", "-", "1.52")


def test_accuracy_is_of_the_network_as_cut_and_with_norms_measured_anew() -> None:
    class Shifted(nn.Module):
        """Names class 1 for all, until its norm has seen the images."""

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(2, affine=False)
            self.norm.running_mean = torch.tensor([100.0, 0.0])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.norm(x)
            return scores

    images = torch.tensor([[3.0, 1.0], [1.0, 3.0], [3.0, 1.0], [1.0, 3.0]])
    labels = torch.tensor([0, 1, 0, 1])
    net = Net("net", Shifted().eval(), images[:1], [images], "trained", (images, labels))
    cuts = latency_cuts.Cuts(net, {BASE: net.model}, {}, {}, 1)
    assert latency_gained.MEASURES["accuracy"](cuts) == {BASE: {"as_cut": 0.5, "norms": 1.0}}
    assert net.model.norm.running_mean.tolist() == [100.0, 0.0]  # the network itself is left alone


def test_the_figure_has_a_dot_for_each_cut_that_was_measured() -> None:
    (axes,) = figures.speedups([{"rows": [_row()]}]).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ours", "torch-pruning"]
    at = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]
    assert at == [1.5, 1.25]
