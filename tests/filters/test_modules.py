from __future__ import annotations

import random
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

import compressor as cp
from compressor.errors import CaptureError, InputError, ModelError, SpecializationWarning
from compressor.filters import FilterBank, banks
from tests.filters.networks import IMAGE, Branches, scrambled

# -- which banks -----------------------------------------------------------------------------------


def test_modules_come_in_the_order_of_definition_without_a_run() -> None:
    found = banks(Branches(), model_name="net")
    assert [bank.name for bank in found] == ["stem", "a1", "b1", "b2", "c1", "c2", "c3", "pooled", "last"]
    assert [bank.layer_id for bank in found] == list(range(9))
    assert {(bank.model, bank.conv_depth, bank.conv_depth_norm, bank.folded) for bank in found} == {
        ("net", None, None, False)
    }
    assert found[6].groups == 4 and found[6].weight.shape == (4, 1, 3, 3)


def test_with_inputs_they_come_in_the_order_of_running_with_ranks_of_depth() -> None:
    found = {bank.name: bank for bank in banks(Branches(), IMAGE)}
    assert list(found) == ["stem", "b1", "b2", "c1", "c2", "c3", "pooled", "a1", "last"]
    # By hand, in operators: stem 1, relu 2, b1 = c1 = a1 3, pool 3, pooled 4, b2 = c2 5, c3 7, last 9.
    ranks = {"stem": 0, "b1": 1, "c1": 1, "a1": 1, "pooled": 2, "b2": 3, "c2": 3, "c3": 4, "last": 5}
    assert {name: bank.conv_depth for name, bank in found.items()} == ranks
    assert {name: bank.conv_depth_norm for name, bank in found.items()} == {
        n: r / 5 for n, r in ranks.items()
    }


def test_only_the_kernel_size_asked_for_is_kept_but_all_count_in_the_depth() -> None:
    found = banks(Branches(), IMAGE, kernel_size=3)
    assert [(bank.name, bank.layer_id, bank.conv_depth) for bank in found] == [
        ("b2", 0, 3),
        ("c2", 1, 3),
        ("c3", 2, 4),
        ("last", 3, 5),
    ]
    assert [bank.name for bank in banks(Branches(), kernel_size=(5, 5))] == ["stem"]


def test_convolutions_over_one_and_three_dimensions_are_ranked_apart() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flat, self.deep = nn.Conv1d(1, 2, 3), nn.Conv3d(2, 2, (1, 3, 3))
            self.plane, self.end = nn.Conv2d(2, 2, 3, padding=1), nn.Conv1d(2, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.flat(x).unflatten(2, (6, 6))
            x = self.deep(self.plane(x).unsqueeze(2)).flatten(2)
            out: Tensor = self.end(x)
            return out

    found = banks(Mixed(), torch.zeros(1, 1, 38))
    assert [(b.name, b.kernel_size, b.conv_depth) for b in found] == [
        ("flat", (3,), 0),
        ("plane", (3, 3), 0),
        ("deep", (1, 3, 3), 0),
        ("end", (1,), 1),
    ]
    assert [b.name for b in banks(Mixed(), kernel_size=3)] == ["flat", "plane"]


def test_a_shared_module_is_one_bank_and_one_for_each_call_of_a_run() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)
            self.again = self.conv

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.again(self.conv(x))
            return out

    assert [b.name for b in banks(Recurrent())] == ["conv"]
    assert [(b.name, b.layer_id, b.conv_depth) for b in banks(Recurrent(), IMAGE)] == [
        ("conv", 0, 0),
        ("conv", 1, 1),
    ]


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_is_turned_to_filters_of_its_outputs(groups: int) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 6, 3, groups=groups))
    assert [b.name for b in banks(net, IMAGE)] == ["0"]
    for found in (banks(net, include_transposed=True), banks(net, IMAGE, include_transposed=True)):
        (_, bank), layer = found, net[1]
        assert isinstance(layer, nn.ConvTranspose2d)
        assert bank.transposed and bank.weight.shape == (6, 4 // groups, 3, 3)
        # One pixel of one channel: what it writes is that channel's kernel in each filter of its group.
        for channel in range(4):
            pixel = torch.zeros(1, 4, 1, 1)
            pixel[0, channel] = 1
            written = F.conv_transpose2d(pixel, layer.weight, groups=groups)[0]
            group, inside = divmod(channel, 4 // groups)
            outputs = slice(group * 6 // groups, (group + 1) * 6 // groups)
            assert torch.equal(written[outputs], bank.weight[outputs, inside])


def test_functional_convolutions_are_seen_where_the_model_runs() -> None:
    class Blurred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("kernel", torch.ones(3, 1, 3, 3) / 9)
            self.conv = nn.Conv2d(3, 2, 3)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.conv(F.conv2d(x, self.kernel, groups=3))
            return out

    assert [b.name for b in banks(Blurred())] == ["conv"]
    found = banks(Blurred(), {"x": IMAGE})
    assert [(b.name, b.groups) for b in found] == [("kernel", 3), ("conv", 1)]


def test_a_weight_that_is_cast_or_viewed_keeps_its_name() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernels = nn.Parameter(torch.randn(4, 27, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.kernels.to(x.dtype).view(4, 3, 3, 3))

    net = Flat()
    (bank,) = banks(net, IMAGE)
    assert bank.name == "kernels" and torch.equal(bank.weight, net.kernels.float().view(4, 3, 3, 3))


def test_what_is_written_into_a_tensor_counts_in_the_depth_of_who_reads_it() -> None:
    class Written(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 2, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            whole = torch.zeros(1, 4, 32, 32)
            whole[:, :2] = self.first(x)
            out: Tensor = self.second(whole)
            return out

    assert [(b.name, b.conv_depth) for b in banks(Written(), IMAGE)] == [("first", 0), ("second", 1)]


def test_a_graph_stands_for_its_example_inputs() -> None:
    net = Branches()
    graph = cp.capture(net, IMAGE)
    assert [b.conv_depth for b in banks(net, graph)] == [b.conv_depth for b in banks(net, IMAGE)]
    with pytest.raises(InputError, match="of another model"):
        banks(Branches(), graph)


# -- the weights -----------------------------------------------------------------------------------


def _weight_norm(conv: nn.Conv2d) -> nn.Module:
    return parametrizations.weight_norm(conv)


def _old_weight_norm(conv: nn.Conv2d) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.nn.utils.weight_norm(conv)


def _spectral_norm(conv: nn.Conv2d) -> nn.Module:
    return parametrizations.spectral_norm(conv)


def _masked(conv: nn.Conv2d) -> nn.Module:
    return prune.ln_structured(conv, "weight", amount=0.5, n=2, dim=0)


@pytest.mark.parametrize("wrap", [_weight_norm, _old_weight_norm, _spectral_norm, _masked])
def test_a_weight_that_is_computed_is_the_one_the_layer_works_with(
    wrap: Callable[[nn.Conv2d], nn.Module],
) -> None:
    conv = wrap(nn.Conv2d(3, 4, 3, bias=False))
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.mul_(1.7)  # the weight that an old-style hook left behind is stale now
    net = nn.Sequential(conv).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    (plain,), (run,) = banks(net), banks(net, IMAGE)
    assert plain.name == run.name == "0"
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])
    # What a layer multiplies by is what it answers to unit impulses.
    impulses = torch.eye(27).view(27, 3, 3, 3)
    answers = net.eval()(impulses).flatten(1).T.reshape(4, 3, 3, 3)
    torch.testing.assert_close(plain.weight, answers)
    torch.testing.assert_close(run.weight, answers)


def test_banks_are_copies_that_a_training_does_not_reach() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    found = (*banks(net), *banks(net, IMAGE))
    before = [bank.weight.clone() for bank in found]
    with torch.no_grad():
        net[0].weight.zero_()  # type: ignore[union-attr]
    assert all(torch.equal(bank.weight, weight) for bank, weight in zip(found, before, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_measured_in_float32(dtype: torch.dtype) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)).to(dtype)
    (plain,), (folded,) = banks(net), banks(net, IMAGE.to(dtype), fold_batch_norm=True)
    assert plain.weight.dtype == folded.weight.dtype == torch.float32
    assert torch.equal(plain.weight, net[0].weight.float())  # type: ignore[operator]
    assert banks(nn.Sequential(nn.Conv2d(3, 4, 3).double()))[0].weight.dtype == torch.float64


def test_the_model_and_the_random_state_are_as_before() -> None:
    net = scrambled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 4, 3)))
    net.train()
    net[1].eval()
    net(IMAGE).sum().backward()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    gradients = [parameter.grad for parameter in net.parameters()]
    states = torch.get_rng_state(), random.getstate()
    banks(net, IMAGE, fold_batch_norm=True)
    assert [module.training for module in net] == [True, False, True, True]
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(p.grad is grad for p, grad in zip(net.parameters(), gradients, strict=True))
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]


# -- faults ----------------------------------------------------------------------------------------


def test_folding_without_inputs_says_what_it_needs() -> None:
    with pytest.raises(InputError, match=r"needs example inputs, banks\(model, x, fold_batch_norm=True\)"):
        banks(Branches(), fold_batch_norm=True)


def test_a_model_without_convolutions_is_refused() -> None:
    with pytest.raises(InputError, match="Linear has no convolution, so there are no filters"):
        banks(nn.Linear(2, 2))
    with pytest.raises(InputError, match="but 1 transposed ones: include_transposed=True"):
        banks(nn.ConvTranspose2d(2, 2, 3))
    with pytest.raises(InputError, match="size 7: it has 1 x 1, 3 x 3, 5 x 5"):
        banks(Branches(), kernel_size=7)


def test_what_has_no_weights_yet_is_refused_before_anything_runs() -> None:
    lazy = nn.Sequential(nn.LazyConv2d(4, 3))
    for x in (None, IMAGE):
        with pytest.raises(ModelError, match="'0' is lazy and has no weights yet"):
            banks(lazy, x)
    assert lazy[0].has_uninitialized_params()  # type: ignore[operator]
    with pytest.raises(ModelError, match="'0' is on the meta device"):
        banks(nn.Sequential(nn.Conv2d(3, 4, 3)).to("meta"))


def test_quantised_and_scripted_modules_are_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.ao.nn.quantized.Conv2d(3, 4, 3)
    with pytest.raises(ModelError, match=r"'0' is a quantised Conv2d: measure the floating-point model"):
        banks(nn.Sequential(quantised, nn.Conv2d(4, 4, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.trace(nn.Conv2d(3, 4, 3), IMAGE)
    with pytest.raises(ModelError, match="TorchScript"):
        banks(scripted, IMAGE)
    with pytest.raises(InputError, match=r"needs a torch\.nn\.Module, got FilterBank"):
        banks(FilterBank(torch.ones(1, 1, 3), "conv"))  # type: ignore[arg-type]


@pytest.mark.parametrize("x", [None, IMAGE])
def test_a_weight_that_is_not_finite_is_named(x: Tensor | None) -> None:
    net = Branches()
    with torch.no_grad():
        net.c2.weight[1, 2, 0, 0] = float("nan")
    with pytest.raises(InputError, match=r"the weight of net: c2 holds 1 value .* first at \[1, 2, 0, 0\]"):
        banks(net, x, model_name="net")


def test_a_norm_that_is_not_finite_is_named_where_it_is_folded() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    net[1].running_var[2] = -1.0  # type: ignore[index, union-attr]
    with pytest.raises(InputError, match=r"scale of the batch norm behind 0 holds 1 value .* first at \[2\]"):
        banks(net, IMAGE, fold_batch_norm=True)
    assert len(banks(net, IMAGE)) == 1


def test_inputs_that_do_not_fit_are_an_error_with_the_reason() -> None:
    with pytest.raises(CaptureError, match="Branches does not run on the example inputs: RuntimeError"):
        banks(Branches(), torch.zeros(1, 4, 8, 8))


def test_a_weight_computed_from_the_inputs_is_no_filter_of_the_model() -> None:
    class Hyper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.make = nn.Conv2d(3, 3, 3), nn.Linear(3, 27)

        def forward(self, x: Tensor) -> Tensor:
            weight = self.make(x.mean((0, 2, 3))).view(1, 3, 3, 3)
            return F.conv2d(self.conv(x), weight)

    with pytest.raises(ModelError, match=r"is computed from the inputs.*without example inputs"):
        banks(Hyper(), IMAGE)
    assert [bank.name for bank in banks(Hyper())] == ["conv"]


def test_a_convolution_that_does_not_run_is_left_out_with_a_warning() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.conv(x)
            return out + self.head(x).mean() if self.training else out

    with pytest.warns(SpecializationWarning, match="'head': convolutions that do not run in eval mode"):
        found = banks(Auxiliary(), IMAGE)
    assert [bank.name for bank in found] == ["conv"]
