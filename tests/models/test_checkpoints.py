from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compressor.data import load_cifar10_npz, normalize
from compressor.errors import FileError
from compressor.models import create, load_akamaster_checkpoint

FILES = {
    20: "resnet20-12fca82f.th",
    32: "resnet32-d509ac18.th",
    44: "resnet44-014dd654.th",
    56: "resnet56-4bfd9763.th",
}


# Accuracies in percent on the first 1000 test images, measured when the shared data were collected;
# one image more or less is 0.1.
@pytest.mark.shared
@pytest.mark.parametrize(
    ("depth", "percent"),
    [
        (20, 91.5),
        pytest.param(32, 92.8, marks=pytest.mark.slow),
        pytest.param(44, 93.3, marks=pytest.mark.slow),
        pytest.param(56, 92.6, marks=pytest.mark.slow),
    ],
)
def test_a_published_checkpoint_has_its_accuracy(depth: int, percent: float, shared: Path) -> None:
    net = create(f"resnet{depth}_cifar").eval()
    weights = load_akamaster_checkpoint(shared / "data" / "ckpt_cifar10_resnet" / FILES[depth])
    net.load_state_dict(weights, strict=True)
    test = load_cifar10_npz(shared / "data" / "cifar10" / "cifar10_lossless_4k1k.npz").test
    with torch.no_grad():
        classes = torch.cat([net(normalize(part)).argmax(1) for part in test.images.split(250)])
    assert len(test) == 1000
    assert 100 * (classes == test.labels).double().mean().item() == pytest.approx(percent, abs=0.11)


@pytest.mark.shared
def test_a_truncated_checkpoint_is_named_as_such(shared: Path, tmp_path: Path) -> None:
    whole = (shared / "data" / "ckpt_cifar10_resnet" / FILES[20]).read_bytes()
    for part in (0, 10, 1000, len(whole) // 2, len(whole) - 1):
        file = tmp_path / f"{part}.th"
        file.write_bytes(whole[:part])
        with pytest.raises(FileError, match=rf"{part}\.th: cannot be read .* may be truncated"):
            load_akamaster_checkpoint(file)


def test_the_prefix_of_data_parallel_goes_and_the_values_stay(tmp_path: Path) -> None:
    weights = create("resnet20_cifar").state_dict()
    prefixed = {f"module.{name}": tensor for name, tensor in weights.items()}
    torch.save({"state_dict": prefixed, "best_prec1": 10.0}, tmp_path / "net.th")
    loaded = load_akamaster_checkpoint(tmp_path / "net.th")
    assert list(loaded) == list(weights)
    assert all(torch.equal(loaded[name], weights[name]) for name in weights)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"checkpoint .*none\.th: no such file"):
        load_akamaster_checkpoint(tmp_path / "none.th")
    with pytest.raises(FileError, match="no such file"):
        load_akamaster_checkpoint(tmp_path)


class Harmful:
    """An object whose unpickling would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('the checkpoint ran code')",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], r"expected a dict with the key 'state_dict', found <class 'list'>"),
        ({"model": {}}, r"expected a dict with the key 'state_dict', found the keys \['model'\]"),
        ({"state_dict": {}}, r"expected tensors conv1\.weight, .*, found \[\]"),
        ({"state_dict": {"fc.bias": torch.ones(1)}}, r"linear\.weight, found \['fc\.bias'\]"),
        (
            {"state_dict": {"conv1.weight": torch.ones(1), "linear.weight": 3}},
            r"expected only tensors, found linear\.weight: int",
        ),
        ({"state_dict": Harmful()}, r"cannot be read as a PyTorch file of plain tensors"),
    ],
)
def test_a_file_of_another_format_says_what_it_holds(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "net.th")
    with pytest.raises(FileError, match=message):
        load_akamaster_checkpoint(tmp_path / "net.th")
