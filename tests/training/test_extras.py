"""Without a library its callbacks say how to get it, and everything else works."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCKED = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import compressor.training
try:
    import compressor.training.{module}
except compressor.errors.MissingExtraError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("module", "blocked"),
    [
        ("lightning", ("pytorch_lightning", "lightning")),
        ("transformers", ("transformers",)),
        ("accelerate", ("accelerate",)),
    ],
)
def test_the_message_holds_the_command(module: str, blocked: tuple[str, ...]) -> None:
    code = BLOCKED.format(blocked=blocked, module=module)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"pip install 'compressor[{module}]'" in result.stdout
