"""Taylor and Fisher against hand-taken gradients and the loss itself."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.errors import InputError, ScoreError
from compressor.observing import batch_of
from compressor.scoring import Fisher, Norm, Taylor, score

Data = list[tuple[Tensor, Tensor]]


@pytest.fixture
def images() -> Data:
    return [(torch.randn(4, 3, 6, 6), torch.randint(0, 4, (4,))) for _ in range(3)]


@pytest.fixture
def points() -> Data:
    return [(torch.randn(5, 3), torch.randn(5, 2)) for _ in range(3)]


def products(graph: Graph, batch: tuple[Tensor, Tensor], loss: Any) -> dict[str, Tensor]:
    """Products gradient · weight by plain backward, in eval mode, for every parameter."""
    graph.model.zero_grad()
    loss(graph.model(batch[0]), batch[1]).backward()
    found = {
        name: (p.grad * p).detach().double()
        for name, p in graph.model.named_parameters()
        if p.grad is not None
    }
    graph.model.zero_grad()
    return found


def reading_sums(graph: Graph, found: dict[str, Tensor]) -> np.ndarray:
    """For each unit the sum of products over every weight that reads it, in a naive loop."""
    sums = np.zeros(graph.n_units)
    for axis in graph.axes:
        if axis.role == "reader" and axis.tensor.endswith("weight") and axis.blocks == 1:
            for channel, unit in enumerate(axis.units.tolist()):
                if unit >= 0:
                    sums[unit] += found[axis.tensor].select(axis.axis, channel).sum().item()
    return sums


# -- the formulas --------------------------------------------------------------------------------


def test_taylor_is_the_mean_over_batches_of_the_reading_sums(residual: Graph, images: Data) -> None:
    each = [reading_sums(residual, products(residual, b, cross_entropy)) for b in images]
    expected = np.abs(each).mean(axis=0)
    found = score(residual, Taylor(images, cross_entropy)).values
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * expected.max())


def test_fisher_is_half_the_mean_square_of_the_reading_sums(residual: Graph, images: Data) -> None:
    each = [reading_sums(residual, products(residual, b, cross_entropy)) for b in images]
    expected = np.square(each).mean(axis=0) / 2
    found = score(residual, Fisher(images, cross_entropy)).values
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * expected.max())


def test_taylor_predicts_the_loss_of_shrinking_a_unit(residual: Graph, images: Data) -> None:
    """The derivative of the loss by a factor on the readers of one unit, taken from the loss."""
    model, (inputs, targets) = residual.model.double(), images[0]
    inputs, step = inputs.double(), 1e-6
    found = score(residual, Taylor([(inputs, targets)], cross_entropy)).values
    readers = [a for a in residual.axes if a.role == "reader" and (a.units >= 0).any()]
    for unit in range(residual.n_units):
        losses = []
        for factor in (1 + step, 1 - step):
            weights = {name: p.detach().clone() for name, p in model.named_parameters()}
            for axis in readers:
                for channel in np.flatnonzero(axis.units == unit):
                    weights[axis.tensor].select(axis.axis, int(channel)).mul_(factor)
            output = torch.func.functional_call(model, weights, (inputs,))
            losses.append(cross_entropy(output, targets).item())
        slope = abs(losses[0] - losses[1]) / (2 * step)
        assert found[unit] == pytest.approx(slope, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("kind", [Taylor, Fisher])
def test_writers_and_readers_tell_the_same_where_nothing_lies_between(
    chain: Graph, points: Data, kind: Any
) -> None:
    """Euler: y = relu(w·x) has w ∂y/∂w = y, so a unit's change of the loss shows on either side."""
    readers = score(chain, kind(points, mse_loss, roles="reader")).values
    writers = score(chain, kind(points, mse_loss, roles="writer")).values
    np.testing.assert_allclose(readers, writers, rtol=1e-4)


def test_joint_says_where_the_sign_is_lost(chain: Graph, points: Data) -> None:
    found = products(chain, points[0], mse_loss)["2.weight"]
    one = points[:1]
    for joint, expected in (
        ("unit", found.sum(0).abs()),
        ("slice", found.sum(0).abs()),
        ("weight", found.abs().sum(0)),
    ):
        values = score(chain, Taylor(one, mse_loss, joint=joint)).values  # type: ignore[arg-type]
        np.testing.assert_allclose(values, expected.numpy(), rtol=1e-5)
    squares = score(chain, Fisher(one, mse_loss, joint="weight")).values
    np.testing.assert_allclose(squares, found.square().sum(0).numpy() / 2, rtol=1e-5)


def test_slices_are_combined_by_reduce_and_units_before(residual: Graph, images: Data) -> None:
    """The stream is read by two layers whose changes may cancel: |a + b| against |a| + |b|."""
    found = products(residual, images[0], cross_entropy)
    a = found["inner.weight"].sum((0, 2, 3))
    b = found["last.weight"].sum((0, 2, 3))
    units = next(x.units for x in residual.axes if (x.tensor, x.axis) == ("stem.weight", 0))
    one = images[:1]
    for joint, expected in (("unit", (a + b).abs()), ("slice", a.abs() + b.abs())):
        values = score(residual, Taylor(one, cross_entropy, joint=joint)).values[units]  # type: ignore[arg-type]
        np.testing.assert_allclose(values, expected.numpy(), rtol=1e-3, atol=1e-6)
    assert not torch.allclose((a + b).abs(), a.abs() + b.abs())


def test_fisher_of_single_examples_is_the_papers(chain: Graph, points: Data) -> None:
    inputs, targets = points[0]
    single = [(inputs[i : i + 1], targets[i : i + 1]) for i in range(5)]
    hidden = torch.relu(inputs @ chain.model[0].weight.T).detach()  # type: ignore[index]
    head = chain.model[2]  # type: ignore[index]
    expected = np.zeros(5)
    for a, target in zip(hidden, targets, strict=True):
        gates = torch.ones(5, requires_grad=True)
        loss = mse_loss(head(gates * a)[None], target[None])
        expected += torch.autograd.grad(loss, gates)[0].square().numpy() / (2 * 5)
    np.testing.assert_allclose(score(chain, Fisher(single, mse_loss)).values, expected, rtol=1e-4)


def test_site_scores_of_whole_units_are_the_units(residual: Graph, images: Data) -> None:
    scorer = Taylor(images, cross_entropy)
    values, sites = score(residual, scorer).values, scorer.site_scores(residual)
    units = next(a.units for a in residual.axes if (a.tensor, a.axis) == ("last.weight", 1))
    np.testing.assert_array_equal(sites["last.weight", 1].numpy(), values[units])


# -- the model and the data ------------------------------------------------------------------------


def test_frozen_and_training_models_are_scored_like_others(residual: Graph, images: Data) -> None:
    expected = score(residual, Taylor(images, cross_entropy)).values
    residual.model.train().requires_grad_(False)
    found = score(residual, Taylor(images, cross_entropy)).values
    np.testing.assert_array_equal(found, expected)
    assert residual.model.training and not any(p.requires_grad for p in residual.model.parameters())


def test_scoring_works_without_gradients_around_it(chain: Graph, points: Data) -> None:
    expected = score(chain, Taylor(points, mse_loss)).values
    with torch.no_grad():
        np.testing.assert_array_equal(score(chain, Taylor(points, mse_loss)).values, expected)
    with torch.inference_mode():
        np.testing.assert_array_equal(score(chain, Taylor(points, mse_loss)).values, expected)


class Counting(nn.Module):
    """A forward that draws random numbers, counts its calls, assigns a new buffer and keeps what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("last", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        hidden = torch.relu(self.first(x))
        self.last = hidden.mean(0)
        self.seen = x
        return self.second(hidden) + 0 * torch.rand(1)


def test_what_the_forward_writes_and_the_random_state_are_restored(points: Data) -> None:
    model = Counting()
    graph = capture(model, torch.ones(1, 3))
    calls, last = model.calls, model.last
    values, state = (calls.clone(), last.clone()), torch.get_rng_state()
    score(graph, Taylor(points, mse_loss))
    assert model.calls is calls and model.last is last and not hasattr(model, "seen")
    assert torch.equal(calls, values[0]) and torch.equal(last, values[1])
    assert torch.equal(torch.get_rng_state(), state)


def test_the_model_is_restored_after_an_error(residual: Graph, images: Data) -> None:
    residual.model.train()
    parameter = residual.model.get_parameter("stem.weight").requires_grad_(False)
    before = {name: b.clone() for name, b in residual.model.named_buffers()}

    def broken(output: Tensor, target: Tensor) -> Tensor:
        raise RuntimeError("the loss failed")

    with pytest.raises(InputError, match="RuntimeError: the loss failed"):
        score(residual, Taylor(images, broken))
    assert residual.model.training and not parameter.requires_grad
    for name, buffer in residual.model.named_buffers():
        assert torch.equal(buffer, before[name])


def test_recurrent_layers_are_scored() -> None:
    class Tagger(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.lstm = nn.Linear(3, 6), nn.LSTM(6, 5, batch_first=True)
            self.head = nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(self.embed(x))[0][:, -1])

    graph = capture(Tagger(), torch.ones(1, 4, 3))
    data = [(torch.randn(2, 4, 3), torch.tensor([0, 1]))]
    found = score(graph, Taylor(data, cross_entropy)).values
    units = next(a.units for a in graph.axes if (a.tensor, a.axis) == ("embed.weight", 0))
    expected = products(graph, data[0], cross_entropy)["lstm.weight_ih_l0"].sum(0).abs()
    np.testing.assert_allclose(found[units], expected.numpy(), rtol=1e-4, atol=1e-8)


def test_batches_are_streamed_one_by_one_and_progress_is_told(chain: Graph, points: Data) -> None:
    events: list[str] = []

    def stream() -> Any:
        for number, batch in enumerate(points):
            events.append(f"read {number}")
            yield batch

    scorer = Taylor(stream(), mse_loss, progress=lambda n: events.append(f"done {n}"))
    score(chain, scorer)
    assert events == ["read 0", "done 1", "read 1", "done 2", "read 2", "done 3"]


def test_max_batches_stops_an_endless_stream(chain: Graph, points: Data) -> None:
    def endless() -> Any:
        while True:
            yield from points

    found = score(chain, Taylor(endless(), mse_loss, max_batches=3)).values
    np.testing.assert_allclose(found, score(chain, Taylor(points, mse_loss)).values)


def test_mixed_precision_is_close_to_full(residual: Graph, images: Data) -> None:
    full = score(residual, Taylor(images, cross_entropy)).values
    mixed = score(residual, Taylor(images, cross_entropy, autocast=torch.bfloat16)).values
    assert not np.array_equal(full, mixed)
    assert np.corrcoef(full, mixed)[0, 1] > 0.99


Pair = namedtuple("Pair", ["left", "right"])


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.head(torch.relu(self.mix(a + b)))


def test_every_shape_of_batch_is_read_the_same() -> None:
    a, b, y = torch.randn(4, 3), torch.randn(4, 3), torch.randn(4, 2)
    graph = capture(TwoInputs(), a, b)
    expected = score(graph, Taylor([(a, b, y)], mse_loss)).values
    for item in (((a, b), y), ([a, b], y), ({"a": a, "b": b}, y), [(a, b), y], (Pair(a, b), y)):
        np.testing.assert_array_equal(score(graph, Taylor([item], mse_loss)).values, expected)

    def mapped(output: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return mse_loss(output, y) + 0 * batch["a"].sum()

    found = score(graph, Taylor([{"a": a, "b": b}], mapped)).values
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_bare_tensor_is_its_own_target() -> None:
    x = torch.ones(2)
    for item in (x, (x,), [x]):
        batch = batch_of(item)
        assert batch.args == (x,) and batch.target is x


def test_a_data_loader_may_shuffle() -> None:
    net = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))
    graph = capture(net, torch.ones(1, 3))
    data = torch.utils.data.TensorDataset(torch.randn(10, 3), torch.randn(10, 2))
    loader = torch.utils.data.DataLoader(data, batch_size=3, shuffle=True)
    scorer = Taylor(loader, mse_loss)
    # The random state is put back, so the second pass shuffles the same way.
    np.testing.assert_array_equal(score(graph, scorer).values, score(graph, scorer).values)


# -- errors ----------------------------------------------------------------------------------------


def test_no_batches_is_an_input_error(chain: Graph) -> None:
    with pytest.raises(InputError, match="batches gave no batch, expected at least one; is the data"):
        score(chain, Taylor([], mse_loss))


def test_a_generator_used_up_by_an_earlier_round_is_explained(chain: Graph, points: Data) -> None:
    scorer = Fisher(iter(points), mse_loss)
    score(chain, scorer)
    with pytest.raises(InputError) as error:
        score(chain, scorer)
    assert str(error.value) == (
        "batches gave no batch, expected at least one; a list_iterator can be run through only "
        "once and may be used up; where it is needed again, as in an iterative schedule, pass a "
        "list or a DataLoader"
    )


@pytest.mark.parametrize(
    ("loss", "kind", "said"),
    [
        (
            lambda o, t: (o - t) ** 2,
            InputError,
            "expected one number as a tensor, got shape [5, 2]",
        ),
        (lambda o, t: 3.0, InputError, "expected one number as a tensor, got float"),
        (lambda o, t: (o.detach() - t).sum(), InputError, "got one without gradient"),
        (
            lambda o, t: mse_loss(o, t) / 0,
            ScoreError,
            "the loss of batch 0: expected a finite number",
        ),
    ],
)
def test_a_loss_that_cannot_be_used_is_explained(
    chain: Graph, points: Data, loss: Any, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind) as error:
        score(chain, Taylor(points, loss))
    assert said in str(error.value)


def test_a_gradient_that_is_not_finite_names_the_tensor(chain: Graph, points: Data) -> None:
    def edge(output: Tensor, target: Tensor) -> Tensor:
        return (output * 0).abs().sum().sqrt()  # √0 has an infinite slope, times zero

    with pytest.raises(ScoreError, match=r"'2.weight' axis 1: expected finite scores, got nan"):
        score(chain, Taylor(points, edge))


def test_a_part_without_gradient_is_named_and_not_scored_zero(points: Data) -> None:
    class Backbone(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                x = torch.relu(self.b(torch.relu(self.a(x))))
            return self.head(x)

    graph = capture(Backbone(), torch.ones(1, 3))
    with pytest.raises(ScoreError) as error:
        score(graph, Taylor(points, mse_loss))
    text = str(error.value)
    assert "no gradient reached 'b.weight' in 3 batches (1 tensors in all)" in text
    assert "torch.no_grad()" in text and "Norm()" in text


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (([], "mse"), {}, "Taylor: loss must be a function of (output, target)"),
        (([], mse_loss), {"max_batches": 0}, "Taylor: max_batches must be at least 1, got 0"),
        (([], mse_loss), {"joint": "all"}, "joint must be one of 'unit', 'slice', 'weight'"),
    ],
)
def test_options_are_checked_when_they_are_given(arguments: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        Taylor(*arguments, **options)
    assert said in str(error.value)


def test_batches_that_cannot_be_iterated_are_explained(chain: Graph) -> None:
    with pytest.raises(InputError, match=r"batches must be iterable .* got int; one batch goes into"):
        score(chain, Taylor(3, mse_loss))  # type: ignore[arg-type]


def test_an_empty_batch_is_explained(chain: Graph) -> None:
    with pytest.raises(InputError, match="a batch is empty"):
        score(chain, Taylor([()], mse_loss))


def test_a_batch_without_an_example_is_named(chain: Graph) -> None:
    batches = [(torch.ones(2, 3), torch.ones(2, 2)), (torch.ones(0, 3), torch.ones(0, 2))]
    with pytest.raises(ScoreError, match=r"the loss of batch 1: .* or for a batch without an example"):
        score(chain, Taylor(batches, mse_loss))


def test_norm_and_taylor_disagree_on_a_channel_nobody_needs(chain: Graph, points: Data) -> None:
    """Large weights behind a dead ReLU: magnitude keeps it, the loss does not miss it."""
    with torch.no_grad():
        chain.model.get_parameter("0.weight")[2] = 0.0
        chain.model.get_parameter("2.weight")[:, 2] = 100.0
    assert score(chain, Taylor(points, mse_loss)).values.argmin() == 2
    assert score(chain, Norm()).values.argmax() == 2


def test_a_batch_that_the_model_or_the_loss_cannot_take_is_named(chain: Graph, points: Data) -> None:
    (x, _), *_ = points
    with pytest.raises(InputError, match=r"cannot run on a batch that gives it torch.float32 \[.*, 2\]"):
        score(chain, Taylor([(x[:, :2], x)], mse_loss))
    labels = torch.full((len(x),), 7)
    with pytest.raises(InputError, match="the loss of batch 0 cannot be computed: IndexError: Target 7"):
        score(chain, Taylor([(x, labels)], cross_entropy))
