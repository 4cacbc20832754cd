"""The worked example of CONTRIBUTING.md works as written."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from main import main

GUIDE = Path(__file__).parent.parent / "CONTRIBUTING.md"


def test_worked_example(tmp_path, monkeypatch):
    text = GUIDE.read_text(encoding="utf-8")
    for language, name in (("python", "espcn.py"), ("yaml", "espcn.yaml")):
        block = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
        (tmp_path / name).write_text(block.group(1), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    quick = ["--trainer.max_steps", "2", "--trainer.limit_val_batches", "0", "--run.root", str(tmp_path / "runs")]
    configs = ["--config", str(GUIDE.parent / "configs/quickstart.yaml"), "--config", str(tmp_path / "espcn.yaml")]
    cli = main(["fit", *configs, *quick, "--data.batch_size", "2"])
    assert type(cli.model.network).__name__ == "ESPCN"
    assert cli.model.network.body[0].out_channels == 32
    sys.modules.pop("espcn")
