"""Configuration errors in a line or two: the key that is wrong and the closest valid one."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from typing import NoReturn

from lightning.pytorch.cli import LightningArgumentParser

UNKNOWN_KEY = re.compile(r"does not accept option '([\w.]+)'|unrecognized arguments: --([\w.]+)")
UNKNOWN_OPTION = re.compile(r"given class_path '([\w.]+)':\s+Option '([\w.]+)' is not accepted")
UNKNOWN_CLASS = re.compile(r"Expected a dot import path string: (\w+)")
WRONG_VALUE = re.compile(r"Parser key \"([\w.]+)\":\s+(Expected [^\n]*)")
BOILERPLATE = re.compile(r"Does not validate against|Subtypes:|Errors:|<class 'NoneType'>$|Given value|^\s*$")
SHOWN_LINES = 6
CONFIGURABLE = ("datamodules", "lightning_modules", "lightning_modules.losses", "datamodules.augmentation")


class FriendlyParser(LightningArgumentParser):
    """LightningArgumentParser whose errors name the key and the closest valid one, without usage or union branches."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints what is wrong and exits with status 2."""
        sys.stderr.write(f"error: {explain(message, self.get_defaults().keys())}\n")
        sys.exit(2)


def explain(message: str, keys: Iterable[str]) -> str:
    """Jsonargparse's message, shortened.

    Args:
        message: as jsonargparse gives it, a page of it for a class's option.
        keys: all valid keys of the command.
    """
    if found := UNKNOWN_OPTION.search(message):
        path, option = found.groups()
        return f"{path.rpartition('.')[2]} has no option '{option}'{closest(option, _options_of(path))}"
    if found := UNKNOWN_KEY.search(message):
        key = found.group(1) or found.group(2)
        return f"there is no option '{key}'{closest(key, keys)}"
    if found := UNKNOWN_CLASS.search(message):
        name = found.group(1)
        return f"there is no class '{name}'{closest(name, _class_names())}; a class of your own needs its import path"
    if values := list(WRONG_VALUE.finditer(message)):
        key, expectation = values[-1].groups()
        return f"{key}: {expectation.replace('<class ', '').replace('>', '')}"
    lines = [line.strip(" -") for line in message.splitlines() if not BOILERPLATE.search(line)]
    return "\n  ".join(lines[:SHOWN_LINES])


def closest(name: str, names: Iterable[str]) -> str:
    """The question whether the nearest of `names` was meant; empty when nothing is near."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def _options_of(path: str) -> list[str]:
    module, _, name = path.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    return [option for base in cls.__mro__[:-1] for option in inspect.signature(base.__init__).parameters]


def _class_names() -> Iterator[str]:
    for package in CONFIGURABLE:
        yield from getattr(importlib.import_module(package), "__all__", ())
