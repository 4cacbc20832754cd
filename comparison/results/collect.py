"""The rows of a comparison, from the records that its stages left."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from comparison.planning.stages import Training
from comparison.results.rows import Cell, ImageRow, Row
from comparison.results.untrained import untrained_of
from comparison.running.store import Done, Store, read_json


def collect(trainings: Sequence[Training], keys: Mapping[str, str], store: Store) -> tuple[list[Row], list[ImageRow]]:
    """What the finished trainings reached and cost; those without a finished test have no rows.

    Args:
        trainings: of the plan.
        keys: of all its stages, by name.
        store: where they are recorded.
    """
    rows: list[Row] = []
    images: list[ImageRow] = []
    for training in trainings:
        names = [*training.distill, training.train, training.test]
        done = {name: record for name in names if (record := store.done(keys[name])) is not None}
        if len(done) == len(names):
            rows += _rows(training, done, store)
            images += _images(training.cell, store.root / done[training.test].run)
    return rows, images


def _rows(training: Training, done: Mapping[str, Done], store: Store) -> Iterator[Row]:
    train, test = done[training.train], done[training.test]
    results = read_json(store.root / test.run / "results.json")
    costs = _costs(training, done, store)
    distilled = None if training.distilled is None else done[training.distilled].output
    for name, values in results["sets"].items():
        untrained = untrained_of(values)
        yield Row(
            cell=training.cell,
            set=name,
            psnr_y=values["psnr_y"],
            ssim_y=values["ssim_y"],
            psnr_y_untrained=values[f"psnr_y_{untrained}"],
            ssim_y_untrained=values[f"ssim_y_{untrained}"],
            untrained=untrained,
            psnr_rgb=values.get("psnr_rgb"),
            lpips=values.get("lpips"),
            test_images=values["images"],
            protocol=results["protocol"],
            train_folder=train.run,
            test_folder=test.run,
            distilled_folder=distilled,
            **costs,
        )


def _costs(training: Training, done: Mapping[str, Done], store: Store) -> dict[str, Any]:
    """What is the same for all test sets of a training."""
    folder = store.root / done[training.train].run
    cost, provenance = read_json(folder / "cost.json"), read_json(folder / "provenance.json")
    budget = provenance["data_budget"]
    before = [done[name] for name in training.distill]
    stages = [cost, *(read_json(store.root / stage.run / "cost.json") for stage in before)]
    gpu = [stage["peak_gpu_mib"] for stage in stages if stage.get("peak_gpu_mib") is not None]
    commit = provenance.get("commit")
    return {
        "images": budget["images"],
        "pixels": budget["pixels"],
        "bytes": budget["bytes"],
        "percent": budget["percent"],
        "distillation_seconds": sum(_seconds(stage, store) for stage in before),
        "training_seconds": cost["training_seconds"],
        "peak_memory_mib": max(stage["peak_rss_mib"] for stage in stages),
        "peak_gpu_mib": max(gpu) if gpu else None,
        "updates": cost["optimizer_steps"],
        "samples_per_second": cost["samples_per_second"],
        "commit": None if commit is None else commit[:10] + "+" * bool(provenance["dirty"]),
        "device": provenance["devices"][0],
    }


def _seconds(stage: Done, store: Store) -> float:
    """What a stage before the SR training took; scores that lay in the cache count what they once took."""
    made = read_json(store.root / stage.output / "provenance.json")
    if "sha256" not in made:  # not a distilled set, but the run folder of a fit
        return float(read_json(store.root / stage.run / "cost.json")["seconds"])
    scoring = (made.get("preparation") or {}).get("seconds", 0.0)
    return max(float(made["seconds"]), float(scoring))


def _images(cell: Cell, folder: Path) -> Iterator[ImageRow]:
    with (folder / "per_image.csv").open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            untrained = untrained_of(line)
            names = ("psnr_y", "ssim_y", f"psnr_y_{untrained}", f"ssim_y_{untrained}")
            yield ImageRow(cell, line["set"], line["name"], *(float(line[name]) for name in names))
