"""Sketches of filters at scale: speed beside NumPy, exactness, memory against size, what 1.46e9 kernels take.

    python -m benchmarks.filter_scale [--quick] [--only PART ...] [--sizes N ...] [--rounds N]

Parts: `speed` (kernels a second, interleaved with plain and tuned NumPy), `chunkings` (1e7 kernels cut in
four ways), `sizes` (1e6, 1e7, 1e8 synthetic kernels on two processes, with the memory of all of them, and 1e8
in one layer), `parquet` (1e7 written, read and sketched). An interrupted size
goes on with the same command.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks import filter_scale_runs as runs
from benchmarks import results, zoo
from benchmarks.filter_plain import BASELINES

DATABASE_KERNELS, DATABASE_LAYERS = 1_464_797_156, 21_436  # CNN Filter DB
PARTS = ("speed", "chunkings", "sizes", "parquet")
OURS = {"ours, 1 process": 1, "ours, 2 processes": 2}
# NumPy as it comes, with a thread of its BLAS for each core, and with one: the faster one of a round counts.
ONE_THREAD = ", 1 thread"
NUMPY = tuple(f"{name}{threads}" for name in BASELINES for threads in ("", ONE_THREAD))


def main() -> int:
    """The exit code after measuring what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.filter_scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="thousandths of the sizes, one process")
    parser.add_argument(
        "--only", nargs="+", default=[], choices=PARTS, help="others keep their earlier numbers"
    )
    parser.add_argument("--sizes", nargs="+", type=int, default=[10**6, 10**7, 10**8], metavar="N")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--one-size", nargs=3, type=int, help=argparse.SUPPRESS)
    zoo.add_shared_option(parser)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.one_size:
        print(json.dumps(runs.one_size(*options.one_size)))
        return 0
    kind = "filter_scale-quick" if options.quick else "filter_scale"
    arguments = {k: v for k, v in vars(options).items() if k != "one_size"}
    facts = results.context("filter_scale", arguments, seeds=[0])
    earlier = results.read(kind) if options.only else None
    rows: dict[str, Any] = dict((earlier or {}).get("rows", {}))
    rows.setdefault("commands", {})
    for part in options.only or PARTS:
        print(f"-- {part}", flush=True)
        rows["commands"][part] = facts["command"]
        for found in MEASURES[part](options):
            rows[part] = _with(rows.get(part, []), found) if part == "sizes" else found
            written = results.save(kind, facts, rows, tables(rows))
    print("\n" + "\n\n".join(table.text() for table in tables(rows)) + f"\n\nwritten to {written}")
    return 0


def _with(rows: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows of other sizes, and this one."""
    others = [other for other in rows if other["asked"] != row["asked"]]
    return sorted([*others, row], key=lambda one: (one["asked"][1] > 0, one["asked"]))


def speed(options: argparse.Namespace) -> Iterator[list[dict[str, Any]]]:
    """Seconds of each contender in each round, on the same kernels."""
    count, rounds = (1 << 16, 2) if options.quick else (1 << 20, options.rounds)
    rows = []
    for sparse in (0.0, 1 / 16):
        with ExitStack() as stack:
            pools = {
                which: None if options.quick else stack.enter_context(_pool(which))
                for which in (*NUMPY, *OURS)
                if not (options.quick and OURS.get(which, 1) > 1)
            }
            times = [_round(pools, number, count, sparse) for number in range(-1, rounds)][1:]
        rows.append({"kernels": count, "sparse": sparse, "rounds": times})
    yield rows


def _pool(which: str) -> ProcessPoolExecutor:
    threads = os.cpu_count() or 1 if which in BASELINES else 1
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    os.environ.update(dict.fromkeys(names, str(threads)))
    pool = ProcessPoolExecutor(
        OURS.get(which, 1),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(1,),
    )
    for future in [pool.submit(time.sleep, 0.5) for _ in range(OURS.get(which, 1))]:
        future.result()  # processes start now, in this environment
    return pool


def _round(pools: Mapping[str, Executor | None], number: int, count: int, sparse: float) -> dict[str, Any]:
    """Wall seconds a layer and CPU seconds a layer of each contender: two layers each, the order turning."""
    found = {}
    for which in list(pools) if number % 2 else list(reversed(pools)):
        pool, start = pools[which], time.perf_counter()
        if pool is None:
            cpu = [runs.rate(which.removesuffix(ONE_THREAD), seed, count, sparse)[1] for seed in (1, 2)]
        elif OURS.get(which) == 2:
            futures: list[Future[tuple[float, float]]] = [
                pool.submit(runs.rate, which.removesuffix(ONE_THREAD), seed, count, sparse) for seed in (1, 2)
            ]
            cpu = [future.result()[1] for future in futures]
        else:
            cpu = [
                pool.submit(runs.rate, which.removesuffix(ONE_THREAD), seed, count, sparse).result()[1]
                for seed in (1, 2)
            ]
        found[which] = {"wall": (time.perf_counter() - start) / 2, "cpu": sum(cpu) / 2}
    return found


def chunked(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """See `runs.chunkings`."""
    yield runs.chunkings(10**5 if options.quick else 10**7)


def sizes(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each size, each in a process of its own with two workers."""
    if options.quick:
        yield runs.one_size(200_000, 0, 1)
        yield runs.one_size(200_000, 1, 1)
        return
    wanted = [(size, 0) for size in options.sizes]
    if 10**8 in options.sizes:
        wanted.append((10**8, 1))
    yield from (_in_process(size, layers) for size, layers in wanted)


def _in_process(size: int, layers: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.filter_scale", "--one-size", str(size), str(layers), "2"]
    done = subprocess.run(command, cwd=zoo.ROOT, stdout=subprocess.PIPE, text=True, check=True)
    row = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(row, dict)
    return row


def parquet(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Writing, reading and sketching a store, and its size."""
    yield runs.parquet(200_000, workers=1) if options.quick else runs.parquet(10**7, workers=2)


MEASURES = {"speed": speed, "chunkings": chunked, "sizes": sizes, "parquet": parquet}


def tables(rows: Mapping[str, Any]) -> list[results.Table]:
    """What is measured so far."""
    found = [_speed_table(row) for row in rows.get("speed", [])]
    if "chunkings" in rows:
        found.append(_chunkings_table(rows["chunkings"]))
    if "sizes" in rows:
        found.append(_sizes_table(rows["sizes"]))
    if "parquet" in rows:
        found.append(_parquet_table(rows["parquet"]))
    if "sizes" in rows and "parquet" in rows:
        found.append(_database_table(rows["sizes"], rows["parquet"]))
    return found


def _speed_table(row: Mapping[str, Any]) -> results.Table:
    lines = []
    for which in row["rounds"][0]:
        wall = [times[which]["wall"] for times in row["rounds"]]
        cpu = statistics.median(times[which]["cpu"] for times in row["rounds"])
        cells = [
            which,
            f"{row['kernels'] / statistics.median(wall) / 1e6:.1f}",
            f"{1e9 * cpu / row['kernels']:.0f}",
        ]
        for other in BASELINES:
            ratios = [
                min(times[other]["wall"], times[other + ONE_THREAD]["wall"]) / times[which]["wall"]
                for times in row["rounds"]
            ]
            cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
        lines.append(tuple(cells))
    columns = ("", "million kernels/s", "CPU ns/kernel", *(f"times {name}" for name in BASELINES))
    notes = (
        f"Two layers of {row['kernels']:,} kernels of 3 x 3 in float32, {row['sparse']:.0%} of them "
        "sparse; wall time, medians of rounds and of the ratios in each round (least and largest).",
        "NumPy has a thread of its BLAS for each core, or one: ratios are to the faster of both in each "
        "round. Each process of ours has one thread. The machine is shared: CPU time is the steadier number.",
        "Everything a sketch holds is computed: 14 counters, 4 moments, 9 histograms, dead filters and "
        "channels.",
    )
    return results.Table(f"Speed, {row['sparse']:.0%} sparse", columns, tuple(lines), notes)


def _chunkings_table(row: Mapping[str, Any]) -> results.Table:
    cells = (
        f"{row['kernels']:,}",
        ", ".join(f"{size:,}" for size in row["sizes"]),
        "yes" if row["identical counts"] else "NO",
        f"{row['largest difference of covariances']:.1e}",
    )
    columns = ("kernels", "chunks of", "identical counts", "largest difference of covariances")
    return results.Table("One layer in any chunks", columns, (cells,))


def _sizes_table(rows: Sequence[Mapping[str, Any]]) -> results.Table:
    lines = tuple(
        (
            f"{row['kernels']:,}",
            f"{row['layers']:,}",
            f"{row['sketch']['wall']:.1f}",
            f"{row['kernels done'] / row['sketch']['wall'] / 1e6:.1f}",
            f"{1e9 * row['sketch']['cpu'] / row['kernels done']:.0f}",
            f"{1e9 * row['making'] / row['kernels']:.0f}",
            f"{row['largest process MB']:.0f}",
            f"{row['peak MB']:.0f}",
        )
        for row in rows
    )
    columns = (
        "kernels",
        "layers",
        "seconds",
        "million/s",
        "CPU ns/kernel",
        "of it making them",
        "largest process MB",
        "all processes MB",
    )
    notes = (
        f"Made as they are read, twice, and sketched by {rows[0]['workers']} process(es), the table written; "
        f"to start the processes, which took {rows[-1]['start']['wall']:.0f} s, is not in it.",
        "Memory: resident, what processes share counted for each; one that has only imported torch and "
        f"compressor has {rows[0]['import MB']:.0f} MB.",
    )
    return results.Table("Memory does not grow with kernels", columns, lines, notes, words=())


def _parquet_table(row: Mapping[str, Any]) -> results.Table:
    count = row["kernels"]
    lines = tuple(
        (
            what,
            f"{row[what]['wall']:.1f}",
            f"{count / row[what]['wall'] / 1e6:.1f}",
            f"{1e9 * row[what]['cpu'] / count:.0f}",
        )
        for what in ("write", "read", "read and sketch")
    )
    notes = (
        f"{count:,} kernels of noise in {row['layers']} layers; {row['bytes'] / count:.1f} bytes a kernel on "
        f"the disk (36 in memory), {row['table bytes'] / row['layers']:.0f} bytes a layer of sketches.",
        f"Read from the page cache; reading and sketching by {row['workers']} process(es) that had "
        "started, the others by one.",
    )
    return results.Table("From Parquet", ("", "seconds", "million/s", "CPU ns/kernel"), lines, notes)


def _database_table(sizes_rows: Sequence[Mapping[str, Any]], stored: Mapping[str, Any]) -> results.Table:
    many = [row for row in sizes_rows if row["layers"] > 1] or list(sizes_rows)
    first, last = many[min(1, len(many) - 1)], many[-1]
    growth = (last["peak MB"] - first["peak MB"]) / max(1, last["layers"] - first["layers"])
    memory = first["peak MB"] + max(0.0, growth) * DATABASE_LAYERS
    per = {what: stored[what]["wall"] / stored["kernels"] for what in ("write", "read and sketch")}
    lines = (
        (
            "synthetic, sketched",
            f"{DATABASE_KERNELS * last['sketch']['wall'] / last['kernels done'] / 60:.1f} min",
        ),
        ("Parquet, written once", f"{DATABASE_KERNELS * per['write'] / 60:.1f} min"),
        ("Parquet, read and sketched", f"{DATABASE_KERNELS * per['read and sketch'] / 60:.1f} min"),
        ("Parquet on the disk", f"{DATABASE_KERNELS * stored['bytes'] / stored['kernels'] / 1e9:.1f} GB"),
        (
            "sketches on the disk",
            f"{DATABASE_LAYERS * stored['table bytes'] / stored['layers'] / 1e6:.0f} MB",
        ),
        ("memory of all processes", f"{memory:.0f} MB"),
    )
    notes = (
        f"CNN Filter DB has {DATABASE_KERNELS:,} kernels in {DATABASE_LAYERS:,} layers. In proportion "
        f"to {last['kernels']:,} synthetic and {stored['kernels']:,} stored kernels; memory grows by "
        f"{1024 * growth:.0f} kB a layer, which is its row in the table, and not with kernels.",
    )
    return results.Table("What 1.46 billion kernels would take", ("", "extrapolated"), lines, notes)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    sys.exit(main())
