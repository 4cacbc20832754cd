"""DistilledWriter: order, pixels and record of the folder, what is kept of more, refusals before any work, failures."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import lightning as L
import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.numpy import load_file
from torch import Tensor

from callbacks import DistilledWriter
from callbacks.distilled_writer import write_batches
from cli.errors import message_for_users
from datamodules import RealImages
from datamodules.distilled import DistilledPatch, read_distilled, write_distilled
from datamodules.pair import PairBatch
from datamodules.selection import Keep, Lowest
from datamodules.selection.interfaces import Criterion
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


def foreign(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")


def small_set(folder: Path) -> None:
    write_distilled(folder, [DistilledPatch(np.zeros((4, 4, 3), np.uint8))], 4, {})


def set_with_notes(folder: Path) -> None:
    small_set(folder)
    (folder / "notes.txt").write_text("mine")


@pytest.mark.parametrize(
    ("lies_there", "overwrite", "error"),
    [
        (small_set, "false", r"exists and is not overwritten: name another folder, or .*--distilled\.overwrite true"),
        (foreign, "true", "exists and is no distilled set that could be replaced"),
        (set_with_notes, "true", r"is not replaced: notes\.txt in it is no part of the distilled set"),
    ],
)
def test_an_existing_folder_is_refused_before_any_work(
    tiny: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lies_there: Callable[[Path], None],
    overwrite: str,
    error: str,
) -> None:
    monkeypatch.setattr(RealImages, "prepare_data", lambda _: pytest.fail("work was done"))
    folder, model = tmp_path / "set", tiny.index("--model.init_args.network")
    lies_there(folder)
    options = ["--model", "PatchSelection", "--distilled.folder", str(folder), "--distilled.overwrite", overwrite]
    with pytest.raises(FileExistsError, match=error):
        main(["predict", *tiny[:model], *tiny[model + 2 :], *options])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("name", "error"),
    [("distilled", "no distilled set that could be replaced"), ("batches", "batches holds patches of another predict")],
)
def test_a_folder_that_was_used_before_is_refused_before_any_work(
    data: RealImages, quick_trainer: Callable[..., L.Trainer], tmp_path: Path, name: str, error: str
) -> None:
    """Python alone may give the folder of an earlier run."""
    data.distilled_patches = lambda: pytest.fail("work was done")
    foreign(tmp_path / name)
    with pytest.raises(FileExistsError, match=error):
        quick_trainer(callbacks=DistilledWriter(overwrite=True)).predict(PatchSelection(), datamodule=data)
    assert (tmp_path / name / "notes.txt").read_text() == "mine"


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


def test_patches_outlive_a_set_that_cannot_be_written(
    data: RealImages, quick_trainer: Callable[..., L.Trainer], tmp_path: Path
) -> None:
    """The command that the error names writes the set as if nothing had happened."""
    folder = tmp_path / "the 'best' \"set\""

    class Meanwhile(PatchSelection):
        def on_predict_epoch_end(self) -> None:
            foreign(folder)

    trainer = quick_trainer(callbacks=DistilledWriter(str(folder)))
    with pytest.raises(RuntimeError, match=r"exists and is not overwritten.* the patches are kept in") as error:
        trainer.predict(Meanwhile(), datamodule=data, return_predictions=False)
    assert f"kept in {tmp_path / 'batches'}: " in message_for_users(error.value)
    python, option, code = shlex.split(str(error.value).partition("write them with ")[2])
    assert (python, option) == ("python", "-c")
    shutil.rmtree(folder)
    exec(code, {})  # noqa: S102  # in a process of its own it would take seconds
    assert holds(folder, data)
    assert read_distilled(folder).provenance["seed"] == 5
    assert not (tmp_path / "batches").exists()


def test_patches_outlive_an_interruption_while_the_set_is_written(
    data: RealImages, quick_trainer: Callable[..., L.Trainer], tmp_path: Path
) -> None:
    trainer = quick_trainer(callbacks=DistilledWriter(str(tmp_path / "set")))
    interrupted = patch("callbacks.distilled_writer.write_distilled", side_effect=KeyboardInterrupt)
    with interrupted, pytest.raises(SystemExit):
        trainer.predict(PatchSelection(), datamodule=data, return_predictions=False)
    write_batches(tmp_path / "batches", tmp_path / "set")
    assert holds(tmp_path / "set", data)


class Plenty(PatchSelection):
    """Makes every patch three times, darkened by 0, 1 or 2 levels, and keeps a third of all."""

    def __init__(self, rule: Keep, count: int = 27) -> None:
        super().__init__()
        self.rule = rule
        self.count = count
        self.calls: list[int] = []

    def predict_step(self, batch: list[DistilledPatch], batch_idx: int) -> list[DistilledPatch]:
        return [
            DistilledPatch(np.maximum(one.hr, by) - np.uint8(by), None, {**one.metadata, "darker": by})
            for one in batch
            for by in range(3)
        ]

    def keep(self, patches: Callable[[], Iterator[DistilledPatch]]) -> np.ndarray:
        self.calls.append(sum(1 for _ in patches()))
        return self.rule.choose(patches(), self.count, 0, 2, self.device)

    def record(self) -> dict[str, object]:
        return {"made": self.calls[0]}


def thrice(data: RealImages, expected: Callable[[np.ndarray], float]) -> list[dict[str, object]]:
    """Metadata of the 27 of 81 patches with the lowest value, in the order made."""
    data.setup("fit")
    made = [one for patch in data.distilled_patches() for one in Plenty(Keep()).predict_step([patch], 0)]
    lowest = np.argsort([expected(one.hr) for one in made], kind="stable")[:27]
    return [dict(made[number].metadata) for number in sorted(lowest)]


def without_files(folder: Path) -> list[dict[str, object]]:
    return [
        {key: line[key] for key in line if not key.endswith("file_name")} for line in read_distilled(folder).metadata
    ]


class Brightness(Criterion):
    """A score that NumPy has too."""

    label, complex_when = "mean level", "high"

    def __call__(self, pairs: PairBatch) -> Tensor:
        return pairs.hr.double().mean((1, 2, 3))


@pytest.mark.parametrize("devices", [1, 2])
def test_a_method_may_make_more_than_it_keeps(
    data: RealImages, quick_trainer: Callable[..., L.Trainer], tmp_path: Path, devices: int
) -> None:
    data.prepare_data()
    processes = {"devices": 2, "strategy": "ddp_fork"} if devices == 2 else {}
    writer = DistilledWriter(str(tmp_path / "set"))
    module = Plenty(Keep(Brightness(), selector=Lowest()))
    quick_trainer(callbacks=writer, **processes).predict(module, datamodule=data, return_predictions=False)
    assert without_files(tmp_path / "set") == thrice(data, np.mean)
    provenance = read_distilled(tmp_path / "set").provenance
    assert provenance["made"] == 81  # asked after the choice
    assert provenance["budget"]["images"] == 27
    assert "kept" not in provenance
    assert not (tmp_path / "batches").exists()
    if devices == 1:
        assert module.calls == [81]  # once
        assert writer.written == read_distilled(tmp_path / "set")


def test_written_by_hand_it_keeps_the_same(
    data: RealImages, quick_trainer: Callable[..., L.Trainer], tmp_path: Path
) -> None:
    writer = DistilledWriter(str(tmp_path / "set"))
    trainer = quick_trainer(callbacks=writer)
    full_disk = patch("callbacks.distilled_writer.write_distilled", side_effect=OSError("no space left"))
    with full_disk, pytest.raises(RuntimeError, match=r"no space left; the patches are kept in .*batches: when that"):
        trainer.predict(Plenty(Keep(Brightness(), selector=Lowest())), datamodule=data, return_predictions=False)
    assert writer.written is None
    write_batches(tmp_path / "batches", tmp_path / "set")
    assert without_files(tmp_path / "set") == thrice(data, np.mean)


def test_all_patches_outlive_a_choice_that_fails(
    data: RealImages, quick_trainer: Callable[..., L.Trainer], tmp_path: Path
) -> None:
    trainer = quick_trainer(callbacks=DistilledWriter(str(tmp_path / "set")))
    with pytest.raises(RuntimeError, match=r"81 patches were made .* 82 are to be kept.* every one of them") as error:
        trainer.predict(Plenty(Keep(), 82), datamodule=data, return_predictions=False)
    code = shlex.split(str(error.value).partition("every one of them with ")[2])[2]
    exec(code, {})  # noqa: S102
    made = read_distilled(tmp_path / "set")
    assert len(made.metadata) == 81
    assert made.provenance["keep_failed"].startswith("81 patches were made")


@pytest.mark.parametrize("kept", [[0, 81], [3, 3], [-1]])
def test_positions_that_are_not_there_are_refused(
    data: RealImages, quick_trainer: Callable[..., L.Trainer], tmp_path: Path, kept: list[int]
) -> None:
    module = Plenty(Keep())
    module.keep = lambda patches: kept
    module.calls = [0]
    expected = rf"keep gave {len(kept)} positions but {len(kept) - 1} are distinct and among the 81 patches"
    with pytest.raises(RuntimeError, match=expected):
        quick_trainer(callbacks=DistilledWriter()).predict(module, datamodule=data, return_predictions=False)
    assert not (tmp_path / "distilled").exists()


class Latent(PatchSelection):
    """Gives each patch a latent that NumPy can make too: its corner, in halves."""

    def predict_step(self, batch: list[DistilledPatch], batch_idx: int) -> list[DistilledPatch]:
        return [DistilledPatch(one.hr, None, one.metadata, corner(one.hr)) for one in batch]

    def record(self) -> dict[str, object]:
        return {"generator": {"source": "weights.pth", "fingerprint": "12ab", "side": 48}}


def corner(hr: np.ndarray) -> np.ndarray:
    return hr[:2, :3].astype(np.float16) / 2


@pytest.mark.parametrize("devices", [1, 2])
def test_latents_in_order(
    data: RealImages, quick_trainer: Callable[..., L.Trainer], tmp_path: Path, devices: int
) -> None:
    data.prepare_data()
    processes = {"devices": 2, "strategy": "ddp_fork"} if devices == 2 else {}
    trainer = quick_trainer(callbacks=DistilledWriter(str(tmp_path / "set")), **processes)
    trainer.predict(Latent(), datamodule=data, return_predictions=False)
    assert holds_latents(tmp_path / "set", data)


def holds_latents(folder: Path, data: RealImages) -> bool:
    data.setup("fit")
    patches, opened = list(data.distilled_patches()), read_distilled(folder)
    assert opened.provenance["generator"]["fingerprint"] == "12ab"
    assert opened.provenance["png_bytes"] > 27 * 100
    assert not (folder / "images").exists()
    assert opened.metadata == [patch.metadata for patch in patches]
    return np.array_equal(load_file(folder / "latents.safetensors")["latents"], [corner(patch.hr) for patch in patches])


def test_latents_outlive_an_interruption_while_the_set_is_written(
    data: RealImages, quick_trainer: Callable[..., L.Trainer], tmp_path: Path
) -> None:
    trainer = quick_trainer(callbacks=DistilledWriter(str(tmp_path / "set")))
    interrupted = patch("callbacks.distilled_writer.write_distilled", side_effect=KeyboardInterrupt)
    with interrupted, pytest.raises(SystemExit):
        trainer.predict(Latent(), datamodule=data, return_predictions=False)
    write_batches(tmp_path / "batches", tmp_path / "set")
    assert holds_latents(tmp_path / "set", data)


def test_other_modules_are_left_alone(runs, tiny_photographs: Path) -> None:
    options = ["--ckpt_path", str(runs.fit.run_dir / "checkpoints" / "last.ckpt")]
    source = ["--data.init_args.predict_root", str(tiny_photographs / "0.png")]
    folder = main(["predict", *runs.arguments, *options, *source]).run_dir
    assert (folder / "predictions" / "0.png").is_file()
    assert not (folder / "distilled").exists()
