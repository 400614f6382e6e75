from __future__ import annotations

import pytest

from compressor.errors import MissingExtraError
from compressor.extras import imported


def test_a_missing_library_names_the_command_that_installs_it() -> None:
    with pytest.raises(
        MissingExtraError, match=r"reading ECGs needs nowhere.*pip install 'compressor\[ecg\]'"
    ):
        imported("nowhere.at_all", extra="ecg", needed_for="reading ECGs")
