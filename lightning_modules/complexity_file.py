"""A trained complexity network on disk: its weights beside what they were trained for."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from datamodules.fingerprint import write_atomic
from lightning_modules.networks.complexity_vit import ComplexityViT, ViTSpec
from lightning_modules.networks.weights import export_weights, load_weights
from lightning_modules.run_parts import fingerprint, newest, refuse_missing

COMPLEXITY = "complexity"
"""Folder of a run that holds the network that it trained."""

WEIGHTS, CONFIG = "complexity.safetensors", "config.json"
ARCHITECTURE = "ComplexityViT"


@dataclass(frozen=True)
class ComplexityConfig:
    """What a network was trained for.

    Attributes:
        network: its sizes.
        patch_size: side in pixels of the patches whose entropy it estimates.
        grey_weight: of the entropy of grey levels, as in `Entropy`.
        gradient_weight: of the entropy of gradient magnitudes.
    """

    network: ViTSpec
    patch_size: int
    grey_weight: float
    gradient_weight: float


def save_complexity(network: ComplexityViT, config: ComplexityConfig, folder: Path) -> None:
    """Writes `config.json` and then, complete or not at all, `complexity.safetensors`."""
    content = {"architecture": ARCHITECTURE, **dataclasses.asdict(config)}
    write_atomic(folder / CONFIG, json.dumps(content, indent=2) + "\n")
    export_weights(network, folder / WEIGHTS)


def load_complexity(path: str | Path) -> tuple[ComplexityViT, ComplexityConfig]:
    """The network of a folder, float32 on the CPU, in evaluation mode, without gradients.

    Args:
        path: see `find_complexity`.

    Raises:
        FileNotFoundError: when a file is missing.
        ValueError: when one is damaged, or they do not belong together.
    """
    found = find_complexity(path)
    config = _read(found / CONFIG)
    with torch.device("meta"):  # random weights would take numbers from a run's generator
        network = ComplexityViT(config.network)
    network.to_empty(device="cpu")
    load_weights(network, found / WEIGHTS)
    broken = [name for name, tensor in network.state_dict().items() if not tensor.isfinite().all()]
    if broken:
        raise ValueError(f"{found / WEIGHTS}: the weights {broken[0]} are not finite; train the network anew")
    return network.eval().requires_grad_(False), config


def find_complexity(path: str | Path) -> Path:
    """The folder that holds both files.

    Args:
        path: that folder, one of its files, the folder of the run that wrote it, or of its experiment, whose newest run
            it is then.

    Raises:
        FileNotFoundError: when a file is missing.
    """
    given = Path(path).expanduser()
    found = given.parent if given.is_file() else newest(given, COMPLEXITY)
    refuse_missing(found, (CONFIG, WEIGHTS), COMPLEXITY, "tripled/complexity.yaml")
    return found


def complexity_fingerprint(path: str | Path) -> str:
    """SHA-256 of the files that `load_complexity` reads.

    Raises:
        FileNotFoundError: when one is missing.
    """
    return fingerprint(find_complexity(path), (CONFIG, WEIGHTS))


def _read(path: Path) -> ComplexityConfig:
    try:
        content: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf-8")))
        architecture = content.pop("architecture")
        if architecture != ARCHITECTURE:
            raise ValueError(f"architecture is {architecture!r}; expected {ARCHITECTURE!r}")
        return ComplexityConfig(**{**content, "network": ViTSpec(**content["network"])})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}); get the folder anew") from error
