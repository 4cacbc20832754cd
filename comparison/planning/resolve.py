"""What a stage's command line resolves to: defaults, files and options together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cli.app import options_parser
from cli.errors import message_for_users
from comparison.planning.plan import ROOT
from comparison.running.store import read_json
from datamodules.fingerprint import digest_file, write_atomic

CODE = ("cli", "callbacks", "datamodules", "lightning_modules")
"""Packages whose options and defaults a resolved configuration is made of."""

PLACES = ("run", "config", "ckpt_path")
"""Where a run writes, and the checkpoint that it reads, which the stage that wrote it stands for."""


class Resolver:
    """Resolves command lines, and remembers them in a file: parsing takes a fifth of a second each.

    Args:
        memo: JSON file of one plan that is written by `save`; made anew when missing or damaged.
    """

    def __init__(self, memo: Path) -> None:
        self._memo = memo
        self._known: dict[str, dict[str, Any]] = read_json(memo)
        self._used: dict[str, dict[str, Any]] = {}
        self._files: dict[Path, str] = {}

    def resolve(self, words: Sequence[str]) -> dict[str, Any]:
        """The configuration of a command line, its classes constructed once so that their checks have passed.

        Args:
            words: of a stage, with its outputs filled in (any text will do).

        Returns:
            As `config.yaml` of the run will hold it, without `PLACES`.

        Raises:
            ValueError: when it does not parse, or a class refuses its options.
        """
        words = _without_checkpoint(words)
        digest = digest_json([words, [self._file(path) for path in _files(words)], code_digest()])
        if digest not in self._used:
            self._used[digest] = self._known.get(digest) or _parse(words)
        return self._used[digest]

    def save(self) -> None:
        """Writes what was resolved since construction."""
        if self._used.keys() != self._known.keys():
            write_atomic(self._memo, json.dumps(self._used))

    def _file(self, path: Path) -> str:
        if path not in self._files:
            self._files[path] = digest_file(path)
        return self._files[path]


def _parse(words: Sequence[str]) -> dict[str, Any]:
    parser = _parser()
    namespace = parser.parse_args(list(words))
    dumped = parser.dump(namespace, format="json", skip_none=False, skip_validation=True)
    try:
        parser.instantiate_classes(namespace)
    except Exception as error:  # whatever a class refuses its options with
        raise ValueError(message_for_users(error) or str(error)) from error
    return {key: value for key, value in json.loads(dumped).items() if key not in PLACES}


@cache
def _parser() -> Any:
    return options_parser()


@cache
def code_digest(packages: tuple[str, ...] = CODE) -> str:
    """Tells, without reading it, whether code has changed: the framework's, and a user's in the working folder."""
    files = sorted(path for package in packages for path in (ROOT / package).rglob("*.*"))
    files += sorted(Path.cwd().glob("*.py"))
    stamps = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in files if path.suffix != ".pyc"]
    return digest_json([stamps, version("lightning"), version("jsonargparse")])


def _without_checkpoint(words: Sequence[str]) -> list[str]:
    """A test is otherwise told what its training was, which need not be parsed again."""
    at = list(words).index("--ckpt_path") if "--ckpt_path" in words else len(words)
    return [*words[:at], *words[at + 2 :]]


def _files(words: Sequence[str]) -> list[Path]:
    """Those given by --config."""
    return [Path(words[at + 1]) for at, word in enumerate(words) if word == "--config"]


def digest_json(value: Any) -> str:
    """SHA-256 of plain values, in hex; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
