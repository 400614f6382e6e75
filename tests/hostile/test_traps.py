"""Files made to do harm: none runs code, reads outside of its folder, or takes memory for what it claims."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import compressor as cp
from compressor.cli.weights import load_weights_
from compressor.errors import CompressorError, FileError
from compressor.filters import read_onnx
from tests.filters.onnx_files.graphs import conv, model
from tests.hostile.kinds import IMAGE, KINDS, laid_out, net, outcome, pruned, seal_folder, zipped

PICKLED = ("training", "weights of torch", "akamaster")
ARRAYS = ("images", "input npz", "input npy")


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.folder),)


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """Where a folder is made by code that was run."""
    return tmp_path / "trap"


def assert_refused(name: str, folder: Path) -> str:
    ended, said = outcome(name, folder)
    assert ended == "refused", said
    return str(said)


def test_the_trap_snaps_where_a_pickle_is_run(trap: Path) -> None:
    pickle.loads(pickle.dumps(Trap(trap)))
    assert trap.is_dir()


@pytest.mark.parametrize("name", PICKLED)
@pytest.mark.parametrize("form", ["bare", "inside", "legacy", "whole model"])
def test_code_in_a_file_of_torch_is_not_run(name: str, form: str, trap: Path, tmp_path: Path) -> None:
    content: Any = Trap(trap) if form == "bare" else {"state_dict": {"conv1.weight": Trap(trap)}}
    if form == "whole model":
        content = net()
        content.trap = Trap(trap)
    path = tmp_path / KINDS[name].target
    torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
    assert_refused(name, tmp_path)
    assert not trap.exists()


@pytest.mark.parametrize("name", ARRAYS)
def test_code_in_an_array_is_not_run(name: str, trap: Path, tmp_path: Path) -> None:
    array = np.array([Trap(trap)], dtype=object)
    names = ("x_train", "y_train", "x_test", "y_test", "classes")
    path = tmp_path / KINDS[name].target
    if name == "input npy":
        np.save(path, array)
    else:
        np.savez(path, **dict.fromkeys(names, array))
    assert_refused(name, tmp_path)
    assert not trap.exists()


def test_the_loader_of_a_saved_folder_is_not_run(trap: Path, tmp_path: Path) -> None:
    cp.save(pruned(), tmp_path / "saved")
    (tmp_path / "saved" / "load_model.py").write_text(f"import os\nos.mkdir({str(trap)!r})\n")
    seal_folder(tmp_path / "saved")
    cp.load(tmp_path / "saved", net)
    assert not trap.exists()


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/../../secret", ".."])
def test_a_manifest_names_no_file_outside_of_its_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a secret")
    folder = tmp_path / "saved"
    cp.save(pruned(), folder)
    document = json.loads((folder / "manifest.json").read_text())
    document["files"][name] = {"bytes": 8, "sha256": "0"}
    (folder / "manifest.json").write_bytes(KINDS["saved manifest"].rewrite(document))  # type: ignore[misc]
    with pytest.raises(FileError, match=r"manifest\.json names the file .* not in its folder"):
        cp.load(folder, net)


def test_an_onnx_file_reads_no_values_from_outside_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    weight = np.ones((2, 2, 3, 3), np.float32)
    (tmp_path / "secret").write_bytes(weight.tobytes())
    proto = model([conv("x", "a", "y")], {"a": weight})
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    for place in ("../secret", str(tmp_path / "secret")):
        del tensor.external_data[:]
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", place
        (tmp_path / "inside" / "net.onnx").write_bytes(proto.SerializeToString())
        with pytest.raises(FileError, match=r"net\.onnx: 1 convolutions cannot be read"):
            read_onnx(tmp_path / "inside" / "net.onnx")


def npy(shape: str, dtype: str = "<f8", data: bytes = bytes(64)) -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}}}".encode()
    header += b" " * (-(10 + len(header) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


CLAIMS = {
    "exabytes": npy("(1000000, 1000000, 1000000)"),
    "a length that overflows": npy(f"({2**62}, 8)"),
    "a negative length": npy("(-4, 2)"),
    "no shape": npy("'x'"),
    "objects": npy("(1,)", "|O"),
    "records": npy("(1,)", "V8"),
    "a call in the header": npy("__import__('os').mkdir('trap')"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_an_array_that_claims_what_it_has_not(
    claim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    laid_out("input npy", tmp_path, CLAIMS[claim])
    assert "x.npy" in assert_refused("input npy", tmp_path)
    zipped({"arr_0.npy": CLAIMS[claim]}, tmp_path / "x.npz")
    assert "x.npz" in assert_refused("input npz", tmp_path)
    names = ("x_train", "y_train", "x_test", "y_test", "classes")
    zipped({f"{name}.npy": CLAIMS[claim] for name in names}, tmp_path / "images.npz")
    assert "images.npz" in assert_refused("images", tmp_path)
    assert not (tmp_path / "trap").exists()


def test_a_bomb_of_a_zip_in_place_of_a_checkpoint_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(64 << 20))
        archive.writestr("archive/version", "3")
    assert path.stat().st_size < 100_000
    assert "training.pt" in assert_refused("training", tmp_path)


@pytest.mark.parametrize("header", [b"{}", b'{"a":{}}', b'{"a":1}', b"[]", b"{", b'{"__metadata__":3}'])
@pytest.mark.parametrize("name", ["weights", "resealed weights", "resealed example", "basis"])
def test_a_safetensors_file_of_another_header(name: str, header: bytes, tmp_path: Path) -> None:
    laid_out(name, tmp_path, struct.pack("<Q", len(header)) + header)
    assert_refused(name, tmp_path)


@pytest.mark.parametrize("length", [2**63, 2**40, 100])
def test_a_safetensors_file_of_another_length(length: int, tmp_path: Path) -> None:
    for name in ("weights", "resealed weights", "resealed example", "basis"):
        laid_out(name, tmp_path, struct.pack("<Q", length) + b"{}")
        assert_refused(name, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {**state, "0.weight": state["0.weight"].flatten()},
        lambda state: {**state, "0.weight": state["0.weight"][:2]},
        lambda state: {name: tensor for name, tensor in state.items() if name != "0.weight"},
        lambda state: {**state, "more": torch.ones(3)},
    ],
)
def test_weights_of_another_shape_are_refused(change: Any, tmp_path: Path) -> None:
    state = change({name: tensor.clone() for name, tensor in net().state_dict().items()})
    save_file(state, tmp_path / "net.safetensors")
    with pytest.raises(FileError, match=r"net\.safetensors"):
        load_weights_(net(), tmp_path / "net.safetensors")
    folder = tmp_path / "saved"
    cp.save(pruned(), folder)
    save_file(state, folder / "weights.safetensors")
    seal_folder(folder)
    with pytest.raises(FileError, match=r"weights\.safetensors has"):
        cp.load(folder, net)


def test_an_example_of_another_kind_is_refused(tmp_path: Path) -> None:
    for inputs in ({}, {"args.0": torch.ones(1)}, {"kwargs.nothing": IMAGE}, {"outputs.0": IMAGE}):
        folder = tmp_path / "saved"
        cp.save(pruned(), folder, example=IMAGE, overwrite=True)
        save_file(inputs, folder / "example.safetensors")
        seal_folder(folder)
        with pytest.raises(CompressorError, match=r"saved example|outputs"):
            cp.load(folder, net)
