"""A static page that runs models side by side on any phone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from compressor.errors import ExportError, InputError
from compressor.export.bench.candidates import Models, read_candidates
from compressor.export.bench.samples import Given, samples_of
from compressor.export.bench.site import FORMAT, MANIFEST, folder_files, single_page
from compressor.export.bench.web_runtime import LICENCE, NAME, VERSION, web_runtime
from compressor.export.writing import drafted, replaceable, replaced

__all__ = ["BenchPage", "bench_page"]


@dataclass(frozen=True)
class BenchPage:
    """What was written: `path` is the page itself, `page_bytes` all that a phone loads.

    `models` gives the bytes of each model's file by name, the baseline first. `random` says that the
    `samples` are noise.
    """

    path: Path
    single_file: bool
    page_bytes: int
    models: Mapping[str, int]
    samples: int
    random: bool

    def __str__(self) -> str:
        width = max(map(len, self.models))
        kind = "random" if self.random else "given"
        how = (
            "Copy the file to the phone, or serve it, and open it."
            if self.single_file
            else f"Serve it: python -m http.server 8000 --directory {self.path.parent}, then open "
            "http://<address of this computer>:8000 on the phone."
        )
        return "\n".join(
            [
                f"{self.path}: {self.page_bytes:,} bytes, {self.samples} {kind} inputs, "
                f"{NAME} {VERSION} ({LICENCE})",
                *(f"  {name:{width}}  {size:>11,} bytes" for name, size in self.models.items()),
                f"  {how}",
            ]
        )


def bench_page(
    out: str | os.PathLike[str],
    models: Models,
    *,
    inputs: Given | None = None,
    samples: int | None = None,
    seed: int = 0,
    rounds: int = 120,
    single_file: bool = False,
    title: str = "Model bench",
) -> BenchPage:
    """Write a page that times ONNX files in the browser of whoever opens it; the first is the baseline.

    `out` is a folder, or with `single_file` one HTML file. The page needs no network and no special
    server, and shows time, speed-up, WebAssembly heap, file size, and how many `inputs` get the
    baseline's class. `inputs` is one array [samples, ...] for each model input (alone, a list, or a dict
    by name), of which `samples` are used; by default noise, 32 samples or as many as fit into 4 MiB.
    A free batch has size 1. An earlier page is replaced.

    Raises InputError for models or inputs that do not fit, ExportError where `out` cannot be written or
    holds something else, MissingExtraError where onnxruntime or onnxruntime-web is absent and cannot be
    fetched. Nothing is left then.

    >>> import compressor as cp
    >>> page = cp.export.bench_page("bench", ["base.onnx", "small.onnx"])  # doctest: +SKIP
    >>> print(page)                                                        # doctest: +SKIP
    bench/index.html: 16,448,180 bytes, 32 random inputs, onnxruntime-web 1.30.0 (MIT)
      base     1,084,361 bytes
      small      625,458 bytes
      Serve it: python -m http.server 8000 --directory bench, then open http://<address of this ...
    """
    path = Path(out)
    _check(path, single_file, rounds)
    candidates = read_candidates(models)
    given = samples_of(candidates, inputs, count=samples, seed=seed)
    files = folder_files(candidates, given, web_runtime(), title=title, rounds=rounds)
    what = f"the bench page {path}"
    if single_file:
        page = single_page(files)
        with drafted(path, what=what) as draft:
            draft.write_bytes(page)
    else:
        with replaced(path, what=what) as folder:
            for name, content in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)
    return BenchPage(
        path=path if single_file else path / "index.html",
        single_file=single_file,
        page_bytes=len(page) if single_file else sum(map(len, files.values())),
        models={candidate.name: candidate.file_bytes for candidate in candidates},
        samples=given.count,
        random=given.seed is not None,
    )


def _check(path: Path, single_file: bool, rounds: int) -> None:
    if rounds < 1:
        raise InputError(f"rounds={rounds}: at least 1 is expected")
    is_page = path.suffix.lower() in (".html", ".htm")
    if single_file and not is_page:
        raise InputError(f"a single file needs a name such as {path / 'bench.html'}, got {str(path)!r}")
    if is_page and not single_file:
        raise InputError(
            f"{str(path)!r} names one file, but a folder is written: give a folder, or single_file=True "
            "(--single-file)"
        )
    if single_file and path.is_dir():
        raise ExportError(f"{path} is a folder, so no file can be written there")
    if not single_file and not replaceable(path, MANIFEST, FORMAT):
        raise ExportError(
            f"{path} exists and holds other things than a bench page, so it is left as it is; give a new or "
            "empty folder"
        )
