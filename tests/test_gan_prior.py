"""GANPrior through the command line: counting, resuming, two processes, and that it learns a distribution."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cli.errors import message_for_users
from lightning_modules.gan.style_file import load_style_generator
from tests.diffusion_runs import MODEL, SIDE, run, small
from tests.process_runs import two_and_one
from tests.run_records import logged
from tests.test_resume import differences, kept, last  # noqa: F401  # a fixture

NETWORKS = [f"{MODEL}networks", "{z_dim: 4, w_dim: 6, mapping_layers: 2, channels: 8}"]
NO_PICTURES = ["--sample_grid.per_class", "0"]
EVERYTHING = [
    *(f"{MODEL}r1_every", "2", f"{MODEL}path_weight", "2", f"{MODEL}path_every", "3"),
    *(f"{MODEL}gradient_clip", "1", "--data.init_args.augmentation", "strong"),
]


def fit(*args: str) -> Any:
    return run("fit", "distill/gsdd/prior.yaml", *args)


@pytest.fixture
def arguments(tiny: list[str]) -> list[str]:
    return [*small(tiny), *NETWORKS, "--trainer.num_sanity_val_steps", "0"]


def test_steps_are_the_generators(arguments: list[str]) -> None:
    """Each network has made as many as trainer.max_steps says; validations and pictures come by the same number."""
    cli = fit(*arguments, "--trainer.max_steps", "3")
    saved = last(cli)
    assert cli.trainer.global_step == saved["global_step"] == 3
    for of_network in saved["optimizer_states"]:
        assert {float(state["step"]) for state in of_network["state"].values()} == {3.0}
    pictures = {path.name for path in (cli.run_dir / "images").iterdir()}
    assert pictures >= {f"samples_0000000{step}.png" for step in (1, 2, 3)}
    assert len(logged(cli.run_dir, "val/kernel_distance")) == 3
    assert logged(cli.run_dir, "train/r1")


def test_what_is_exported_is_the_average(arguments: list[str]) -> None:
    """As it is in the checkpoint, whose EMA callback keeps the weights under training, which are others."""
    cli = fit(*arguments)
    generator, saved = load_style_generator(cli.run_dir), last(cli)
    trained = saved["callbacks"]["EMA"]["trained"]
    for name, weight in generator.state_dict().items():
        assert torch.equal(weight, saved["state_dict"][f"generator.{name}"])
    assert any(not torch.equal(trained[name], saved["state_dict"][name]) for name in trained)
    assert generator.side == SIDE


def test_checkpoints_measure_as_in_training(arguments: list[str]) -> None:
    cli = fit(*arguments)
    weights = ["--ckpt_path", str(cli.run_dir / "checkpoints" / "last.ckpt")]
    again = run("validate", "distill/gsdd/prior.yaml", *arguments, *weights)
    expected = logged(cli.run_dir, "val/kernel_distance")[-1]
    assert again.trainer.callback_metrics["val/kernel_distance"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.usefixtures("kept")
def test_resume_is_exact(arguments: list[str], tmp_path: Path) -> None:
    """Both networks, optimisers and averages, with both regularisers between the steps where they are computed."""
    arguments = [*arguments, *NO_PICTURES, *EVERYTHING, "--checkpoint.every_n_steps", "1"]
    arguments += ["--trainer.max_steps", "6", "--trainer.val_check_interval", "4"]
    uninterrupted = fit(*arguments)
    resumed = fit(*arguments, "--ckpt_path", str(tmp_path / "kept" / "3.ckpt"))
    assert differences(last(uninterrupted), last(resumed)) == []
    assert last(uninterrupted)["state_dict"]["path_length"] > 0
    first, second = (load_file(cli.run_dir / "generator" / "generator.safetensors") for cli in (uninterrupted, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_settings_given_at_a_resume_win(arguments: list[str]) -> None:
    first = fit(*arguments, *NO_PICTURES)
    weights = ["--ckpt_path", str(first.run_dir / "checkpoints" / "last.ckpt"), "--trainer.max_steps", "3"]
    resumed = fit(*arguments, *NO_PICTURES, *weights, f"{MODEL}discriminator_optimizer.init_args.lr", "0.5")
    rates = [state["param_groups"][0]["lr"] for state in last(resumed)["optimizer_states"]]
    assert rates == [5e-3, 0.5]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
@pytest.mark.usefixtures("decoded")
def test_two_processes_are_as_one(arguments: list[str]) -> None:
    """Groups of four patches lie whole on a process, so that six steps of plain SGD end with the same weights.

    The path length is left out: its running mean is that of a process's own patches until the step is over.
    """
    sgd = "{class_path: torch.optim.SGD, init_args: {lr: 0.02}}"
    arguments = [
        *(*arguments, *NO_PICTURES, *EVERYTHING, f"{MODEL}path_weight", "0", "--data.init_args.validation", "2"),
        *(f"{MODEL}optimizer", sgd, f"{MODEL}discriminator_optimizer", sgd),
        *("--trainer.max_steps", "6", "--trainer.val_check_interval", "3"),
    ]
    two, one = two_and_one(fit, arguments, within=1e-4)
    assert logged(two.run_dir, "val/kernel_distance") == pytest.approx(
        logged(one.run_dir, "val/kernel_distance"), rel=1e-2
    )


def test_a_discriminator_that_is_not_finite_is_not_stepped(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_modules.gan_prior.discriminator_loss", lambda real, fake: fake.sum() * torch.nan)
    cli = fit(*arguments, *NO_PICTURES)
    generator, discriminator = last(cli)["optimizer_states"]
    assert generator["state"]
    assert not discriminator["state"]
    assert logged(cli.run_dir, "train/skipped_steps") == [1, 2]


def test_two_colours_are_learned(arguments: list[str], tmp_path: Path) -> None:
    """Of flat patches in two colours, each half of the photographs: samples come to have both, which are 215 apart."""
    colours = np.array([[200, 60, 40], [40, 90, 180]])
    for number in range(12):
        picture = np.broadcast_to(colours[number % 2], (32, 32, 3)).astype(np.uint8)
        (tmp_path / "flat").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "flat" / f"{number}.png")
    cli = fit(
        *(*arguments, "--data.init_args.root", str(tmp_path / "flat"), "--data.init_args.validation", "0.5"),
        *("--data.init_args.batch_size", "16", f"{MODEL}augmentation", "none", f"{MODEL}networks.channels", "16"),
        *("--trainer.max_steps", "120", "--trainer.val_check_interval", "40", "--ema.decay", "0.9"),
    )
    first, *_, end = logged(cli.run_dir, "val/kernel_distance")
    with torch.no_grad():
        made = load_style_generator(cli.run_dir)(torch.randn(64, 4, generator=torch.Generator().manual_seed(0)))
    distances = torch.cdist((made.mean((2, 3)) + 1) / 2 * 255, torch.tensor(colours).float())
    assert end < first / 10
    assert distances.min(1).values.mean() < 40
    assert 0.1 < distances.argmin(1).float().mean() < 0.9


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        (["--trainer.precision", "bf16-true"], "trainer.precision is bf16-true"),
        (["--trainer.gradient_clip_val", "1"], "set model.gradient_clip instead"),
        (["--trainer.accumulate_grad_batches", "2"], "set data.batch_size instead"),
        (["--data.init_args.patch_size", "24"], "not of 24; set data.patch_size to 32"),
        ([f"{MODEL}networks.channels", "4"], "channels 4; expected at least 8"),
        ([f"{MODEL}r1_weight", "-1"], "model.r1_weight is -1.0 and model.r1_every 16"),
        ([f"{MODEL}path_every", "0"], "model.path_every 0; expected"),
        ([f"{MODEL}gradient_clip", "0"], "model.gradient_clip is 0.0; expected"),
        ([f"{MODEL}augmentation", "colour"], "'color'"),
        ([f"{MODEL}discriminator_optimizer.init_args.lr", "-1"], "model.init_args.discriminator_optimizer: Invalid"),
    ],
)
def test_mistake(mistake: list[str], expected: str, arguments: list[str]) -> None:
    with pytest.raises(Exception) as error:  # noqa: PT011  # of which type is the message's concern
        fit(*arguments, *mistake)
    said = message_for_users(error.value)
    assert said is not None, error.value
    assert expected in said
    assert "\n" not in said


def test_checkpoint_of_other_networks(arguments: list[str]) -> None:
    first = fit(*arguments, *NO_PICTURES)
    checkpoint = ["--ckpt_path", str(first.run_dir / "checkpoints" / "last.ckpt")]
    with pytest.raises(ValueError, match="no checkpoint of this GANPrior: generator"):
        fit(*arguments, *checkpoint, f"{MODEL}networks.w_dim", "7")
