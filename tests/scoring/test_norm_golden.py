"""The filter norm against the L1 scores that the authors of Beta-Rank computed beside theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.core.capture import capture
from compressor.core.graph import Axis
from compressor.models import create
from compressor.scoring import Norm
from compressor.scoring.norm import channel_norms


def as_published(norms: np.ndarray, weight_shape: tuple[int, ...], places: int) -> np.ndarray:
    """Their score mean |W| · P · Q is Σ |W|, divided by the inputs of a filter, for each place."""
    return norms * places / np.prod(weight_shape[1:])


def test_the_norms_of_single_layers(shared: Path) -> None:
    with np.load(shared / "golden" / "betarank_units.npz") as units:
        for case in units["cases"].tolist():
            weight, out = torch.from_numpy(units[f"{case}/weight"]), units[f"{case}/out"]
            rows = Axis("weight", 0, np.arange(len(weight)), "writer")
            norms = channel_norms(weight, [rows], 1)[0].double().numpy()
            found = as_published(norms, tuple(weight.shape), out.shape[2] * out.shape[3])
            np.testing.assert_allclose(found, units[f"{case}/score_l1"], rtol=2e-5, err_msg=case)


@pytest.mark.parametrize(
    ("name", "width"), [("conv1", 16), ("layer1.3.conv1", 16), ("layer2.0.conv2", 8), ("layer3.8.conv2", 4)]
)
def test_the_norms_of_a_resnet56(shared: Path, name: str, width: int) -> None:
    """Images of 16 pixels, which the second and third stage halve."""
    with np.load(shared / "golden" / "betarank_resnet56_16.npz") as golden:
        model = create("resnet56_cifar").eval()
        weights = {k[3:].replace("fc.", "linear."): golden[k] for k in golden.files if k.startswith("sd/")}
        model.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
        graph = capture(model, torch.from_numpy(golden["x"]))
        norms = Norm(1, roles="writer").site_scores(graph)[f"{name}.weight", 0].double().numpy()
        found = as_published(norms, weights[f"{name}.weight"].shape, width * width)
        np.testing.assert_allclose(found, golden[f"score_L1/{name}"], rtol=1e-4)
