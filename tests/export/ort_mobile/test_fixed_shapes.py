from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from compressor.errors import InputError
from compressor.export import fix_shapes
from compressor.export.files.sources import read_source


def test_only_the_sizes_change(classifier: Path, tmp_path: Path) -> None:
    path = fix_shapes(classifier, {"x": (2, 3, 8, 8)}, tmp_path / "deep" / "fixed.onnx")
    fixed = read_source(path)
    assert fixed.inputs == {"x": (2, 3, 8, 8)}
    assert [d.dim_value for d in fixed.proto.graph.output[0].type.tensor_type.shape.dim] == [2, 5]
    assert [entry.key for entry in fixed.proto.metadata_props] == ["classes"]
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 3, 8, 8), dtype=np.float32)}
    expected, found = (onnxruntime.InferenceSession(str(p)).run(None, feeds) for p in (classifier, path))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"x": (2, 3, 8)},
        {"x": (2, 4, 8, 8)},
        {"x": (0, 3, 8, 8)},
        {"x": (1, 3, 8, 8), "y": (1,)},
        (1, 3),
        {"x": 4},
    ],
)
def test_shapes_that_do_not_fit_are_refused(classifier: Path, left_alone: Path, shapes: Any) -> None:
    with pytest.raises(InputError, match=r"shapes.*x \[batch, 3, 8, 8\]"):
        fix_shapes(classifier, shapes, left_alone / "a.onnx")
