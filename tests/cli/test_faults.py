"""What goes wrong is said in words, with the right exit code, and nothing is half done."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import IMAGE, Run

NET = "tiny_net:Tiny"
PROFILE = ("profile", NET)
PLAN = ("plan", NET, *IMAGE)
LOSS = ("--loss", "torch.nn.functional:cross_entropy")

# A command line that makes no sense: exit code 2. Arguments, and words of the message.
USAGE = {
    "unknown module": (("profile", "tiny_nett:Tiny", *IMAGE), "did you mean 'tiny_net'?"),
    "unknown submodule": (("profile", "torch.nnn:Linear", *IMAGE), "did you mean 'torch.nn'"),
    "unknown attribute": (("profile", "tiny_net:Tinyy", *IMAGE), "did you mean 'Tiny'?"),
    "attribute not callable": (("profile", "tiny_net:number", *IMAGE), "is of type int"),
    "a file for a module": (("profile", "tiny_net.py:Tiny", *IMAGE), "did you mean tiny_net:Tiny?"),
    "a path for a module": (("profile", "./a/net.py:Tiny", *IMAGE), "did you mean a.net:Tiny?"),
    "a point for a colon": (("profile", "tiny_net.Tiny", *IMAGE), "did you mean 'tiny_net:Tiny'?"),
    "a module alone": (("profile", "tiny_net", *IMAGE), "did you mean 'tiny_net:build'?"),
    "a file alone": (("profile", "tiny_net.py", *IMAGE), "did you mean 'tiny_net:build'?"),
    "no attribute": (("profile", "tiny_net:", *IMAGE), "is not of the form"),
    "unknown name": (("profile", "resnet56_cifr", *IMAGE), "did you mean 'resnet56_cifar'"),
    "no input": (PROFILE, "give the shape of the model's input"),
    "commas in a shape": ((*PROFILE, "-i", "2,3,8,8"), "did you mean 2x3x8x8?"),
    "words for a shape": ((*PROFILE, "-i", "image"), "is not a shape such as 1x3x224x224"),
    "an empty shape": ((*PROFILE, "-i", "0x3x8x8"), "every extent is at least 1"),
    "unknown type": ((*PROFILE, "-i", "2x3:int65"), "'int65' is no type; known are float32"),
    "a limit for floats": ((*PROFILE, "-i", "2x3:float32:5"), "only integer types"),
    "both kinds of input": ((*PROFILE, *IMAGE, "--input-file", "x.npy"), "one of the two"),
    "two budgets": ((*PLAN, "--macs", "0.5", "--global", "0.3"), "found --macs and --global"),
    "no budget": (PLAN, "give one budget, or several fractions"),
    "latency and a ratio": ((*PLAN, "--uniform", "0.5", "--latency", "0.5"), "found --latency and --uniform"),
    "a latency of nothing": ((*PLAN, "--fast-widths"), "give one budget, or several fractions"),
    "widths and a multiple": (
        (*PLAN, "--macs", "0.5", "--fast-widths", "--round-to", "8"),
        "give --round-to or --fast-widths",
    ),
    "budget not a number": ((*PLAN, "--macs", "half"), "Invalid value for '--macs'"),
    "no such examples": (
        ("prune", NET, *IMAGE, "--macs", "0.5", "--recover", "tiny_net:bathces", "-o", "small"),
        "'batches'",
    ),
    "unknown scorer": ((*PLAN, "--macs", "0.5", "-s", "nrom"), "did you mean 'norm'"),
    "scorer of another type": (
        (*PLAN, "--macs", "0.5", "-s", "tiny_net:number"),
        "expected a Scorer, or a function",
    ),
    "no data": ((*PLAN, "--macs", "0.5", "-s", "taylor"), "give --data package.module:function"),
    "no data for activations": ((*PLAN, "--macs", "0.5", "-s", "apoz"), "measures on data: give --data"),
    "a loss for activations": (
        (*PLAN, "--macs", "0.5", "-s", "chip", "--data", "tiny_net:batches", *LOSS),
        "'chip' measures no loss",
    ),
    "data for nobody": ((*PLAN, "--macs", "0.5", "--data", "a:b"), "'norm' reads no data"),
    "ratio without a number": ((*PLAN, "--macs", "0.5", "--ratio", "conv1"), "PATTERN=RATIO"),
    "no steps": ((*PLAN, "--macs", "0.5", "--steps", "0"), "--steps"),
    "nothing to verify": (("verify", NET, *IMAGE), "say what to verify"),
    "fixed and dynamic": (
        ("export", "onnx", NET, *IMAGE, "-o", "a.onnx", "--fixed", "--dynamic", "0"),
        "drop one",
    ),
    "an axis in words": (
        ("export", "onnx", NET, *IMAGE, "-o", "a.onnx", "--dynamic", "time"),
        "axes are numbers such as 0, or numbers with names such as 4=time",
    ),
    "names for some axes": (
        ("export", "onnx", NET, *IMAGE, "-o", "a.onnx", "--dynamic", "0", "--dynamic", "2=height"),
        "all of them",
    ),
    "an order for a ratio": ((*PLAN, "--uniform", "0.5", "--order", "ratio"), "give --macs, --params"),
    "an order and a sensitivity": (
        (*PLAN, "--macs", "0.5", "--order", "ratio", "--sensitivity", "s.json"),
        "a sensitivity has an order of its own",
    ),
    "no such order": ((*PLAN, "--macs", "0.5", "--order", "rato"), "'rato' is not one of 'score'"),
    "two costs of widths": (
        ("suggest", "widths", NET, *IMAGE, "--macs", "0.5", "--params", "0.5"),
        "give one of --macs and --params",
    ),
    "a baseline of nothing": (
        ("export", "mobile", NET, *IMAGE, "-o", "out", "--baseline"),
        "say which model is smaller",
    ),
    "unknown device": ((*PROFILE, *IMAGE, "--device", "abacus"), "'abacus' cannot be used"),
    "unknown command": (("prun", NET), "No such command 'prun'"),
}

# A request that cannot be met: exit code 1.
ERRORS = {
    "classes without a file": (
        ("export", "mobile", NET, *IMAGE, "-o", "out", "--classes", "none.txt"),
        "--classes 'none.txt' cannot be read",
    ),
    "a store that is none": (("filters", "verify", "nowhere"), "is no store of filters"),
    "a share beyond all": (
        ("suggest", "kernels", NET, *IMAGE, "--discard", "2"),
        "a share of the energy, 0 to 1, is expected",
    ),
    "a report in a file": (
        ("report", NET, *IMAGE, "--plan", "p.json", "-o", "tiny_net.py/r.html"),
        "--out 'tiny_net.py/r.html': expected a file in a folder that exists",
    ),
    "an export in a file": (
        ("export", "onnx", NET, *IMAGE, "-o", "tiny_net.py/a.onnx"),
        "expected a file in a folder that exists",
    ),
    "unreachable budget": ((*PLAN, "--macs", "0.001"), "is the least that can be left"),
    "one of several out of reach": (
        (*PLAN, "--macs", "0.5", "--params", "0.001"),
        "not all of it can be met Macs(0.5) could be met: asks for at most",
    ),
    "a percentage": ((*PLAN, "--macs", "50"), "for 50 % give 0.5"),
    "a pattern for nothing": ((*PLAN, "--macs", "0.5", "--ignore", "cnv1"), "did you mean 'conv1'"),
    "inputs that do not fit": ((*PROFILE, "-i", "1x4x8x8"), "does not run on the inputs"),
    "a builder with arguments": (
        ("profile", "tiny_net:needs_arguments", *IMAGE),
        "wrap it in a function",
    ),
    "a builder of no model": (
        ("profile", "tiny_net:gives_a_number", *IMAGE),
        "returns int, expected a torch.nn.Module",
    ),
    "no such weights": ((*PROFILE, *IMAGE, "-w", "a.safetensors"), "there is no such file"),
    "no such plan": (("apply", NET, "--plan", "a.json", "-o", "small"), "cannot read the plan"),
    "no such folder": ((*PROFILE, *IMAGE, "--saved", "nowhere"), "manifest.json is missing"),
    "no such input file": ((*PROFILE, "--input-file", "x.npy"), "cannot be read"),
    "an unknown layer": (("explain", NET, "conv", *IMAGE), "did you mean 'conv"),
    "a layer without parameters": (("explain", "tiny_net:seq", "1", *IMAGE), "has no parameters"),
    "a folder for the plan": ((*PLAN, "--macs", "0.5", "-o", "no/where"), "expected a file"),
    "examples that are none": (
        ("prune", NET, *IMAGE, "--macs", "0.5", "--recover", "tiny_net:number", "-o", "small"),
        "--recover tiny_net:number gives int, expected something to iterate over",
    ),
    "a scorer of one's own that fails": (
        (*PLAN, "--macs", "0.5", "-s", "tiny_net:batches"),
        "raised TypeError for 'conv1.weight' [8, 3, 3, 3], axis 0",
    ),
    "a mapping for batches": (
        ("prune", NET, *IMAGE, "--macs", "0.5", "--recover", "tiny_net:mapping", "-o", "small"),
        "gives dict, expected something to iterate over",
    ),
    "a figure of no format": (
        ("sensitivity", NET, *IMAGE, "--fidelity", "tiny_net:batches", "--figure", "s.xyz"),
        "its ending says the format, one of",
    ),
    "data that is none": (
        (*PLAN, "--macs", "0.5", "-s", "taylor", "--data", "tiny_net:number", *LOSS),
        "expected something to iterate over",
    ),
}


@pytest.fixture(autouse=True)
def _more_models(here: Path) -> None:
    with (here / "tiny_net.py").open("a", encoding="utf-8") as file:
        file.write('mapping = {"x": 1}\n')
        file.write("seq = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))\n")


@pytest.mark.parametrize("case", USAGE)
def test_a_senseless_command_line_is_refused_with_a_hint(run: Run, case: str) -> None:
    args, words = USAGE[case]
    outcome = run(*args)
    assert words in outcome.words
    assert (outcome.code, outcome.out) == (2, "")


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_is_one_readable_message(run: Run, case: str) -> None:
    args, words = ERRORS[case]
    outcome = run(*args)
    assert words in outcome.words
    assert "error: " in outcome.err
    assert "Traceback" not in outcome.err
    assert (outcome.code, outcome.out) == (1, "")


def test_an_error_leaves_stdout_empty_in_json_too(run: Run) -> None:
    outcome = run(*PLAN, "--macs", "0.001", "--json")
    assert (outcome.code, outcome.out) == (1, "")


def test_debug_shows_where_an_error_was_raised(run: Run) -> None:
    outcome = run(*PLAN, "--macs", "0.001", "--debug")
    assert outcome.code == 1
    assert "Traceback" in outcome.err
    assert "cost_fraction.py" in outcome.err


def test_an_existing_folder_is_left_alone(run: Run, here: Path) -> None:
    (here / "small").mkdir()
    (here / "small" / "thesis.txt").write_text("mine", encoding="utf-8")
    outcome = run("prune", NET, *IMAGE, "--macs", "0.5", "--out", "small")
    assert outcome.code == 1
    assert "is not empty; choose another folder, or pass --overwrite" in outcome.words
    assert [path.name for path in (here / "small").iterdir()] == ["thesis.txt"]
    assert "capturing" not in outcome.err  # refused before the work, not after it


def test_an_existing_plan_is_left_alone(run: Run, here: Path) -> None:
    (here / "net.plan.json").write_text("mine", encoding="utf-8")
    outcome = run(*PLAN, "--macs", "0.5")
    assert outcome.code == 1
    assert "pass --overwrite" in outcome.words
    assert (here / "net.plan.json").read_text(encoding="utf-8") == "mine"


def test_a_tampered_plan_is_refused(run: Run, here: Path) -> None:
    run(*PLAN, "--uniform", "0.5")
    file = here / "net.plan.json"
    text = file.read_text(encoding="utf-8")
    changed = text.replace('"conv1.weight", 0, 8, [', '"conv1.weight", 0, 8, [0, ', 1)
    assert changed != text
    file.write_text(changed, encoding="utf-8")
    outcome = run("apply", NET, "--plan", "net.plan.json", "--out", "small")
    assert outcome.code == 1
    assert "digest does not match" in outcome.words
    assert not (here / "small").exists()


def test_a_plan_for_another_model_is_refused(run: Run, here: Path) -> None:
    run(*PLAN, "--uniform", "0.5")
    outcome = run("apply", "tiny_net:seq", "--plan", "net.plan.json", "--out", "small")
    assert outcome.code == 1
    assert "the plan was made for another Tiny" in outcome.words
    assert not (here / "small").exists()


def test_a_folder_is_not_verified_against_another_plan(run: Run) -> None:
    run("prune", NET, *IMAGE, "--uniform", "0.5", "--out", "small")
    run(*PLAN, "--uniform", "0.3")
    outcome = run("verify", NET, "--saved", "small", "--plan", "net.plan.json", *IMAGE)
    assert outcome.code == 1
    assert "is not what the plan makes of the original" in outcome.words


def test_a_changed_folder_is_refused(run: Run, here: Path) -> None:
    run("prune", NET, *IMAGE, "--uniform", "0.5", "--out", "small")
    weights = here / "small" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    outcome = run("verify", NET, "--saved", "small", *IMAGE)
    assert outcome.code == 1
    assert "was changed after it was written" in outcome.words


def test_weights_and_a_saved_folder_exclude_each_other(run: Run) -> None:
    run("prune", NET, *IMAGE, "--uniform", "0.5", "--out", "small")
    outcome = run("profile", NET, "--saved", "small", "-w", "a.safetensors", *IMAGE)
    assert outcome.code == 2
    assert "has its own weights" in outcome.words


def test_a_missing_extra_is_named_before_any_work(
    run: Run, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it was not installed
    args = ("prune", NET, *IMAGE, "--uniform", "0.5", "-o", "small", "--onnx", "a.onnx")
    outcome = run(*args)
    assert outcome.code == 1
    assert "pip install 'compressor[onnx]'" in outcome.words
    assert not (here / "small").exists()
    assert run("export", "onnx", NET, *IMAGE, "-o", "a.onnx").code == 1


def test_a_module_whose_import_fails_says_why(run: Run, here: Path) -> None:
    (here / "broken_net.py").write_text("import not_installed_anywhere\n", encoding="utf-8")
    outcome = run("profile", "broken_net:build", *IMAGE)
    assert outcome.code == 1
    assert "it needs the module 'not_installed_anywhere'" in outcome.words
    (here / "broken_too.py").write_text("1 / 0\n", encoding="utf-8")
    assert "ZeroDivisionError" in run("profile", "broken_too:build", *IMAGE).words


def test_an_input_file_of_objects_is_refused_unread(run: Run, here: Path) -> None:
    np.save(here / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    outcome = run(*PROFILE, "--input-file", "x.npy")
    assert outcome.code == 1
    assert "cannot be read as .npy or .npz of plain numbers" in outcome.words
