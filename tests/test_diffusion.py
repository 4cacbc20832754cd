"""The diffusion-distilled regime through the command line, with the shipped configurations: prior, LoRA, set, network.

What is written is checked against diffusers, which reads the prior, and against the checkpoints of the same runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.diffusion_runs import MODEL, SIDE, images, lines, provenance, run, small
from tests.run_records import logged

DENOISER = [f"{MODEL}denoiser", "{layers: 1, heads: 2, head_width: 8, patch: 4}"]
AUTOENCODER = "{kind: tiny, channels: 8, stages: 2, latent_channels: 2}"
IN_LATENTS = [f"{MODEL}autoencoder", AUTOENCODER, f"{MODEL}autoencoder_steps", "1"]
HR_PIXELS = 3 * 96**2
"""Of the photographs that are trained on."""

KEPT = round(0.1 * HR_PIXELS / SIDE**2)
NETWORK = [f"{MODEL}network", "{architecture: EDSR, options: {n_feats: 4, n_resblocks: 1}}"]


@pytest.fixture(scope="module")
def chain(tiny_in, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """The four commands, in a folder of their own; each file reads what the ones before it have written."""
    root = tmp_path_factory.mktemp("diffusion")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRDISTILL_CACHE", str(root / "cache"))
        patch.chdir(root)
        tiny = small(tiny_in(Path("runs")))
        prior = run("fit", "distill/diffusion/prior.yaml", *tiny, *DENOISER, *IN_LATENTS, "--run.name", "prior")
        lora = run("fit", "distill/diffusion/lora.yaml", *tiny, "--run.name", "lora")
        tenth = [f"{MODEL}budget", "{ipc: null, patches: null, percent: 10}", f"{MODEL}sampler.steps", "20"]
        sampled = run("predict", "distill/diffusion/sample.yaml", *tiny, *tenth)
        data = ["--data.init_args.distilled", "distilled/diffusion"]
        network = run("fit", "sr/distilled.yaml", *tiny, *NETWORK, *data)
        runs = {name: root / cli.run_dir for name, cli in (("prior", prior), ("lora", lora), ("sampled", sampled))}
        yield SimpleNamespace(root=root, tiny=tiny, distilled=root / "distilled" / "diffusion", network=network, **runs)


def last(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def test_prior_is_a_pipeline_of_diffusers(chain: SimpleNamespace) -> None:
    """Of averaged weights, and an autoencoder whose latents are scaled to variance 1."""
    from diffusers import DiTPipeline

    pipeline, saved = DiTPipeline.from_pretrained(chain.prior / "pipeline"), last(chain.prior)["state_dict"]
    for ours, theirs in (("denoiser", pipeline.transformer), ("codec.model", pipeline.vae)):
        for name, weight in theirs.named_parameters():
            assert torch.equal(weight, saved[f"diffusion.{ours}.{name}"])
    assert pipeline.vae.config.scaling_factor == pytest.approx(saved["latent_variance"].item() ** -0.5, rel=1e-6)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"


def test_prior_in_pixels(tiny_in: Any, tmp_path: Path) -> None:
    """There is no DiTPipeline without autoencoder: its parts load."""
    from diffusers import DDIMScheduler, DiTTransformer2DModel

    in_pixels = [f"{MODEL}autoencoder", "null"]
    prior = run("fit", "distill/diffusion/prior.yaml", *small(tiny_in(tmp_path)), *DENOISER, *in_pixels).run_dir
    denoiser = DiTTransformer2DModel.from_pretrained(prior / "pipeline" / "transformer")
    assert (denoiser.config.sample_size, denoiser.config.in_channels) == (SIDE, 3)
    for name, weight in denoiser.named_parameters():
        assert torch.equal(weight, last(prior)["state_dict"][f"diffusion.denoiser.{name}"])
    assert DDIMScheduler.from_pretrained(prior / "pipeline" / "scheduler").config.clip_sample
    assert {path.name for path in (prior / "pipeline").iterdir()} == {"transformer", "scheduler"}


@pytest.mark.parametrize("part", ["prior", "lora"])
def test_checkpoints_measure_as_in_training(part: str, chain: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """`validate` finds the last validation's loss again, by the average and the autoencoder's scale."""
    monkeypatch.chdir(chain.root)
    folder = getattr(chain, part)
    expected = logged(folder, "val/denoising_loss")[-1]
    own = [*DENOISER, *IN_LATENTS] if part == "prior" else []
    weights = ["--ckpt_path", str(folder / "checkpoints" / "last.ckpt")]
    again = run("validate", f"distill/diffusion/{part}.yaml", *chain.tiny, *own, *weights)
    assert again.trainer.callback_metrics["val/denoising_loss"].item() == pytest.approx(expected, rel=1e-5)


def test_only_the_adapter_is_saved(chain: SimpleNamespace) -> None:
    """Averaged, in float32: the low-rank factors of each projection, and the class table of each block."""
    adapter, checkpoint = load_file(chain.lora / "adapter" / "adapter.safetensors"), last(chain.lora)
    saved = {name: tensor for name, tensor in checkpoint["state_dict"].items() if not name.startswith("objective.")}
    assert saved.keys() == {f"diffusion.denoiser.{name}" for name in adapter}
    assert all(torch.equal(adapter[name.removeprefix("diffusion.denoiser.")], saved[name]) for name in saved)
    kinds = {name.split(".")[-3] if "lora" in name else name.split(".")[-2] for name in adapter}
    assert kinds == {"lora_A", "lora_B", "embedding_table"}
    rank, width = json.loads((chain.lora / "adapter" / "adapter.json").read_text())["adaptation"]["rank"], 16
    factors = rank * (4 * (width + width) + 2 * (width + 4 * width))  # of attention, and of the feed-forward
    assert sum(tensor.numel() for tensor in adapter.values()) == factors + (7 + 1) * width
    assert {tensor.dtype for tensor in adapter.values()} == {torch.float32}
    memories = {name for name in checkpoint["state_dict"] if name.startswith("objective.")}
    assert memories == {
        f"objective.minimax.{kind}.{part}" for kind in ("real", "predicted") for part in ("vectors", "pushed")
    }


def test_the_set(chain: SimpleNamespace) -> None:
    """A tenth of all pixels, class by class, and no two patches alike."""
    made, pictures = lines(chain.distilled), images(chain.distilled)
    assert len(made) == len(pictures) == KEPT
    order = [(line["pseudo_label"], line["number"]) for line in made]
    assert order == sorted(set(order))
    assert {line["seed"] for line in made} == {0}
    assert {picture.shape for picture in pictures} == {(SIDE, SIDE, 3)}
    assert len({picture.tobytes() for picture in pictures}) == KEPT


def test_provenance_of_the_set(chain: SimpleNamespace) -> None:
    record = provenance(chain.distilled)
    assert record["method"] == "diffusion"
    assert record["samples"]["sampled"] >= KEPT
    assert record["samples"]["from_cache"] == 0
    assert record["seconds"] > 0
    assert record["budget"]["percent"] == pytest.approx(100 * KEPT * SIDE**2 / HR_PIXELS)
    assert record["model"] == json.loads((chain.lora / "adapter" / "adapter.json").read_text())
    assert record["config"]["model"]["class_path"] == "lightning_modules.LoRADiffusion"


def test_pictures_and_diagnostics(chain: SimpleNamespace) -> None:
    for fit in (chain.prior, chain.lora):
        assert {path.name for path in (fit / "images").iterdir()} >= {"samples_00000001.png", "samples_00000002.png"}
    written = {path.name for path in (chain.sampled / "diagnostics").iterdir()}
    assert written == {"samples.png", "spectra.png", "psnr_bicubic.png", "diagnostics.json"}


def test_a_network_is_trained_on_the_set(chain: SimpleNamespace) -> None:
    record = json.loads((chain.root / chain.network.run_dir / "provenance.json").read_text())
    assert record["data_budget"]["images"] == KEPT
    assert record["data_preparation"]["method"] == "diffusion"
    assert record["data_preparation"]["seconds"] == provenance(chain.distilled)["seconds"]
    assert (chain.root / chain.network.run_dir / "weights.safetensors").is_file()
