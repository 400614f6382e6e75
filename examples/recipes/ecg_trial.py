"""One training of a rhythm classifier and its cuts: what they reach by records, what their files cost."""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from ecg_images import Network, Seconds
from session import Session
from stages import Data, load_weights, train
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import compressor as cp
from compressor.errors import ExportError, QuantisationWarning
from compressor.evaluation import (
    RecordMetric,
    RecordPredictions,
    classify_records,
    record_predictions,
    t_interval,
)
from compressor.training import Distillation, Recipe, Validation, WeightedCrossEntropy, class_counts

__all__ = ["Trial", "costs", "file_name", "rates"]


@dataclass(frozen=True)
class Trial:
    """One training and its cuts: on what, with which options; its files begin with `prefix`."""

    run: Session
    options: argparse.Namespace
    kind: Network
    training: Seconds
    test: Seconds
    prefix: str = ""

    def original(self) -> nn.Module:
        """The trained network."""
        torch.manual_seed(self.options.seed)
        model = self.kind.build().to(self.run.device)
        if self.options.checkpoint is not None:
            load_weights(model, self.options.checkpoint)
        if self.options.checkpoint is None or self.options.ludb is not None:
            self._train(model, self._loss, "original", self.options.epochs)
        return model

    def transferred(self, saved: Path) -> nn.Module:
        """A network that was cut and fine-tuned on other records, trained on as an original would be."""
        model = cp.load(saved, self.kind.build).to(self.run.device)
        self._train(model, self._loss, saved.name, self.options.epochs)
        return model

    def small(self, original: nn.Module, fraction: float) -> nn.Module:
        """The network with this fraction of the MACs, verified and fine-tuned by the original."""
        example = self.test.first(2).to(self.run.device)

        def planned() -> cp.Plan:
            scores = cp.score(cp.capture(original, example), cp.scoring.Norm(power=2))
            return cp.plan(scores, cp.budget.Macs(fraction, round_to=self.kind.round_to))

        plan = self.run.plan(f"{self.prefix}plan-{fraction:g}.json", planned)
        small = cp.apply(original, plan)
        cp.verify(original, small, plan, example)
        teaching = Distillation(original, self._loss)
        self._train(small, teaching, f"small-{fraction:g}", self.options.tuning_epochs)
        return small

    def found(self, model: nn.Module) -> RecordPredictions:
        """What a model says about the test."""
        return classify_records(model, self.test.in_order(), self.test.records, classes=self.test.classes)

    @property
    def scoring(self) -> list[tuple[Tensor, Tensor]]:
        """Batches of 512 training images, for captures and to calibrate int8 with."""
        drawn = torch.randperm(len(self.training), generator=torch.Generator().manual_seed(1))[:512]
        few = torch.utils.data.Subset(self.training, drawn.tolist())
        return list(torch.utils.data.DataLoader(few, 64))

    @property
    def _data(self) -> Data:
        options = self.options
        loader = self.training.training(
            self.run,
            batch=options.batch,
            seed=options.seed,
            balanced=options.balance == "sampler",
            workers=options.workers,
        )
        metric = RecordMetric(self.test.records)
        return Data(loader, self.scoring, Validation(batches=self.test.in_order(), metric=metric))

    @property
    def _loss(self) -> Any:
        if self.options.balance != "loss":
            return cross_entropy
        counts = class_counts(self.training.labels, classes=len(self.training.classes))
        return WeightedCrossEntropy(counts.tolist())

    def _train(self, model: nn.Module, loss: Any, name: str, epochs: int) -> None:
        """Adam with a rise over a third and half a cosine, as OneCycle has it."""
        recipe = Recipe(
            epochs=epochs,
            lr=self.options.lr or self.kind.lr,
            weight_decay=0.0,
            optimizer=torch.optim.Adam,
            warmup_epochs=0.3 * epochs,
            autocast=self.run.autocast,
            seed=self.options.seed,
        )
        train(self.run, model, self._data, loss, recipe, name=f"{self.prefix}{name}", progress=False)


def rates(name: str, found: RecordPredictions, before: RecordPredictions) -> dict[str, str]:
    """A row of the table: images, records, macro F1, and their change in points, paired by record."""
    reached = found.classification()
    row = {
        "network": name,
        "images": str(found.image_accuracy()),
        "records": str(reached.accuracy),
        "change, points": "",
        "macro F1": str(reached.macro_f1),
        "its change": "",
    }
    if found is not before:
        right, was = ((p.records.true == p.records.predicted).astype(float) for p in (found, before))
        change = t_interval((100 * (right - was)).tolist())
        row["change, points"] = f"{change.value:+.1f} ({change.low:+.1f} to {change.high:+.1f})"
        change_f1 = reached.macro_f1.value - before.classification().macro_f1.value
        row["its change"] = f"{100 * change_f1:+.1f}"
    return row


def file_name(network: str) -> str:
    """The name of a row as that of its files."""
    return re.sub(r"\W+", "-", network)


def costs(
    trial: Trial, models: Mapping[str, nn.Module], *, seconds: float = 2.0
) -> dict[str, dict[str, Any]]:
    """MACs, parameters, the ONNX file, its int8 form, and times of all files interleaved, for each model."""
    record = trial.test.first(10)
    rows: dict[str, dict[str, Any]] = {}
    files: dict[tuple[str, str], Path] = {}
    whole = cp.profile(next(iter(models.values())), record[:1].to(trial.run.device)).macs
    for name, model in models.items():
        profile = cp.profile(model, record[:1].to(trial.run.device))
        path = trial.run.out / f"{file_name(name)}.onnx"
        report = cp.export.onnx(model, record, path)
        trial.run.say(report)
        files[name, "fp32"] = path
        rows[name] = {
            "MACs": profile.macs,
            "left": f"{profile.macs / whole:.1%}",
            "parameters": profile.params,
        }
        rows[name] |= {"kB": round(report.file_bytes / 1000)}
        small, rows[name]["int8 records"] = _int8(trial, path)
        if small is not None:
            files[name, "int8"] = small
            rows[name]["int8 kB"] = round(small.stat().st_size / 1000)
    found = cp.profiling.measure_latency(
        list(files.values()), (record,), runtime=cp.runtimes.OnnxRuntime(), seconds=seconds
    )
    trial.run.say(found)
    for (name, form), timing in zip(files, found.timings, strict=True):
        label = "" if form == "fp32" else "int8 "
        rows[name][f"{label}ms"] = f"{timing.ms:.3f}"
        spread = f"({timing.speedup_p10:.2f}-{timing.speedup_p90:.2f})"
        rows[name][f"{label}speedup"] = f"{timing.speedup:.2f}x {spread}"
    return rows


def _int8(trial: Trial, path: Path) -> tuple[Path | None, str]:
    """The file in int8, and what it reaches by records; no file and why not, where it strays too far."""
    written = path.with_suffix(".int8.onnx")
    batches = [images for images, _ in trial.scoring]
    make = cp.export.dynamic_int8 if trial.kind.is_recurrent else cp.export.int8
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", QuantisationWarning)  # speed and size are in the table
            trial.run.say(make(path, batches, written))
    except ExportError as error:
        return None, str(error).splitlines()[0]
    session = onnxruntime.InferenceSession(str(written), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    outputs = [torch.from_numpy(session.run(None, {name: x.numpy()})[0]) for x, _ in trial.test.in_order()]
    found = record_predictions(torch.cat(outputs), trial.test.labels, trial.test.records)
    right = (found.records.true == found.records.predicted).mean()
    return written, f"{right:.3f}"
