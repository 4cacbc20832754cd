"""Diffusion models from a hub, a folder of diffusers or a run of DiffusionPrior, and what such a run writes."""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch
from torch import nn

from datamodules.fingerprint import digest_file
from datamodules.weight_files import hub_folder, reading
from lightning_modules.diffusion.codec import Autoencoder, Codec, PixelSpace
from lightning_modules.diffusion.latent_diffusion import LatentDiffusion
from lightning_modules.diffusion.process import NoiseProcess
from lightning_modules.run_parts import newest

PIPELINE = "pipeline"
"""Folder of a run that holds what it trained, as diffusers lays it out."""

DENOISER, AUTOENCODER, SCHEDULER = "transformer", "vae", "scheduler"
INSTEAD = (
    "give a folder of diffusers on this machine, or the folder of a run of configs/distill/diffusion/prior.yaml, "
    "which trains one from scratch"
)


def load_pretrained(source: str, autoencoder: str | None = None) -> LatentDiffusion:
    """A diffusion transformer with its autoencoder and noise schedule.

    Args:
        source: id on the Hugging Face hub (facebook/DiT-XL-2-512), a folder of a diffusers pipeline, or the folder of
            a run of DiffusionPrior or of its experiment, whose newest run it is then. Without `vae` it works on pixels.
        autoencoder: another one: id on the hub, or folder. None takes the one in `source`.

    Raises:
        FileNotFoundError: when it is neither there nor to be had.
        ValueError: when files are damaged, of another class, or do not fit each other.
    """
    folder = find_pretrained(source)
    denoiser = _load(folder / DENOISER, ("DiTTransformer2DModel", "Transformer2DModel"), "DiTTransformer2DModel")
    codec: Codec = PixelSpace()
    if autoencoder is not None or (folder / AUTOENCODER).is_dir():
        codec = load_autoencoder(str(folder) if autoencoder is None else autoencoder)
    return LatentDiffusion(codec, denoiser, NoiseProcess(_read_json(folder / SCHEDULER / "scheduler_config.json")))


def load_autoencoder(source: str) -> Autoencoder:
    """AutoencoderKL or AutoencoderTiny from a hub, its own folder, or that of a pipeline.

    Raises:
        FileNotFoundError: when it is neither there nor to be had.
        ValueError: when files are damaged or of another class.
    """
    return Autoencoder(_load(_find_autoencoder(source), ("AutoencoderKL", "AutoencoderTiny")))


def _find_autoencoder(source: str) -> Path:
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if _is_path(source):
            raise FileNotFoundError(f"model.autoencoder {source}: no such folder; give one of diffusers, or a hub id")
        folder = hub_folder(source, ["config.json", "diffusion_pytorch_model*"], "give model.autoencoder as a folder")
    folder = newest(folder, PIPELINE)
    return folder / AUTOENCODER if (folder / AUTOENCODER).is_dir() else folder


def find_pretrained(source: str) -> Path:
    """The folder of a diffusers pipeline that `source` means; see `load_pretrained`.

    Raises:
        FileNotFoundError: when there is none.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if _is_path(source):
            raise FileNotFoundError(f"model.pretrained {source}: no such folder; {INSTEAD}")
        return hub_folder(
            source, [f"{DENOISER}/*", f"{SCHEDULER}/*", f"{AUTOENCODER}/*"], f"for model.pretrained {INSTEAD}"
        )
    folder = newest(folder, PIPELINE)
    if not (folder / DENOISER / "config.json").is_file():
        raise FileNotFoundError(
            f"model.pretrained {source} holds no {DENOISER}/config.json (a run writes it when fit has ended); {INSTEAD}"
        )
    return folder


def _is_path(source: str) -> bool:
    """Whether no id on a hub is meant, which is OWNER/NAME: a missing folder must not become somebody's model."""
    owner, *others = source.split("/")
    return len(others) != 1 or owner.startswith((".", "~")) or owner in ("", "runs") or Path(owner).is_dir()


def fingerprint(source: str, autoencoder: str | None = None) -> str:
    """SHA-256 of the files that `load_pretrained` reads, by which an adapter knows its model."""
    folder = find_pretrained(source)
    decoder = folder / AUTOENCODER if autoencoder is None else _find_autoencoder(autoencoder)
    parts = {DENOISER: folder / DENOISER, SCHEDULER: folder / SCHEDULER, AUTOENCODER: decoder}
    files = [(part, file) for part, where in parts.items() for file in _read_files(where)]
    digests = [[part, file.name, digest_file(file)] for part, file in files]
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()


def _read_files(folder: Path) -> list[Path]:
    """Configuration and weights; where these are there twice, diffusers reads the safetensors."""
    weights = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    return [*sorted(folder.glob("*.json")), *weights]


def save_pretrained(diffusion: LatentDiffusion, folder: Path) -> None:
    """Writes a diffusers pipeline, complete or not at all; DiTPipeline loads it where there is an autoencoder.

    DiTPipeline takes 1000 for the null class, whatever the model has: use it without guidance.
    """
    unfinished = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        if isinstance(diffusion.codec, Autoencoder):
            _pipeline(diffusion, diffusion.codec).save_pretrained(unfinished)
        else:
            diffusion.denoiser.save_pretrained(unfinished / DENOISER)
            _scheduler(diffusion).save_pretrained(unfinished / SCHEDULER)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _pipeline(diffusion: LatentDiffusion, codec: Autoencoder) -> Any:
    from diffusers import DiTPipeline

    return DiTPipeline(diffusion.denoiser, codec.model, _scheduler(diffusion))


def _scheduler(diffusion: LatentDiffusion) -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler.from_config(diffusion.process.config)


def _load(folder: Path, classes: tuple[str, ...], as_class: str | None = None) -> nn.Module:
    """A model of diffusers, float32; of each tensor it is made sure that it comes from the file, and is finite."""
    import diffusers

    name = _read_json(folder / "config.json").get("_class_name")
    if name not in classes:
        raise ValueError(f"{folder / 'config.json'} is of a {name}; expected {' or '.join(classes)}")
    with reading(folder):
        model, told = getattr(diffusers, as_class or name).from_pretrained(
            folder, output_loading_info=True, torch_dtype=torch.float32, local_files_only=True
        )
    missing, unknown = told["missing_keys"], [key for key in told["unexpected_keys"] if not key.endswith("pos_embed")]
    for keys, what in ((missing, "has no"), (unknown, "has an unknown")):
        if keys:
            raise ValueError(f"{folder} {what} tensor {min(keys)} ({len(keys)} such); its files do not belong together")
    broken = [key for key, tensor in model.state_dict().items() if not tensor.isfinite().all()]
    if broken:
        raise ValueError(f"{folder}: the weights {broken[0]} are not finite ({len(broken)} such); get the files anew")
    return model.eval()


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; {INSTEAD}")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); get the folder anew") from error
