"""Reads W&B's offline runs back, from the file format that `wandb sync` reads."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

wandb_internal_pb2 = pytest.importorskip("wandb.proto.wandb_internal_pb2")

FULL, FIRST, _, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[Any]:
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


def finished(path: Path, seconds: float = 20) -> list[Any]:
    """All records, once W&B's own process has written the last one."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        content = list(records(path)) if path.stat().st_size else []
        if any(record.WhichOneof("record_type") == "exit" for record in content):
            return content
        time.sleep(0.05)
    pytest.fail(f"{path} has no end")


def values(items: Any) -> dict[str, Any]:
    """Keys and values of a list of items; the parts of a nested key are joined by slashes."""
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


class OfflineRun:
    """The one offline run below a folder.

    Attributes:
        folder: `offline-run-*`.
        run: record with project, run_group, job_type, display_name.
        config: as it was in the end.
        history: a mapping for every step.
        summary: as it was in the end.
        artifacts: records with name, type, metadata and manifest, by name.
    """

    def __init__(self, where: Path) -> None:
        (self.folder,) = (where / "wandb").glob("offline-run-*")
        (path,) = self.folder.glob("*.wandb")
        self._records = finished(path)
        (self.run,) = self._of("run")
        self.config = values(
            [*self.run.config.update, *(item for record in self._of("config") for item in record.update)]
        )
        self.history = [values(record.item) for record in self._of("history")]
        self.summary = values(item for record in self._of("summary") for item in record.update)
        self.artifacts = {record.name: record for record in self._of("artifact")}

    def _of(self, kind: str) -> list[Any]:
        return [getattr(record, kind) for record in self._records if record.WhichOneof("record_type") == kind]
