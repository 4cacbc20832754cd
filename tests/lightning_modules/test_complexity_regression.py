"""ComplexityRegression: figures against SciPy and scikit-image, and through the command line on photographs."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from cli.errors import message_for_users
from datamodules.pair import PairBatch
from datamodules.selection.trained_criteria import LearnedComplexity
from lightning_modules.complexity_file import complexity_fingerprint, load_complexity
from lightning_modules.complexity_regression import ComplexityRegression, agreement
from lightning_modules.networks.complexity_vit import ComplexityViT, ViTSpec
from tests.diffusion_runs import CONFIGS, MODEL, run, small
from tests.process_runs import two_and_one
from tests.run_records import logged
from tests.test_resume import differences, kept, last  # noqa: F401  # a fixture

timm = pytest.importorskip("timm")

SIDE = 32
CONFIG = "distill/tripled/complexity.yaml"
PAPER = CONFIGS / "distill" / "tripled" / "complexity_paper.yaml"
OPTIONS = {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
TINY = ViTSpec("vit_tiny_patch16_224", side=SIDE, options=OPTIONS)


def vit(side: int, model: str = TINY.model, **options: Any) -> list[str]:
    """Command line for a network."""
    network = {"model": model, "side": side, "options": options}
    return [f"{MODEL}vit", yaml.safe_dump(network, default_flow_style=True)]


def fit(*args: str) -> Any:
    return run("fit", CONFIG, *args)


@pytest.fixture
def arguments(tiny: list[str]) -> list[str]:
    """Four patches of 32 pixels a step; two steps."""
    return [*small(tiny), "--data.init_args.patch_size", str(SIDE), *vit(SIDE, **OPTIONS)]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 squares of 128 x 128 pixels of scikit-image's photographs."""
    from skimage import data

    folder = tmp_path_factory.mktemp("photographs")
    for name, image in (("astronaut", data.astronaut()), ("coffee", data.coffee()), ("rocket", data.rocket())):
        for top, left in itertools.product(range(0, 384, 128), range(0, 512, 128)):
            Image.fromarray(image[top:, left:][:128, :128]).save(folder / f"{name}-{top}-{left}.png")
    return folder


# --- figures ----------------------------------------------------------------------------------------------------------


def test_agreement_is_scipys_rank_correlation_with_ties():
    from scipy import stats

    draws = np.random.default_rng(0)
    exact = draws.integers(0, 12, 200) / 2
    estimates = np.round(exact + draws.normal(0, 2, 200), 1)
    found = agreement(torch.from_numpy(estimates), torch.from_numpy(exact))
    assert found["val/spearman"] == pytest.approx(stats.spearmanr(estimates, exact).statistic, abs=1e-6)
    assert found["val/rmse"] == pytest.approx(np.sqrt(np.mean((estimates - exact) ** 2)), rel=1e-12)
    assert agreement(torch.ones(5).double(), torch.arange(5).double())["val/spearman"] == 0


def entropies(pixels: torch.Tensor) -> np.ndarray:
    """Of uint8 (B, 3, H, W) in bits, by Pillow, SciPy and scikit-image."""
    from scipy import ndimage
    from skimage.measure import shannon_entropy

    values = []
    for picture in pixels.permute(0, 2, 3, 1).numpy():
        luma = np.asarray(Image.fromarray(picture).convert("L"), dtype=np.float64)
        gradient = np.hypot(*(ndimage.sobel(luma, axis=axis, mode="nearest") for axis in (0, 1))) / 8
        values.append(shannon_entropy(luma) + shannon_entropy(np.floor(gradient + 1e-9)))
    return np.array(values)


def test_the_target_is_the_entropy_of_the_8_bit_pixels_that_the_network_sees(monkeypatch):
    """Of a batch between two grey levels, as augmentation leaves it."""
    torch.manual_seed(0)
    module = ComplexityRegression(vit=TINY)
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    module.network = ComplexityViT(TINY)
    module.network.set_unit(torch.tensor([8.0, 12.0]))
    hr = torch.nn.functional.interpolate(torch.rand(3, 3, 9, 9), SIDE, mode="bilinear")
    pixels = (hr * 255).round()
    with torch.no_grad():
        loss = module.training_step(PairBatch(hr, hr, torch.arange(3)), 0)
        estimates = 10 + 2 * module.network.vit((pixels / 255 - 0.5) / 0.5).squeeze(1)
    expected = np.mean(((estimates.numpy() - entropies(pixels.byte())) / 2) ** 2)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_flat_training_patches_have_a_unit():
    network = ComplexityViT(TINY)
    network.set_unit(torch.zeros(4))
    assert (network.mean.item(), network.deviation.item()) == (0, 1)


@pytest.mark.parametrize("side", [16, 48])
def test_copies_are_pillows(side):
    """Patches larger and smaller than the copy are resized as Pillow does: bicubic, with antialiasing."""
    network = ComplexityViT(TINY)
    seen: list[torch.Tensor] = []
    network.vit.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    coarse = np.random.default_rng(0).integers(40, 216, (6, 6, 3), dtype=np.uint8)
    patch = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    network(torch.from_numpy(np.array(patch)).permute(2, 0, 1)[None].float() / 255)
    copy = (seen[0][0].permute(1, 2, 0).numpy() * 0.5 + 0.5) * 255
    expected = np.asarray(patch.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float64)
    assert np.abs(copy - expected).max() < 1.5  # Pillow rounds after each of two passes
    assert np.abs(copy - expected).mean() < 0.4


# --- through the command line -----------------------------------------------------------------------------------------


def test_held_out_photographs_are_ranked_and_patches_chosen_by_it(tiny: list[str], photographs: Path) -> None:
    """What is exported agrees with exact entropy as validation says, by SciPy; the shipped selection reads it."""
    from scipy import stats

    data = ["--data.init_args.root", str(photographs), "--data.init_args.patch_size", str(SIDE)]
    held_out = ["--data.init_args.validation", "8", "--data.init_args.batch_size", "16"]
    network = vit(SIDE, patch_size=8, embed_dim=32, depth=1, num_heads=2, class_token=False, global_pool="avg")
    rate = [f"{MODEL}optimizer.init_args.lr", "5e-3", f"{MODEL}lr_scheduler.init_args.max_lr", "5e-3"]
    arguments = [*small(tiny), *data, *held_out, *network, *rate, "--data.init_args.augmentation", "plain"]
    cli = fit(*arguments, "--trainer.max_steps", "100", "--trainer.val_check_interval", "50", "--ema.decay", "0.9")
    *_, spearman = logged(cli.run_dir, "val/spearman")
    assert spearman > 0.5
    tiles = []
    for name in cli.datamodule.validation_images().names:
        image = np.asarray(Image.open(photographs / name))
        tiles += [row for rows in np.split(image, 4) for row in np.split(rows, 4, axis=1)]
    pixels = torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).contiguous()
    pairs = PairBatch(pixels, pixels, torch.arange(len(pixels)))
    estimates = LearnedComplexity(str(cli.run_dir))(pairs).numpy()
    assert len(tiles) == 128
    assert stats.spearmanr(estimates, entropies(pixels)).statistic == pytest.approx(spearman, abs=1e-3)
    rmse = np.sqrt(np.mean((estimates - entropies(pixels)) ** 2))
    assert rmse == pytest.approx(logged(cli.run_dir, "val/rmse")[-1], rel=1e-3)
    assert min(logged(cli.run_dir, "val/patches_per_second") + logged(cli.run_dir, "val/exact_patches_per_second")) > 0
    chosen = train_on_the_most_complex([*tiny, *data], cli.run_dir.parents[1])
    assert (chosen.scores[chosen.chosen] >= np.sort(chosen.scores)[-len(chosen.chosen)]).all()
    assert chosen.record()["scorer"]["optimizer_steps"] == 100


def train_on_the_most_complex(arguments: list[str], experiment: Path) -> Any:
    """One step as the header of complexity.yaml has it; what was chosen."""
    criterion = f"{{class_path: LearnedComplexity, init_args: {{network: {experiment}}}}}"
    rule = ["--data.init_args.criterion", criterion, "--data.init_args.selector", "Highest"]
    rule += ["--data.init_args.filters", "[]", "--selection_sheet.patches", "0", "--image_grid.images", "0"]
    return run("fit", "sr/selected.yaml", *arguments, *rule, "--trainer.max_steps", "1").datamodule.selection


def test_what_is_exported_is_the_average(arguments: list[str]) -> None:
    """As it is in the checkpoint, whose EMA callback keeps the weights under training, which are others."""
    cli = fit(*arguments)
    network, saved = load_complexity(cli.run_dir)[0], last(cli)
    trained = saved["callbacks"]["EMA"]["trained"]
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, saved["state_dict"][f"network.{name}"])
    assert any(not torch.equal(trained[name], saved["state_dict"][name]) for name in trained)


@pytest.mark.usefixtures("kept")
def test_resume_is_exact(arguments: list[str], tmp_path: Path) -> None:
    """With dropout, every augmentation, a schedule and averaged weights."""
    arguments = [
        *(*arguments, *vit(SIDE, **OPTIONS, proj_drop_rate=0.2, drop_path_rate=0.2)),
        *("--data.init_args.augmentation", "strong", "--checkpoint.every_n_steps", "1"),
        *("--trainer.max_steps", "6", "--trainer.val_check_interval", "4"),
    ]
    uninterrupted = fit(*arguments)
    resumed = fit(*arguments, "--ckpt_path", str(tmp_path / "kept" / "3.ckpt"))
    assert differences(last(uninterrupted), last(resumed)) == []
    first, second = (complexity_fingerprint(cli.run_dir) for cli in (uninterrupted, resumed))
    assert first == second


def test_checkpoints_measure_as_in_training(arguments: list[str]) -> None:
    cli = fit(*arguments)
    again = run("validate", CONFIG, *arguments, "--ckpt_path", str(cli.run_dir / "checkpoints" / "last.ckpt"))
    for name in ("val/spearman", "val/rmse"):
        assert again.trainer.callback_metrics[name].item() == pytest.approx(logged(cli.run_dir, name)[-1], rel=1e-5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
@pytest.mark.usefixtures("decoded")
def test_two_processes_are_as_one(arguments: list[str]) -> None:
    """With twice the batch: weights after plain SGD, and figures over three held-out photographs."""
    arguments = [
        *(*arguments, "--data.init_args.validation", "3"),
        *("--trainer.max_steps", "4", "--trainer.val_check_interval", "1"),
        *(f"{MODEL}optimizer", "{class_path: torch.optim.SGD, init_args: {lr: 0.05}}", f"{MODEL}lr_scheduler", "null"),
    ]
    two, one = two_and_one(fit, arguments, within=1e-5)
    for name in ("val/spearman", "val/rmse"):
        assert logged(two.run_dir, name) == pytest.approx(logged(one.run_dir, name), abs=1e-4)


def test_mixed_precision(arguments: list[str]) -> None:
    cli = fit(*arguments, "--trainer.precision", "bf16-mixed")
    assert all(tensor.dtype == torch.float32 for tensor in load_complexity(cli.run_dir)[0].state_dict().values())


def test_settings_given_at_a_resume_win(arguments: list[str]) -> None:
    first = fit(*arguments, f"{MODEL}lr_scheduler", "null")
    weights = ["--ckpt_path", str(first.run_dir / "checkpoints" / "last.ckpt"), "--trainer.max_steps", "3"]
    resumed = fit(*arguments, *weights, f"{MODEL}lr_scheduler", "null", f"{MODEL}optimizer.init_args.lr", "0.5")
    assert last(resumed)["optimizer_states"][0]["param_groups"][0]["lr"] == 0.5


# --- pretrained weights -----------------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Of timm's smallest ViT (tokens of 16 pixels, made for 160), as a file of the hub has them."""
    torch.manual_seed(0)
    file = tmp_path / "hub" / "model.safetensors"
    file.parent.mkdir()
    save_file(timm.create_model("test_vit").state_dict(), file)
    return file


def test_a_file_or_its_folder_gives_all_but_the_head(weights: Path) -> None:
    """At the size that it was made for nothing changes; at another the position embeddings alone are resampled."""
    tensors = load_file(weights)
    for given, side, other in ((weights, 160, set()), (weights.parent, 64, {"pos_embed"})):
        found = ComplexityViT(ViTSpec("test_vit", side=side), str(given)).vit.state_dict()
        assert found.keys() == tensors.keys()
        unchanged = {name for name in found if torch.equal(found[name], tensors[name])}
        assert found.keys() - unchanged == {"head.weight", "head.bias"} | other
        assert found["head.weight"].shape == (1, 64)


def test_the_head_alone_is_trained(arguments: list[str], weights: Path) -> None:
    given = [f"{MODEL}vit", "{model: test_vit, side: 32, options: {}}", f"{MODEL}pretrained", str(weights)]
    cli = fit(*arguments, *given, f"{MODEL}head_only", "true", "--ema.decay", "0")
    found, before = last(cli)["state_dict"], load_file(weights)
    changed = {name for name in before if not torch.equal(found[f"network.vit.{name}"], before[name])}
    assert changed == {"head.weight", "head.bias", "pos_embed"}  # the last one is for 32 pixels
    assert {*last(cli)["optimizer_states"][0]["state"]} == {0, 1}


def test_the_published_setting_runs_on_a_file(arguments: list[str], weights: Path) -> None:
    given = [f"{MODEL}vit", "{model: test_vit, side: 128, options: {}}", f"{MODEL}pretrained", str(weights)]
    assert fit("--config", str(PAPER), *arguments, *given).trainer.global_step == 2


def test_the_published_setting_is_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    """TripleD, arXiv 2504.14826: ViT-B/16 on copies of 128 x 128 pixels."""
    with pytest.raises(SystemExit, match="0"):
        fit("--config", str(PAPER), "--print_config")
    model = yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]
    assert model["vit"] == {"model": "vit_base_patch16_224", "side": 128, "options": {}}
    assert model["pretrained"] is True


def test_the_published_setting_without_network(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    published = [*("--config", str(PAPER), *arguments), *vit(128, "vit_base_patch16_224")]
    with pytest.raises(FileNotFoundError) as raised:
        fit(*published)
    assert str(raised.value).startswith("cannot get model.safetensors of timm/vit_base_patch16_224.augreg2_in21k")
    assert str(raised.value).endswith("set model.pretrained to a .safetensors file of the model, or to false")


def test_vit_b_16_has_the_published_size() -> None:
    """86 M parameters (Dosovitskiy et al., ICLR 2021), here with 64 tokens in place of 196 and one output."""
    with torch.device("meta"):
        network = ComplexityViT(ViTSpec())
    assert sum(weight.numel() for weight in network.parameters()) == 86_567_656 - 132 * 768 - 999 * 769


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        (["--data.init_args.patch_size", "12"], "data.patch_size is 12, too small for an entropy of 256 grey levels"),
        ([f"{MODEL}head_only", "true"], "model.head_only is true, but model.pretrained is false"),
        ([f"{MODEL}grey_weight", "-1"], "Entropy: grey_weight is -1.0"),
        (["--trainer.precision", "bf16-true"], "trainer.precision is bf16-true, but pixels come in float32"),
        (["--trainer.precision", "64-true"], "trainer.precision is 64-true, but pixels come in float32"),
        (["--data.init_args.patch_size", "96"], "the held-out photographs have 1 patches of 96 pixels"),
        ([f"{MODEL}optimizer.init_args.lr", "-1"], "model.init_args.optimizer: Invalid learning rate"),
    ],
)
def test_mistake(mistake: list[str], expected: str, arguments: list[str]) -> None:
    with pytest.raises(Exception) as error:  # noqa: PT011  # of which type is the message's concern
        fit(*arguments, *mistake)
    said = message_for_users(error.value)
    assert said is not None, error.value
    assert expected in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (ViTSpec(side=100), r"side is 100, but tokens of vit_base_patch16_224 have 16 pixels; .* such as 96$"),
        (ViTSpec("test_vit", side=8), r"model\.vit\.side is 8, but tokens of test_vit have 16 .* such as 16$"),
        (ViTSpec("vit_tinny"), "model 'vit_tinny' is unknown to timm"),
        (ViTSpec("test_vit", options={"heads": 2}), "with options .*: .*unexpected keyword argument 'heads'"),
        (ViTSpec("test_vit", options={"num_heads": 7}), r"timm cannot build test_vit for 128 pixels with options"),
        (ViTSpec("test_vit", options={"global_pool": ""}), r"model\.vit\.options: global_pool is '', which gives no"),
        (ViTSpec("test_convnext"), "timm cannot build test_convnext for 128 pixels"),
        (ViTSpec("swin_tiny_patch4_window7_224"), "a SwinTransformer; expected a Vision Transformer of timm"),
    ],
)
def test_networks_that_cannot_be(spec: ViTSpec, expected: str) -> None:
    with pytest.raises(ValueError, match=expected) as raised, torch.device("meta"):
        ComplexityViT(spec)
    assert message_for_users(raised.value) == str(raised.value)
    assert "\n" not in str(raised.value)


def test_weights_that_do_not_fit(weights: Path) -> None:
    with pytest.raises(ValueError, match=r"model\.safetensors: cannot be loaded as weights of this model") as raised:
        ComplexityViT(ViTSpec("vit_tiny_patch16_224"), str(weights))
    assert "\n" not in str(raised.value)
    for nowhere in (weights.parent.parent, weights.parent / "other.safetensors"):
        with pytest.raises(FileNotFoundError, match=r"is no file and no folder with a model\.safetensors; set model\."):
            ComplexityViT(ViTSpec("test_vit"), str(nowhere))


def test_checkpoint_of_another_network(arguments: list[str]) -> None:
    first = fit(*arguments)
    checkpoint = ["--ckpt_path", str(first.run_dir / "checkpoints" / "last.ckpt")]
    with pytest.raises(ValueError, match=r"no checkpoint of this ComplexityRegression: network\.vit"):
        fit(*arguments, *checkpoint, *vit(32, "test_vit"))
