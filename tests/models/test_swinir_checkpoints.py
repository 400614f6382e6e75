"""Files laid out as PMRF and DifFace publish them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from compressor.errors import FileError
from compressor.models import create, load_swinir_checkpoint
from compressor.models.swinir_layers import offsets_in_window


def published(prefix: str = "") -> dict[str, Tensor]:
    """Weights with the buffers that the original keeps beside them."""
    state = dict(create("swinir_tiny").state_dict())
    for name in list(state):
        if name.endswith("bias_table"):
            state[name.replace("bias_table", "index")] = offsets_in_window(8)
            block = name.removesuffix(".attn.relative_position_bias_table")
            if block.endswith("1"):
                state[f"{block}.attn_mask"] = torch.zeros(64, 64, 64)
    return {prefix + name: tensor.clone() for name, tensor in state.items()}


LAYOUTS: dict[str, Any] = {
    "alone": lambda: published(),
    "of DifFace": lambda: {"params_ema": published()},
    "of a training": lambda: {"state_dict": published("model."), "epoch": 3},
    "of several GPUs": lambda: {"state_dict": published("module.")},
    "of PMRF": lambda: {
        "state_dict": {**published("mmse_model."), "model.patch_in.proj.weight": torch.zeros(2, 2)}
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_published_files_fit(layout: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    content = LAYOUTS[layout]()
    torch.save(content, tmp_path / "model.ckpt")
    net = create("swinir_tiny")
    net.load_state_dict(load_swinir_checkpoint(tmp_path / "model.ckpt"))
    torch.manual_seed(1)
    expected = create("swinir_tiny").state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in net.state_dict().items())


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(published("mmse_model."), tmp_path / "model.safetensors")
    create("swinir_tiny").load_state_dict(load_swinir_checkpoint(tmp_path / "model.safetensors"))


def test_windows_counted_in_another_order_are_refused(tmp_path: Path) -> None:
    content = published()
    name = "layers.0.residual_group.blocks.0.attn.relative_position_index"
    content[name] = content[name].T.contiguous()
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(FileError, match="counts offsets in another order"):
        load_swinir_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"state_dict": {"conv1.weight": torch.zeros(1)}}, r"not a SwinIR .* found \['conv1.weight'\]"),
        ([1, 2], "not a SwinIR"),
        ({**published(), "conv_hr.bias": 3}, "expected tensors only, found conv_hr.bias: int"),
    ],
)
def test_other_content_is_named(content: Any, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(FileError, match=words):
        load_swinir_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_damaged_files_are_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"nothing that anyone could read")
    with pytest.raises(FileError, match="cannot be read as"):
        load_swinir_checkpoint(tmp_path / name)
    with pytest.raises(FileError, match="no such file"):
        load_swinir_checkpoint(tmp_path / f"absent{name}")
