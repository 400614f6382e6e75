"""What `score` accepts, checks and says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.core.capture import capture
from compressor.core.graph import Graph
from compressor.errors import InputError, ScoreError
from compressor.scoring import (
    Norm,
    Normalize,
    Random,
    Reduce,
    Scorer,
    Scores,
    WeightFunction,
    score,
)


class Sites(Scorer):
    """Returns what it is given."""

    def __init__(self, sites: Any, **options: Any) -> None:
        super().__init__(**options)
        self.sites = sites

    def site_scores(self, graph: Graph) -> Any:
        return self.sites


def message(graph: Graph, scorer: Any) -> str:
    with pytest.raises(ScoreError) as error:
        score(graph, scorer)
    return str(error.value)


# -- the user's own ------------------------------------------------------------------------------


def test_a_subclass_with_one_method_is_a_scorer(chain: Graph) -> None:
    class Biggest(Scorer):
        def site_scores(self, graph: Graph) -> dict[tuple[str, int], Tensor]:
            weight = graph.model.get_parameter("0.weight")
            return {("0.weight", 0): weight.abs().amax(dim=1)}

    expected = chain.model.get_parameter("0.weight").detach().abs().amax(dim=1).double().numpy()
    np.testing.assert_allclose(score(chain, Biggest()).values, expected / expected.mean())
    np.testing.assert_allclose(score(chain, Biggest(normalize="none")).values, expected)


def test_a_subclass_may_set_its_own_defaults(chain: Graph) -> None:
    class Summed(Sites):
        reduce = "sum"
        normalize = "none"

    ones = {("0.weight", 0): torch.ones(5), ("2.weight", 1): torch.full((5,), 2.0)}
    assert score(chain, Summed(ones)).values.tolist() == [3.0] * 5
    assert score(chain, Summed(ones, reduce=Reduce.MAX)).values.tolist() == [2.0] * 5


def test_a_subclass_need_not_call_its_base(chain: Graph) -> None:
    class Own(Scorer):
        def __init__(self, factor: float) -> None:
            self.factor = factor
            self.normalize = Normalize.NONE

        def site_scores(self, graph: Graph) -> dict[tuple[str, int], Tensor]:
            return {("0.weight", 0): self.factor * torch.ones(5)}

    assert score(chain, Own(3.0)).values.tolist() == [3.0] * 5


def test_a_plain_function_scores_weights_on_both_sides(grouped: Graph) -> None:
    seen = []

    def largest(weight: Tensor, axis: int) -> Tensor:
        seen.append((tuple(weight.shape), axis))
        return weight.abs().transpose(0, axis).flatten(1).amax(dim=1)

    scores = score(grouped, largest)
    # The middle one reads six channels in three blocks: [9, 2, 3, 3] comes as [3, 6, 3, 3].
    assert sorted(seen) == sorted(
        [((6, 2, 1, 1), 0), ((9, 2, 3, 3), 0), ((3, 6, 3, 3), 1), ((2, 9, 1, 1), 1)]
    )
    np.testing.assert_allclose(scores.values, score(grouped, Norm(float("inf"))).values, rtol=1e-6)
    assert "WeightFunction(function=largest)" in repr(scores)


def test_a_function_that_works_in_place_does_not_reach_the_model(chain: Graph) -> None:
    before = {name: p.detach().clone() for name, p in chain.model.named_parameters()}
    score(chain, lambda weight, axis: weight.abs_().transpose(0, axis).sum(1))
    for name, parameter in chain.model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_pinned_channels_need_a_score_and_it_is_not_used(residual: Graph) -> None:
    """A pinned channel has a place in the vector; what stands there changes nothing."""
    plain = Norm().site_scores(residual)
    changed = {key: values.clone() for key, values in plain.items()}
    pinned = [axis for axis in residual.axes if axis.tensor == "head.weight" and axis.axis == 0]
    changed["head.weight", 0] = torch.full((4,), 1e9)
    assert (pinned[0].units == -1).all()
    np.testing.assert_array_equal(
        score(residual, Sites(plain)).values, score(residual, Sites(changed)).values
    )


# -- wrong answers -------------------------------------------------------------------------------


def test_a_vector_of_the_wrong_length_is_named(residual: Graph) -> None:
    sites = {**Norm().site_scores(residual), ("inner.weight", 0): torch.ones(5)}
    assert message(residual, Sites(sites)) == (
        "Sites(): 'inner.weight' axis 0: expected 6 scores, one for each channel (the tensor's "
        "shape is [6, 8, 3, 3]), got shape [5]; reduce over all axes but that one"
    )


def test_the_length_of_a_blocked_axis_is_explained(grouped: Graph) -> None:
    sites = {**Norm().site_scores(grouped), ("2.weight", 1): torch.ones(2)}
    text = message(grouped, Sites(sites))
    assert "'2.weight' axis 1: expected 6 scores" in text
    assert "counted over its 3 blocks (the tensor's shape is [9, 2, 3, 3])" in text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_not_finite_is_named(residual: Graph, value: float) -> None:
    sites = {key: values.clone() for key, values in Norm().site_scores(residual).items()}
    sites["outer.weight", 1][3] = value
    text = message(residual, Sites(sites))
    assert f"'outer.weight' axis 1: expected finite scores, got {value} for channel 3" in text
    assert "(1 of 6 are not finite); look for" in text


def test_units_without_a_score_are_named_with_the_axes_that_hold_them(residual: Graph) -> None:
    text = message(residual, Sites({("inner.weight", 0): torch.ones(6)}))
    assert "no score for 8 of the 8 units of group 'stem.weight'" in text
    assert "'stem.weight' axis 0" in text and "'last.weight' axis 1" in text


def test_no_scores_at_all_is_an_error(residual: Graph) -> None:
    assert "no score for 8 of the 8 units" in message(residual, Sites({}))


@pytest.mark.parametrize(
    ("sites", "said"),
    [
        ([torch.ones(6)], "returns a mapping from (tensor, axis) to a vector of scores, got list"),
        ({("iner.weight", 0): torch.ones(6)}, "is no axis of the graph; keys are (tensor, axis)"),
        ({("iner.weight", 0): torch.ones(6)}, "such as 'inner.weight'"),
        ({("bn1.weight", 1): torch.ones(6)}, "of that tensor it has 'bn1.weight' axis 0"),
        ({"inner.weight": torch.ones(6)}, "'inner.weight' is no axis of the graph"),
        ({("inner.weight", 0): [1.0] * 6}, "must be a tensor of real numbers, got list"),
        (
            {("inner.weight", 0): torch.ones(6, dtype=torch.complex64)},
            "must be a tensor of real numbers, got a torch.complex64 tensor",
        ),
    ],
)
def test_an_answer_of_the_wrong_kind_is_explained(residual: Graph, sites: Any, said: str) -> None:
    assert said in message(residual, Sites(sites))


def test_a_function_of_the_wrong_length_is_named(chain: Graph) -> None:
    text = message(chain, lambda weight, axis: weight.sum(axis))
    assert "'0.weight' axis 0: expected 5 scores" in text
    assert "got shape [3]" in text


@pytest.mark.parametrize(
    ("scorer", "said"),
    [
        (Norm, r"the scorer is the class Norm, expected an object of it: write Norm\("),
        ("norm", r"a scorer is a Scorer or a function of \(weight, axis\), got str"),
        (None, r"a scorer is a Scorer or a function of \(weight, axis\), got NoneType"),
    ],
)
def test_what_is_no_scorer_is_an_input_error(chain: Graph, scorer: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        score(chain, scorer)


def test_a_model_in_place_of_its_graph_is_an_input_error() -> None:
    with pytest.raises(InputError, match=r"needs a captured graph, got Linear: give it capture\("):
        score(nn.Linear(2, 2), Norm())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Norm(reduce="avg"),  # type: ignore[arg-type]
        lambda: Sites({}, reduce="avg"),
        lambda: WeightFunction(torch.sum, reduce="avg"),  # type: ignore[arg-type]
    ],
)
def test_a_misspelt_option_is_refused_when_it_is_given(make: Callable[[], Scorer]) -> None:
    with pytest.raises(InputError, match="reduce must be one of 'sum', 'mean', 'max', 'first'"):
        make()


# -- the value -----------------------------------------------------------------------------------


def test_scores_are_read_only_float64_and_their_own(chain: Graph) -> None:
    values = np.ones(5, dtype=np.float32)
    scores = Scores(chain, values, "by hand")  # type: ignore[arg-type]
    values[0] = 7
    assert scores.values.dtype == np.float64 and scores.values.tolist() == [1.0] * 5
    with pytest.raises(ValueError, match="read-only"):
        scores.values[0] = 2


def test_scores_of_the_wrong_number_are_refused(chain: Graph) -> None:
    with pytest.raises(ScoreError, match=r"Sequential has 5 units, got scores of shape \[4\]"):
        Scores(chain, np.ones(4), "by hand")


def test_scores_that_are_not_finite_name_the_group(residual: Graph) -> None:
    values = np.ones(residual.n_units)
    values[next(a.units for a in residual.axes if a.tensor == "inner.weight")[2]] = np.inf
    with pytest.raises(ScoreError, match=r"of group 'inner.weight' has the score inf \(1 of 21"):
        Scores(residual, values, "by hand")


def test_the_summary_has_a_row_for_each_group(residual: Graph) -> None:
    values = np.zeros(residual.n_units)
    units = next(a.units for a in residual.axes if a.tensor == "inner.weight")
    values[units] = [1, 2, 3, 4, 5, 6]
    lines = Scores(residual, values, "by hand").summary().splitlines()
    assert lines[0] == "Scores(by hand of ResidualNet: 21 units in 3 groups, 0 to 6)"
    assert len(lines) == 2 + 3
    assert [line.split() for line in lines if line.startswith("inner")] == [
        ["inner.weight", "6", "1", "3.5", "6"]
    ]


def test_a_graph_without_units_has_no_scores() -> None:
    graph = capture(nn.Linear(3, 2), torch.ones(1, 3))
    assert graph.n_units == 0
    for scorer in (Norm(), Random()):
        assert score(graph, scorer).values.shape == (0,)
    assert "0 units" in repr(score(graph, Norm())) and score(graph, Norm()).summary()


def test_tied_weights_are_scored_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Linear(3, 4, bias=False)
            self.a = nn.Linear(4, 4, bias=False)
            self.b = nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight
            self.down = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(torch.relu(self.b(torch.relu(self.a(torch.relu(self.up(x)))))))

    graph = capture(Tied(), torch.ones(1, 3))
    assert not any(tensor.startswith("b.") for tensor, _ in Norm().site_scores(graph))
    assert len(score(graph, Norm()).values) == graph.n_units == 4
