"""The key of a stage: what it is told to do, and on what; a stage whose key is known to be done is not run again."""

from __future__ import annotations

import importlib.util
import re
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from comparison.planning.plan import ROOT
from comparison.planning.resolve import CODE, Resolver, digest_json
from comparison.planning.stages import Stage
from datamodules.benchmarks import Benchmarks
from datamodules.fingerprint import digest_file, digest_files
from datamodules.paths import find_folder

CLASS = re.compile(r"(?:[A-Za-z_]\w*\.)+[A-Za-z_]\w*")
"""How a configuration names a class: by its import path."""


class Keys:
    """Computes keys.

    A key is the SHA-256 of command, resolved configuration, content of the files and folders that the configuration
    names, and keys of the stages that it reads. What changes one changes those of all stages after it, and no others.
    Test sets are an input of `test` alone: another one trains nothing again. What may yet be downloaded stands for
    itself by its name, so that a key is the same before and after.

    Args:
        resolver: of command lines.
        memo: folder for what is remembered of files, see `digest_files`.

    Attributes:
        by_stage: keys by name of the stages seen so far.
        configs: their resolved configurations.
        problems: one line for each kind of command line that does not resolve.
    """

    def __init__(self, resolver: Resolver, memo: Path) -> None:
        self._resolver = resolver
        self._memo = memo
        self._contents: dict[str, str | None] = {}
        self.by_stage: dict[str, str] = {}
        self.configs: dict[str, dict[str, Any]] = {}
        self.problems: dict[str, str] = {}

    def add(self, stages: Sequence[Stage]) -> None:
        """Computes the keys of stages in order of dependency; those behind a problem are looked at, but get none."""
        for stage in stages:
            self._add(stage)

    def _add(self, stage: Stage) -> None:
        # Numbers, so that trainings on different sets resolve to the same, and that only once.
        stand_ins = {need: f"@{number}" for number, need in enumerate(stage.needs)}
        try:
            config = self._resolver.resolve(stage.with_outputs(stand_ins))
        except ValueError as error:
            self.problems.setdefault(str(error), stage.name)
            return
        self.configs[stage.name] = config
        if self.by_stage.keys() >= set(stage.needs):
            inputs, tests = self._inputs(config, stage.command == "test")
            needs = [self.by_stage[need] for need in stage.needs]
            self.by_stage[stage.name] = digest_json([stage.command, inputs, tests, needs])

    def _inputs(self, config: dict[str, Any], test: bool) -> tuple[Any, Any]:
        options = {key: value for key, value in config["data"]["init_args"].items() if key != "cache_dir"}
        sets = Benchmarks(**options.pop("benchmarks")) if "benchmarks" in options else None
        config = {**config, "data": {**config["data"], "init_args": options}}
        names = {*_texts([config["data"], config["model"]])}
        if options.get("download"):
            names.discard(options.get("root"))
        contents = {name: self._content(name) for name in names}
        known = {name: content for name, content in contents.items() if content is not None}
        return [config, known], self._tested(sets) if sets and test else None

    def _tested(self, sets: Benchmarks) -> list[Any]:
        contents = [None if sets.download else self._content(str(sets.folder / name)) for name in sets.sets]
        return [sets.sets, contents, sets.lr_files]

    def _content(self, name: str) -> str | None:
        """Digest of the file or folder or of the source of the user's class of that name, if there is one."""
        if name not in self._contents:
            self._contents[name] = self._digest(name)
        return self._contents[name]

    def _digest(self, name: str) -> str | None:
        try:
            path = Path(name).expanduser()
            if path.is_file():
                return digest_file(path)
            folder = find_folder(name) if name else None
        except (OSError, RuntimeError):  # a text too long for a name, or ~NOBODY
            return None
        if folder is None:
            source = _source(name)
            return None if source is None else digest_file(source)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        digests = digest_files(files, self._memo / f"{digest_json(str(folder))[:16]}.json")
        names = [file.relative_to(folder).as_posix() for file in files]
        return digest_json(dict(zip(names, digests, strict=True)))


def _source(name: str) -> Path | None:
    """The file of a class outside the framework and the installed packages, whose versions the reports tell."""
    module = name.rpartition(".")[0]
    if not CLASS.fullmatch(name):
        return None
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    file = None if spec is None or spec.origin is None else Path(spec.origin).resolve()
    if file is None or file.suffix != ".py" or "site-packages" in file.parts:
        return None
    ours = any((ROOT / package) in file.parents for package in CODE)
    return None if ours or Path(sysconfig.get_path("stdlib")).resolve() in file.parents else file


def _texts(value: Any) -> Iterator[str]:
    """All texts in a configuration: those that name files are found by looking."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
