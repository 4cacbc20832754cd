"""How long the rest of a comparison will take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from comparison.planning.prepare import Prepared
from comparison.planning.stages import Stage
from comparison.running.store import Store
from comparison.running.timing import Estimate, Timing, estimate


class Outlook:
    """Estimates from what finished stages took, and before there are any, from a few timed updates.

    Args:
        prepared: the plan.
        store: of finished stages.
        jobs: stages at a time.
    """

    def __init__(self, prepared: Prepared, store: Store, jobs: int) -> None:
        self._tasks = {task.stage.name: task for task in prepared.tasks}
        self._configs = prepared.configs
        self._store = store
        self._jobs = jobs

    def missing(self) -> Estimate:
        """Of all that is not done; trainings that no finished one is like are timed for some seconds."""
        timing = self._timing()
        missing = [task for task in self._tasks.values() if self._store.done(task.key) is None]
        seconds = {
            task.stage.name: timing.expected(
                task.signature, self._configs[task.stage.name] if task.stage.kind == "train" else None
            )
            for task in missing
        }
        return estimate([task.stage for task in missing], seconds, self._jobs)

    def seconds_left(self, waiting: Sequence[Stage], running: Mapping[str, float]) -> float | None:
        """While stages run, from finished ones alone: timing updates would disturb them. None where one is unknown."""
        timing = self._timing()
        stages = [*(self._tasks[name].stage for name in running), *waiting]
        seconds = {stage.name: timing.expected(self._tasks[stage.name].signature) for stage in stages}
        for name, spent in running.items():
            expected = seconds[name]
            seconds[name] = None if expected is None else max(0.0, expected - spent)
        left = estimate(stages, seconds, self._jobs)
        return None if left.unknown else left.seconds

    def _timing(self) -> Timing:
        return Timing([vars(record) for record in self._store.history()], self._store.memo / "updates.json")
