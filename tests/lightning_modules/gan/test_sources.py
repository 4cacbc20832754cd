"""Where generators come from, and that latents find theirs again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_modules.gan.sources import GeneratorSpec, load_generator
from lightning_modules.gan.sr_generator import SRGenerator
from lightning_modules.gan.style_latents import StyleLatents
from tests.gsdd_runs import SIDE, write_sr, write_style


def source(kind: str, folder: Path, seed: int = 0) -> str:
    """The newest of an experiment's runs, or a file."""
    if kind == "sr":
        return str(write_sr(folder / "sr.safetensors", seed=seed))
    write_style(folder / "runs" / "prior" / "fit" / "one" / "generator", seed)
    return str(folder / "runs" / "prior")


def record(spec: GeneratorSpec) -> dict[str, Any]:
    """After JSON."""
    saved: dict[str, Any] = json.loads(json.dumps(spec.record(spec.build(SIDE))))
    return saved


def test_kind_follows_from_what_lies_there(tmp_path: Path) -> None:
    for kind, expected in (("sr", SRGenerator), ("style", StyleLatents)):
        generator = GeneratorSpec(source(kind, tmp_path)).build(SIDE)
        assert type(generator) is expected
        assert not generator.training
        assert not any(weight.requires_grad for weight in generator.parameters())


@pytest.mark.parametrize("kind", ["sr", "style"])
def test_latents_find_their_generator(kind: str, tmp_path: Path) -> None:
    """Patches come out as before, to the bit."""
    spec = GeneratorSpec(source(kind, tmp_path), latent_space="w", dtype="bfloat16")
    first, again = spec.build(SIDE), load_generator(record(spec))
    latents = first.sample(torch.randn(2, *first.noise_shape, generator=torch.Generator().manual_seed(0)))
    assert again.latent_shape == first.latent_shape
    assert again.weights_dtype() == torch.bfloat16
    assert torch.equal(again.decode(latents), first.decode(latents))


@pytest.mark.parametrize("kind", ["sr", "style"])
def test_global_random_numbers_are_left_alone(kind: str, tmp_path: Path) -> None:
    """A network that is trained on latents starts with the same weights whether they are still to be decoded or not."""
    spec = GeneratorSpec(source(kind, tmp_path))
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    spec.build(SIDE)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("kind", ["sr", "style"])
def test_another_generator_in_its_place(kind: str, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    wanted = record(GeneratorSpec(source(kind, tmp_path / "first")))
    (tmp_path / "first").rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=r"no such file or folder; give a file that spandrel reads") as error:
        load_generator(wanted)
    assert "\n" not in str(error.value)
    (tmp_path / "first").mkdir()
    source(kind, tmp_path / "first", seed=1)
    with pytest.raises(ValueError, match="the latents were made for another generator") as changed:
        load_generator(wanted)
    assert wanted["fingerprint"][:12] in str(changed.value)
    assert "\n" not in str(changed.value)


def test_a_later_run_of_the_experiment_changes_nothing(tmp_path: Path) -> None:
    """Latents stay with the run that was the newest when they were made."""
    wanted = record(GeneratorSpec(source("style", tmp_path)))
    write_style(tmp_path / "runs" / "prior" / "fit" / "two" / "generator", seed=1)
    assert load_generator(wanted).fingerprint == wanted["fingerprint"]


def test_a_folder_that_holds_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no checkpoints/best.ckpt and no weights.safetensors") as error:
        GeneratorSpec(str(tmp_path)).build(SIDE)
    assert str(tmp_path) in str(error.value)
