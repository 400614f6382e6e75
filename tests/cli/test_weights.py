"""Weights from files: every form that trainers leave, and what does not fit."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from compressor.cli.weights import load_weights_, read_weights
from compressor.errors import FileError

State = dict[str, Tensor]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.b = nn.Linear(3, 3)
        self.b.weight = self.a.weight


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


FORMS: dict[str, Callable[[State, Path], Path]] = {
    "safetensors": lambda state, to: _safetensors(state, to / "w.safetensors"),
    "pt": lambda state, to: _torch(state, to / "w.pt"),
    "state_dict": lambda state, to: _torch({"state_dict": state, "epoch": 3}, to / "w.pth"),
    "data parallel": lambda state, to: _torch(
        {"state_dict": {f"module.{name}": t for name, t in state.items()}}, to / "w.th"
    ),
}


def _safetensors(state: State, path: Path) -> Path:
    save_file(state, path)
    return path


def _torch(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_loaded_from_every_form(tmp_path: Path, form: str) -> None:
    source, target = net(), net()
    load_weights_(target, FORMS[form](source.state_dict(), tmp_path))
    for name, tensor in source.state_dict().items():
        assert torch.equal(tensor, target.state_dict()[name])


def test_tied_weights_may_be_saved_once(tmp_path: Path) -> None:
    source, target = Tied(), Tied()
    save_model(source, str(tmp_path / "w.safetensors"))
    load_weights_(target, tmp_path / "w.safetensors")
    assert torch.equal(target.b.weight, source.a.weight)
    assert target.b.weight is target.a.weight


def test_weights_older_than_the_counters_of_batch_norm_are_loaded(tmp_path: Path) -> None:
    source, target = net(), net()
    source.get_buffer("1.running_mean").normal_()
    state = {n: t for n, t in source.state_dict().items() if "num_batches_tracked" not in n}
    load_weights_(target, _torch(state, tmp_path / "w.pth"))
    assert torch.equal(target.get_buffer("1.running_mean"), source.get_buffer("1.running_mean"))


def test_a_module_named_module_keeps_its_name(tmp_path: Path) -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 2)
            self.head = nn.Linear(2, 1)

    source, target = Outer(), Outer()
    load_weights_(target, _torch(source.state_dict(), tmp_path / "w.pt"))
    assert torch.equal(target.module.weight, source.module.weight)


def test_the_tensor_that_does_not_fit_is_named(tmp_path: Path) -> None:
    state = net().state_dict()
    cases = {
        r"'0.weight' is expected as \[4, 3\], found \[5, 3\]": state | {"0.weight": torch.ones(5, 3)},
        "it has no tensor '0.wieght'; did you mean '0.weight'": state | {"0.wieght": state["0.weight"]},
        "1 of its 9 tensors are not in the file, the first is '2.bias'": {
            name: t for name, t in state.items() if name != "2.bias"
        },
    }
    for words, content in cases.items():
        target = net()
        before = {name: t.clone() for name, t in target.state_dict().items()}
        with pytest.raises(FileError, match=words):
            load_weights_(target, _torch(content, tmp_path / "w.pt"))
        assert all(torch.equal(t, before[name]) for name, t in target.state_dict().items())


class Trap:
    """Unpickling this would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_is_refused_and_its_code_never_run(tmp_path: Path) -> None:
    torch.save(net(), tmp_path / "whole.pt")
    (tmp_path / "trap.pt").write_bytes(pickle.dumps({"state_dict": Trap(tmp_path / "run")}, protocol=2))
    for name in ("whole.pt", "trap.pt"):
        with pytest.raises(FileError, match=r"Save model.state_dict\(\) instead"):
            read_weights(tmp_path / name)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [({}, "without entries"), (torch.ones(2), "found Tensor"), ({"epoch": 3}, "'epoch': int")],
)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: object, words: str) -> None:
    with pytest.raises(FileError, match=words):
        read_weights(_torch(content, tmp_path / "w.pt"))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = _safetensors(net().state_dict(), tmp_path / "w.safetensors")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(FileError, match="damaged"):
        read_weights(path)


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.h5").write_bytes(b"")
    with pytest.raises(FileError, match=r"'.h5' is unknown; expected .safetensors"):
        read_weights(tmp_path / "w.h5")
