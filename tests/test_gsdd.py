"""GSDD through the command line, with the shipped configurations: latents, set, network.

What is written is checked against the generator used by hand, and against the checkpoints of the same runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from lightning_modules.gan.sources import GeneratorSpec
from tests.diffusion_runs import MODEL, SIDE, furthest, images, lines, provenance, run, small
from tests.gsdd_runs import CLASSES, LATENT_SIDE, PROXY, decode, invert, inverting, of_data, write_sr
from tests.run_records import logged
from tests.test_resume import last

IPC, INVERTED, STEPS, EVERY = 4, 40, 80, 40
LATENT_BYTES = 2 * 3 * LATENT_SIDE**2
NETWORK = [f"{MODEL}network", "{architecture: EDSR, options: {n_feats: 4, n_resblocks: 1}}"]


@pytest.fixture(scope="module")
def chain(tiny_in, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """Latents, the set that they decode to, the set that has them, and networks that are trained on both."""
    root = tmp_path_factory.mktemp("gsdd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRDISTILL_CACHE", str(root / "cache"))
        patch.chdir(root)
        tiny = [*small(tiny_in(Path("runs"))), "--trainer.log_every_n_steps", "1"]
        options = [
            *inverting(write_sr(root / "sr.safetensors", brighter=0.15), IPC, INVERTED),
            *(f"{MODEL}inversion", "{pixel: 1, feature: 0.01}", f"{MODEL}optimizer.init_args.lr", "0.01"),
            *(f"{MODEL}proxy", PROXY, f"{MODEL}augmentation", "none", f"{MODEL}real_batch", "1000"),
            *(f"{MODEL}matching.latent_diversity", "1", f"{MODEL}matching_rate", "1"),  # beside losses of about 10
            *("--sample_grid.per_class", "2", "--checkpoint.every_n_steps", "40"),
            *("--trainer.max_steps", str(STEPS), "--trainer.val_check_interval", str(EVERY)),
        ]
        found = invert(*tiny, *options)
        decode(*tiny, *of_data())
        checkpoint = ["--ckpt_path", str(found.run_dir / "checkpoints" / "last.ckpt"), f"{MODEL}init_from", "null"]
        decode(*tiny, *options, *checkpoint, "--distilled.folder", "distilled/of_checkpoint")
        stored = [*of_data(), f"{MODEL}store", "latents", "--distilled.folder", "distilled/latents"]
        decode(*tiny, *stored)
        network = run("fit", "sr/gsdd.yaml", *tiny, *NETWORK)
        of_latents = ["--data.init_args.distilled", "distilled/latents", "--run.experiment", "of_latents"]
        again = run("fit", "sr/gsdd.yaml", *tiny, *NETWORK, *of_latents)
        yield SimpleNamespace(root=root, found=found, folder=root / found.run_dir, network=network, again=again)


@pytest.fixture(autouse=True)
def _in_the_chains_folder(chain: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(chain.root)


def latents(chain: SimpleNamespace) -> Tensor:
    return load_file(chain.folder / "latents" / "latents.safetensors")["latents"]


def test_latents_and_their_record(chain: SimpleNamespace) -> None:
    """float16, of the generator's input; those of the last checkpoint, which holds nothing else."""
    found, checkpoint = latents(chain), last(chain.found)
    assert (found.dtype, tuple(found.shape)) == (torch.float16, (IPC * CLASSES, 3, LATENT_SIDE, LATENT_SIDE))
    assert checkpoint["state_dict"].keys() == {"latents", "inversion_psnr"}
    assert torch.equal(checkpoint["state_dict"]["latents"].half(), found)
    record = json.loads((chain.folder / "latents" / "latents.json").read_text())
    generator = GeneratorSpec(str(chain.root / "sr.safetensors")).build(SIDE)
    assert record["labels"] == [label for label in range(CLASSES) for _ in range(IPC)]
    assert (record["generator"]["side"], record["generator"]["fingerprint"]) == (SIDE, generator.fingerprint)
    assert record["inversion_psnr"] == pytest.approx(checkpoint["state_dict"]["inversion_psnr"].item())


def test_what_is_logged(chain: SimpleNamespace) -> None:
    """Matching's loss is the sum over classes; the proxy is measured at each validation."""
    by_class = [logged(chain.found.run_dir, f"train/matching_{label}") for label in range(CLASSES)]
    sums = np.sum(by_class, axis=0)
    assert len(sums) == STEPS - INVERTED
    np.testing.assert_allclose(logged(chain.found.run_dir, "train/loss"), sums, rtol=1e-5)
    for name in ("val/psnr_y", "val/ssim_y"):
        assert len(logged(chain.found.run_dir, name)) == STEPS // EVERY


def test_latent_cosine(chain: SimpleNamespace) -> None:
    """Mean over the classes of the mean over a class's pairs; the last one is that before the last step."""
    found = latents(chain).float().view(CLASSES, IPC, -1)
    similar = F.cosine_similarity(found[:, :, None], found[:, None], dim=-1)
    pairs = similar[:, ~torch.eye(IPC, dtype=torch.bool)]
    cosines = logged(chain.found.run_dir, "train/latent_cosine")
    assert len(cosines) == STEPS
    assert cosines[-1] == pytest.approx(pairs.mean().item(), abs=0.02)
    assert cosines[-1] < cosines[INVERTED]  # it is a part of the loss


def test_inversion_comes_nearer_to_the_real_patches(chain: SimpleNamespace) -> None:
    """The generator is too bright by 0.15, 16 dB, which darker latents undo; what it then lacks are details."""
    psnr = logged(chain.found.run_dir, "train/inversion_psnr")[:INVERTED]
    assert psnr[0] < 17
    assert psnr[-1] > psnr[0] + 2


def test_matching_lowers_its_loss(chain: SimpleNamespace) -> None:
    """Averages over steps, each with a network of its own; all real patches, and no augmentation."""
    losses = logged(chain.found.run_dir, "train/loss")
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:5])


def test_pictures_of_the_same_latents(chain: SimpleNamespace) -> None:
    """At each validation, and they change."""
    pictures = [chain.folder / "images" / f"samples_{step:08d}.png" for step in range(EVERY, STEPS + 1, EVERY)]
    assert {path.name for path in (chain.folder / "images").iterdir()} >= {path.name for path in pictures}
    assert len({path.read_bytes() for path in pictures}) == len(pictures)


def test_the_set_is_what_the_latents_decode_to(chain: SimpleNamespace) -> None:
    generator = GeneratorSpec(str(chain.root / "sr.safetensors")).build(SIDE)
    with torch.no_grad():
        decoded = generator.decode(latents(chain).float())
    expected = (decoded * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    made = images(chain.root / "distilled" / "gsdd")
    assert np.abs(np.stack(made).astype(int) - expected).max() <= 1  # batches round a product in another order
    assert (np.stack(made) == expected).mean() > 0.999
    metadata = lines(chain.root / "distilled" / "gsdd")
    assert [line["pseudo_label"] for line in metadata] == [label for label in range(CLASSES) for _ in range(IPC)]
    assert [line["number"] for line in metadata] == list(range(IPC * CLASSES))


def test_a_checkpoint_decodes_to_the_same_set(chain: SimpleNamespace) -> None:
    """Its latents are rounded as those on disk are."""
    first, second = chain.root / "distilled" / "gsdd", chain.root / "distilled" / "of_checkpoint"
    assert lines(first) == lines(second)
    assert furthest(images(first), images(second)) == 0


@pytest.mark.parametrize("name", ["gsdd", "latents", "of_checkpoint"])
def test_provenance(name: str, chain: SimpleNamespace) -> None:
    record = provenance(chain.root / "distilled" / name)
    saved = json.loads((chain.folder / "latents" / "latents.json").read_text())
    assert record["method"] == "gsdd"
    assert record["generator"] == saved["generator"]
    assert record["latents"] == {
        "latent_bytes": IPC * CLASSES * LATENT_BYTES,
        "inversion_psnr": pytest.approx(saved["inversion_psnr"]),
        "seed": 0,
    }
    assert record["budget"]["images"] == IPC * CLASSES
    assert record["budget"]["pixels"] == IPC * CLASSES * SIDE**2


def test_a_set_of_latents(chain: SimpleNamespace) -> None:
    """Its bytes are those of the file that it has in place of images."""
    folder = chain.root / "distilled" / "latents"
    file = folder / "latents.safetensors"
    assert torch.equal(load_file(file)["latents"], latents(chain))
    assert not list(folder.glob("images/*"))
    assert provenance(folder)["budget"]["bytes"] == file.stat().st_size
    assert file.stat().st_size == pytest.approx(IPC * CLASSES * LATENT_BYTES, abs=200)


def test_networks_are_trained_on_the_same_pixels(chain: SimpleNamespace) -> None:
    """From images, and from latents: the same weights."""
    first, second = (load_file(cli.run_dir / "weights.safetensors") for cli in (chain.network, chain.again))
    assert all(torch.equal(first[name], second[name]) for name in first)
    for cli in (chain.network, chain.again):
        record = json.loads((cli.run_dir / "provenance.json").read_text())
        assert record["data_budget"]["images"] == IPC * CLASSES
        assert record["data_preparation"]["method"] == "gsdd"
