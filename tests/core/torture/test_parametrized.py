"""Weights that are computed, modules that are wrapped, shared, compiled, quantised or not there yet."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.ao.quantization as quantization
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from compressor.core.capture import capture
from compressor.core.surgery import apply, apply_
from compressor.errors import ModelError
from tests.core.driver import Net, assert_pinned, assert_prunes_exactly, masks

X = torch.randn(2, 3, 6, 8)
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*weight_norm.* is deprecated:FutureWarning", "ignore::DeprecationWarning"
)


def conv(i: int, o: int) -> nn.Conv2d:
    return nn.Conv2d(i, o, 1)


def network(first: nn.Module | None = None, second: nn.Module | None = None) -> nn.Sequential:
    first = conv(3, 8) if first is None else first
    second = conv(8, 6) if second is None else second
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), conv(6, 2))


# -- computed weights ----------------------------------------------------------------------------


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(8, 1, 1, 1) + 0.5)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.scale


class Standardised(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        centred = weight - weight.mean((1, 2, 3), keepdim=True)
        return centred / (weight.std((1, 2, 3), keepdim=True) + 1e-5)


def with_parametrization(module: nn.Module, name: str, *computed: nn.Module) -> nn.Module:
    for each in computed:
        parametrize.register_parametrization(module, name, each)
    return module


def with_masks() -> nn.Module:
    model = network()
    prune.l1_unstructured(model[0], "weight", 0.3)
    prune.ln_structured(model[2], "weight", 0.3, n=2, dim=0)
    return model


def transposed(norm: Callable[..., nn.Module]) -> nn.Module:
    return network(norm(nn.ConvTranspose2d(3, 8, 1)), norm(nn.ConvTranspose2d(8, 6, 1)))


COMPUTED: dict[str, Callable[[], nn.Module]] = {
    "weight norm": lambda: network(*(parametrizations.weight_norm(conv(*c)) for c in ((3, 8), (8, 6)))),
    "weight norm, old": lambda: network(*(old_weight_norm(conv(*c)) for c in ((3, 8), (8, 6)))),
    "weight norm, old, transposed": lambda: transposed(old_weight_norm),
    "weight norm, transposed": lambda: transposed(parametrizations.weight_norm),
    "spectral norm": lambda: network(*(parametrizations.spectral_norm(conv(*c)) for c in ((3, 8), (8, 6)))),
    "spectral norm, old": lambda: network(*(old_spectral_norm(conv(*c)) for c in ((3, 8), (8, 6)))),
    "spectral norm, old, transposed": lambda: transposed(old_spectral_norm),
    "a scale of one's own": lambda: network(with_parametrization(conv(3, 8), "weight", Scaled())),
    "a bias that is positive": lambda: network(with_parametrization(conv(3, 8), "bias", nn.Softplus())),
    "standardised": lambda: network(
        None, with_parametrization(nn.Conv2d(8, 6, 3, padding=1), "weight", Standardised())
    ),
    "one after the other": lambda: network(
        with_parametrization(parametrizations.weight_norm(conv(3, 8)), "weight", Scaled())
    ),
    "masked by torch": with_masks,
}


@pytest.mark.parametrize("name", COMPUTED)
def test_computed_weights_are_cut_exactly(name: str) -> None:
    assert_prunes_exactly(COMPUTED[name]().eval(), X, free=14)


@pytest.mark.parametrize("name", [name for name in COMPUTED if "old" in name or "masked" in name])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_weight_computed_by_a_hook_has_its_new_shape_before_the_first_forward(
    name: str, in_place: bool
) -> None:
    model = COMPUTED[name]().eval()
    graph = capture(model, X)
    plan = graph.plan(next(masks(graph)))
    small = apply(model, plan)
    if in_place:
        apply_(model, plan)
        small = model
    for layer in (small[0], small[2]):
        rows = layer.weight.shape[1 if isinstance(layer, nn.ConvTranspose2d) else 0]
        assert rows == layer.out_channels < 8
    before = [small[i].weight.clone() for i in (0, 2)]
    small(X)
    assert all(torch.equal(w, small[i].weight) for w, i in zip(before, (0, 2), strict=True))


def test_an_orthogonal_weight_is_pinned_with_the_reason() -> None:
    graph = capture(network(parametrizations.orthogonal(conv(3, 8))), X)
    assert graph.n_units == 6
    assert_pinned(graph, "0.parametrizations.weight.original", "no rule for operator")


# -- checkpoints ---------------------------------------------------------------------------------


class Checkpointed(nn.Module):
    def __init__(self, run: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.body, self.run = network(), run

    def forward(self, x: Tensor) -> Any:
        return self.run(self.body, x)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_blocks(reentrant: bool) -> None:
    model = Checkpointed(lambda body, x: checkpoint(body, x, use_reentrant=reentrant))
    # A reentrant checkpoint has gradients only where its input does.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "None of the inputs have requires_grad")
        assert_prunes_exactly(model, X, free=14, second_batch=not reentrant)


def test_checkpointed_sequences() -> None:
    model = Checkpointed(lambda body, x: checkpoint_sequential(body, 2, x, use_reentrant=False))
    assert_prunes_exactly(model, X, free=14)


# -- wrappers ------------------------------------------------------------------------------------


def compiled_in_place() -> nn.Module:
    model = network()
    model.compile(backend="eager")
    return model


def compiled_inside() -> nn.Module:
    return network(None, torch.compile(conv(8, 6), backend="eager"))


WRAPPED: dict[str, Callable[[], nn.Module]] = {
    "DataParallel": lambda: nn.DataParallel(network()),
    "compiled": lambda: torch.compile(network(), backend="eager"),
    "compiled in place": compiled_in_place,
    "compiled inside": compiled_inside,
    "averaged": lambda: torch.optim.swa_utils.AveragedModel(network()),
    "traced by torch.fx": lambda: torch.fx.symbolic_trace(network()),
    "stubs of quantisation": lambda: nn.Sequential(
        quantization.QuantStub(), network(), quantization.DeQuantStub()
    ),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_models_are_cut_through_the_wrapper(name: str) -> None:
    assert_prunes_exactly(WRAPPED[name]().eval(), X, free=14)


def test_a_copy_of_a_module_compiled_in_place_does_not_run_the_original() -> None:
    model = compiled_in_place().eval()
    graph = capture(model, X)
    small = apply(model, graph.plan(next(masks(graph))))
    with torch.no_grad():
        small[4].bias.fill_(7.0)
        small[4].weight.zero_()
        assert torch.equal(small(X), torch.full((2, 2, 6, 8), 7.0))


def test_a_capture_does_not_compile() -> None:
    compiled: list[Any] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        compiled.append(inputs)
        return graph.forward

    capture(torch.compile(network(), backend=backend), X)
    assert not compiled


def test_a_distributed_model_is_refused_with_the_way_out(tmp_path: Any) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        model = nn.parallel.DistributedDataParallel(network())
        with pytest.raises(ModelError, match=r"capture model\.module, and wrap the pruned model anew"):
            capture(model, X)
        assert capture(model.module, X).n_units == 14
        del model  # holds the group, see `one_process` in test_after_surgery
    finally:
        torch.distributed.destroy_process_group()


def test_a_lazy_model_is_refused_until_it_has_run() -> None:
    model = nn.Sequential(nn.LazyConv2d(8, 1), nn.ReLU(), nn.LazyConv2d(2, 1))
    with pytest.raises(ModelError, match="lazy"):
        capture(model, X)
    model(X)
    assert_prunes_exactly(model, X, free=8)


def calibrating() -> nn.Module:
    model = nn.Sequential(quantization.QuantStub(), network(), quantization.DeQuantStub()).eval()
    model.qconfig = quantization.get_default_qconfig("fbgemm")
    return quantization.prepare(model)


def aware() -> nn.Module:
    model = nn.Sequential(quantization.QuantStub(), network(), quantization.DeQuantStub()).train()
    model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    return quantization.prepare_qat(model)


@pytest.mark.parametrize(
    "make",
    [calibrating, aware, lambda: network(None, nn.Sequential(conv(8, 6), quantization.FakeQuantize()))],
)
def test_a_model_prepared_for_quantisation_is_refused_with_the_way_out(make: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = make()
    with pytest.raises(ModelError, match="Prune the floating-point model first"):
        capture(model, X)


# -- sharing -------------------------------------------------------------------------------------


def test_a_module_called_several_times_and_under_two_names() -> None:
    shared = conv(8, 8)
    model = Net(
        lambda m, x: m.head(torch.relu(m.again(m.once(torch.relu(m.once(m.stem(x))))))),
        stem=conv(3, 8),
        once=shared,
        again=shared,
        head=conv(8, 2),
    )
    graph = assert_prunes_exactly(model, X, free=8)
    small = apply(model, graph.plan(next(masks(graph))))
    assert small.once is small.again


def test_containers_of_modules() -> None:
    class Routed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stems = nn.ModuleDict({"image": conv(3, 8), "mask": conv(1, 8)})
            self.blocks = nn.ModuleList(nn.ModuleList([conv(8, 6), conv(6, 8)]) for _ in range(2))
            self.scales = nn.ParameterList(nn.Parameter(torch.randn(8, 1, 1)) for _ in range(2))
            self.shifts = nn.ParameterDict({"last": nn.Parameter(torch.randn(8, 1, 1))})
            self.head = conv(8, 2)

        def forward(self, x: dict[str, Tensor]) -> Tensor:
            y = sum(self.stems[name](value) for name, value in x.items())
            for (up, down), scale in zip(self.blocks, self.scales, strict=True):
                y = y + scale * down(torch.relu(up(y)))
            return self.head(y + self.shifts["last"])

    # 8 of the stream, 6 in each block
    assert_prunes_exactly(Routed(), {"image": X, "mask": X[:, :1]}, free=20)


def test_frozen_parameters_are_cut_and_stay_frozen() -> None:
    model = network()
    model[0].requires_grad_(False)
    graph = assert_prunes_exactly(model, X, free=14)
    small = apply(model, graph.plan(next(masks(graph))))
    assert [p.requires_grad for p in small.parameters()] == [p.requires_grad for p in model.parameters()]


# -- buffers that a forward updates --------------------------------------------------------------


class Remembering(nn.Module):
    """A moving mean of the features, a counter, a cache of the last ones, and a norm that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.head = conv(3, 8), nn.BatchNorm2d(8), conv(8, 2)
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("cache", None)
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.stem(x)))
        self.mean.lerp_(y.detach().mean((0, 2, 3)), 0.1)
        self.count += 1
        self.cache = y.detach()[:1]
        self.last = y.detach().mean()
        return self.head(y - self.mean[:, None, None] + self.cache)


def test_buffers_updated_in_forward_are_cut_and_the_model_is_as_it_was() -> None:
    model = Remembering().eval()
    # A training step would leave a buffer that the model does not have.
    graph = assert_prunes_exactly(model, X, free=8, second_batch=False)
    assert model.count == 0 and model.cache is None and model.last is None
    small = apply(model, graph.plan(next(masks(graph)))).train()
    small(X)
    assert small.mean.shape == (small.stem.out_channels,)
    assert small.count == small.norm.num_batches_tracked == 1
    assert small.cache.shape[1] == small.stem.out_channels


def test_functional_dropout_and_norms() -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = F.batch_norm(m.stem(x), m.mean, m.var, m.scale, training=m.training)
        return m.head(F.dropout2d(F.dropout(y, 0.3, m.training), 0.2, m.training))

    model = Net(
        forward,
        stem=conv(3, 8),
        head=conv(8, 2),
        mean=torch.randn(8),
        var=torch.rand(8),
        scale=nn.Parameter(torch.randn(8)),
    )
    assert_prunes_exactly(model, X, free=8)
