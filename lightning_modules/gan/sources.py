"""Where a generator comes from, and what latents say of the one they belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from datamodules.weight_files import hub_file
from lightning_modules.gan.generator import Generator
from lightning_modules.gan.sr_generator import SRGenerator
from lightning_modules.gan.style_file import CONFIG, GENERATOR
from lightning_modules.gan.style_latents import StyleLatents
from lightning_modules.run_parts import newest

WEIGHTS = "weights.safetensors"
"""File of a run that trained an SR network."""

INSTEAD = (
    "give a file that spandrel reads (such as RealESRGAN_x4plus.pth), the folder of a run of SuperResolution, or that "
    "of configs/distill/gsdd/prior.yaml, which trains a generator from scratch"
)


@dataclass(frozen=True)
class GeneratorSpec:
    """A frozen generator.

    Attributes:
        source: file of an SR network that spandrel reads, here or on the Hugging Face hub (OWNER/NAME/FILE); or a run
            of SuperResolution or GANPrior, or its experiment, whose newest run it is then.
        latent_space: of a generator of GANPrior: one style for the patch (`w`) or one for each layer (`w_plus`).
        dtype: of its weights and of what is computed with them.
    """

    source: str
    latent_space: Literal["w", "w_plus"] = "w_plus"
    dtype: Literal["float32", "bfloat16"] = "float32"

    def build(self, side: int) -> Generator:
        """The generator for patches of `side` pixels, on the CPU, in evaluation mode, without gradients.

        Raises:
            FileNotFoundError: when it is not there.
            ValueError: when it cannot be read, or does not fit the side.
        """
        path, dtype = _locate(self.source), getattr(torch, self.dtype)
        folder, run = newest(path, GENERATOR), newest(path, WEIGHTS)
        with torch.random.fork_rng(devices=[]):  # constructors draw weights; a run is the same with decoded ones cached
            generator: Generator
            if (folder / CONFIG).is_file():
                path, generator = folder, StyleLatents(str(folder), side, self.latent_space, dtype)
            else:
                path = path if run == path else run.parent
                generator = SRGenerator(str(path), side, dtype)
        generator.source = str(path.absolute()) if Path(self.source).expanduser().exists() else self.source
        return generator.eval()

    def record(self, generator: Generator) -> dict[str, Any]:
        """What latents are stored with, for `load_generator`: plain values; of an experiment, the run that it was."""
        own = {"source": generator.source, "side": generator.side, "fingerprint": generator.fingerprint}
        return {**asdict(self), **own}


def _locate(source: str) -> Path:
    path = Path(source).expanduser()
    if path.exists():
        return path
    owner, *others = source.split("/")
    if len(others) < 2 or owner in ("", ".", "..", "~", "runs") or Path(owner).is_dir() or not path.suffix:
        raise FileNotFoundError(f"model.generator.source {source}: no such file or folder; {INSTEAD}")
    return hub_file(f"{owner}/{others[0]}", ["/".join(others[1:])], f"for model.generator.source {INSTEAD}")


def load_generator(record: Mapping[str, Any]) -> Generator:
    """The generator that latents belong to.

    Args:
        record: from `GeneratorSpec.record`.

    Raises:
        FileNotFoundError: when it is not where it was.
        ValueError: when it cannot be read, or is another one now.
    """
    spec = GeneratorSpec(record["source"], record["latent_space"], record["dtype"])
    generator = spec.build(record["side"])
    refuse_another(spec.record(generator), record)
    return generator


def refuse_another(here: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Compares two generators, by what `GeneratorSpec.record` says of them.

    Args:
        here: the one at hand.
        wanted: that of latents.

    Raises:
        ValueError: when they are not the same.
    """
    if here["fingerprint"] != wanted["fingerprint"]:
        raise ValueError(
            f"the latents were made for another generator ({wanted['source']}, {wanted['side']} pixels, fingerprint "
            f"{wanted['fingerprint'][:12]}) than {here['source']} with {here['side']} pixels is "
            f"({here['fingerprint'][:12]}); give the generator that they were made for, or make them again"
        )
