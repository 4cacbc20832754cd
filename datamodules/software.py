"""Which software made a result: commit, packages, platform."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "torchvision",
    "lightning",
    "jsonargparse",
    "torchmetrics",
    "diffusers",
    "peft",
    "spandrel",
    "safetensors",
    "numpy",
    "pillow",
    "scikit-image",
    "scikit-learn",
)


def describe_software() -> dict[str, Any]:
    """Plain values for a provenance file: commit, dirty (see `git_state`), packages' versions, python, platform."""
    return {
        **git_state(Path(__file__).parent),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def git_state(folder: Path) -> dict[str, Any]:
    """Commit of the framework's checkout and whether it has changes; nulls outside a checkout or without git."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
