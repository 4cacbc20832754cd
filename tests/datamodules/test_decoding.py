"""Sets of latents as training data: decoded once by the generator that they belong to, against the network itself."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cli.errors import message_for_users
from datamodules import SyntheticPatches
from datamodules.distilled import DistilledPatch, DistilledSet, Pixels, read_distilled, write_distilled
from datamodules.distilled.decoding import images_of
from datamodules.distilled.latents import read_latents
from datamodules.spectra import distilled_spectrum
from lightning_modules.gan.generator import Generator
from lightning_modules.gan.sources import GeneratorSpec
from lightning_modules.networks import NetworkSpec, build_network, export_weights
from main import main

FORK = multiprocessing.get_context("fork") if "fork" in multiprocessing.get_all_start_methods() else None
COUNT, SIDE = 20, 32
NETWORK = NetworkSpec("EDSR", {"n_feats": 4, "n_resblocks": 1})


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A network of x4 as a run of SuperResolution exports it, untrained."""
    torch.manual_seed(0)
    file = tmp_path / "network" / "weights.safetensors"
    header = {"network": json.dumps({"architecture": "EDSR", "options": NETWORK.options}), "scale": "4"}
    export_weights(build_network(NETWORK, 4), file, header)
    return file


def latents_of(count: int = COUNT) -> np.ndarray:
    """Around grey, with some that decode to less than 0 and more than 1."""
    return np.random.default_rng(1).normal(0.5, 3, (count, 3, SIDE // 4, SIDE // 4)).astype(np.float16)


@pytest.fixture
def latent_set(weights: Path, tmp_path: Path) -> DistilledSet:
    """Of two classes, with more latents than are decoded at once; the pixels given to the writer are black."""
    spec = GeneratorSpec(str(weights))
    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    patches = [
        DistilledPatch(black, None, {"pseudo_label": number % 2, "number": number}, latent)
        for number, latent in enumerate(latents_of())
    ]
    made_by = {"method": "gsdd", "generator": spec.record(spec.build(SIDE)), "full_pixels": 204800, "seconds": 7.5}
    return write_distilled(tmp_path / "latent", patches, 4, made_by)


def expected_pixels(weights: Path) -> Pixels:
    """By the network itself, one latent after the other."""
    from safetensors.torch import load_file

    network = build_network(NETWORK, 4)
    network.load_state_dict(load_file(weights))
    with torch.no_grad():
        decoded = [network(torch.from_numpy(latent).float()[None])[0] for latent in latents_of()]
    levels = torch.stack(decoded).permute(0, 2, 3, 1).double().numpy() * 255
    assert levels.min() < 0
    assert levels.max() > 255
    return np.rint(levels.clip(0, 255)).astype(np.uint8)


def prepared(opened: DistilledSet, root: Path, **options: Any) -> SyntheticPatches:
    data = SyntheticPatches(str(opened.folder), root=str(root), patch_size=SIDE, seed=0, **options)
    data.prepare_data()
    data.setup("fit")
    return data


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    """But for rounding: batches of another size add up in another order."""
    differences = np.abs(found.astype(int) - expected)
    return differences.max() <= 1 and (differences > 0).mean() < 0.01


def test_training_sees_what_the_generator_makes_of_the_latents(latent_set, weights, tiny_photographs):
    data = prepared(latent_set, tiny_photographs)
    found = np.stack([data.patch_store.hr(number) for number in range(COUNT)])
    assert close(found, expected_pixels(weights))
    assert data.training_patches().labels.tolist() == [number % 2 for number in range(COUNT)]
    patches = list(data.distilled_patches())
    assert [patch.metadata["number"] for patch in patches] == list(range(COUNT))
    assert all(patch.latent is None for patch in patches)


def test_what_is_known_of_the_data_is_of_the_latents(latent_set, tiny_photographs):
    data = prepared(latent_set, tiny_photographs)
    size = (latent_set.folder / "latents.safetensors").stat().st_size
    assert (data.data_budget.images, data.data_budget.bytes, data.data_budget.percent) == (COUNT, size, 10.0)
    assert data.preparation["method"] == "gsdd"
    assert data.preparation["seconds"] == 7.5
    assert data.distilled_set == latent_set


def test_the_cache_holds_a_usual_set_of_images(latent_set, weights, tmp_path):
    images = images_of(latent_set, tmp_path / "cache")
    assert images == read_distilled(images.folder)
    assert not images.holds_latents
    assert images.folder.parent == tmp_path / "cache" / "decoded"
    pixels = np.stack([np.asarray(Image.open(images.folder / line["file_name"])) for line in images.metadata])
    assert close(pixels, expected_pixels(weights))
    assert images_of(images, tmp_path / "cache") is images


def test_latents_are_decoded_once(latent_set, tiny_photographs, monkeypatch):
    first = prepared(latent_set, tiny_photographs)
    monkeypatch.setattr(Generator, "decode", lambda *_: pytest.fail("decoded again"))
    assert prepared(latent_set, tiny_photographs).fingerprint == first.fingerprint


def test_other_latents_and_generators_are_decoded_apart(latent_set, tmp_path):
    """Where the weights lie makes no difference, and what they compute with does."""
    record = latent_set.provenance["generator"]
    (tmp_path / "moved").mkdir()
    moved = shutil.copy(record["source"], tmp_path / "moved" / "weights.safetensors")
    folders = []
    for change in ({}, {"source": str(moved)}, {"dtype": "bfloat16"}):
        black = np.zeros((SIDE, SIDE, 3), np.uint8)
        patches = [DistilledPatch(black, latent=latent) for latent in read_latents(latent_set)]
        again = write_distilled(tmp_path / "again", patches, 4, {"generator": {**record, **change}}, overwrite=True)
        folders.append(images_of(again, tmp_path / "cache").folder)
    assert folders[0] == folders[1] != folders[2]
    fewer = write_distilled(tmp_path / "fewer", patches[:3], 4, {"generator": record})
    assert images_of(fewer, tmp_path / "cache").folder not in folders


def test_spectra_are_of_the_decoded_patches(latent_set, tmp_path):
    spectrum = distilled_spectrum(latent_set.folder)
    images = images_of(latent_set, tmp_path / "cache")
    assert np.array_equal(spectrum.power, distilled_spectrum(images.folder).power)
    assert (spectrum.power > 0).all()


# --- several processes, and crashes ---


def _slowly(latent_set: DistilledSet, cache: Path, started: Any) -> None:
    """Decodes, and sleeps after the first batch."""
    decode = Generator.decode

    def slow(self: Generator, latents: torch.Tensor) -> torch.Tensor:
        if started.is_set():
            signal.pause()
        started.set()
        return decode(self, latents)

    Generator.decode = slow
    images_of(latent_set, cache)


@pytest.mark.skipif(FORK is None, reason="processes are forked here")
def test_what_a_killed_decoding_leaves_is_removed_by_the_next(latent_set, weights, tmp_path):
    cache, started = tmp_path / "cache", FORK.Event()
    process = FORK.Process(target=_slowly, args=(latent_set, cache, started))
    process.start()
    assert started.wait(20)
    while not list(cache.glob("decoded/.*.writing/images/000015.png")):  # the batch that was decoded
        assert process.is_alive()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    images = images_of(latent_set, cache)
    assert len(read_distilled(images.folder).metadata) == COUNT
    assert [path.name for path in (cache / "decoded").iterdir() if path.is_dir()] == [images.folder.name]


@pytest.mark.skipif(FORK is None, reason="processes are forked here")
def test_processes_that_decode_at_once_get_the_same(latent_set, tmp_path):
    with FORK.Pool(3) as pool:
        sets = pool.starmap(images_of, [(latent_set, tmp_path / "cache")] * 3)
    assert sets[0] == sets[1] == sets[2] == read_distilled(sets[0].folder)


# --- mistakes ---


def gone(opened: DistilledSet) -> None:
    Path(opened.provenance["generator"]["source"]).unlink()


def another(opened: DistilledSet) -> None:
    torch.manual_seed(1)
    header = {"network": json.dumps({"architecture": "EDSR", "options": NETWORK.options}), "scale": "4"}
    export_weights(build_network(NETWORK, 4), opened.provenance["generator"]["source"], header)


def other_latents(opened: DistilledSet) -> None:
    patches = [DistilledPatch(np.zeros((SIDE, SIDE, 3), np.uint8), latent=np.zeros((3, 4, 4), np.float16))]
    write_distilled(opened.folder, patches, 4, {"generator": opened.provenance["generator"]}, overwrite=True)


def infinite(opened: DistilledSet) -> None:
    latent = np.full((3, SIDE // 4, SIDE // 4), 3e38, np.float32)
    patches = [DistilledPatch(np.zeros((SIDE, SIDE, 3), np.uint8), latent=latent)]
    write_distilled(opened.folder, patches, 4, {"generator": opened.provenance["generator"]}, overwrite=True)


MISTAKES: dict[str, tuple[Callable[[DistilledSet], None], str]] = {
    "gone": (gone, r"weights\.safetensors"),
    "another": (another, "the latents were made for another generator"),
    "other latents": (other_latents, r"has latents of \(3, 4, 4\) but its generator .* takes \(3, 8, 8\)"),
    "infinite": (infinite, "its latents decode to numbers that are not finite"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_cannot_be_decoded_is_told_in_one_line(latent_set, tiny_photographs, tmp_path, mistake):
    inflict, message = MISTAKES[mistake]
    inflict(latent_set)
    with pytest.raises(FileNotFoundError if mistake == "gone" else ValueError, match=message) as error:
        prepared(latent_set, tiny_photographs)
    assert message_for_users(error.value) is not None
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache").glob("decoded/*/"))


def test_settings_that_do_not_fit_are_told_before_decoding(latent_set, tiny_photographs, monkeypatch):
    monkeypatch.setattr(Generator, "decode", lambda *_: pytest.fail("decoded"))
    data = SyntheticPatches(str(latent_set.folder), root=str(tiny_photographs), patch_size=64)
    with pytest.raises(ValueError, match="set a patch size of at most 32"):
        data.prepare_data()


def test_a_damaged_image_in_the_cache_is_named(latent_set, tiny_photographs):
    data = prepared(latent_set, tiny_photographs)
    (folder,) = data.cache.glob("decoded/*/")
    (folder / "images" / "000003.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=rf"{folder.name}: damaged; delete this folder and run again"):
        prepared(latent_set, tiny_photographs)


@pytest.mark.parametrize("name", ["provenance.json", "metadata.jsonl"])
def test_a_cache_that_lacks_a_file_is_named(latent_set, tmp_path, name):
    folder = images_of(latent_set, tmp_path / "cache").folder
    (folder / name).unlink()
    with pytest.raises(ValueError, match=rf"{folder.name}: damaged; delete this folder and run again"):
        images_of(latent_set, tmp_path / "cache")
    shutil.rmtree(folder)
    assert read_distilled(images_of(latent_set, tmp_path / "cache").folder)


def test_a_cache_that_cannot_be_written_is_told(latent_set, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot keep decoded latents in .*decoded .*SRDISTILL_CACHE"):
        images_of(latent_set, tmp_path / "file")


# --- the command line ---


def test_a_network_trains_on_latents(latent_set, tiny):
    cli = main(["fit", "--data", "SyntheticPatches", "--data.init_args.distilled", str(latent_set.folder), *tiny])
    record = json.loads((cli.run_dir / "provenance.json").read_text())
    assert record["data_budget"]["bytes"] == latent_set.budget.bytes
    assert record["data_preparation"]["method"] == "gsdd"
    assert (cli.run_dir / "weights.safetensors").is_file()
