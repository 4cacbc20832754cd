"""SyntheticPatches: a distilled set in place of photographs, validated on the photographs that RealImages holds out."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from datamodules import RealImages, SyntheticPatches
from datamodules.bicubic import downscale
from datamodules.distilled import DistilledPatch, write_distilled
from main import main


def position_patches(count: int, side: int, scale: int = 4) -> list[DistilledPatch]:
    """HR with red = number, green = row, blue = column; LR the same in LR pixels, and 100 more in red."""

    def coordinates(red: int, length: int) -> np.ndarray:
        rows, columns = np.mgrid[:length, :length]
        return np.stack([np.full_like(rows, red), rows, columns], axis=2).astype(np.uint8)

    return [
        DistilledPatch(coordinates(number, side), coordinates(100 + number, side // scale), {"source": f"{number}.png"})
        for number in range(count)
    ]


def without_lr(patches: list[DistilledPatch]) -> list[DistilledPatch]:
    return [DistilledPatch(patch.hr, None, patch.metadata) for patch in patches]


MakeSet = Callable[..., Path]


@pytest.fixture
def distilled(tmp_path: Path) -> MakeSet:
    """`distilled(patches, method="x")` writes a set and returns its folder."""

    def make(patches: list[DistilledPatch] | None = None, scale: int = 4, **provenance: Any) -> Path:
        folder = tmp_path / "distilled"
        write_distilled(folder, position_patches(3, 48) if patches is None else patches, scale, provenance, True)
        return folder

    return make


def prepared(folder: Path, root: Path, **options: Any) -> SyntheticPatches:
    data = SyntheticPatches(str(folder), root=str(root), **{"patch_size": 32, "batch_size": 4, "seed": 0, **options})
    data.prepare_data()
    data.setup("fit")
    return data


# --- what is drawn ---


def test_crops_are_of_the_set_with_its_lr_in_register(distilled, tiny_photographs):
    batch = prepared(distilled(), tiny_photographs).training_patches().__getitems__(range(60))
    numbers = batch.hr[:, 0, 0, 0]
    assert set(numbers.tolist()) == {0, 1, 2}
    assert torch.equal(batch.lr[:, 0], (100 + numbers)[:, None, None].expand(-1, 8, 8))
    assert torch.equal(batch.lr[:, 1:].int() * 4, batch.hr[:, 1:, ::4, ::4].int())


@pytest.mark.parametrize("scale", [2, 4])
def test_without_lr_at_this_scale_it_is_the_bicubic_of_the_patch(distilled, tiny_photographs, scale):
    patches = position_patches(2, 48) if scale == 2 else without_lr(position_patches(2, 48))
    store = prepared(distilled(patches), tiny_photographs, scale=scale).patch_store
    for image, patch in enumerate(patches):
        expected = downscale(torch.from_numpy(patch.hr).permute(2, 0, 1), scale).permute(1, 2, 0)
        assert np.array_equal(store.lr(image), expected)


def test_patches_can_be_handed_on_with_their_metadata(distilled, tiny_photographs):
    patches = [
        DistilledPatch(patch.hr, patch.lr, {"pseudo_label": 1, "score": 2.5, "source": "x.png"})
        for patch in position_patches(3, 32)
    ]
    data = prepared(distilled(patches), tiny_photographs)
    again = write_distilled(data.distilled_set.folder.with_name("again"), data.distilled_patches(), 4, {})
    assert again.provenance["sha256"] == data.distilled_set.provenance["sha256"]


def test_validation_is_that_of_real_images(distilled, tiny_photographs):
    options = {"validation": 2, "split_seed": 5}
    synthetic = prepared(distilled(), tiny_photographs, **options)
    real = RealImages(str(tiny_photographs), patch_size=32, **options)
    real.prepare_data()
    real.setup("fit")
    assert synthetic.validation_images().names == real.validation_images().names


# --- what is recorded ---


def test_fingerprint_is_of_the_set(distilled, tiny_photographs):
    data = [prepared(distilled(some), tiny_photographs) for some in (None, position_patches(3, 48))]
    other = prepared(distilled(position_patches(2, 48)), tiny_photographs)
    real = RealImages(str(tiny_photographs))
    assert data[0].fingerprint == data[1].fingerprint
    assert len({data[0].fingerprint, other.fingerprint, real.fingerprint}) == 3


def test_budget_of_a_set_is_that_of_its_provenance(distilled, tiny_photographs):
    folder = distilled(full_pixels=69120, teacher={"file": "best.ckpt", "weight": 0.5})
    budget = prepared(folder, tiny_photographs).data_budget
    size = sum(path.stat().st_size for path in folder.glob("*/*.png"))
    assert (budget.images, budget.pixels, budget.bytes, budget.percent) == (3, 3 * 48 * 48, size, 10.0)
    assert budget.teacher == "best.ckpt, weight 0.5; its cost is unknown"


def test_budget_of_photographs_leaves_out_those_held_out(photographs):
    root = photographs("a.png", "b.png", "c.png", size=(50, 67))  # used without the pixels beyond multiples of four
    data = RealImages(str(root), patch_size=32, validation=1)
    data.prepare_data()
    data.setup("fit")
    left = {"a.png", "b.png", "c.png"} - set(data.validation_images().names)
    budget = data.data_budget
    assert (budget.images, budget.pixels, budget.percent) == (2, 2 * 48 * 64, 100)
    assert budget.bytes == sum((root / name).stat().st_size for name in left)


def leaks(data: SyntheticPatches) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data.validation_images()
    return [str(warning.message) for warning in caught]


def test_a_set_of_other_photographs_is_pointed_out(distilled, tiny_photographs):
    (line,) = leaks(prepared(distilled(source_fingerprint="another"), tiny_photographs))
    assert "was distilled from other photographs" in line
    assert "\n" not in line


def test_validating_on_photographs_that_were_distilled_is_pointed_out(distilled, tiny_photographs):
    source = RealImages(str(tiny_photographs)).fingerprint
    folder = distilled(source_fingerprint=source)  # of 0.png to 2.png of 4
    seeds = {RealImages(str(tiny_photographs), validation=1, split_seed=seed): seed for seed in range(20)}
    held_out = {}
    for data, seed in seeds.items():
        data.setup("fit")
        held_out[data.held_out[0][1]] = seed
    assert leaks(prepared(folder, tiny_photographs, validation=1, split_seed=held_out["3.png"])) == []
    (line,) = leaks(prepared(folder, tiny_photographs, validation=1, split_seed=held_out["1.png"]))
    assert line.startswith("1 of the 1 photographs that validate, such as 1.png, are in")
    # At another scale fingerprints are others, and say nothing.
    assert leaks(prepared(folder, tiny_photographs, scale=2)) == []


# --- mistakes ---


@pytest.mark.parametrize(
    ("side", "options", "message"),
    [
        (
            48,
            {"patch_size": 64},
            "data.patch_size is 64 but .* has patches of 48 x 48 .*; set a patch size of at most 48",
        ),
        (
            32,
            {"patch_size": 30, "scale": 3},
            r"patches of 32 x 32 pixels, .* no multiples of data\.scale 3; it was made for 4",
        ),
        (48, {"sub_image": 32}, "data.sub_image is 32 but only photographs are cut; set it to null"),
    ],
)
def test_settings_that_do_not_fit(distilled, tiny_photographs, side, options, message):
    with pytest.raises(ValueError, match=message):
        prepared(distilled(position_patches(2, side)), tiny_photographs, **options)


def test_a_folder_that_is_not_there(tiny_photographs):
    with pytest.raises(FileNotFoundError, match=r"data\.distilled: no folder nowhere or .*nowhere"):
        prepared(Path("nowhere"), tiny_photographs)


def test_photographs_are_no_distilled_set(tiny_photographs):
    with pytest.raises(FileNotFoundError, match=r"holds no provenance\.json, so it is no distilled set"):
        prepared(tiny_photographs, tiny_photographs)


def test_an_altered_file_stops_the_run(distilled, tiny_photographs):
    folder = distilled()
    Image.new("RGB", (48, 48)).save(folder / "images" / "000001.png")
    with pytest.raises(ValueError, match=r"images/000001\.png was altered"):
        prepared(folder, tiny_photographs)


# --- the command line ---


def run(folder: Path, tiny: list[str], *options: str) -> Any:
    return main(["fit", "--data", "SyntheticPatches", "--data.init_args.distilled", str(folder), *tiny, *options])


def test_trains_and_resumes_exactly(distilled, tiny):
    folder = distilled(full_pixels=69120)
    arguments = [*tiny, "--data.init_args.augmentation", "strong", "--checkpoint.every_n_steps", "1"]
    whole = run(folder, arguments, "--trainer.max_steps", "5")
    half = run(folder, arguments, "--trainer.max_steps", "3")
    checkpoint = str(half.run_dir / "checkpoints" / "last.ckpt")
    resumed = run(folder, arguments, "--trainer.max_steps", "5", "--ckpt_path", checkpoint)
    first, second, early = (load_file(cli.run_dir / "weights.safetensors") for cli in (whole, resumed, half))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], early[name]) for name in first)
    record = json.loads((whole.run_dir / "provenance.json").read_text())
    assert record["data_fingerprint"] == whole.datamodule.fingerprint
    assert record["data_budget"]["percent"] == 10.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.init_args.patch_size", "64"], "set a patch size of at most 48"),
        (["--data.init_args.distilled", "nowhere"], r"data\.distilled: no folder nowhere"),
    ],
)
def test_mistakes_on_the_command_line(distilled, tiny, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run(distilled(), tiny, *options)


def test_data_files_of_photographs_work_unchanged(capsys):
    with pytest.raises(SystemExit):
        main(
            [
                *("fit", "--config", "configs/data/bsd.yaml", "--data", "SyntheticPatches"),
                *("--data.init_args.distilled", "distilled/selected", "--print_config"),
            ]
        )
    printed = capsys.readouterr().out
    assert "class_path: datamodules.SyntheticPatches" in printed
    for line in ("distilled: distilled/selected", "root: BSD400", "validation: 20"):
        assert line in printed
