"""Beta-Rank on whole models, against loops over recorded activations and closed forms."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import compressor as cp
from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.errors import InputError, ScoreError
from compressor.scoring import BetaRank, Norm, score

Data = list[tuple[Tensor, Tensor]]


@pytest.fixture
def images() -> Data:
    return [(torch.randn(n, 3, 6, 6), torch.randint(0, 4, (n,))) for n in (4, 7, 1)]


class Plain(nn.Module):
    """Two layers whose activations are easily taken by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1, stride=2)
        self.second = nn.Conv2d(6, 8, 3, groups=2, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return self.head(torch.relu(self.second(x)).mean((2, 3)))


@pytest.fixture
def plain() -> Graph:
    return capture(Plain().eval(), torch.randn(2, 3, 6, 6))


def by_hand(layer: nn.Conv2d, inputs: Tensor, outputs: Tensor, weights: Tensor) -> np.ndarray:
    """Mean |W| · mean_p σ_out / σ_in, each σ from lists of values with these weights of the samples."""
    x, y = (t.detach().double().numpy() for t in (nn.functional.pad(inputs, (1, 1, 1, 1)), outputs))
    stride, per_group = layer.stride[0], x.shape[1] // layer.groups
    w = weights.double().numpy() / weights.sum().item()

    def spread(values: np.ndarray) -> float:
        """The σ of [N, …] whose samples weigh w."""
        each = np.repeat(w[:, None], values[0].size, 1) / values[0].size
        flat = values.reshape(len(values), -1)
        mean = (each * flat).sum()
        return float(np.sqrt((each * (flat - mean) ** 2).sum()))

    scores = []
    for o in range(y.shape[1]):
        start = o // (y.shape[1] // layer.groups) * per_group
        ratios = []
        for p, q in np.ndindex(y.shape[2:]):
            rows, columns = (slice(i * stride, i * stride + 3) for i in (p, q))
            read = x[:, start : start + per_group, rows, columns]
            ratios.append(spread(y[:, o, p, q]) / spread(read))
        scores.append(np.abs(layer.weight[o].detach().numpy()).mean() * np.mean(ratios))
    return np.array(scores)


def of_both_layers(graph: Graph, inputs: Tensor, weights: Tensor) -> dict[str, np.ndarray]:
    model: Any = graph.model
    with torch.no_grad():
        middle = model.first(inputs)
        last = model.second(middle.relu())
        return {
            "first.weight": by_hand(model.first, inputs, middle, weights),
            "second.weight": by_hand(model.second, middle.relu(), last, weights),
        }


def test_scores_are_the_formula_over_all_samples(plain: Graph, images: Data) -> None:
    inputs = torch.cat([x for x, _ in images])
    expected = of_both_layers(plain, inputs, torch.ones(len(inputs)))
    raw = BetaRank(images).layer_scores(plain)
    assert sorted(name for name, _ in raw) == sorted(expected)
    for (name, _), values in raw.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-4)


def test_balanced_scores_weigh_each_class_alike(plain: Graph) -> None:
    labels = torch.tensor([0] * 9 + [2] * 2 + [1] * 1)
    inputs = torch.randn(12, 3, 6, 6) + labels[:, None, None, None]
    order = torch.randperm(12)
    data = [(inputs[part], labels[part]) for part in order.split(5)]
    weights = torch.tensor([1 / 9] * 9 + [1 / 2] * 2 + [1.0])
    expected = of_both_layers(plain, inputs, weights)
    for n_classes in (None, 3):
        raw = BetaRank(data, balanced=True, n_classes=n_classes).layer_scores(plain)
        for (name, _), values in raw.items():
            np.testing.assert_allclose(values, expected[name], rtol=1e-4)
    different = BetaRank(data).layer_scores(plain)
    assert not np.allclose(different["first.weight", 0], expected["first.weight"], rtol=1e-2)


def test_equally_large_classes_are_balanced_already(residual: Graph) -> None:
    data = [(torch.randn(8, 3, 6, 6), torch.arange(8) % 4)]
    balanced = score(residual, BetaRank(data, balanced=True)).values
    np.testing.assert_allclose(balanced, score(residual, BetaRank(data)).values, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"positions": "pool"}, {"balanced": True}, {"published": True}])
def test_neither_the_order_nor_the_size_of_batches_matters(
    residual: Graph, images: Data, options: dict[str, Any]
) -> None:
    if "published" in options:
        options = {"published": True, "otherwise": Norm()}
    expected = score(residual, BetaRank(images, **options)).values
    turned = score(residual, BetaRank(images[::-1], **options)).values
    np.testing.assert_allclose(turned, expected, rtol=1e-5, atol=1e-7)
    whole = [(torch.cat([x for x, _ in images]), torch.cat([y for _, y in images]))]
    np.testing.assert_allclose(
        score(residual, BetaRank(whole, **options)).values, expected, rtol=1e-4, atol=1e-6
    )


def test_pooled_positions_take_one_spread_over_all(plain: Graph, images: Data) -> None:
    model: Any = plain.model
    inputs = torch.cat([x for x, _ in images])
    raw = BetaRank(images, positions="pool").layer_scores(plain)
    with torch.no_grad():
        written = model.first(inputs).double()
    read = nn.functional.unfold(inputs, 3, padding=1, stride=2).double()
    sigma_out, sigma_in = written.std((0, 2, 3), correction=0), read.std(correction=0)
    expected = model.first.weight.detach().abs().mean((1, 2, 3)).double() * sigma_out / sigma_in
    np.testing.assert_allclose(raw["first.weight", 0], expected, rtol=1e-5)


def test_pooled_positions_take_images_of_any_size(plain: Graph) -> None:
    sizes = [torch.randn(3, 3, 6, 6), torch.randn(2, 3, 8, 10)]
    assert score(plain, BetaRank(sizes, positions="pool")).values.shape == (plain.n_units,)
    with pytest.raises(ScoreError, match=r"'first.weight' read .*8, 10.* one size.*positions='pool'"):
        score(plain, BetaRank(sizes))


def test_the_directions_rank_by_inverse_ratios(plain: Graph, images: Data) -> None:
    code = BetaRank(images, positions="pool").layer_scores(plain)["first.weight", 0]
    paper = BetaRank(images, positions="pool", direction="paper").layer_scores(plain)["first.weight", 0]
    sizes = plain.model.get_parameter("first.weight").detach().abs().double().mean((1, 2, 3))
    np.testing.assert_allclose(code * paper, sizes.square(), rtol=1e-5)


def test_a_transposed_filter_is_a_column_of_its_group(images: Data) -> None:
    net = nn.Sequential(nn.ConvTranspose2d(4, 6, 3, groups=2, stride=2), nn.ReLU(), nn.Conv2d(6, 1, 1))
    graph = capture(net.eval(), torch.randn(2, 4, 3, 3))
    data = [torch.randn(8, 4, 3, 3)]
    raw = BetaRank(data, positions="pool").layer_scores(graph)["0.weight", 1]
    with torch.no_grad():
        net[0].weight[2:, 1] *= 3  # output channel 3 + 1 of the second group
        net[0].bias.zero_()
    more = BetaRank(data, positions="pool").layer_scores(graph)["0.weight", 1]
    factors = more / raw
    np.testing.assert_allclose(factors, [1, 1, 1, 1, 9, 1], rtol=1e-4)


def test_a_unit_is_scored_by_all_layers_that_write_it(residual: Graph, images: Data) -> None:
    scorer = BetaRank(images, normalize="none")
    sites, values = scorer.site_scores(residual), score(residual, scorer).values
    stem, outer = sites["stem.weight", 0], sites["outer.weight", 0]
    assert float(stem.mean()) == pytest.approx(1) and float(outer.mean()) == pytest.approx(1)
    units = next(axis.units for axis in residual.axes if axis.tensor == "stem.weight" and axis.axis == 0)
    np.testing.assert_allclose(values[units], (stem + outer) / 2)


def test_groups_have_the_same_mean_by_default(residual: Graph, images: Data) -> None:
    values = score(residual, BetaRank(images)).values
    for group in residual.groups:
        assert values[np.concatenate(group.cells)].mean() == pytest.approx(1)


def test_scores_do_not_depend_on_the_scale_of_the_data(plain: Graph, images: Data) -> None:
    with torch.no_grad():
        for name in ("first", "second"):
            plain.model.get_parameter(f"{name}.bias").zero_()
    scaled = [(100 * x, y) for x, y in images]
    expected = score(plain, BetaRank(images)).values
    np.testing.assert_allclose(score(plain, BetaRank(scaled)).values, expected, rtol=1e-4)


def test_layers_that_read_one_tensor_share_its_moments_and_get_their_own(images: Data) -> None:
    class Side(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 4, 3, padding=1)
            self.b = nn.Conv2d(3, 4, 1)
            self.head = nn.Conv2d(8, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            a = self.a(x)
            x = x.clone()
            b = self.b(x.mul_(2))
            return self.head(torch.cat([torch.relu(a), torch.relu(b)], 1))

    class InPlace(Side):
        def forward(self, x: Tensor) -> Tensor:
            x = x * 1.0
            a = self.a(x)
            b = self.b(x.mul_(2))  # the same tensor, with other contents
            return self.head(torch.cat([torch.relu(a), torch.relu(b)], 1))

    net, other = Side().eval(), InPlace().eval()
    other.load_state_dict(net.state_dict())
    raw = [BetaRank(images).layer_scores(capture(n, images[0][0])) for n in (net, other)]
    for key in raw[0]:
        np.testing.assert_allclose(raw[0][key], raw[1][key], rtol=1e-6)


def test_a_layer_that_runs_twice_has_seen_twice_the_samples(images: Data) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared = nn.Linear(4, 6)
            self.head = nn.Linear(6, 1)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.head(torch.relu(self.shared(a)) + torch.relu(self.shared(b)))

    a, b = torch.randn(9, 4), torch.randn(9, 4) + 2
    twice = Twice().eval()
    once = nn.Sequential(twice.shared, nn.ReLU(), twice.head)
    both = BetaRank([(a, b, torch.zeros(9))]).layer_scores(capture(twice, a, b))
    joined = BetaRank([torch.cat([a, b])]).layer_scores(capture(once, a))
    np.testing.assert_allclose(both["shared.weight", 0], joined["0.weight", 0], rtol=1e-5)


# -- what cannot be scored -------------------------------------------------------------------------


def test_dead_positions_count_nothing_and_harm_nothing(plain: Graph, images: Data) -> None:
    """A border that is black in every image."""
    for x, _ in images:
        x[:, :, :3] = 0
    values = score(plain, BetaRank(images)).values
    assert np.isfinite(values).all() and values.min() > 0
    for direction in ("code", "paper"):
        assert np.isfinite(score(plain, BetaRank(images, direction=direction)).values).all()


def test_a_layer_without_any_variation_scores_zero_and_says_so(
    plain: Graph, images: Data, caplog: pytest.LogCaptureFixture
) -> None:
    with torch.no_grad():
        plain.model.get_parameter("first.bias").fill_(-1e3)  # the ReLU behind is silent
    with caplog.at_level(logging.WARNING):
        raw = BetaRank(images).layer_scores(plain)
    assert not raw["second.weight", 0].any() and raw["first.weight", 0].min() > 0
    assert "second.weight: nothing that it reads varies" in caplog.text
    assert np.isfinite(score(plain, BetaRank(images)).values).all()


@pytest.mark.parametrize("direction", ["code", "paper"])
def test_samples_that_are_all_the_same_are_refused(plain: Graph, images: Data, direction: Any) -> None:
    same = images[0][0][:1].expand(8, -1, -1, -1)
    with pytest.raises(ScoreError, match=r"nothing that the model's 2 layers write varies .* the same"):
        score(plain, BetaRank([same, same], direction=direction))


def test_an_empty_batch_adds_nothing(plain: Graph, images: Data) -> None:
    expected = score(plain, BetaRank(images)).values
    empty = (torch.empty(0, 3, 6, 6), torch.empty(0, dtype=torch.int64))
    np.testing.assert_array_equal(score(plain, BetaRank([empty, *images])).values, expected)


def test_a_filter_of_zeros_scores_zero_in_both_directions(plain: Graph, images: Data) -> None:
    with torch.no_grad():
        plain.model.get_parameter("first.weight")[2] = 0
    for direction in ("code", "paper"):
        raw = BetaRank(images, direction=direction).layer_scores(plain)["first.weight", 0]
        assert raw[2] == 0 and raw.count_nonzero() == 5


def test_one_filter_and_batches_of_one_are_scored(images: Data) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Conv2d(2, 4, 3, groups=2), nn.ReLU(), nn.Conv2d(4, 1, 1)
    )
    graph = capture(net.eval(), images[0][0])
    singles = [(x[None], y[None]) for batch, labels in images for x, y in zip(batch, labels, strict=True)]
    expected = score(graph, BetaRank(images)).values
    np.testing.assert_allclose(score(graph, BetaRank(singles)).values, expected, rtol=1e-4)


def test_a_single_sample_is_refused(plain: Graph, images: Data) -> None:
    with pytest.raises(ScoreError, match=r"'first.weight' saw a single sample in all batches, expected two"):
        score(plain, BetaRank(images[-1:]))


@pytest.mark.parametrize(
    ("bad", "positions"), [(torch.nan, "mean"), (torch.inf, "mean"), (torch.nan, "pool")]
)
def test_activations_that_are_not_finite_name_the_layer(
    plain: Graph, images: Data, bad: float, positions: Any
) -> None:
    with torch.no_grad():
        plain.model.get_parameter("second.bias")[1] = bad
    with pytest.raises(ScoreError, match=r"'second.weight' writes is not finite at \d+ of \d+"):
        score(plain, BetaRank(images, positions=positions))
    images[0][0][0, 0, 0, 0] = bad
    with pytest.raises(ScoreError, match=r"'first.weight' reads is not finite"):
        score(plain, BetaRank(images, positions=positions))


def test_a_class_without_samples_is_named(plain: Graph, images: Data) -> None:
    data = [(torch.randn(4, 3, 6, 6), torch.tensor([0, 1, 1, 3]))]
    with pytest.raises(ScoreError, match=r"1 of 4 classes have no sample in the batches, class 2"):
        score(plain, BetaRank(data, balanced=True, n_classes=4))
    assert np.isfinite(score(plain, BetaRank(data, balanced=True)).values).all()


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (torch.tensor([0, 1, 2, 5]), "label 5 is out of range, expected classes 0 to 4"),
        (torch.tensor([0, 1, -100, 2]), "label -100 is out of range"),
        (torch.rand(4), "float32 of shape [4], expected one integer for each sample"),
        (torch.zeros(4, 1, dtype=torch.int64), "int64 of shape [4, 1], expected one integer"),
        (torch.ones(4, dtype=torch.bool), "bool of shape [4], expected one integer"),
        ("cats", "the targets of a batch are str"),
        (["cat"] * 4, "the targets of a batch are list"),
        (torch.tensor([0, 1, 2]), "'first.weight' has 4 samples in a batch with 3 labels"),
    ],
)
def test_labels_that_are_none_are_explained(plain: Graph, target: Any, said: str) -> None:
    with pytest.raises(ScoreError) as error:
        score(plain, BetaRank([(torch.randn(4, 3, 6, 6), target)], balanced=True, n_classes=5))
    assert said in str(error.value)
    assert np.isfinite(score(plain, BetaRank([(torch.randn(4, 3, 6, 6), target)])).values).all()


def test_labels_may_be_an_entry_of_the_batch() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2))

        def forward(self, x: Tensor, labels: Tensor) -> Tensor:
            return self.body(x)

    x, labels = torch.randn(9, 3), torch.arange(9) // 6
    net = Named().eval()
    graph = capture(net, x=x, labels=labels)
    named = BetaRank([{"x": x, "labels": labels}], balanced=True).layer_scores(graph)
    plain = BetaRank([(x, labels)], balanced=True).layer_scores(capture(net.body, x))
    np.testing.assert_allclose(named["body.0.weight", 0], plain["0.weight", 0])


def test_channels_that_no_measured_layer_writes_need_another_scorer() -> None:
    net = nn.Sequential(nn.Embedding(11, 6), nn.LayerNorm(6), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    words = torch.randint(0, 11, (8, 3))
    graph = capture(net.eval(), words)
    with pytest.raises(ScoreError, match=r"'0.weight'; expected one .* BetaRank\(otherwise=Norm\(\)\)"):
        score(graph, BetaRank([words]))
    values = score(graph, BetaRank([words], otherwise=Norm())).values
    norms = score(graph, Norm()).values
    units = next(axis.units for axis in graph.axes if axis.tensor == "0.weight" and axis.axis == 1)
    np.testing.assert_allclose(values[units], norms[units])
    hidden = next(axis.units for axis in graph.axes if axis.tensor == "2.weight" and axis.axis == 0)
    assert not np.allclose(values[hidden], norms[hidden])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"direction": "up"}, "direction must be one of 'code', 'paper'; got 'up'"),
        ({"positions": "max"}, "positions must be one of 'mean', 'pool'"),
        ({"max_batches": 0}, "max_batches must be at least 1, got 0"),
        ({"n_classes": 3}, "n_classes is the number of classes, at least 1, for balanced=True"),
        ({"balanced": True, "n_classes": 0}, "at least 1, for balanced=True; got 0"),
        ({"published": True, "balanced": True}, "published=True is the published code, which knows no"),
        ({"published": True, "positions": "pool"}, "leave out balanced and positions"),
        ({"otherwise": Norm}, "otherwise must be a Scorer"),
    ],
)
def test_options_are_checked_when_they_are_given(options: Any, said: str) -> None:
    with pytest.raises(InputError) as error:
        BetaRank([], **options)
    assert said in str(error.value)


@pytest.mark.parametrize("batches", [[], iter(())])
def test_no_batch_is_an_error(plain: Graph, batches: Any) -> None:
    with pytest.raises(InputError, match="batches gave no batch"):
        score(plain, BetaRank(batches))


def test_batches_are_counted_and_limited(plain: Graph, images: Data) -> None:
    seen: list[int] = []
    limited = score(plain, BetaRank(images, max_batches=2, progress=seen.append)).values
    assert seen == [1, 2]
    np.testing.assert_allclose(limited, score(plain, BetaRank(images[:2])).values)


def test_half_precision_gives_nearly_the_same(plain: Graph, images: Data) -> None:
    expected = score(plain, BetaRank(images)).values
    half = score(plain, BetaRank(images, autocast=torch.bfloat16)).values
    np.testing.assert_allclose(half, expected, rtol=0.05, atol=0.02)


def test_it_prunes_a_network_of_the_zoo() -> None:
    net = cp.models.create("resnet20_cifar").eval()
    data = [(torch.randn(8, 3, 16, 16), torch.arange(8) % 10)]
    small = cp.prune(net, data[0][0], scorer=BetaRank(data, balanced=True), budget=cp.budget.Macs(0.5))
    assert small(data[0][0]).shape == (8, 10)
