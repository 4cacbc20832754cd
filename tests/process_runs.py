"""The same run by two processes and by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tests.test_resume import last


def two_and_one(fit: Callable[..., Any], arguments: Sequence[str], within: float) -> tuple[Any, Any]:
    """Runs of two processes and of one with twice the batch, whose trained weights agree.

    Args:
        fit: of a module with EMA, whose state holds the weights under training.
        arguments: of both; four patches in a batch.
        within: largest difference of a weight; training moves some by more than 0.01.
    """
    two = fit(*arguments, "--trainer.strategy", "ddp_fork", "--trainer.devices", "2")
    one = fit(*arguments, "--data.init_args.batch_size", "8", "--run.experiment", "one")
    start = fit(*arguments, "--run.experiment", "start", "--trainer.max_steps", "1")
    trained, expected, before = (last(cli)["callbacks"]["EMA"]["trained"] for cli in (two, one, start))
    assert max((expected[name] - before[name]).abs().max().item() for name in expected) > 1e-2
    assert max((trained[name] - expected[name]).abs().max().item() for name in expected) < within
    return two, one
