"""Restoration from the command line: at scale 1 everything works that works in super-resolution."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cli.app import SRDistillCLI
from lightning_modules.networks.trained import load_trained
from lightning_modules.upscaling import upscale
from main import main

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
DENOISE = ("--config", str(CONFIGS / "restoration" / "denoise.yaml"))
NAFNET = (
    "{architecture: spandrel.architectures.NAFNet.NAFNet, "
    "options: {width: 4, middle_blk_num: 1, enc_blk_nums: [1, 1], dec_blk_nums: [1, 1]}}"
)
MODEL, DATA = "--model.init_args.", "--data.init_args."


def run(command: str, config: str, *args: str) -> SRDistillCLI:
    cli = main([command, "--config", str(CONFIGS / config), *DENOISE, *args])
    assert cli is not None
    return cli


@pytest.fixture
def small(tiny: list[str]) -> list[str]:
    return [*tiny, f"{MODEL}network", NAFNET, "--image_grid.images", "0"]


def test_resumed_is_uninterrupted(small: list[str], tmp_path: Path) -> None:
    """Noise follows from the sample's number, so that the second half meets what it would have met."""
    halves = ["--run.root", str(tmp_path / "halves"), f"{MODEL}lr_scheduler", "null"]
    constant = ["--run.root", str(tmp_path / "whole"), f"{MODEL}lr_scheduler", "null"]
    whole = run("fit", "sr/full.yaml", *small, *constant, "--trainer.max_steps", "4")
    run("fit", "sr/full.yaml", *small, *halves, "--trainer.max_steps", "2")
    resumed = run("fit", "sr/full.yaml", *small, *halves, "--trainer.max_steps", "4", "--ckpt_path", "last")
    first, second = (load_file(cli.run_dir / "weights.safetensors") for cli in (whole, resumed))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_restores_a_folder(small: list[str], tmp_path: Path) -> None:
    """In tiles, as the mean over the symmetries, with the exported weights; pictures keep their size."""
    fitted = run("fit", "sr/full.yaml", *small)
    folder = tmp_path / "noisy"
    folder.mkdir()
    for name, size in (("a.png", (70, 53)), ("b.jpg", (64, 64))):
        levels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / name)
    weights = fitted.run_dir / "weights.safetensors"
    tiled = [f"{MODEL}tile", "43", f"{MODEL}tile_overlap", "8", f"{MODEL}self_ensemble", "true"]
    predicted = run(
        "predict", "sr/full.yaml", *small, *tiled, f"{DATA}predict_root", str(folder), f"{MODEL}init_from", str(weights)
    )
    written = predicted.run_dir / "predictions"
    lines = [json.loads(line) for line in (written / "metadata.jsonl").read_text().splitlines()]
    assert [(line["file_name"], line["width"], line["height"], line["scale"]) for line in lines] == [
        ("a.png", 70, 53, 1),
        ("b.png", 64, 64, 1),
    ]
    trained = load_trained(weights)
    assert trained.scale == 1
    noisy = torch.from_numpy(np.array(Image.open(folder / "a.png"))).permute(2, 0, 1)[None].float() / 255
    expected = upscale(trained.network, noisy, 1, tile=43, overlap=8, self_ensemble=True).clamp(0, 1) * 255
    found = torch.from_numpy(np.array(Image.open(written / "a.png"))).permute(2, 0, 1)
    assert (found - expected[0]).abs().max() < 0.51


def test_selected_relabelled_and_trained_on(small: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Distilled sets hold clean patches alone; the teacher restores degraded ones."""
    monkeypatch.chdir(tmp_path)
    without_network = [word for word in small if "network" not in word and "architecture" not in word]
    chosen = ["--data.init_args.criterion", "Entropy", "--data.init_args.budget.percent", "20"]
    run("predict", "distill/select.yaml", *without_network, *chosen)
    fitted = run("fit", "sr/distilled.yaml", *small)
    run("predict", "distill/relabel.yaml", *without_network, f"{MODEL}teacher", str(fitted.run_dir))
    for name in ("selected", "relabelled"):
        assert not list((tmp_path / "distilled" / name).glob("lr_*"))
    selected, relabelled = (Path("distilled", name, "images/000000.png") for name in ("selected", "relabelled"))
    assert selected.read_bytes() != relabelled.read_bytes()
    again = run("fit", "sr/distilled.yaml", *small, f"{DATA}distilled", "distilled/relabelled")
    assert again.trainer.global_step == 2


def test_measured_against_the_input(small: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    fitted = run("fit", "sr/full.yaml", *small)
    tested = run("test", "sr/full.yaml", *small, "--ckpt_path", str(fitted.run_dir / "checkpoints" / "last.ckpt"))
    (values,) = json.loads((tested.run_dir / "results.json").read_text())["sets"].values()
    assert {"psnr_rgb", "psnr_rgb_input", "psnr_y", "psnr_y_input"} <= values.keys()
    # 20 log10(255 / 25) before clipping; the pictures have little black and white
    assert values["psnr_rgb_input"] == pytest.approx(20.17, abs=0.5)
    assert "restored" in capsys.readouterr().out
    assert "bicubic" not in (fitted.run_dir / "metrics.csv").read_text()
