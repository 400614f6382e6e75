from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.core.surgery import plan_of
from compressor.errors import FileError, InputError, ModelError, PlanMismatchError
from compressor.persistence import load, save, unpruned
from compressor.persistence.load_model import load as load_plain

Cut = Callable[..., Any]
ExampleOf = Callable[[str], Tensor]
FILES = ["load_model.py", "manifest.json", "plan.json", "weights.safetensors"]


@pytest.fixture
def folder(nets: ModuleType, cut_some: Cut, example_of: ExampleOf, tmp_path: Path) -> Path:
    save(cut_some(nets.Plain(), example_of("Plain")), tmp_path / "m")
    return tmp_path / "m"


# -- damaged files -------------------------------------------------------------------------------


def test_the_folder_holds_exactly_these_files(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == FILES


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.0, 0.3, 0.6, 0.999])
def test_a_flipped_bit_is_refused(name: str, where: float, folder: Path, nets: ModuleType) -> None:
    data = bytearray((folder / name).read_bytes())
    data[int(where * len(data))] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(FileError, match=name):
        load(folder, nets.Plain)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("left", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused(name: str, left: float, folder: Path, nets: ModuleType) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(left * len(data))])
    with pytest.raises(FileError, match=f"{name}.*(truncated|damaged)"):
        load(folder, nets.Plain)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(name: str, folder: Path, nets: ModuleType) -> None:
    (folder / name).unlink()
    with pytest.raises(FileError, match=f"{name} is missing"):
        load(folder, nets.Plain)


@pytest.mark.parametrize("name", ["plan.json", "weights.safetensors"])
def test_a_file_of_another_saved_model_is_refused(
    name: str, folder: Path, nets: ModuleType, cut_some: Cut, example_of: ExampleOf, tmp_path: Path
) -> None:
    save(cut_some(nets.Plain(), example_of("Plain"), seed=5), tmp_path / "other")
    (folder / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(FileError, match=name):
        load(folder, nets.Plain)


def test_another_version_is_refused_by_its_number(folder: Path, nets: ModuleType) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "version": 99}))
    with pytest.raises(FileError, match="version 99, expected 'compressor-model' version 1"):
        load(folder, nets.Plain)


def test_a_changed_manifest_is_refused(folder: Path, nets: ModuleType) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["trainable"] = []
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(FileError, match=r"manifest\.json was changed"):
        load(folder, nets.Plain)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"text"', "{}"])
def test_json_of_another_kind_is_refused(content: str, folder: Path, nets: ModuleType) -> None:
    (folder / "manifest.json").write_text(content)
    with pytest.raises(FileError, match=r"manifest\.json is damaged"):
        load(folder, nets.Plain)


def test_a_folder_that_is_none_is_refused(tmp_path: Path, nets: ModuleType) -> None:
    with pytest.raises(FileError, match="not the folder of a saved model"):
        load(tmp_path / "nowhere", nets.Plain)


def test_no_file_is_a_pickle(folder: Path) -> None:
    for path in folder.iterdir():
        assert not path.read_bytes().startswith((b"\x80", b"PK"))


# -- other networks ------------------------------------------------------------------------------


def changed(nets: ModuleType, **layers: nn.Module) -> nn.Module:
    net: nn.Module = nets.Plain()
    for name, layer in layers.items():
        setattr(net, name, layer)
    return net


OTHER: dict[str, tuple[Callable[[ModuleType], Any], str]] = {
    "wider": (
        lambda nets: nets.Plain(width=16),
        r"'conv1.weight' is \[16, 3, 3, 3\], expected \[12,",
    ),
    "another class": (lambda nets: nets.Depthwise(), "Depthwise.*'conv1.weight'.* is missing"),
    "one layer more": (
        lambda nets: changed(nets, extra=nn.Linear(2, 2)),
        r"'extra.weight' \[2, 2\] is not part of it",
    ),
    "another norm": (
        lambda nets: changed(nets, bn=nn.SyncBatchNorm(12)),
        "module 'bn' is SyncBatchNorm, expected BatchNorm2d",
    ),
    "without memory": (lambda nets: nets.Plain().to("meta"), "meta device"),
}


@pytest.mark.parametrize("case", OTHER)
def test_another_architecture_is_refused_with_the_first_difference(
    case: str, folder: Path, nets: ModuleType
) -> None:
    build, message = OTHER[case]
    with pytest.raises(FileError, match=message):
        load(folder, lambda: build(nets))


def test_the_pruned_model_is_no_build(
    nets: ModuleType, cut_some: Cut, example_of: ExampleOf, tmp_path: Path
) -> None:
    small = cut_some(nets.Plain(), example_of("Plain"))
    save(small, tmp_path / "again")
    with pytest.raises(FileError, match="not its original"):
        load(tmp_path / "again", small)


@pytest.mark.parametrize("build", [3, "Plain", lambda: 3])
def test_a_build_that_builds_nothing_is_refused(build: Any, folder: Path) -> None:
    with pytest.raises(InputError, match="load needs what builds"):
        load(folder, build)


# -- examples ------------------------------------------------------------------------------------


def test_a_saved_example_finds_code_that_changed(
    nets: ModuleType,
    cut_some: Cut,
    example_of: ExampleOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = example_of("Plain")
    save(cut_some(nets.Plain(), x), tmp_path / "m", example=x)
    assert torch.is_tensor(load(tmp_path / "m", nets.Plain)(x))
    old = nets.Plain.forward
    monkeypatch.setattr(nets.Plain, "forward", lambda self, x: old(self, x) * 1.01)
    with pytest.raises(FileError, match=r"differs by .*e-0[23] .*its code"):
        load(tmp_path / "m", nets.Plain)


def test_keyword_examples_are_kept(
    nets: ModuleType, cut_some: Cut, example_of: ExampleOf, tmp_path: Path
) -> None:
    x = example_of("Plain")
    save(cut_some(nets.Plain(), x), tmp_path / "m", example={"x": x})
    load(tmp_path / "m", nets.Plain)
    with pytest.raises(InputError, match=r"args\.0 is a int"):
        save(load(tmp_path / "m", nets.Plain), tmp_path / "n", example=(3,))  # type: ignore[arg-type]


# -- saving --------------------------------------------------------------------------------------


def test_a_model_of_unknown_plan_is_refused_with_the_way_out(
    nets: ModuleType, cut_some: Cut, example_of: ExampleOf, tmp_path: Path
) -> None:
    twin = copy.deepcopy(cut_some(nets.Plain(), example_of("Plain")))
    with pytest.raises(InputError, match=r"plan=compressor.persistence.unpruned\(model\)"):
        save(twin, tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_plan_of_another_model_is_refused(
    nets: ModuleType, cut_some: Cut, example_of: ExampleOf, tmp_path: Path
) -> None:
    original = nets.Plain()
    plan = plan_of(cut_some(original, example_of("Plain")))
    with pytest.raises(PlanMismatchError, match=r"'conv1.weight'"):
        save(original, tmp_path / "m", plan=plan)


def test_a_model_changed_since_it_was_pruned_is_refused(
    nets: ModuleType, cut_some: Cut, example_of: ExampleOf, tmp_path: Path
) -> None:
    small = cut_some(nets.Plain(), example_of("Plain"))
    small.fc = nn.Linear(small.fc.in_features, 9)
    with pytest.raises(PlanMismatchError, match=r"'fc.weight' is expected as \[5, "):
        save(small, tmp_path / "m")


def test_state_that_only_a_pickle_holds_is_refused(tmp_path: Path) -> None:
    class Extra(nn.Linear):
        def get_extra_state(self) -> object:
            return object()

    net = nn.Sequential(Extra(2, 2))
    with pytest.raises(ModelError, match=r"module '0' .* has extra state"):
        save(net, tmp_path, plan=unpruned(net))


def test_tensors_without_plain_values_are_refused(tmp_path: Path) -> None:
    net = nn.Linear(2, 2, device="meta")
    with pytest.raises(ModelError, match="'weight' is on the meta device"):
        save(net, tmp_path, plan=unpruned(net))
    sparse = nn.Linear(2, 2)
    sparse.weight = nn.Parameter(torch.eye(2).to_sparse())
    with pytest.raises(ModelError, match=r"'weight' is torch\.sparse_coo"):
        save(sparse, tmp_path, plan=unpruned(sparse))


def test_an_earlier_model_is_only_replaced_on_request(
    folder: Path, nets: ModuleType, cut_some: Cut, example_of: ExampleOf
) -> None:
    x = example_of("Plain")
    other = cut_some(nets.Plain(), x, seed=4)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileError, match="overwrite=True"):
        save(other, folder)
    save(other, folder, overwrite=True, example=x)
    with torch.no_grad():
        assert torch.equal(load(folder, nets.Plain)(x), other(x))
    save(other, folder, overwrite=True)
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "notes.txt"])


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    net = nn.Linear(2, 2)
    with pytest.raises(FileError, match="cannot write the model to"):
        save(net, tmp_path / "file", plan=unpruned(net))


@pytest.mark.parametrize("survives", range(6))
def test_a_crash_while_saving_leaves_the_one_or_the_other(
    survives: int,
    folder: Path,
    nets: ModuleType,
    cut_some: Cut,
    example_of: ExampleOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = example_of("Plain")
    old, new = load(folder, nets.Plain), cut_some(nets.Plain(), x, seed=4)
    done: list[Path] = []

    def crash(source: Path, target: Path) -> None:
        if len(done) == survives:
            raise OSError("the disk is gone")
        done.append(target)
        rename(source, target)

    rename = os.replace
    with monkeypatch.context() as patched:
        patched.setattr("compressor.persistence.writing.os.replace", crash)
        if survives < 5:  # the commit, and four files: all that there is to rename
            with pytest.raises(FileError, match="the disk is gone"):
                save(new, folder, overwrite=True)
        else:
            save(new, folder, overwrite=True)
    with torch.no_grad():
        expected = (old if survives == 0 else new)(x)
        assert torch.equal(load(folder, nets.Plain)(x), expected)
        assert torch.equal(load_plain(nets.Plain, folder)(x), expected)
        with pytest.raises(FileError, match="overwrite=True"):
            save(new, folder)
        save(old, folder, overwrite=True)
        assert torch.equal(load(folder, nets.Plain)(x), old(x))
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


def test_files_that_wait_are_checked_as_those_in_the_folder(
    folder: Path, nets: ModuleType, cut_some: Cut, example_of: ExampleOf
) -> None:
    """A folder `.replacing` that no save has made, or that was changed."""
    other = folder.parent / "other"
    save(cut_some(nets.Plain(), example_of("Plain"), seed=4), other)
    (other / "plan.json").rename(folder / "plan.json")
    other.rename(folder / ".replacing")
    with torch.no_grad():
        load(folder, nets.Plain)(example_of("Plain"))  # the newer model, of which the plan is in place
    weights = folder / ".replacing" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(FileError, match=r"\.replacing.weights\.safetensors was changed after it was written"):
        load(folder, nets.Plain)
    (folder / ".replacing" / "manifest.json").write_text("{}")
    with pytest.raises(FileError, match=r"\.replacing.manifest\.json is damaged"):
        load(folder, nets.Plain)


def test_the_example_of_an_earlier_model_is_not_looked_at(
    folder: Path, nets: ModuleType, cut_some: Cut, example_of: ExampleOf
) -> None:
    x = example_of("Plain")
    save(load(folder, nets.Plain), folder, overwrite=True, example=x)
    left = (folder / "example.safetensors").read_bytes()
    save(cut_some(nets.Plain(), x, seed=4), folder, overwrite=True)
    (folder / "example.safetensors").write_bytes(left)  # as a save leaves it that is killed at its end
    load(folder, nets.Plain)


def test_a_crash_while_preparing_leaves_the_earlier_model(
    folder: Path,
    nets: ModuleType,
    cut_some: Cut,
    example_of: ExampleOf,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = cut_some(nets.Plain(), example_of("Plain"), seed=4)

    def full(_descriptor: int) -> None:
        raise OSError("no space left on device")

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("compressor.whole_files.os.fsync", full)
    with pytest.raises(FileError, match="no space left"):
        save(other, folder, overwrite=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    load(folder, nets.Plain)
