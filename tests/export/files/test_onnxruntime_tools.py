from __future__ import annotations

import logging
import subprocess
import sys

import onnxruntime
import pytest

from compressor.errors import MissingExtraError
from compressor.export.files.onnxruntime_tools import contained, require_tools


@pytest.mark.parametrize("version", ["1.17.3", "0.9", "dev"])
def test_an_old_runtime_is_named(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", version)
    with pytest.raises(MissingExtraError, match=rf"onnxruntime {version} is installed.*pip install -U"):
        require_tools()


def test_a_missing_runtime_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'compressor\[onnx\]'"):
        require_tools()


def test_marks_of_the_tools_are_wiped_off_also_after_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    path, handlers = [*sys.path], [*logging.getLogger().handlers]
    with pytest.raises(ValueError, match="planted"), contained():
        sys.path.append("/planted")
        sys.stdout.write("planted")
        logging.warning("planted")
        raise ValueError("planted")
    assert sys.path == path and logging.getLogger().handlers == handlers
    assert capsys.readouterr() == ("", "")


def test_tools_find_each_other_whichever_is_used_first() -> None:
    code = (
        "from compressor.export.files.onnxruntime_tools import contained\n"
        "with contained(): import onnxruntime.transformers.float16\n"  # half precision
        "with contained(): import onnxruntime.transformers.onnx_utils\n"  # then the quantiser
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow  # another interpreter
def test_the_package_imports_without_the_tools() -> None:
    code = (
        "import sys, compressor; sys.exit(any(m in sys.modules for m in ('onnx', 'onnxruntime', 'onnxslim')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
