"""What is read of batches, and which are refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch.utils.data import DataLoader, TensorDataset

from compressor.errors import InputError
from compressor.export.files.feeds import examples_of, feeds_of, read_feeds, refuse_constant
from compressor.export.files.sources import Source, read_source

X, Y = torch.arange(12.0).reshape(4, 3), torch.arange(4)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A [batch, 3] float32 and ids [batch] int64, both added up."""
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["ids"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["a"], ["s"], keepdims=0),
            helper.make_node("Add", ["s", "f"], ["y"]),
        ],
        "pair",
        [
            helper.make_tensor_value_info("a", TensorProto.FLOAT, ["batch", 3]),
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch"]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    path = tmp_path_factory.mktemp("pair") / "pair.onnx"
    onnx.save(model, str(path))
    return read_source(path)


@pytest.mark.parametrize(
    "item",
    [
        ((X, Y), "target"),
        [[X, Y], "target"],
        {"a": X, "ids": Y, "labels": Y},
        ({"ids": Y, "a": X}, "target"),
        (X, Y, "target"),
    ],
)
def test_every_kind_of_batch_gives_the_same_arrays(pair: Source, item: Any) -> None:
    ((feeds, _),) = feeds_of(pair, [item], "batches")
    assert list(feeds) == ["a", "ids"]
    np.testing.assert_array_equal(feeds["a"], X.numpy())
    np.testing.assert_array_equal(feeds["ids"], Y.numpy())


def test_a_loader_is_read_until_there_are_enough_examples(pair: Source) -> None:
    loader = DataLoader(TensorDataset(X, Y, Y), batch_size=2)
    assert [len(feeds["a"]) for feeds in read_feeds(pair, loader, "calibration", max_examples=2)] == [2]
    assert len(read_feeds(pair, loader, "calibration", max_examples=3)) == 2
    with pytest.raises(InputError, match="max_examples must be at least 1, got 0"):
        read_feeds(pair, loader, "calibration", max_examples=0)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((X, Y), r"batch 0 gives 1 tensors in order.*has the inputs a, ids; a batch is \(inputs, target\)"),
        (((X, Y, Y), 0), "batch 0 gives 3 tensors in order"),
        ({"a": X}, "0 tensors in order and a by name"),
        (((X[:, :2], Y), 0), r"the input 'a' \[4, 2\] float32, .* takes \[batch, 3\] float32"),
        (((X, Y[:2]), 0), r"the input 'ids' \[2\] int64, .* takes \[batch\] int64"),
        (((X[0], Y), 0), r"the input 'a' \[3\] float32"),
        (((X.double(), Y), 0), r"the input 'a' \[4, 3\] float64, .* takes \[batch, 3\] float32"),
        (((X.bfloat16(), Y), 0), r"bfloat16, .* takes"),
        (((X, Y.int()), 0), r"the input 'ids' \[4\] int32"),
        (((X[:0], Y[:0]), 0), "no example is in it"),
        (
            ((X / torch.tensor([0.0, 1, 1]), Y), 0),
            "batch 0 holds 4 values of the input 'a' that are NaN or inf",
        ),
    ],
)
def test_batches_that_do_not_fit_are_refused(pair: Source, item: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^calibration: .*{message}"):
        list(feeds_of(pair, [item], "calibration"))


def test_no_batch_and_no_loader_are_refused(pair: Source) -> None:
    with pytest.raises(InputError, match="held_out: batches gave no batch"):
        list(feeds_of(pair, [], "held_out"))
    with pytest.raises(InputError, match="held_out: batches must be iterable"):
        list(feeds_of(pair, 3, "held_out"))  # type: ignore[arg-type]


def test_a_loader_that_cannot_read_is_not_taken_for_a_file_that_cannot_be_written(pair: Source) -> None:
    def broken() -> Iterator[object]:
        yield (X, Y), 0
        raise FileNotFoundError("no such image: 17.png")

    with pytest.raises(InputError, match=r"held_out: a batch cannot be read: .*17\.png"):
        list(feeds_of(pair, broken(), "held_out"))


def test_constant_inputs_are_refused_and_a_constant_beside_others_is_not() -> None:
    one, ramp = np.ones((2, 3), np.float32), np.arange(6, dtype=np.float32)
    with pytest.raises(InputError, match="calibration: every value is 1, so that no range"):
        refuse_constant([{"a": one}, {"a": one}], "calibration")
    refuse_constant([{"a": one}, {"a": 2 * one}], "calibration")
    refuse_constant([{"a": ramp, "mask": one}], "calibration")
    refuse_constant([{"ids": np.ones(3, np.int64)}], "calibration")


def test_examples_are_taken_in_turn_along_a_free_batch_axis(pair: Source) -> None:
    feeds = {"a": X.numpy()[:2], "ids": Y.numpy()[:2]}
    assert examples_of(pair, feeds, 3)["ids"].tolist() == [0, 1, 0]
    assert examples_of(pair, feeds, 1)["a"].tolist() == [[0.0, 1.0, 2.0]]
