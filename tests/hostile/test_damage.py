"""Damaged, foreign and tampered files of every kind are refused in our words, or read as they were."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.hostile.kinds import KINDS, laid_out, outcome, whole

PLACES = 14
FLIPS = 40
TRIES = 120

FOREIGN: dict[str, bytes] = {
    "nothing": b"",
    "a text": b"a text of some length, which is nothing else",
    "zeros": bytes(4096),
    "no UTF-8": b"\xff\xfe{}",
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(64),
    "a pickle": b"\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x05mkdir\x94\x93\x94"
    b"\x8c\x04trap\x94\x85\x94R\x94.",
    "a zip of nothing": b"PK\x05\x06" + bytes(18),
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "whole deep lists": b"[" * 50_000 + b"]" * 50_000,
    "a long number": b"9" * 10_000,
    "no number": b"NaN",
    "an empty object": b"{}",
    "a list": b"[]",
    "null": b"null",
    "a line": b"\n",
}


def assert_refused_or_read(name: str, folder: Path, what: str, faults: list[str]) -> bool:
    """Note a fault where reading ends otherwise; whether it was refused."""
    ended, value = outcome(name, folder)
    if ended == "WRONG":
        faults.append(f"{what}: {type(value).__name__}: {str(value)[:200]}")
    elif ended == "refused" and not names_its_file(name, folder, str(value)):
        faults.append(f"{what}: the message does not name the file: {str(value)[:200]}")
    elif ended == "read" and KINDS[name].sealed and value != whole_value(name, folder):
        faults.append(f"{what}: read as something else")
    return ended == "refused"


def names_its_file(name: str, folder: Path, message: str) -> bool:
    """The file, or the folder of a model whose files contradict each other."""
    return Path(KINDS[name].target).name in message or str(folder) in message


def whole_value(name: str, folder: Path) -> object:
    damaged = (folder / KINDS[name].target).read_bytes()
    laid_out(name, folder)
    ended, value = outcome(name, folder)
    assert ended == "read", value
    (folder / KINDS[name].target).write_bytes(damaged)
    return value


@pytest.mark.parametrize("name", KINDS)
def test_a_whole_file_is_read(name: str, tmp_path: Path) -> None:
    laid_out(name, tmp_path)
    ended, value = outcome(name, tmp_path)
    assert ended == "read", value


@pytest.mark.parametrize("name", KINDS)
def test_a_truncated_file(name: str, tmp_path: Path) -> None:
    content, faults, refused = whole(name)[KINDS[name].target], [], 0
    lengths = sorted({*np.linspace(0, len(content) - 1, PLACES).astype(int).tolist(), 1, len(content) - 2})
    for length in lengths:
        laid_out(name, tmp_path, content[:length])
        refused += assert_refused_or_read(name, tmp_path, f"cut to {length}", faults)
    assert not faults, "\n".join(faults)
    # A line that was torn counts for nothing, and a zip may end in a comment.
    assert refused >= len(lengths) - 2


@pytest.mark.parametrize("name", KINDS)
def test_a_flipped_bit(name: str, tmp_path: Path) -> None:
    content, faults = whole(name)[KINDS[name].target], []
    rng = np.random.default_rng(7)
    for place, bit in zip(rng.integers(len(content), size=FLIPS), rng.integers(8, size=FLIPS), strict=True):
        damaged = bytearray(content)
        damaged[place] ^= 1 << bit
        laid_out(name, tmp_path, bytes(damaged))
        assert_refused_or_read(name, tmp_path, f"bit {bit} of byte {place}", faults)
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("name", KINDS)
def test_a_foreign_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    faults: list[str] = []
    for what, content in FOREIGN.items():
        laid_out(name, tmp_path, content)
        if not assert_refused_or_read(name, tmp_path, what, faults):
            faults.append(f"{what}: was read")
    assert not faults, "\n".join(faults)
    assert not list((tmp_path / "here").iterdir()), "code in the file was run"


@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_file(name: str, tmp_path: Path) -> None:
    faults: list[str] = []
    target = laid_out(name, tmp_path)
    if name != "training":  # without a file a training starts anew
        target.unlink()
        assert assert_refused_or_read(name, tmp_path, "missing", faults)
    target.unlink(missing_ok=True)
    target.mkdir()
    assert_refused_or_read(name, tmp_path, "a folder", faults)
    target.rmdir()
    os.symlink(target, target)
    assert_refused_or_read(name, tmp_path, "a link to itself", faults)
    assert not faults, "\n".join(faults)


WRONG: tuple[Any, ...] = (
    None, True, -1, 0, 10**30, 1.5, float("nan"), float("inf"), -1e308, "", "x", "../../x", "1/0", "\ud800",
    [], {}, [[]], [None], {"a": []},
)  # fmt: skip


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places in a document, outer ones too."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from leaves(item, (*path, key))


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    document = copy.deepcopy(document)
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return document


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if kind.document])
def test_a_value_of_another_kind_with_digests_to_match(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]
    assert kind.document is not None and kind.rewrite is not None
    document, faults = kind.document(whole(name)[kind.target]), []
    rng = np.random.default_rng(3)
    places = list(leaves(document))
    shallow = [path for path in places if len(path) <= 2]
    places = shallow[:60] + [places[i] for i in rng.permutation(len(places))[:60]]
    tries = [(path, value) for path in places for value in WRONG]
    for at in rng.permutation(len(tries))[:TRIES]:
        path, value = tries[at]
        laid_out(name, tmp_path, kind.rewrite(changed(document, path, value)))
        ended, found = outcome(name, tmp_path)
        if ended == "WRONG":
            faults.append(f"{path} = {value!r}: {type(found).__name__}: {str(found)[:150]}")
        elif ended == "refused" and not names_its_file(name, tmp_path, str(found)):
            faults.append(f"{path} = {value!r}: names no file: {str(found)[:150]}")
    for path in shallow:
        if path[:-1] != ("entry",)[: len(path) - 1] or path == ("entry",):
            continue
        less = copy.deepcopy(document)
        within = less if len(path) == 1 else less["entry"]
        del within[path[-1]]
        laid_out(name, tmp_path, kind.rewrite(less))
        ended, found = outcome(name, tmp_path)
        if ended == "WRONG":
            faults.append(f"without {path[-1]}: {type(found).__name__}: {str(found)[:150]}")
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults[:40])
