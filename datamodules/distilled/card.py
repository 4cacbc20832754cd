"""README.md of a distilled set: a dataset card as the Hugging Face hub shows it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from datamodules.budget import DataBudget

COLUMNS = {
    "file_name": "`image`: HR, RGB",
    "lr_file_name": "`lr`: its LR",
    "pseudo_label": "`pseudo_label`: number of its cluster",
    "score": "`score`: what the criterion of the selection gave it",
    "source": "`source`: photograph that it was cut from",
    "top": "`top`: first row there, in HR pixels",
    "left": "`left`: first column there, in HR pixels",
    "seed": "`seed`: that it was sampled with",
}
TEXT = """\
# {name}

A distilled dataset for x{scale} image super-resolution: {budget}.

| | |
|---|---|
{facts}

`provenance.json` has the whole configuration, package versions, costs and the sha256 of every file.

## Use

```python
from datasets import load_dataset

patches = load_dataset("imagefolder", data_dir="{name}", split="train")
```

{columns}

To train a network on it with srdistill: `python main.py fit --config configs/sr/distilled.yaml \
--data.init_args.distilled {name}`
{made}
## Licence

The patches derive from the photographs, and the models, that they were made with, whose licences apply. Find out which
these are, and name the licence at the top of this file, before you pass the set on.
"""


def dataset_card(name: str, record: Mapping[str, Any], columns: Sequence[str]) -> str:
    """The card.

    Args:
        name: of the set.
        record: content of its provenance.json.
        columns: keys of a line of its metadata.jsonl.

    Returns:
        Markdown below YAML front matter, which says which files are data, so that `load_dataset(FOLDER)` needs no hint.
    """
    front = yaml.safe_dump(_front_matter(columns), sort_keys=False)
    command = record.get("command")
    text = TEXT.format(
        name=name,
        scale=record["scale"],
        budget=DataBudget(**record["budget"]).describe(),
        facts="\n".join(f"| {key} | {value} |" for key, value in _facts(record).items() if value is not None),
        columns="Columns:\n\n" + "\n".join(f"- {COLUMNS.get(key, f'`{key}`')}" for key in columns),
        made=f"\n## Made with\n\n```sh\npython {shlex.join(command)}\n```\n" if command else "",
    )
    return f"---\n{front}---\n{text}"


def _front_matter(columns: Sequence[str]) -> dict[str, Any]:
    paths = ["metadata.jsonl", "images/*.png", *(["lr_x*/*.png"] if "lr_file_name" in columns else [])]
    return {
        "license": "unknown",
        "task_categories": ["image-to-image"],
        "tags": ["super-resolution", "dataset-distillation", "srdistill"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": paths}]}],
    }


def _facts(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "method": record.get("method"),
        "teacher of the targets": record["budget"]["teacher"] or "none",
        "seed": record.get("seed"),
        "source (sha256)": record.get("source_fingerprint"),
        "srdistill commit": record["commit"],
        "created": record["created"],
    }
