"""A light residual CNN that edits images by no more than a few grey levels, and the file that it is kept in."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_modules.networks.weights import export_weights, load_weights

EDITOR = "editor.safetensors"
"""File of a run that holds what it trained."""

SPEC = "editor"
"""Key of its header."""


@dataclass(frozen=True)
class EditorSpec:
    """Size of an editor.

    Attributes:
        channels: of the layers between input and output.
        depth: convolutions of 3 x 3 pixels, at least 2; an edit looks `depth` pixels far.
        bound: most that it changes a pixel by, in levels of 255, above 0 and up to 255; with 8 the edited image has at
            least 30 dB against the original.

    Raises:
        ValueError: when one of them is out of range.
    """

    channels: int = 16
    depth: int = 3
    bound: float = 8.0

    def __post_init__(self) -> None:
        if self.channels < 1 or self.depth < 2 or not 0 < self.bound <= 255:
            raise ValueError(
                f"model.editor has channels {self.channels}, depth {self.depth} and bound {self.bound}; expected at "
                "least 1, at least 2, and above 0 up to 255 levels"
            )


class ResidualEditor(nn.Module):
    """x' = x + bound * tanh(CNN(x)), clipped to [0, 1]: TripleD's editor (arXiv 2504.14826), with a bound.

    The last layer starts at zero, so that an untrained editor changes nothing. The same weights edit images of any
    size; outside of an image they see its border repeated.

    Args:
        spec: size and bound.
    """

    def __init__(self, spec: EditorSpec = EditorSpec()) -> None:
        super().__init__()
        self.spec = spec
        channels = [3, *[spec.channels] * (spec.depth - 1)]
        layers: list[nn.Module] = []
        for given, made in pairwise(channels):
            layers += [nn.Conv2d(given, made, 3, padding=1, padding_mode="replicate"), nn.LeakyReLU(0.1)]
        last = nn.Conv2d(channels[-1], 3, 3, padding=1, padding_mode="replicate")
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.body = nn.Sequential(*layers, last)

    def forward(self, images: Tensor) -> Tensor:
        """The edited images.

        Args:
            images: float32 RGB in [0, 1], (B, 3, H, W).

        Returns:
            As they are; no pixel is further than `bound` / 255 from its original.
        """
        residual = torch.tanh(self.body(2 * images - 1).float())
        return (images + self.spec.bound / 255 * residual).clamp(0, 1)


def save_editor(editor: ResidualEditor, path: Path) -> None:
    """Writes weights, with the spec in the header, as safetensors."""
    export_weights(editor, path, {SPEC: json.dumps(asdict(editor.spec))})


def load_editor(path: Path) -> ResidualEditor:
    """Reads what `save_editor` has written.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it holds no editor.
    """
    editor = ResidualEditor(_saved_spec(path))
    load_weights(editor, path)
    return editor


def _saved_spec(path: Path) -> EditorSpec:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {EDITOR} at {path}; give the file, the folder of a finished fit of DistributionAlignment, or "
            "that of its experiment"
        )
    try:
        with safe_open(path, "pt") as opened:
            header = opened.metadata() or {}
        return EditorSpec(**json.loads(header[SPEC]))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} holds no editor; give the {EDITOR} that a fit of DistributionAlignment has written"
        ) from error
