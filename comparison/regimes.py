"""Regimes by name: those of configs/compare/regimes, and variants of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cli.explain import closest
from cli.parser import RaisingParser
from comparison.plan import REGIMES, Overrides, Regime, find_config


def shipped() -> list[str]:
    """Names of the regimes that come with the framework."""
    return sorted(path.stem for path in REGIMES.glob("*.yaml"))


def find_regime(name: str, given: Regime) -> Regime:
    """A regime of a plan with its chain: its own, that of the regime it extends, or that of its name.

    Args:
        name: in the plan.
        given: as the plan has it.

    Raises:
        ValueError: when there is no such regime, or its file is none.
    """
    if given.distill:
        return given
    source = given.extends or name
    path = find_config(source, REGIMES)
    if path is None:
        raise ValueError(
            f"regimes.{name}: there is no regime '{source}'{closest(source, shipped())}; "
            f"known are {', '.join(shipped())}; or give the stages of your own under distill"
        )
    return _extended(read_regime(path), given)


def read_regime(path: Path) -> Regime:
    """A regime from its file.

    Raises:
        ValueError: when the file is none; the message names file and key.
    """
    parser = RaisingParser(allow_abbrev=False)
    parser.add_class_arguments(Regime)
    return Regime(**parser.instantiate_classes(parser.parse_path(path)).as_dict())


def _extended(base: Regime, given: Regime) -> Regime:
    train = Overrides([*base.train.configs, *given.train.configs], {**base.train.set, **given.train.set})
    changed = {stage: {**base.set.get(stage, {}), **given.set.get(stage, {})} for stage in {**base.set, **given.set}}
    return replace(base, title=given.title or base.title, train=train, set=changed)
