"""Many models into one store: names, facts, what cannot be read, and going on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from compressor.errors import FileError, InputError
from compressor.filters import FilterBank, banks, banks_of_onnx
from compressor.filters.store import Store, extract, verify_store
from tests.filters.onnx_files.graphs import conv, model, write
from tests.filters.store.zoo import banks_of


def _file(path: Path, seed: int, size: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {"a": np.random.default_rng(seed).normal(size=(4, 3, size, size)).astype(np.float32)}
    return write(model([conv("x", "a", "y")], weights), path)


def test_a_folder_of_files_is_taken_in_order_with_their_facts(tmp_path: Path) -> None:
    for seed, name in enumerate(("b", "a", "deep/c")):
        _file(tmp_path / "zoo" / f"{name}.onnx", seed)
    (tmp_path / "zoo" / "notes.txt").write_text("…")
    found = extract(
        tmp_path / "zoo", tmp_path / "store", metadata={"c": {"task": "Style", "depth": 3}}, progress=True
    )
    assert found.added == found.store.models == ("a", "b", "c")
    for layer, name in zip(found.store.layers, ("a", "b", "deep/c"), strict=True):
        (expected,) = banks_of_onnx(tmp_path / "zoo" / f"{name}.onnx")
        bank = found.store.bank(layer)
        assert torch.equal(bank.weight, expected.weight)
        assert (bank.conv_depth, bank.conv_depth_norm, layer.metadata["layer_depth"]) == (0, 0.0, 0)
        assert (layer.metadata["Conv"], layer.metadata["3x3_filter_share"], layer.metadata["producer"]) == (
            1,
            1.0,
            "tests 2",
        )
        assert layer.source is not None and layer.source.endswith(f"{name}.onnx")
    assert found.store.layers[2].metadata["task"] == "Style"
    assert [layer.metadata["depth"] for layer in found.store.layers] == [1, 1, 3]  # what the user says counts
    assert str(found).startswith("3 models added, 0 there before; Store(3 layers of 3 models")


def test_files_of_one_name_are_named_by_their_folders(tmp_path: Path) -> None:
    first, second = _file(tmp_path / "a" / "net.onnx", 1), _file(tmp_path / "b" / "net.onnx", 2)
    assert extract(tmp_path, tmp_path / "store").store.models == ("a/net", "b/net")
    assert extract([first, second], tmp_path / "other").store.models == (first.as_posix(), second.as_posix())
    with pytest.raises(InputError, match="a file is given twice"):
        extract([first, first], tmp_path / "third")


def test_modules_banks_files_and_functions_are_models_alike(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 1), nn.Conv2d(2, 6, 3))
    seen = banks(net, torch.zeros(1, 3, 9, 9))
    file = _file(tmp_path / "net.onnx", 1)
    sources = {
        "module": net,
        "banks": seen,
        "file": file,
        "built": lambda: nn.Sequential(nn.Conv2d(1, 1, 3)),
        "read": lambda: str(file),
    }
    store = extract(sources, tmp_path / "store").store
    assert store.models == ("module", "banks", "file", "built", "read")
    found = {name: list(store.select(f"model = '{name}'").banks()) for name in store.models}
    assert [bank.name for bank in found["module"]] == ["0", "2"]  # the others are of another size
    assert torch.equal(found["banks"][1].weight, net[2].weight)
    assert [bank.conv_depth for bank in found["banks"]] == [seen[0].conv_depth, seen[2].conv_depth]
    assert torch.equal(found["read"][0].weight, found["file"][0].weight)


def test_other_sizes_have_another_store(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 5))
    store = extract({"net": net}, tmp_path / "store", kernel_size=(5, 5)).store
    assert [bank.name for bank in store.banks()] == ["1"]


def test_models_that_cannot_be_taken_are_all_named_and_left_out_on_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    zoo = tmp_path / "zoo"
    _file(zoo / "good.onnx", 1)
    (zoo / "half.onnx").write_bytes(_file(zoo / "last.onnx", 2).read_bytes()[:100])
    _file(zoo / "wide.onnx", 3, size=5)
    nodes = [conv("x", "style", "y")]
    write(model(nodes, {}, inputs=("x", "style")), zoo / "dynamic.onnx")
    with pytest.raises(FileError, match="3 of 5 models cannot be stored, the others are") as caught:
        extract(zoo, tmp_path / "store")
    text = str(caught.value)
    assert "dynamic: " in text and "half: " in text and "wide: " in text
    assert "computed from the model's input 'style'" in text
    assert "skip_unreadable=True" in text
    found = extract(zoo, tmp_path / "store", skip_unreadable=True)
    assert (found.added, found.kept) == ((), ("good", "last"))
    assert [entry.name for entry in found.skipped] == ["dynamic", "half", "wide"]
    assert "3 left out" in repr(found)
    assert caplog.text.count("left out") == 3
    with pytest.raises(FileError, match="1 of 1 models cannot be stored, the others are; none is left"):
        extract([zoo / "half.onnx"], tmp_path / "empty", skip_unreadable=True)


def test_values_that_are_not_finite_are_a_fault_of_their_model(tmp_path: Path) -> None:
    broken = nn.Conv2d(3, 4, 3)
    nn.init.constant_(broken.weight, torch.nan)
    with pytest.raises(FileError, match=r"(?s)1 of 2 models.*broken: .*NaN or infinite"):
        extract({"broken": broken, "good": nn.Conv2d(3, 4, 3)}, tmp_path)
    assert Store.open(tmp_path).models == ("good",)


def test_the_same_call_goes_on_and_reads_nothing_twice(tmp_path: Path) -> None:
    built = []

    def build(name: str) -> list[FilterBank]:
        built.append(name)
        if name == "c" and built.count("c") == 1:
            raise KeyboardInterrupt
        return banks_of(name)

    sources = {name: lambda name=name: build(name) for name in "abcd"}
    with pytest.raises(KeyboardInterrupt):
        extract(sources, tmp_path)
    found = extract(sources, tmp_path)
    assert (found.added, found.kept) == (("c", "d"), ("a", "b"))
    assert built == ["a", "b", "c", "c", "d"]
    assert extract(sources, tmp_path).kept == ("a", "b", "c", "d")


def test_a_file_that_changed_since_is_a_fault(tmp_path: Path) -> None:
    file = _file(tmp_path / "net.onnx", 1)
    extract(file, tmp_path / "store")
    assert extract(file, tmp_path / "store").kept == ("net",)
    _file(file, 2)
    with pytest.raises(FileError, match=r"net\.onnx has changed since it was stored as 'net'"):
        extract(file, tmp_path / "store")


def test_a_change_of_the_second_file_is_seen(tmp_path: Path) -> None:
    weights = {"a": np.ones((2, 2, 3, 3), np.float32)}
    file = tmp_path / "net.onnx"
    onnx.save(
        model([conv("x", "a", "y")], weights),
        str(file),
        save_as_external_data=True,
        location="w",
        size_threshold=0,
    )
    extract(file, tmp_path / "store")
    (tmp_path / "w").write_bytes(bytes(144))
    with pytest.raises(FileError, match="has changed since it was stored"):
        extract(file, tmp_path / "store")


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "there are no models"),
        ({}, "there are no models"),
        ([nn.Conv2d(1, 1, 3)], r'got a Conv2d; give \{"name": model\}'),
        ({"net": 3}, "net: a model is a torch.nn.Module, banks, or an ONNX file, got int"),
        ({"net": [torch.ones(1)]}, "a model is a torch.nn.Module, banks, or an ONNX file, got list"),
        (
            {"net": [FilterBank(torch.ones(1, 1, 5, 5), "wide")]},
            r"none of its 1 banks has kernels of \(3, 3\)",
        ),
        ({"net": "absent.onnx"}, r"absent\.onnx: no such ONNX file"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, sources: object, message: str) -> None:
    with pytest.raises((InputError, FileError), match=message):
        extract(sources, tmp_path / "store")


def test_a_folder_without_files_and_metadata_of_strangers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"holds no \.onnx file"):
        extract(tmp_path, tmp_path / "store")
    with pytest.raises(InputError, match="metadata speaks of 'Net', which is none of the 1 models"):
        extract({"net": nn.Conv2d(1, 1, 3)}, tmp_path / "store", metadata={"Net": {"task": "Style"}})
    assert not (tmp_path / "store").exists()


def _slow(folder: Path) -> None:
    def build(name: str) -> list[FilterBank]:
        time.sleep(0.02)
        return banks_of(name)

    extract({f"net{i}": lambda i=i: build(f"net{i}") for i in range(400)}, folder)


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL and fork")
def test_a_run_that_is_killed_from_outside_is_continued(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.filters.store.killing"])
    process = context.Process(target=_slow, args=(tmp_path,))
    process.start()
    journal, waited = tmp_path / "models.jsonl", time.monotonic()
    while not (journal.exists() and journal.stat().st_size) and time.monotonic() < waited + 60:
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    there = Store.open(tmp_path).models
    assert 0 < len(there) < 400
    names = [f"net{i}" for i in range(len(there) + 3)]
    found = extract({name: banks_of(name) for name in names}, tmp_path)
    assert found.kept == there
    assert found.store.models == tuple(names)
    expected = [bank for name in names for bank in banks_of(name)]
    assert all(torch.equal(a.weight, b.weight) for a, b in zip(found.store.banks(), expected, strict=True))
    assert verify_store(tmp_path).models == len(names)
