"""Sampling a distilled set: what is there already is not made again, no batch size matters, and the best are kept.

Entropies are Pillow's, quotas are counted, and samples that start from photographs are compared with these.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from datamodules.crops import CropDataset
from lightning_modules.diffusion.patch_sampler import PatchSampler
from tests.diffusion_runs import (
    CLASSES,
    MODEL,
    SIDE,
    adapting,
    budget,
    fit_lora,
    furthest,
    images,
    lines,
    provenance,
    sample,
    small,
    write_model,
)

BEST = [f"{MODEL}keep", "{criterion: GreyEntropy, filters: [], selector: Highest}"]
HR_PIXELS = 3 * 96**2
"""Of the photographs that are trained on."""


@pytest.fixture(scope="module")
def trained(tiny_in, tmp_path_factory) -> SimpleNamespace:
    """A model, and the options of runs that sample with an adapter of it."""
    root = tmp_path_factory.mktemp("sampling")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRDISTILL_CACHE", str(root / "cache"))
        options = [*small(tiny_in(root / "runs")), *adapting(write_model(root / "model"))]
        fit = fit_lora(*options, f"{MODEL}optimizer.init_args.lr", "0.1")
    return SimpleNamespace(fit=fit, options=options, sampling=[*options, f"{MODEL}init_from", str(fit.run_dir)])


@pytest.fixture
def sampled(trained: SimpleNamespace, tmp_path: Path) -> Callable[..., Path]:
    """Samples with more options; gives the folder of the set."""

    def make(*args: str) -> Path:
        folder = tmp_path / f"set{len(list(tmp_path.glob('set*')))}"
        sample(*trained.sampling, "--distilled.folder", str(folder), *args)
        return folder

    return make


@pytest.fixture
def real(trained: SimpleNamespace) -> CropDataset:
    """The patches that the adapter was trained on."""
    patches: CropDataset = trained.fit.datamodule.training_patches()
    return patches


@pytest.fixture
def forget(tmp_path: Path) -> Callable[[], None]:
    """Empties the cache of samples."""
    return lambda: shutil.rmtree(tmp_path / "cache" / "samples")


def entropy(picture: np.ndarray) -> float:
    return Image.fromarray(picture).convert("L").entropy()


def test_an_interrupted_prediction_goes_on(
    sampled: Callable[..., Path], forget: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of nine samples in batches of four, the last is missing; in batches of five, noise is the same."""
    made = PatchSampler._sampled

    def fails_at_the_end(self, requests, device):
        if len(requests) < 4:
            raise RuntimeError("out of memory")
        return made(self, requests, device)

    with monkeypatch.context() as patch:
        patch.setattr(PatchSampler, "_sampled", fails_at_the_end)
        with pytest.raises(RuntimeError, match="out of memory"):
            sampled(*budget(ipc=3))
    assert not (tmp_path / "set0").exists()
    resumed = sampled(*budget(ipc=3))
    record = provenance(resumed)
    assert (record["samples"]["sampled"], record["samples"]["from_cache"]) == (1, 8)
    assert record["seconds"] > record["samples"]["seconds_before"] > 0
    forget()
    at_once = sampled(*budget(ipc=3), "--data.init_args.batch_size", "5")
    assert provenance(at_once)["samples"] == {"sampled": 9, "from_cache": 0, "seconds_before": 0.0}
    assert lines(resumed) == lines(at_once)
    assert furthest(images(resumed), images(at_once)) <= 1
    assert len({picture.tobytes() for picture in images(at_once)}) == 9


def test_a_larger_set_begins_with_the_smaller_and_the_best_of_more_are_kept(sampled: Callable[..., Path]) -> None:
    """By Pillow's entropy, class by class; the samples that are chosen from are those of the larger budget."""
    few, many = sampled(*budget(ipc=1)), sampled(*budget(ipc=5))
    best = sampled(*budget(ipc=2), f"{MODEL}oversample", "2.5", *BEST)
    assert [provenance(made)["samples"]["from_cache"] for made in (few, many, best)] == [0, CLASSES, 5 * CLASSES]
    for label in range(CLASSES):
        of_class = {
            made: [
                picture
                for picture, line in zip(images(made), lines(made), strict=True)
                if line["pseudo_label"] == label
            ]
            for made in (few, many, best)
        }
        assert np.array_equal(of_class[few][0], of_class[many][0])
        highest = sorted((entropy(picture) for picture in of_class[many]), reverse=True)[:2]
        assert sorted((entropy(picture) for picture in of_class[best]), reverse=True) == highest
        assert {picture.tobytes() for picture in of_class[best]} <= {picture.tobytes() for picture in of_class[many]}


def test_budget_of_all_classes_together(
    real: CropDataset, sampled: Callable[..., Path], forget: Callable[[], None], tmp_path: Path
) -> None:
    """10 % of the pixels, shared like the real patches; and the best four of all, whatever their classes."""
    tenth = sampled(*budget(percent=10))
    count = round(0.1 * HR_PIXELS / SIDE**2)
    assert len(lines(tenth)) == count
    shares = count * np.bincount(real.labels) / len(real.labels)
    made = np.bincount([line["pseudo_label"] for line in lines(tenth)], minlength=CLASSES)
    assert np.abs(made - shares).max() < 1
    forget()
    best = sampled(*budget(patches=4), f"{MODEL}oversample", "2", *BEST)
    made = [np.load(file)["hr"] for file in (tmp_path / "cache" / "samples").rglob("*.npz")]
    assert len(made) == 8
    highest = sorted((entropy(picture) for picture in made), reverse=True)[:4]
    assert sorted((entropy(picture) for picture in images(best)), reverse=True) == highest


def test_a_start_from_photographs_stays_near_them(real: CropDataset, sampled: Callable[..., Path]) -> None:
    """One step of fifty, at the lowest noise, by a model that knows nothing; from noise alone it is far off."""
    near = sampled(*budget(ipc=3), f"{MODEL}sampler.steps", "50", f"{MODEL}sampler.strength", "0.02")
    far = sampled(*budget(ipc=3))
    pixels, labels = real.whole(range(len(real.windows))).hr.permute(0, 2, 3, 1).numpy().astype(float), real.labels

    def nearest(made: Path) -> list[tuple[float, int]]:
        found = []
        for picture, line in zip(images(made), lines(made), strict=True):
            members = np.flatnonzero(labels == line["pseudo_label"])
            distances = np.abs(pixels[members] - picture).mean((1, 2, 3))
            found.append((distances.min(), int(members[distances.argmin()])))
        return found

    distances, patches = zip(*nearest(near), strict=True)
    assert max(distances) < 8
    assert min(distance for distance, _ in nearest(far)) > 24
    assert len(set(patches)) == 3 * CLASSES  # the smallest class has three


def test_noise_of_each_step_does_not_mind_the_batch_either(
    sampled: Callable[..., Path], forget: Callable[[], None]
) -> None:
    options = [*budget(ipc=2), f"{MODEL}sampler.method", "ddpm", f"{MODEL}sampler.guidance", "2"]
    first = sampled(*options)
    forget()
    second = sampled(*options, "--data.init_args.batch_size", "6")
    assert furthest(images(first), images(second)) <= 1
    assert len({picture.tobytes() for picture in images(second)}) == 2 * CLASSES


def test_features_as_condition(trained: SimpleNamespace, sampled: Callable[..., Path]) -> None:
    """Each sample has the features of a real patch of its class."""
    features = [f"{MODEL}condition", "features"]
    fit = fit_lora(*trained.options, *features)
    learnt = load_file(fit.run_dir / "adapter" / "adapter.safetensors")
    assert {name.rpartition("class_embedder.")[2] for name in learnt if "class_embedder" in name} == {
        "projection.weight",
        "projection.bias",
        "null",
    }
    made = sampled(*features, f"{MODEL}init_from", str(fit.run_dir / "adapter"), *budget(ipc=2))
    assert provenance(made)["model"]["condition"] == "features"
    assert [line["pseudo_label"] for line in lines(made)] == [0, 0, 1, 1, 2, 2]


def test_diff_fit(trained: SimpleNamespace, sampled: Callable[..., Path]) -> None:
    """Biases, scales and class tables are trained and saved, and sampled with."""
    diff_fit = [f"{MODEL}adaptation", "DiffFit"]
    fit = fit_lora(*trained.options, *diff_fit)
    learnt = load_file(fit.run_dir / "adapter" / "adapter.safetensors")
    assert {name.rpartition(".")[2] for name in learnt} == {"bias", "output_scale", "weight"}
    assert [name for name in learnt if name.endswith("weight")] == [
        "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight"
    ]
    made = sampled(*diff_fit, f"{MODEL}init_from", str(fit.run_dir), *budget(ipc=1))
    assert provenance(made)["model"]["adaptation"] == {"class": "DiffFit"}
