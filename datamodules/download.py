"""Public image sets by name: fetched from their official addresses, verified and laid out for the datamodules."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import ssl
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.request import Request, build_opener

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

TIMEOUT = 10.0
"""Seconds without an answer, or without a further byte, after which an attempt has failed."""

ATTEMPTS = 4
"""Attempts in a row that bring no byte before a download is given up."""

BACKOFF = 1.0
"""Seconds before the second attempt; doubled for each further one."""

_log = logging.getLogger(__name__)
_CHUNK = 1 << 16
_NETWORK_ERRORS = (URLError, TimeoutError, ConnectionError, ssl.SSLError, HTTPException)
_TRANSIENT_STATUS = frozenset({408, 425, 429})


class DownloadError(RuntimeError):
    """A set could not be fetched; the message says why, and how to put it in place by hand."""


class _FailedError(Exception):
    """The first half of that message."""


@dataclass(frozen=True)
class RemoteSet:
    """An archive that holds one or several image sets.

    Attributes:
        url: official address of the archive.
        size: of the archive, in bytes.
        sha256: of the archive, hexadecimal.
        rules: (pattern, template) pairs: an archive member whose whole name matches the regular expression becomes the
            file that the template names relative to the root; all other members are left out.
        layout: where images lie below the root, for people who put them there by hand.
        about: where the set comes from and on what terms.
    """

    url: str
    size: int
    sha256: str
    rules: tuple[tuple[str, str], ...]
    layout: str
    about: str

    @property
    def archive(self) -> str:
        """File name of the archive."""
        return self.url.rpartition("/")[2]


# The checksum and size come from github.com/YeapJieShen/single-image-super-resolution (tests/reference/
# fetch_urban100.py), which downloads from the same address and verifies them. github.com/Coloquinte/torchSR
# (torchsr/datasets/benchmarks.py) gives MD5 4ace41d33c2384b97e6b320cd0afd6ba for it and the layout inside.
_EDSR_BENCHMARK = RemoteSet(
    url="https://cv.snu.ac.kr/research/EDSR/benchmark.tar",
    size=250_112_000,
    sha256="80c21c333bbf6ceb5308b7243761f8284478274413a97b96f1d63e9045fd93e8",
    rules=(
        (r"benchmark/(Set5|Set14|Urban100)/HR/([\w-]+\.png)", r"\1/HR/\2"),
        (r"benchmark/(Set5|Set14|Urban100)/LR_bicubic/X([234])/([\w-]+)x\2\.png", r"\1/LRbicx\2/\3.png"),
        (r"benchmark/B100/HR/([\w-]+\.png)", r"BSD100/HR/\1"),
        (r"benchmark/B100/LR_bicubic/X([234])/([\w-]+)x\1\.png", r"BSD100/LRbicx\1/\2.png"),
    ),
    layout="HR/*.png, optionally LRbicx4/*.png with the same names",
    about="Set5, Set14, BSD100 and Urban100 with MATLAB-bicubic LR, as published with EDSR (Lim et al., CVPRW 2017); "
    "no licence is stated: for research only",
)

_DIV2K_ABOUT = "DIV2K (Agustsson and Timofte, CVPRW 2017), https://data.vision.ee.ethz.ch/cvl/DIV2K/; academic research"

SETS: dict[str, RemoteSet] = {
    "Set5": _EDSR_BENCHMARK,
    "Set14": _EDSR_BENCHMARK,
    "BSD100": _EDSR_BENCHMARK,
    "Urban100": _EDSR_BENCHMARK,
    # Addresses, sizes and checksums of both: TensorFlow Datasets, tensorflow_datasets/url_checksums/div2k.txt.
    "DIV2K_train_HR": RemoteSet(
        url="https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_train_HR.zip",
        size=3_530_603_713,
        sha256="9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335",
        rules=((r"DIV2K_train_HR/([\w-]+\.png)", r"DIV2K_train_HR/\1"),),
        layout="*.png",
        about=_DIV2K_ABOUT,
    ),
    "DIV2K_valid_HR": RemoteSet(
        url="https://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_valid_HR.zip",
        size=448_993_893,
        sha256="20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc",
        rules=((r"DIV2K_valid_HR/([\w-]+\.png)", r"DIV2K_valid_HR/\1"),),
        layout="*.png",
        about=_DIV2K_ABOUT,
    ),
    # Training and test photographs of BSDS500. Its validation photographs are left out: they are BSD100, which SR
    # networks are tested on. Size and checksum as verified by github.com/hasslelee/flipguard (scripts/
    # verify_external_source_replay.py) and by github.com/SharoonSharif/conv3x3-engine-zynq (eval); the size also by
    # github.com/tensorpack/tensorpack (tensorpack/dataflow/dataset/bsds500.py).
    "BSD400": RemoteSet(
        url="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/BSR/BSR_bsds500.tgz",
        size=70_763_455,
        sha256="97e49d31764f3912f0c4122707d53062ac9e783ba0f095e447a4d53c1a41af8e",
        rules=((r"BSR/BSDS500/data/images/(?:train|test)/([\w-]+\.jpg)", r"BSD400/\1"),),
        layout="*.jpg",
        about="BSDS500 (Arbelaez et al., PAMI 2011), "
        "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html; non-commercial research",
    ),
}


def fetch(name: str, root: Path, progress: bool = True) -> Path:
    """Downloads, verifies and unpacks a public set, unless it is already there.

    An interrupted download goes on where it stopped. An archive that lies in `root` already (put there by hand) is
    verified and used instead. Sets that come in the same archive are put in place together.

    Args:
        name: of the set, a key of SETS.
        root: folder of all sets; made where it is missing.
        progress: whether to show a progress bar on standard error.

    Returns:
        The folder of the set, `root / name`.

    Raises:
        ValueError: when no set of that name is known.
        DownloadError: when it cannot be had; the message names the address and the folder to fill by hand.
    """
    if name not in SETS:
        raise ValueError(f"unknown set {name!r}; known are {', '.join(SETS)}")
    remote, folder = SETS[name], root / name
    if _is_filled(folder):
        return folder
    root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(root / f".{remote.archive}.lock"):
            if not _is_filled(folder):  # another process may have done it while this one waited
                _log.info("%s: %s", name, remote.about)
                _install(name, remote, root, progress)
    except _FailedError as error:
        raise DownloadError(
            f"{name}: {error}; run again, or put {remote.archive} into {root}, "
            f"or the images into {folder}: {remote.layout}"
        ) from error
    return folder


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _install(name: str, remote: RemoteSet, root: Path, progress: bool) -> None:
    by_hand, part = root / remote.archive, root / f"{remote.archive}.part"
    if by_hand.is_file():
        _verify(by_hand, remote)
        _unpack(by_hand, name, remote, root)
        return
    with _progress_bar(remote, progress) as show:
        _download(remote, part, show)
    try:
        _verify(part, remote)
        _unpack(part, name, remote, root)
    except _FailedError:
        part.unlink()
        raise
    part.unlink()


@contextmanager
def _progress_bar(remote: RemoteSet, visible: bool) -> Iterator[Callable[[int], None]]:
    """Yields a function that takes the number of bytes had so far."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not visible) as bar:
        task = bar.add_task(remote.archive, total=remote.size)
        yield lambda done: bar.update(task, completed=done)


def _download(remote: RemoteSet, part: Path, show: Callable[[int], None]) -> None:
    """Brings `part` to its full size, in as many attempts as bring something new."""
    if _size(part) > remote.size:
        part.unlink()
    failures, most = 0, _size(part)
    while _size(part) != remote.size:
        reason = _attempt(remote, part, show)
        failures = 0 if _size(part) > most else failures + 1
        most = max(most, _size(part))
        if failures == ATTEMPTS:
            raise _FailedError(f"{remote.url} could not be downloaded ({reason})")
        if failures:
            time.sleep(BACKOFF * 2 ** (failures - 1))


def _attempt(remote: RemoteSet, part: Path, show: Callable[[int], None]) -> str:
    """Writes what one connection brings; returns why it ended."""
    try:
        _transfer(remote, part, _size(part), show)
    except HTTPError as error:
        reason = f"HTTP status {error.code} {error.reason}"
        if error.code < 500 and error.code not in _TRANSIENT_STATUS:
            raise _FailedError(f"{remote.url} could not be downloaded ({reason})") from error
        return reason
    except _NETWORK_ERRORS as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    return "the connection ended early"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _transfer(remote: RemoteSet, part: Path, done: int, show: Callable[[int], None]) -> None:
    """One attempt: asks for what comes after the first `done` bytes and writes what arrives."""
    headers = {"User-Agent": "srdistill"} | ({"Range": f"bytes={done}-"} if done else {})
    with build_opener().open(Request(remote.url, headers=headers), timeout=TIMEOUT) as response:  # noqa: S310 - ours
        start = _start_of(response, remote)
        if start not in (0, done):
            raise HTTPException(f"asked for bytes from {done} on, the server sent them from {start} on")
        with part.open("ab" if start else "wb") as file:
            _copy(response, file, start, remote.size, show)


def _start_of(response: HTTPResponse, remote: RemoteSet) -> int:
    """Where in the file the body of the response begins, once its total size is known to be the published one.

    Raises:
        _FailedError: when the server has another file, such as a web page that says it has moved.
    """
    start, total = 0, response.headers.get("Content-Length")
    if response.status == 206:  # a server that knows no ranges answers 200 and sends everything
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if found is None:
            raise HTTPException("the server sent a part of the file without saying which")
        start, total = int(found[1]), found[2]
    if total and total.isdecimal() and int(total) != remote.size:
        raise _FailedError(f"{remote.url} now gives {total} bytes instead of the published {remote.size}")
    return start


def _copy(source: IO[bytes], target: IO[bytes], done: int, size: int, show: Callable[[int], None]) -> None:
    show(done)
    while done < size and (chunk := source.read(min(_CHUNK, size - done))):
        target.write(chunk)
        done += len(chunk)
        show(done)


def _verify(archive: Path, remote: RemoteSet) -> None:
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != remote.sha256:
        raise _FailedError(
            f"{archive.name} is not the file published at {remote.url}: "
            f"its SHA-256 is {found}, expected {remote.sha256}"
        )


def _unpack(archive: Path, name: str, remote: RemoteSet, root: Path) -> None:
    """Puts the folders of the archive in place, each at once; folders with something in them stay as they are.

    Only regular files that a rule names are written, to the place that the rule names, so nothing in an archive can
    reach outside `root`.
    """
    temporary = root / f".{remote.archive}.unpacking"
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    try:
        for target, content in _members(archive, remote):
            path = temporary / target
            path.parent.mkdir(parents=True, exist_ok=True)
            with content, path.open("wb") as file:
                shutil.copyfileobj(content, file)
        if not _is_filled(temporary / name):
            raise _FailedError(f"{remote.archive} holds no member like {remote.rules[0][0]}")
        for folder in sorted(temporary.iterdir()):
            _put(folder, root / folder.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _put(source: Path, target: Path) -> None:
    if not _is_filled(target):
        if target.is_dir():
            target.rmdir()
        source.replace(target)


def _members(archive: Path, remote: RemoteSet) -> Iterator[tuple[str, IO[bytes]]]:
    """The files that the rules name: their paths below the root, and their contents."""
    if remote.archive.endswith(".zip"):
        with zipfile.ZipFile(archive) as bundle:
            for name in bundle.namelist():
                if target := _target(name, remote):
                    yield target, bundle.open(name)
        return
    with tarfile.open(archive) as tape:
        for member in tape:
            content = tape.extractfile(member) if member.isreg() else None
            if content is not None and (target := _target(member.name, remote)):
                yield target, content


def _target(member: str, remote: RemoteSet) -> str | None:
    for pattern, template in remote.rules:
        if found := re.fullmatch(pattern, member):
            return found.expand(template)
    return None
