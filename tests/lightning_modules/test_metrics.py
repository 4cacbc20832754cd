"""Metrics against their formulas, scikit-image, torchmetrics and published bicubic figures."""

from __future__ import annotations

import csv
import functools
import json
import math
from datetime import timedelta
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DistributedSampler

from lightning_modules import perceptual
from lightning_modules.metrics import HIGHER_IS_BETTER, PROTOCOLS, Protocol, SRMetrics, psnr, rgb_to_y, ssim

RGB = Protocol("rgb", crop_border=0)
WHOLE_Y = Protocol(crop_border=0)


def _uint8_images(count: int = 1, height: int = 40, width: int = 52, seed: int = 0) -> Tensor:
    """Smooth random images in place of photographs: uint8-valued, (B, 3, H, W) in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, height // 4, width // 4, generator=generator)
    return nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1).mul(255).round() / 255


def _noisy(images: Tensor, sigma: float = 0.05, seed: int = 1) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return (images + sigma * noise).clamp(0, 1).mul(255).round() / 255


def _numpy_y(image: Tensor) -> np.ndarray:
    """BT.601: Y' = 0.299 R' + 0.587 G' + 0.114 B', scaled to the 219 studio levels above 16."""
    red, green, blue = image.double().numpy()
    return 16 + 219 * (0.299 * red + 0.587 * green + 0.114 * blue)


def _constant(level: int, side: int = 16) -> Tensor:
    return torch.full((1, 3, side, side), level / 255)


@pytest.mark.parametrize(
    ("rgb", "luma"),
    [
        ((1, 1, 1), 235.0),
        ((0, 0, 0), 16.0),
        ((1, 0, 0), 16 + 65.481),
        ((0, 1, 0), 16 + 128.553),
        ((0, 0, 1), 16 + 24.966),
    ],
)
def test_y_of_known_colours(rgb, luma):
    assert rgb_to_y(torch.tensor(rgb).view(1, 3, 1, 1).float()).item() == pytest.approx(luma, abs=1e-12)


def test_y_is_bt601_by_its_definition():
    image = _uint8_images()[0]
    np.testing.assert_allclose(rgb_to_y(image)[0].numpy(), _numpy_y(image), atol=1e-10)


def test_psnr_is_the_formula_on_y():
    hr = _uint8_images(2)
    sr = _noisy(hr)
    for value, x, y in zip(psnr(sr, hr, scale=4), sr, hr, strict=True):
        error = (_numpy_y(x) - _numpy_y(y))[4:-4, 4:-4]
        assert value.item() == pytest.approx(10 * np.log10(255**2 / np.mean(error**2)), abs=1e-5)


def test_psnr_rgb_is_scikit_images():
    from skimage.metrics import peak_signal_noise_ratio

    hr = _uint8_images()
    sr = _noisy(hr)
    expected = peak_signal_noise_ratio(_hwc(hr), _hwc(sr), data_range=255)
    assert psnr(sr, hr, 4, RGB).item() == pytest.approx(expected, abs=1e-6)


def test_ssim_is_scikit_images_valid_region():
    from skimage.metrics import structural_similarity

    hr = _uint8_images(2)
    sr = _noisy(hr)
    # scikit-image averages what is left after cropping half a window: the valid region.
    reference = functools.partial(
        structural_similarity, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    expected = [reference(_numpy_y(x)[4:-4, 4:-4], _numpy_y(y)[4:-4, 4:-4]) for x, y in zip(sr, hr, strict=True)]
    assert ssim(sr, hr, scale=4).tolist() == pytest.approx(expected, abs=1e-6)
    colours = reference(_hwc(hr[:1]).astype(float), _hwc(sr[:1]).astype(float), channel_axis=2)
    assert ssim(sr[:1], hr[:1], 4, RGB).item() == pytest.approx(colours, abs=1e-6)


def test_ssim_is_torchmetrics_valid_region():
    from torchmetrics.functional.image import structural_similarity_index_measure

    hr = _uint8_images()
    sr = _noisy(hr)
    _, full = structural_similarity_index_measure(rgb_to_y(sr), rgb_to_y(hr), data_range=255.0, return_full_image=True)
    assert ssim(sr, hr, 4, WHOLE_Y).item() == pytest.approx(full[..., 5:-5, 5:-5].mean().item(), abs=1e-6)


def _hwc(images: Tensor) -> np.ndarray:
    return images[0].mul(255).round().byte().permute(1, 2, 0).numpy()


def test_identical_images():
    hr = _uint8_images(2)
    assert psnr(hr, hr, scale=4).tolist() == [math.inf, math.inf]
    assert ssim(hr, hr, scale=4).tolist() == pytest.approx([1.0, 1.0], abs=1e-12)


def test_quantise_rounds_and_clips_like_a_saved_image():
    hr = _constant(100)
    nearly = hr + 0.3 / 255
    assert psnr(nearly, hr, scale=4).item() == math.inf
    # 0.3 levels on R, G and B are 0.3 * 219 / 255 levels of Y.
    expected = 20 * math.log10(255 / (0.3 * 219 / 255))
    assert psnr(nearly, hr, 4, Protocol(quantise=False)).item() == pytest.approx(expected, abs=0.001)
    assert psnr(_constant(255) + 5, _constant(255), scale=1).item() == math.inf


def test_y_rounding_is_its_own_protocol():
    # One level of blue is 0.098 levels of Y: lost when Y is rounded, unless it crosses a half.
    hr, sr = _constant(100), _constant(100)
    sr[:, 2] += 1 / 255
    assert psnr(sr, hr, 0, PROTOCOLS["basicsr"]).item() == pytest.approx(
        20 * math.log10(255 / (24.966 / 255)), abs=1e-4
    )
    assert psnr(sr, hr, 0, PROTOCOLS["matlab"]).item() == math.inf


def test_restoration_is_measured_on_y_and_rgb_up_to_the_border():
    """As scikit-image has it, on whole images; which is what denoising papers report."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    generator = torch.Generator().manual_seed(0)
    hr, noise = torch.rand(1, 3, 90, 33, generator=generator), torch.randn(1, 3, 90, 33, generator=generator)
    sr = (hr + noise * 25 / 255).clamp(0, 1)
    measured = SRMetrics()
    measured.update("Set", ["a"], torch.tensor([0]), {"": sr}, hr=hr, scale=1)
    (row,) = measured.rows()
    first, second = ((image[0] * 255).round().byte().permute(1, 2, 0).numpy() for image in (hr, sr))
    assert row["psnr_rgb"] == pytest.approx(peak_signal_noise_ratio(first, second), abs=1e-9)
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "win_size": 11}
    _, similarity = structural_similarity(first, second, channel_axis=2, full=True, **window)
    assert row["ssim_rgb"] == pytest.approx(similarity[5:-5, 5:-5].mean(), abs=1e-9)
    assert row["psnr_y"] == psnr(sr, hr, 1, WHOLE_Y).item()
    assert {"psnr_y", "ssim_y", "psnr_rgb", "ssim_rgb"} == row.keys() - {"set", "index", "name", "protocol"}


@pytest.mark.parametrize(
    ("crop", "scale", "clean"), [(None, 4, True), (None, 2, False), (4, 2, True), (0, 4, False), (None, 1, False)]
)
def test_border_is_the_scale_unless_given(crop, scale, clean):
    hr = _uint8_images()
    sr = 1 - hr
    sr[..., 4:-4, 4:-4] = hr[..., 4:-4, 4:-4]
    assert (psnr(sr, hr, scale, Protocol(crop_border=crop)).item() == math.inf) is clean


def test_autocast_and_inference_mode_change_nothing():
    hr = _uint8_images()
    sr = _noisy(hr)
    expected = psnr(sr, hr, 4), ssim(sr, hr, 4)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert (psnr(sr, hr, 4), ssim(sr, hr, 4)) == expected


def test_errors_name_the_sizes():
    small = torch.zeros(1, 3, 18, 40)
    with pytest.raises(ValueError, match=r"18 x 40 pixels are too small: 10 x 32 .* border of 4, .* 11 x 11"):
        ssim(small, small, scale=4)
    with pytest.raises(ValueError, match=r"0 x 24 .* at least 1 x 1"):
        psnr(small[..., :16, :], small[..., :16, :], scale=8)
    with pytest.raises(ValueError, match=r"SR \(1, 3, 18, 40\) and HR \(1, 3, 18, 39\)"):
        psnr(small, small[..., :39], scale=4)
    with pytest.raises(ValueError, match=r"'luma', expected 'y' or 'rgb'"):
        Protocol("luma")
    with pytest.raises(ValueError, match="crop_border is -1"):
        Protocol(crop_border=-1)
    with pytest.raises(ValueError, match="'papers', expected one of basicsr, matlab"):
        SRMetrics("papers")


@pytest.mark.parametrize(
    ("protocol", "scale", "line"),
    [
        (Protocol(), 4, "PSNR/SSIM on Y (BT.601), uint8, crop 4, mean over images"),
        (Protocol(), 1, "PSNR/SSIM on Y (BT.601) and RGB, uint8, crop 0, mean over images"),
        (Protocol("rgb"), 1, "PSNR/SSIM on RGB, uint8, crop 0, mean over images"),
        (Protocol(), None, "PSNR/SSIM on Y (BT.601), uint8, crop = scale, mean over images"),
        (PROTOCOLS["matlab"], 2, "PSNR/SSIM on Y (BT.601, rounded as in MATLAB), uint8, crop 2, mean over images"),
        (Protocol("rgb", 0, quantise=False), None, "PSNR/SSIM on RGB, not rounded, crop 0, mean over images"),
    ],
)
def test_protocol_describes_itself(protocol, scale, line):
    assert protocol.describe(scale) == line
    assert str(protocol) == protocol.describe()


def _update(measured: SRMetrics, sr: Tensor, hr: Tensor, index: list[int], name: str = "Set") -> None:
    measured.update(name, [f"img_{i}" for i in index], torch.tensor(index), {"": sr}, hr=hr, scale=4)


def test_mean_of_psnrs_is_not_the_psnr_of_the_mean():
    hr = _constant(100).repeat(2, 1, 1, 1)
    sr = torch.cat((_constant(101), _constant(150)))
    measured = SRMetrics(RGB)
    _update(measured, sr, hr, [0, 1])
    single = [20 * math.log10(255 / 1), 20 * math.log10(255 / 50)]
    pooled = 10 * math.log10(255**2 / ((1 + 50**2) / 2))
    mean = measured.compute()["Set"]["psnr_rgb"]
    assert mean == pytest.approx(sum(single) / 2, abs=1e-5)
    assert mean - pooled > 10


def test_bicubic_beside_sr_in_named_columns():
    hr = _uint8_images(2)
    good, bad = _noisy(hr, 0.02), _noisy(hr, 0.1)
    measured = SRMetrics()
    measured.update("Set5", ["a", "b"], torch.tensor([0, 1]), {"": good, "_bicubic": bad}, hr=hr, scale=4)
    first = measured.rows()[0]
    assert list(first) == [
        "set", "index", "name", "protocol", "psnr_y", "ssim_y", "psnr_y_bicubic", "ssim_y_bicubic"
    ]  # fmt: skip
    assert (first["set"], first["index"], first["name"]) == ("Set5", 0, "a")
    assert first["protocol"] == "PSNR/SSIM on Y (BT.601), uint8, crop 4, mean over images"
    assert first["psnr_y_bicubic"] == psnr(bad, hr, 4)[0].item()
    means = measured.compute()["Set5"]
    assert means["psnr_y"] == pytest.approx(psnr(good, hr, 4).mean().item())
    assert means["ssim_y_bicubic"] == pytest.approx(ssim(bad, hr, 4).mean().item())


def test_duplicates_count_once_and_sets_stay_apart():
    hr = _uint8_images(3)
    sr = torch.cat([_noisy(hr[i : i + 1], 0.02 * (i + 1)) for i in range(3)])
    measured = SRMetrics()
    _update(measured, sr[[2, 0, 1, 0]], hr[[2, 0, 1, 0]], [2, 0, 1, 0])
    _update(measured, sr[:1], hr[:1], [0], "Other")
    assert [(row["set"], row["index"]) for row in measured.rows()] == [("Other", 0), ("Set", 0), ("Set", 1), ("Set", 2)]
    means = measured.compute()
    assert means["Set"]["psnr_y"] == pytest.approx(psnr(sr, hr, 4).mean().item())
    assert means["Other"]["psnr_y"] == pytest.approx(psnr(sr[:1], hr[:1], 4).item())
    measured.reset()
    assert measured.compute() == {}


def test_two_images_with_one_index_are_refused():
    hr = _uint8_images()
    measured = SRMetrics()
    measured.update("Set", ["a"], torch.tensor([0]), {"": hr}, hr=hr, scale=4)
    with pytest.raises(ValueError, match=r"set 'Set' has two images with index 0, 'a' and 'b'"):
        measured.update("Set", ["b"], torch.tensor([0]), {"": hr}, hr=hr, scale=4)
    with pytest.raises(ValueError, match="2 names and 1 indices for 1 images"):
        measured.update("Set", ["a", "b"], torch.tensor([0]), {"": hr}, hr=hr, scale=4)


def test_identical_images_are_counted_apart_and_nan_is_not_hidden():
    hr = _uint8_images(2)
    sr = torch.cat((hr[:1], _noisy(hr[1:])))
    measured = SRMetrics()
    _update(measured, sr, hr, [0, 1])
    means = measured.compute()["Set"]
    assert means["psnr_y"] == pytest.approx(psnr(sr, hr, 4)[1].item())
    assert means["psnr_y_identical"] == 1
    assert "ssim_y_identical" not in means
    _update(measured, hr, hr, [0, 1])
    assert measured.compute()["Set"]["psnr_y"] == math.inf
    assert measured.compute()["Set"]["psnr_y_identical"] == 2
    _update(measured, sr * math.nan, hr, [0, 1])
    assert math.isnan(measured.compute()["Set"]["psnr_y"])


def test_csv_round_trip(tmp_path):
    hr = _uint8_images(2)
    measured = SRMetrics()
    _update(measured, torch.cat((hr[:1], _noisy(hr[1:]))), hr, [0, 1])
    measured.write_csv(tmp_path / "run" / "per_image.csv")
    with (tmp_path / "run" / "per_image.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    numbers = {"index": int, "psnr_y": float, "ssim_y": float}
    assert [{k: numbers.get(k, str)(v) for k, v in row.items()} for row in read] == measured.rows()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["per_image.csv"]


def _five_images() -> tuple[Tensor, Tensor]:
    hr = _uint8_images(5)
    return torch.cat([_noisy(hr[i : i + 1], 0.02 * (i + 1)) for i in range(5)]), hr


def _measure_share(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    init = f"file://{folder / 'rendezvous'}"
    torch.distributed.init_process_group("gloo", init, timedelta(seconds=60), world_size=2, rank=rank)
    sr, hr = _five_images()
    measured = SRMetrics()
    sampler = DistributedSampler(range(5), num_replicas=2, rank=rank, shuffle=False)
    for i in sampler:
        _update(measured, sr[[i]], hr[[i]], [i])
    result = {"share": len(list(sampler)), "means": measured.compute(), "rows": measured.rows()}
    (folder / f"{rank}.json").write_text(json.dumps(result))
    torch.distributed.destroy_process_group()


def test_two_processes_give_what_one_gives(tmp_path):
    torch.multiprocessing.start_processes(_measure_share, (tmp_path,), nprocs=2, start_method="fork")
    sr, hr = _five_images()
    alone = SRMetrics()
    _update(alone, sr, hr, list(range(5)))
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first["share"] == 3  # 2 x 3 = 6: the sampler padded five images
    assert [row["index"] for row in first["rows"]] == list(range(5))
    assert first["means"]["Set"] == pytest.approx(alone.compute()["Set"], abs=1e-9)


@pytest.fixture
def backbones(monkeypatch, tmp_path):
    """Random AlexNet and VGG-16 features in place of the downloads; the heads are the real ones."""
    import torchmetrics.functional.image.dists as dists_module
    from torchvision import models

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    for name in ("alexnet-owt-7be5be79.pth", "vgg16-397923af.pth"):
        (folder / name).touch()
    torch.manual_seed(0)
    vgg = nn.Module()
    vgg.features = models.vgg.make_layers(models.vgg.cfgs["D"])
    alex = nn.Module()
    alex.features = models.AlexNet().features
    monkeypatch.setattr(models, "alexnet", lambda weights: alex)
    monkeypatch.setattr(dists_module, "vgg16", lambda weights: vgg)


def test_perceptual_metrics_are_those_of_torchmetrics(backbones):
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity
    from torchmetrics.functional.image.dists import deep_image_structure_and_texture_similarity

    hr = _uint8_images(2, 64, 64)
    sr = _noisy(hr)
    measured = SRMetrics(lpips=True, dists=True)
    before = torch.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        measured.update("Set", ["a", "b"], torch.arange(2), {"": sr, "_bicubic": hr}, hr=hr, scale=4)
    assert torch.equal(torch.get_rng_state(), before)
    lpips = learned_perceptual_image_patch_similarity(sr, hr, normalize=True, reduction="none")
    dists = deep_image_structure_and_texture_similarity(sr, hr)
    assert [row["lpips"] for row in measured.rows()] == pytest.approx(lpips.tolist(), rel=1e-4)
    assert [row["dists"] for row in measured.rows()] == pytest.approx(dists.tolist(), rel=1e-4)
    assert [row["lpips_bicubic"] for row in measured.rows()] == [0, 0]
    assert list(measured.compute()["Set"])[:4] == ["psnr_y", "ssim_y", "lpips", "dists"]
    assert [HIGHER_IS_BETTER[name] for name in ("psnr_y", "ssim_y", "lpips", "dists")] == [True, True, False, False]


def test_networks_stay_out_of_the_state_dict(backbones):
    module, hr = nn.Module(), _uint8_images(1, 64, 64)
    module.metrics = SRMetrics(lpips=True)
    _update(module.metrics, hr, hr, [0])
    assert module.state_dict() == {}
    assert list(module.modules()) == [module]


@pytest.mark.parametrize(("name", "file"), [("lpips", "alexnet-owt-7be5be79.pth"), ("dists", "vgg16-397923af.pth")])
def test_offline_error_says_which_file_and_where(name, file, monkeypatch, tmp_path):
    def unreachable(url, timeout):
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(perceptual, "urlopen", unreachable)
    measured = SRMetrics(**{name: True})  # nothing is fetched before it is needed
    hr = _uint8_images()
    with pytest.raises(FileNotFoundError) as caught:
        _update(measured, hr, hr, [0])
    message = str(caught.value)
    assert f"{name} needs the weights {file}" in message
    assert str(tmp_path / "hub" / "checkpoints" / file) in message
    assert f"or leave {name} off" in message
    assert measured.rows() == []
    assert list(tmp_path.iterdir()) == []


def _read(path: Path) -> Tensor:
    with Image.open(path) as image:
        pixels = np.array(image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].double() / 255


def _bicubic_means(root: Path, protocol: str, scale: int) -> dict[str, float]:
    from datamodules.bicubic import upscale

    measured = SRMetrics(protocol)
    for index, path in enumerate(sorted((root / "HR").glob("*.png"))):
        hr = _read(path)
        sr = upscale(_read(root / f"LRbicx{scale}" / path.name), scale)
        measured.update(root.name, [path.stem], torch.tensor([index]), {"": sr}, hr=hr, scale=scale)
    return measured.compute()[root.name]


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "protocol", "scale", "decibel", "similarity"),
    [
        ("Set5", "basicsr", 4, 28.432, 0.8113),
        ("Set5", "matlab", 4, 28.419, 0.8102),  # papers: 28.42 / 0.8104
        ("Set5", "basicsr", 2, 33.679, None),  # papers: 33.66
        ("BSD100", "basicsr", 4, 25.963, None),  # papers: 25.96
    ],
)
def test_bicubic_figures_of_the_literature(data_root, name, protocol, scale, decibel, similarity):
    means = _bicubic_means(data_root / name, protocol, scale)
    assert means["psnr_y"] == pytest.approx(decibel, abs=0.005)
    if similarity is not None:
        assert means["ssim_y"] == pytest.approx(similarity, abs=0.0005)
