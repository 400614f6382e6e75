"""Whatever a forward takes and returns: keywords, nests, dataclasses, tokens, nothing at all."""

from __future__ import annotations

import importlib.util
from collections import OrderedDict, namedtuple
from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.core.capture import capture
from compressor.core.surgery import apply
from compressor.core.verify import verify
from tests.core.driver import Net, assert_prunes_exactly, masks

X = torch.randn(2, 3, 6, 6)


def conv(i: int, o: int) -> nn.Conv2d:
    return nn.Conv2d(i, o, 1)


def assert_prunes_with(model: nn.Module, *args: Any, free: int, **kwargs: Any) -> None:
    """As `assert_prunes_exactly`, for keyword inputs."""
    graph = capture(model.eval(), *args, **kwargs)
    assert graph.n_units == free
    for mask in masks(graph):
        plan = graph.plan(mask)
        assert verify(model, apply(model, plan), plan, *args, graph=graph, **kwargs).error < 1e-9


# -- inputs --------------------------------------------------------------------------------------


class Masked(nn.Module):
    """Optional mask, optional scale, a flag and a list."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.side, self.head = conv(3, 8), conv(1, 8), conv(8, 2)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        *,
        scales: list[Tensor] | None = None,
        extra: dict[str, Any] | None = None,
        double: bool = False,
    ) -> Tensor:
        y = torch.relu(self.stem(x))
        if mask is not None:
            y = y.masked_fill(mask[:, None], 0.0) + self.side(mask[:, None].to(y.dtype))
        for scale in scales or ():
            y = y * scale
        if extra is not None and extra["shift"] is not None:
            y = y + extra["shift"]["by"][0]
        return self.head(y) * (2 if double else 1)


MASK = torch.rand(2, 6, 6) > 0.5
SCALES = [torch.rand(2, 1, 6, 6), torch.rand(1)]


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"mask": MASK},
        {"mask": None, "double": True},
        {"scales": SCALES},
        {"extra": {"shift": {"by": (torch.rand(1),)}}, "mask": MASK},
        {"extra": {"shift": None, "name": "none"}},
    ],
    ids=lambda inputs: " ".join(inputs) or "none",
)
def test_optional_nested_keyword_inputs(inputs: dict[str, Any]) -> None:
    assert_prunes_with(Masked(), X, free=8, **inputs)


def test_an_input_that_varies_by_channel_pins_what_it_meets() -> None:
    graph = capture(Masked(), X, scales=[torch.rand(8, 1, 1)])
    assert graph.n_units == 0


Pair = namedtuple("Pair", "image scale")


@dataclass
class Batch:
    image: Tensor
    scale: Tensor | None = None


@pytest.mark.parametrize("kind", [Pair, Batch])
def test_structures_as_inputs(kind: Any) -> None:
    model = Net(
        lambda m, batch: m.head(torch.relu(m.stem(batch.image)) * batch.scale),
        stem=conv(3, 8),
        head=conv(8, 2),
    )
    assert_prunes_with(model, kind(X, torch.rand(2, 1, 1, 1)), free=8)


# -- tokens --------------------------------------------------------------------------------------


class Tokens(nn.Module):
    """Words, positions and types added, the words' table tied to the head."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        self.words, self.types = nn.Embedding(11, 8, padding_idx=0), nn.Embedding(2, 8)
        self.positions = nn.Embedding(16, 8)
        self.register_buffer("ids", torch.arange(16)[None], persistent=False)
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 12), nn.Linear(12, 8)
        self.head = nn.Linear(8, 11, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, words: Tensor, types: Tensor | None = None) -> Tensor:
        y = self.words(words) + self.positions(self.ids[:, : words.shape[1]])
        if types is not None:
            y = y + self.types(types)
        y = self.norm(y)
        return self.head(y + self.down(F.gelu(self.up(y))))


WORDS, TYPES = torch.randint(11, (2, 5)), torch.randint(2, (2, 5))


@pytest.mark.parametrize("tied", [False, True])
def test_integer_tokens(tied: bool) -> None:
    # 8 of the stream, 12 inside
    assert_prunes_exactly(Tokens(tied=tied), WORDS, TYPES, free=20)


def test_tokens_without_the_optional_types() -> None:
    # the table of types is not cut with the stream, so the stream could not run with it
    assert_prunes_with(Tokens(), WORDS, free=20)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_tokens(mode: str) -> None:
    model = Net(lambda m, x: m.head(m.bag(x)), bag=nn.EmbeddingBag(11, 8, mode=mode), head=nn.Linear(8, 2))
    assert_prunes_exactly(model, WORDS, free=8)


def test_one_hot_tokens() -> None:
    model = Net(
        lambda m, x: m.head(torch.relu(m.stem(F.one_hot(x, 11).to(m.stem.weight.dtype)))),
        stem=nn.Linear(11, 8),
        head=nn.Linear(8, 2),
    )
    assert_prunes_exactly(model, WORDS, free=8)


# -- outputs -------------------------------------------------------------------------------------


class ModelOutput(OrderedDict):  # type: ignore[type-arg]
    """As transformers has it: a dict of the fields of a dataclass that are not None."""

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if value is not None:
                super().__setitem__(field.name, value)

    def __getitem__(self, key: Any) -> Any:
        return dict(self.items())[key] if isinstance(key, str) else tuple(self.values())[key]


@dataclass
class Output(ModelOutput):
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    loss: Tensor | None = None


class Dataclassed(nn.Module):
    def __init__(self, output: Any = Output) -> None:
        super().__init__()
        self.stem, self.body, self.head, self.output = conv(3, 8), conv(8, 6), conv(6, 2), output

    def features(self, x: Tensor) -> Any:
        y = torch.relu(self.stem(x))
        return self.output(logits=torch.relu(self.body(y)), hidden_states=None)

    def forward(self, x: Tensor, keep: bool = False) -> Any:
        y = self.features(x)["logits"]
        return self.output(logits=self.head(y), hidden_states=(y,) if keep else None)


def test_dataclass_outputs() -> None:
    assert_prunes_exactly(Dataclassed(), X, free=14)


def test_a_feature_among_the_outputs_of_a_dataclass_is_pinned() -> None:
    graph = capture(Dataclassed(), X, keep=True)
    assert graph.n_units == 8
    assert "it is an output of the model" in graph.explain("body.weight")


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="needs transformers")
def test_outputs_of_transformers() -> None:
    from transformers.modeling_outputs import ImageClassifierOutput

    assert_prunes_exactly(Dataclassed(ImageClassifierOutput), X, free=14)


class Detector(nn.Module):
    """Losses in training mode, detections in eval mode, as torchvision has it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.boxes, self.scores = conv(3, 8), conv(8, 4), conv(8, 3)
        self.only_training = conv(8, 5)

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None) -> Any:
        y = torch.relu(self.stem(torch.stack(images)))
        boxes, scores = self.boxes(y), self.scores(y)
        if self.training:
            if targets is None:
                raise ValueError("targets are needed in training mode")
            loss = F.l1_loss(boxes.mean((2, 3)), torch.stack([t["boxes"] for t in targets]))
            return {"boxes": loss, "scores": scores.square().mean() + self.only_training(y).mean()}
        best = scores.flatten(2).mean(1).topk(4, -1)
        boxes = boxes.flatten(2).gather(2, best.indices[:, None].expand(-1, 4, -1))
        return [{"boxes": b.T, "scores": s} for b, s in zip(boxes, best.values, strict=True)]


def test_detections_in_eval_mode_and_losses_in_training() -> None:
    targets = [{"boxes": torch.rand(4)} for _ in range(2)]
    model = Detector()
    graph = capture(model, [*X], targets)
    # 8 of the stream, 3 scores and 5 more that training takes the mean of
    assert graph.n_units == 16
    small = apply(model, graph.plan(next(masks(graph)))).train()
    sum(small([*X], targets).values()).backward()
    assert small.only_training.weight.grad.shape[1] == small.stem.out_channels


def test_a_model_that_cannot_train_on_the_example_warns_and_stays_usable() -> None:
    model = Detector()
    with pytest.warns(UserWarning, match="only_training"):
        graph = capture(model, [*X])
    small = apply(model, graph.plan(next(masks(graph)))).eval()
    assert len(small([*X])) == 2


# -- modes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("free", [14])
def test_a_model_in_training_mode_is_captured_as_in_eval_mode(free: int) -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            conv(3, 8), nn.BatchNorm2d(8), nn.Dropout(), nn.ReLU(), conv(8, 6), nn.RReLU(), conv(6, 2)
        )

    training, evaluating = capture(make().train(), X), capture(make().eval(), X)
    assert training.model.training
    assert [(a.tensor, a.axis, a.units.tolist()) for a in training.axes] == [
        (a.tensor, a.axis, a.units.tolist()) for a in evaluating.axes
    ]
    mask = next(masks(training))
    assert training.n_units == free and training.plan(mask) == evaluating.plan(mask)
