"""SuperResolution: with the command line and without, from weights and checkpoints, in every memory layout."""

from __future__ import annotations

import copy
import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from datamodules import BenchmarkImages, RealImages
from datamodules.benchmarks import Benchmarks
from datamodules.pair import PairBatch
from lightning_modules import SuperResolution
from lightning_modules.losses.pixel import MSE, Charbonnier, FFTLoss
from lightning_modules.metrics import psnr
from lightning_modules.networks import NetworkSpec, build_network
from main import main

NETWORK = NetworkSpec("EDSR", {"n_feats": 4, "n_resblocks": 1})
MODEL = "--model.init_args."
NO_VALIDATION = ["--trainer.limit_val_batches", "0"]


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def first_batch(data: RealImages) -> PairBatch:
    """Of a run without augmentation that has not moved on."""
    data.load_state_dict({"position": 0})
    return next(iter(data.train_dataloader())).to_float()


def test_plain_python(tiny_images, quick_trainer):
    """Trainer, datamodule and module do without the command line and without our callbacks."""
    model = SuperResolution(NETWORK, loss=Charbonnier(), optimizer=lambda p: torch.optim.SGD(p, lr=0.01))
    trainer = quick_trainer()
    trainer.fit(model, tiny_images)
    assert model.scale == 2  # from the data
    assert trainer.global_step == 4
    (test,) = trainer.test(model, tiny_images, verbose=False)
    assert test["test/tiny/psnr_y"] == pytest.approx(trainer.callback_metrics["test/tiny/psnr_y"].item())
    assert {"test/tiny/ssim_y", "test/tiny/psnr_y_bicubic"} <= test.keys()


def test_one_step_against_one_by_hand(tiny_photographs, quick_trainer):
    """One step of SGD on the first batch of the datamodule."""
    data = RealImages(str(tiny_photographs), scale=2, patch_size=32, batch_size=2, seed=0, augmentation="none")
    model = SuperResolution(NETWORK, scale=2, loss=MSE(), optimizer=lambda p: torch.optim.SGD(p, lr=0.1))
    model.configure_model()
    network = copy.deepcopy(model.network)
    quick_trainer(max_steps=1, limit_val_batches=0).fit(model, data)
    batch = first_batch(data)
    ((network(batch.lr) - batch.hr) ** 2).mean().backward()
    for ours, theirs in zip(model.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs if theirs.grad is None else theirs - 0.1 * theirs.grad)


def test_loss_by_name(tiny):
    cli = main(["fit", *tiny, *NO_VALIDATION, f"{MODEL}loss", "FFTLoss", f"{MODEL}loss.init_args.weight", "0.1"])
    assert isinstance(cli.model.loss, FFTLoss)
    assert cli.model.loss.weight == 0.1


def test_logged_loss_against_numpy(tiny_photographs, quick_trainer):
    data = RealImages(str(tiny_photographs), scale=2, patch_size=32, batch_size=2, seed=0, augmentation="none")
    model = SuperResolution(NETWORK, loss=FFTLoss(0.1), optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    trainer = quick_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(model, data)
    batch = first_batch(data)
    difference = (model(batch.lr) - batch.hr).detach().double().numpy()
    spectrum = np.fft.rfft2(difference)
    expected = np.abs(difference).mean() + 0.1 * np.stack([np.abs(spectrum.real), np.abs(spectrum.imag)]).mean()
    assert trainer.callback_metrics["train/loss"].item() == pytest.approx(expected, rel=1e-4)


def test_validation_is_logged_to_csv(tiny):
    cli = main(["fit", *tiny])
    logged = [row for row in rows(cli.run_dir / "metrics.csv") if row["val/psnr_y"]]
    assert [row["step"] for row in logged] == ["0", "1"]
    for metric in ("psnr_y", "ssim_y"):
        values = [float(row[f"val/{metric}"]) for row in logged]
        assert values[-1] == pytest.approx(cli.trainer.callback_metrics[f"val/{metric}"].item(), rel=1e-6)
        assert values[0] != values[-1]
        assert len({row[f"val/{metric}_bicubic"] for row in logged}) == 1


def test_validation_of_several_sets_names_them(tiny_photographs, tiny_images, quick_trainer, tmp_path):
    other = tmp_path / "sets" / "other"
    other.mkdir(parents=True)
    for path in list(tiny_photographs.iterdir())[:2]:
        (other / path.name).write_bytes(path.read_bytes())
    sets = BenchmarkImages(2, Benchmarks([str(tiny_photographs), str(other)]))
    model = SuperResolution(NETWORK)
    (first, *_) = quick_trainer().validate(model, sets, verbose=False)
    assert len([name for name in first if name.endswith("/psnr_y")]) == 2


def test_weights_to_start_from(tiny, tmp_path):
    first = main(["fit", *tiny])
    exported = load_file(first.run_dir / "weights.safetensors")
    for weights in (first.run_dir / "weights.safetensors", first.run_dir / "checkpoints/last.ckpt"):
        start = [f"{MODEL}init_from", str(weights), f"{MODEL}optimizer.init_args.lr", "0"]
        cli = main(["fit", *tiny, *NO_VALIDATION, *start, "--trainer.max_steps", "1"])
        assert cli.trainer.global_step == 1  # not a resume
        state = cli.model.network.state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in exported.items())


def test_weights_of_another_shape(tiny_images, quick_trainer, tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(FileNotFoundError, match="no weight file"):
        quick_trainer().fit(SuperResolution(NETWORK, init_from=str(path)), tiny_images)
    save_file(build_network(NetworkSpec("EDSR", {"n_feats": 6, "n_resblocks": 1}), 2).state_dict(), path)
    message = r"w\.safetensors do not fit EDSR: .* of another shape .*\(6, 3, 3, 3\) instead of \(4, 3, 3, 3\)"
    with pytest.raises(ValueError, match=message):
        quick_trainer().fit(SuperResolution(NETWORK, init_from=str(path)), tiny_images)


def test_checkpoint_of_another_network_or_scale(tiny_images, quick_trainer, tmp_path):
    path = tmp_path / "last.ckpt"
    trainer = quick_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(SuperResolution(NETWORK), tiny_images)
    trainer.save_checkpoint(path)
    other = NetworkSpec("EDSR", {"n_feats": 6, "n_resblocks": 1})
    with pytest.raises(ValueError, match=r"checkpoint holds network .*'n_feats': 4.* asks for .*'n_feats': 6"):
        quick_trainer().test(SuperResolution(other), tiny_images, ckpt_path=path)
    tiny_images.scale = 4
    with pytest.raises(ValueError, match="checkpoint holds scale 2, but the configuration asks for 4"):
        quick_trainer().test(SuperResolution(NETWORK), tiny_images, ckpt_path=path)


def test_file_that_is_no_checkpoint_of_ours(tiny_images, quick_trainer, tmp_path):
    content = {"state_dict": {}, "pytorch-lightning_version": "2.0.0", "epoch": 0, "global_step": 0, "loops": None}
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"no checkpoint of SuperResolution: .*init_from"):
        quick_trainer().test(SuperResolution(NETWORK), tiny_images, ckpt_path=tmp_path / "other.ckpt")


def test_load_from_checkpoint(tiny):
    """The network alone, as it was validated, from nothing but the file."""
    cli = main(["fit", *tiny])
    model = SuperResolution.load_from_checkpoint(cli.run_dir / "checkpoints/last.ckpt", weights_only=True)
    exported = load_file(cli.run_dir / "weights.safetensors")
    assert all(torch.equal(model.network.state_dict()[name], tensor) for name, tensor in exported.items())
    image = torch.rand(1, 3, 9, 11)
    assert model.scale == 4
    assert model.eval().upscale(image).shape == (1, 3, 36, 44)


def test_checkpoint_holds_plain_values(tiny):
    cli = main(["fit", *tiny, f"{MODEL}lr_scheduler", "OneCycleLR", f"{MODEL}lr_scheduler.init_args.max_lr", "0.01"])
    checkpoint = torch.load(cli.run_dir / "checkpoints/last.ckpt", weights_only=True)
    json.dumps(checkpoint["hyper_parameters"])
    assert all(key.startswith("network.") for key in checkpoint["state_dict"])


def test_compiled_network_keeps_its_keys(tiny_images, quick_trainer, tmp_path, monkeypatch):
    """With the `eager` backend, which compiles in no time, the same results and the same keys as without."""
    compiled = []
    original = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self: compiled.append(self) or original(self, backend="eager")
    )
    models = [SuperResolution(NETWORK, compile=flag) for flag in (False, True)]
    for model in models:
        trainer = quick_trainer(max_steps=2)
        trainer.fit(model, tiny_images)
        tiny_images.load_state_dict({"position": 0})
    trainer.save_checkpoint(tmp_path / "compiled.ckpt")
    assert compiled == [models[1].network]
    states = [model.state_dict() for model in models]
    saved = torch.load(tmp_path / "compiled.ckpt", weights_only=True)["state_dict"]
    assert states[0].keys() == states[1].keys() == saved.keys()
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name])


def test_channels_last_trains_alike(tiny_images, quick_trainer):
    results = []
    for flag in (False, True):
        model = SuperResolution(NETWORK, channels_last=flag)
        quick_trainer().fit(model, tiny_images)
        tiny_images.load_state_dict({"position": 0})
        results.append(model)
    head = results[1].network.head[0].weight
    assert head.is_contiguous(memory_format=torch.channels_last)
    for ours, theirs in zip(*(model.parameters() for model in results), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_gradient_clipping_limits_the_step(tiny_images, quick_trainer):
    """SGD with rate 1 moves the weights by the gradient, whose norm is clipped to 1e-3."""
    model = SuperResolution(NETWORK, scale=2, optimizer=lambda p: torch.optim.SGD(p, lr=1.0))
    model.configure_model()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    quick_trainer(max_steps=1, gradient_clip_val=1e-3, limit_val_batches=0).fit(model, tiny_images)
    moved = [(a - b).norm() for a, b in zip(model.parameters(), before, strict=True)]
    assert torch.stack(moved).norm().item() == pytest.approx(1e-3, rel=1e-2)


def test_mixed_precision_measures_in_full(tiny_images, quick_trainer):
    """Training runs in bfloat16, weights and figures are float32: those of a full-precision test."""
    seen = set()
    model = SuperResolution(NETWORK, scale=2)
    model.configure_model()
    model.network.head.register_forward_hook(lambda module, inputs, output: seen.add((module.training, output.dtype)))
    trainer = quick_trainer(precision="bf16-mixed")
    trainer.fit(model, tiny_images)
    assert seen == {(True, torch.bfloat16), (False, torch.float32)}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    mixed, full = (
        quick_trainer(precision=precision).test(model, tiny_images, verbose=False)[0]["test/tiny/psnr_y"]
        for precision in ("bf16-mixed", "32-true")
    )
    assert mixed == full


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true"])
def test_weights_of_other_precision_than_pixels_are_refused(tiny_images, quick_trainer, precision):
    with pytest.raises(ValueError, match=rf"trainer\.precision is {precision}.* use 32-true, bf16-mixed"):
        quick_trainer(precision=precision).fit(SuperResolution(NETWORK), tiny_images)


def test_test_metrics_against_a_plain_loop(tiny_images, tiny_photographs, quick_trainer):
    """Mean over images of the metric of what the network gives for each, one by one."""
    model = SuperResolution(NETWORK, scale=2)
    trainer = quick_trainer()
    (logged,) = trainer.test(model, tiny_images, verbose=False)
    scores = []
    for images in tiny_images.benchmarks.open(2):
        for lr, hr, _ in images:
            with torch.no_grad():
                sr = model.network(lr[None].float() / 255)
            scores.append(psnr(sr, hr[None].float() / 255, 2).item())
    assert len(scores) == 4
    assert logged["test/tiny/psnr_y"] == pytest.approx(sum(scores) / 4, abs=1e-4)


def test_loaders_must_name_their_images(quick_trainer):
    batch = PairBatch(torch.rand(1, 3, 16, 16), torch.rand(1, 3, 32, 32), torch.tensor([0]))
    loader = DataLoader([batch], batch_size=None)
    with pytest.raises(TypeError, match=r"evaluation needs an EvaluationSet.* reads a list"):
        quick_trainer().test(SuperResolution(NETWORK, scale=2), loader)


def test_scale_must_be_known(quick_trainer):
    with pytest.raises(ValueError, match=r"scale is not known: use a datamodule with a scale, or set model\.init_args"):
        SuperResolution(NETWORK).configure_model()


def test_tiles_and_self_ensemble_reach_the_test(tiny_images, quick_trainer):
    def figure(**options) -> float:
        torch.manual_seed(0)
        model = SuperResolution(NETWORK, scale=2, **options)
        model.configure_model()
        return quick_trainer().test(model, tiny_images, verbose=False)[0]["test/tiny/psnr_y"]

    plain = figure()
    assert figure(tile=32, tile_overlap=6) == pytest.approx(plain, abs=1e-3)  # the overlap exceeds the receptive field
    assert figure(tile=32, tile_overlap=0) != pytest.approx(plain, abs=1e-3)
    assert figure(self_ensemble=True) != pytest.approx(plain, abs=1e-3)


def test_image_too_small_for_ssim_says_so(tiny_images, quick_trainer, tmp_path):
    folder = tmp_path / "sets" / "small"
    folder.mkdir(parents=True)
    Image.new("RGB", (12, 12)).save(folder / "a.png")
    tiny_images.benchmarks.sets = [str(folder)]
    with pytest.raises(ValueError, match="too small"):
        quick_trainer().test(SuperResolution(NETWORK), tiny_images)


@pytest.mark.parametrize(
    ("setting", "refused"),
    [
        (["--model.optimizer", "Adam", "--model.optimizer.lr", "-1"], r"model\.init_args\.optimizer: Invalid learning"),
        (
            [
                "--model.lr_scheduler",
                "OneCycleLR",
                "--model.lr_scheduler.max_lr",
                "1",
                "--model.lr_scheduler.pct_start",
                "2",
            ],
            r"model\.init_args\.lr_scheduler: .*pct_start",
        ),
    ],
)
def test_settings_that_torch_refuses_name_their_key(tiny, setting, refused):
    with pytest.raises(ValueError, match=refused):
        main(["fit", *tiny, *setting])
