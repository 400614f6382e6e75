"""Rhythms in twelve-lead ECGs from scalograms of one second: trained, measured record by record, pruned.

    python examples/recipes/ecg_rhythms.py --model ecg_cnn2d --out runs/ecg     # simulated rhythms
    python examples/recipes/ecg_rhythms.py --model resnet50 --data WFDBRecords/ --out runs/r50
    python examples/recipes/ecg_rhythms.py --ludb ludb.npz --epochs 20 --out runs/ludb     # cross-validated

The system is that of P. N. Aarotale, A. Rattani, 2023, arXiv 2312.09426: about 98 % for fine-tuned 2-D
networks, 95 % for the CNN-LSTM, on 45,152 persons; how images were split is not said there. Here persons are
split; --leaking trains once more on a split of images, which has seconds of one person on both sides, to
compare. A record's class is the largest mean softmax of its images. Networks are cut by the norms of filters
and fine-tuned by the original. Start again to go on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import results
import torch
from ecg_images import Network, Seconds, network, prepared, simulated
from ecg_trial import Trial, costs, file_name, rates
from session import Session, add_arguments, session
from torch import nn

import compressor as cp
from compressor.data import ecg
from compressor.evaluation import Predictions, RecordPredictions, classification, classify_records, pooled


def arguments() -> argparse.Namespace:
    """What is said on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--data", type=Path, help="folder of WFDB records (480 kB of memory for each)")
    parser.add_argument("--skip-broken", action="store_true", help="leave broken records out, and name them")
    parser.add_argument("--ludb", type=Path, help="LUDB as .npz: cross-validate (--checkpoint: start there)")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument(
        "--repeats", type=int, default=1, help="of the cross-validation, each with its own folds"
    )
    parser.add_argument(
        "--also", type=Path, nargs="*", default=[], help="cut networks of another run, trained on with --ludb"
    )
    parser.add_argument(
        "--apply-cinc", type=Path, help=".npz of CinC 2021: try what was learnt on its Ningbo records"
    )
    parser.add_argument("--apply-ludb", type=Path, help=".npz of LUDB: try what was learnt on its records")
    parser.add_argument(
        "--model", default="ecg_cnn1d", help="ecg_cnn2d, ecg_cnn1d, ecg_cnn_lstm, resnet50, ..."
    )
    parser.add_argument(
        "--backbone-weights", type=Path, help="ImageNet weights of --model resnet50 and its kin"
    )
    parser.add_argument("--records", type=int, default=400, help="simulated ones to train on")
    parser.add_argument("--test-records", type=int, default=1000, help="simulated ones to test on")
    parser.add_argument("--frequencies", type=int, default=10, help="rows of each lead")
    parser.add_argument("--columns", type=int, default=50, help="columns of each second")
    parser.add_argument("--macs", type=float, nargs="*", default=[0.5, 0.35, 0.2], help="fractions that stay")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--tuning-epochs", type=int, default=6, help="after each cut")
    parser.add_argument("--batch", type=int, default=64, help="over all processes")
    parser.add_argument("--lr", type=float, help="default: 3e-3 for small networks, 3e-4 for backbones")
    parser.add_argument(
        "--balance", choices=("loss", "sampler", "none"), default="loss", help="for rare classes"
    )
    parser.add_argument("--leaking", action="store_true", help="also on a split of images that leaks persons")
    return parser.parse_args()


def one_split(
    run: Session, options: argparse.Namespace, recordings: ecg.Recordings, test_fraction: float
) -> None:
    """Train, test, cut and export on one split of the records."""
    images = prepared(recordings, frequencies=options.frequencies, columns=options.columns)
    fold = ecg.split_by_record(recordings, test_fraction=test_fraction, seed=options.seed)
    kind = _network(options, images)
    parts = (Seconds(images.select_records(part), kind.form) for part in (fold.train, fold.test))
    trial = Trial(run, options, kind, *parts)
    run.say(f"{recordings}\n{kind.name} on {len(fold.train)} records, tested on {len(fold.test)} others")
    original = trial.original()
    models = {"original": original}
    models |= {f"{share:.0%} of the MACs": trial.small(original, share) for share in options.macs}
    found = {name: trial.found(model) for name, model in models.items()}
    leaking = _leaking(run, options, kind, images, test_fraction) if options.leaking else []
    if run.rank:
        return
    run.say(found["original"].summary())
    cost = costs(trial, models, seconds=0.2 if options.quick else 2.0)
    rows = [rates(name, found[name], found["original"]) | cost[name] for name in models]
    notes = [
        f"{kind.name}, {len(fold.train)} records to train on, {len(fold.test)} others to test on, ten images "
        "of each; intervals (95 %) are over records, the change is paired. Classes: "
        f"{', '.join(images.classes)}.",
        f"Time: the ten images of a record in {cp.runtimes.OnnxRuntime().version}, one thread, interleaved.",
    ]
    facts: dict[str, Any] = {"options": _plain(options), "confusion": _confusion(found["original"])}
    for name, others in _others(options).items():
        tried = _tried(original, kind, options, others)
        facts[name] = {"confusion": _confusion(tried)}
        notes.append(f"The original on {name}, which it has not learnt from: {_short(tried)}.")
        run.say(f"{name}:\n{tried.summary()}")
    torch.save(original.state_dict(), run.out / "weights.pt")  # for --checkpoint
    for name, model in list(models.items())[1:]:
        cp.save(model, run.out / file_name(name), overwrite=True)
    run.say(results.write(run.out, f"ECG rhythms, {kind.name}", rows + leaking, notes=notes, facts=facts))


def cross_validated(run: Session, options: argparse.Namespace, recordings: ecg.Recordings) -> None:
    """Every record tested once by a network that has not seen it; the predictions of all folds together."""
    images = prepared(recordings, frequencies=options.frequencies, columns=options.columns)
    kind = _network(options, images)
    variants = ["original", *(f"{fraction:.0%} of the MACs" for fraction in options.macs)]
    variants += [f"{saved.name.replace('-', ' ')}, cut before" for saved in options.also]
    rows = []
    confusions = {}
    for repeat in range(options.repeats):
        tested: dict[str, list[Predictions]] = {name: [] for name in variants}
        for number, fold in enumerate(
            ecg.folds_by_record(recordings, folds=options.folds, seed=options.seed + repeat)
        ):
            parts = (Seconds(images.select_records(part), kind.form) for part in (fold.train, fold.test))
            trial = Trial(run, options, kind, *parts, prefix=f"{repeat}-{number}-")
            original = trial.original()
            models = [original, *(trial.small(original, fraction) for fraction in options.macs)]
            models += [trial.transferred(saved) for saved in options.also]
            for name, model in zip(variants, models, strict=True):
                tested[name].append(trial.found(model).records)
        for name, parts_of in tested.items():
            whole = pooled(parts_of)
            reached = classification(whole)
            run.say(f"repeat {repeat}, {name}:\n{reached.summary()}")
            confusions[f"{name}, repeat {repeat}"] = reached.confusion.tolist()
            row = {"network": name, "repeat": str(repeat), "balanced accuracy": reached.balanced_accuracy}
            row |= {"macro F1": reached.macro_f1, "accuracy": reached.accuracy}
            row |= {f"recall {c}": r for c, r in zip(reached.classes, reached.recall, strict=True)}
            rows.append({column: str(value) for column, value in row.items()})
    if run.rank == 0:
        notes = [
            f"{kind.name}; {recordings}; {options.folds} folds of records, stratified, predictions together.",
            "Intervals (95 %) over the records of one repeat; a class of few records makes them wide.",
        ]
        if options.checkpoint is not None:
            notes.append(f"The original's trainings began with the weights in {options.checkpoint.name}.")
        if options.also:
            notes.append("Cut before: cut and fine-tuned where these weights come from, then trained here.")
        facts = {"options": _plain(options), "confusions": confusions, "classes": list(recordings.classes)}
        run.say(results.write(run.out, f"LUDB rhythms, {kind.name}", rows, notes=notes, facts=facts))


def _network(options: argparse.Namespace, images: ecg.StackedImages) -> Network:
    return network(
        options.model,
        n_classes=len(images.classes),
        rows=images.images.shape[1],
        weights=options.backbone_weights,
    )


def _leaking(
    run: Session, options: argparse.Namespace, kind: Network, images: ecg.StackedImages, test_fraction: float
) -> list[dict[str, Any]]:
    """The accuracy on images whose persons were learnt from, as some publications measure it."""
    fold = ecg.split_images_leaking_records(images, test_fraction=test_fraction, seed=options.seed)
    parts = (Seconds(images, kind.form, part) for part in (fold.train, fold.test))
    own = argparse.Namespace(**vars(options) | {"checkpoint": None})  # that has learnt from other images
    trial = Trial(run, own, kind, *parts, prefix="leaking-")
    accuracy = trial.found(trial.original()).image_accuracy()
    return [{"network": "original, images split (leaks)", "images": str(accuracy)}]


def _others(options: argparse.Namespace) -> dict[str, ecg.Recordings]:
    """Real recordings that what was learnt is tried on, by what they are."""
    found: dict[str, ecg.Recordings] = {}
    if options.apply_cinc is not None:
        collection = ecg.load_cinc2021_npz(options.apply_cinc, prefix="JS", skip_broken=True)
        found[f"Ningbo records ({len(collection.left_out)} left out)"] = collection.recordings
    if options.apply_ludb is not None:
        found["LUDB"] = ecg.load_ludb_npz(options.apply_ludb)
    return found


def _tried(
    model: nn.Module, kind: Network, options: argparse.Namespace, recordings: ecg.Recordings
) -> RecordPredictions:
    images = prepared(recordings, frequencies=options.frequencies, columns=options.columns)
    batches = Seconds(images, kind.form)
    return classify_records(model, batches.in_order(), batches.records, classes=images.classes)


def _short(found: RecordPredictions) -> str:
    reached = found.classification()
    classes = ", ".join(
        f"{name} {recall} of {n}"
        for name, recall, n in zip(reached.classes, reached.recall, reached.support, strict=True)
        if recall is not None
    )
    return f"balanced accuracy {reached.balanced_accuracy}, accuracy {reached.accuracy}; recalls {classes}"


def _plain(options: argparse.Namespace) -> dict[str, Any]:
    """The options without what is of this machine."""
    kept = vars(options).items()
    return {
        name: value for name, value in kept if not isinstance(value, Path) and name not in ("device", "also")
    }


def _confusion(found: RecordPredictions) -> list[list[int]]:
    counts: list[list[int]] = found.classification().confusion.tolist()
    return counts


def _read(options: argparse.Namespace, run: Session) -> ecg.Recordings:
    if options.data is None:
        return simulated(options.records + options.test_records, seed=options.seed)
    collection = ecg.read_recordings(options.data, skip_broken=options.skip_broken, progress=run.rank == 0)
    run.say(collection)
    return collection.recordings


def main() -> None:
    """One split, simulated or read, or the cross-validation on LUDB."""
    options = arguments()
    if options.quick:
        small = options.model.startswith("ecg_")
        options.records, options.test_records = (48, 32) if small else (8, 4)
        options.epochs, options.tuning_epochs, options.workers = 2, 1, 0
        options.batch, options.macs = min(options.batch, 32), options.macs[:1]
    with session(options) as run:
        if options.ludb is not None:
            cross_validated(run, options, ecg.load_ludb_npz(options.ludb))
        else:
            recordings = _read(options, run)
            share = options.test_records / (options.records + options.test_records)
            one_split(run, options, recordings, 0.2 if options.data is not None else share)


if __name__ == "__main__":
    main()
