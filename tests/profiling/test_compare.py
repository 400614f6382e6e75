"""Comparisons as tables."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from compressor.budget import Uniform
from compressor.core.surgery import apply
from compressor.profiling import compare
from compressor.scoring import Scores
from tests.core.transformers import Sizes, example, transformer


def test_the_table_shows_what_is_left_of_every_cost() -> None:
    wide = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    slim = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Linear(2, 2))
    found = compare(wide, slim, torch.zeros(5, 4))
    lines = str(found).splitlines()
    assert lines[0] == "Sequential on [5, 4] float32 (whole batch)"
    assert lines[1].split() == ["before", "after", "left", "factor"]
    assert lines[2].split() == ["MACs", "240", "60", "25.0%", "4.00x"]
    assert lines[3].split() == ["parameters", "58", "16", "27.6%", "3.62x"]
    assert lines[4].split() == ["weight", "bytes", "232", "B", "64", "B", "27.6%", "3.62x"]
    assert lines[5].split() == ["activation", "bytes", "360", "B", "120", "B", "33.3%", "3.00x"]
    # At ReLU, with the input: (4 + 8 + 8) and (4 + 2 + 2) floats of five rows.
    assert lines[6].split() == ["peak", "activation", "bytes", "400", "B", "160", "B", "40.0%", "2.50x"]
    assert lines[7].startswith("latency") and lines[7].endswith("x")
    assert "CPU time of 1 thread" in lines[8]


def test_layers_that_only_one_model_has_are_shown() -> None:
    one = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    other = nn.Sequential(nn.Linear(4, 2))
    lines = compare(one, other, torch.zeros(1, 4)).layers().splitlines()
    assert lines[1].split() == ["0", "Linear", "32", "8", "25.0%", "40", "10", "25.0%"]
    assert lines[2].split() == ["1", "Linear", "16", "-", "-", "18", "-", "-"]


def test_layers_of_attention_are_compared_as_they_are_counted_by_hand() -> None:
    graph = transformer(Sizes(heads=4, dims=6, values=5, hidden=10, width=12))
    removed = Uniform(0.5).choose(Scores(graph, np.arange(graph.n_units, dtype=np.float64), "by hand"))
    small = apply(graph.model, graph.plan(removed))
    rows = {
        line.split()[0]: line.split()[2:5]
        for line in compare(graph.model, small, example()).layers().splitlines()
    }
    # 3 of 4 heads, 4 of 6 dims of queries, 4 of 5 of values, half of the widths; 5 tokens.
    assert rows["attentions.0.q"] == ["1,440", "360", "25.0%"]  # 5 · 12 · 4 · 6, 5 · 6 · 3 · 4
    assert rows["attentions.0.v"] == ["1,200", "360", "30.0%"]  # 5 · 12 · 4 · 5, 5 · 6 · 3 · 4
    assert rows["attentions.0.out"] == ["1,200", "360", "30.0%"]
    assert rows["attentions.0"] == ["1,100", "600", "54.5%"]  # 4 · 25 · (6 + 5), 3 · 25 · (4 + 4)
