"""Criteria that ask a trained network, against the network and NumPy."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules.bicubic import upscale
from datamodules.selection.trained_criteria import SRGain, SRLoss
from lightning_modules.networks import NetworkSpec, build_network, export_weights

SCALE = 4


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    """Exported weights of an untrained EDSR x4 that is bicubic upscaling plus a little noise."""
    torch.manual_seed(0)
    spec = {"architecture": "EDSR", "options": {"n_feats": 4, "n_resblocks": 1, "bicubic_skip": True}}
    network = build_network(NetworkSpec(**spec), SCALE)
    torch.nn.init.normal_(network.tail[-1].weight, std=0.02)
    path = tmp_path / "weights.safetensors"
    export_weights(network, path, {"network": json.dumps(spec), "scale": "4"})
    return str(path)


def errors_of_network(checkpoint, pairs) -> list[np.ndarray]:
    """SR minus HR in grey levels, one patch at a time."""
    from safetensors.torch import load_file

    network = build_network(NetworkSpec("EDSR", {"n_feats": 4, "n_resblocks": 1, "bicubic_skip": True}), SCALE)
    network.load_state_dict(load_file(checkpoint))
    with torch.no_grad():
        sr = [255 * network(lr[None].float() / 255)[0].clamp(0, 1).numpy().astype(np.float64) for lr in pairs.lr]
    return [image - hr.numpy() for image, hr in zip(sr, pairs.hr, strict=True)]


def test_sr_loss_is_the_mean_absolute_error_in_grey_levels(batch, patches, checkpoint):
    pairs = batch(patches)
    scores = SRLoss(checkpoint)(pairs)
    np.testing.assert_allclose(
        scores.numpy(), [np.abs(e).mean() for e in errors_of_network(checkpoint, pairs)], rtol=1e-4
    )
    assert not scores.requires_grad


def test_sr_gain_is_the_difference_of_rms_errors(batch, patches, checkpoint):
    pairs = batch(patches)
    expected = []
    for lr, hr, error in zip(pairs.lr, pairs.hr, errors_of_network(checkpoint, pairs), strict=True):
        bicubic = upscale(lr.double(), SCALE).clamp(0, 255).numpy() - hr.numpy()
        expected.append(np.sqrt((bicubic**2).mean()) - np.sqrt((error**2).mean()))
    scores = SRGain(checkpoint)(pairs)
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-3)
    assert not scores.requires_grad
    assert np.ptp(expected) > 0.1


def test_sr_loss_is_known_by_the_files_content(checkpoint, tmp_path):
    path = tmp_path / "weights.safetensors"
    expected = {"class": "SRLoss", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert SRLoss(checkpoint).identity() == expected
    elsewhere = path.rename(tmp_path / "moved.safetensors")
    assert SRLoss(str(elsewhere)).identity() == expected


def test_sr_loss_reads_nothing_before_it_is_called_and_refuses_another_scale(batch, patches, checkpoint):
    missing = SRLoss("nowhere.ckpt")
    with pytest.raises(FileNotFoundError, match=r"there is no nowhere\.ckpt"):
        missing(batch(patches))
    with pytest.raises(ValueError, match=r"upscales x4, but the patches have scale 2; give a network trained for x2"):
        SRLoss(checkpoint)(batch(patches, 2))
