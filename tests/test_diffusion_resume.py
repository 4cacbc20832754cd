"""Exact resume of diffusion training: what was stopped and resumed ends with the same bits as what was not.

Of an adapter that is all that its checkpoint holds: weights, averages, optimiser, and the memories of the losses.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.diffusion_runs import MODEL, adapting, fit_lora, run, small, write_model
from tests.test_resume import differences, kept, last  # noqa: F401  # a fixture

CYCLE = "{class_path: OneCycleLR, init_args: {max_lr: 0.01, total_steps: 6}}"
DROPOUT = "{class_path: LoRA, init_args: {rank: 2, dropout: 0.5}}"
BY_LABEL = [f"{MODEL}adaptation", DROPOUT, "--trainer.accumulate_grad_batches", "2"]
BY_FEATURES = [f"{MODEL}adaptation", "DiffFit", f"{MODEL}condition", "features", "--data.init_args.num_workers", "1"]


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("how", [pytest.param(BY_LABEL, id="LoRA"), pytest.param(BY_FEATURES, id="DiffFit")])
def test_resume_of_an_adapter_is_exact(how: list[str], tiny: list[str], tmp_path: Path) -> None:
    """With dropout, every augmentation, a schedule, and memories of two latents, which are full before the stop."""
    arguments = [
        *small(tiny),
        *adapting(write_model(tmp_path / "model")),
        *(f"{MODEL}lr_scheduler", CYCLE, f"{MODEL}losses.memory", "2"),
        *("--data.init_args.augmentation", "strong", "--checkpoint.every_n_steps", "1"),
        *("--trainer.val_check_interval", "2", "--trainer.max_steps", "6"),
        *how,
    ]
    uninterrupted = fit_lora(*arguments)
    resumed = fit_lora(*arguments, "--ckpt_path", str(tmp_path / "kept" / "3.ckpt"))
    assert last(uninterrupted)["state_dict"]["objective.minimax.real.pushed"].max() > 2
    assert differences(last(uninterrupted), last(resumed)) == []
    first, second = (load_file(cli.run_dir / "adapter" / "adapter.safetensors") for cli in (uninterrupted, resumed))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.usefixtures("kept")
def test_resume_of_a_prior_is_exact_where_the_denoiser_takes_over(tiny: list[str], tmp_path: Path) -> None:
    """Three steps train the autoencoder, drawing from its posterior; then its average takes over, and stays."""
    arguments = [
        *small(tiny),
        *(f"{MODEL}autoencoder", "{kind: kl, channels: 8, stages: 2, latent_channels: 2}"),
        *(f"{MODEL}autoencoder_steps", "3", f"{MODEL}denoiser", "{layers: 1, heads: 2, head_width: 8, patch: 4}"),
        *(f"{MODEL}optimizer.init_args.weight_decay", "0.1", "--checkpoint.every_n_steps", "1"),
        *("--trainer.val_check_interval", "5", "--trainer.max_steps", "5"),
        *("--sample_grid.per_class", "0", "--image_grid.images", "0"),
    ]
    uninterrupted = run("fit", "distill/diffusion/prior.yaml", *arguments)
    for cut in ("2", "3"):
        resumed = run(
            "fit", "distill/diffusion/prior.yaml", *arguments, "--ckpt_path", str(tmp_path / "kept" / f"{cut}.ckpt")
        )
        assert differences(last(uninterrupted), last(resumed)) == [], cut
        first, second = (
            (cli.run_dir / "pipeline" / "vae" / "config.json").read_text() for cli in (uninterrupted, resumed)
        )
        assert first == second
    at = {step: torch.load(tmp_path / "kept" / f"{step}.ckpt", weights_only=True) for step in (2, 3, 5)}
    averages = at[3]["state_dict"]
    weights = {step: checkpoint["callbacks"]["EMA"]["trained"] for step, checkpoint in at.items()}
    assert all(torch.equal(weights[5][name], averages[name]) for name in averages if ".codec." in name)
    assert any(not torch.equal(weights[2][name], weights[3][name]) for name in averages if ".codec." in name)
    assert all(torch.equal(weights[2][name], weights[3][name]) for name in weights[2] if ".denoiser." in name)
    assert any(not torch.equal(weights[3][name], weights[5][name]) for name in weights[3] if ".denoiser." in name)
