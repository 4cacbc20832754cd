"""A stage with what is needed to run it."""

from __future__ import annotations

from dataclasses import dataclass

from comparison.planning.stages import Stage


@dataclass(frozen=True)
class Task:
    """A stage of a plan, its place known.

    Attributes:
        stage: to run.
        key: of it, see `comparison.planning.keys`.
        signature: see `Done`.
        updates: optimiser steps of a fit; None where they are unknown.
    """

    stage: Stage
    key: str
    signature: str
    updates: int | None = None
