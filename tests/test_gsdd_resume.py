"""Exact resume of GSDD: what was stopped and resumed ends with the same bits as what was not.

The checkpoint holds latents, optimiser and schedule; the generator comes from its file, and real patches, networks and
augmentation follow from the number of the step.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.diffusion_runs import MODEL, small
from tests.gsdd_runs import PROXY, invert, inverting, write_sr, write_style
from tests.test_resume import differences, kept, last  # noqa: F401  # a fixture

CYCLE = "{class_path: OneCycleLR, init_args: {max_lr: 0.01, total_steps: 6}}"


@pytest.mark.parametrize(("kind", "cuts"), [("sr", ["2", "3", "5"]), ("style", ["4"])])
def test_resume_is_exact(kind: str, cuts: list[str], tiny: list[str], kept: Path, tmp_path: Path) -> None:  # noqa: F811
    """Three steps invert, three match; the stop falls into the one, between them, or into the other."""
    source = write_sr(tmp_path / "sr.safetensors") if kind == "sr" else write_style(tmp_path / "generator")
    arguments = [
        *small(tiny),
        *inverting(source, steps=3),
        *(f"{MODEL}lr_scheduler", CYCLE, f"{MODEL}proxy", PROXY, "--checkpoint.every_n_steps", "1"),
        *("--trainer.val_check_interval", "2", "--trainer.max_steps", "6"),
    ]
    uninterrupted = invert(*arguments)
    found = load_file(uninterrupted.run_dir / "latents" / "latents.safetensors")["latents"]
    for cut in cuts:
        resumed = invert(*arguments, "--ckpt_path", str(kept / f"{cut}.ckpt"))
        assert differences(last(uninterrupted), last(resumed)) == [], cut
        assert torch.equal(load_file(resumed.run_dir / "latents" / "latents.safetensors")["latents"], found)
    at = {step: torch.load(kept / f"{step}.ckpt", weights_only=True)["state_dict"] for step in (1, 3, 4, 6)}
    assert not torch.equal(at[1]["inversion_psnr"], at[3]["inversion_psnr"])
    assert torch.equal(at[3]["inversion_psnr"], at[6]["inversion_psnr"])
    moves = [(at[a]["latents"] - at[b]["latents"]).abs().max() for a, b in ((1, 3), (3, 4), (4, 6))]
    assert min(moves) > 0
