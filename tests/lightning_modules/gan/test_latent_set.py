"""Latents on disk: what was written comes back, and what is broken is named in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_modules.gan.latent_set import LatentSet, load_latents, save_latents

GENERATOR = {"source": "sr.pth", "latent_space": "w_plus", "dtype": "float32", "side": 16, "fingerprint": "ab"}
LABELS = [0, 0, 3]


def write(folder: Path, dtype: torch.dtype = torch.float16, psnr: float | None = 21.5) -> LatentSet:
    latents = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = LatentSet(latents, LABELS, GENERATOR, psnr)
    save_latents(folder, found)
    return found


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_what_was_written_comes_back(dtype: torch.dtype, tmp_path: Path) -> None:
    found, again = write(tmp_path / "latents", dtype), load_latents(tmp_path / "latents")
    assert again.latents.dtype == dtype
    assert torch.equal(again.latents, found.latents)
    assert (again.labels, again.generator, again.inversion_psnr) == (LABELS, GENERATOR, 21.5)
    assert {path.name for path in (tmp_path / "latents").iterdir()} == {"latents.safetensors", "latents.json"}


def test_files_are_what_others_read(tmp_path: Path) -> None:
    """A tensor named latents, and JSON; parameters that a graph hangs on are written as they are."""
    leaf = torch.arange(12.0).view(4, 3).requires_grad_()
    save_latents(tmp_path, LatentSet((leaf * 2).T, LABELS, GENERATOR))
    assert torch.equal(load_file(tmp_path / "latents.safetensors")["latents"], 2 * torch.arange(12.0).view(4, 3).T)
    record = json.loads((tmp_path / "latents.json").read_text())
    unknown = dict.fromkeys(("inversion_psnr", "seed", "sources", "data"))
    assert record == {"labels": LABELS, "generator": GENERATOR, **unknown}
    assert load_latents(tmp_path).inversion_psnr is None


def test_written_again(tmp_path: Path) -> None:
    write(tmp_path, torch.float32)
    write(tmp_path, torch.float16, psnr=None)
    assert load_latents(tmp_path).latents.dtype == torch.float16
    assert len(list(tmp_path.iterdir())) == 2


def short_of_labels(folder: Path) -> None:
    record = json.loads((folder / "latents.json").read_text())
    (folder / "latents.json").write_text(json.dumps(record | {"labels": [0]}))


def not_finite(folder: Path) -> None:
    save_file({"latents": torch.full((3, 2), float("inf"))}, folder / "latents.safetensors")


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (
            lambda folder: (folder / "latents.safetensors").unlink(),
            "there is no .*latents.safetensors; give the folder",
        ),
        (lambda folder: (folder / "latents.json").unlink(), "there is no .*latents.json; give the folder"),
        (lambda folder: (folder / "latents.safetensors").write_bytes(b"12345678901"), "latents.safetensors is damaged"),
        (
            lambda folder: save_file({"other": torch.zeros(3)}, folder / "latents.safetensors"),
            "latents.safetensors is damaged .*copy it again",
        ),
        (not_finite, "latents.safetensors has numbers that are not finite"),
        (lambda folder: (folder / "latents.json").write_text("{"), "latents.json is damaged .*copy it again"),
        (lambda folder: (folder / "latents.json").write_text("[1]"), "latents.json is damaged"),
        (lambda folder: (folder / "latents.json").write_text('{"labels": [0]}'), "latents.json is damaged"),
        (lambda folder: (folder / "latents.json").write_bytes(b"\xff"), "latents.json is damaged"),
        (short_of_labels, "has 3 latents and 1 labels; its files do not belong together"),
    ],
    ids=lambda given: "" if callable(given) else re.sub(r"\W+", " ", given),
)
def test_damage_is_named(damage: Callable[[Path], object], expected: str, tmp_path: Path) -> None:
    write(tmp_path)
    damage(tmp_path)
    with pytest.raises((FileNotFoundError, ValueError), match=expected) as error:
        load_latents(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
