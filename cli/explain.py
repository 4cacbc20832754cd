"""jsonargparse's messages in one line: which key is wrong, and the closest valid one.

jsonargparse reports a wrong option of a class as a tree of everything that its union types could have been. What is
wrong stands at one leaf; the keys above it say where.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Iterable

from lightning.pytorch.cli import LightningArgumentParser

from cli import COMMANDS

CLASSES = (
    "datamodules",
    "datamodules.augmentation",
    "datamodules.selection",
    "lightning_modules",
    "lightning_modules.losses",
    "torch.optim",
    "torch.optim.lr_scheduler",
    "lightning.pytorch.callbacks",
    "lightning.pytorch.loggers",
)
"""Packages whose classes a configuration names."""

KEY = re.compile(r'Parser key "([\w.]+)":')
UNKNOWN_OPTION = re.compile(
    r"(?:Group '(?P<group>[\w.]+)' )?(?:does not accept option|Option) '(?P<name>[^']+)'"
    r"|unrecognized arguments: --(?P<argument>[\w.+]+)"
)
MISSING = re.compile(rf"the following arguments are required: (?:(?:{'|'.join(COMMANDS)})\.)?([\w., ]+)")
UNKNOWN_CLASS = re.compile(r"Expected a dot import path string: (\S+)|module '[\w.]+' has no attribute '(\w+)'")
NO_KIND = r"a path but|a dot import|(?:a )?<class 'NoneType"
KIND = re.compile(rf"Expected (?!{NO_KIND})(?:an? )?(.*?)(?:\. Got value: .*)?$", re.MULTILINE)
GIVEN = re.compile(r"(?:Got|Given) value: (.*?)(?:\. Got value: .*)?$", re.MULTILINE)
BOILERPLATE = re.compile(
    r"Does not validate against|Subtypes:|Errors:|Given value|Problem with given class_path|Expected a path but"
)


def explain(message: str, keys: Iterable[str]) -> str:
    """A message of jsonargparse, shortened.

    Args:
        message: as jsonargparse gives it, one line or a page.
        keys: all valid keys of the command.
    """
    if found := UNKNOWN_OPTION.search(message):
        return _unknown_option(message, found, list(keys))
    for explanation in (_missing, _unknown_class, _wrong_value, _no_mapping):
        if told := explanation(message):
            return told
    return _shortened(message)


def closest(name: str, names: Iterable[str]) -> str:
    """The question whether the nearest of `names` was meant; empty when nothing is near."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def _unknown_option(message: str, found: re.Match[str], keys: list[str]) -> str:
    name = ".".join(filter(None, (found["group"], found["name"] or found["argument"])))
    place, owner = _place(message[: found.start()]), _owner(message, found)
    if name == "class_path":
        return f"{place}beside class_path stands init_args, and below it all options of the class"
    if owner is not None:
        options = [*_options_of(owner), "init_args"]
        return f"{place}{owner.rpartition('.')[2]} has no option '{name}'{_closest_key(name, options)}"
    if name.partition(".")[0] in COMMANDS:
        return f"there is no option '{name}'; a file's options stand at its top level, not below a command's name"
    return f"there is no option '{name}'{_closest_key(name, keys)}"


def _owner(message: str, found: re.Match[str]) -> str | None:
    """Import path of the class whose option is unknown; None for the command's own options."""
    before, after = message[: found.start()], message[found.end() :]
    if before.endswith("callable class: "):  # an optimiser or scheduler is named behind the problem
        return next(iter(re.findall(r"class_path='([\w.]+)'", after)), None)
    return next(reversed(re.findall(r"given class_path '([\w.]+)'", before)), None)


def _options_of(path: str) -> list[str]:
    module, _, name = path.rpartition(".")
    parser = LightningArgumentParser()
    parser.add_class_arguments(getattr(importlib.import_module(module), name), fail_untyped=False)
    return list(parser.get_defaults().keys())


def _closest_key(name: str, keys: list[str]) -> str:
    """Looks at the first part of a dotted name that is wrong, then for that part at the end of any key."""
    valid = ""
    for part in name.split("."):
        parts = {key.removeprefix(valid).split(".")[0] for key in keys if key.startswith(valid)}
        if part not in parts:
            return closest(part, parts).replace("'", f"'{valid}", 1) or _elsewhere(part, keys)
        valid += f"{part}."
    return ""


def _elsewhere(part: str, keys: list[str]) -> str:
    by_last_part = {key.rpartition(".")[2]: key for key in keys}
    near = difflib.get_close_matches(part, by_last_part, n=1, cutoff=0.8)
    return f"; did you mean '{by_last_part[near[0]]}'?" if near else ""


def _missing(message: str) -> str | None:
    found = MISSING.search(message)
    return f"{_place(message[: found.start()])}{found[1]} must be given" if found else None


def _unknown_class(message: str) -> str | None:
    found = UNKNOWN_CLASS.search(message)
    if found is None:
        return None
    name = found[1] or found[2]
    if not name[0].isupper() and set(map(_plain, KIND.findall(message))) - {"str"}:
        return None  # rather a wrong number than a class
    advice = "" if found[2] else "; a class of your own needs its import path"
    return f"{_place(message[: found.start()])}there is no class '{name}'{closest(name, _class_names())}{advice}"


def _class_names() -> list[str]:
    modules = [importlib.import_module(name) for name in CLASSES]
    return [name for module in modules for name, value in vars(module).items() if isinstance(value, type)]


def _wrong_value(message: str) -> str | None:
    *_, text = KEY.split(message)
    given = GIVEN.search(text)
    kinds = [_plain(kind) for kind in KIND.findall(text[: given.end()])] if given else []
    if given is None or not kinds:
        return None
    expected = " or ".join(kinds)
    return f"{_place(message)}got {given[1]}, expected {expected}{closest(given[1], re.split(', | or ', expected))}"


def _plain(kind: str) -> str:
    """`<class 'int'>` as `int`, `typing.Literal['a', 'b']` as `a, b`, and any sequence as a list."""
    kind = re.sub(r"<class '([\w.]+)'>", r"\1", kind)
    kind = re.sub(r"collections\.abc\.Sequence.*", "a list in brackets", kind)
    return re.sub(r"typing\.Literal\[(.*)\]", lambda found: found[1].replace("'", ""), kind)


def _no_mapping(message: str) -> str | None:
    """For a file that holds something else than options."""
    _, found, content = message.partition("Unexpected config: ")
    first = content.strip().partition("\n")[0] or "nothing"
    return f"expected options such as 'trainer: {{max_steps: 100}}', found {first}" if found else None


def _shortened(message: str) -> str:
    """The line behind the last key that says something."""
    *_, text = KEY.split(message)
    lines = [re.sub(r"^Type .* callable class: ", "", line.strip(" -")) for line in text.splitlines()]
    telling = [line for line in lines if line and not BOILERPLATE.match(line)]
    return _place(message) + (telling or lines)[0]


def _place(message: str) -> str:
    """The keys that lead to a problem, such as `model.optimizer: `."""
    place = ".".join(dict.fromkeys(KEY.findall(message)))
    return f"{place}: " if place else ""
