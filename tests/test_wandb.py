"""W&B: a real offline run folder is written, and read back from its own file format."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from main import main

wandb_internal_pb2 = pytest.importorskip("wandb.proto.wandb_internal_pb2")

FULL, FIRST, _, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator:
    """The records of a .wandb file: LevelDB's log format after a header of seven bytes.

    Blocks of 32 KiB hold chunks of checksum (4 bytes), length (2), kind (1) and data; a record is one chunk or several;
    what is left of a block is padding when it is too short for a chunk's header.
    """
    content, block = path.read_bytes(), 1 << 15
    assert content[:4] == b":W&B"
    position, data = 7, b""
    while position + 7 <= len(content):
        if block - position % block < 7:
            position += block - position % block
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        chunk = content[position + 7 : position + 7 + length]
        if len(chunk) < length:  # still being written
            return
        data = chunk if kind in (FULL, FIRST) else data + chunk
        position += 7 + length
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            yield record


def finished(path: Path, seconds: float = 20) -> list:
    """All records, once W&B's own process has written the last one."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        content = list(records(path)) if path.stat().st_size else []
        if any(record.WhichOneof("record_type") == "exit" for record in content):
            return content
        time.sleep(0.05)
    pytest.fail(f"{path} has no end")


def values(items) -> dict:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


@pytest.fixture
def offline(tiny, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    options = ["--run.wandb", "offline", "--run.experiment", "study", "--trainer.max_steps", "4"]
    return main(["fit", *tiny, *options, "--trainer.val_check_interval", "2"]).run_dir


def test_offline_run_can_be_read_back(offline):
    (folder,) = (offline / "wandb").glob("offline-run-*")
    (path,) = folder.glob("*.wandb")
    content = finished(path)
    run = next(record.run for record in content if record.WhichOneof("record_type") == "run")
    assert (run.project, run.run_group, run.job_type, run.display_name) == ("srdistill", "study", "fit", offline.name)

    updates = [*run.config.update, *(item for record in content for item in record.config.update)]
    config = values(updates)
    assert config["model"]["init_args"]["network"]["options"] == {"n_feats": 4, "n_resblocks": 1}
    assert config["data"]["init_args"]["patch_size"] == 32

    history = [values(record.history.item) for record in content if record.WhichOneof("record_type") == "history"]
    losses = {row["trainer/global_step"]: row["train/loss"] for row in history if "train/loss" in row}
    assert list(losses) == [0, 1, 2, 3]
    assert all(loss > 0 for loss in losses.values())
    assert len([row for row in history if "val/psnr_y" in row]) == 2

    names = [name for row in history for name in row.get("images/validation/filenames", [])]
    drawn = [offline / "images" / f"step{step:08d}-validation.png" for step in (2, 4)]
    for name, ours in zip(names, drawn, strict=True):
        assert np.array_equal(np.asarray(Image.open(folder / "files" / name)), np.asarray(Image.open(ours)))


def test_disabled(tiny, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    cli = main(["fit", *tiny, "--run.wandb", "disabled", "--trainer.limit_val_batches", "0"])
    assert not (cli.run_dir / "wandb").exists()


def test_every_run_of_a_process_is_its_own(tiny, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    quick = [*tiny, "--trainer.limit_val_batches", "0"]
    folders = [main(["fit", *quick, "--run.name", name]).run_dir / "wandb" for name in ("first", "second")]
    assert [len(list(folder.glob("offline-run-*"))) for folder in folders] == [1, 1]
