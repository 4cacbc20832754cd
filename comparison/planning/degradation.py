"""The degradation of a resolved configuration, to open test sets as its runs do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from jsonargparse import ArgumentParser

from datamodules.degradation import Chain, Degradation
from datamodules.degraded import chain_to


def degradation_of(options: Mapping[str, Any]) -> Chain | None:
    """What makes LR of HR; None for the exact bicubic reduction.

    Args:
        options: of the data, resolved, as in a run's `config.yaml`.
    """
    return _chain(options["scale"], json.dumps(options.get("degradation") or []))


@cache
def _chain(scale: int, degradation: str) -> Chain | None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--degradation", type=list[Degradation])
    given = parser.parse_object({"degradation": json.loads(degradation)})
    return chain_to(scale, parser.instantiate_classes(given).degradation)
