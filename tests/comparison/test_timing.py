"""Expected durations: means, measured updates, and schedules computed by hand."""

from __future__ import annotations

import copy
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from comparison.planning.stages import Stage
from comparison.running import timing as module
from comparison.running.timing import Estimate, Timing, estimate, measure_update, training_device
from main import main

CONFIG: dict[str, Any] = {
    "model": {"init_args": {"network": {"architecture": "EDSR", "options": {"n_feats": 4}}, "channels_last": False}},
    "data": {"init_args": {"scale": 4, "patch_size": 32, "batch_size": 2}},
    "trainer": {"max_steps": 100, "precision": None, "accelerator": "auto"},
}


def changed(group: str, key: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    options = config[group].get("init_args", config[group])
    assert key in options
    options[key] = value
    return config


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Replaces the measurement by 0.5 s; holds what it was asked for."""
    asked = []
    monkeypatch.setattr(module, "measure_update", lambda config, device: asked.append(config) or 0.5)
    return asked


@pytest.fixture
def slow_batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Size, float]]:
    """Shapes of the batches that `slow_network.Slow` has seen, and its weight then; it takes 0.1 s for each."""
    batches = []

    class Slow(nn.Module):
        def __init__(self, scale: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))
            self.scale = scale

        def forward(self, lr: torch.Tensor) -> torch.Tensor:
            batches.append((lr.shape, self.weight.item()))
            time.sleep(0.1)
            return nn.functional.interpolate(lr, scale_factor=self.scale) * self.weight

    monkeypatch.setitem(sys.modules, "slow_network", SimpleNamespace(Slow=Slow))
    return batches


def test_finished_stages_with_the_same_signature_count(tmp_path: Path, measured: list):
    records = [
        {"name": "a", "kind": "train", "seconds": 10.0, "signature": "x"},
        {"name": "b", "kind": "train", "seconds": 14.0, "signature": "x"},
        {"name": "c", "kind": "test", "seconds": 99.0, "signature": "y"},
    ]
    timing = Timing(records, tmp_path / "memo.json")
    assert timing.expected("x", CONFIG) == 12.0
    assert timing.expected("y") == 99.0
    assert timing.expected("z") is None
    assert measured == []


def test_others_are_measured(tmp_path: Path, measured: list):
    timing = Timing([], tmp_path / "memo.json")
    assert timing.expected("x", CONFIG) == 50.0
    assert timing.expected("x", changed("trainer", "max_steps", 7)) == 3.5
    assert timing.expected("x", changed("trainer", "max_steps", -1)) is None
    assert len(measured) == 1


def test_a_measurement_is_remembered(tmp_path: Path, measured: list):
    memo = tmp_path / "folder" / "memo.json"
    assert [Timing([], memo).seconds_per_update(CONFIG) for _ in range(2)] == [0.5, 0.5]
    assert len(measured) == 1
    assert list(json.loads(memo.read_text()).values()) == [0.5]


@pytest.mark.parametrize(
    "other",
    [
        changed("model", "network", {"architecture": "EDSR", "options": {"n_feats": 8}}),
        changed("model", "channels_last", True),
        changed("data", "scale", 2),
        changed("data", "patch_size", 64),
        changed("data", "batch_size", 4),
        changed("trainer", "precision", "bf16-mixed"),
    ],
)
def test_another_pace_is_measured_again(tmp_path: Path, measured: list, other: dict):
    timing = Timing([], tmp_path / "memo.json")
    for config in (CONFIG, other, CONFIG, other):
        timing.seconds_per_update(config)
    assert measured == [CONFIG, other]


def test_another_device_is_measured_again(tmp_path: Path, measured: list, monkeypatch: pytest.MonkeyPatch):
    timing = Timing([], tmp_path / "memo.json")
    timing.seconds_per_update(CONFIG)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for name in ("one", "another"):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _, name=name: name)
        timing.seconds_per_update(CONFIG)
    assert len(measured) == 3


@pytest.mark.parametrize("damaged", ["", "[1]", '{"key": "text"}', '{"key": null}', "\x00"])
def test_a_damaged_memo_is_made_anew(tmp_path: Path, measured: list, damaged: str):
    memo = tmp_path / "memo.json"
    memo.write_text(damaged)
    assert Timing([], memo).seconds_per_update(CONFIG) == 0.5
    assert list(json.loads(memo.read_text()).values()) == [0.5]


def test_a_memo_that_cannot_be_written_is_done_without(tmp_path: Path, measured: list):
    (tmp_path / "file").touch()
    assert Timing([], tmp_path / "file" / "memo.json").seconds_per_update(CONFIG) == 0.5


def test_the_device_is_what_lightning_would_take(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert training_device(CONFIG).type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert training_device(CONFIG).type == "cuda"
    assert training_device(changed("trainer", "accelerator", "cpu")).type == "cpu"


def test_an_update_of_a_network_of_known_pace(slow_batches: list):
    config = changed("model", "network", {"architecture": "slow_network.Slow", "options": {}})
    assert 0.1 <= measure_update(config, torch.device("cpu")) < 1
    probe, other_size, *shapes = [shape for shape, _ in slow_batches]
    assert (probe, other_size) == ((1, 3, 16, 16), (1, 3, 17, 17))  # of build_network
    assert shapes == [(2, 3, 8, 8)] * 4  # the first to warm up
    assert len({weight for _, weight in slow_batches[2:]}) == 4  # the optimiser has stepped in between


@pytest.mark.parametrize(
    ("durations", "expected"),
    [
        ([2.0, 1.0, 1.5, 0.5, 99.0], 1.0),  # the first warms up, the fifth is not made
        ([2.0, 4.0, 99.0], 4.0),
        ([7.0, 99.0], 7.0),
    ],
)
def test_a_measurement_is_bounded(durations: list[float], expected: float, monkeypatch: pytest.MonkeyPatch):
    clock = [100.0]
    calls = iter(durations)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def update() -> None:
        clock[0] += next(calls)

    assert module._pace(update) == expected


def test_half_precision_and_channels_last_run_on_a_cpu():
    config = changed("model", "channels_last", True)
    config["trainer"]["precision"] = "bf16-mixed"
    assert 0 < measure_update(config, torch.device("cpu")) < 60  # seconds


def test_the_configuration_of_a_run_is_understood(tmp_path: Path, tiny: list[str]):
    run = main(["fit", *tiny]).run_dir
    config = yaml.safe_load((run / "config.yaml").read_text())
    timing = Timing([], tmp_path / "memo.json")
    assert timing.expected("x", config) == 2 * timing.seconds_per_update(config) > 0


def stage(name: str, *needs: str) -> Stage:
    return Stage(name, "fit", "train", (), needs, {})


CHAIN = [stage("a"), stage("b", "a"), stage("c", "b")]
DIAMOND = [stage("top"), stage("left", "top"), stage("right", "top"), stage("bottom", "left", "right")]
LENGTHS = {"top": 10.0, "left": 20.0, "right": 5.0, "bottom": 7.0, "alone": 30.0}


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_chain_takes_its_sum_on_any_number_of_jobs(jobs: int):
    assert estimate(CHAIN, {"a": 1.0, "b": 2.0, "c": 4.0}, jobs) == Estimate(7.0, jobs, 0)


@pytest.mark.parametrize(("jobs", "seconds"), [(1, 42.0), (2, 37.0), (9, 37.0)])
def test_a_diamond(jobs: int, seconds: float):
    # two jobs: top 0-10, left 10-30 beside right 10-15, bottom 30-37
    assert estimate(DIAMOND, LENGTHS, jobs).seconds == seconds


def test_a_diamond_beside_another_stage():
    # top 0-10 beside alone 0-30; left 10-30, right 30-35, bottom 35-42; divided evenly it would be 36
    stages = [DIAMOND[0], stage("alone"), *DIAMOND[1:]]
    assert estimate(stages, LENGTHS, 2).seconds == 42.0


def test_stages_start_in_the_order_of_the_plan():
    # long 0-9 beside short 0-1, then 1-2, 2-3; the other way round it would be 10
    stages = [stage("long"), *(stage(f"short {number}") for number in range(3))]
    lengths = {"long": 9.0} | {f"short {number}": 1.0 for number in range(3)}
    assert estimate(stages, lengths, 2).seconds == 9.0
    assert estimate(stages[::-1], lengths, 2).seconds == 10.0


def test_needs_that_are_done_hold_nothing_up():
    assert estimate(CHAIN[1:], {"b": 2.0, "c": 4.0}, 1).seconds == 6.0


def test_unknown_lengths_are_counted():
    assert estimate(CHAIN, {"a": None, "b": 2.0}, 1) == Estimate(2.0, 1, 2)
    assert estimate([], {}, 2) == Estimate(0.0, 2, 0)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (Estimate(4800.0, 2, 3), "about 1 h 20 min on 2 jobs, and 3 stages of unknown length"),
        (Estimate(60.0, 1, 1), "about 1 min 00 s on 1 job, and 1 stage of unknown length"),
        (Estimate(60.0, 1, 0), "about 1 min 00 s on 1 job"),
        (Estimate(0.0, 2, 5), "5 stages of unknown length"),
        (Estimate(0.0, 1, 0), "about 0 s on 1 job"),
    ],
)
def test_description(given: Estimate, text: str):
    assert given.describe() == text
