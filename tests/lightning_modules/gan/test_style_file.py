"""The generator on disk: what was written comes back, and what is broken is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lightning_modules.gan.style_file import load_style_generator, save_style_generator, style_fingerprint
from lightning_modules.networks.style_generator import StyleGenerator, StyleSpec

SPEC = StyleSpec(z_dim=6, w_dim=5, mapping_layers=2, channels=8)


def write(folder: Path, seed: int = 0) -> StyleGenerator:
    torch.manual_seed(seed)
    generator = StyleGenerator(SPEC, 16)
    save_style_generator(generator, folder)
    return generator


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    generator = write(tmp_path / "generator")
    again = load_style_generator(tmp_path / "generator")
    z = torch.randn(2, 6)
    assert torch.equal(again(z), generator(z))
    assert (again.spec, again.side, again.training) == (SPEC, 16, False)
    assert all(weight.requires_grad and weight.device.type == "cpu" for weight in again.parameters())
    assert {path.name for path in tmp_path.iterdir()} == {"generator"}
    assert {path.name for path in (tmp_path / "generator").iterdir()} == {"generator.safetensors", "config.json"}


@pytest.mark.parametrize("given", ["runs/prior", "runs/prior/fit/one", "runs/prior/fit/one/generator"])
def test_of_a_run_or_its_experiment(given: str, tmp_path: Path) -> None:
    write(tmp_path / "runs" / "prior" / "fit" / "one" / "generator")
    assert load_style_generator(str(tmp_path / given)).side == 16
    assert style_fingerprint(tmp_path / given) == style_fingerprint(tmp_path / "runs/prior/fit/one/generator")


def test_half_precision_is_read_as_float32(tmp_path: Path) -> None:
    write(tmp_path / "generator")
    file = tmp_path / "generator" / "generator.safetensors"
    save_file({name: tensor.half() for name, tensor in load_file(file).items()}, file)
    assert {tensor.dtype for tensor in load_style_generator(tmp_path / "generator").state_dict().values()} == {
        torch.float32
    }


def test_fingerprint(tmp_path: Path) -> None:
    """Of the content, wherever it lies."""
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        write(tmp_path / name, seed)
    first, second, other = (style_fingerprint(tmp_path / name) for name in ("one", "two", "other"))
    assert first == second != other
    assert len(first) == 64
    config = tmp_path / "two" / "config.json"
    config.write_text(config.read_text().replace('"w_dim": 5', '"w_dim": 6'))
    assert style_fingerprint(tmp_path / "two") != first


def change_weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def mistake(folder: Path) -> None:
        tensors = load_file(folder / "generator.safetensors")
        change(tensors)
        save_file(tensors, folder / "generator.safetensors")

    return mistake


def change_config(**values: object) -> Callable[[Path], object]:
    def mistake(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | values))

    return mistake


MISTAKES = {
    "missing tensor": (change_weights(lambda t: t.pop("constant")), "has no tensor constant"),
    "unknown tensor": (change_weights(lambda t: t.update(more=torch.ones(1))), "has an unknown tensor more"),
    "shape": (change_weights(lambda t: t.update(constant=torch.ones(4))), r"constant has shape \(4,\) .* \(1, 8, "),
    "not finite": (change_weights(lambda t: t["constant"].mul_(torch.nan)), "the weights constant are not finite"),
    "cut off": (lambda folder: (folder / "generator.safetensors").write_bytes(b"1234"), "cannot be loaded as weights"),
    "other sizes": (change_config(side=32), "has no tensor colours.3"),
    "gigantic sizes": (change_config(spec={"channels": 10**6}), "has shape"),
    "side": (change_config(side=17), "config.json is damaged .*not of 17"),
    "architecture": (change_config(architecture="EDSR"), "config.json is damaged .*architecture is 'EDSR'"),
    "unknown size": (change_config(spec={"depth": 3}), "config.json is damaged .*depth"),
    "no mapping": (lambda folder: (folder / "config.json").write_text("3"), "config.json is damaged"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json is damaged"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_broken_file(name: str, tmp_path: Path) -> None:
    mistake, expected = MISTAKES[name]
    write(tmp_path / "generator")
    mistake(tmp_path / "generator")
    with pytest.raises(ValueError, match=expected) as error:
        load_style_generator(tmp_path / "generator")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("file", ["generator.safetensors", "config.json"])
def test_missing_file(file: str, tmp_path: Path) -> None:
    write(tmp_path / "generator")
    (tmp_path / "generator" / file).unlink()
    for read in (load_style_generator, style_fingerprint):
        with pytest.raises(FileNotFoundError, match=f"there is no .*{file}; give the folder of a run of"):
            read(tmp_path)


def test_interrupted_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("json.dumps", lambda *args, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(tmp_path / "generator")
    assert list(tmp_path.iterdir()) == []
