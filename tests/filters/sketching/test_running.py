"""Runs over many layers: one process or several, killed and gone on, with layers that cannot be read."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch

from compressor.errors import FileError, InputError, MeasurementError
from compressor.filters import FilterBank
from compressor.filters.sketching import Banks, Sketches, SketchSetting, sketch_all
from tests.filters.sketching.synthetic import Made, basis_of, kernels_of, setting_of

ROOT = Path(__file__).parents[3]
SETTING = setting_of()


def assert_equal(one: Sketches, other: Sketches) -> None:
    assert one.to_arrow().equals(other.to_arrow(), check_metadata=True)


def test_several_processes_make_the_table_of_one(tmp_path: Path) -> None:
    made = sketch_all(Made.of(10), SETTING)
    assert len(made) == 10 and [layer.key for layer in made.layers] == list(range(10))
    threads = os.environ.get("OMP_NUM_THREADS")
    assert_equal(sketch_all(Made.of(10), SETTING, workers=2, into=tmp_path), made)
    assert_equal(Sketches.read(tmp_path / "sketches.parquet"), made)
    assert os.environ.get("OMP_NUM_THREADS") == threads


def test_layers_that_end_in_another_order_are_put_in_theirs(
    pool: ProcessPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compressor.filters.sketching.tasks._TASK_KERNELS", 1)
    source = Made.of(6, faults={0: "wait"})
    assert_equal(sketch_all(source, SETTING, executor=pool, workers=2), sketch_all(Made.of(6), SETTING))


def test_banks_are_sketched_without_being_touched(pool: ProcessPoolExecutor) -> None:
    weight = kernels_of(0).reshape(64, 32, 3, 3)
    address, view = weight.data_ptr(), weight.numpy()
    before = view.copy()
    made = sketch_all([FilterBank(weight, "conv")], SETTING, executor=pool)
    # torch's way between processes would have moved the weight into shared memory, away from its views.
    assert weight.data_ptr() == address and not weight.is_shared() and (view == before).all()
    assert_equal(made, sketch_all([FilterBank(weight, "conv")], SETTING))


KILLED = """
import os, sys
from compressor.filters.sketching import folder, running, tasks
from tests.filters.sketching.synthetic import Made, setting_of

running._SECONDS_BETWEEN_FILES = 0.0
tasks._TASK_KERNELS = 1
add, left = folder.RunFolder.add, [int(sys.argv[2])]

def add_then_wait(self, layers, sketches):
    add(self, layers, sketches)
    left[0] -= 1
    if not left[0]:
        print("now", flush=True)
        sys.stdin.read()

folder.RunFolder.add = add_then_wait
running.sketch_all(Made.of(12), setting_of(), into=sys.argv[1])
"""


def test_a_killed_run_goes_on_and_counts_nothing_twice(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(tmp_path), "5"]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    parts = list(tmp_path.glob("part-*.parquet"))
    assert len(parts) == 5 and not (tmp_path / "sketches.parquet").exists()
    # What a run that was killed in the middle of writing leaves, and a layer that lies in two files.
    (tmp_path / ".part-00000007.parquet.1").write_bytes(b"PAR1 half")
    (tmp_path / "part-00000099.parquet").write_bytes(parts[0].read_bytes())
    source = Made.of(12)
    made = sketch_all(source, SETTING, into=tmp_path)
    assert_equal(made, sketch_all(source, SETTING))
    assert sorted(file.name for file in tmp_path.glob("[a-z]*")) == ["run.json", "sketches.parquet"]
    # A finished run is read, not made again: these layers cannot be.
    broken = Made.of(12, faults=dict.fromkeys(range(12), "raise"))
    assert_equal(sketch_all(broken, SETTING, into=tmp_path), made)


def test_only_what_is_missing_is_sketched_again(tmp_path: Path) -> None:
    with pytest.raises(
        MeasurementError, match=r"model1: conv could not be sketched \(ZeroDivisionError: planted\)"
    ):
        sketch_all(Made.of(6, faults={5: "raise"}), SETTING, into=tmp_path)
    others = Made.of(6, faults=dict.fromkeys(range(5), "raise"))
    assert_equal(sketch_all(others, SETTING, into=tmp_path), sketch_all(Made.of(6), SETTING))


def test_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    sketch_all(Made.of(2), SETTING, into=tmp_path)
    for source, setting, difference in (
        (Made.of(2), SketchSetting(basis_of(), bins=64), "bins: 70 and 64"),
        (Made.of(2), setting_of(seed=1), "basis: "),
        (Made.of(3), SETTING, "layers: 2 and 3; kernels: 4096 and 6144"),
        (Made(Made.of(2).parts, identity="changed"), SETTING, "source: made and changed"),
    ):
        with pytest.raises(InputError, match="holds another run; " + difference):
            sketch_all(source, setting, into=tmp_path)


def test_files_of_a_run_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    sketch_all(Made.of(2), SETTING, into=tmp_path)
    whole = tmp_path / "sketches.parquet"
    whole.write_bytes(whole.read_bytes()[:-20])
    with pytest.raises(FileError, match=r"sketches.parquet: no sketches can be read"):
        sketch_all(Made.of(2), SETTING, into=tmp_path)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(FileError, match=r"run.json says of no run what it did \(KeyError: 'setting'\)"):
        sketch_all(Made.of(2), SETTING, into=tmp_path)


@pytest.mark.parametrize("several", [False, True])
def test_a_layer_that_cannot_be_read_is_named_or_left_out_on_request(
    several: bool, pool: ProcessPoolExecutor, tmp_path: Path
) -> None:
    source = Made.of(4, faults={1: "raise", 2: "nan"})
    executor = pool if several else None
    with pytest.raises(MeasurementError, match="model0: conv could not be sketched"):
        sketch_all(source, SETTING, executor=executor, into=tmp_path)
    made = sketch_all(source, SETTING, executor=executor, into=tmp_path, skip_unreadable=True)
    assert [layer.key for layer in made.layers] == [0, 3]
    assert [skipped.layer.key for skipped in made.skipped] == [1, 2]
    assert "planted" in made.skipped[0].reason and "1 value that is NaN" in made.skipped[1].reason
    assert repr(made) == "Sketches(4096 kernels of 2 layers of 1 model, 2 skipped)"
    assert Sketches.from_arrow(made.to_arrow()).skipped == made.skipped
    # Mended, they are tried again.
    assert_equal(sketch_all(Made.of(4), SETTING, into=tmp_path), sketch_all(Made.of(4), SETTING))


def test_a_worker_that_dies_is_told_with_the_layers_it_had(tmp_path: Path) -> None:
    source = Made.of(3, faults={2: "die"})
    with pytest.raises(
        MeasurementError,
        match=r"a worker died while model0: conv to model0: conv .*near it.*BrokenProcessPool",
    ):
        sketch_all(source, SETTING, workers=2, into=tmp_path)


def test_bad_options_are_refused() -> None:
    with pytest.raises(InputError, match="workers must be 1 or more, got 0"):
        sketch_all(Made.of(1), SETTING, workers=0)
    bank = FilterBank(torch.ones(1, 1, 3, 3), "conv")
    with pytest.raises(InputError, match=r"conv \(layer_id None\) is in twice, and a layer counts once"):
        sketch_all([bank, bank], SETTING)
    with pytest.raises(InputError, match="expected banks of filters, a store or another source, got Tensor"):
        sketch_all([bank.weight], SETTING)
    with pytest.raises(
        InputError, match=r"setting is a SketchSetting, got Basis: SketchSetting.basis. makes one"
    ):
        sketch_all([bank], basis_of())


def test_another_weight_is_another_source() -> None:
    weight = kernels_of(0).reshape(64, 32, 3, 3)
    changed = weight.clone()
    changed[0, 0, 0, 0] += 1
    identities = {
        Banks.of([FilterBank(values, "conv")]).identity for values in (weight, weight.clone(), changed)
    }
    assert len(identities) == 2


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="file/run: no run can be kept there"):
        sketch_all(Made.of(1), SETTING, into=tmp_path / "file" / "run")
    with pytest.raises(FileError, match=r"cannot write the sketches .*file/some.parquet"):
        sketch_all(Made.of(1), SETTING).write(tmp_path / "file" / "some.parquet")


def test_a_table_of_nothing_is_written_and_read() -> None:
    chosen = sketch_all(Made.of(2), SETTING).chosen(lambda layer: False)
    assert len(chosen) == 0 and chosen.total().count == 0
    assert_equal(Sketches.from_arrow(chosen.to_arrow()), chosen)


@pytest.mark.parametrize("nothing", [[], iter([]), Banks.of([])], ids=["list", "iterator", "source"])
def test_nothing_to_sketch_is_refused(nothing: object) -> None:
    with pytest.raises(InputError, match="without layers was given to be sketched"):
        sketch_all(nothing, SETTING)  # type: ignore[arg-type]
