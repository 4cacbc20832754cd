"""Trained networks from checkpoints, exported weights, run folders and files of others."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from callbacks.results import trained_on
from lightning_modules import SuperResolution
from lightning_modules.networks.trained import find_weights, load_trained, training_record
from main import main

COST = {"training_seconds": 12.5, "optimizer_steps": 2, "peak_gpu_mib": None}
BUDGET = {"images": 3, "pixels": 27648, "bytes": 1000, "percent": 100.0, "teacher": None}
PROVENANCE = {"data_fingerprint": "ab", "data_budget": BUDGET, "seed": 0}
RECORD = {"training_seconds": 12.5, "optimizer_steps": 2, "data_fingerprint": "ab", "data_budget": BUDGET}


@pytest.fixture(scope="module")
def run(tiny_in, tmp_path_factory):
    """Folder of a fit of two steps with EMA."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRDISTILL_CACHE", str(root / "cache"))
        return main(["fit", *tiny_in(root)]).run_dir


@pytest.fixture
def lr():
    return torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(0))


def run_with(tmp_path, *names: str):
    """A run folder that holds the records and empty files of these names."""
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    for name in names:
        (tmp_path / "run" / name).write_bytes(b"")
    (tmp_path / "run" / "cost.json").write_text(json.dumps(COST))
    (tmp_path / "run" / "provenance.json").write_text(json.dumps(PROVENANCE))
    return tmp_path / "run"


@pytest.mark.parametrize("file", ["checkpoints/last.ckpt", "checkpoints/best.ckpt", "weights.safetensors"])
def test_our_files_give_the_network_of_the_run(run, file, lr):
    trained = load_trained(run / file)
    model = SuperResolution.load_from_checkpoint(run / "checkpoints/last.ckpt", weights_only=True).eval()
    if file == "checkpoints/best.ckpt":
        model = SuperResolution.load_from_checkpoint(run / file, weights_only=True).eval()
    torch.testing.assert_close(trained.network(lr), model(lr).detach(), rtol=0, atol=0)
    assert trained.scale == 4
    assert trained.sha256 == hashlib.sha256((run / file).read_bytes()).hexdigest()
    assert not trained.network.training
    assert not any(weight.requires_grad for weight in trained.network.parameters())


def test_a_run_tells_what_its_training_cost_and_learned_from(run):
    cost = json.loads((run / "cost.json").read_text())
    provenance = json.loads((run / "provenance.json").read_text())
    record = load_trained(run).record
    assert record["training_seconds"] == cost["training_seconds"] > 0
    assert record["optimizer_steps"] == 2
    assert record["data_fingerprint"] == provenance["data_fingerprint"]
    assert load_trained(run / "weights.safetensors").record == record


def test_a_run_folder_stands_for_its_best_checkpoint(run, tmp_path):
    assert find_weights(run) == run / "checkpoints/best.ckpt"
    folder = run_with(tmp_path, "weights.safetensors", "checkpoints/last.ckpt")
    assert find_weights(str(folder)) == folder / "weights.safetensors"


def test_record_holds_what_is_known(run, tmp_path):
    folder = run_with(tmp_path)
    weights = (run / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(weights)
    assert load_trained(folder).record == RECORD
    (folder / "provenance.json").write_text(json.dumps({**PROVENANCE, "data_budget": None}))
    assert "data_budget" not in load_trained(folder).record
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(weights)
    assert load_trained(alone).record == {}


def test_records_lie_in_the_run_folder_alone(tmp_path, monkeypatch):
    """Not in the folder around it; checkpoints are named from within their own folder too."""
    folder = run_with(tmp_path)
    for name in ("checkpoints/best.ckpt", "weights.safetensors"):
        assert training_record(folder / name) == RECORD
    monkeypatch.chdir(folder / "checkpoints")
    assert training_record(Path("best.ckpt")) == RECORD
    assert training_record(folder / "old" / "weights.safetensors") == {}
    assert trained_on(folder / "old" / "weights.safetensors") is None


@pytest.mark.parametrize("file", ["cost.json", "provenance.json"])
@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '{"data_budget": {"image": 3}}', b"\xff"])
def test_damaged_records_are_named_in_one_line(tmp_path, file, content):
    damaged = run_with(tmp_path) / file
    damaged.write_bytes(content if isinstance(content, bytes) else content.encode())
    for read in (training_record, trained_on):
        with pytest.raises(
            ValueError, match=rf"{file} is damaged \(.*\); restore it from a copy, or remove it"
        ) as error:
            read(damaged.parent / "checkpoints" / "best.ckpt")
        assert str(damaged) in str(error.value)
        assert "\n" not in str(error.value)


def test_weights_of_others_are_recognised(tmp_path, lr):
    """By spandrel, under the wrapping and the prefix of DDP that checkpoints of the field have."""
    from spandrel.architectures.Compact import Compact

    torch.manual_seed(0)
    network = Compact(num_feat=8, num_conv=2, upscale=2).eval()
    bare, wrapped = tmp_path / "bare.safetensors", tmp_path / "wrapped.pth"
    save_file(network.state_dict(), bare)
    torch.save({"params_ema": {f"module.{key}": value for key, value in network.state_dict().items()}}, wrapped)
    with torch.no_grad():
        expected = network(lr)
    for file in (bare, wrapped):
        trained = load_trained(file)
        torch.testing.assert_close(trained.network(lr), expected)
        assert (trained.scale, trained.network.training, trained.record) == (2, False, {})
        assert len(list(trained.network.parameters())) == len(list(network.parameters()))


def test_images_are_padded_where_an_architecture_needs_it(tmp_path, lr):
    """RealCUGAN alone fails on sides below 32, as small patches have."""
    from spandrel.architectures.RealCUGAN import UpCunet2x

    network = UpCunet2x().eval()
    with pytest.raises(RuntimeError), torch.no_grad():
        network(lr)
    save_file(network.state_dict(), tmp_path / "x2.safetensors")
    assert load_trained(tmp_path / "x2.safetensors").network(lr).shape == (2, 3, 18, 22)


def test_what_holds_no_network_is_refused_in_one_line(run, tmp_path):
    class Unpickled:
        def __reduce__(self):
            return (pytest.fail, ("the file was unpickled",))

    torch.save({"a": Unpickled()}, tmp_path / "unsafe.pth")
    (tmp_path / "text.safetensors").write_text("no tensors")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    save_file({"a": torch.zeros(3)}, tmp_path / "strange.safetensors")
    header = {"network": json.dumps({"architecture": "EDSR", "options": {}}), "scale": "4"}
    save_file(load_file(run / "weights.safetensors"), tmp_path / "other.safetensors", metadata=header)
    messages = {
        "unsafe.pth": "unsafe.pth cannot be read as a file of tensors and plain values",
        "text.safetensors": "text.safetensors cannot be read as a file of tensors and plain values",
        "tensor.pth": "tensor.pth cannot be read as a file of tensors and plain values",
        "strange.safetensors": "strange.safetensors does not say what network its weights are for",
        "other.safetensors": "do not fit EDSR",
    }
    for name, message in messages.items():
        with pytest.raises(ValueError, match=message) as error:
            load_trained(tmp_path / name)
        assert "\n" not in str(error.value)


def test_missing_files_and_folders_without_weights_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*gone\.ckpt"):
        load_trained(tmp_path / "gone.ckpt")
    with pytest.raises(FileNotFoundError, match=r"holds no checkpoints/best\.ckpt and no weights\.safetensors"):
        load_trained(tmp_path)
