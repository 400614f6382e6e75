from __future__ import annotations

import copy
import gc
import json
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.core.capture import capture
from compressor.core.surgery import apply, apply_, plan_of, signature_of
from compressor.core.tape import named_tensors
from compressor.persistence import load, save, unpruned

ROOT = Path(__file__).resolve().parents[2]
Cut = Callable[..., Any]
ExampleOf = Callable[[str], Tensor]
NAMES = ["Plain", "Depthwise", "Tied", "Normed", "OldNormed", "Written", "Recurrent"]


def assert_same_model(found: nn.Module, expected: nn.Module, x: Tensor) -> None:
    a, b = named_tensors(found), named_tensors(expected)
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]), name
        assert a[name].stride() == b[name].stride(), name
        assert a[name].requires_grad == b[name].requires_grad, name
    modes = [module.training for module in expected.modules()]
    assert [module.training for module in found.modules()] == modes
    with torch.no_grad():
        assert torch.equal(found.eval()(x), expected.eval()(x))


@pytest.mark.parametrize("name", NAMES)
def test_a_loaded_model_is_the_saved_one_to_the_last_bit(
    name: str, nets: ModuleType, cut_some: Cut, example_of: ExampleOf, tmp_path: Path
) -> None:
    build, x = getattr(nets, name), example_of(name)
    original = build()
    small = cut_some(original, x)
    assert signature_of(small) != signature_of(original)
    save(small, tmp_path / "m")
    assert_same_model(load(tmp_path / "m", build), small, x)


def test_a_loaded_model_can_be_trained(
    nets: ModuleType, cut_some: Cut, example_of: ExampleOf, tmp_path: Path
) -> None:
    save(cut_some(nets.Recurrent(), example_of("Recurrent")), tmp_path)
    again: Any = load(tmp_path, nets.Recurrent)
    before = {name: tensor.clone() for name, tensor in again.named_parameters()}
    optimizer = torch.optim.SGD(again.parameters(), lr=0.1)
    again(example_of("Recurrent")).sum().backward()
    optimizer.step()
    assert all(not torch.equal(before[name], p) for name, p in again.named_parameters())


def test_a_model_pruned_twice_remembers_one_plan(
    nets: ModuleType, cut_some: Cut, example_of: ExampleOf, tmp_path: Path
) -> None:
    original, x = nets.Depthwise(), example_of("Depthwise")
    twice = cut_some(cut_some(original, x, seed=1), x, seed=2)
    whole = plan_of(twice)
    assert whole is not None and whole.signature == signature_of(original)
    save(twice, tmp_path)
    again: Any = load(tmp_path, nets.Depthwise)
    assert_same_model(again, twice, x)
    assert plan_of(again) == whole


def test_a_loaded_model_can_be_pruned_and_saved_again(
    nets: ModuleType, cut_some: Cut, example_of: ExampleOf, tmp_path: Path
) -> None:
    x = example_of("Plain")
    save(cut_some(nets.Plain(), x), tmp_path / "once")
    smaller = cut_some(load(tmp_path / "once", nets.Plain), x, seed=3)
    save(smaller, tmp_path / "twice")
    assert_same_model(load(tmp_path / "twice", nets.Plain), smaller, x)


def test_tied_tensors_are_stored_once_and_tied_again(
    nets: ModuleType, cut_some: Cut, example_of: ExampleOf, tmp_path: Path
) -> None:
    small = cut_some(nets.Tied(), example_of("Tied"))
    save(small, tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["aliases"] == {"b.weight": "a.weight"}
    assert "b.weight" not in manifest["tensors"]
    # The tie is part of what was saved: it comes back also where the constructor leaves it out.
    for build in (nets.Tied, lambda: nets.Tied(tie=False)):
        again: Any = load(tmp_path, build)
        assert again.b.weight is again.a.weight
        assert_same_model(again, small, example_of("Tied"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_number_format_is_kept(
    dtype: torch.dtype, nets: ModuleType, cut_some: Cut, example_of: ExampleOf, tmp_path: Path
) -> None:
    small = cut_some(nets.Plain(), example_of("Plain")).to(dtype)
    save(small, tmp_path)
    again: Any = load(tmp_path, nets.Plain)
    assert again.fc.weight.dtype == dtype
    assert again.bn.num_batches_tracked.dtype == torch.int64
    assert_same_model(again, small, example_of("Plain").to(dtype))


def test_the_memory_layout_is_kept(
    nets: ModuleType, cut_some: Cut, example_of: ExampleOf, tmp_path: Path
) -> None:
    small = cut_some(nets.Plain(), example_of("Plain")).to(memory_format=torch.channels_last)
    small.fc.weight = nn.Parameter(small.fc.weight.detach().t().contiguous().t())
    assert not small.conv1.weight.is_contiguous() and not small.fc.weight.is_contiguous()
    save(small, tmp_path)
    assert_same_model(load(tmp_path, nets.Plain), small, example_of("Plain"))


def test_an_expanded_buffer_is_stored_in_full(tmp_path: Path) -> None:
    class Expanded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("row", torch.rand(1, 4).expand(3, 4))
            self.register_buffer("aside", torch.rand(2), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            row: Tensor = self.get_buffer("row")
            return x * row

    net: Any = Expanded()
    save(net, tmp_path, plan=unpruned(net))
    again: Any = load(tmp_path, Expanded)
    assert torch.equal(again.row, net.row) and torch.equal(again.aside, net.aside)


def test_flags_and_modes_are_kept(
    nets: ModuleType, cut_some: Cut, example_of: ExampleOf, tmp_path: Path
) -> None:
    small = cut_some(nets.Plain(), example_of("Plain")).train()
    small.bn.eval()
    small.conv1.requires_grad_(False)
    save(small, tmp_path)
    again: Any = load(tmp_path, nets.Plain)
    assert again.training and again.fc.training and not again.bn.training
    assert not again.conv1.weight.requires_grad and again.conv2.weight.requires_grad
    assert not again.bn.running_mean.requires_grad


def test_a_model_given_as_the_build_stays_as_it_is(
    nets: ModuleType, cut_some: Cut, example_of: ExampleOf, tmp_path: Path
) -> None:
    x, fresh = example_of("Plain"), nets.Plain()
    small = cut_some(nets.Plain(), x)
    save(small, tmp_path)
    before = copy.deepcopy(fresh.state_dict())
    again: Any = load(tmp_path, fresh)
    assert_same_model(again, small, x)
    assert all(torch.equal(before[key], value) for key, value in fresh.state_dict().items())


def test_a_model_that_was_never_pruned_can_be_saved(
    nets: ModuleType, example_of: ExampleOf, tmp_path: Path
) -> None:
    net = nets.Plain()
    save(net, tmp_path, plan=unpruned(net))
    assert_same_model(load(tmp_path, nets.Plain), net, example_of("Plain"))


def test_a_copy_of_a_pruned_model_is_saved_with_its_plan(
    nets: ModuleType, cut_some: Cut, example_of: ExampleOf, tmp_path: Path
) -> None:
    x = example_of("Plain")
    small = cut_some(nets.Plain(), x)
    twin = copy.deepcopy(small)
    assert plan_of(twin) is None
    save(twin, tmp_path, plan=plan_of(small))
    assert_same_model(load(tmp_path, nets.Plain), small, x)


def test_nothing_of_the_library_is_left_in_the_pruned_model(
    nets: ModuleType, cut_some: Cut, example_of: ExampleOf
) -> None:
    original = nets.Plain()
    small = cut_some(original, example_of("Plain"))
    assert vars(small).keys() == vars(original).keys()


def test_an_unsavable_history_is_forgotten_rather_than_told_wrong(
    nets: ModuleType, cut_some: Cut, example_of: ExampleOf
) -> None:
    x = example_of("Plain")
    small = cut_some(nets.Plain(), x)
    small.fc = nn.Linear(8 if small.fc.in_features == 8 else small.fc.in_features, 7)
    again = cut_some(small, x, seed=1)
    assert plan_of(again) is None


# -- fresh processes -----------------------------------------------------------------------------

WITH_LIBRARY = """
import sys, torch, compressor as cp
sys.path.insert(0, "code")
import some_nets
model = cp.load("m", some_nets.make_plain)
"""

# None in sys.modules makes every import of that name fail.
WITHOUT_LIBRARY = """
import sys
sys.modules["compressor"] = None
sys.path[:0] = ["code", "m"]
import torch, some_nets
from load_model import load
model = load(some_nets.make_plain)
assert not [name for name in sys.modules if name.startswith("compressor.")]
"""

COMPARE = """
with torch.no_grad():
    torch.save(model(torch.load("x.pt")), "found.pt")
"""


def run_python(*arguments: str, cwd: Path, path: str = "") -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PATH": ""}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def folder(nets: ModuleType, cut_some: Cut, example_of: ExampleOf, tmp_path: Path) -> Path:
    """A folder with the networks' code, a saved model `m`, an input and the output expected."""
    x = example_of("Plain")
    small = cut_some(nets.make_plain(), x)
    save(small, tmp_path / "elsewhere")
    shutil.copytree(tmp_path / "elsewhere", tmp_path / "m")
    shutil.rmtree(tmp_path / "elsewhere")
    torch.save(x, tmp_path / "x.pt")
    with torch.no_grad():
        torch.save(small(x), tmp_path / "expected.pt")
    return tmp_path


@pytest.mark.parametrize("script", [WITH_LIBRARY, WITHOUT_LIBRARY], ids=["with", "without"])
def test_a_fresh_process_computes_the_same_with_and_without_the_library(script: str, folder: Path) -> None:
    path = str(ROOT) if script is WITH_LIBRARY else ""
    ran = run_python("-c", script + COMPARE, cwd=folder, path=path)
    assert ran.returncode == 0, ran.stderr
    assert torch.equal(torch.load(folder / "found.pt"), torch.load(folder / "expected.pt"))


def test_the_loader_runs_from_the_command_line(folder: Path, nets: ModuleType) -> None:
    ran = run_python("../m/load_model.py", "some_nets:make_plain", cwd=folder / "code")
    small = load(folder / "m", nets.make_plain)
    assert ran.stdout == f"Plain: {sum(p.numel() for p in small.parameters()):,} parameters\n"
    (folder / "m" / "plan.json").write_text("{}")
    ran = run_python("../m/load_model.py", "some_nets:make_plain", cwd=folder / "code")
    assert ran.returncode == 1 and ran.stderr.startswith("error: ") and "plan.json" in ran.stderr
    ran = run_python("../m/load_model.py", cwd=folder / "code")
    assert ran.returncode == 1 and "usage: " in ran.stderr


def test_apply_remembers_what_it_did(nets: ModuleType, cut_some: Cut, example_of: ExampleOf) -> None:
    original = nets.Plain()
    small = cut_some(original, example_of("Plain"))
    plan = plan_of(small)
    assert plan is not None and plan_of(original) is None
    assert signature_of(apply(original, plan)) == signature_of(small)


def test_cutting_in_place_remembers_all_that_was_done(
    nets: ModuleType, example_of: ExampleOf, tmp_path: Path
) -> None:
    net, x = nets.Plain(), example_of("Plain")
    before = signature_of(net)
    for count in (3, 2):
        graph = capture(net, x)
        removed = [unit in graph.groups[0].cells[0][:count] for unit in range(graph.n_units)]
        apply_(net, graph.plan(removed))  # type: ignore[arg-type]
    whole = plan_of(net)
    assert whole is not None and whole.signature == before and whole.result == signature_of(net)
    save(net, tmp_path)
    assert_same_model(load(tmp_path, nets.Plain), net, x)


def test_a_remembered_plan_does_not_keep_its_model_alive(
    nets: ModuleType, cut_some: Cut, example_of: ExampleOf
) -> None:
    small = cut_some(nets.Plain(), example_of("Plain"))
    alive = weakref.ref(small)
    del small
    gc.collect()
    assert alive() is None
