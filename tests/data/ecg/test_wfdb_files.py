"""Reading WFDB files, sound and broken; what is written here is written byte by byte, or by the library."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import wfdb
from scipy.io import loadmat

from compressor.data.ecg import Fault, QualityLimits, read_recording, read_recordings
from compressor.errors import FileError, MissingExtraError
from tests.data.ecg.wfdb_writing import LEADS, counts, matlab_4, write

SB, AFIB, SR, BLOCK = "426177001", "164889003", "426783006", "59118001"


def test_a_file_of_the_corpus_is_read_in_millivolt(tmp_path: Path) -> None:
    signals = counts()
    recording = read_recording(write(tmp_path, "JS00001", signals))
    assert recording.name == "JS00001" and recording.sampling_hz == 500
    assert recording.diagnoses == (SB, BLOCK)
    assert np.allclose(recording.signals_mV.numpy(), signals / 1000)
    assert np.array_equal(loadmat(tmp_path / "JS00001.mat")["val"], signals)  # the writer is right


def test_the_ending_may_be_left_out(tmp_path: Path) -> None:
    header = write(tmp_path, "JS2", counts(2))
    whole, without = read_recording(header), read_recording(str(tmp_path / "JS2"))
    assert without.name == "JS2" and torch.equal(whole.signals_mV, without.signals_mV)


def test_leads_are_put_in_order_by_name_whatever_the_case(tmp_path: Path) -> None:
    signals = counts(leads=14)
    shuffled = ["v6", "VX", "AVR", "ii", "V1", "i", "V2", "avl", "V3", "iii", "V5", "AVF", "V4", "VZ"]
    recording = read_recording(write(tmp_path, "x", signals, leads=shuffled))
    lowered = [name.lower() for name in shuffled]
    for row, lead in enumerate(LEADS):
        expected = signals[lowered.index(lead.lower())] / 1000
        assert np.allclose(recording.signals_mV[row].numpy(), expected), lead


@pytest.mark.parametrize(
    ("gain", "millivolts"),
    [
        ("1000/mV", 1 / 1000),
        ("1/uV", 1 / 1000),
        ("4.88/uV", 1 / 4880),
        ("200/V", 5.0),
        ("500(10)/mV", 1 / 500),
    ],
)
def test_units_gain_and_baseline_are_the_headers(gain: str, millivolts: float, tmp_path: Path) -> None:
    signals = counts()
    recording = read_recording(write(tmp_path, "x", signals, gain=gain))
    baseline = 10 if "(" in gain else 0
    assert np.allclose(recording.signals_mV.numpy(), (signals - baseline) * millivolts, rtol=1e-5)


@pytest.mark.parametrize("form", ["16", "212", "80"])
def test_what_the_library_writes_in_other_formats_is_read(form: str, tmp_path: Path) -> None:
    signals = counts(samples=1000) // (20 if form == "80" else 1)
    wfdb.wrsamp(
        "plain",
        fs=500,
        units=["mV"] * 12,
        sig_name=list(LEADS),
        d_signal=signals.T.astype(np.int64),
        fmt=[form] * 12,
        adc_gain=[200.0] * 12,
        baseline=[0] * 12,
        comments=["dx: 1, 2"],
        write_dir=str(tmp_path),
    )
    recording = read_recording(tmp_path / "plain")
    assert np.allclose(recording.signals_mV.numpy(), signals / 200)
    assert recording.diagnoses == ("1", "2")


def test_a_sample_that_was_not_measured_is_nan(tmp_path: Path) -> None:
    signals = counts()
    signals[3, 100] = -32768  # the mark of format 16
    recording = read_recording(write(tmp_path, "x", signals))
    assert recording.signals_mV.isnan().nonzero().tolist() == [[3, 100]]


def test_resampling_is_asked_for_and_keeps_a_sine(tmp_path: Path) -> None:
    seconds = np.arange(4000) / 400
    sine = np.round(800 * np.sin(2 * np.pi * 5 * seconds) + 300).astype(np.int16)
    header = write(tmp_path, "slow", np.tile(sine, (12, 1)), hz=400)
    with pytest.raises(FileError, match=r"slow\.hea: wrong sampling rate: expected 500 Hz, got 400 Hz"):
        read_recording(header)
    found = read_recording(header, resample=True)
    assert found.signals_mV.shape == (12, 5000) and found.sampling_hz == 500
    expected = 0.8 * np.sin(2 * np.pi * 5 * np.arange(5000) / 500) + 0.3
    assert np.abs(found.signals_mV.numpy() - expected)[:, 50:-50].max() < 0.01
    assert np.abs(found.signals_mV.numpy() - expected).max() < 0.1  # no fall to zero at the ends


def test_resampling_spreads_no_holes(tmp_path: Path) -> None:
    signals = counts()
    signals[3, 100] = -32768
    with pytest.raises(FileError, match="NaN samples: resampling would spread"):
        read_recording(write(tmp_path, "x", signals, hz=1000), resample=True)


def broken(folder: Path) -> dict[str, Fault]:
    """Files in every broken state there is, by name."""
    write(folder, "leads", counts()[:11], leads=LEADS[:11])
    write(folder, "twice", counts(), leads=[*LEADS[:11], "V5"])
    write(folder, "same", counts(leads=13), leads=[*LEADS, "v1"])
    write(folder, "rate", counts(), hz=250)
    write(folder, "unit", counts(), gain="1000/mmHg")
    write(folder, "sums", counts(), sums=[0] * 12)
    header = write(folder, "form", counts())
    header.write_text(header.read_text().replace("16+24", "19+24"))
    header = write(folder, "names", counts())
    header.write_text(header.read_text().replace(" 0 V6", ""))
    write(folder, "short", counts(), data=matlab_4(counts())[:50_000])
    write(folder, "alone", counts())
    (folder / "alone.mat").unlink()
    (folder / "junk.hea").write_bytes(b"\xff\xfe\x00 not a header")
    (folder / "empty.hea").write_bytes(b"")
    holed, flat, clipped = counts(), counts(), counts()
    holed[0, 7] = -32768
    flat[7] = 0
    clipped[2, ::40] = 4000  # 125 peaks cut off at one height
    write(folder, "holed", holed)
    write(folder, "flat", flat)
    write(folder, "clipped", clipped)
    return {
        "leads": Fault.MISSING_LEADS,
        "twice": Fault.MISSING_LEADS,
        "same": Fault.UNREADABLE,
        "rate": Fault.SAMPLING_RATE,
        "unit": Fault.UNREADABLE,
        "sums": Fault.UNREADABLE,
        "form": Fault.UNREADABLE,
        "names": Fault.MISSING_LEADS,
        "short": Fault.UNREADABLE,
        "alone": Fault.UNREADABLE,
        "junk": Fault.UNREADABLE,
        "empty": Fault.UNREADABLE,
        "holed": Fault.NOT_MEASURED,
        "flat": Fault.FLAT,
        "clipped": Fault.SATURATED,
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("leads", r"missing leads: lacks V6; it holds I II III aVR aVL aVF V1 V2 V3 V4 V5$"),
        ("same", r"holds V1 more than once"),
        ("rate", r"wrong sampling rate: expected 500 Hz, got 250 Hz; resample=True converts it"),
        ("unit", r"lead I is in mmHg; V, mV, uV and nV are known"),
        ("sums", r"the checksum of I II III .* V6 differs from the header's"),
        ("form", r"the wfdb library cannot read it \("),
        ("names", r"missing leads: lacks V6; it holds I II III aVR aVL aVF V1 V2 V3 V4 V5 None"),
        ("short", r"the wfdb library cannot read it \(ValueError: .*truncated"),
        ("alone", r"FileNotFoundError.*the file of samples may be missing"),
        ("junk", r"junk\.hea: unreadable: the wfdb library cannot read it"),
        ("empty", r"empty\.hea: unreadable: the wfdb library cannot read it"),
        ("nowhere", r"nowhere\.hea: unreadable: no such file"),
    ],
)
def test_a_broken_file_is_named_with_its_fault(name: str, message: str, tmp_path: Path) -> None:
    broken(tmp_path)
    with pytest.raises(FileError, match=message):
        read_recording(tmp_path / name)


def test_a_folder_is_read_with_the_classes_of_the_four(tmp_path: Path) -> None:
    folder = tmp_path / "WFDBRecords"
    write(folder / "01" / "010", "JS2", counts(2), codes=f"{BLOCK},{AFIB}")
    write(folder / "01" / "011", "JS3", counts(3), codes="164890007")  # flutter: AF in this corpus
    write(folder / "02" / "020", "JS4", counts(4), codes="427084000,713422000")
    write(folder / "02" / "020", "JS1", counts(1), codes=SB)
    found = read_recordings(tmp_path)
    assert found.recordings.names == ("JS2", "JS3", "JS1", "JS4")
    assert found.recordings.counts() == {"SB": 1, "AFIB": 2, "GSVT": 1, "SR": 0}
    assert np.allclose(found.recordings.signals_mV[2].numpy(), counts(1) / 1000)
    assert found.left_out == () and found.refitted == ()


def test_every_broken_file_is_named_at_once(tmp_path: Path) -> None:
    faults = broken(tmp_path)
    write(tmp_path, "good", counts())
    with pytest.raises(FileError, match=f"{len(faults)} recordings are broken") as caught:
        read_recordings(tmp_path)
    message = str(caught.value)
    assert "8 unreadable: alone (" in message and "and 3 more" in message
    assert "1 flat leads: flat (V2)" in message and "1 saturated leads: clipped (III)" in message
    assert message.endswith("leave them out with skip_broken=True")


def test_broken_files_in_the_middle_are_left_out_on_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    faults = broken(tmp_path)
    write(tmp_path, "a", counts(1))
    write(tmp_path, "m", counts(2), codes=AFIB)
    write(tmp_path, "z", counts(3), codes=SR)
    with caplog.at_level(logging.WARNING, logger="compressor"):
        found = read_recordings(tmp_path, skip_broken=True)
    assert found.recordings.names == ("a", "m", "z")
    assert {one.name: one.fault for one in found.left_out} == faults
    assert f"{len(faults)} recordings left out: 8 unreadable" in caplog.text
    assert "left out: 8 unreadable, 1 saturated leads, 1 flat leads, 1 NaN samples, 3 mis" in repr(found)


def test_sound_recordings_without_one_rhythm_are_left_out_and_named(tmp_path: Path) -> None:
    write(tmp_path, "a", counts(1))
    write(tmp_path, "b", counts(2), codes=BLOCK)
    write(tmp_path, "c", counts(3), codes=f"{SR},{AFIB}")
    write(tmp_path, "d", counts(4), codes="")
    found = read_recordings(tmp_path)
    assert found.recordings.names == ("a",)
    assert [str(one) for one in found.left_out] == [
        f"b: none of the rhythms ({BLOCK})",
        "c: several rhythms (AFIB SR)",
        "d: none of the rhythms (no diagnosis)",
    ]
    assert not any(one.fault.broken for one in found.left_out)


def test_other_lengths_are_padded_or_cropped_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    short, long = counts(1, 4000), counts(2, 5500)
    write(tmp_path, "short", short)
    write(tmp_path, "long", long)
    write(tmp_path, "right", counts(3))
    found = read_recordings(tmp_path)
    assert found.refitted == ("long", "short")
    assert "2 recordings were padded or cropped to 5000 samples: long, short" in caplog.text
    signals = found.recordings.signals_mV.numpy()
    assert np.allclose(signals[0], long[:, 250:5250] / 1000)
    assert np.allclose(signals[2, :, :4000], short / 1000) and not signals[2, :, 4000:].any()


def test_limits_of_quality_are_options(tmp_path: Path) -> None:
    signals = counts()
    signals[7, :1200] = 5
    write(tmp_path, "x", signals)
    with pytest.raises(FileError, match=r"1 flat leads: x \(V2\)"):
        read_recordings(tmp_path)
    assert len(read_recordings(tmp_path, limits=QualityLimits(flat_s=3)).recordings) == 1


@pytest.mark.parametrize("skip_broken", [False, True])
def test_folders_with_nothing_in_them_are_an_error(skip_broken: bool, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"holds no \.hea file"):
        read_recordings(tmp_path, skip_broken=skip_broken)
    with pytest.raises(FileError, match="no such folder"):
        read_recordings(tmp_path / "nowhere", skip_broken=skip_broken)
    write(tmp_path, "b", counts(2), codes=BLOCK)
    with pytest.raises(FileError, match=rf"no recording is left, 1 none of the rhythms: b \({BLOCK}\)"):
        read_recordings(tmp_path, skip_broken=skip_broken)


def test_two_files_of_one_name_are_named_by_their_paths(tmp_path: Path) -> None:
    write(tmp_path / "a", "JS1", counts(1))
    write(tmp_path / "b", "JS1", counts(2))
    assert read_recordings(tmp_path).recordings.names == ("a/JS1", "b/JS1")


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    header = write(tmp_path, "x", counts())
    monkeypatch.setitem(sys.modules, "wfdb", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'compressor\[ecg\]'"):
        read_recording(header)
