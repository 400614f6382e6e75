"""Prune a transformer of Hugging Face and one of timm: heads, dims of heads, widths; proved and reloaded.

    python examples/transformer.py [--quick]
    python examples/transformer.py --timm vit_tiny_patch16_224 --macs 0.4

The BERT is built from a configuration, so nothing is downloaded; it learns to tell which of two kinds of
tokens a text has more of. For a model of yours, put `from_pretrained` where `bert` is called, and your
batches where `texts` is. timm is no dependency: without it that half is left out, with a word on why.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import compressor as cp
from compressor.training import Distillation, Recipe, Validation, fine_tune_

Batches = list[tuple[dict[str, Tensor], Tensor]]  # what a model is called with, and labels [N]


def bert() -> nn.Module:
    """A classifier of texts with freshly drawn weights."""
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(vocab_size=32, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                        intermediate_size=128, max_position_embeddings=16)  # fmt: skip
    return BertForSequenceClassification(config)


def texts(n: int, seed: int) -> Batches:
    """Batches of 32 texts of 15 tokens; the label is 1 where most of them are among the upper 16."""
    ids = torch.randint(32, (n, 15), generator=torch.Generator().manual_seed(seed))
    labels = ((ids >= 16).sum(1) > 7).long()
    return [({"input_ids": x}, y) for x, y in zip(ids.split(32), labels.split(32), strict=True)]


def logits(output: Any) -> Tensor:
    """The logits [N, C] in what the model returns."""
    found: Tensor = output.logits
    return found


def task(output: Any, labels: Tensor) -> Tensor:
    """The loss that it is trained by."""
    return F.cross_entropy(logits(output), labels)


def shapes(model: Any) -> list[str]:
    """Of each layer: heads, dims of a head, hidden width."""
    rows = []
    for layer in model.bert.encoder.layer:
        attention = layer.attention.self
        dims, hidden = attention.attention_head_size, layer.intermediate.dense.out_features
        rows.append(f"{attention.query.out_features // dims} heads of {dims}, {hidden} hidden")
    return rows


def hugging_face(options: argparse.Namespace) -> None:
    """Train, prune, verify, fine-tune by the original, save, load."""
    train = texts(1600 if options.quick else 8000, seed=0)
    held_out = Validation(batches=texts(500, seed=1), output=logits)
    adam = Recipe(epochs=2 if options.quick else 5, lr=2e-3, optimizer=torch.optim.AdamW, warmup_epochs=0.5)
    torch.manual_seed(0)
    model = bert()
    fine_tune_(model, train, task, adam, progress=False)
    model.eval()
    print(f"BERT, 2 layers: accuracy {held_out.measure(model):.1%} on 500 new texts")

    example: dict[str, Any] = train[0][0]
    graph = cp.capture(model, **example)
    attention = {"*.attention.self.*": 0.5}  # of heads times dims; the budget chooses the rest
    plan = cp.plan(cp.score(graph, cp.scoring.Norm()), cp.budget.Macs(options.macs, ratios=attention))
    small = cp.apply(model, plan)
    print(cp.verify(model, small, plan, **example))  # raises where the cut is not what the plan says
    print(plan.summary())
    for number, (before, after) in enumerate(zip(shapes(model), shapes(small), strict=True)):
        print(f"layer {number}: {before} -> {after}")
    print(f"as cut: accuracy {held_out.measure(small):.1%}")
    taught = Distillation(model, task, logits=logits)
    fine_tune_(small, train, taught, adam, progress=False)
    small.eval()
    print(f"fine-tuned: accuracy {held_out.measure(small):.1%}")
    again = reloaded(small, options.out / "bert", bert)
    with torch.no_grad():
        assert torch.equal(logits(again(**example)), logits(small(**example)))
    print(f"{options.out / 'bert'}: loaded again, the same logits to the last bit")
    print(cp.compare(model, small, **example))


def of_timm(options: argparse.Namespace) -> None:
    """Prune, verify, save and load a network of timm, as it is built; it is trained as the BERT is."""
    try:
        import timm
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision of another torch
        print(f"timm: left out, as it cannot be imported here ({error}); pip install timm")
        return

    def build() -> nn.Module:
        made: nn.Module = timm.create_model(options.timm, pretrained=False, num_classes=10)
        return made.eval()

    model: Any = build()
    pixels = model.default_cfg["input_size"]
    x = torch.randn(1, *pixels)
    small = cp.prune(model, x, budget=cp.budget.Macs(options.macs))  # verified
    again = reloaded(small, options.out / "timm", build)
    with torch.no_grad():
        assert torch.equal(again(x), small(x))
    print(f"timm's {options.timm}, verified, saved and loaded again, the same outputs to the last bit")
    print(cp.compare(model, small, x))


def reloaded(small: nn.Module, folder: Path, build: Callable[[], nn.Module]) -> nn.Module:
    """The pruned network as it comes back from files; `build` makes the unpruned one."""
    cp.save(small, folder, overwrite=True)
    return cp.load(folder, build).eval()


def main() -> None:
    """Both of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--macs", type=float, default=0.5, help="fraction of the MACs that stays")
    parser.add_argument("--timm", default="vit_tiny_patch16_224", help="name of a network of timm")
    parser.add_argument("--out", type=Path, default=Path("out/transformer"))
    parser.add_argument("--quick", action="store_true", help="fewer texts, fewer epochs")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    hugging_face(options)
    of_timm(options)


if __name__ == "__main__":
    main()
