"""The criterion that asks a trained ComplexityViT, against timm's network on the exported tensors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from datamodules.selection.trained_criteria import LearnedComplexity
from lightning_modules.complexity_file import ComplexityConfig, save_complexity
from lightning_modules.networks.complexity_vit import ComplexityViT, ViTSpec

timm = pytest.importorskip("timm")

SIDE = 48
OPTIONS = {"patch_size": 8, "embed_dim": 8, "depth": 1, "num_heads": 2}
SPEC = ViTSpec("vit_tiny_patch16_224", side=SIDE, options=OPTIONS)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Folder of a run that has exported a network which nobody trained, for patches of 48 pixels."""
    torch.manual_seed(0)
    network = ComplexityViT(SPEC)
    network.set_unit(torch.tensor([3.0, 9.0]))
    for weight in network.parameters():  # timm's are so small that all patches look alike
        torch.nn.init.normal_(weight)
    folder = tmp_path / "runs" / "complexity" / "fit" / "first"
    save_complexity(network, ComplexityConfig(SPEC, SIDE, 1.0, 1.0), folder / "complexity")
    return folder


def test_scores_are_those_of_timms_network(batch, patches, run):
    """Its input is in [-1, 1], as timm has it for this model; mean 6 and deviation 3 are those of 3 and 9 bits."""
    tensors = load_file(run / "complexity" / "complexity.safetensors")
    network = timm.create_model("vit_tiny_patch16_224", img_size=SIDE, num_classes=1, **OPTIONS).eval()
    network.load_state_dict({name[4:]: tensor for name, tensor in tensors.items() if name.startswith("vit.")})
    pixels = torch.from_numpy(patches).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        expected = 6 + 3 * network((pixels - 0.5) / 0.5).squeeze(1)
    scores = LearnedComplexity(str(run))(batch(patches))
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    assert not scores.requires_grad
    assert np.ptp(expected.numpy()) > 0.1


def test_all_ways_to_name_it_are_one(run):
    """The run, its experiment, the folder that was written, and either file."""
    written = run / "complexity"
    places = [run, run.parents[1], written, written / "complexity.safetensors", written / "config.json"]
    identities = [LearnedComplexity(str(place)).identity() for place in places]
    assert all(identity == identities[0] for identity in identities)
    assert identities[0].keys() == {"class", "sha256"}


def test_it_is_known_by_what_the_files_hold(run, tmp_path):
    before = LearnedComplexity(str(run)).identity()
    shutil.copytree(run / "complexity", tmp_path / "elsewhere")
    assert LearnedComplexity(str(tmp_path / "elsewhere")).identity() == before
    config = run / "complexity" / "config.json"
    config.write_text(config.read_text().replace('"patch_size": 48', '"patch_size": 32'))
    assert LearnedComplexity(str(run)).identity() != before


def test_the_record_says_what_training_took(run):
    (run / "cost.json").write_text(json.dumps({"training_seconds": 12.5, "optimizer_steps": 40, "joules": None}))
    (run / "provenance.json").write_text(json.dumps({"data_fingerprint": "abc"}))
    criterion = LearnedComplexity(str(run / "complexity" / "complexity.safetensors"))
    cost = criterion.cost()
    assert cost.pop("sha256") == criterion.identity()["sha256"]
    assert cost == {"training_seconds": 12.5, "optimizer_steps": 40, "data_fingerprint": "abc"}


def test_reading_draws_no_random_number(batch, patches, run):
    """Else the network that is trained on the choice would start from other weights where scores are cached."""
    before = torch.get_rng_state()
    LearnedComplexity(str(run))(batch(patches))
    assert torch.equal(torch.get_rng_state(), before)


def test_nothing_is_read_before_the_first_score(batch, patches, tmp_path):
    missing = LearnedComplexity(str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=r"there is no .*config\.json; give the folder of a run of configs/"):
        missing(batch(patches))


def test_patches_of_another_size_are_refused(batch, patches, run):
    with pytest.raises(
        ValueError, match=r"was trained on patches of 48 pixels, but those to score have 32; set data\."
    ):
        LearnedComplexity(str(run))(batch(patches[:, :32, :32]))


def write_config(run: Path, text: str) -> None:
    (run / "complexity" / "config.json").write_text(text)


def edit_config(run: Path, **changes: object) -> None:
    path = run / "complexity" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(run: Path, name: str, tensor: torch.Tensor) -> None:
    path = run / "complexity" / "complexity.safetensors"
    save_file({**load_file(path), name: tensor}, path)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda run: write_config(run, "{"), r"config\.json is damaged \(JSONDecodeError"),
        (lambda run: write_config(run, "{}"), r"config\.json is damaged \(KeyError"),
        (lambda run: edit_config(run, architecture="EDSR"), "architecture is 'EDSR'; expected 'ComplexityViT'"),
        (lambda run: edit_config(run, patch_sizes=1), r"config\.json is damaged \(TypeError"),
        (lambda run: edit_config(run, network={"model": "vit_huge"}), "model 'vit_huge' is unknown to timm"),
        (lambda run: (run / "complexity" / "complexity.safetensors").write_bytes(b"no"), "cannot be read as a file of"),
        (lambda run: edit_weights(run, "vit.head.bias", torch.zeros(2)), "ComplexityViT: 1 of another shape"),
        (lambda run: edit_weights(run, "vit.tail", torch.zeros(2)), r"1 unexpected \(vit\.tail\)"),
        (lambda run: edit_weights(run, "mean", torch.tensor(torch.nan)), "the weights mean are not finite"),
    ],
)
def test_damaged_files(damage, expected, batch, patches, run):
    damage(run)
    with pytest.raises(ValueError, match=expected) as raised:
        LearnedComplexity(str(run))(batch(patches))
    assert "\n" not in str(raised.value)
