"""OpenCLIP features of a small real model, against open_clip's own encoder and preprocessing of the same picture."""

from __future__ import annotations

import json
import pickle
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from datamodules.selection.features import OpenCLIP

open_clip = pytest.importorskip("open_clip")

CPU = torch.device("cpu")
TINY = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 48, "layers": 2, "width": 64, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
}
INCEPTION = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "squash"}


@pytest.fixture
def tiny(monkeypatch):
    """Registers the architecture "tiny"; an untrained but real model of it."""
    factory = open_clip.factory
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", {**factory._MODEL_CONFIGS, "tiny": deepcopy(TINY)})
    torch.manual_seed(0)
    return open_clip.create_model("tiny").eval()


@pytest.fixture
def checkpoint(tiny, tmp_path):
    torch.save(tiny.state_dict(), tmp_path / "tiny.pt")
    return tmp_path / "tiny.pt"


@pytest.fixture
def patches():
    """Four smooth pictures, uint8 (64, 64, 3)."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    return [np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC)) for image in noise]


def floats(patches):
    return torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).float() / 255


def own(model, patches, **scaling):
    """open_clip's embedding by open_clip's preprocessing: Pillow resizes the 8-bit picture."""
    config = open_clip.transform.PreprocessCfg(size=model.visual.image_size, **scaling)
    prepare = open_clip.transform.image_transform_v2(config, is_train=False)
    with torch.no_grad():
        return model.encode_image(torch.stack([prepare(Image.fromarray(p)) for p in patches]), normalize=True)


def ours(features, patches):
    features.load(CPU)
    return features(floats(patches))


def assert_close(vectors, expected):
    """Within what rounding of the resized picture to 8 bits changes; other pictures are ten times farther."""
    apart = torch.cdist(expected, expected) + 9 * torch.eye(len(expected))
    assert (vectors - expected).norm(dim=1).max() < 0.1 * apart.min()
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
    assert vectors.dtype == torch.float32


def test_a_checkpoint_file_gives_open_clips_embeddings(tiny, checkpoint, patches):
    assert_close(ours(OpenCLIP("tiny", str(checkpoint)), patches), own(tiny, patches))


def test_without_resizing_they_are_the_same(tiny, checkpoint, patches):
    crops = [patch[:48, :48] for patch in patches]
    torch.testing.assert_close(ours(OpenCLIP("tiny", str(checkpoint)), crops), own(tiny, crops), rtol=0, atol=1e-6)


def test_gradients_reach_the_patches_alone(tiny, checkpoint, patches):
    """OpenAI's mean and standard deviation, which open_clip takes for a checkpoint file."""
    features = OpenCLIP("tiny", str(checkpoint))
    features.load(CPU)
    crops = floats([patch[:48, :48] for patch in patches])
    assert not features(crops).requires_grad
    leaf, plain = crops.clone().requires_grad_(), crops.clone().requires_grad_()
    direction = torch.randn(4, 24, generator=torch.Generator().manual_seed(0))  # embeddings have a fixed length
    (features(leaf) * direction).sum().backward()
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    (tiny.encode_image((plain - mean) / std, normalize=True) * direction).sum().backward()
    torch.testing.assert_close(leaf.grad, plain.grad, rtol=1e-3, atol=1e-4 * plain.grad.abs().max().item())


def test_another_image_size_resizes_the_position_embeddings(tiny, checkpoint, patches):
    model = open_clip.create_model("tiny", pretrained=str(checkpoint), force_image_size=64).eval()
    vectors = ours(OpenCLIP("tiny", str(checkpoint), image_size=64), patches)
    torch.testing.assert_close(vectors, own(model, patches), rtol=0, atol=1e-6)
    assert not torch.allclose(vectors, own(tiny, patches), atol=1e-2)


def test_a_folder_brings_its_own_model_and_scaling(tiny, patches, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    config = {"model_cfg": TINY, "preprocess_cfg": INCEPTION}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(tiny.state_dict(), folder / "open_clip_model.safetensors")
    vectors = ours(OpenCLIP(pretrained=str(folder)), patches)
    assert_close(vectors, own(tiny, patches, **INCEPTION))
    assert not torch.allclose(vectors, own(tiny, patches), atol=1e-2)


def test_a_tag_is_fetched_once_and_brings_its_scaling(tiny, patches, hub, no_hub, monkeypatch):
    (hub / "owner" / "tiny").mkdir(parents=True)
    save_file(tiny.state_dict(), hub / "owner" / "tiny" / "open_clip_model.safetensors")
    tag = {"hf_hub": "owner/tiny/", **INCEPTION}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny", {"test": tag})
    assert_close(ours(OpenCLIP("tiny", "test"), patches), own(tiny, patches, **INCEPTION))
    no_hub("http://127.0.0.1:9")
    assert_close(ours(OpenCLIP("tiny", "test"), patches), own(tiny, patches, **INCEPTION))


def test_a_large_batch_is_the_same_as_its_parts(tiny, checkpoint):
    features = OpenCLIP("tiny", str(checkpoint))
    features.load(CPU)
    many = torch.rand(70, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(features(many)[60:], features(many[60:]), rtol=0, atol=1e-6)


def test_no_network_names_the_way_out(no_hub):
    with pytest.raises(FileNotFoundError, match=r"Hugging Face hub .*; set pretrained to a checkpoint file or folder"):
        OpenCLIP().load(CPU)


@pytest.mark.parametrize("pretrained", ["", None])
def test_no_weights_are_refused(pretrained):
    with pytest.raises(ValueError, match=r"an untrained network makes no features; name one of"):
        OpenCLIP(pretrained=pretrained)


@pytest.mark.parametrize(
    ("model", "pretrained", "message"),
    [
        ("ViT-B-32", "openai", r"activation of ViT-B-32, .*; set model to ViT-B-32-quickgelu"),
        ("ViT-B-32-quickgelu", "laion2b_e16", r"no tag of ViT-B-32-quickgelu, whose tags are openai, "),
        ("VIT-B32", "openai", r"'VIT-B32' is unknown to open_clip; among the known are .*ViT-B-32"),
    ],
)
def test_names_that_do_not_fit_are_refused(model, pretrained, message, no_hub):
    with pytest.raises(ValueError, match=message):
        OpenCLIP(model, pretrained).load(CPU)


def test_a_folder_of_another_format_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no open_clip_config\.json; expected a folder in open_clip's format"):
        OpenCLIP(pretrained=str(tmp_path)).load(CPU)


class Trap:
    def __reduce__(self):
        return Path.touch, (Path("sprung"),)


@pytest.mark.parametrize("name", ["tiny.pt", "folder"])
def test_nothing_is_unpickled(tiny, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "open_clip_config.json").write_text(json.dumps({"model_cfg": TINY}))
    for path in (tmp_path / "tiny.pt", tmp_path / "folder" / "open_clip_pytorch_model.bin"):
        torch.save({"state_dict": Trap()}, path)
    with pytest.raises(ValueError, match=r"holds more than tensors, or is damaged, .* \.safetensors"):
        OpenCLIP("tiny", str(tmp_path / name)).load(CPU)
    assert not Path("sprung").exists()
    pickle.loads(pickle.dumps(Trap()))  # noqa: S301 - the trap works
    assert Path("sprung").exists()


def test_weights_of_another_model_are_refused(tiny, tmp_path):
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt: cannot be loaded as weights of this model \(Error") as caught:
        OpenCLIP("tiny", str(tmp_path / "other.pt")).load(CPU)
    assert "\n" not in str(caught.value)


def test_a_file_is_known_by_its_content(tiny, checkpoint):
    before = OpenCLIP("tiny", str(checkpoint)).identity()
    assert before["model"] == "tiny"
    assert before == OpenCLIP("tiny", str(checkpoint)).identity()
    torch.save({}, checkpoint)
    assert before != OpenCLIP("tiny", str(checkpoint)).identity()
