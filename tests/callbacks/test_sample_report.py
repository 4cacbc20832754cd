"""What is said of samples: copies are found, blur is measured, and every figure against a plain computation."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from PIL import Image
from scipy.ndimage import gaussian_filter

from callbacks import sample_comparison, sample_report
from callbacks.distilled_writer import DistilledWriter
from callbacks.drawing import CAPTION, GAP
from callbacks.sample_comparison import Comparison, RealPatches, Samples, compare_patches
from callbacks.sample_figures import ABOUT, figures
from callbacks.sample_plots import LOOKS, psnr_plot, spectra_plot
from callbacks.sample_report import SampleReport
from callbacks.sample_sheet import COLUMNS, sample_sheet
from callbacks.sheets import CELL, MARGIN
from datamodules.bicubic import downscale, upscale
from datamodules.distilled import DistilledPatch
from datamodules.pair import PairBatch
from datamodules.real import RealImages
from datamodules.selected import SelectedPatches
from datamodules.selection import Budget, PseudoLabels
from datamodules.spectra import radial_spectrum
from lightning_modules.distiller import Distiller

SIDE, ROW = 32, CELL + CAPTION + 2 * GAP


class CopyistForTests(Distiller):
    """Every third training patch, blurred or as it is, with its pseudo-label."""

    method = "copies"
    synthesises = True

    def __init__(self, blur: float = 0, crop: int = SIDE) -> None:
        super().__init__()
        self.blur = blur
        self.crop = crop

    def batches(self, data: Any) -> Iterator[list[DistilledPatch]]:
        return iter([list(islice(data.distilled_patches(), 0, None, 3))])

    def predict_step(self, batch: list[DistilledPatch], batch_idx: int) -> list[DistilledPatch]:
        return [self._copy(patch) for patch in batch]

    def _copy(self, patch: DistilledPatch) -> DistilledPatch:
        hr = gaussian_filter(patch.hr, (self.blur, self.blur, 0))[: self.crop, : self.crop]
        return DistilledPatch(hr, None, {"pseudo_label": patch.metadata.get("pseudo_label")})


class PictureLoggerForTests(CSVLogger):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.pictures: dict[str, Image.Image] = {}

    def log_image(self, key: str, images: list[Image.Image], step: int) -> None:
        self.pictures[key] = images[0]


@pytest.fixture
def selected(tiny_photographs: Path) -> SelectedPatches:
    """All 27 patches of three photographs, in two pseudo-classes."""
    return SelectedPatches(
        root=str(tiny_photographs), scale=2, patch_size=SIDE, seed=0, budget=Budget(), pseudo_labels=PseudoLabels(2)
    )


@pytest.fixture
def predict(quick_trainer: Callable[..., L.Trainer], tmp_path: Path) -> Callable[..., Path]:
    """Predicts with a report; the folder that it wrote."""

    def run(module: Distiller, data: Any, report: SampleReport | None = None, **options: Any) -> Path:
        callbacks = [DistilledWriter(), report or SampleReport()]
        trainer = quick_trainer(callbacks=callbacks, **options)
        trainer.predict(module, datamodule=data, return_predictions=False)
        return tmp_path / "diagnostics"

    return run


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "diagnostics.json").read_text(encoding="utf-8"))


def cell(sheet: Image.Image, row: int, column: int, rows: int) -> np.ndarray:
    """Pixels of a cell of a sheet whose rows have as many columns as fit: they end at the right margin."""
    top = sheet.height - MARGIN - (rows - row) * ROW
    left = np.asarray(sheet)[top].min(1)
    first = int(np.flatnonzero(left < 255)[0])  # left of it, the first line of pixels has no text
    return np.asarray(sheet)[top : top + CELL, first + column * (CELL + GAP) :][:, :CELL]


def test_copies_are_found_out(predict, selected, tmp_path, monkeypatch):
    summary: dict[str, Any] = {}
    monkeypatch.setattr(sample_report, "summarise", lambda trainer, prefix, numbers: summary.update({prefix: numbers}))
    logger = PictureLoggerForTests(tmp_path / "log")
    folder = predict(CopyistForTests(), selected, logger=logger)
    numbers = read(folder)
    assert (numbers["samples"], numbers["real_patches"], numbers["searched_patches"]) == (9, 27, 27)
    assert numbers["nearest_distance"] == pytest.approx(0, abs=1e-4)
    assert numbers["nearest_distance_real"] > 0.1
    assert numbers["copied_share"] == numbers["class_agreement"] == 1
    assert numbers["features"] == {"class": "Descriptor"}
    assert summary["diagnostics"] == {name: numbers[name] for name in summary["diagnostics"]}
    assert ABOUT.keys() < summary["diagnostics"].keys()
    names = {"samples", "spectra", "psnr_bicubic"}
    assert {path.name for path in folder.iterdir()} == {"diagnostics.json"} | {f"{name}.png" for name in names}
    assert logger.pictures.keys() == {f"diagnostics/{name}" for name in names}
    assert np.array_equal(np.asarray(Image.open(folder / "samples.png")), logger.pictures["diagnostics/samples"])


def test_blur_is_measured(predict, selected):
    numbers = read(predict(CopyistForTests(blur=1.5), selected))
    hr = [patch.hr for patch in selected.distilled_patches()]
    blurred = [gaussian_filter(patch, (1.5, 1.5, 0)) for patch in hr[::3]]
    for key, patches in (("psnr_bicubic", blurred), ("psnr_bicubic_real", hr)):
        assert numbers[key] == pytest.approx(np.median([plain_psnr(patch) for patch in patches]), abs=1e-6)
    power = [np.mean([plain_power(patch) for patch in patches]) for patches in (blurred, hr)]
    assert numbers["high_frequency_ratio"] == pytest.approx(power[0] / power[1], rel=0.1)  # rings against their areas
    assert numbers["high_frequency_ratio"] < numbers["high_frequency_ratio_bicubic"]
    assert numbers["nearest_distance"] > 0.05
    assert numbers["kid"] > numbers["kid_real_halves"]


def test_images_of_latents_are_kept_in_the_cache_of_the_datamodule(predict, tiny_photographs, tmp_path, monkeypatch):
    folders: list[Path] = []
    monkeypatch.setattr(sample_comparison, "images_of", lambda images, cache, _: (folders.append(cache), images)[1])
    options = {"scale": 2, "patch_size": SIDE, "seed": 0, "budget": Budget(), "pseudo_labels": PseudoLabels(2)}
    predict(CopyistForTests(), SelectedPatches(root=str(tiny_photographs), cache_dir=str(tmp_path / "own"), **options))
    assert folders == [tmp_path / "own"]


def luma(patch: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(patch).convert("L")).astype(float)


def plain_psnr(patch: np.ndarray) -> float:
    """Of luma, at x2."""
    lr = downscale(torch.from_numpy(patch.copy()).permute(2, 0, 1), 2).permute(1, 2, 0).numpy()
    small = np.asarray(Image.fromarray(np.ascontiguousarray(lr)).convert("L"))
    large = upscale(torch.from_numpy(small.copy())[None], 2)[0].numpy()
    return 10 * np.log10(255**2 / np.mean((luma(patch) - large) ** 2))


def plain_power(patch: np.ndarray) -> float:
    """Beyond 0.25 and up to 0.5 cycles per pixel."""
    grey = luma(patch)
    window = np.outer(*[np.hanning(SIDE + 1)[:-1]] * 2)
    density = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2
    distance = np.hypot(*np.meshgrid(*[np.fft.fftfreq(SIDE)] * 2))
    return float(density[(distance > 0.25 + 0.5 / SIDE) & (distance < 0.5 + 0.5 / SIDE)].sum())


def test_without_classes_neighbours_are_searched_among_the_patches_drawn(predict, tiny_photographs, monkeypatch):
    monkeypatch.setattr(sample_comparison, "MOST", 12)
    data = SelectedPatches(root=str(tiny_photographs), scale=2, patch_size=SIDE, seed=0, budget=Budget())
    numbers = read(predict(CopyistForTests(), data))
    assert (numbers["samples"], numbers["real_patches"], numbers["searched_patches"]) == (9, 12, 12)
    assert numbers["class_agreement"] is None
    assert 0 < numbers["copied_share"] < 1  # some of the originals are not among the twelve


def test_with_classes_neighbours_are_searched_among_all(predict, selected, monkeypatch):
    monkeypatch.setattr(sample_comparison, "MOST", 12)
    numbers = read(predict(CopyistForTests(), selected))
    assert (numbers["real_patches"], numbers["searched_patches"]) == (12, 27)
    assert numbers["nearest_distance"] == pytest.approx(0, abs=1e-4)


def test_photographs_are_compared_with_by_crops(predict, tiny_photographs):
    class TopLeftForTests(CopyistForTests):
        def batches(self, data: Any) -> Iterator[list[DistilledPatch]]:
            return iter([list(data.distilled_patches())])

    data = RealImages(str(tiny_photographs), scale=2, patch_size=SIDE, seed=0)
    numbers = read(predict(TopLeftForTests(), data))
    assert (numbers["samples"], numbers["real_patches"], numbers["class_agreement"]) == (3, 27, None)


def test_writes_nothing_when_not_wanted(predict, selected, tmp_path):
    assert not predict(CopyistForTests(), selected, SampleReport(patches=0)).exists()


def test_patches_that_are_chosen_are_not_compared(predict, selected):
    module = CopyistForTests()
    module.synthesises = False
    assert not predict(module, selected).exists()


def test_what_cannot_be_compared_is_a_warning(predict, selected, tmp_path):
    message = "no diagnostics of the samples: samples have a side of 16 but training patches of 32"
    with pytest.warns(UserWarning, match=message):
        folder = predict(CopyistForTests(crop=16), selected)
    assert not folder.exists()
    assert (tmp_path / "distilled" / "provenance.json").is_file()


def test_refuses_a_negative_number():
    with pytest.raises(ValueError, match="sample_report: patches -1; expected the number to show, 0 for no report"):
        SampleReport(patches=-1)


def comparison(classes: list[int | None], photographs: int = 6, each: int = 5) -> Comparison:
    """Noise; the vectors of real patches are (photograph, number in it), and those of samples near them."""
    count = photographs * each
    numbers = torch.arange(count)
    groups = numbers // each
    real = noise(0, count)
    vectors = torch.stack([10.0 * groups, (numbers % each).float()], 1)
    pairs = PairBatch(downscale(real, 2), real, numbers, numbers % 3)
    read = lambda positions: PairBatch(  # noqa: E731
        *(values[list(positions)] for values in (pairs.lr, pairs.hr, pairs.index, pairs.label))
    )
    samples = vectors[: len(classes)] + torch.linspace(0.3, 0.1, len(classes))[:, None]
    patches = RealPatches(real, numbers, vectors, groups, read)
    return compare_patches(Samples(noise(1, len(classes)), classes), samples, patches, 2)


def noise(seed: int, count: int) -> torch.Tensor:
    drawn = np.random.default_rng(seed).integers(0, 256, (count, 3, SIDE, SIDE), dtype=np.uint8)
    return torch.from_numpy(drawn)


def test_classes_agree_with_those_of_the_neighbours():
    asked = [0, 1, 2, 0, 1, 0, 0, 0]  # of the nearest, number by number: 0 1 2 0 1 2 0 1
    assert figures(comparison(asked))["class_agreement"] == 6 / 8
    assert figures(comparison([0, None]))["class_agreement"] is None


def test_neighbours_of_real_patches_are_of_other_photographs():
    compared = comparison([None] * 4)
    other = compared.nearest_real.position // 5 != torch.arange(30) // 5
    assert other.all()
    assert compared.neighbours.position.tolist() == [0, 1, 2, 3]


def test_halves_have_no_photograph_in_common():
    """Whose patches differ by more than any two of one photograph, so that a common one would be seen."""
    compared = comparison([None] * 4)
    photographs = [{int(row) for row in half[:, 0] * 100} for half in halves(compared)]
    assert photographs[0]
    assert photographs[1]
    assert not photographs[0] & photographs[1]


def halves(compared: Comparison) -> tuple[torch.Tensor, torch.Tensor]:
    from callbacks.sample_figures import _halves

    return _halves(compared.vectors[1], compared.real.groups[compared.real.drawn])


def test_what_is_not_defined_is_null():
    alone = figures(comparison([None], photographs=1))
    for name in ("kid", "kid_real_halves", "energy_distance", "nearest_distance_real", "copied_share"):
        assert alone[name] is None
    assert alone["nearest_distance"] > 0
    assert json.loads(json.dumps(alone, allow_nan=False)) == alone


def enlarged(patch: torch.Tensor) -> np.ndarray:
    factor = CELL // SIDE
    return patch.permute(1, 2, 0).numpy().repeat(factor, 0).repeat(factor, 1)


def test_sheet_shows_samples_above_their_neighbours():
    compared = comparison([3, 1, 3, 1, 3, 1, 1, 1, 1, 1, 1, 1])
    sheet = sample_sheet(compared, patches=6)  # three of each
    closest = list(range(11, 1, -1))  # offsets of samples decrease
    members = {1: [1, 7, 11], 3: [0, 2, 4]}
    rows = [closest, closest, members[1], members[1], members[3], members[3]]
    for row, numbers in enumerate(rows):
        pixels = compared.real.pixels if row % 2 else compared.samples.pixels
        assert len(numbers) <= COLUMNS
        for column, number in enumerate(numbers):
            np.testing.assert_array_equal(cell(sheet, row, column, len(rows)), enlarged(pixels[number]))


def test_sheet_without_classes_goes_on_in_further_rows():
    compared = comparison([None] * 15)
    sheet = sample_sheet(compared, patches=64)
    for place in range(15):
        row, column = 2 + 2 * (place // COLUMNS), place % COLUMNS
        np.testing.assert_array_equal(cell(sheet, row, column, 6), enlarged(compared.samples.pixels[place]))
        np.testing.assert_array_equal(cell(sheet, row + 1, column, 6), enlarged(compared.real.pixels[place]))


def seen(picture: Image.Image, name: str) -> np.ndarray:
    """Columns in which the colour of a group is seen."""
    rgb = [int(LOOKS[name].colour[start : start + 2], 16) for start in (1, 3, 5)]
    return np.flatnonzero((np.abs(np.asarray(picture).astype(int) - rgb) < 30).all(2).any(0))


def test_spectra_of_flat_patches_are_left_out():
    flat, rough = torch.full((2, 3, SIDE, SIDE), 9, dtype=torch.uint8), noise(0, 4)
    spectra = {name: radial_spectrum(flat if name == "sampled" else rough) for name in LOOKS}
    picture = spectra_plot(spectra, 4, ["title"])
    assert len(seen(picture, "bicubic")) > 500
    assert not len(seen(picture, "sampled"))
    assert picture.size == (1650, 750)
    assert spectra_plot({"real": radial_spectrum(flat)}, 4, ["nothing to draw"]).size == (1650, 750)


def test_bars_of_the_samples_lie_where_their_scores_are():
    real = torch.linspace(20, 40, 401).double()
    picture = psnr_plot(real, torch.linspace(25, 30, 101).double(), ["title"])
    lowest = np.asarray(picture)[560:580]  # in the bars, above the axis
    grey = np.flatnonzero((np.abs(lowest.astype(int) - 198) < 6).all(2).all(0))
    bars = seen(Image.fromarray(lowest), "sampled")
    ends = (bars[[0, -1]] - grey[0]) / (grey[-1] - grey[0])
    np.testing.assert_allclose(ends, [0.25, 0.5], atol=0.04)


def test_a_flat_patch_does_not_squeeze_the_others_together():
    real = torch.cat([torch.linspace(20, 40, 5000), torch.tensor([100.0])]).double()
    picture = psnr_plot(real, torch.linspace(20, 40, 50).double(), ["title"])
    bars = seen(picture.crop((0, 200, 1350, 500)), "sampled")  # below the legend, above the axis
    assert bars[-1] - bars[0] > 1000
