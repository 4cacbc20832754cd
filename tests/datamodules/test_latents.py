"""Distilled sets of latents: what is written, against safetensors and Pillow, and what is refused."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from datamodules.distilled import DistilledPatch, DistilledSet, read_distilled, write_distilled
from datamodules.distilled.latents import read_latents

GENERATOR = {"source": "weights/esrgan.pth", "fingerprint": "0123456789abcdef", "side": 16, "dtype": "float32"}
MADE_BY = {"method": "gsdd", "seed": 3, "generator": GENERATOR, "full_pixels": 7680}


def some_patches(count: int = 3, dtype: str = "float16") -> list[DistilledPatch]:
    """Noise of 16 x 16 pixels, and latents that are noise too."""
    rng = np.random.default_rng(count)
    return [
        DistilledPatch(
            rng.integers(0, 256, (16, 16, 3), dtype=np.uint8),
            None,
            {"pseudo_label": number % 2, "seed": 3},
            rng.normal(size=(3, 4, 4)).astype(dtype),
        )
        for number in range(count)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "latent"


def written(folder: Path) -> DistilledSet:
    return write_distilled(folder, some_patches(), 4, MADE_BY)


def png_size(pixels: np.ndarray) -> int:
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, "PNG", compress_level=3)
        return len(file.getvalue())


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_files_are_the_latents_and_what_is_known_of_them(folder, dtype):
    patches = some_patches(dtype=dtype)
    opened = write_distilled(folder, iter(patches), 4, MADE_BY)
    assert opened == read_distilled(folder)
    assert opened.holds_latents
    assert {path.name for path in folder.iterdir()} == {
        *("latents.safetensors", "metadata.jsonl", "provenance.json", "README.md")
    }
    with safe_open(folder / "latents.safetensors", "numpy") as file:
        assert list(file.keys()) == ["latents"]
        latents = file.get_tensor("latents")
    assert latents.dtype == dtype
    assert np.array_equal(latents, np.stack([patch.latent for patch in patches]))
    assert np.array_equal(read_latents(opened), latents)
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert lines == opened.metadata == [patch.metadata for patch in patches]


def test_budget_is_of_the_latents_and_of_the_pixels_they_stand_for(folder):
    opened = written(folder)
    size = (folder / "latents.safetensors").stat().st_size
    assert size > 3 * 3 * 4 * 4 * 2  # of float16, and a header
    expected = {"images": 3, "pixels": 3 * 16 * 16, "bytes": size, "percent": 10.0, "teacher": None}
    assert opened.provenance["budget"] == expected
    assert opened.provenance["png_bytes"] == sum(png_size(patch.hr) for patch in some_patches())
    assert (opened.sizes, opened.scale) == ([(16, 16)], 4)


def test_record_names_the_generator_and_has_the_digests(folder):
    opened = written(folder)
    assert opened.provenance["generator"] == GENERATOR
    assert opened.provenance["sha256"] == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("latents.safetensors", "metadata.jsonl")
    }


def test_card_says_both_sizes_and_how_to_decode(folder):
    opened = written(folder)
    card = (folder / "README.md").read_text()
    latents, images = opened.budget.bytes / 1000, opened.provenance["png_bytes"] / 1000
    assert f"| latents | {latents:.1f} KB; the same patches as PNG: {images:.1f} KB |" in card
    assert "| generator | weights/esrgan.pth (fingerprint 0123456789ab) |" in card
    assert "SyntheticPatches" in card
    assert "GANInversion" in card
    assert "load_dataset" not in card
    assert "configs" not in yaml.safe_load(card.split("---")[1])  # no images for Hugging Face to look for


def test_a_set_of_images_may_name_a_generator_too(folder):
    images = [replace(patch, latent=None) for patch in some_patches()]
    opened = write_distilled(folder, images, 4, MADE_BY)
    assert not opened.holds_latents
    assert "png_bytes" not in opened.provenance
    assert "load_dataset" in (folder / "README.md").read_text()


def test_a_set_of_latents_is_replaced_by_one_of_images(folder):
    written(folder)
    images = [replace(patch, latent=None) for patch in some_patches()]
    write_distilled(folder, images, 4, {}, overwrite=True)
    assert len(list(folder.glob("images/*.png"))) == 3
    assert not (folder / "latents.safetensors").exists()


# --- what writing refuses ---


def changed(number: int, **changes: Any) -> list[DistilledPatch]:
    patches = some_patches()
    patches[number] = replace(patches[number], **changes)
    return patches


REFUSED = [
    (changed(1, latent=np.zeros((3, 4, 4), np.float64)), "patch 1: its latent is float64; expected float16 or float32"),
    (
        changed(1, latent=np.zeros((3, 4, 4), np.float32)),
        r"patch 1: its latent is float32 \(3, 4, 4\) but .* float16 \(3, 4, 4\)",
    ),
    (changed(2, latent=np.zeros((3, 4, 5), np.float16)), r"patch 2: .* \(3, 4, 5\) but those before it .* \(3, 4, 4\)"),
    (changed(0, latent=np.full((3, 4, 4), np.inf, np.float16)), "patch 0: its latent is not finite everywhere"),
    (changed(1, latent=None), "patch 1 has no latent but those before it have one"),
    (changed(0, latent=None), "patch 1 has a latent but those before it have none"),
    (changed(0, lr=np.zeros((4, 4, 3), np.uint8)), "patch 0 has a latent and an LR; .* set lr to None"),
    (changed(1, metadata={"seed": 3}), "patch 1 has seed but those before it pseudo_label, seed"),
]


@pytest.mark.parametrize(("patches", "message"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_latents_that_do_not_fit(folder, patches, message):
    with pytest.raises(ValueError, match=message) as error:
        write_distilled(folder, patches, 4, MADE_BY)
    assert "\n" not in str(error.value)
    assert not folder.exists()


def test_a_mixed_set_without_metadata_is_refused_too(folder):
    patches = [replace(patch, metadata={}) for patch in changed(1, latent=None)]
    with pytest.raises(ValueError, match="patch 1 has no latent"):
        write_distilled(folder, patches, 4, MADE_BY)


@pytest.mark.parametrize("generator", [None, "esrgan.pth", {"source": "esrgan.pth"}])
def test_latents_of_nobody_knows_what_are_refused(folder, generator):
    with pytest.raises(ValueError, match=r"give provenance\['generator'\], a mapping with .* fingerprint"):
        write_distilled(folder, some_patches(), 4, {"generator": generator})


# --- what reading refuses ---


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def rewrite(path: Path, **tensors: np.ndarray) -> None:
    save_file(tensors, path)


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


FILE = r"latents\.safetensors"
DAMAGES = {
    "missing": (lambda at: (at / "latents.safetensors").unlink(), True, rf"{FILE} is missing from the distilled set"),
    "missing, trusted": (lambda at: (at / "latents.safetensors").unlink(), False, rf"{FILE} is missing"),
    "cut": (lambda at: cut(at / "latents.safetensors"), True, rf"{FILE} was altered since"),
    "cut, trusted": (lambda at: cut(at / "latents.safetensors"), False, rf"{FILE} is damaged \(.*\); restore it"),
    "no safetensors": (lambda at: (at / "latents.safetensors").write_bytes(b"x"), False, rf"{FILE} is damaged"),
    "another tensor": (
        lambda at: rewrite(at / "latents.safetensors", weights=np.zeros((3, 4))),
        False,
        rf"{FILE} is damaged",
    ),
    "integers": (
        lambda at: rewrite(at / "latents.safetensors", latents=np.zeros((3, 4), np.int64)),
        False,
        rf"{FILE} holds I64 \[3, 4\]; expected F16 or F32",
    ),
    "fewer": (
        lambda at: rewrite(at / "latents.safetensors", latents=np.zeros((2, 3, 4, 4), np.float16)),
        False,
        rf"{FILE} has 2 latents but metadata\.jsonl 3 lines",
    ),
    "no generator": (
        lambda at: _edit(at / "provenance.json", generator=None),
        True,
        r"provenance\.json is no record of a distilled",
    ),
    "images listed too": (
        lambda at: _edit(
            at / "provenance.json",
            sha256={"metadata.jsonl": "0", "latents.safetensors": "0", "images/000000.png": "0"},
        ),
        True,
        r"provenance\.json is no record of a distilled",
    ),
    "image added": (
        lambda at: ((at / "images").mkdir(), (at / "images" / "000000.png").touch()),
        True,
        r"images/000000\.png is no part of the distilled set; remove it",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_set_is_refused_in_one_line(folder, damage):
    inflict, verify, message = DAMAGES[damage]
    written(folder)
    inflict(folder)
    kind = FileNotFoundError if damage.startswith("missing") else ValueError
    with pytest.raises(kind, match=message) as error:
        read_distilled(folder, verify)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)
