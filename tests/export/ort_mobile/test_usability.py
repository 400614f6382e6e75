"""The verdict of onnxruntime's usability check as a value, held against the check's own words."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from compressor.errors import FileError
from compressor.export import Verdict, fix_shapes, usability


@pytest.mark.slow  # another interpreter
def test_the_numbers_are_those_the_command_prints(classifier: Path, tmp_path: Path) -> None:
    fixed = fix_shapes(classifier, {"x": (1, 3, 8, 8)}, tmp_path / "fixed.onnx")
    command = [sys.executable, "-m", "onnxruntime.tools.check_onnx_model_mobile_usability", str(fixed)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    printed = re.findall(
        r"(\d+) partitions with a total of (\d+)/(\d+) nodes can be handled by the (.*) EP", said.stderr
    )
    verdicts = dict(re.findall(r"should perform well with (.*) as is: (\w+)", said.stderr))
    found = usability(fixed).providers
    assert {(str(p.partitions), str(p.supported), str(p.nodes), p.provider) for p in found} == set(printed)
    assert {p.provider: p.verdict.name for p in found} == verdicts


def test_free_sizes_are_the_reason_and_fixing_them_the_remedy(classifier: Path, tmp_path: Path) -> None:
    free = usability(classifier)
    assert not free.worth_a_try
    for provider in free.providers:
        assert provider.verdict is Verdict.NO and provider.if_fixed is not Verdict.NO
        assert provider.supported == 0 and f"{provider.nodes} nodes read free sizes" in provider.reasons
    assert "NNAPI: no, yes with fixed shapes (0 of 7 nodes" in str(free)
    fixed = usability(fix_shapes(classifier, {"x": (1, 3, 8, 8)}, tmp_path / "fixed.onnx"))
    assert fixed.worth_a_try
    assert [p.provider for p in fixed.providers] == ["NNAPI", "CoreML MLProgram", "CoreML NeuralNetwork"]
    nnapi, program, _ = fixed.providers
    assert (nnapi.verdict, nnapi.supported, nnapi.partitions, nnapi.reasons) == (Verdict.YES, 7, 1, ())
    assert (program.verdict, program.supported, program.partitions) == (Verdict.MAYBE, 6, 2)
    assert program.reasons == ("Flatten is not supported",)
    assert any("Conv" in caveat for caveat in nnapi.unchecked)


def test_convolutions_that_a_provider_has_not_are_seen(volume: Path, tmp_path: Path) -> None:
    fixed = usability(fix_shapes(volume, {"x": (1, 1, 6, 6, 6)}, tmp_path / "fixed.onnx"))
    for provider in fixed.providers:
        assert (provider.verdict, provider.if_fixed, provider.supported) == (Verdict.NO, Verdict.NO, 0)
        assert provider.reasons == ("3-D Conv is not supported",)


def test_unsupported_operators_are_named(recurrent: Path, tmp_path: Path) -> None:
    for provider in usability(fix_shapes(recurrent, {"x": (1, 10, 6)}, tmp_path / "fixed.onnx")).providers:
        assert "LSTM is not supported" in provider.reasons


def test_onnx_is_left_as_it_was_and_no_file_is_named(classifier: Path, tmp_path: Path) -> None:
    before = onnx.NodeProto.__hash__
    usability(classifier)
    assert onnx.NodeProto.__hash__ is before
    with pytest.raises(FileError, match="is no file"):
        usability(tmp_path / "none.onnx")
