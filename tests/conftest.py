"""Shared fixtures. Every test runs on one torch thread: two contend on small machines."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.benchmarks import Benchmarks
from datamodules.real import RealImages

torch.set_num_threads(1)
os.environ.setdefault("WANDB_MODE", "disabled")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder with Set5, Set14, BSD100 and BSD400, named by SRDISTILL_DATA."""
    if not os.environ.get("SRDISTILL_DATA"):
        pytest.skip("SRDISTILL_DATA is not set")
    return Path(os.environ["SRDISTILL_DATA"])


@pytest.fixture(autouse=True)
def _private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores of one test never meet those of another, or the user's."""
    monkeypatch.setenv("SRDISTILL_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _wandb_forgets() -> None:
    """W&B keeps the settings that it first met in a process, such as WANDB_MODE, for all later runs."""
    wandb = sys.modules.get("wandb")
    if wandb is not None:
        wandb.teardown()


@pytest.fixture(scope="session")
def tiny_photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four smooth pictures of 96 x 96 pixels."""
    folder = tmp_path_factory.mktemp("data") / "tiny"
    folder.mkdir()
    for seed in range(4):
        noise = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((96, 96), Image.Resampling.BICUBIC).save(folder / f"{seed}.png")
    return folder


@pytest.fixture
def tiny(tiny_in: Callable[[Path], list[str]], tmp_path: Path) -> list[str]:
    """Command line that makes a run take a second: `main(["fit", *tiny])`; runs lie in tmp_path / "runs"."""
    return tiny_in(tmp_path / "runs")


@pytest.fixture
def tiny_but_network(tiny: list[str]) -> list[str]:
    """The same for the network that a configuration names."""
    network = tiny.index("--model.init_args.network")
    return tiny[:network] + tiny[network + 2 :]


@pytest.fixture(scope="session")
def tiny_in(tiny_photographs: Path) -> Callable[[Path], list[str]]:
    """The same command line for a folder of runs, for fixtures that several tests share."""
    return lambda root: [
        *("--run.root", str(root)),
        *("--data.init_args.root", str(tiny_photographs)),
        *("--data.init_args.benchmarks.root", str(tiny_photographs.parent)),
        *("--data.init_args.benchmarks.sets", "[tiny]"),
        *("--data.init_args.patch_size", "32"),
        *("--data.init_args.batch_size", "2"),
        *("--model.init_args.network", "{architecture: EDSR, options: {n_feats: 4, n_resblocks: 1}}"),
        *("--trainer.accelerator", "cpu"),
        *("--trainer.max_steps", "2"),
        *("--trainer.val_check_interval", "1"),
        *("--trainer.log_every_n_steps", "1"),
        *("--trainer.num_sanity_val_steps", "0"),
        *("--trainer.enable_progress_bar", "false"),
        *("--trainer.enable_model_summary", "false"),
    ]


@pytest.fixture
def decoded(tiny_photographs: Path) -> None:
    """For tests that fork: a forked process has none of torch's threads, in which photographs are decoded."""
    RealImages(str(tiny_photographs), scale=4, patch_size=32).prepare_data()


@pytest.fixture
def tiny_images(tiny_photographs: Path) -> RealImages:
    """Three of the pictures to train on (13 steps of 2 patches an epoch), one to validate on, and all as test set."""
    benchmarks = Benchmarks(["tiny"], root=str(tiny_photographs.parent))
    return RealImages(str(tiny_photographs), scale=2, patch_size=32, batch_size=2, seed=0, benchmarks=benchmarks)


@pytest.fixture
def quick_trainer(tmp_path: Path) -> Callable[..., L.Trainer]:
    """Makes a Trainer for a few steps on the CPU without a logger; keyword arguments as for Trainer."""

    def make(**options: Any) -> L.Trainer:
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        quick = {"max_steps": 4, "val_check_interval": 2, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0}
        L.seed_everything(0, verbose=False)
        return L.Trainer(
            **{"accelerator": "cpu", "logger": False, "default_root_dir": tmp_path, **quiet, **quick, **options}
        )

    return make
