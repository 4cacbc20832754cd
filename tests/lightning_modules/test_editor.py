"""The editor of TripleD: its bound, where it starts, and its file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from lightning_modules.networks.editor import EditorSpec, ResidualEditor, load_editor, save_editor


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(0))


def trained(spec: EditorSpec, scale: float = 1.0) -> ResidualEditor:
    """With a last layer that is not zero."""
    torch.manual_seed(0)
    editor = ResidualEditor(spec)
    torch.nn.init.normal_(editor.body[-1].weight, std=scale)
    return editor


def test_starts_at_nothing_and_learns_from_there(images: Tensor) -> None:
    editor = ResidualEditor(EditorSpec(channels=4))
    assert torch.equal(editor(images), images)
    editor(images).sum().backward()
    assert editor.body[-1].weight.grad.abs().max() > 0


@pytest.mark.parametrize("bound", [8.0, 100.0])
def test_no_pixel_leaves_bound_or_range(bound: float, images: Tensor) -> None:
    """With weights that saturate the tanh: most pixels are at the bound."""
    images = torch.cat([images, images.round()])
    edited = trained(EditorSpec(channels=4, bound=bound), scale=100)(images)
    assert (edited - images).abs().max() <= bound / 255 + 1e-6
    assert (edited - images).abs().max() > 0.99 * bound / 255
    assert edited.min() >= 0
    assert edited.max() <= 1


def test_formula(images: Tensor) -> None:
    """x + bound tanh(CNN(x)), clipped, with the convolutions written out on borders that are repeated."""
    editor = trained(EditorSpec(channels=5, depth=3, bound=16))
    x = 2 * images - 1
    convolutions = [layer for layer in editor.body if isinstance(layer, torch.nn.Conv2d)]
    assert len(convolutions) == 3
    for number, layer in enumerate(convolutions):
        x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), layer.weight, layer.bias)
        x = x if number == 2 else torch.maximum(x, 0.1 * x)
    torch.testing.assert_close(editor(images), (images + 16 / 255 * torch.tanh(x)).clamp(0, 1))


@pytest.mark.parametrize("side", [1, 3, 64])
def test_any_size(side: int) -> None:
    assert trained(EditorSpec(channels=4))(torch.rand(1, 3, side, side + 1)).shape == (1, 3, side, side + 1)


def test_file_brings_back_editor_and_spec(images: Tensor, tmp_path: Path) -> None:
    editor = trained(EditorSpec(channels=4, depth=2, bound=12.5))
    save_editor(editor, tmp_path / "editor.safetensors")
    read = load_editor(tmp_path / "editor.safetensors")
    assert read.spec == editor.spec
    assert torch.equal(read(images), editor(images))


@pytest.mark.parametrize("options", [{"channels": 0}, {"depth": 1}, {"bound": 0}, {"bound": 256}])
def test_sizes_out_of_range(options: dict[str, float]) -> None:
    (value,) = options.values()
    with pytest.raises(ValueError, match=f"{next(iter(options))} {value}"):
        EditorSpec(**options)


def test_files_that_hold_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no editor\.safetensors at .*nowhere"):
        load_editor(tmp_path / "nowhere")
    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "text").write_text("none")
    for name in ("other.safetensors", "text"):
        with pytest.raises(ValueError, match=f"{name} holds no editor; give the editor.safetensors that"):
            load_editor(tmp_path / name)
