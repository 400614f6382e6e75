"""Each command does what its function of the library does, and says so in JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer
from torch import nn

import compressor as cp
from compressor.cli import app
from compressor.cli.inputs import parse_input
from tests.cli.conftest import IMAGE, Run

NET = "tiny_net:Tiny"

# By hand, for two images of 8x8: conv1 3x3x3 -> 8 at 8x8, conv2 8x3x3 -> 6 at 6x6, fc 6 -> 5.
MACS = 2 * (27 * 8 * 64 + 72 * 6 * 36 + 6 * 5)
PARAMS = 27 * 8 + 2 * 8 + 72 * 6 + 2 * 6 + 6 * 5 + 5


@pytest.fixture
def x() -> torch.Tensor:
    return parse_input("2x3x8x8").tensor(torch.Generator().manual_seed(0))


def test_profile_counts_what_one_counts_by_hand(run: Run) -> None:
    outcome = run("profile", NET, *IMAGE, "--json")
    assert outcome.code == 0
    assert outcome.data["totals"]["macs"] == MACS
    assert outcome.data["totals"]["params"] == PARAMS


def test_profile_prints_the_table_of_the_library(run: Run, tiny: nn.Module, x: torch.Tensor) -> None:
    outcome = run("profile", NET, *IMAGE)
    assert outcome.out == f"{cp.profile(tiny, x)}\n"


def test_the_output_of_a_model_does_not_end_up_in_the_json(run: Run) -> None:
    outcome = run("profile", NET, *IMAGE, "--json")
    assert "Tiny speaks" in outcome.err
    assert "Tiny speaks" not in outcome.out


def test_progress_is_on_stderr_unless_quiet(run: Run) -> None:
    assert "profiling Tiny" in run("profile", NET, *IMAGE).err
    assert "profiling Tiny" not in run("profile", NET, *IMAGE, "--quiet").err


@pytest.mark.parametrize("spec", ["tiny_net:Tiny", "tiny_net:net", "tiny_net:Nets.build", "resnet20_cifar"])
def test_a_model_is_a_class_an_object_a_function_or_a_name(run: Run, spec: str) -> None:
    assert run("profile", spec, *IMAGE, "--json").data["totals"]["params"] > 0


def test_plan_writes_the_plan_of_the_library(run: Run, here: Path, tiny: nn.Module, x: torch.Tensor) -> None:
    outcome = run("plan", NET, *IMAGE, "--macs", "0.5", "--json")
    graph = cp.capture(tiny, x)
    expected = cp.plan(cp.score(graph, cp.scoring.Norm(power=2)), cp.budget.Macs(0.5))
    assert cp.Plan.load(here / "net.plan.json") == expected
    after = cp.profile(cp.apply(tiny, expected), x)
    assert outcome.data["before"]["macs"] == MACS
    assert outcome.data["after"]["macs"] == after.macs <= MACS / 2
    assert outcome.data["after"]["params"] == after.params
    assert outcome.data["cuts"] == len(expected.cuts)


def test_plan_prints_the_summary(run: Run, here: Path) -> None:
    outcome = run("plan", NET, *IMAGE, "--uniform", "0.5", "--out", "half.json")
    assert outcome.out.startswith(cp.Plan.load(here / "half.json").summary())
    assert "wrote half.json" in outcome.out


@pytest.mark.parametrize(
    ("options", "budget"),
    [
        (["--macs", "0.6"], cp.budget.Macs(0.6)),
        (["--params", "0.6"], cp.budget.Params(0.6)),
        (["--memory", "0.7"], cp.budget.Memory(0.7)),
        (["--bytes", "0.6"], cp.budget.Bytes(0.6)),
        (["--uniform", "0.3"], cp.budget.Uniform(0.3)),
        (["--global", "0.3"], cp.budget.Global(0.3)),
        (
            ["--macs", "0.7", "--memory", "0.8", "--round-to", "2"],
            cp.budget.All([cp.budget.Macs(0.7), cp.budget.Memory(0.8)], round_to=2),
        ),
        (["--macs", "0.7", "--ignore", "conv1"], cp.budget.Macs(0.7, ignore="conv1")),
        (["--macs", "0.7", "--max-ratio", "0.3"], cp.budget.Macs(0.7, max_ratio=0.3)),
        (["--macs", "0.7", "--min-channels", "5"], cp.budget.Macs(0.7, min_channels=5)),
        (["--uniform", "0.5", "--round-to", "4"], cp.budget.Uniform(0.5, round_to=4)),
        (["--macs", "0.6", "--ratio", "conv2=0.5"], cp.budget.Macs(0.6, ratios={"conv2": 0.5})),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_budget_options_mean_the_budgets_of_the_library(
    run: Run,
    here: Path,
    tiny: nn.Module,
    x: torch.Tensor,
    options: list[str],
    budget: cp.budget.Budget,
) -> None:
    assert run("plan", NET, *IMAGE, *options).code == 0
    scores = cp.score(cp.capture(tiny, x), cp.scoring.Norm(power=2))
    assert cp.Plan.load(here / "net.plan.json") == cp.plan(scores, budget)


@pytest.mark.parametrize(
    ("name", "scorer"),
    [
        ("norm", cp.scoring.Norm(power=2)),
        ("l1", cp.scoring.Norm(1)),
        ("geometric-median", cp.scoring.GeometricMedian()),
        ("batch-norm-scale", cp.scoring.BatchNormScale()),
        ("lamp", cp.scoring.LAMP()),
        ("whc", cp.scoring.WHC()),
        ("filter-quality", cp.scoring.FilterQuality()),
        ("syn-flow", cp.scoring.SynFlow()),
        ("random", cp.scoring.Random(0)),
    ],
)
def test_scorer_names_mean_the_scorers_of_the_library(
    run: Run, here: Path, tiny: nn.Module, x: torch.Tensor, name: str, scorer: cp.Scorer
) -> None:
    assert run("plan", NET, *IMAGE, "--uniform", "0.5", "--scorer", name).code == 0
    expected = cp.plan(cp.score(cp.capture(tiny, x), scorer), cp.budget.Uniform(0.5))
    written = cp.Plan.load(here / "net.plan.json")
    assert written == expected
    assert written.note == expected.note


@pytest.mark.parametrize("name", ["taylor", "fisher", "grasp", "hessian"])
def test_scorers_that_read_data_get_it(
    run: Run, here: Path, tiny: nn.Module, module: ModuleType, x: torch.Tensor, name: str
) -> None:
    kind = {
        "taylor": cp.scoring.Taylor,
        "fisher": cp.scoring.Fisher,
        "grasp": cp.scoring.GraSP,
        "hessian": cp.scoring.Hessian,
    }[name]
    loss = torch.nn.functional.cross_entropy
    data = ["--data", "tiny_net:batches", "--loss", "torch.nn.functional:cross_entropy"]
    outcome = run("plan", NET, *IMAGE, "--uniform", "0.5", "-s", name, *data, "--batches", "2")
    assert outcome.code == 0, outcome.err
    scores = cp.score(cp.capture(tiny, x), kind(list(module.batches())[:2], loss))
    assert cp.Plan.load(here / "net.plan.json") == cp.plan(scores, cp.budget.Uniform(0.5))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("apoz", cp.scoring.APoZ),
        ("beta-rank", cp.scoring.BetaRank),
        ("mean-activation", cp.scoring.MeanActivation),
        ("chip", cp.scoring.CHIP),
        ("reconstruction-error", cp.scoring.ReconstructionError),
    ],
)
def test_scorers_of_activations_need_no_loss(
    run: Run, here: Path, tiny: nn.Module, module: ModuleType, x: torch.Tensor, name: str, kind: Any
) -> None:
    data = ["--data", "tiny_net:batches", "--batches", "2"]
    outcome = run("plan", NET, *IMAGE, "--uniform", "0.5", "-s", name, *data)
    assert outcome.code == 0, outcome.err
    scores = cp.score(cp.capture(tiny, x), kind(list(module.batches())[:2]))
    assert cp.Plan.load(here / "net.plan.json") == cp.plan(scores, cp.budget.Uniform(0.5))


def test_a_function_of_ones_own_is_a_scorer(
    run: Run, here: Path, tiny: nn.Module, module: ModuleType, x: torch.Tensor
) -> None:
    assert run("plan", NET, *IMAGE, "--uniform", "0.5", "-s", "tiny_net:largest").code == 0
    scores = cp.score(cp.capture(tiny, x), module.largest)
    assert cp.Plan.load(here / "net.plan.json") == cp.plan(scores, cp.budget.Uniform(0.5))


def test_steps_end_where_the_steps_of_the_library_end(
    run: Run, here: Path, tiny: nn.Module, x: torch.Tensor
) -> None:
    outcome = run("plan", NET, *IMAGE, "--macs", "0.4", "--steps", "3", "--scorer", "lamp")
    assert "step 3 of 3" in outcome.err
    small = cp.prune(tiny, x, scorer=cp.scoring.LAMP(), budget=cp.budget.Macs(0.4), steps=3)
    planned = cp.apply(tiny, cp.Plan.load(here / "net.plan.json"))
    assert torch.equal(planned(x), small(x))


def test_prune_saves_what_prune_of_the_library_makes(
    run: Run, module: ModuleType, tiny: nn.Module, x: torch.Tensor
) -> None:
    outcome = run("prune", NET, *IMAGE, "--macs", "0.5", "--out", "small", "--json")
    expected = cp.prune(tiny, x, budget=cp.budget.Macs(0.5))
    loaded = cp.load("small", module.Tiny)
    assert torch.equal(loaded(x), expected(x))
    after = cp.profile(expected, x)
    assert outcome.data["before"]["macs"] == MACS
    assert outcome.data["before"]["params"] == PARAMS
    assert outcome.data["after"] == after.to_dict()["totals"]
    assert outcome.data["verified"]["error"] < 1e-9
    assert outcome.data["latency"]["rounds"] >= 5
    assert outcome.data["onnx"] is None


def test_prune_shows_the_comparison(run: Run) -> None:
    outcome = run("prune", NET, *IMAGE, "--uniform", "0.5", "--out", "small")
    assert outcome.code == 0
    for words in ("before", "after", "MACs", "latency", "verified:", "wrote small"):
        assert words in outcome.out


def test_prune_recovers_as_the_library_does(
    run: Run, module: ModuleType, tiny: nn.Module, x: torch.Tensor
) -> None:
    args = ["prune", NET, *IMAGE, "--macs", "0.5", "--recover", "tiny_net:batches", "--out", "small"]
    outcome = run(*args, "--json")
    recover = cp.recovery.Reconstruction(list(module.batches()))
    expected = cp.prune(tiny, x, budget=cp.budget.Macs(0.5), recover=recover)
    assert torch.equal(cp.load("small", module.Tiny)(x), expected(x))
    layers = outcome.data["recovered"]["layers"]
    assert set(layers) == {"conv2.weight", "fc.weight"} and outcome.data["recovered"]["left"] == {}
    assert all(layer["after"] <= layer["before"] for layer in layers.values())
    assert "reconstructed 2 layers" in run(*args[:-1], "again").out


def test_prune_writes_onnx_that_computes_the_same(
    run: Run, here: Path, module: ModuleType, x: torch.Tensor
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    args = ["prune", NET, *IMAGE, "--macs", "0.5", "--out", "small", "--onnx", "a.onnx", "--json"]
    outcome = run(*args)
    session = runtime.InferenceSession(str(here / "a.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    expected = cp.load("small", module.Tiny)(x).detach()
    assert torch.allclose(torch.from_numpy(found), expected, atol=1e-5)
    assert outcome.data["onnx"]["file_bytes"] == (here / "a.onnx").stat().st_size


def test_a_saved_folder_is_profiled_verified_and_exported(run: Run, here: Path) -> None:
    pytest.importorskip("onnxruntime")
    pruned = run("prune", NET, *IMAGE, "--macs", "0.5", "--out", "small", "--json").data
    profiled = run("profile", NET, "--saved", "small", *IMAGE, "--json").data
    assert profiled["totals"] == pruned["after"]
    verified = run("verify", NET, "--saved", "small", *IMAGE, "--json").data
    assert verified["verified"] is True
    assert verified["error"] < 1e-9
    exported = run("export", "onnx", NET, "--saved", "small", *IMAGE, "-o", "a.onnx", "--json").data
    assert exported["file_bytes"] == (here / "a.onnx").stat().st_size


def test_a_saved_folder_becomes_a_bundle_for_phones(run: Run, here: Path) -> None:
    pytest.importorskip("onnxruntime")
    (here / "classes.txt").write_text("ant\nbee\ncat\ndog\neel\n", encoding="utf-8")
    run("prune", NET, *IMAGE, "--macs", "0.5", "--out", "small")
    outcome = run(
        *("export", "mobile", NET, "--saved", "small", *IMAGE, "--out", "bundle", "--no-page", "--baseline"),
        *("--calibration", "tiny_net:batches", "--held-out", "tiny_net:batches", "--classes", "classes.txt"),
        *("--mean", "0", "--mean", "1", "--mean", "2", "--std", "1", "--std", "1", "--std", "2", "--json"),
    )
    assert outcome.code == 0, outcome.err
    manifest = json.loads((here / "bundle/manifest.json").read_text(encoding="utf-8"))
    assert (manifest["mean"], manifest["classes"][0]) == ([0, 1, 2], "ant")
    assert set(outcome.data["files"]) == {*manifest["files"], "manifest.json"}
    rows = outcome.data["comparison"]
    assert [row["path"] for row in rows] == [
        "baseline.onnx", "bundle/model.onnx", "bundle/model.int8.onnx"
    ]  # fmt: skip
    assert rows[0]["accuracy"] is not None and manifest["plan_digest"] is not None


def test_export_leaves_no_axis_free_when_fixed(run: Run) -> None:
    pytest.importorskip("onnxruntime")
    exported = run("export", "onnx", NET, *IMAGE, "-o", "a.onnx", "--fixed", "--json").data
    assert list(exported["inputs"].values()) == [[2, 3, 8, 8]]
    assert exported["exporter"] == "torch.export"


def test_export_names_axes(run: Run) -> None:
    options = ("--dynamic", "0=images", "--exporter", "TorchScript")
    outcome = run("export", "onnx", NET, *IMAGE, "--out", "tiny.onnx", *options, "--json")
    assert outcome.data["inputs"] == {"x": ["images", 3, 8, 8]}


def test_export_takes_the_exporter_that_is_asked_for(run: Run) -> None:
    pytest.importorskip("onnxruntime")
    exported = run("export", "onnx", NET, *IMAGE, "-o", "a.onnx", "--exporter", "TorchScript", "--json").data
    assert exported["exporter"] == "TorchScript" and exported["fallback"] is None


def test_apply_cuts_as_the_plan_says(
    run: Run, here: Path, module: ModuleType, tiny: nn.Module, x: torch.Tensor
) -> None:
    run("plan", NET, *IMAGE, "--uniform", "0.5")
    outcome = run("apply", NET, "--plan", "net.plan.json", "--out", "small", "--json")
    expected = cp.apply(tiny, cp.Plan.load(here / "net.plan.json"))
    assert torch.equal(cp.load("small", module.Tiny)(x), expected(x))
    count = sum(p.numel() for p in expected.parameters())
    assert outcome.data["params"] == {"before": PARAMS, "after": count}
    assert outcome.data["verified"] is None


def test_apply_verifies_when_it_has_inputs(run: Run) -> None:
    run("plan", NET, *IMAGE, "--uniform", "0.5")
    outcome = run("apply", NET, "--plan", "net.plan.json", *IMAGE, "--out", "small", "--json")
    assert outcome.data["verified"]["error"] < 1e-9


def test_a_plan_alone_is_verified(run: Run) -> None:
    run("plan", NET, *IMAGE, "--uniform", "0.5")
    outcome = run("verify", NET, "--plan", "net.plan.json", *IMAGE)
    assert outcome.code == 0
    assert outcome.out.startswith("verified: relative error")


def test_overwrite_replaces_an_earlier_result(run: Run) -> None:
    first = ["prune", NET, *IMAGE, "--uniform", "0.5", "--out", "small", "--json"]
    second = ["prune", NET, *IMAGE, "--uniform", "0.25", "--out", "small", "--json", "--overwrite"]
    before, after = run(*first).data["after"]["params"], run(*second).data["after"]["params"]
    assert run("profile", NET, "--saved", "small", *IMAGE, "--json").data["totals"]["params"] == (after)
    assert before < after


def test_explain_says_what_goes_together(run: Run, tiny: nn.Module, x: torch.Tensor) -> None:
    outcome = run("explain", NET, "conv1", *IMAGE)
    assert outcome.out == cp.capture(tiny, x).explain("conv1.weight") + "\n"
    data = run("explain", NET, "conv1", *IMAGE, "--json").data
    written = next(axis for axis in data["axes"] if axis["axis"] == 0)
    assert (written["channels"], written["removable"], written["pinned"]) == (8, 8, [])
    (group,) = data["groups"]
    assert ["conv2.weight", 1] in group["tensors"]
    assert ["bn1.running_var", 0] in group["tensors"]


def test_explain_gives_the_reason_of_what_is_pinned(run: Run) -> None:
    data = run("explain", NET, "fc", *IMAGE, "--json").data
    written = next(a for a in data["axes"] if (a["tensor"], a["axis"]) == ("fc.weight", 0))
    assert written["removable"] == 0
    assert any("output of the model" in reason for reason in written["pinned"])


def test_explain_without_a_layer_lists_all_groups(run: Run) -> None:
    outcome = run("explain", NET, *IMAGE)
    for words in ("conv1.weight", "conv2.weight", "never removed:", "fc.weight axis 0: 5 of 5"):
        assert words in outcome.out


def test_inputs_have_types_and_names(run: Run) -> None:
    inputs = ["-i", "tokens=2x7:int64:50", "-i", "scale=1"]
    outcome = run("prune", "tiny_net:Words", *inputs, "--uniform", "0.5", "-o", "small", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.data["before"]["macs"] == 2 * 7 * (8 * 12 + 12 * 3)
    positional = ["-i", "2x7:int64:50", "-i", "1"]
    assert run("profile", "tiny_net:Words", *positional, "--json").data["totals"] == (outcome.data["before"])


def test_a_random_model_of_the_library_is_warned_of(run: Run) -> None:
    outcome = run("plan", "resnet20_cifar", *IMAGE, "--uniform", "0.5")
    assert "random weights" in outcome.words


def test_a_warning_of_the_library_is_one_line_on_stderr(run: Run) -> None:
    outcome = run("plan", NET, *IMAGE, "--uniform", "0.01", "--json")
    assert outcome.code == 0
    assert "warning: Uniform(0.01) removed nothing" in outcome.err
    assert "warnings.warn" not in outcome.err
    assert outcome.data["cuts"] == 0


@pytest.mark.parametrize(
    "name",
    [
        *("profile", "explain", "prune", "plan", "apply", "verify", "sensitivity", "search"),
        *("export onnx", "export mobile"),
    ],
)
def test_every_help_teaches_by_example(run: Run, name: str) -> None:
    outcome = run(*name.split(), "--help")
    assert outcome.code == 0
    assert f"compressor {name} " in outcome.out[outcome.out.index("Example:") :]


def test_the_help_gives_the_exit_codes(run: Run) -> None:
    text = " ".join(run("--help").out.split())
    assert "Exit codes: 0 all went well; 1 an error" in text
    assert cp.__version__ in run("--version").out


def _helps(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all commands and of all groups of commands."""
    yield path
    for name, inner in getattr(command, "commands", {}).items():
        yield from _helps(inner, (*path, name))


EVERY = list(_helps(typer.main.get_command(app)))


def test_there_are_as_many_commands_as_are_documented() -> None:
    assert ("filters", "verify") in EVERY and ("suggest", "widths") in EVERY and len(EVERY) > 20


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_a_help_shows_square_brackets_as_they_are(run: Run, path: tuple[str, ...]) -> None:
    """What rich takes for markup disappears; an extra in brackets would be installed without it."""
    outcome = run(*path, "--help")
    assert outcome.code == 0
    shown = " ".join(outcome.out.replace("│", " ").split())
    named = re.findall(r"compressor(\S*)", shown)
    assert "\\[" not in shown
    for where in re.finditer(r"[Nn]eeds (?:the extra )?(\w+)(\S*)", shown):
        if where[1] == "compressor":
            assert re.match(r"\[[a-z]+\]", where[2]), where[0]
    assert named


@pytest.mark.parametrize(
    ("path", "extras"),
    [
        ("bench-page", {"onnx"}),
        ("search", {"search", "plots", "onnx"}),
        ("sensitivity", {"plots"}),
        ("export mobile", {"onnx"}),
        ("filters extract", {"filters", "onnx"}),
        ("filters report", {"plots"}),
        ("filters sketch", {"dask"}),
    ],
)
def test_the_extras_of_a_command_are_in_its_help(run: Run, path: str, extras: set[str]) -> None:
    shown = " ".join(run(*path.split(), "--help").out.replace("│", " ").split())
    assert extras <= set(re.findall(r"compressor\[(\w+)\]", shown))


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("ratio", cp.budget.by_ratio),
        ("score-per-mac", cp.budget.by_score_per_mac),
        ("spectral-ranks", cp.design.SpectralRanks()),
        ("degeneracy", cp.budget.ByDegeneracy()),
    ],
)
def test_order_names_mean_the_orders_of_the_library(
    run: Run, here: Path, tiny: nn.Module, x: torch.Tensor, name: str, order: Any
) -> None:
    assert run("plan", NET, *IMAGE, "--macs", "0.6", "--order", name).code == 0
    scores = cp.score(cp.capture(tiny, x), cp.scoring.Norm(power=2))
    assert cp.Plan.load(here / "net.plan.json") == cp.plan(scores, cp.budget.Macs(0.6, order=order))
    several = ("--macs", "0.6", "--params", "0.7", "--order", name, "-o", "both.json")
    assert run("plan", NET, *IMAGE, *several).code == 0
    both = cp.budget.All([cp.budget.Macs(0.6), cp.budget.Params(0.7)], order=order)
    assert cp.Plan.load(here / "both.json") == cp.plan(scores, both)
