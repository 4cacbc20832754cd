"""Named test sets: every layout in use, and a clear word where a set is not as it should be."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import BenchmarkImages
from datamodules.benchmarks import Benchmarks
from datamodules.bicubic import downscale
from datamodules.evaluation import EvaluationSet


def open_set(root: Path, name: str = "Set", scale: int = 4, **options: bool) -> EvaluationSet:
    (images,) = Benchmarks([name], str(root), **options).open(scale)
    return images


def grey_lr(folder: Path, *names: str, size: tuple[int, int] = (16, 12)) -> None:
    """LR files that no downscale would give, so that it shows whether they are read."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (9, 9, 9)).save(folder / name)


def is_grey(images: EvaluationSet) -> list[bool]:
    return [bool((images.read(index)[0] == 9).all()) for index in range(len(images))]


@pytest.fixture
def paired(photographs) -> Path:
    """A set of two 48 x 64 images with LR for x4; the folder it lies in."""
    root = photographs("HR/b.png", "HR/a.png", folder="sets/Set").parent
    grey_lr(root / "Set" / "LRbicx4", "a.png", "b.png")
    return root


def test_paired_files_are_read(paired):
    images = open_set(paired)
    assert images.names == ["a.png", "b.png"]
    assert is_grey(images) == [True, True]
    lr, hr, index = images[1]
    assert (lr.shape, hr.shape, index) == ((3, 12, 16), (3, 48, 64), 1)
    assert torch.equal(hr, torch.from_numpy(np.array(Image.open(paired / "Set/HR/b.png"))).permute(2, 0, 1))


def test_lr_is_made_where_there_is_none_or_none_is_wanted(paired):
    for images in (open_set(paired, scale=2), open_set(paired, lr_files=False)):
        lr, hr, _ = images[0]
        assert torch.equal(lr, downscale(hr, hr.shape[1] // lr.shape[1]))


def test_hr_is_cropped_to_the_scale(photographs):
    root = photographs("HR/a.png", folder="sets/Set", size=(50, 67)).parent
    lr, hr, _ = open_set(root, scale=3)[0]
    assert hr.shape == (3, 48, 66)
    assert lr.shape == (3, 16, 22)


def test_hr_of_its_own_for_a_scale(photographs, paired):
    photographs("HRx2/c.png", folder="sets/Set")
    assert open_set(paired, scale=2).names == ["c.png"]
    assert open_set(paired, scale=4).names == ["a.png", "b.png"]


def test_images_directly_in_the_folder(photographs):
    root = photographs("a.png", "b.png", folder="sets/Set").parent
    assert is_grey(open_set(root)) == [False, False]
    grey_lr(root / "Set" / "LRbicx4", "a.png", "b.png")
    assert is_grey(open_set(root)) == [True, True]


def test_other_folders_are_not_taken_for_hr(photographs):
    root = photographs("HRx2/a.png", "LRbicx2/a.png", folder="sets/Set").parent
    with pytest.raises(FileNotFoundError, match=r"test set Set: .* holds no HR, no HRx4 and no images of its own"):
        open_set(root, scale=4)


def test_lr_names_may_end_in_the_scale(paired):
    shutil.rmtree(paired / "Set" / "LRbicx4")
    grey_lr(paired / "Set" / "LRbicx4", "ax4.png", "bx4.png")
    assert is_grey(open_set(paired)) == [True, True]


def test_names_that_end_in_the_scale_by_themselves(photographs):
    root = photographs("HR/tax4.png", folder="sets/Set").parent
    grey_lr(root / "Set" / "LRbicx4", "tax4.png")
    assert is_grey(open_set(root)) == [True]


def test_folders_within_hr(photographs):
    root = photographs("HR/u/a.png", "HR/v/a.png", folder="sets/Set").parent
    grey_lr(root / "Set" / "LRbicx4", "u/a.png", "v/a.png")
    images = open_set(root)
    assert images.names == ["u/a.png", "v/a.png"]
    assert is_grey(images) == [True, True]


def test_a_mismatch_gives_folders_counts_and_names(paired):
    (paired / "Set/HR/a.png").unlink()
    (paired / "Set/LRbicx4/b.png").unlink()
    grey_lr(paired / "Set/LRbicx4", "d.png")
    with pytest.raises(FileNotFoundError, match=r"1 HR images in .*HR but 2 LR images in .*LRbicx4") as error:
        open_set(paired)
    assert "without LR: b; without HR: a, d; expected STEM.png (or STEMx4.png)" in str(error.value)


def test_one_lr_for_two_hr_is_a_mismatch(paired):
    Image.open(paired / "Set/HR/a.png").save(paired / "Set/HR/a.bmp")
    with pytest.raises(FileNotFoundError, match=r"3 HR images in .* but 2 LR images"):
        open_set(paired)


def test_lr_of_another_size(paired):
    grey_lr(paired / "Set/LRbicx4", "b.png", size=(16, 11))
    with pytest.raises(ValueError, match=r"LRbicx4/b.png: LR is 16 x 11 pixels but b.png at x4 asks for 16 x 12"):
        open_set(paired)[1]


def test_a_damaged_image_is_named(paired):
    (paired / "Set/HR/a.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"HR/a.png: not an image"):
        open_set(paired)[0]


def test_a_missing_set_says_where_to_put_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"test set Urban100: no folder .*sets/Urban100; put its images into "):
        open_set(tmp_path / "sets", "Urban100")


def test_where_sets_lie(paired, monkeypatch):
    monkeypatch.setenv("SRDISTILL_DATA", str(paired))
    assert len(Benchmarks(["Set"]).open(4)[0]) == 2
    monkeypatch.setenv("SRDISTILL_DATA", str(paired.parent))
    assert len(Benchmarks(["Set"], "sets").open(4)[0]) == 2


def test_the_embedded_set_is_two_photographs_not_trained_on():
    (images,) = Benchmarks().open(4)
    assert images.name == "Embedded"
    assert images.names == ["chelsea.png", "china.jpg"]
    lr, hr = images.read(0)
    assert hr.shape == (300, 448, 3)  # chelsea.png is 300 x 451
    assert lr.shape == (75, 112, 3)


def test_every_set_is_a_loader_of_whole_float_images(paired):
    data = BenchmarkImages(4, Benchmarks(["Set", "Embedded"], str(paired)))
    data.prepare_data()
    loaders = data.test_dataloader()
    assert [loader.dataset.name for loader in loaders] == ["Set", "Embedded"]
    batches = list(loaders[0])
    assert [batch.index.tolist() for batch in batches] == [[0], [1]]
    assert batches[0].hr.dtype == torch.float32
    assert batches[0].hr.shape == (1, 3, 48, 64)
    assert batches[0].hr.max() <= 1
    assert len(data.val_dataloader()) == 2


def test_only_missing_public_sets_are_fetched(paired, monkeypatch):
    fetched = []
    monkeypatch.setattr("datamodules.download.fetch", lambda name, root: fetched.append((name, root)))
    sets = ["Set", "Embedded", "Urban100"]
    Benchmarks(sets, str(paired)).prepare()
    Benchmarks(sets, str(paired), download=True).prepare()
    assert fetched == [("Urban100", paired)]


@pytest.mark.realdata
@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("name", ["Set5", "Set14"])
def test_public_files_pair_and_equal_our_bicubic(data_root, name, scale):
    """The LR files come from MATLAB; Set14 has HR of its own for x2."""
    read, made = (open_set(data_root, name, scale, lr_files=files) for files in (True, False))
    assert len(read) == int(name[3:])
    assert ("HRx2" in str(read._files[0].hr)) == (name == "Set14" and scale == 2)
    for index in (0, len(read) - 1):
        for from_file, computed in zip(read.read(index), made.read(index), strict=True):
            assert np.array_equal(from_file, computed)
