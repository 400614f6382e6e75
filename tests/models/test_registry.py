from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor import models
from compressor.errors import InputError
from compressor.models import create, model, names, registry

IMAGE_CLASSIFIERS = (
    "mobilenet_v2",
    "mobilenet_v2_cifar",
    "resnet110_cifar",
    "resnet20_cifar",
    "resnet32_cifar",
    "resnet44_cifar",
    "resnet50",
    "resnet56_cifar",
    "vgg16_bn",
    "vgg16_bn_cifar",
)
SMALL = [name for name in IMAGE_CLASSIFIERS if name != "vgg16_bn"]  # 138 million parameters


def test_the_names_are_in_order_and_hold_those_the_documentation_promises() -> None:
    assert list(names()) == sorted(names())
    assert set(IMAGE_CLASSIFIERS) <= set(names())


def test_every_exported_name_is_there() -> None:
    assert [name for name in models.__all__ if not hasattr(models, name)] == []


@pytest.mark.parametrize("name", SMALL)
def test_every_model_maps_images_to_logits(name: str) -> None:
    net = create(name, n_classes=7, in_channels=2).eval()
    assert net(torch.randn(3, 2, 32, 32)).shape == (3, 7)


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    net = create(name, n_classes=4)
    logits = net(torch.randn(4, 3, 64, 64))
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    without = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == []
    # A bias before a BatchNorm is subtracted again; every other gradient is not zero.
    zero = {n for n, p in net.named_parameters() if p.grad is not None and not p.grad.any()}
    assert not {n for n in zero if n.endswith(".weight")}


@pytest.mark.parametrize("name", SMALL)
def test_eval_is_blind_to_the_rest_of_the_batch_and_changes_nothing(name: str) -> None:
    net = create(name).eval()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    images = torch.randn(4, 3, 32, 32)
    together, alone = net(images), net(images[:1])
    torch.testing.assert_close(together[:1], alone, rtol=1e-3, atol=1e-5)
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items())


@pytest.mark.parametrize("name", SMALL)
def test_training_sees_the_batch_and_updates_the_statistics(name: str) -> None:
    net = create(name).train()
    images = torch.randn(4, 3, 64, 64)
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    assert not torch.allclose(net(images)[:2], net(images[:2]))
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert norms and all(int(norm.num_batches_tracked or 0) == 2 for norm in norms)


def test_two_models_with_one_seed_are_equal() -> None:
    torch.manual_seed(3)
    first = create("resnet20_cifar").state_dict()
    torch.manual_seed(3)
    second = create("resnet20_cifar").state_dict()
    assert all(torch.equal(first[n], second[n]) for n in first)


def test_an_unknown_name_suggests_close_ones() -> None:
    with pytest.raises(InputError, match=r"no model named 'resnet65_cifar'; did you mean resnet"):
        create("resnet65_cifar")


def test_a_name_like_no_other_lists_all() -> None:
    with pytest.raises(InputError, match=r"'zebra'; known are .*mobilenet_v2, .*vgg16_bn_cifar"):
        create("zebra")


def test_an_unknown_option_lists_those_there_are() -> None:
    with pytest.raises(InputError, match=r"'vgg16_bn_cifar' has no option 'num_classes'; it has n_c"):
        create("vgg16_bn_cifar", num_classes=10)


def test_the_fixed_depth_of_a_name_is_no_option() -> None:
    with pytest.raises(InputError, match="'resnet20_cifar' has no option 'depth'"):
        create("resnet20_cifar", depth=32)


def test_a_name_is_taken_once() -> None:
    with pytest.raises(InputError, match="a model named 'vgg16_bn' exists already"):
        model("vgg16_bn")(lambda: nn.Identity())


def test_a_model_of_ones_own_is_created_like_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_BUILDERS", dict(registry._BUILDERS))

    @model("two_layers")
    def two_layers(*, width: int) -> nn.Module:
        return nn.Sequential(nn.Linear(3, width), nn.Linear(width, 2))

    assert "two_layers" in names()
    assert create("two_layers", width=5)(torch.zeros(1, 3)).shape == (1, 2)


@pytest.mark.parametrize("name", IMAGE_CLASSIFIERS)
@pytest.mark.parametrize("wrong", [0, -1, 2.0, True, "10"])
def test_a_class_count_that_is_none_is_refused(name: str, wrong: object) -> None:
    with pytest.raises(InputError, match=r"n_classes must be an integer of at least 1, got "):
        create(name, n_classes=wrong)
