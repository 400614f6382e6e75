"""The files of a bench page, by name: what is written to a folder, or packed into one HTML file."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from compressor.export.bench.candidates import Candidate
from compressor.export.bench.samples import Samples
from compressor.export.bench.web_runtime import LICENCE, NAME, VERSION, WebRuntime

__all__ = ["FORMAT", "MANIFEST", "folder_files", "single_page"]

FORMAT = "compressor bench page 1"
MANIFEST, LICENCE_FILE = "manifest.json", "LICENSE-onnxruntime-web.txt"
_WEB = Path(__file__).parent / "web"
_BASE_STYLE = Path(__file__).parents[2] / "base.css"
# Modules in the order in which they need each other, the last of them the page's own.
_MODULES = ("agreement.mjs", "measure.mjs", "bench.mjs", "charts.mjs", "files.mjs", "remote.mjs", "page.mjs")
_WORKER = ("worker.js", "runner.mjs")


def folder_files(
    candidates: Sequence[Candidate],
    samples: Samples,
    runtime: WebRuntime,
    *,
    title: str,
    rounds: int,
) -> dict[str, bytes]:
    """Every file of the page by its name in the folder. The same arguments give the same bytes."""
    inputs = {f"inputs/{i}.bin": array.tobytes() for i, array in enumerate(samples.arrays)}
    models = {_model_file(i, c): c.content for i, c in enumerate(candidates)}
    files = {
        "style.css": _BASE_STYLE.read_bytes() + (_WEB / "style.css").read_bytes(),
        **{name: (_WEB / name).read_bytes() for name in ("index.html", *_MODULES, *_WORKER)},
        **{path.name: path.read_bytes() for path in (runtime.script, runtime.wasm)},
        LICENCE_FILE: (_WEB / LICENCE_FILE).read_bytes(),
        **inputs,
        **models,
    }
    manifest = {
        "format": FORMAT,
        "title": title,
        "rounds": rounds,
        "runtime": {
            "name": NAME,
            "version": VERSION,
            "licence": LICENCE,
            "files": {"script": runtime.script.name, "wasm": runtime.wasm.name},
        },
        "inputs": {
            "samples": samples.count,
            "seed": samples.seed,
            "tensors": [
                {"type": array.dtype.name, "dims": list(array.shape[1:]), "file": file}
                for file, array in zip(inputs, samples.arrays, strict=True)
            ],
        },
        "models": [
            {
                "name": candidate.name,
                "file": file,
                "bytes": candidate.file_bytes,
                "sha256": hashlib.sha256(candidate.content).hexdigest(),
                "inputs": [port.name for port in candidate.inputs],
            }
            for file, candidate in zip(models, candidates, strict=True)
        ],
        "files": [*files, MANIFEST],
    }
    return {**files, MANIFEST: (json.dumps(manifest, indent=2) + "\n").encode()}


def single_page(files: Mapping[str, bytes]) -> bytes:
    """The page of `folder_files` as one HTML file, which also works when it is opened as a file.

    Style and modules stand in it as they are; every other file gzipped, in base 64, in a script element
    that no browser runs.
    """
    page = files["index.html"].decode()
    style = f"<style>\n{files['style.css'].decode()}</style>"
    page = _replaced(page, r'<link rel="stylesheet".*?>', style)
    page = _replaced(page, r'<p id="unserved".*?</script>', "")
    page = _replaced(page, r'<script type="module".*?</script>', _scripts(files))
    licence = html.escape(files[LICENCE_FILE].decode())
    return _replaced(page, "</head>", f"<!--\n{licence}-->\n</head>").encode()


def _replaced(page: str, pattern: str, new: str) -> str:
    page, count = re.subn(pattern, lambda _: new, page, flags=re.DOTALL)
    assert count == 1, f"index.html has {count} of {pattern}"
    return page


def _scripts(files: Mapping[str, bytes]) -> str:
    apart = {"index.html", "style.css", LICENCE_FILE, *_MODULES}
    packed = [
        f'<script type="text/plain" id="file:{html.escape(name)}">{_packed(content)}</script>'
        for name, content in files.items()
        if name not in apart
    ]
    joined = "\n".join(_joinable(files[name].decode()) for name in _MODULES)
    assert "</script" not in joined
    return "\n".join([*packed, f'<script type="module">\n{joined}</script>'])


def _joinable(module: str) -> str:
    """A module whose imports stand before it in the same script."""
    module = re.sub(r"^import .*?;\n", "", module, flags=re.MULTILINE)
    return re.sub(r"^export ", "", module, flags=re.MULTILINE)


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def _model_file(position: int, candidate: Candidate) -> str:
    suffix = ".ort" if candidate.path.suffix == ".ort" else ".onnx"
    return f"models/{position}-{re.sub(r'[^A-Za-z0-9._-]+', '-', candidate.name)}{suffix}"
