"""Every kind of file that the library reads: how a whole one is made, and who reads it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

import compressor as cp
from compressor.cli.inputs import InputOptions, example_inputs
from compressor.cli.weights import read_weights
from compressor.core.plan import Plan
from compressor.data import load_cifar10_npz
from compressor.errors import CompressorError
from compressor.export.metadata import Metadata, read_metadata, write_metadata
from compressor.filters import Basis, Sketches, read_onnx, sketch_all
from compressor.filters.sketching.setting import SketchSetting
from compressor.filters.store import Store, StoreWriter, verify_store
from compressor.models import load_akamaster_checkpoint
from compressor.profiling import LatencyTable, latency_table
from compressor.search import Frontier, Sensitivity, frontier, sensitivity
from compressor.training import Recipe, fine_tune_
from tests.filters.onnx_files.graphs import conv, model
from tests.filters.store.zoo import banks_of, metadata_of
from tests.profiling.latency_table.synthetic import Synthetic

Document = dict[str, Any]


def net() -> nn.Module:
    torch.manual_seed(0)
    parts = (nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten())
    return nn.Sequential(*parts, nn.Linear(16, 3)).eval()


IMAGE = torch.ones(2, 1, 6, 6)


@dataclass(frozen=True)
class Kind:
    """A file, or a folder of files, that `write` makes and `read` reads; `target` is the one to damage.

    `sealed` says that checksums cover every byte that matters: a damaged file is refused, or is read as the
    whole one. `document` and `rewrite` are the JSON in the file and the way back, its digests made anew.
    """

    target: str
    write: Callable[[Path], None]
    read: Callable[[Path], object]
    sealed: bool = False
    document: Callable[[bytes], Document] | None = None
    rewrite: Callable[[Document], bytes] | None = None
    reseal: Callable[[Path], None] | None = None


# -- plans and saved models ----------------------------------------------------------------------


def pruned() -> nn.Module:
    return cp.prune(net(), IMAGE, budget=cp.budget.Uniform(0.5))


def _write_plan(folder: Path) -> None:
    cp.plan_of(pruned()).save(folder / "plan.json")


def _sealed_plan(document: Document) -> bytes:
    content = {k: v for k, v in document.items() if k not in ("format", "version", "digest")}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return json.dumps({**document, "digest": hashlib.sha256(text.encode()).hexdigest()}).encode()


def _sealed_manifest(document: Document) -> bytes:
    content = {k: v for k, v in document.items() if k not in ("format", "version", "digest")}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps({**document, "digest": digest}).encode()


def seal_folder(folder: Path) -> None:
    """Note the sizes and digests of the files anew, as one who tampers would."""
    document = json.loads((folder / "manifest.json").read_text())
    for name in document["files"]:
        data = (folder / name).read_bytes()
        document["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_bytes(_sealed_manifest(document))


def _saved(target: str, **options: Any) -> Kind:
    return Kind(
        target,
        lambda folder: cp.save(pruned(), folder, example=IMAGE),
        lambda folder: _state(cp.load(folder, net)),
        **options,
    )


def _state(module: nn.Module) -> dict[str, list[float]]:
    return {name: tensor.flatten().tolist() for name, tensor in module.state_dict().items()}


# -- trainings and tables ------------------------------------------------------------------------


def _train(folder: Path) -> nn.Module:
    network = net()
    batches = [(IMAGE, torch.tensor([0, 1]))]
    with torch.random.fork_rng():
        fine_tune_(
            network,
            batches,
            F.cross_entropy,
            Recipe(epochs=1, lr=0.01, ema=0.9),
            checkpoint=folder / "training.pt",
            progress=False,
        )
    return network


def _write_table(folder: Path) -> None:
    from dataclasses import replace

    table = latency_table(cp.capture(net(), IMAGE), runtime=Synthetic(), path=folder / "first.json")
    replace(table, runtime=cp.runtimes.Eager()).save(folder / "latency.json")
    (folder / "first.json").unlink()


# -- searches ------------------------------------------------------------------------------------


def _width(network: nn.Module) -> float:
    return float(sum(p.numel() for p in network.parameters()))


def _write_sensitivity(folder: Path) -> None:
    found = sensitivity(net(), IMAGE, evaluate=_width, ratios=(0.5,), progress=False)
    found.save(folder / "sensitivity.json")


def _write_frontier(folder: Path) -> None:
    graph = cp.capture(net(), IMAGE)
    plans = {"half": cp.plan(cp.score(graph, cp.scoring.Norm()), cp.budget.Uniform(0.5))}
    frontier(graph, plans, evaluate=_width).save(folder / "frontier.json")


def _sealed_search(document: Document) -> bytes:
    content = {k: v for k, v in document.items() if k not in ("format", "version", "digest")}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]
    return json.dumps({**document, "digest": digest}).encode()


# -- filters -------------------------------------------------------------------------------------


def _write_store(folder: Path) -> None:
    with StoreWriter(folder) as writer:
        for name in ("alpha", "beta"):
            writer.add(name, banks_of(name), metadata=metadata_of(name))


def _stored(folder: Path) -> object:
    store = Store.open(folder)
    return [(bank.name, bank.weight.tolist()) for bank in store.banks()], store.head


def _sealed_line(document: Document) -> bytes:
    text = json.dumps(document["entry"], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({"digest": digest, "entry": json.loads(text)}, sort_keys=True).encode() + b"\n"


def _write_sketches(folder: Path) -> None:
    setting = SketchSetting(Basis.cosines((3, 3)), bins=8)
    sketch_all(banks_of("alpha"), setting).write(folder / "sketches.parquet")


def _write_onnx(folder: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(2, 2, 3, 3)).astype(np.float32)
    proto = model([conv("x", "a", "y")], {"a": weight})
    write_metadata(proto, Metadata(mean=(0.5, 0.5), std=(1.0, 1.0), plan_digest="ab"))
    (folder / "net.onnx").write_bytes(proto.SerializeToString())


def onnx_document(content: bytes) -> Document:
    proto = onnx.load_from_string(content)
    return dict(json.loads(proto.metadata_props[0].value))


def _onnx_with(document: Document) -> bytes:
    proto = onnx.load_from_string(whole("onnx metadata")["net.onnx"])
    proto.metadata_props[0].value = json.dumps(document)
    return bytes(proto.SerializeToString())


# -- arrays and weights --------------------------------------------------------------------------


def _write_images(folder: Path) -> None:
    x, y = np.zeros((4, 32, 32, 3), np.uint8), np.arange(4)
    named = {"x_train": x, "y_train": y, "x_test": x, "y_test": y, "classes": np.array(list("abcd"))}
    np.savez_compressed(folder / "images.npz", **named)


def _inputs(folder: Path, name: str) -> object:
    options = InputOptions(input_file=[folder / name])
    inputs = example_inputs(options, seed=0, device=torch.device("cpu"))
    return [t.tolist() for t in inputs.args], {k: v.tolist() for k, v in inputs.kwargs.items()}


def _write_akamaster(folder: Path) -> None:
    state = {"module.conv1.weight": torch.ones(2, 2), "module.linear.weight": torch.ones(2)}
    torch.save({"state_dict": state}, folder / "resnet.th")


def _lists(named: Any) -> object:
    return {name: tensor.tolist() for name, tensor in named.items()}


def _loads(content: bytes) -> Document:
    return dict(json.loads(content))


def _dumps(document: Document) -> bytes:
    return json.dumps(document).encode()


KINDS: dict[str, Kind] = {
    "plan": Kind(
        "plan.json",
        _write_plan,
        lambda folder: Plan.load(folder / "plan.json"),
        sealed=True,
        document=_loads,
        rewrite=_sealed_plan,
    ),
    "saved manifest": _saved("manifest.json", sealed=True, document=_loads, rewrite=_sealed_manifest),
    "saved plan": _saved("plan.json", document=_loads, rewrite=_sealed_plan, reseal=seal_folder),
    "saved weights": _saved("weights.safetensors", sealed=True),
    "resealed weights": _saved("weights.safetensors", reseal=seal_folder),
    "saved loader": _saved("load_model.py", sealed=True),
    "resealed example": _saved("example.safetensors", reseal=seal_folder),
    "training": Kind(
        "training.pt",
        lambda folder: void(_train(folder)),
        lambda folder: _state(_train(folder)),
        sealed=True,
    ),
    "latency table": Kind(
        "latency.json",
        _write_table,
        lambda folder: LatencyTable.load(folder / "latency.json"),
        document=_loads,
        rewrite=_dumps,
    ),
    "sensitivity": Kind(
        "sensitivity.json",
        _write_sensitivity,
        lambda folder: Sensitivity.load(folder / "sensitivity.json"),
        sealed=True,
        document=_loads,
        rewrite=_sealed_search,
    ),
    "frontier": Kind(
        "frontier.json",
        _write_frontier,
        lambda folder: Frontier.load(folder / "frontier.json"),
        sealed=True,
        document=_loads,
        rewrite=_sealed_search,
    ),
    "basis": Kind(
        "basis.safetensors",
        lambda folder: Basis.cosines((3, 3)).save(folder / "basis.safetensors"),
        lambda folder: Basis.load(folder / "basis.safetensors").identity,
        sealed=True,
    ),
    "sketches": Kind(
        "sketches.parquet",
        _write_sketches,
        lambda folder: Sketches.read(folder / "sketches.parquet"),
    ),
    "store head": Kind("store.json", _write_store, _stored, document=_loads, rewrite=_dumps),
    "store journal": Kind(
        "models.jsonl",
        _write_store,
        lambda folder: verify_store(folder) and _stored(folder),
        document=lambda content: _loads(content.splitlines()[0]),
        rewrite=lambda document: (
            _sealed_line(document) + whole("store journal")["models.jsonl"].splitlines(True)[1]
        ),
    ),
    "store layers": Kind("layers/000000.parquet", _write_store, _stored),
    "store kernels": Kind("kernels/000000.parquet", _write_store, _stored),
    "onnx": Kind("net.onnx", _write_onnx, lambda f: read_onnx(f / "net.onnx", kernel_size=None).banks),
    "onnx metadata": Kind(
        "net.onnx",
        _write_onnx,
        lambda folder: read_metadata(folder / "net.onnx"),
        document=onnx_document,
        rewrite=_onnx_with,
    ),
    "images": Kind(
        "images.npz", _write_images, lambda f: load_cifar10_npz(f / "images.npz").train.labels.tolist()
    ),
    "input npz": Kind(
        "x.npz",
        lambda folder: np.savez_compressed(folder / "x.npz", np.ones((2, 3)), mask=np.zeros(4)),
        lambda folder: _inputs(folder, "x.npz"),
    ),
    "input npy": Kind(
        "x.npy",
        lambda folder: np.save(folder / "x.npy", np.ones((2, 3), np.float32)),
        lambda folder: _inputs(folder, "x.npy"),
    ),
    "weights": Kind(
        "net.safetensors",
        lambda folder: save_file(net().state_dict(), folder / "net.safetensors"),
        lambda folder: _lists(read_weights(folder / "net.safetensors")),
    ),
    "weights of torch": Kind(
        "net.pt",
        lambda folder: torch.save(net().state_dict(), folder / "net.pt"),
        lambda folder: _lists(read_weights(folder / "net.pt")),
    ),
    "akamaster": Kind(
        "resnet.th", _write_akamaster, lambda folder: _lists(load_akamaster_checkpoint(folder / "resnet.th"))
    ),
}


def void(_value: object) -> None:
    """Nothing, whatever was made."""


@cache
def whole(name: str) -> dict[str, bytes]:
    """The files of a kind as they are written, by their names in the folder."""
    with TemporaryDirectory() as made:
        folder = Path(made)
        KINDS[name].write(folder)
        paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def laid_out(name: str, folder: Path, content: bytes | None = None) -> Path:
    """The folder with the files of a kind, `content` in place of the target's own; gives the target."""
    for file, data in whole(name).items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(data)
    target = folder / KINDS[name].target
    if content is not None:
        target.write_bytes(content)
        reseal = KINDS[name].reseal
        if reseal is not None:
            reseal(folder)
    return target


def outcome(name: str, folder: Path) -> tuple[str, object]:
    """How reading ends: "read" and the value, "refused" and the message, or "WRONG" and the exception."""
    try:
        return "read", KINDS[name].read(folder)
    except CompressorError as error:
        return "refused", str(error)
    except Exception as error:
        return "WRONG", error


def zipped(members: dict[str, bytes], path: Path) -> None:
    """A zip archive of these members."""
    with suppress(FileNotFoundError):
        path.unlink()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
