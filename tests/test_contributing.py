"""The worked examples of CONTRIBUTING.md work as written."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from datamodules.distilled import read_distilled
from main import main

GUIDE = Path(__file__).parent.parent / "CONTRIBUTING.md"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`example("add a network", "espcn")` writes the files of an example and returns what follows `--config`."""
    written = []

    def write(title: str, stem: str) -> str:
        section = GUIDE.read_text(encoding="utf-8").split(f"## Worked example: {title}\n")[1].split("\n## ")[0]
        for language, suffix in (("python", "py"), ("yaml", "yaml")):
            if block := re.search(rf"```{language}\n(.*?)```", section, re.DOTALL):
                (tmp_path / f"{stem}.{suffix}").write_text(block.group(1), encoding="utf-8")
        written.append(stem)
        return str(tmp_path / f"{stem}.yaml")

    monkeypatch.syspath_prepend(tmp_path)
    yield write
    for stem in written:
        sys.modules.pop(stem, None)


@pytest.fixture
def quick(tmp_path: Path) -> list[str]:
    """Makes a run short."""
    return [
        *("--trainer.max_steps", "2", "--trainer.limit_val_batches", "0", "--data.batch_size", "2"),
        *("--run.root", str(tmp_path / "runs")),
    ]


def config(name: str) -> list[str]:
    return ["--config", str(GUIDE.parent / "configs" / name)]


def test_add_a_network(example, quick):
    cli = main(["fit", *config("quickstart.yaml"), "--config", example("add a network", "espcn"), *quick])
    assert type(cli.model.network).__name__ == "ESPCN"
    assert cli.model.network.body[0].out_channels == 32


def test_add_a_criterion(example, quick):
    cli = main(["fit", *config("sr/selected.yaml"), "--config", example("add a criterion", "contrast"), *quick])
    selection = cli.datamodule.selection
    assert type(selection.criterion).__name__ == "Contrast"
    for number in selection.chosen[:5]:
        image, top, left = selection.candidates.places[number]
        patch = cli.datamodule.store.hr(image)[top : top + 64, left : left + 64]
        contrast = 255 * np.std((patch / 255) ** 2.2)
        assert selection.scores[number] == pytest.approx(contrast, rel=1e-5)
    assert selection.scores[selection.chosen].min() >= np.median(selection.scores)


def test_add_a_regime(example, tmp_path, monkeypatch):
    """The chain of the regime, up to the set that would be trained on."""
    example("add a criterion", "contrast")
    plan = ["--config", str(GUIDE.parent / "configs/compare/quickstart.yaml")]
    plan += ["--config", example("add a regime", "contrast_plan"), "--root", "compare"]
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *plan, "--only", "contrast-select-2-s0"]) is None
    (folder,) = (tmp_path / "compare/sets").glob("contrast-select-2-s0-*")
    provenance = read_distilled(folder).provenance
    assert "contrast.Contrast" in str(provenance["config"])
    assert provenance["budget"]["percent"] == pytest.approx(2, abs=0.1)
