"""Runs of shipped configurations, and what they have in common."""

from __future__ import annotations

from pathlib import Path

from cli.app import SRDistillCLI
from main import main

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FULL = CONFIGS / "sr" / "full.yaml"
ON_DISTILLED = CONFIGS / "sr" / "distilled.yaml"
ON_SAMPLES = CONFIGS / "sr" / "diffusion.yaml"
ON_DECODED = CONFIGS / "sr" / "gsdd.yaml"
ON_EDITED = CONFIGS / "sr" / "tripled.yaml"


def names(files: list[Path]) -> list[str]:
    return [file.stem for file in files]


def run(command: str, files: list[Path], *args: str) -> SRDistillCLI:
    configs = [arg for file in files for arg in ("--config", str(file))]
    cli = main([command, *configs, *args])
    assert cli is not None
    return cli


def whole_chain(files: list[Path], args: list[str]) -> None:
    """Fit, validate, test, and fit on."""
    assert run("fit", files, *args).trainer.global_step == 2
    for command in ("validate", "test"):
        assert (run(command, files, *args, "--ckpt_path", "best").run_dir / "results.json").is_file()
    resumed = run("fit", files, *args, "--ckpt_path", "last", "--trainer.max_steps", "3")
    assert resumed.trainer.global_step == 3
    assert (resumed.run_dir / "weights.safetensors").is_file()
