"""The record of finished stages: what counts as done, and which attempts and checkpoints are found again."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from comparison.planning.stages import Stage
from comparison.running.store import Done, Store, read_json

KEY = "0123456789abcdef" * 4
STAGE = Stage("random-train", "fit", "train", (), (), {})


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "root")


@pytest.fixture
def record(store):
    """Of a stage whose output is there."""
    (store.root / "stages" / "out").mkdir(parents=True)
    return Done("random-train", KEY, "train", ["fit", "--x", "1"], "stages/run", "stages/out", 12.5, "signature")


def attempt(store, name, checkpoint=None):
    folder = store.runs / "random-train" / "fit" / name
    (folder / "checkpoints").mkdir(parents=True)
    if checkpoint is not None:
        (folder / "checkpoints" / "last.ckpt").write_text(name)
        os.utime(folder / "checkpoints" / "last.ckpt", (checkpoint, checkpoint))
    return folder


def test_record_can_be_read_back(store, record):
    assert store.done(KEY) is None
    store.finish(record)
    assert store.done(KEY) == record
    assert Store(store.root).history() == [record]


def test_stage_without_its_output_is_not_done(store, record):
    store.finish(record)
    (store.root / "stages" / "out").rmdir()
    assert store.done(KEY) is None
    assert store.history() == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"stage": "random-train"}', '{"key": 1, "extra": 2}'])
def test_damaged_record_counts_as_not_done(store, record, content):
    store.finish(record)
    (store.root / "done" / f"{KEY}.json").write_text(content)
    assert store.done(KEY) is None


def test_records_hold_no_path_of_the_machine(store, record, tmp_path):
    store.finish(replace(record, output=store.relative(store.root / "stages" / "out")))
    moved = store.root.rename(tmp_path / "elsewhere")
    assert json.loads((moved / "done" / f"{KEY}.json").read_text())["output"] == "stages/out"
    assert Store(moved).done(KEY) is not None


def test_attempts_are_in_order_and_of_this_key_alone(store):
    names = ["0123456789ab", "0123456789ab-1", "0123456789ab-2", "0123456789ab-10"]
    for name in [*reversed(names), "ffffffffffff"]:
        attempt(store, name)
    assert [path.name for path in store.attempts(STAGE, KEY)] == names


@pytest.mark.parametrize(
    ("there", "name"),
    [
        ([], "0123456789ab"),
        (["0123456789ab"], "0123456789ab-1"),
        (["0123456789ab", "0123456789ab-1"], "0123456789ab-2"),
        (["0123456789ab-1"], "0123456789ab-2"),  # someone has removed the first: a count would give this one again
        (["0123456789ab-9", "0123456789ab-10"], "0123456789ab-11"),
        (["ffffffffffff"], "0123456789ab"),
    ],
)
def test_next_attempt_is_a_new_folder(store, there, name):
    for folder in there:
        attempt(store, folder)
    assert store.next_attempt(STAGE, KEY) == store.runs / "random-train" / "fit" / name


def test_newest_checkpoint_is_gone_on_from(store):
    assert store.checkpoint(STAGE, KEY) is None
    attempt(store, "0123456789ab", checkpoint=100)
    newest = attempt(store, "0123456789ab-1", checkpoint=200)
    attempt(store, "0123456789ab-2")  # was stopped before it wrote one
    attempt(store, "ffffffffffff", checkpoint=300)  # of another key
    assert store.checkpoint(STAGE, KEY) == newest / "checkpoints" / "last.ckpt"


def test_missing_or_damaged_file_reads_as_empty(tmp_path):
    (tmp_path / "half.json").write_text('{"seconds": 1')
    (tmp_path / "whole.json").write_text('{"seconds": 1}')
    assert read_json(tmp_path / "none.json") == read_json(tmp_path / "half.json") == {}
    assert read_json(tmp_path / "whole.json") == {"seconds": 1}
