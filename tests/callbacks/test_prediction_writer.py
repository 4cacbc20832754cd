"""PredictionWriter: names, alpha, odd formats, tiles, and the values of the pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from callbacks.prediction_writer import output_names, save_png
from datamodules.bicubic import upscale as bicubic
from lightning_modules import SuperResolution
from main import main

RNG = np.random.default_rng(0)


def predict(runs, source: Path, *options: str) -> Path:
    arguments = [*runs.arguments, "--ckpt_path", str(runs.fit.run_dir / "checkpoints" / "last.ckpt")]
    cli = main(["predict", *arguments, "--data.init_args.predict_root", str(source), *options])
    return cli.run_dir / "predictions"


def network_of(runs) -> SuperResolution:
    path = runs.fit.run_dir / "checkpoints" / "last.ckpt"
    return SuperResolution.load_from_checkpoint(path, weights_only=True).eval()


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@torch.no_grad()
def upscaled(model: SuperResolution, rgb: np.ndarray) -> np.ndarray:
    lr = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255
    return (model.network(lr).clamp(0, 1)[0].permute(1, 2, 0) * 255).round().byte().numpy()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    (folder / "sub").mkdir()
    rgb = RNG.integers(0, 256, (20, 24, 3), dtype=np.uint8)
    Image.fromarray(rgb).save(folder / "plain.png")
    Image.fromarray(rgb[:10]).save(folder / "sub" / "plain.bmp")
    Image.fromarray(rgb[..., 0]).save(folder / "grey.png")
    Image.fromarray(RNG.integers(0, 65536, (16, 16), dtype=np.uint16)).save(folder / "deep.png")
    alpha = np.zeros((20, 24), np.uint8)
    alpha[:, 12:] = 255
    Image.fromarray(np.dstack([rgb, alpha])).save(folder / "cut_out.png")
    Image.fromarray(rgb).save(folder / "twin.png")
    Image.fromarray(rgb).save(folder / "twin.bmp")
    return folder


@pytest.fixture(scope="module")
def predictions(runs, photographs: Path, tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRDISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
        return predict(runs, photographs)


def test_names_and_metadata(predictions, photographs):
    lines = [json.loads(line) for line in (predictions / "metadata.jsonl").read_text().splitlines()]
    assert {line["source"]: line["file_name"] for line in lines} == {
        "cut_out.png": "cut_out.png",
        "deep.png": "deep.png",
        "grey.png": "grey.png",
        "plain.png": "plain.png",
        "sub/plain.bmp": "sub/plain.png",
        "twin.bmp": "twin.bmp.png",
        "twin.png": "twin.png.png",
    }
    for line in lines:
        with Image.open(predictions / line["file_name"]) as image, Image.open(photographs / line["source"]) as source:
            assert image.size == (line["width"], line["height"]) == (4 * source.width, 4 * source.height)
        assert line["scale"] == 4
    files = {path.relative_to(predictions).as_posix() for path in predictions.rglob("*") if path.is_file()}
    assert files == {line["file_name"] for line in lines} | {"metadata.jsonl"}  # and nothing half-written


def test_pixels_are_the_networks(runs, predictions, photographs):
    model = network_of(runs)
    assert np.array_equal(pixels(predictions / "plain.png"), upscaled(model, pixels(photographs / "plain.png")))
    grey = np.repeat(pixels(photographs / "grey.png")[..., None], 3, 2)
    assert np.array_equal(pixels(predictions / "grey.png"), upscaled(model, grey))


def test_alpha_is_kept(runs, predictions, photographs):
    given, result = pixels(photographs / "cut_out.png"), pixels(predictions / "cut_out.png")
    assert result.shape == (80, 96, 4)
    expected = bicubic(torch.from_numpy(given[None, None, ..., 3]).float() / 255, 4).clamp(0, 1)
    assert np.array_equal(result[..., 3], (expected[0, 0] * 255).round().byte().numpy())
    assert result[:, :40, 3].max() == 0
    assert result[:, 56:, 3].min() == 255
    assert np.array_equal(result[..., :3], upscaled(network_of(runs), given[..., :3]))


def test_tiles_and_self_ensemble(runs, photographs, predictions):
    tiles = ["--model.init_args.tile", "18", "--model.init_args.tile_overlap", "6"]
    tiled = pixels(predict(runs, photographs / "plain.png", *tiles) / "plain.png")
    assert np.abs(tiled.astype(int) - pixels(predictions / "plain.png")).max() <= 1
    ensembled = pixels(
        predict(runs, photographs / "plain.png", "--model.init_args.self_ensemble", "true") / "plain.png"
    )
    rgb, model = pixels(photographs / "plain.png"), network_of(runs)
    lr = torch.from_numpy(rgb.copy()).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():  # the mean over the eight symmetries, written out
        views = [
            model.network(torch.rot90(view, k, (2, 3))).rot90(-k, (2, 3)).flip([3] * flipped)
            for flipped, view in enumerate([lr, lr.flip(3)])
            for k in range(4)
        ]
    expected = (torch.stack(views).mean(0).clamp(0, 1)[0].permute(1, 2, 0) * 255).round().numpy()
    assert np.abs(ensembled - expected).max() <= 1


def test_output_names_are_never_shared():
    assert output_names(["a.png", "b/a.jpg"]) == {"a.png": "a.png", "b/a.jpg": "b/a.png"}
    assert output_names(["v1.2.jpg"]) == {"v1.2.jpg": "v1.2.png"}
    tricky = output_names(["a.png", "a.jpg", "a.jpg.webp"])
    assert len(set(tricky.values())) == 3


def test_nothing_half_written(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    save_png(torch.zeros(1, 3, 4, 4), None, path)

    def fail(self, file, **_):
        Path(file).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        save_png(torch.ones(1, 3, 4, 4), None, path)
    monkeypatch.undo()
    assert pixels(path).max() == 0
    assert list(tmp_path.iterdir()) == [path]


def test_needs_images(runs, tmp_path):
    with pytest.raises(ValueError, match=r"add --data\.init_args\.predict_root FILE_OR_FOLDER"):
        main(["predict", *runs.arguments, "--ckpt_path", "last"])


def test_unreadable_files_are_named_and_the_others_go_on(runs, photographs: Path, tmp_path: Path):
    source = tmp_path / "mixed"
    source.mkdir()
    whole = (photographs / "plain.png").read_bytes()
    (source / "a.png").write_bytes(whole[: len(whole) // 2])
    (source / "b.png").write_bytes(whole)
    with pytest.warns(UserWarning, match=r"1 files that cannot be read:\n.*a\.png: truncated"):
        folder = predict(runs, source)
    assert sorted(path.name for path in folder.iterdir()) == ["b.png", "metadata.jsonl"]
