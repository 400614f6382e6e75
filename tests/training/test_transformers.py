"""Callbacks in the Trainer of transformers itself; the models are built from a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

import compressor as cp
from compressor.errors import InputError
from compressor.training import Distillation
from compressor.training.sparsity import GroupLasso, Proximal
from compressor.training.transformers import (
    GradualPruningCallback,
    SparseTrainingCallback,
    trainer_loss,
)

IDS = torch.randint(0, 30, (16, 6), generator=torch.Generator().manual_seed(0))
DATA = [{"input_ids": ids, "labels": int(ids[0] % 2)} for ids in IDS]


def bert() -> Any:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=12,
        max_position_embeddings=8,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BertForSequenceClassification(config)


def train(
    model: Any,
    folder: Path,
    callbacks: Sequence[TrainerCallback] = (),
    *,
    epochs: int = 2,
    **options: Any,
) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        num_train_epochs=epochs,
        learning_rate=0.01,
        lr_scheduler_type="constant",
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, train_dataset=DATA, callbacks=list(callbacks), **options)
    trainer.train()
    return trainer


def test_planned_neurons_become_zero(tmp_path: Path) -> None:
    """Rows of a linear layer without a norm, emptied by a group lasso."""
    model = bert()
    graph = cp.capture(model, input_ids=IDS[:2])
    (group,) = (group for group in graph.groups if "intermediate.dense" in group.name)
    removed = np.zeros(graph.n_units, dtype=bool)
    removed[group.cells[0][::2]] = True
    lasso = GroupLasso(graph, Proximal(20.0), plan=graph.plan(removed))
    trainer = train(model, tmp_path, [SparseTrainingCallback(lasso)], epochs=6)
    rows = model.bert.encoder.layer[0].intermediate.dense.weight.detach().abs().sum(1)
    assert (rows == 0).nonzero().flatten().tolist() == [0, 2, 4, 6, 8, 10]
    assert lasso.steps_done == 24
    inner = trainer.optimizer.optimizer
    assert not inner._optimizer_step_pre_hooks and not inner._optimizer_step_post_hooks


def test_the_model_shrinks_while_it_trains(tmp_path: Path) -> None:
    model = bert()
    widths: list[int] = []

    class Watching(TrainerCallback):
        def on_epoch_end(self, *_: object, **__: object) -> None:
            widths.append(model.bert.encoder.layer[0].intermediate.dense.out_features)

    pruning = GradualPruningCallback(input_ids=IDS[:2], budget=cp.budget.Uniform(0.75), epochs=(1, 2))
    train(model, tmp_path, [pruning, Watching()], epochs=3)
    assert widths == [12, 6, 3]
    assert pruning.pruning is not None and pruning.pruning.done
    assert model(input_ids=IDS).logits.shape == (16, 2)


def test_distillation_as_the_trainers_loss(tmp_path: Path) -> None:
    teacher = bert().eval()
    student = cp.prune(teacher, input_ids=IDS[:2], budget=cp.budget.Uniform(0.5))
    options = Distillation(
        teacher,
        lambda output, labels: F.cross_entropy(output.logits, labels),
        features={"bert.encoder.layer.0.intermediate.dense": 0.1},
        logits=lambda output: output.logits,
    )
    with options.attach(student) as loss:
        before = float(loss(student(input_ids=IDS), labels := IDS[:, 0] % 2).detach())
        train(student, tmp_path, epochs=4, compute_loss_func=trainer_loss(loss))
        assert float(loss(student(input_ids=IDS), labels).detach()) < before


def test_a_step_is_the_mean_over_its_samples(tmp_path: Path) -> None:
    """The same samples in one batch, or in two that are accumulated."""
    found = []
    for size, accumulate in ((8, 1), (4, 2)):
        teacher = bert().eval()
        student = cp.prune(teacher, input_ids=IDS[:2], budget=cp.budget.Uniform(0.5))
        gradients: list[Tensor] = []

        class Watching(TrainerCallback):
            def on_pre_optimizer_step(self, *_: object, **__: object) -> None:
                gradients.append(student.classifier.weight.grad.clone())  # noqa: B023

        with Distillation(teacher, alpha=1, logits=lambda output: output.logits).attach(student) as loss:
            arguments = TrainingArguments(
                output_dir=str(tmp_path),
                per_device_train_batch_size=size,
                gradient_accumulation_steps=accumulate,
                max_steps=1,
                max_grad_norm=0.0,
                use_cpu=True,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
            )
            trainer = Trainer(
                student,
                arguments,
                train_dataset=DATA[:8],
                callbacks=[Watching()],
                compute_loss_func=trainer_loss(loss),
            )
            trainer.train()
        found.append(gradients[0])
    torch.testing.assert_close(found[0], found[1])


def test_epochs_that_a_training_does_not_reach_are_refused(tmp_path: Path) -> None:
    pruning = GradualPruningCallback(input_ids=IDS[:2], budget=cp.budget.Uniform(0.75), epochs=(1, 2))
    with pytest.raises(InputError, match="from epoch 0 to 1, without 2: the budget"):
        train(bert(), tmp_path, [pruning], epochs=2)
