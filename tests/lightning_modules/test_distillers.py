"""Distillers: which patches `predict` goes over, and what relabelling makes of them.

Independent sources: Pillow's pixels of the photographs, and the mix of targets computed in NumPy from one call of the
same network per patch.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import RealImages
from datamodules.bicubic import downscale
from datamodules.distilled import DistilledPatch
from lightning_modules import Distiller, PatchSelection, Relabelling
from lightning_modules.networks.trained import TrainedNetwork
from main import main

RNG = np.random.default_rng(0)


def patch(height: int, width: int, scale: int = 4, **metadata: object) -> DistilledPatch:
    """Noise that no network would make."""
    hr, lr = (RNG.integers(0, 256, (height // by, width // by, 3), dtype=np.uint8) for by in (1, scale))
    return DistilledPatch(hr, lr, metadata)


@pytest.fixture
def sub_images(tiny_photographs: Path) -> RealImages:
    """Overlapping squares of 48 pixels of three pictures."""
    data = RealImages(str(tiny_photographs), scale=2, patch_size=32, sub_image=48, batch_size=4, seed=0)
    data.setup("fit")
    return data


def test_patches_are_the_training_windows_in_order(sub_images: RealImages, tiny_photographs: Path) -> None:
    patches = list(sub_images.distilled_patches())
    assert len(patches) == 3 * 9
    held_out = {name for _, name in sub_images.held_out}
    assert {p.metadata["source"] for p in patches} == {f"{n}.png" for n in range(4)} - held_out
    for p in patches:
        whole = np.asarray(Image.open(tiny_photographs / p.metadata["source"]))
        top, left = p.metadata["top"], p.metadata["left"]
        assert np.array_equal(p.hr, whole[top : top + 48, left : left + 48])
        reduced = downscale(torch.from_numpy(whole.copy()).permute(2, 0, 1), 2).permute(1, 2, 0).numpy()
        assert p.lr is not None
        assert np.array_equal(p.lr, reduced[top // 2 : top // 2 + 24, left // 2 : left // 2 + 24])
    corners = [(p.metadata["top"], p.metadata["left"]) for p in patches[:9]]
    assert corners == [(top, left) for top in (0, 24, 48) for left in (0, 24, 48)]


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_take_turns(sub_images: RealImages, processes: int) -> None:
    """Batch i of process r is number i * processes + r: put in that order they are what one process gets."""
    numbered = {}
    for rank in range(processes):
        module = PatchSelection()
        module._trainer = SimpleNamespace(global_rank=rank, world_size=processes)
        for step, batch in enumerate(module.predict_data(sub_images)):
            numbered[step * processes + rank] = [p.metadata for p in module.predict_step(batch, step)]
    assert sorted(numbered) == list(range(7))  # 27 patches in batches of 4
    assert [len(numbered[n]) for n in range(7)] == [4] * 6 + [3]
    assert [one for n in range(7) for one in numbered[n]] == [p.metadata for p in sub_images.distilled_patches()]


def test_a_method_may_draw_from_something_else(sub_images: RealImages) -> None:
    """As one that samples from seeds will."""

    class Dots(Distiller):
        method = "dots"

        def batches(self, data):
            return [range(3), range(3, 5)]

        def predict_step(self, batch, batch_idx):
            return [DistilledPatch(np.full((4, 4, 3), seed, np.uint8), None, {"seed": seed}) for seed in batch]

    module = Dots()
    module._trainer = SimpleNamespace(global_rank=0, world_size=1)
    made = [
        one for step, batch in enumerate(module.predict_data(sub_images)) for one in module.predict_step(batch, step)
    ]
    assert [one.metadata["seed"] for one in made] == [0, 1, 2, 3, 4]


def test_a_method_keeps_all_that_it_makes_unless_it_says_otherwise() -> None:
    assert PatchSelection().keep(lambda: pytest.fail("read the patches again")) is None


@pytest.fixture(scope="module")
def teacher(tiny_in, tmp_path_factory) -> Path:
    """The run folder of a fit, x4."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as context:
        context.setenv("SRDISTILL_CACHE", str(root / "cache"))
        return main(["fit", *tiny_in(root), "--trainer.limit_val_batches", "0"]).run_dir


def ready(teacher: str | Path, **options: object) -> Relabelling:
    """Set up as the Trainer does it, for data at x4."""
    module = Relabelling(str(teacher), **options).eval()
    module._trainer = SimpleNamespace(datamodule=SimpleNamespace(scale=4))
    module.setup("predict")
    return module


@torch.inference_mode()
def answer(module: Relabelling, lr: np.ndarray) -> np.ndarray:
    image = torch.from_numpy(lr).permute(2, 0, 1)[None].float() / 255
    return module.network(image)[0].permute(1, 2, 0).numpy()


@torch.inference_mode()
@pytest.mark.parametrize("weight", [0.25, 0.5, 1])
def test_targets_are_the_mix_clipped_and_rounded_once(teacher: Path, weight: float) -> None:
    module = ready(teacher, weight=weight)
    batch = [patch(32, 32, score=1.5, source="a.png"), patch(64, 48), patch(32, 32, pseudo_label=3)]
    made = module.predict_step(batch, 0)
    for given, relabelled in zip(batch, made, strict=True):  # three patches of two sizes, in the order given
        assert relabelled.lr is given.lr
        assert relabelled.metadata == given.metadata
        mixed = (1 - weight) * (given.hr / 255) + weight * answer(module, given.lr)
        exact = np.clip(mixed, 0, 1) * 255
        assert relabelled.hr.dtype == np.uint8
        assert relabelled.hr.shape == given.hr.shape
        assert np.abs(relabelled.hr - exact).max() <= 0.5 + 1e-3  # nothing but one rounding
        assert (relabelled.hr != given.hr).any()


@torch.inference_mode()
def test_memory_is_bounded(teacher: Path) -> None:
    """Large photographs go through the teacher one by one, in tiles no larger than four patches of the quickstart."""
    module = ready(teacher, weight=1)
    seen = []
    module.network.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    small = module.predict_step([patch(256, 256) for _ in range(16)], 0)
    assert len(small) == 16
    assert seen == [(16, 3, 64, 64)]
    seen.clear()
    wide = [patch(400 * 4, 340 * 4) for _ in range(2)]
    made = module.predict_step(wide, 1)
    assert set(seen) == {(1, 3, 256, 256)}
    for given, relabelled in zip(wide, made, strict=True):  # as in one piece, up to the rounding of a level
        whole = np.clip(answer(module, given.lr), 0, 1) * 255
        assert np.abs(relabelled.hr - whole).max() <= 0.5 + 1e-3


@pytest.mark.parametrize(
    ("file", "name"), [("/a/b.ckpt", "/a/b.ckpt"), ("/runs/fit/x/checkpoints/best.ckpt", "x/checkpoints/best.ckpt")]
)
def test_name_of_the_teacher(monkeypatch: pytest.MonkeyPatch, file: str, name: str) -> None:
    monkeypatch.setattr("lightning_modules.relabelling.find_weights", Path)  # whether there or not
    module = Relabelling(file)
    module._trained = TrainedNetwork(torch.nn.Identity(), 4, "12ab", {})
    assert module.record()["teacher"]["file"] == name


@torch.inference_mode()
def test_self_ensemble_is_the_mean_over_eight_symmetries(teacher: Path) -> None:
    module, given = ready(teacher, weight=1, self_ensemble=True), patch(32, 48)
    views = []
    for turns in range(4):
        for mirror in (False, True):
            view = np.rot90(given.lr, turns)[:, :: -1 if mirror else 1]
            views.append(np.rot90(answer(module, view.copy())[:, :: -1 if mirror else 1], -turns))
    exact = np.clip(np.mean(views, axis=0), 0, 1) * 255
    (made,) = module.predict_step([given], 0)
    assert np.abs(made.hr - exact).max() <= 0.5 + 1e-3
    (plain,) = ready(teacher, weight=1).predict_step([given], 0)
    assert (plain.hr != made.hr).any()


@pytest.mark.parametrize("weight", [0, -0.5, 1.5])
def test_weight_out_of_range(weight: float) -> None:
    with pytest.raises(ValueError, match=rf"model\.weight is {weight}; expected the teacher's share, above 0"):
        Relabelling("anything", weight=weight)


def test_a_teacher_at_another_scale_is_refused(teacher: Path) -> None:
    module = Relabelling(str(teacher))
    module._trainer = SimpleNamespace(datamodule=SimpleNamespace(scale=2))
    with pytest.raises(ValueError, match=r"upscales x4 but data\.scale is 2; give a teacher trained at"):
        module.setup("predict")


def test_a_missing_teacher_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no_such_run"):
        ready(tmp_path / "no_such_run")
