"""Which convolutions of an ONNX file are read, in which order, and with which weights."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from compressor.errors import FileError, InputError
from compressor.filters import banks_of_onnx, read_onnx
from tests.filters.onnx_files.graphs import conv, model, write

RNG = np.random.default_rng(5)


def weight(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return RNG.normal(size=shape).astype(dtype)


def test_kernels_of_the_asked_size_are_kept_and_transposed_ones_are_not(tmp_path: Path) -> None:
    weights = {
        "a": weight(4, 3, 3, 3),
        "b": weight(4, 4, 5, 5),
        "up": weight(4, 2, 3, 3),
        "c": weight(2, 2, 3, 3),
    }
    up = helper.make_node("ConvTranspose", ["y1", "up"], ["y2"])
    nodes = [conv("x", "a", "y0"), conv("y0", "b", "y1"), up, conv("y2", "c", "y3")]
    file = write(model(nodes, weights), tmp_path / "net.onnx")
    banks = banks_of_onnx(file)
    assert [bank.name for bank in banks] == ["a", "c"]
    assert [bank.layer_id for bank in banks] == [0, 1]
    assert [bank.conv_depth for bank in banks] == [0, 2]  # the transposed one is no step of the three
    assert [bank.conv_depth_norm for bank in banks] == [0.0, 1.0]
    assert {bank.model for bank in banks} == {"net"}
    assert torch.equal(banks[1].weight, torch.from_numpy(weights["c"]))
    assert [bank.name for bank in banks_of_onnx(file, kernel_size=(5, 5))] == ["b"]
    assert [bank.name for bank in banks_of_onnx(file, kernel_size=None, model_name="mine")] == ["a", "b", "c"]


def test_depth_is_that_of_the_longest_path_and_parallel_convolutions_share_their_rank(tmp_path: Path) -> None:
    weights = {name: weight(3, 3, 3, 3) for name in "abcd"}
    nodes = [
        conv("x", "a", "y0"),
        helper.make_node("Relu", ["y0"], ["r"]),
        conv("r", "b", "y1"),
        conv("r", "c", "y2"),
        helper.make_node("Add", ["y1", "x"], ["short"]),  # the longer of its two paths counts
        conv("short", "d", "y3"),
    ]
    found = read_onnx(write(model(nodes, weights), tmp_path / "net.onnx"))
    assert found.node_depths == (0, 2, 2, 4)
    assert [bank.conv_depth for bank in found.banks] == [0, 1, 1, 2]
    assert found.facts.depth == 5


def test_a_model_of_one_depth_has_the_normalised_depth_zero(tmp_path: Path) -> None:
    (bank,) = banks_of_onnx(
        write(model([conv("x", "a", "y")], {"a": weight(2, 3, 3, 3)}), tmp_path / "one.onnx")
    )
    assert (bank.conv_depth, bank.conv_depth_norm) == (0, 0.0)


def test_a_shared_weight_counts_once_for_each_node(tmp_path: Path) -> None:
    nodes = [conv("x", "a", "y0"), conv("y0", "a", "y1")]
    banks = banks_of_onnx(write(model(nodes, {"a": weight(3, 3, 3, 3)}), tmp_path / "net.onnx"))
    assert [(bank.name, bank.layer_id) for bank in banks] == [("a", 0), ("a", 1)]


def test_groups_are_read_and_inputs_of_a_group_counted(tmp_path: Path) -> None:
    nodes = [conv("x", "a", "y", group=6)]
    (bank,) = banks_of_onnx(write(model(nodes, {"a": weight(6, 1, 3, 3)}), tmp_path / "net.onnx"))
    assert (bank.groups, bank.count, tuple(bank.weight.shape)) == (6, 6, (6, 1, 3, 3))


def test_one_and_three_axes_are_ranked_among_their_own_kind(tmp_path: Path) -> None:
    weights = {"line": weight(2, 3, 5), "volume": weight(2, 3, 3, 3, 3), "image": weight(2, 3, 3, 3)}
    nodes = [conv("x", "line", "y0"), conv("y0", "volume", "y1"), conv("y1", "image", "y2")]
    file = write(model(nodes, weights), tmp_path / "net.onnx")
    assert [bank.conv_depth for bank in banks_of_onnx(file, kernel_size=None)] == [0, 0, 0]
    assert [bank.name for bank in banks_of_onnx(file, kernel_size=(3, 3, 3))] == ["volume"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_weights_keep_their_dtype(tmp_path: Path, dtype: type) -> None:
    stored = weight(2, 3, 3, 3, dtype=dtype)
    (bank,) = banks_of_onnx(write(model([conv("x", "a", "y")], {"a": stored}), tmp_path / "net.onnx"))
    assert bank.weight.dtype == torch.from_numpy(stored).dtype
    assert torch.equal(bank.weight, torch.from_numpy(stored))


def test_bfloat16_is_read_to_the_bit(tmp_path: Path) -> None:
    stored = weight(2, 3, 3, 3).astype(ml_dtypes.bfloat16)
    (bank,) = banks_of_onnx(write(model([conv("x", "a", "y")], {"a": stored}), tmp_path / "net.onnx"))
    assert bank.weight.dtype == torch.bfloat16
    assert np.array_equal(bank.weight.float().numpy(), stored.astype(np.float32))


def test_weights_of_a_constant_behind_casts_and_quantisation_are_computed(tmp_path: Path) -> None:
    plain, steps = weight(2, 3, 3, 3), RNG.integers(-127, 128, (4, 2, 3, 3)).astype(np.int8)
    scale = np.array([0.5, 0.25, 2.0, 1.0], np.float32)
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(plain.astype(np.float16))),
        helper.make_node("Identity", ["c"], ["c1"]),
        helper.make_node("Cast", ["c1"], ["c2"], to=TensorProto.FLOAT),
        conv("x", "c2", "y0"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], axis=0),
        conv("y0", "d", "y1"),
        conv("y1", "c", "y2"),
    ]
    weights = {"q": steps, "scale": scale, "zero": np.zeros(4, np.int8)}
    first, second, third = banks_of_onnx(write(model(nodes, weights), tmp_path / "net.onnx"))
    assert np.array_equal(first.weight.numpy(), plain.astype(np.float16).astype(np.float32))
    assert np.array_equal(second.weight.numpy(), steps * scale[:, None, None, None])
    assert third.weight.dtype == torch.float16


def test_weights_in_a_second_file_are_read_and_its_loss_is_named(tmp_path: Path) -> None:
    stored = weight(2, 3, 3, 3)
    file = tmp_path / "net.onnx"
    proto = model([conv("x", "a", "y")], {"a": stored})
    onnx.save(proto, str(file), save_as_external_data=True, location="weights.bin", size_threshold=0)
    (bank,) = banks_of_onnx(file)
    assert np.array_equal(bank.weight.numpy(), stored)
    data = tmp_path / "weights.bin"
    data.write_bytes(data.read_bytes()[:40])
    with pytest.raises(FileError, match=r"net\.onnx: 1 convolutions cannot be read(.|\n)*'a' cannot be read"):
        banks_of_onnx(file)
    data.unlink()
    with pytest.raises(FileError, match="file of external data, may be truncated or missing"):
        banks_of_onnx(file)


def test_weights_that_depend_on_an_input_are_named_or_left_out_on_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [
        conv("x", "a", "y0"),
        helper.make_node("Mul", ["style", "b"], ["modulated"]),
        conv("y0", "modulated", "y1"),
        conv("y1", "a", "y2"),
    ]
    weights = {"a": weight(3, 3, 3, 3), "b": weight(3, 3, 3, 3)}
    file = write(model(nodes, weights, inputs=("x", "style")), tmp_path / "net.onnx")
    with pytest.raises(FileError, match=r"node_y1: it is computed from the model's input 'style'"):
        banks_of_onnx(file)
    found = read_onnx(file, skip_unreadable=True)
    assert [bank.name for bank in found.banks] == ["a", "a"]
    assert [bank.conv_depth for bank in found.banks] == [0, 2]  # the depth of the one left out counts
    assert [entry.name for entry in found.unread] == ["node_y1"]
    assert "left out node_y1" in caplog.text


def _branching(inner: onnx.NodeProto) -> onnx.NodeProto:
    out = helper.make_tensor_value_info(inner.output[0], TensorProto.FLOAT, None)
    branch = helper.make_graph([inner], "branch", [], [out])
    return helper.make_node("If", ["flag"], ["y1"], name="choice", then_branch=branch, else_branch=branch)


UNREAD = {
    "random": (
        [helper.make_node("RandomNormal", [], ["w"], shape=[2, 3, 3, 3])],
        "drawn at random by RandomNormal",
    ),
    "absent": ([], "nothing in the file makes the value 'w'"),
    "foreign": (
        [helper.make_node("Made", ["a"], ["w"], domain="own")],
        r"what Made make of constants cannot be computed",
    ),
    "integer": ([helper.make_node("Identity", ["steps"], ["w"])], "floating tensor"),
    "matrix": ([helper.make_node("Identity", ["matrix"], ["w"])], "three dimensions or more"),
    "not a number": ([helper.make_node("Identity", ["nan"], ["w"])], "1 value that is NaN"),
    "no filters": ([helper.make_node("Identity", ["empty"], ["w"])], "is empty"),
}


@pytest.mark.parametrize("case", UNREAD)
def test_weights_that_cannot_be_read_are_named_with_the_reason(tmp_path: Path, case: str) -> None:
    nodes, reason = UNREAD[case]
    broken = weight(2, 3, 3, 3)
    broken[1, 2, 0, 0] = np.nan
    weights = {
        "a": weight(2, 3, 3, 3),
        "steps": np.ones((2, 3, 3, 3), np.int8),
        "matrix": weight(2, 3),
        "nan": broken,
        "empty": weight(0, 3, 3, 3),
    }
    file = write(model([*nodes, conv("x", "a", "y0"), conv("x", "w", "y1")], weights), tmp_path / "net.onnx")
    with pytest.raises(FileError, match=rf"node_y1: .*{reason}"):
        banks_of_onnx(file)
    assert len(read_onnx(file, skip_unreadable=True).banks) == 1


def test_other_operators_that_convolve_and_branches_are_not_passed_over(tmp_path: Path) -> None:
    weights = {"a": weight(3, 3, 3, 3)}
    fused = helper.make_node("FusedConv", ["x", "a"], ["y0"], name="fused", domain="com.microsoft")
    nodes = [fused, _branching(conv("y0", "a", "inner")), conv("y1", "a", "y2")]
    found = read_onnx(
        write(model(nodes, weights, inputs=("x", "flag")), tmp_path / "net.onnx"), skip_unreadable=True
    )
    assert [str(entry) for entry in found.unread] == [
        "fused: FusedConv is no Conv",
        "node_inner: Conv in a graph of If",
        "node_inner: Conv in a graph of If",
    ]
    assert len(found.banks) == 1


def test_convolutions_in_functions_are_read(tmp_path: Path) -> None:
    body = [helper.make_node("Conv", ["data", "w"], ["out"])]
    block = helper.make_function("own", "Block", ["data", "w"], ["out"], body, [helper.make_opsetid("", 17)])
    nodes = [
        helper.make_node("Block", ["x", "a"], ["y0"], domain="own"),
        helper.make_node("Block", ["y0", "b"], ["y1"], domain="own"),
    ]
    weights = {"a": weight(3, 3, 3, 3), "b": weight(3, 3, 3, 3)}
    banks = banks_of_onnx(write(model(nodes, weights, functions=[block]), tmp_path / "net.onnx"))
    assert [(bank.name, bank.conv_depth) for bank in banks] == [("a", 0), ("b", 1)]


def test_a_constant_start_counts_as_the_start_where_no_input_leads(tmp_path: Path) -> None:
    nodes = [conv("start", "a", "y0"), conv("y0", "a", "y1"), conv("x", "a", "z")]
    weights = {"a": weight(3, 3, 3, 3), "start": weight(1, 3, 8, 8)}
    assert read_onnx(write(model(nodes, weights), tmp_path / "net.onnx")).node_depths == (0, 1, 0)


def test_a_file_without_such_kernels_says_which_it_holds(tmp_path: Path) -> None:
    file = write(model([conv("x", "a", "y")], {"a": weight(2, 3, 5, 5)}), tmp_path / "net.onnx")
    with pytest.raises(
        InputError,
        match=r"no convolution with kernels of size \(3, 3\); it holds 1 of 5 x 5: kernel_size=None",
    ):
        banks_of_onnx(file)
    file = write(model([helper.make_node("Relu", ["x"], ["y"])], {}), tmp_path / "relu.onnx")
    with pytest.raises(InputError, match=r"relu\.onnx: holds no convolution that can be read"):
        banks_of_onnx(file, kernel_size=None)


@pytest.mark.parametrize("size", [(), (0, 3), (3.0, 3), 0])
def test_a_kernel_size_that_is_none_is_refused(tmp_path: Path, size: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="kernel_size is a tuple of positive lengths"):
        banks_of_onnx(tmp_path / "net.onnx", kernel_size=size)


def test_missing_foreign_and_truncated_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such ONNX file"):
        banks_of_onnx(tmp_path / "absent.onnx")
    whole = model([conv("x", "a", "y")], {"a": weight(8, 3, 3, 3)}).SerializeToString()
    for name, content in {
        "empty": b"",
        "text": b"a text of some length, which is no protobuf",
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(64),
        "half": whole[: len(whole) // 2],
        "no end": whole[:-1],
        "no opset": whole[: whole.rindex(b"\x42")],
    }.items():
        file = tmp_path / f"{name}.onnx"
        file.write_bytes(content)
        with pytest.raises(FileError, match=rf"{name}\.onnx: cannot be read as an ONNX file"):
            banks_of_onnx(file)


def test_no_truncation_of_a_file_passes_for_a_whole_one(tmp_path: Path) -> None:
    whole = model([conv("x", "a", "y")], {"a": weight(2, 2, 3, 3)}).SerializeToString()
    file = tmp_path / "cut.onnx"
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises((FileError, InputError)):
            banks_of_onnx(file)


def test_no_damage_of_a_file_gives_another_error_than_ours(tmp_path: Path) -> None:
    nodes = [conv("x", "a", "y0"), helper.make_node("Identity", ["a"], ["b"]), conv("y0", "b", "y1")]
    whole = model(nodes, {"a": weight(3, 3, 3, 3)}).SerializeToString()
    rng, file, faults = np.random.default_rng(3), tmp_path / "damaged.onnx", 0
    for _ in range(120):
        content = bytearray(whole)
        for at in rng.integers(len(whole), size=3):
            content[at] = rng.integers(256)
        file.write_bytes(content)
        try:
            read_onnx(file, kernel_size=None)
        except (FileError, InputError) as error:
            assert "damaged.onnx" in str(error)
            faults += 1
    assert faults > 10
