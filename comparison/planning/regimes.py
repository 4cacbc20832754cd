"""Regimes by name: those of configs/compare/regimes, and variants of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cli.explain import closest
from cli.parser import RaisingParser
from comparison.planning.plan import REGIMES, Overrides, Regime, find_config


def shipped() -> list[str]:
    """Names of the regimes that come with the framework."""
    return sorted(path.stem for path in REGIMES.glob("*.yaml"))


def find_regime(name: str, regimes: Mapping[str, Regime], above: frozenset[str] = frozenset()) -> Regime:
    """A regime of a plan with its chain: its own, that of the regime it extends, or that of its name.

    Args:
        name: in the plan.
        regimes: as the plan has them.
        above: names of those that extend this one.

    Raises:
        ValueError: when there is no such regime, its file is none, or it extends itself.
    """
    given, above = regimes[name], above | {name}
    if given.distill:
        if given.extends:
            raise ValueError(f"regimes.{name}: it has both extends and distill; leave one of them out")
        return given
    source = given.extends or name
    if source == name or source not in regimes:
        return _extended(_of_file(source, name), given)
    if source in above:
        raise ValueError(f"regimes.{name}.extends: {source} extends {name}; one of them needs stages under distill")
    return _extended(find_regime(source, regimes, above), given)


def read_regime(path: Path) -> Regime:
    """A regime from its file.

    Raises:
        ValueError: when the file is none; the message names file and key.
    """
    parser = RaisingParser(allow_abbrev=False)
    parser.add_class_arguments(Regime)
    regime = Regime(**parser.instantiate_classes(parser.parse_path(path)).as_dict())
    if regime.extends:
        raise ValueError(f"{path}: extends is for the regimes of a plan; give the whole chain under distill")
    return regime


def _of_file(source: str, name: str) -> Regime:
    path = find_config(source, REGIMES)
    if path is None:
        raise ValueError(
            f"regimes.{name}: there is no regime '{source}'{closest(source, shipped())}; "
            f"known are {', '.join(shipped())}; or give the stages of your own under distill"
        )
    return read_regime(path)


def _extended(base: Regime, given: Regime) -> Regime:
    train = Overrides([*base.train.configs, *given.train.configs], {**base.train.set, **given.train.set})
    changed = {stage: {**base.set.get(stage, {}), **given.set.get(stage, {})} for stage in {**base.set, **given.set}}
    return replace(base, title=given.title or base.title, train=train, set=changed)
