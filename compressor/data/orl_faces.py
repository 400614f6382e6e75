"""The ORL faces (AT&T) from an .npz file: ten photographs each of forty people, 112x92 grey.

Source: F. Samaria, A. Harter, 1994, "Parameterisation of a Stochastic Model for Human Face
Identification", IEEE Workshop on Applications of Computer Vision; Olivetti Research Laboratory. Nothing
is downloaded: the caller names a file.
"""

from __future__ import annotations

import os
from pathlib import Path

from compressor.data.archive import open_archive
from compressor.data.labelled import Labelled
from compressor.errors import FileError

__all__ = ["load_orl_faces_npz"]

SUBJECTS = 40
SIZE = (112, 92, 1)


def load_orl_faces_npz(path: str | os.PathLike[str]) -> Labelled:
    """The faces of an .npz file, uint8 [N, 1, 112, 92]; labels 0..39 are the people, who are `subjects`, too.

    The file holds `x` (uint8 [N, 112, 92]) and `subject` (integers 1..40 [N]). Split by people: two
    photographs of one of them are almost the same image. Raises FileError for a file that is missing,
    damaged or laid out otherwise.

    >>> import tempfile
    >>> import numpy as np
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "two.npz"
    ...     np.savez(file, x=np.zeros((2, 112, 92), np.uint8), subject=np.array([1, 40]))
    ...     load_orl_faces_npz(file).labels
    tensor([ 0, 39])
    """
    archive = open_archive(Path(path), "ORL faces", ("x", "subject"))
    faces = archive.labelled("x", "subject", SIZE, SUBJECTS + 1)
    if len(faces) == 0 or int(faces.labels.min()) < 1:
        raise FileError(f"{archive.name}: subject must lie in 1..{SUBJECTS}, and there must be faces")
    people = faces.labels - 1
    return Labelled(faces.images, people, people)
