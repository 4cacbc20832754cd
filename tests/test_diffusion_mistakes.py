"""Mistakes of the diffusion-distilled regime: one line each that says what to do, before anything is trained."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cli.errors import message_for_users
from datamodules.distilled import DistilledPatch, write_distilled
from main import main
from tests.diffusion_runs import MODEL, adapting, budget, fit_lora, run, sample, small, write_model

ALL_OFF = "{simple: 0, representativeness: 0, diversity: 0, high_frequency: 0}"
DENOISER = [f"{MODEL}denoiser", "{layers: 1, heads: 2, head_width: 8, patch: 4}"]
TABLE = "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight"


@pytest.fixture(scope="module")
def made(tiny_in, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A model, an adapter and a checkpoint of it, and a checkpoint of SuperResolution."""
    root = tmp_path_factory.mktemp("mistakes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRDISTILL_CACHE", str(root / "cache"))
        tiny, model = tiny_in(root / "runs"), write_model(root / "model")
        adapter = fit_lora(*small(tiny), *adapting(model), "--run.experiment", "lora").run_dir
        network = run("fit", "sr/full.yaml", *tiny, "--run.experiment", "network").run_dir
        yield SimpleNamespace(model=model, adapter=adapter, network=network)


@pytest.fixture
def options(made: SimpleNamespace, tiny: list[str]) -> list[str]:
    return [*small(tiny), *adapting(made.model)]


@pytest.fixture
def complaint(tmp_path: Path) -> Callable[..., str]:
    """What a command says that must fail without having trained or sampled anything."""

    def failed(command: Callable[..., Any], *args: str) -> str:
        with pytest.raises(Exception) as error:  # noqa: PT011  # of which type is the message's concern
            command(*args)
        said = message_for_users(error.value)
        assert said is not None, error.value
        assert "\n" not in said
        assert len(said) < 500
        assert not [
            *tmp_path.glob("runs/**/*.ckpt"),
            *tmp_path.glob("runs/**/adapter"),
            *tmp_path.glob("cache/samples"),
        ]
        return said

    return failed


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        ([f"{MODEL}pretrained", "./nowhere"], "model.pretrained ./nowhere: no such folder; give a folder of diffusers"),
        (["--data.init_args.patch_size", "32"], "makes patches of 16 pixels but data.patch_size is 32; set data.patch"),
        (
            ["--data.init_args.pseudo_labels", "null"],
            "needs pseudo-labels: use data SelectedPatches with pseudo_labels",
        ),
        (["--data.init_args.pseudo_labels.classes", "500"], "500 pseudo-classes cannot be made of 81 candidates"),
        ([f"{MODEL}losses", ALL_OFF], "model.losses has only weights of 0, which train nothing; set one"),
        ([f"{MODEL}losses.diversity", "-1"], "model.losses.diversity is -1"),
        ([f"{MODEL}budget", "{ipc: 2, patches: 3}"], "budget has patches and ipc; set one of them"),
        ([f"{MODEL}oversample", "0.5"], "model.oversample 0.5; expected"),
        ([f"{MODEL}label_dropout", "1"], "model.label_dropout is 1"),
        ([f"{MODEL}adaptation", "{class_path: LoRA, init_args: {rank: 0}}"], "rank 0"),
        ([f"{MODEL}adaptation", "{class_path: LoRA, init_args: {target_modules: [to_z]}}"], "LoRA cannot find to_z"),
        ([f"{MODEL}optimizer.init_args.lr", "-1"], "Invalid learning rate"),
    ],
)
def test_setting(mistake: list[str], expected: str, options: list[str], complaint: Callable[..., str]) -> None:
    assert expected in complaint(fit_lora, *options, *mistake)


def test_hub_without_network(
    options: list[str], complaint: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """HF_HUB_OFFLINE=1, which the library reads when it is imported."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    said = complaint(fit_lora, *options, f"{MODEL}pretrained", "facebook/DiT-XL-2-512")
    assert said.startswith("cannot get facebook/DiT-XL-2-512 from the Hugging Face hub (")
    assert "give a folder of diffusers on this machine" in said


@pytest.mark.parametrize(
    ("change", "expected"),
    [(lambda table: table[:-1], "cannot be loaded"), (lambda table: table * float("nan"), "are not finite")],
    ids=["no null class", "not finite"],
)
def test_weights_of_the_model(
    change: Callable[[torch.Tensor], torch.Tensor],
    expected: str,
    made: SimpleNamespace,
    options: list[str],
    complaint: Callable[..., str],
    tmp_path: Path,
) -> None:
    """diffusers' DiT always has a null class: a file without cannot be loaded."""
    shutil.copytree(made.model, tmp_path / "changed")
    (file,) = (tmp_path / "changed" / "transformer").glob("*.safetensors")
    weights = load_file(file)
    save_file(weights | {TABLE: change(weights[TABLE]).contiguous()}, file, {"format": "pt"})
    assert expected in complaint(fit_lora, *options, f"{MODEL}pretrained", str(tmp_path / "changed"))


def test_guidance_without_null_class(
    options: list[str], complaint: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_modules.lora_diffusion.has_null", lambda denoiser: False)
    assert "label_dropout above 0 needs a null class" in complaint(
        fit_lora, *options, f"{MODEL}sampler", "{guidance: 1}"
    )
    assert "sampler.guidance above 1 needs a null class" in complaint(
        fit_lora, *options, f"{MODEL}sampler", "{guidance: 4}"
    )


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        (["--data.init_args.pseudo_labels.classes", "4"], "classes is 3 there and 4 here"),
        (
            [f"{MODEL}adaptation", "{class_path: LoRA, init_args: {rank: 3, alpha: 2}}"],
            "adaptation.rank is 2 there and 3 here",
        ),
        ([f"{MODEL}condition", "features"], "condition is label there and features here"),
    ],
    ids=["classes", "rank", "condition"],
)
def test_adapter_of_another_kind(
    mistake: list[str], expected: str, made: SimpleNamespace, options: list[str], complaint: Callable[..., str]
) -> None:
    assert expected in complaint(sample, *options, *mistake, f"{MODEL}init_from", str(made.adapter))


def test_checkpoint_of_another_adapter(
    made: SimpleNamespace, options: list[str], complaint: Callable[..., str]
) -> None:
    """In classes, or in the losses, whose memories it has."""
    checkpoint = ["--ckpt_path", str(made.adapter / "checkpoints" / "last.ckpt")]
    four = ["--data.init_args.pseudo_labels.classes", "4"]
    assert "classes is 3 there and 4 here" in complaint(fit_lora, *options, *four, *checkpoint)
    said = complaint(fit_lora, *options, f"{MODEL}losses.memory", "2", *checkpoint)
    assert "objective.minimax.real.vectors: saved with shape (3, 64, 768), this model (3, 2, 768)" in said


def test_adapter_of_another_model(
    made: SimpleNamespace, options: list[str], complaint: Callable[..., str], tmp_path: Path
) -> None:
    other = write_model(tmp_path / "other", seed=1)
    said = complaint(sample, *options, f"{MODEL}pretrained", str(other), f"{MODEL}init_from", str(made.adapter))
    assert "does not belong to this model: base (weights of model.pretrained and model.autoencoder) is " in said


def test_checkpoint_of_another_module(
    made: SimpleNamespace, options: list[str], tiny: list[str], complaint: Callable[..., str]
) -> None:
    checkpoint = ["--ckpt_path", str(made.network / "checkpoints" / "last.ckpt")]
    expected = "is no checkpoint of LoRADiffusion"
    assert expected in complaint(fit_lora, *options, *checkpoint)
    assert expected in complaint(sample, *options, *budget(ipc=1), f"{MODEL}init_from", "null", *checkpoint)
    prior = [*small(tiny), *DENOISER, f"{MODEL}autoencoder", "null", *checkpoint]
    said = complaint(run, "fit", "distill/diffusion/prior.yaml", *prior)
    assert "is no checkpoint of this DiffusionPrior" in said


def test_sampling_without_an_adapter(options: list[str], complaint: Callable[..., str]) -> None:
    said = complaint(sample, *options, f"{MODEL}init_from", "null", *budget(ipc=1))
    assert said.startswith("predict needs trained weights")


def test_features_of_data_that_have_none(
    options: list[str], complaint: Callable[..., str], tmp_path: Path, tiny_photographs: Path
) -> None:
    """A distilled set has pseudo-labels alone."""
    patches = [DistilledPatch(np.full((16, 16, 3), 9 * n, np.uint8), None, {"pseudo_label": n % 3}) for n in range(6)]
    write_distilled(tmp_path / "set", patches, 4, {"method": "none"})
    data = {"distilled": str(tmp_path / "set"), "root": str(tiny_photographs), "patch_size": 16, "batch_size": 4}
    of_data = [word for key, value in data.items() for word in (f"--data.init_args.{key}", str(value))]
    pretrained = options.index(f"{MODEL}pretrained")
    model = [
        *options[pretrained : pretrained + 2],
        f"{MODEL}condition",
        "features",
        "--run.root",
        str(tmp_path / "runs"),
    ]
    for_all = ["--data", "SyntheticPatches", *of_data, *model, "--trainer.accelerator", "cpu"]
    said = complaint(lambda: main(["fit", "--model", "LoRADiffusion", *for_all]))
    assert said.startswith("model.condition is features but SyntheticPatches has none")
