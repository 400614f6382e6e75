"""Which filters `initialise_` draws, what it leaves alone, and what it refuses before anything changes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from compressor.design import LSUV, He, Initialiser, KMeans, Orthogonal, Part, Redrawn, initialise_
from compressor.errors import InputError, ModelError


def small_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 5)
    )


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(model: nn.Module, before: dict[str, Tensor]) -> None:
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


class Failing(Initialiser):
    """Draws the first layer and fails at the second."""

    def __init__(self) -> None:
        self.layers = 0

    def draw(self, part: Part, generator: torch.Generator) -> Tensor:
        self.layers += 1
        if self.layers > 1:
            raise RuntimeError("no more")
        return torch.zeros(part.count, part.channels, *part.kernel_size)


def test_all_layers_are_drawn_and_the_norms_are_not() -> None:
    net = small_net()
    before = state(net)
    report = initialise_(net, He())
    assert [(one.layer, len(one.filters), one.of) for one in report] == [
        ("0", 8, 8),
        ("3", 4, 4),
        ("5", 5, 5),
    ]
    for name in ("0.weight", "3.weight", "5.weight"):
        assert not torch.eq(net.state_dict()[name], before[name]).any()
    for name in ("0.bias", "3.bias", "5.bias"):
        assert not net.state_dict()[name].any()
    for name in ("1.weight", "1.bias", "1.running_mean", "1.running_var"):
        assert torch.equal(net.state_dict()[name], before[name])


def test_only_chosen_filters_change() -> None:
    net = small_net()
    before = state(net)
    flags = torch.zeros(8, dtype=torch.bool)
    flags[[1, 6]] = True
    assert initialise_(net, He(), filters={"0": flags}) == (Redrawn("0", (1, 6), 8),)
    changed = (net[0].weight != before["0.weight"]).flatten(1)
    assert changed.any(1).tolist() == flags.tolist()
    assert torch.equal(net[0].bias[~flags], before["0.bias"][~flags]) and not net[0].bias[flags].any()
    assert torch.equal(net[3].weight, before["3.weight"])


def test_named_layers_are_drawn_whole() -> None:
    net = small_net()
    before = state(net)
    initialise_(net, He(), filters=["3"])
    assert torch.equal(net[0].weight, before["0.weight"]) and not torch.equal(
        net[3].weight, before["3.weight"]
    )


def test_an_empty_mask_changes_nothing() -> None:
    net = small_net()
    before = state(net)
    assert initialise_(net, He(), filters={"0": torch.zeros(8, dtype=torch.bool)}) == ()
    assert_same(net, before)


def test_the_parameter_stays_the_same_object_with_its_flags() -> None:
    net = small_net()
    net[0].weight.requires_grad_(False)
    weight, pointer = net[0].weight, net[0].weight.data_ptr()
    initialise_(net, He())
    assert net[0].weight is weight and weight.data_ptr() == pointer and not weight.requires_grad
    assert net.training


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_is_kept_and_the_seed_means_the_same(dtype: torch.dtype) -> None:
    single, other = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3).to(dtype)
    initialise_(single, Orthogonal(), seed=3)
    initialise_(other, Orthogonal(), seed=3)
    assert other.weight.dtype == dtype
    if dtype != torch.float64:  # double precision draws other random numbers
        torch.testing.assert_close(other.weight.float(), single.weight, atol=5e-3, rtol=1e-2)


def test_memory_format_stays() -> None:
    conv = nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
    initialise_(conv, He())
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)


def test_a_seed_repeats_itself_and_nothing_else_moves() -> None:
    torch.manual_seed(5)
    first, second = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
    random_state = torch.get_rng_state()
    initialise_(first, He(), seed=1)
    initialise_(second, He(), seed=1)
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(torch.get_rng_state(), random_state)
    initialise_(second, He(), seed=2)
    assert not torch.equal(first.weight, second.weight)


def test_a_generator_goes_on() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
    initialise_(first, He(), seed=generator)
    initialise_(second, He(), seed=generator)
    assert not torch.equal(first.weight, second.weight)


def test_shared_weights_are_drawn_once() -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    net = nn.Sequential(first, second)
    assert [one.layer for one in initialise_(net, He())] == ["0"]
    assert second.weight is first.weight


def test_a_fault_halfway_leaves_the_model_as_it_was() -> None:
    net = small_net()
    before = state(net)
    with pytest.raises(RuntimeError, match="no more"):
        initialise_(net, Failing())
    assert_same(net, before)


def test_a_fault_while_data_runs_leaves_the_model_as_it_was() -> None:
    net = small_net()
    before = state(net)
    batches = [torch.rand(4, 3, 8, 8), torch.full((4, 3, 8, 8), torch.nan)]
    with pytest.raises(InputError, match="variance nan"):
        initialise_(net, LSUV(batches))
    assert_same(net, before)
    assert net.training and not net[0]._forward_hooks and not net[0]._forward_pre_hooks


def test_a_frozen_copy_is_no_surprise_for_autograd() -> None:
    net = small_net()
    loss = net(torch.rand(2, 3, 8, 8)).sum()
    initialise_(net, He())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()  # as after any step of an optimizer


class Wrong(Initialiser):
    def __init__(self, new: object) -> None:
        self.new = new

    def draw(self, part: Part, generator: torch.Generator) -> Tensor:
        return self.new  # type: ignore[return-value] # what users do


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (torch.zeros(4, 3, 3), r"takes filters \[8, 3, 3, 3\], and it drew \[4, 3, 3\]"),
        (None, "drew NoneType"),
        (torch.full((8, 3, 3, 3), torch.nan), "NaN or infinite"),
    ],
)
def test_what_an_initialiser_draws_is_checked(new: object, message: str) -> None:
    conv = nn.Conv2d(3, 8, 3)
    before = state(conv)
    with pytest.raises(InputError, match=message):
        initialise_(conv, Wrong(new))
    assert_same(conv, before)


def flags(count: int) -> Tensor:
    return torch.ones(count, dtype=torch.bool)


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (["conv"], "'conv' is no convolution or matrix of the model.*'0', '3', '5'"),
        (["1"], "'1' is no convolution or matrix"),
        ("0", r"write \['0'\]"),
        ({"0": flags(7)}, r"0: the mask is a bool tensor \[8\].*\[7\]"),
        ({"0": torch.ones(8)}, "got torch.float32"),
        ({"0": [True] * 8}, "got list"),
        (flags(8), "a mask alone is for a model of one layer, and there are 3"),
    ],
)
def test_filters_that_do_not_fit_are_named(filters: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        initialise_(small_net(), He(), filters=filters)  # type: ignore[arg-type]


def test_what_has_no_filters_is_refused() -> None:
    with pytest.raises(InputError, match="BatchNorm2d has no convolution or matrix"):
        initialise_(nn.BatchNorm2d(3), He())
    with pytest.raises(InputError, match="got Tensor"):
        initialise_(torch.ones(3), He())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="the class He"):
        initialise_(nn.Linear(2, 2), He)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="seed is a whole number"):
        initialise_(nn.Linear(2, 2), He(), seed="0")  # type: ignore[arg-type]


def test_weights_that_cannot_be_written_are_refused() -> None:
    with pytest.raises(ModelError, match="LazyConv2d is lazy"):
        initialise_(nn.LazyConv2d(4, 3), He())
    with pytest.raises(ModelError, match="computed from other tensors"):
        initialise_(parametrizations.weight_norm(nn.Linear(3, 3)), He())
    with pytest.raises(ModelError, match="meta device"):
        initialise_(nn.Linear(3, 3, device="meta"), He())
    with pytest.raises(ModelError, match=r"its weight is torch\.complex64"):
        initialise_(nn.Linear(3, 3, dtype=torch.complex64), He())
    with torch.inference_mode():
        made = nn.Linear(3, 3)
    with pytest.raises(ModelError, match="inference mode"):
        initialise_(made, He())


def test_layers_that_data_never_reaches_are_named() -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.used(x)
            return out

    net = Spare()
    with pytest.raises(InputError, match="does not call 'spare'"):
        initialise_(net, KMeans([torch.rand(32, 3, 8, 8)]))


def test_a_copy_is_drawn_not_the_model() -> None:
    """An initialiser that writes to what it is given writes to a copy."""

    class Vandal(He):
        def draw(self, part: Part, generator: torch.Generator) -> Tensor:
            with torch.no_grad():
                for tensor in part.layer.model.parameters():
                    tensor.zero_()
            return super().draw(part, generator)

    net = small_net()
    reference = copy.deepcopy(net)
    initialise_(net, Vandal(), filters=["0"])
    assert torch.equal(net[3].weight, reference[3].weight)
