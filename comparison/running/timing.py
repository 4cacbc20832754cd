"""How long the missing stages of a comparison will take, by what finished ones took or by a few timed updates."""

from __future__ import annotations

import heapq
import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from comparison.results.formatting import format_seconds
from datamodules.fingerprint import write_atomic
from lightning_modules.networks import NetworkSpec, build_network

if TYPE_CHECKING:
    from comparison.planning.stages import Stage

STEPS = 3
"""Updates that are timed, after one to warm up."""

PATIENCE = 5.0
"""Seconds after which no further update is timed."""

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Of `trainer.precision`; others are measured in float32."""


class Timing:
    """What is known of the durations of stages.

    Args:
        records: finished stages: `seconds`, and `signature`, which is the same for stages that do the same work.
        memo: JSON file that keeps measured updates between calls; made anew when missing or damaged, and done without
            where it cannot be written.
    """

    def __init__(self, records: Iterable[Mapping[str, Any]], memo: Path) -> None:
        self._finished: dict[str, list[float]] = {}
        for record in records:
            self._finished.setdefault(record["signature"], []).append(record["seconds"])
        self._memo = memo

    def expected(self, signature: str, config: Mapping[str, Any] | None = None) -> float | None:
        """Seconds that a stage will take.

        Args:
            signature: of the stage.
            config: of the training of an SR network, resolved, as in a run's `config.yaml`; None for other stages.

        Returns:
            The mean of finished stages with the same signature; without any, the time of the training's updates alone
            (no start-up, no validation); None where neither is known.

        Raises:
            ValueError: when the network cannot be built.
        """
        if signature in self._finished:
            return fmean(self._finished[signature])
        if config is None or config["trainer"]["max_steps"] < 1:
            return None
        return self.seconds_per_update(config) * config["trainer"]["max_steps"]

    def seconds_per_update(self, config: Mapping[str, Any]) -> float:
        """Seconds of one optimiser step of an SR training on this machine; measured once, then remembered.

        Args:
            config: as for `expected`.

        Raises:
            ValueError: when the network cannot be built.
        """
        device = training_device(config)
        key, known = _key(config, device), self._remembered()
        if key not in known:
            known[key] = measure_update(config, device)
            with suppress(OSError):
                write_atomic(self._memo, json.dumps(known, indent=2) + "\n")
        return known[key]

    def _remembered(self) -> dict[str, float]:
        try:
            return {key: float(seconds) for key, seconds in json.loads(self._memo.read_text("utf-8")).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}


def training_device(config: Mapping[str, Any]) -> torch.device:
    """The GPU where there is one, unless the configuration asks for the CPU."""
    gpu = torch.cuda.is_available() and config["trainer"]["accelerator"] != "cpu"
    return torch.device("cuda" if gpu else "cpu")


def _key(config: Mapping[str, Any], device: torch.device) -> str:
    """Everything that the pace depends on."""
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else f"{platform.processor()}, {torch.get_num_threads()} threads"
    of_model, of_data = ("network", "channels_last"), ("scale", "patch_size", "batch_size")
    parts = [*(model[part] for part in of_model), *(data[part] for part in of_data)]
    return json.dumps([*parts, config["trainer"]["precision"], name], sort_keys=True)


def measure_update(config: Mapping[str, Any], device: torch.device) -> float:
    """Seconds of one update on random pixels: forward, L1, backward, Adam. Takes two updates or PATIENCE, or longer.

    Raises:
        ValueError: when the network cannot be built.
    """
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    layout = torch.channels_last if model["channels_last"] else torch.contiguous_format
    network = build_network(NetworkSpec(**model["network"]), data["scale"]).to(device).to(memory_format=layout)
    optimizer = torch.optim.Adam(network.parameters())
    hr = torch.rand(data["batch_size"], 3, data["patch_size"], data["patch_size"], device=device)
    lr = F.avg_pool2d(hr, data["scale"]).contiguous(memory_format=layout)
    dtype = AUTOCAST.get(config["trainer"]["precision"])

    def update() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            loss = F.l1_loss(network(lr), hr)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return _pace(update)


def _pace(update: Callable[[], None]) -> float:
    """Mean seconds of a call, without the first, unless that one has used up all patience."""
    start = time.perf_counter()
    ends = [start]
    while len(ends) <= STEPS + 1 and ends[-1] - start < PATIENCE:
        update()
        ends.append(time.perf_counter())
    warm = ends[1:] if len(ends) > 2 else ends
    return (warm[-1] - warm[0]) / (len(warm) - 1)


@dataclass(frozen=True)
class Estimate:
    """How long the missing stages will take.

    Attributes:
        seconds: until the last stage of known length is done.
        jobs: stages that run at the same time.
        unknown: number of stages whose length is unknown; counted as if they took no time.
    """

    seconds: float
    jobs: int
    unknown: int

    def describe(self) -> str:
        """`about 1 h 20 min on 2 jobs, and 3 stages of unknown length`."""
        known = f"about {format_seconds(self.seconds)} on {_count(self.jobs, 'job')}"
        unknown = f"{_count(self.unknown, 'stage')} of unknown length"
        if not self.unknown:
            return known
        return f"{known}, and {unknown}" if self.seconds else unknown


def estimate(stages: Sequence[Stage], seconds: Mapping[str, float | None], jobs: int) -> Estimate:
    """Plays through what the runner does: whenever a job is free, it takes the first stage whose needs are done.

    Args:
        stages: the missing ones, each after those that it needs; needs that are not among them are done.
        seconds: of each stage, by name; None or missing is unknown.
        jobs: stages that run at the same time.
    """
    position = {stage.name: number for number, stage in enumerate(stages)}
    order = TopologicalSorter(
        {number: [position[need] for need in stage.needs if need in position] for number, stage in enumerate(stages)}
    )
    order.prepare()
    ready: list[int] = []  # a heap, as the next
    running: list[tuple[float, int]] = []
    now = 0.0
    while order.is_active():
        for number in order.get_ready():
            heapq.heappush(ready, number)
        while ready and len(running) < jobs:
            number = heapq.heappop(ready)
            heapq.heappush(running, (now + (seconds.get(stages[number].name) or 0.0), number))
        now, done = heapq.heappop(running)
        order.done(done)
    return Estimate(now, jobs, sum(seconds.get(stage.name) is None for stage in stages))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
