"""RealImages: any folder of photographs, split by name, as a resumable stream; and what every datamodule shares."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from PIL import Image

from datamodules import PairBatch, RealImages
from datamodules.benchmarks import Benchmarks
from datamodules.bicubic import downscale
from datamodules.paths import cache_folder
from datamodules.real import split


def prepared(root: Path | str, **options) -> RealImages:
    """Prepared and set up for `fit`."""
    data = RealImages(str(root), **{"scale": 4, "patch_size": 24, "batch_size": 4, **options})
    data.prepare_data()
    data.setup("fit")
    return data


def at(data: RealImages, stage: TrainerFn, training: bool = False) -> RealImages:
    """The datamodule as a trainer in that stage sees it."""
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        state=SimpleNamespace(fn=stage), training=training, world_size=1, global_rank=0
    )
    return data


# --- which files ---


def test_an_unusual_tree(photographs):
    names = ("a.png", "deep/er/a.png", "a.jpg", "caf\u00e9 \u5199\u771f/\u00fc b.PNG", "with space.bmp", ".hidden.png")
    root = photographs(*names)
    grey = Image.open(root / "a.png").convert("L")
    grey.save(root / "grey.tif")
    data = prepared(root)
    assert set(data.store.index.names) == {*names, "grey.tif"} - {".hidden.png"}
    stored = data.store.hr(data.store.index.names.index("grey.tif"))
    assert np.array_equal(stored, np.repeat(np.asarray(grey)[..., None], 3, axis=2))


def test_one_summary_names_each_file_left_out(photographs):
    root = photographs("a.png", "b.png", "cut.png")
    (root / "cut.png").write_bytes((root / "cut.png").read_bytes()[:200])
    (root / "notes.txt").touch()
    Image.new("RGB", (23, 90)).save(root / "slim.png")
    with pytest.warns(UserWarning, match="3 of the files in .* cannot be used") as caught:
        data = prepared(root)
    (text,) = [str(warning.message) for warning in caught if "cannot be used" in str(warning.message)]
    assert "  cut.png: truncated file\n" in text
    assert "  notes.txt: not an image format\n" in text
    assert "  slim.png: too small: 20 x 88 pixels, patch size 24" in text
    names = {name for _, name in [*data.training_images, *data.held_out]}
    assert names == {"a.png", "b.png"}


def test_a_sound_folder_gives_no_warning(photographs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prepared(photographs("a.png", "b.png"))


def test_strict_stops_and_names_them(photographs):
    root = photographs("a.png", "b.png")
    (root / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"data.strict is set and 1 of the files .*\n  notes.txt: not an image format"):
        prepared(root, strict=True)


def test_a_long_summary_is_cut(photographs):
    root = photographs("a.png", "b.png")
    for number in range(105):
        (root / f"{number:03}.txt").touch()
    with pytest.raises(ValueError, match=r"105 of the files(.|\n)*099.txt(.|\n)*\.\.\. and 5 more$"):
        prepared(root, strict=True)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_images_left(photographs, count):
    root = photographs(*["a.png"][:count], "cut.png")
    (root / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    data = RealImages(str(root), patch_size=24)
    with pytest.raises(ValueError, match=rf"{count} usable images of {count + 1}; at least 2 (.|\n)*cut.png: damaged"):
        data.setup("fit")


def test_a_missing_folder_names_where_it_looked(monkeypatch, tmp_path):
    monkeypatch.setenv("SRDISTILL_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"data.root: no folder photos or {tmp_path}/photos; .*SRDISTILL_DATA"):
        RealImages("photos").prepare_data()


def test_a_folder_without_images(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no images; expected PNG"):
        RealImages(str(tmp_path / "empty")).prepare_data()


def test_a_root_in_the_data_folder(photographs, monkeypatch):
    monkeypatch.setenv("SRDISTILL_DATA", str(photographs("a.png", "b.png").parent))
    data = prepared("photos", download=True)  # already there: nothing is fetched
    assert data.store.index.names == ["a.png", "b.png"]


def test_the_folder_is_listed_once(photographs, monkeypatch):
    from datamodules import real

    calls, find = [], real.find_images
    monkeypatch.setattr(real, "find_images", lambda root: (calls.append(root), find(root))[1])
    root = photographs("a.png", "b.png")
    (root / "notes.txt").touch()
    with pytest.warns(UserWarning, match="notes.txt"):
        prepared(root).train_dataloader()
    assert len(calls) == 1


def test_the_root_is_only_read(photographs):
    root = photographs("a.png", "b.png")
    before = sorted(root.rglob("*"))
    prepared(root)
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize("stage", [TrainerFn.TESTING, TrainerFn.PREDICTING])
def test_testing_and_predicting_need_no_photographs(stage):
    data = at(RealImages("not-on-this-machine"), stage)
    data.prepare_data()
    data.setup(stage.value)


def test_embedded_photographs(tmp_path):
    data = prepared("embedded", patch_size=64)
    assert len(data.store) == 7
    assert len(data.training_images) == 6
    assert not {"chelsea.png", "china.jpg"} & set(data.store.index.names)  # those are the test set


def test_where_the_cache_lies(monkeypatch, tmp_path):
    monkeypatch.delenv("SRDISTILL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "")  # empty means unset, says the XDG base directory specification
    assert cache_folder(None) == Path("~/.cache/srdistill").expanduser()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(None) == tmp_path / "srdistill"
    monkeypatch.setenv("SRDISTILL_CACHE", "there")
    assert cache_folder(None) == Path("there")
    assert cache_folder("here") == Path("here")


# --- settings ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": 5}, "data.scale is 5; expected one of 1, 2, 3, 4"),
        ({"patch_size": 50}, "data.patch_size is 50; expected a multiple of the scale 4, such as 48"),
        ({"patch_size": 0}, "data.patch_size is 0; expected a multiple of the scale 4, such as 4"),
        ({"batch_size": 0}, "data.batch_size is 0 .* expected at least 1 patch"),
        ({"num_workers": -1}, "data.num_workers -1; expected .* at least 0 workers"),
        ({"validation": 0}, r"data.validation is 0; expected a share in \(0, 1\) or a number of images"),
        ({"validation": 2.5}, "data.validation is 2.5; expected a share"),
        ({"sub_image": 32}, "data.sub_image is 32; expected a multiple of the scale 4, at least the patch size 64"),
        ({"sub_image": 66}, "data.sub_image is 66; expected a multiple"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ValueError, match=message):
        RealImages(**options)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_batches_at_each_scale_and_patch_size(photographs, scale):
    data = prepared(photographs("a.png", "b.png"), scale=scale, patch_size=36)
    batch = next(iter(data.train_dataloader()))
    assert batch.hr.shape == (4, 3, 36, 36)
    assert batch.lr.shape == (4, 3, 36 // scale, 36 // scale)


def test_sub_images(photographs):
    data = prepared(photographs("a.png", "b.png", size=(96, 128)), sub_image=48)
    windows = data.training_patches().windows
    assert {(window.height, window.width) for window in windows} == {(48, 48)}
    assert len(windows) > 10


# --- split ---

NAMED = [(number, f"image {number}.png") for number in range(40)]


def test_the_split_is_disjoint_complete_and_repeats():
    training, held_out = split(NAMED, 0.1, seed=0)
    assert len(held_out) == 4
    assert sorted(training + held_out) == NAMED
    assert split(NAMED[::-1], 0.1, seed=0)[1] == held_out[::-1]  # by name, not by order
    assert split(NAMED, 0.1, seed=1)[1] != held_out


def test_the_split_survives_other_images_coming_and_going():
    held_out = split(NAMED, 10, seed=0)[1]
    renumbered = [(number + 1, name) for number, name in NAMED]
    assert {name for _, name in split(renumbered, 10, seed=0)[1]} == {name for _, name in held_out}
    newcomers = [(40 + number, f"new {number}.png") for number in range(10)]
    after = split(NAMED + newcomers, 10, seed=0)[1]
    assert set(after) <= set(held_out) | set(newcomers)  # an old training image never becomes a validation image
    gone = [image for image in NAMED if image != held_out[0]]
    assert set(held_out[1:]) < set(split(gone, 10, seed=0)[1])


def test_names_in_another_encoding_can_be_split():
    assert len(split([(0, "caf\udce9.png"), (1, "b.png")], 1, seed=0)[1]) == 1  # os.fsdecode(b"caf\xe9.png")


@pytest.mark.parametrize(("validation", "expected"), [(0.001, 1), (0.26, 11), (1, 1), (7, 7), (0.999, 39)])
def test_size_of_the_split(validation, expected):
    assert len(split(NAMED, validation, 0)[1]) == expected


def test_validation_of_all_images_is_refused(photographs):
    with pytest.raises(ValueError, match=r"data.validation is 20 but .* has 2 usable images"):
        prepared(photographs("a.png", "b.png"), validation=20)


def test_validation_images_are_whole_and_not_trained_on(photographs):
    root = photographs("a.png", "b.png", "c.png", size=(50, 67))
    data = prepared(root, validation=1)
    ((_, name),) = data.held_out
    trained = {data.store.index.names[window.image] for window in data.training_patches().windows}
    assert trained == {"a.png", "b.png", "c.png"} - {name}
    (batch,) = data.val_dataloader()
    hr = torch.from_numpy(np.array(Image.open(root / name))[:48, :64]).permute(2, 0, 1)
    assert torch.equal(batch.hr[0], hr / 255)
    assert torch.equal(batch.lr[0], downscale(hr, 4) / 255)


# --- the stream ---


def test_resumed_data_continue_the_stream(photographs):
    root = photographs("a.png", "b.png")
    whole = [batch.index.tolist() for _ in range(3) for batch in prepared(root).train_dataloader()]
    data, taken = prepared(root), []
    for batch in data.train_dataloader():
        taken.append(batch.index.tolist())
        if len(taken) == 1:
            break
    resumed = prepared(root)
    resumed.load_state_dict(data.state_dict())
    assert resumed.state_dict() == {"position": 4}
    assert next(iter(resumed.train_dataloader())).index.tolist() == [4, 5, 6, 7]
    assert whole[0] == taken[0]
    assert next(iter(data.train_dataloader())).index.tolist() == [4, 5, 6, 7]  # a loader made anew goes on


def test_seed_is_the_runs_unless_given(photographs, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert RealImages().seed == 7
    assert RealImages(seed=3).seed == 3


def test_pixels_become_floats_and_are_augmented_in_training_only(photographs):
    data = prepared(photographs("a.png", "b.png"), augmentation="plain", batch_size=16)
    raw = next(iter(data.train_dataloader()))
    assert raw.hr.dtype == torch.uint8
    evaluated = at(data, TrainerFn.FITTING, training=False).on_after_batch_transfer(raw, 0)
    assert torch.equal(evaluated.hr, raw.hr / 255)
    trained = at(data, TrainerFn.FITTING, training=True).on_after_batch_transfer(raw, 0)
    assert trained.hr.dtype == torch.float32
    assert not torch.equal(trained.hr, evaluated.hr)
    # flips and rotations only move pixels
    torch.testing.assert_close(trained.hr.sum((2, 3)), evaluated.hr.sum((2, 3)))
    again = data.on_after_batch_transfer(raw, 0)
    assert torch.equal(again.hr, trained.hr)
    assert data.on_after_batch_transfer("something else", 0) == "something else"


def test_a_trainer_takes_it_as_it_is(photographs):
    class Recorder(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))
            self.seen: list[PairBatch] = []

        def training_step(self, batch):
            self.seen.append(batch)
            return self.weight * batch.hr.mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    data = RealImages(str(photographs("a.png", "b.png")), patch_size=24, batch_size=4)
    trainer = L.Trainer(max_steps=5, logger=False, barebones=True, accelerator="cpu", limit_val_batches=0)
    trainer.fit(model := Recorder(), data)
    assert [batch.index[0].item() for batch in model.seen] == [0, 4, 8, 12, 16]
    assert model.seen[0].hr.dtype == torch.float32
    assert data.state_dict() == {"position": 20}


# --- images to upscale ---


def test_predict_takes_a_folder(photographs):
    root = photographs("a.png", "sub/b.png")
    rgba = np.dstack([np.asarray(Image.open(root / "a.png")), np.full((48, 64), 51, dtype=np.uint8)])
    Image.fromarray(rgba).save(root / "glass.png")
    images = {image.name: image for image in RealImages(predict_root=str(root)).predict_dataloader()}
    assert list(images) == ["a.png", "glass.png", "sub/b.png"]
    assert images["a.png"].alpha is None
    expected = torch.from_numpy(np.array(Image.open(root / "a.png"))).permute(2, 0, 1)[None] / 255
    assert torch.equal(images["a.png"].lr, expected)
    assert torch.equal(images["glass.png"].lr, expected)
    assert torch.equal(images["glass.png"].alpha, torch.full((1, 1, 48, 64), 0.2))


def test_predict_takes_a_file(photographs):
    root = photographs("a.png", "b.png")
    (image,) = RealImages(predict_root=str(root / "b.png")).predict_dataloader()
    assert image.name == "b.png"


@pytest.mark.parametrize(
    ("root", "error", "message"),
    [
        (None, ValueError, "add --data.init_args.predict_root FILE_OR_FOLDER"),
        ("nowhere", FileNotFoundError, "data.predict_root: no folder nowhere or"),
    ],
)
def test_predict_without_images(root, error, message):
    with pytest.raises(error, match=message):
        RealImages(predict_root=root).predict_dataloader()


# --- the photographs of the benchmark ---


@pytest.mark.realdata
def test_licences_among_photographs_are_no_images(data_root, tmp_path, photographs):
    root = photographs("a.png", "b.png")
    (root / "LICENCES.tsv").write_bytes((data_root / "UHD" / "LICENCES.tsv").read_bytes())
    with pytest.warns(UserWarning, match="LICENCES.tsv: not an image format"):
        prepared(root)


@pytest.mark.realdata
def test_set14_in_the_data_folder_is_found_by_name(data_root):
    sets = Benchmarks(["Set14"]).open(4)
    assert len(sets[0]) == 14
