"""Small files that would fill the memory, or take for ever: refused, with hardly any memory."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from onnx import helper, numpy_helper

import compressor as cp
from compressor.core.plan import Plan
from compressor.errors import FileError, PlanMismatchError
from compressor.filters import read_onnx
from compressor.filters.store import extract
from compressor.filters.store.arrow import rows_per_group
from compressor.search.files import Journal
from compressor.unpacking import refuse_bomb
from tests.hostile.kinds import KINDS, laid_out, net, outcome, whole

MIB = 1 << 20
ALLOWED_MB = 60

pytestmark = pytest.mark.skipif(
    not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak of memory is read from /proc"
)


def peak_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def ended(read: Callable[[], tuple[str, object]]) -> tuple[str, str, float]:
    """How reading ends in a process of its own, what it says, and by how many MB its peak grew."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            Path("/proc/self/clear_refs").write_text("5")
            before = peak_mb()
            how, said = read()
            os.write(sending, json.dumps([how, str(said)[:4000], peak_mb() - before]).encode())
        finally:
            os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    how, said, grown = json.loads(answer)
    return how, said, grown


def zeros_in_zip(path: Path, members: dict[str, tuple[bytes, int]]) -> None:
    """A deflated archive whose members are some bytes, and then so many zeros."""
    block = bytes(MIB)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, (start, count) in members.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(start)
                for _ in range(count // MIB):
                    member.write(block)


def npy_head(shape: tuple[int, ...], dtype: str) -> bytes:
    head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b" " * (-(10 + len(head) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head


def an_input(folder: Path) -> None:
    zeros_in_zip(folder / "x.npz", {"arr_0.npy": (npy_head((300, MIB), "|u1"), 300 * MIB)})


def images(folder: Path) -> None:
    count = 96 * 1024  # 288 MiB
    pixels = {"x_train.npy": (npy_head((count, 32, 32, 3), "|u1"), 288 * MIB)}
    rest = {
        f"{name}.npy": (npy_head((MIB,), "|u1"), MIB) for name in ("y_train", "x_test", "y_test", "classes")
    }
    zeros_in_zip(folder / "images.npz", {**pixels, **rest})


def deflated(name: str) -> Callable[[Path], None]:
    """A file of torch whose records are compressed."""

    def make(folder: Path) -> None:
        tensor = torch.zeros(64 * MIB // 4)
        content = {"0.weight": tensor, "conv1.weight": tensor, "linear.weight": tensor[:2]}
        torch.save({"format": "compressor-training", "state_dict": content}, folder / "plain")
        path = folder / KINDS[name].target
        with (
            zipfile.ZipFile(folder / "plain") as plain,
            zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
        ):
            for member in plain.namelist():
                packed.writestr(member, plain.read(member), compresslevel=1)

    return make


def long_weights(folder: Path) -> None:
    laid_out("saved weights", folder)
    os.truncate(folder / "weights.safetensors", 1 << 40)


def resealed(folder: Path) -> None:
    """Note the sizes and digests of the first model's files anew in the journal of a store."""
    kind = KINDS["store journal"]
    assert kind.document is not None and kind.rewrite is not None
    document = kind.document((folder / "models.jsonl").read_bytes())
    for name in document["entry"]["files"]:
        data = (folder / name).read_bytes()
        document["entry"]["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "models.jsonl").write_bytes(kind.rewrite(document))


def a_large_row_group(folder: Path) -> None:
    path = laid_out("store kernels", folder)
    schema, count = pq.read_schema(path), rows_per_group(9, np.dtype(np.float32)) + 1
    zeros = [pa.array(np.zeros(count, kind.to_pandas_dtype())) for kind in schema.types]
    pq.write_table(pa.table(zeros, schema=schema), path, row_group_size=count, compression="zstd")
    resealed(folder)


def _layers(folder: Path, source: Any, count: int) -> None:
    path = laid_out("store layers", folder)
    rows = pq.read_table(path).slice(0, 1).take(pa.array(np.zeros(count, np.int64)))
    number = rows.schema.get_field_index("source")
    pq.write_table(rows.set_column(number, "source", source), path, compression="zstd")
    resealed(folder)


def a_long_text(folder: Path) -> None:
    text = pa.array(["x" * MIB])
    _layers(folder, pa.DictionaryArray.from_arrays(pa.array(np.zeros(300, np.int32)), text), 300)


def many_layers(folder: Path) -> None:
    _layers(folder, pa.nulls(2_000_000, pa.string()), 2_000_000)


def many_sketches(folder: Path) -> None:
    path = laid_out("sketches", folder)
    table = pq.read_table(path)
    rows = table.slice(0, 1).take(pa.array(np.zeros(5000, np.int64)))
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        for _ in range(26):
            writer.write_table(rows)


BOMBS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "zeros as an input": ("input npz", an_input, "x.npz unpacks to 314,"),
    "zeros as images": ("images", images, "images.npz unpacks to 306,"),
    "compressed weights": ("weights of torch", deflated("weights of torch"), "net.pt is compressed"),
    "a compressed training": ("training", deflated("training"), "training.pt is compressed"),
    "a compressed checkpoint": ("akamaster", deflated("akamaster"), "resnet.th is compressed"),
    "a terabyte of weights": ("saved weights", long_weights, "weights.safetensors has 1099511627776 bytes"),
    "a large row group": ("store kernels", a_large_row_group, "its row group 0 holds 932068 kernels"),
    "a text in every row": ("store layers", a_long_text, "the table of layers cannot be read"),
    "two million layers": ("store layers", many_layers, "the table of layers cannot be read"),
    "sketches of nothing": ("sketches", many_sketches, "sketches.parquet: no sketches can be read"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb(bomb: str, tmp_path: Path) -> None:
    name, make, refusal = BOMBS[bomb]
    whole(name)  # what writing one imports is not counted
    make(tmp_path)
    how, said, grown = ended(lambda: outcome(name, tmp_path))
    assert how == "refused" and refusal in said, (how, said)
    assert grown < ALLOWED_MB


def test_a_reader_without_a_bound_would_be_seen(tmp_path: Path) -> None:
    an_input(tmp_path)
    how, _, grown = ended(lambda: ("read", np.load(tmp_path / "x.npz")["arr_0"].shape))
    assert how == "read" and grown > 4 * ALLOWED_MB


def test_numbers_that_pack_well_are_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", np.zeros((50, MIB), np.uint8))
    refuse_bomb(tmp_path / "x.npz")


# -- ONNX files ------------------------------------------------------------------------------------

_OPSET, _OWN = helper.make_opsetid("", 19), helper.make_opsetid("own", 1)


def net_of(nodes: Sequence[onnx.NodeProto], stored: dict[str, Any], **more: Any) -> onnx.ModelProto:
    """A network that convolves its input x with what the nodes make."""
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()]
    ends = [helper.make_tensor_value_info(name, 1, None) for name in "xy"]
    graph = helper.make_graph(list(nodes), "net", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[_OPSET, _OWN], **more)
    model.ir_version = 9
    return model


CONV = helper.make_node("Conv", ["x", "w"], ["y"])
LARGE = np.array([1 << 15, 1 << 13, 3, 3])
ONE = np.ones((1, 1, 3, 3), np.float32)


def doubled() -> onnx.ModelProto:
    nodes = [helper.make_node("Concat", [f"w{i}"] * 2, [f"w{i + 1}"], axis=0) for i in range(30)]
    return net_of([*nodes, helper.make_node("Conv", ["x", "w30"], ["y"])], {"w0": ONE})


def called(itself: bool = False) -> onnx.ModelProto:
    """Nine functions that call one another ten times, or one that calls itself."""
    functions = []
    for level in range(9):
        inner = [
            helper.make_node(f"f{level if itself else level - 1}", [f"t{i}"], [f"t{i + 1}"], domain="own")
            for i in range(10)
        ]
        nodes = inner if level or itself else [helper.make_node("Relu", ["t0"], ["t10"])]
        functions.append(helper.make_function("own", f"f{level}", ["t0"], ["t10"], nodes, [_OPSET, _OWN]))
    call = helper.make_node("f8", ["x"], ["x8"], domain="own")
    conv = helper.make_node("Conv", ["x8", "w"], ["y"])
    return net_of([call, conv], {"w": ONE}, functions=functions)


ONNX_BOMBS: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "a constant of any shape": (
        lambda: net_of([helper.make_node("ConstantOfShape", ["s"], ["w"]), CONV], {"s": LARGE}),
        "ConstantOfShape makes 2,415,919,104 values",
    ),
    "a value expanded": (
        lambda: net_of([helper.make_node("Expand", ["a", "s"], ["w"]), CONV], {"s": LARGE, "a": ONE}),
        "Expand makes 2,415,919,104 values",
    ),
    "a shape that is computed": (
        lambda: net_of(
            [
                helper.make_node("TopK", ["s", "k"], ["t", "i"], axis=0),
                helper.make_node("Expand", ["a", "t"], ["w"]),
                CONV,
            ],
            {"s": LARGE, "a": ONE, "k": np.array([4])},
        ),
        "cannot be told before it is computed",
    ),
    "doubled thirty times": (doubled, "Concat makes 75,497,472 values"),
    "functions of functions": (called, "its functions make it 100,000,001 nodes"),
    "a function that calls itself": (lambda: called(itself=True), "calls itself"),
}


@pytest.mark.parametrize("bomb", ONNX_BOMBS)
def test_a_bomb_of_constants(bomb: str, tmp_path: Path) -> None:
    make, refusal = ONNX_BOMBS[bomb]
    (tmp_path / "net.onnx").write_bytes(make().SerializeToString())
    how, said, grown = ended(lambda: outcome("onnx", tmp_path))
    assert how == "refused" and refusal in said, (how, said)
    assert grown < ALLOWED_MB


def external(folder: Path, location: str) -> Path:
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[2, 2, 3, 3], data_location=1)
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    model = net_of([CONV], {})
    model.graph.initializer.append(tensor)
    (folder / "inside").mkdir()
    (folder / "inside" / "net.onnx").write_bytes(model.SerializeToString())
    (folder / "secret").write_bytes(np.ones((2, 2, 3, 3), np.float32).tobytes())
    return folder / "inside"


PLACES = ("../secret", "/dev/zero", "link", "folder/secret", "pipe", "")


@pytest.mark.parametrize("place", PLACES)
def test_values_outside_of_the_folder_of_an_onnx_file(place: str, tmp_path: Path) -> None:
    inside = external(tmp_path, place)
    (inside / "link").symlink_to(tmp_path / "secret")
    (inside / "folder").symlink_to(tmp_path)
    os.mkfifo(inside / "pipe")
    how, said, _ = ended(lambda: outcome("onnx", inside))
    assert how == "refused" and "net.onnx" in said, (how, said)
    with pytest.raises(FileError):
        cp.export.int8(inside / "net.onnx", [torch.ones(1, 2, 8, 8)], tmp_path / "out.onnx")
    with pytest.raises(FileError):  # which takes digests of the files that hold the values
        extract([inside / "net.onnx"], tmp_path / "store")


def test_a_second_file_with_far_more_than_the_values(tmp_path: Path) -> None:
    inside = external(tmp_path, "long")
    (inside / "long").touch()
    os.truncate(inside / "long", 1 << 30)
    how, said, grown = ended(lambda: outcome("onnx", inside))
    assert how == "refused" and "1,073,741,824 bytes for values of [2, 2, 3, 3]" in said, (how, said)
    assert grown < ALLOWED_MB


@pytest.mark.parametrize("place", ["/dev/zero", "../secret", "missing"])
def test_digests_are_taken_of_files_in_the_folder_only(place: str, tmp_path: Path) -> None:
    inside = external(tmp_path, place)
    model = onnx.load(inside / "net.onnx", load_external_data=False)
    model.graph.initializer[0].name = "unused"
    model.graph.initializer.append(numpy_helper.from_array(np.ones((2, 2, 3, 3), np.float32), "w"))
    (inside / "net.onnx").write_bytes(model.SerializeToString())
    assert read_onnx(inside / "net.onnx").banks
    with pytest.raises(FileError, match=f"keeps values in '{place}', which is no file in its folder"):
        extract([inside / "net.onnx"], tmp_path / "store")


# -- plans, folders, journals ----------------------------------------------------------------------


def plan_with(**changes: Any) -> bytes:
    rewrite = KINDS["plan"].rewrite
    assert rewrite is not None
    return rewrite({**json.loads(whole("plan")["plan.json"]), **changes})


def test_a_plan_of_very_many_channels_takes_no_memory_and_fits_no_model(tmp_path: Path) -> None:
    document = json.loads(whole("plan")["plan.json"])
    many = 10**12
    tensors = [[name, [many, *s[1:]] if name == "0.weight" else s] for name, s in document["tensors"]]
    cuts = [[*c[:2], many if c[0] == "0.weight" and c[1] == 0 else c[2], *c[3:]] for c in document["cuts"]]
    (tmp_path / "plan.json").write_bytes(plan_with(tensors=tensors, cuts=cuts))

    def read() -> tuple[str, object]:
        plan = Plan.load(tmp_path / "plan.json")
        said = f"{plan}{plan!r}{plan.diff(plan)}"
        assert Plan.from_json(plan.to_json()) == plan and len(said) < 10_000
        with pytest.raises(PlanMismatchError, match=r"expected as \[1000000000000, 1, 3, 3\]"):
            cp.apply(net(), plan)
        return "read", plan

    how, _, grown = ended(read)
    assert how == "read" and grown < ALLOWED_MB


@pytest.mark.parametrize("number", ["1e300000000", "1/0", "1", "x/y", "1" * 5000 + "/1"])
def test_a_patch_of_a_number_that_is_no_fraction(number: str, tmp_path: Path) -> None:
    patch = ["", "reshape", 0, "0", number, "1/2"]
    (tmp_path / "plan.json").write_bytes(plan_with(version=2, patches=[patch]))
    with pytest.raises(FileError, match=r"plan\.json"):
        Plan.load(tmp_path / "plan.json")


def test_a_link_in_a_saved_folder_shows_nothing_of_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text('{"password": "hidden"}')
    for name in ("saved weights", "saved plan", "saved loader", "saved manifest"):
        folder = tmp_path / name
        target = laid_out(name, folder)
        target.unlink()
        target.symlink_to(tmp_path / "secret")
        how, said = outcome(name, folder)
        assert how == "refused" and "hidden" not in str(said), said
        target.unlink()
        target.symlink_to("/dev/zero")
        assert outcome(name, folder)[0] == "refused"


@pytest.mark.parametrize(
    "line",
    ["[" * 100_000, '{"key": "a", "quality": NaN}', '{"key": "a", "quality": 1e999}', "{}", "1", "null"],
)
def test_a_line_of_a_journal_of_qualities_that_is_none(line: str, tmp_path: Path) -> None:
    path, head = tmp_path / "qualities.jsonl", {"weights": "ab", "evaluation": "width", "seed": 0}
    Journal(path, head).add("plan", 0.5, what="a plan")
    path.write_text(f"{path.read_text()}{line}\n")
    with pytest.raises(FileError, match=r"qualities\.jsonl.* line 3 is no entry"):
        Journal(path, head)


def test_safetensors_that_claim_shapes_without_values(tmp_path: Path) -> None:
    for shape in ([0, 10**12, 10**6], [2**33, 2**31], [-1], [10**30]):
        head = json.dumps({"0.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode()
        for name in ("weights", "resealed weights", "resealed example", "basis"):
            folder = tmp_path / f"{name} {shape}"
            laid_out(name, folder, struct.pack("<Q", len(head)) + head)
            how, said, grown = ended(lambda: outcome(name, folder))  # noqa: B023 - called at once
            assert how == "refused" or (name == "weights" and shape[0] == 0), (name, shape, how, said)
            assert grown < ALLOWED_MB
