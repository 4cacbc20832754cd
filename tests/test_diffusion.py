"""The diffusion-distilled regime through the command line, with the shipped configurations: prior, LoRA, set, network.

What is written is checked against diffusers, which reads the prior, and against the checkpoints of the same runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.diffusion_runs import MODEL, SIDE, TINY_AUTOENCODER, images, lines, provenance, run, sample, small

DENOISER = "{layers: 1, heads: 2, head_width: 8, patch: 4}"
RANK = [f"{MODEL}adaptation.init_args.rank", "2"]
NETWORK = [f"{MODEL}network", "{architecture: EDSR, options: {n_feats: 4, n_resblocks: 1}}"]


@pytest.fixture(scope="module")
def chain(tiny_in, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """The four commands, in a folder of their own; each file reads what the ones before it have written."""
    root = tmp_path_factory.mktemp("diffusion")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRDISTILL_CACHE", str(root / "cache"))
        patch.chdir(root)
        tiny = small(tiny_in(Path("runs")))
        prior = run("fit", "distill/diffusion/prior.yaml", *tiny, f"{MODEL}denoiser", DENOISER, "--run.name", "prior")
        lora = run("fit", "distill/diffusion/lora.yaml", *tiny, *RANK, "--run.name", "lora")
        report = ["--sample_report.patches", "4"]
        sampled = sample(*tiny, *RANK, f"{MODEL}budget", "{ipc: 2}", *report)
        data = ["--data.init_args.distilled", "distilled/diffusion"]
        network = run("fit", "sr/distilled.yaml", *tiny, *NETWORK, *data)
        runs = {name: root / cli.run_dir for name, cli in (("prior", prior), ("lora", lora), ("sampled", sampled))}
        yield SimpleNamespace(root=root, tiny=tiny, distilled=root / "distilled" / "diffusion", network=network, **runs)


def last(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def test_prior_is_a_folder_of_diffusers_with_averaged_weights(chain: SimpleNamespace) -> None:
    from diffusers import DDIMScheduler, DiTTransformer2DModel

    pipeline, saved = chain.prior / "pipeline", last(chain.prior)["state_dict"]
    denoiser = DiTTransformer2DModel.from_pretrained(pipeline / "transformer")
    for name, weight in denoiser.named_parameters():
        assert torch.equal(weight, saved[f"diffusion.denoiser.{name}"])
    assert DDIMScheduler.from_pretrained(pipeline / "scheduler").config.prediction_type == "v_prediction"
    assert (denoiser.config.sample_size, denoiser.config.in_channels) == (SIDE, 3)


def test_prior_in_latents_is_a_pipeline_of_diffusers(tiny_but_network: list[str], tmp_path: Path) -> None:
    """Trained with its autoencoder, whose latents are scaled to variance 1, and adapted and sampled from."""
    from diffusers import DiTPipeline

    tiny = small([*tiny_but_network, *NETWORK])
    first = [f"{MODEL}autoencoder", TINY_AUTOENCODER, f"{MODEL}autoencoder_steps", "1", f"{MODEL}denoiser", DENOISER]
    prior = run("fit", "distill/diffusion/prior.yaml", *tiny, *first).run_dir
    pipeline = DiTPipeline.from_pretrained(prior / "pipeline")
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline([0], guidance_scale=1.0, num_inference_steps=2, output_type="np").images
    assert made.shape == (1, SIDE, SIDE, 3)
    assert np.isfinite(made).all()
    variance = last(prior)["state_dict"]["latent_variance"].item()
    assert pipeline.vae.config.scaling_factor == pytest.approx(variance**-0.5, rel=1e-6)
    adapter = run("fit", "distill/diffusion/lora.yaml", *tiny, *RANK, f"{MODEL}pretrained", str(prior)).run_dir
    weights = [f"{MODEL}pretrained", str(prior), f"{MODEL}init_from", str(adapter / "adapter"), f"{MODEL}budget.ipc=1"]
    sample(*tiny, *RANK, *weights, f"{MODEL}budget.percent=null", "--distilled.folder", str(tmp_path / "set"))
    assert [picture.shape for picture in images(tmp_path / "set")] == [(SIDE, SIDE, 3)] * 7


def test_only_the_adapter_is_saved(chain: SimpleNamespace) -> None:
    """Averaged, in float32: the low-rank factors of each projection, and the class table of each block."""
    adapter, checkpoint = load_file(chain.lora / "adapter" / "adapter.safetensors"), last(chain.lora)
    saved = {name: tensor for name, tensor in checkpoint["state_dict"].items() if not name.startswith("objective.")}
    assert saved.keys() == {f"diffusion.denoiser.{name}" for name in adapter}
    assert all(torch.equal(adapter[name.removeprefix("diffusion.denoiser.")], saved[name]) for name in saved)
    kinds = {name.split(".")[-3] if "lora" in name else name.split(".")[-2] for name in adapter}
    assert kinds == {"lora_A", "lora_B", "embedding_table"}
    width, targets = 16, 4 + 2
    ranks = 2 * (width + width) * 4 + 2 * (width + 4 * width) * (targets - 4)
    assert sum(tensor.numel() for tensor in adapter.values()) == ranks + (7 + 1) * width
    assert {tensor.dtype for tensor in adapter.values()} == {torch.float32}
    memories = {name for name in checkpoint["state_dict"] if name.startswith("objective.")}
    assert memories == {f"objective.minimax.{kind}.{part}" for kind in ("real", "predicted") for part in ("vectors", "pushed")}


def test_the_set(chain: SimpleNamespace) -> None:
    assert [(line["pseudo_label"], line["number"] < 4, line["seed"]) for line in lines(chain.distilled)] == [
        (label, True, 0) for label in range(7) for _ in range(2)
    ]
    pictures = images(chain.distilled)
    assert {picture.shape for picture in pictures} == {(SIDE, SIDE, 3)}
    assert len({picture.tobytes() for picture in pictures}) == 14


def test_provenance_of_the_set(chain: SimpleNamespace) -> None:
    record = provenance(chain.distilled)
    assert record["method"] == "diffusion"
    assert record["samples"]["sampled"] == 2 * 14
    assert record["samples"]["from_cache"] == 0
    assert record["seconds"] > 0
    assert record["budget"]["percent"] == pytest.approx(100 * 14 * SIDE**2 / (3 * 96**2))
    assert record["model"] == json.loads((chain.lora / "adapter" / "adapter.json").read_text())
    assert record["config"]["model"]["init_args"]["init_from"] == "runs/diffusion_lora/fit/lora/adapter"


def test_pictures_and_diagnostics(chain: SimpleNamespace) -> None:
    for fit in (chain.prior, chain.lora):
        assert {path.name for path in (fit / "images").iterdir()} >= {"samples_00000001.png", "samples_00000002.png"}
    written = {path.name for path in (chain.sampled / "diagnostics").iterdir()}
    assert written == {"samples.png", "spectra.png", "psnr_bicubic.png", "diagnostics.json"}


def test_a_network_is_trained_on_the_set(chain: SimpleNamespace) -> None:
    record = json.loads((chain.root / chain.network.run_dir / "provenance.json").read_text())
    assert record["data_budget"]["images"] == 14
    assert record["data_preparation"]["method"] == "diffusion"
    assert record["data_preparation"]["seconds"] == provenance(chain.distilled)["seconds"]
    assert (chain.root / chain.network.run_dir / "weights.safetensors").is_file()
