"""Two processes on the CPU (gloo) against one: the same adapter, memories and validation, and the same samples.

`ddp_fork` forks this process, so what the run left in its folder is all that comes back.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.diffusion_runs import (
    MODEL,
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
from tests.run_records import logged

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork"),
    pytest.mark.usefixtures("decoded"),
]

TWO = ["--trainer.strategy", "ddp_fork", "--trainer.devices", "2"]


@pytest.fixture
def arguments(tiny: list[str], tmp_path: Path) -> list[str]:
    return [*small(tiny), *adapting(write_model(tmp_path / "model")), "--data.init_args.validation", "2"]


def last(cli: Any) -> dict[str, torch.Tensor]:
    return torch.load(cli.run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_an_adapter_is_that_of_one_process(arguments: list[str]) -> None:
    """In eight steps of plain SGD, whose updates are in proportion to gradients; the minimax terms weigh much."""
    training = [
        *arguments,
        *(f"{MODEL}optimizer", "{class_path: torch.optim.SGD, init_args: {lr: 0.5}}"),
        *(f"{MODEL}losses.representativeness", "0.5", f"{MODEL}losses.diversity", "0.5", f"{MODEL}losses.memory", "4"),
        *("--data.init_args.augmentation", "strong", "--trainer.max_steps", "8", "--trainer.val_check_interval", "4"),
    ]
    two = fit_lora(*training, *TWO, "--data.init_args.batch_size", "4")
    one = fit_lora(*training, "--data.init_args.batch_size", "8", "--run.experiment", "one")
    first, second = (load_file(cli.run_dir / "adapter" / "adapter.safetensors") for cli in (two, one))
    assert max((first[name] - second[name]).abs().max().item() for name in first) < 1e-4
    saved, expected = last(two), last(one)
    assert saved.keys() == expected.keys()
    assert max((saved[name] - expected[name]).abs().max().item() for name in saved) < 1e-4
    assert expected["objective.minimax.real.pushed"].sum() == 64
    name = "val/denoising_loss"
    assert logged(two.run_dir, name) == pytest.approx(logged(one.run_dir, name), abs=1e-4)
    assert {path.name for path in two.run_dir.iterdir()} == {path.name for path in one.run_dir.iterdir()}


def test_samples_are_those_of_one_process(arguments: list[str], tmp_path: Path) -> None:
    """Seven samples in batches of two: one process has four, the other three, and both are counted."""
    adapter = fit_lora(*arguments).run_dir
    options = [*arguments, f"{MODEL}init_from", str(adapter), "--data.init_args.batch_size", "2", *budget(patches=7)]
    two, again, one = (tmp_path / name for name in ("two", "again", "one"))
    sample(*options, *TWO, "--distilled.folder", str(two))
    made = provenance(two)["samples"]
    assert (made["sampled"], made["from_cache"]) == (7, 0)
    sample(*options, *TWO, "--distilled.folder", str(again))
    made = provenance(again)["samples"]
    assert (made["sampled"], made["from_cache"]) == (0, 7)
    (tmp_path / "cache" / "samples").rename(tmp_path / "elsewhere")
    sample(*options, "--distilled.folder", str(one))
    assert lines(two) == lines(again) == lines(one)
    assert furthest(images(two), images(one)) == furthest(images(two), images(again)) == 0
