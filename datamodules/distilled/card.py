"""README.md of a distilled set: a dataset card as the Hugging Face hub shows it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from datamodules.budget import DataBudget
from datamodules.distilled.contents import LATENTS

COLUMNS = {
    "file_name": "`image`: HR, RGB",
    "lr_file_name": "`lr`: its LR",
    "pseudo_label": "`pseudo_label`: number of its class",
    "score": "`score`: what the criterion of the selection gave it",
    "source": "`source`: photograph that it was cut from",
    "top": "`top`: first row there, in HR pixels",
    "left": "`left`: first column there, in HR pixels",
    "seed": "`seed`: that it was sampled with",
}
TEXT = """\
# {name}

A distilled dataset for {task}: {budget}.

| | |
|---|---|
{facts}

`provenance.json` has the whole configuration, package versions, costs and the sha256 of every file.

## Use

{use}

{columns}

To train a network on it with srdistill: `python main.py fit --config configs/sr/distilled.yaml \
--data.init_args.distilled {name}`{training}
{made}
## Licence

The patches derive from the photographs, and the models, that they were made with, whose licences apply. Find out which
these are, and name the licence at the top of this file, before you pass the set on.
"""

IMAGES = """\
```python
from datasets import load_dataset

patches = load_dataset("imagefolder", data_dir="{name}", split="train")
```"""
IN_PLACE_OF_IMAGES = """\
The set holds no images but what a generator makes them of: `latents.safetensors` has one tensor, `latents`, with a row
for each line of `metadata.jsonl`. Where srdistill is installed, and the generator lies where `provenance.json` says:

```python
import json
from pathlib import Path

from safetensors.torch import load_file
from lightning_modules.gan.sources import load_generator

folder = Path("{name}")
generator = load_generator(json.loads((folder / "provenance.json").read_text())["generator"])
patches = generator.decode(load_file(folder / "latents.safetensors")["latents"].float())  # (B, 3, side, side), [0, 1]
```

`predict` of `GANInversion` with `store: images` writes the patches as images."""
DECODED = ": `SyntheticPatches` decodes the latents once, into its cache."


def dataset_card(name: str, record: Mapping[str, Any], columns: Sequence[str]) -> str:
    """The card.

    Args:
        name: of the set.
        record: content of its provenance.json.
        columns: keys of a line of its metadata.jsonl.

    Returns:
        Markdown below YAML front matter, which says which files are images, so that `load_dataset(FOLDER)` needs no
        hint.
    """
    latents = LATENTS in record["sha256"]
    front = yaml.safe_dump(_front_matter(columns, latents), sort_keys=False)
    command = record.get("command")
    text = TEXT.format(
        name=name,
        task=f"x{record['scale']} image super-resolution" if record["scale"] > 1 else "image restoration",
        budget=DataBudget(**record["budget"]).describe(),
        facts="\n".join(f"| {key} | {value} |" for key, value in _facts(record).items() if value is not None),
        use=(IN_PLACE_OF_IMAGES if latents else IMAGES).format(name=name),
        training=DECODED if latents else "",
        columns="Columns:\n\n" + "\n".join(f"- {COLUMNS.get(key, f'`{key}`')}" for key in columns),
        made=f"\n## Made with\n\n```sh\npython {shlex.join(command)}\n```\n" if command else "",
    )
    return f"---\n{front}---\n{text}"


def _front_matter(columns: Sequence[str], latents: bool) -> dict[str, Any]:
    paths = ["metadata.jsonl", "images/*.png", *(["lr_x*/*.png"] if "lr_file_name" in columns else [])]
    images = {"configs": [{"config_name": "default", "data_files": [{"split": "train", "path": paths}]}]}
    return {
        "license": "unknown",
        "task_categories": ["image-to-image"],
        "tags": ["super-resolution", "dataset-distillation", "srdistill"],
        **({} if latents else images),
    }


def _facts(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "method": record.get("method"),
        **(_facts_of_latents(record) if LATENTS in record["sha256"] else {}),
        "teacher of the targets": record["budget"]["teacher"] or "none",
        "seed": record.get("seed"),
        "source (sha256)": record.get("source_fingerprint"),
        "srdistill commit": record["commit"],
        "created": record["created"],
        "classes": _classes(record),
    }


def _classes(record: Mapping[str, Any]) -> str | None:
    """Their numbers and names, where they have names; those of the patches that a set was made from are its own."""
    made_from = record.get("made_from") or {}
    names = (record.get("preparation") or made_from.get("preparation") or {}).get("classes") or []
    return ", ".join(f"{number} {name}" for number, name in enumerate(names)) or None


def _facts_of_latents(record: Mapping[str, Any]) -> dict[str, str]:
    latents, images = (f"{size / 1e3:.1f} KB" for size in (record["budget"]["bytes"], record["png_bytes"]))
    generator = record["generator"]
    return {
        "latents": f"{latents}; the same patches as PNG: {images}",
        "generator": f"{generator.get('source')} (fingerprint {generator['fingerprint'][:12]})",
    }
