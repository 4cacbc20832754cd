"""DistilledWriter: order, pixels and record of the folder, refusals before any work, nothing left of what failed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import yaml
from PIL import Image

from callbacks import DistilledWriter
from datamodules import RealImages
from datamodules.distilled import DistilledPatch, read_distilled
from lightning_modules import PatchSelection
from main import main


@pytest.fixture
def data(tiny_photographs: Path) -> RealImages:
    """Three pictures as 27 overlapping squares of 48 pixels, in 7 batches."""
    return RealImages(str(tiny_photographs), scale=2, patch_size=32, sub_image=48, batch_size=4, seed=5)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def holds(folder: Path, data: RealImages) -> bool:
    """Whether a set's files are the datamodule's patches, in order."""
    expected = list(data.distilled_patches())
    lines = read_distilled(folder).metadata
    return len(lines) == len(expected) and all(
        np.array_equal(pixels(folder / line["file_name"]), patch.hr)
        and np.array_equal(pixels(folder / "lr_x2" / Path(line["file_name"]).name), patch.lr)
        and patch.metadata.items() <= line.items()
        for line, patch in zip(lines, expected, strict=True)
    )


@pytest.mark.parametrize("devices", [1, 2])
def test_order_pixels_and_metadata(
    data: RealImages, quick_trainer: Callable[..., L.Trainer], tmp_path: Path, devices: int
) -> None:
    """Also of two processes, the first with four batches and the second with three."""
    data.prepare_data()  # decoded before the fork
    folder = tmp_path / "deep" / "set"
    processes = {"devices": 2, "strategy": "ddp_fork"} if devices == 2 else {}
    trainer = quick_trainer(callbacks=DistilledWriter(str(folder)), **processes)
    trainer.predict(PatchSelection(), datamodule=data, return_predictions=False)
    data.setup("fit")
    assert holds(folder, data)
    assert not (tmp_path / "batches").exists()


def test_record(tiny: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "set"
    model = tiny.index("--model.init_args.network")
    options = [*tiny[:model], *tiny[model + 2 :], "--model", "PatchSelection", "--distilled.folder", str(folder)]
    cli = main(["predict", *options, "--seed_everything", "3"])
    provenance = read_distilled(folder).provenance
    assert provenance["method"] == "selection"
    assert provenance["command"] == ["main.py", "predict", *options, "--seed_everything", "3"]
    assert provenance["config"] == yaml.safe_load((cli.run_dir / "config.yaml").read_text())
    assert provenance["seed"] == 3
    assert provenance["source_fingerprint"] == cli.datamodule.store.index.fingerprint
    assert provenance["seconds"] > 0
    assert provenance["peak_rss_mib"] > 50
    assert provenance["devices"] == json.loads((cli.run_dir / "provenance.json").read_text())["devices"]
    assert provenance["budget"]["images"] == 3
    assert provenance["budget"]["pixels"] == 3 * 96 * 96
    assert provenance["budget"]["percent"] == pytest.approx(100)  # all training photographs


def test_lies_in_the_run_folder_unless_named(
    data: RealImages, quick_trainer: Callable[..., L.Trainer], tmp_path: Path
) -> None:
    trainer = quick_trainer(callbacks=DistilledWriter())
    trainer.predict(PatchSelection(), datamodule=data, return_predictions=False)
    assert len(read_distilled(tmp_path / "distilled").metadata) == 27


@pytest.mark.parametrize(
    ("overwrite", "error"),
    [
        ("false", "exists and is not overwritten: give another folder, or add --distilled.overwrite true"),
        ("true", "is not overwritten, because it is no distilled set"),
    ],
)
def test_an_existing_folder_is_refused_before_any_work(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: str, error: str
) -> None:
    monkeypatch.setattr(RealImages, "prepare_data", lambda _: pytest.fail("work was done"))
    model = tiny.index("--model.init_args.network")
    options = [*tiny[:model], *tiny[model + 2 :], "--model", "PatchSelection", "--distilled.folder", str(tmp_path)]
    with pytest.raises(FileExistsError, match=r"exists and is not overwritten: give another folder, or add"):
        main(["predict", *options])
    assert not (tmp_path / "runs").exists()


def test_overwriting_where_asked_to(data: RealImages, quick_trainer: Callable[..., L.Trainer], tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for limit in (1, 2):
        trainer = quick_trainer(callbacks=DistilledWriter(str(folder), overwrite=True), limit_predict_batches=limit)
        trainer.predict(PatchSelection(), datamodule=data, return_predictions=False)
    assert len(read_distilled(folder).metadata) == 2 * 4


def test_nothing_is_left_of_a_failed_run(
    data: RealImages, quick_trainer: Callable[..., L.Trainer], tmp_path: Path
) -> None:
    class Failing(PatchSelection):
        def predict_step(self, batch: list[DistilledPatch], batch_idx: int) -> list[DistilledPatch]:
            if batch_idx == 2:
                raise RuntimeError("out of memory")
            return super().predict_step(batch, batch_idx)

    trainer = quick_trainer(callbacks=DistilledWriter(str(tmp_path / "set")))
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer.predict(Failing(), datamodule=data, return_predictions=False)
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}


def test_other_modules_are_left_alone(runs, tiny_photographs: Path) -> None:
    options = ["--ckpt_path", str(runs.fit.run_dir / "checkpoints" / "last.ckpt")]
    source = ["--data.init_args.predict_root", str(tiny_photographs / "0.png")]
    folder = main(["predict", *runs.arguments, *options, *source]).run_dir
    assert (folder / "predictions" / "0.png").is_file()
    assert not (folder / "distilled").exists()
