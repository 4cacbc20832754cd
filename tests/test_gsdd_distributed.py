"""Two processes on the CPU (gloo) against one: the same latents, losses and set.

`ddp_fork` forks this process, so what the run left in its folder is all that comes back.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.diffusion_runs import MODEL, furthest, images, lines, provenance, small
from tests.gsdd_runs import PROXY, decode, invert, inverting, of_data, write_sr
from tests.run_records import logged

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork"),
    pytest.mark.usefixtures("decoded"),
]

TWO = ["--trainer.strategy", "ddp_fork", "--trainer.devices", "2"]
ALL_TERMS = "{mean: 1, second_moment: 0.01, fourier: 10, latent_diversity: 10, feature_diversity: 5}"


def latents(cli: Any) -> torch.Tensor:
    return load_file(cli.run_dir / "latents" / "latents.safetensors")["latents"]


def test_latents_and_set_are_those_of_one_process(tiny: list[str], tmp_path: Path) -> None:
    """In six steps of plain SGD, whose updates are in proportion to gradients; chunks of 2, 1, 2, 1, 2 and 1."""
    training = [
        *small(tiny),
        *inverting(write_sr(tmp_path / "sr.safetensors"), steps=3),
        *(f"{MODEL}optimizer", "{class_path: torch.optim.SGD, init_args: {lr: 0.001}}"),
        *(f"{MODEL}inversion", "{pixel: 10000, feature: 100}", f"{MODEL}matching", ALL_TERMS),
        *(f"{MODEL}stored_as", "float32", f"{MODEL}proxy", PROXY),
        *("--trainer.max_steps", "6", "--trainer.val_check_interval", "3"),
    ]
    two = invert(*training, *TWO)
    one = invert(*training, "--run.experiment", "one")
    assert (latents(two) - latents(one)).abs().max() < 1e-4
    for name in ("train/inversion_psnr", "train/loss", "train/matching_0", "train/matching_2", "train/latent_cosine"):
        values = logged(one.run_dir, name)
        assert logged(two.run_dir, name) == pytest.approx(values, rel=1e-4)
        assert max(values) - min(values) > 1e-4 * abs(values[0])
    assert logged(two.run_dir, "val/psnr_y") == pytest.approx(logged(one.run_dir, "val/psnr_y"), abs=1e-3)
    assert {path.name for path in two.run_dir.iterdir()} == {path.name for path in one.run_dir.iterdir()}

    options = [*small(tiny), *of_data(), f"{MODEL}init_from", str(two.run_dir), "--data.init_args.batch_size", "2"]
    first, second = tmp_path / "first", tmp_path / "second"
    decode(*options, *TWO, "--distilled.folder", str(first))
    decode(*options, "--distilled.folder", str(second))
    assert lines(first) == lines(second)
    assert len(images(first)) == 9
    assert furthest(images(first), images(second)) == 0
    assert provenance(first)["generator"] == provenance(second)["generator"]
