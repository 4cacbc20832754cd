"""Mistakes of GSDD: one line each that says what to do, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.diffusion_runs import MODEL, run, small
from tests.gsdd_runs import PROXY, decode, invert, inverting, of_data, write_sr, write_style
from tests.test_diffusion_mistakes import complaint  # noqa: F401  # a fixture

SIXTEEN = "the generator makes patches of 16 pixels but the data's are of 32 x 32; use data SelectedPatches with"


@pytest.fixture(scope="module")
def made(tiny_in, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """Generators, the folder of a run that found latents, and that of one of SuperResolution."""
    root = tmp_path_factory.mktemp("mistakes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRDISTILL_CACHE", str(root / "cache"))
        tiny, generator = tiny_in(root / "runs"), write_sr(root / "sr.safetensors")
        others = {
            "other": write_sr(root / "other.safetensors", seed=1),
            "threefold": write_sr(root / "threefold.safetensors", scale=3),
            "style": write_style(root / "style", side=32),
        }
        latents = invert(*small(tiny), *inverting(generator), f"{MODEL}proxy", PROXY).run_dir
        network = run("fit", "sr/full.yaml", *tiny, "--run.experiment", "network").run_dir
        yield SimpleNamespace(generator=generator, latents=latents, network=network, **others)


@pytest.fixture
def options(made: SimpleNamespace, tiny: list[str]) -> list[str]:
    return [*small(tiny), *inverting(made.generator), f"{MODEL}proxy", PROXY]


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        ([f"{MODEL}generator", "null"], "model.generator is not set: give {source: FILE_OR_FOLDER}, or latents by"),
        ([f"{MODEL}generator.source", "./nowhere.pth"], "model.generator.source ./nowhere.pth: no such file"),
        ([f"{MODEL}budget.ipc", "500"], "model.budget asks for 500 latents of class 0, which has "),
        ([f"{MODEL}budget", "{ipc: 2, patches: 3}"], "budget has patches and ipc; set one of them"),
        (["--data.init_args.candidate_size", "32"], SIXTEEN),
        ([f"{MODEL}matching", "{mean: 0}"], "which matches nothing; set one"),
        ([f"{MODEL}matching.fourier", "-1"], "model.matching.fourier is -1"),
        ([f"{MODEL}inversion", "{pixel: 0, feature: 0}"], "model.inversion.pixel and feature are both 0"),
        ([f"{MODEL}inversion_steps", "-1"], "model.inversion_steps is -1; expected at least 0"),
        ([f"{MODEL}real_batch", "0"], "model.real_batch is 0; expected at least 1"),
        ([f"{MODEL}chunk", "0"], "model.chunk is 0; expected at least 1"),
        ([f"{MODEL}augmentation", "color_twist"], "names 'twist'; the nearest valid name is"),
        ([f"{MODEL}features", "{class_path: RandomConvNet, init_args: {depth: 5}}"], "give it a smaller depth"),
        ([f"{MODEL}optimizer.init_args.lr", "-1"], "Invalid learning rate"),
    ],
)
def test_setting(mistake: list[str], expected: str, options: list[str], complaint: Callable[..., str]) -> None:  # noqa: F811
    assert expected in complaint(invert, *options, *mistake)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("threefold", "upscales by 3, which does not fit patches of 16 pixels; set data.patch_size"),
        (
            "style",
            "makes patches of 32 pixels but data.patch_size is 16; set data.patch_size (and candidate_size) to 32",
        ),
    ],
)
def test_generator_that_does_not_fit(
    name: str,
    expected: str,
    made: SimpleNamespace,
    options: list[str],
    complaint: Callable[..., str],  # noqa: F811
) -> None:
    said = complaint(invert, *options, f"{MODEL}generator.source", str(getattr(made, name)))
    assert expected in said
    assert str(getattr(made, name)) in said


def test_weights_that_nobody_knows(options: list[str], complaint: Callable[..., str], tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "weights.pth").write_bytes(b"no network")
    said = complaint(invert, *options, f"{MODEL}generator.source", str(tmp_path / "weights.pth"))
    assert said.startswith(f"{tmp_path / 'weights.pth'} cannot be read as a file of tensors and plain values")


def test_random_latents_may_be_more_than_real_patches(made: SimpleNamespace, tiny: list[str]) -> None:
    """It is what the message about IPC proposes."""
    many = [*small(tiny), *inverting(made.generator, ipc=100), f"{MODEL}proxy", "null", f"{MODEL}start", "random"]
    cli = invert(*many, "--trainer.max_steps", "1", f"{MODEL}chunk", "100")
    assert cli.model.latents.shape == (300, 3, 4, 4)


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        (["--data.init_args.pseudo_labels.classes", "2"], "has latents of class 2, which no patch of the data has"),
        (["--data.init_args.patch_size", "32"], SIXTEEN),
        ([f"{MODEL}init_from", "./nowhere"], "there is no nowhere/latents.safetensors; give the folder of a finished"),
    ],
    ids=["classes", "patch size", "no latents"],
)
def test_latents(
    mistake: list[str],
    expected: str,
    made: SimpleNamespace,
    tiny: list[str],
    complaint: Callable[..., str],  # noqa: F811
) -> None:
    assert expected in complaint(decode, *small(tiny), *of_data(), f"{MODEL}init_from", str(made.latents), *mistake)


def test_decoding_without_latents(made: SimpleNamespace, tiny: list[str], complaint: Callable[..., str]) -> None:  # noqa: F811
    generator = [f"{MODEL}generator", f"{{source: {made.generator}}}", f"{MODEL}init_from", "null"]
    assert complaint(decode, *small(tiny), *of_data(), *generator).startswith("predict needs trained weights")


def test_latents_of_another_generator(made: SimpleNamespace, tiny: list[str], complaint: Callable[..., str]) -> None:  # noqa: F811
    found = [*small(tiny), *of_data(), f"{MODEL}init_from", str(made.latents)]
    said = complaint(decode, *found, f"{MODEL}generator", f"{{source: {made.other}}}")
    assert said.startswith(f"the latents were made for another generator ({made.generator}, 16 pixels, fingerprint")
    assert str(made.other) in said


def test_checkpoint_of_something_else(
    made: SimpleNamespace,
    options: list[str],
    complaint: Callable[..., str],  # noqa: F811
) -> None:
    network = ["--ckpt_path", str(made.network / "checkpoints" / "last.ckpt")]
    assert "is no checkpoint of GANInversion" in complaint(invert, *options, *network)
    checkpoint = ["--ckpt_path", str(made.latents / "checkpoints" / "last.ckpt")]
    for other in ([f"{MODEL}budget.ipc", "2"], [f"{MODEL}generator.source", str(made.other)]):
        said = complaint(invert, *options, *other, *checkpoint)
        assert "the checkpoint's latents belong to another generator, or are of other classes or numbers" in said
