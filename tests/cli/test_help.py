"""Help is quick, because it imports little, and says what a newcomer needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from main import main

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"diffusers", "open_clip", "peft", "wandb", "spandrel", "skimage", "sklearn", "timm"}
"""Not transformers: torchmetrics, which lightning imports, imports that wherever it is installed."""


def imported_by(*args: str) -> set[str]:
    """Top-level packages that a command imports, and that it succeeds."""
    program = (
        "import sys\nfrom main import main\n"
        f"try:\n    main({list(args)!r})\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print('\\nIMPORTED', *sys.modules)"
    )
    command = [sys.executable, "-c", program]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return {name.partition(".")[0] for name in shown.rpartition("IMPORTED ")[2].split()}


@pytest.mark.parametrize("args", [["--help"], ["-h"], []])
def test_top_level_help_imports_no_framework(args: list[str]) -> None:
    assert not imported_by(*args) & {"torch", "lightning", "jsonargparse", "numpy"}


def test_help_of_a_command_imports_nothing_heavy() -> None:
    assert not imported_by("fit", "--help") & HEAVY


def test_help_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["fit", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith("usage: ")
    assert shown.index("--run.experiment") < shown.index("--model") < shown.index("--data") < shown.index("--trainer.")
    for detail in ("--ckpt_path", "--checkpoint.every_n_steps", "--ema.decay", "newest fit, or a checkpoint file"):
        assert detail in shown
    assert "--weights_only" not in shown  # never unpickled, so no option


@pytest.mark.parametrize(
    ("option", "details"),
    [
        (
            ["--data.help", "RealImages"],
            ["--data.root", "--data.patch_size", "--data.benchmarks.sets"],
        ),
        (["--model.help", "SuperResolution"], ["--model.network.architecture", "--model.init_from", "tiles in pixels"]),
    ],
)
def test_help_of_a_class(option: list[str], details: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["fit", *option])
    shown = capsys.readouterr().out
    assert all(detail in shown for detail in details)
