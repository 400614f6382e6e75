"""The shared part of page and node, on models whose times and outputs are written down."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import numpy as np
import pytest

from compressor.export.bench.site import _WEB
from compressor.export.bench.web_runtime import program

pytestmark = pytest.mark.skipif(program("node") is None, reason="there is no node on this machine")

# A model's first time is that of its warm-up; then one a round, "fail" throws. An output of null is NaN.
PROGRAM = """
import { bench } from %(module)s;
const models = %(models)s;
const calls = [];
const entries = models.map(({ name, times, outputs, cannotOpen }) => ({
  name,
  fileBytes: 1,
  open: async () => {
    if (cannotOpen) throw new Error(cannotOpen);
    return {
      outputs: async () =>
        outputs.map((row) => ({ dims: [1, row.length], data: row.map((value) => value ?? NaN) })),
      time: async (count) => {
        calls.push(name);
        const time = times.shift();
        if (time === "fail") throw new Error("out of memory");
        return time * count;
      },
      heapBytes: () => 2,
    };
  },
}));
const options = { rounds: %(rounds)s, warmUpMs: 0, sampleMs: 1 };
console.log(JSON.stringify({ calls, results: await bench(entries, options) }));
"""


def bench(*models: dict[str, Any], rounds: int) -> dict[str, Any]:
    given = [{"outputs": [[1, 0]], "times": [1] * (rounds + 1), **model} for model in models]
    source = PROGRAM % {
        "module": json.dumps((_WEB / "bench.mjs").as_uri()),
        "models": json.dumps(given),
        "rounds": rounds,
    }
    node = str(program("node"))
    done = subprocess.run(
        [node, "--input-type=module", "-e", source], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_medians_and_percentiles_are_numpys_of_the_rounds_ratios() -> None:
    random = np.random.default_rng(0)
    base, small = (random.uniform(1, 3, 11) for _ in range(2))
    found = bench({"name": "base", "times": [1, *base]}, {"name": "small", "times": [1, *small]}, rounds=11)[
        "results"
    ][1]
    ratios = base / small
    for name, values in (("ms", small), ("speedup", ratios)):
        expected = [np.median(values), *np.quantile(values, [0.1, 0.9])]
        assert [found[name], found[f"{name}_p10"], found[f"{name}_p90"]] == pytest.approx(expected)
    assert found["speedup"] != pytest.approx(np.median(base) / np.median(small))


def test_the_order_alternates_from_round_to_round() -> None:
    calls = bench(*({"name": name} for name in "abc"), rounds=3)["calls"]
    assert "".join(calls) == "abc" + "abc" + "cba" + "abc"


def test_short_runs_are_repeated_until_they_can_be_timed() -> None:
    """Runs of 0.1 ms are tried 1, 2, 4, 8 at a time; 8 take 0.8 ms, so 10 take the one that is asked for."""
    model = {"name": "a", "times": [0.1] * 10}
    found = bench(model, rounds=1)
    assert found["calls"] == ["a"] * 5
    assert found["results"][0]["ms"] == pytest.approx(0.1)


def test_a_model_that_fails_while_timed_leaves_the_others() -> None:
    found = bench({"name": "base"}, {"name": "small", "times": [1, 1, "fail"]}, rounds=4)
    base, small = found["results"]
    assert (base["error"], base["rounds"]) == (None, 4)
    assert (small["error"], small["rounds"], small["ms"], small["top1_same"]) == (
        "out of memory",
        0,
        None,
        None,
    )
    assert found["calls"].count("small") == 3


def test_a_baseline_that_fails_while_timed_leaves_no_ratios() -> None:
    base, small = bench({"name": "base", "times": [1, 1, "fail"]}, {"name": "small"}, rounds=4)["results"]
    assert (base["error"], base["ms"]) == ("out of memory", None)
    assert (small["rounds"], small["ms"], small["speedup"]) == (4, 1, None)


def test_a_model_that_does_not_open_is_not_timed() -> None:
    base, small = bench({"name": "base", "cannotOpen": "no such operator"}, {"name": "small"}, rounds=2)[
        "results"
    ]
    assert base["error"] == "no such operator"
    assert (small["ms"], small["speedup"], small["top1_same"]) == (1, None, None)


def test_classes_are_counted_row_by_row_and_nan_agrees_with_nothing() -> None:
    outputs = [[[3, 1, 2], [0, 5, 0], [1, 1, 0]], [[9, 0, 0], [0, 0, 5], [1, 1, 0]]]
    first, second, third = bench(
        {"name": "base", "outputs": outputs[0]},
        {"name": "small", "outputs": outputs[1]},
        {"name": "broken", "outputs": [[None, 1, 2], [0, 5, 0], [1, 1, 0]]},
        rounds=1,
    )["results"]
    assert (first["top1_same"], first["top1_rows"], first["identical"]) == (3, 3, True)
    assert (second["top1_same"], second["identical"]) == (2, False)
    power, noise = 9 + 1 + 4 + 25 + 1 + 1, 36 + 1 + 4 + 25 + 25
    assert second["sqnr_db"] == pytest.approx(10 * np.log10(power / noise))
    assert (third["top1_same"], third["sqnr_db"], third["identical"]) == (2, None, False)


def test_outputs_of_another_shape_are_an_error() -> None:
    small = bench({"name": "base"}, {"name": "small", "outputs": [[1, 0, 0]]}, rounds=1)["results"][1]
    assert small["error"] == "its output is [1,3], the first model's [1,2]"
