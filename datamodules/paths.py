"""Where photographs, benchmark sets and caches lie."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EMBEDDED = "embedded"
"""Name of the data root that needs no files: photographs inside the scikit-image and scikit-learn wheels."""

EMBEDDED_TRAIN = (
    "skimage/data/coffee.png",
    "skimage/data/hubble_deep_field.jpg",
    "skimage/data/motorcycle_right.png",  # without its stereo twin, which validation could meet
    "skimage/data/retina.jpg",
    "skimage/data/rocket.jpg",
    "skimage/data/astronaut.png",
    "sklearn/datasets/images/flower.jpg",
)
EMBEDDED_TEST = ("skimage/data/chelsea.png", "sklearn/datasets/images/china.jpg")


def embedded_photographs(names: tuple[str, ...]) -> list[Path]:
    """Paths of photographs that installed wheels carry, found without importing the packages.

    Raises:
        FileNotFoundError: when a package no longer ships one of them.
    """
    paths = []
    for name in names:
        package, _, rest = name.partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise FileNotFoundError(
                f"{package} is not installed; it carries the embedded photographs: pip install -e ."
            )
        path = Path(spec.submodule_search_locations[0]) / rest
        if not path.is_file():
            raise FileNotFoundError(f"{package} carries no {rest}; set --data.root to a folder of photographs instead")
        paths.append(path)
    return paths


def data_folder() -> Path:
    """Where named sets lie and are fetched to: $SRDISTILL_DATA, else `data` in the current folder."""
    return Path(os.environ.get("SRDISTILL_DATA") or "data").expanduser()


def resolve_folder(name: str, key: str) -> Path:
    """A folder as given, or in the data folder, so that one YAML serves machines that keep data in other places.

    Args:
        name: absolute or relative path.
        key: configuration key that named it, for the error.

    Raises:
        FileNotFoundError: when neither exists.
    """
    folder = find_folder(name)
    if folder is None:
        looked = " or ".join(dict.fromkeys(str(path) for path in _candidates(name)))
        raise FileNotFoundError(
            f"{key}: no folder {looked}; name an existing folder of images, "
            "or set SRDISTILL_DATA to the folder it lies in"
        )
    return folder


def find_folder(name: str) -> Path | None:
    """The absolute path of a folder as `resolve_folder` finds it, or None."""
    return next((path.absolute() for path in _candidates(name) if path.is_dir()), None)


def _candidates(name: str) -> list[Path]:
    return [Path(name).expanduser(), data_folder() / name]


@contextmanager
def cache_errors(folder: Path, what: str) -> Iterator[None]:
    """Has errors of the block say what could not be kept in a folder of the cache, and how to mend it."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"cannot keep {what} in {folder} ({error.strerror or error}); "
            "name a writable folder with enough space as data.cache_dir or in SRDISTILL_CACHE"
        ) from error


def cache_folder(given: str | None) -> Path:
    """`given`, else $SRDISTILL_CACHE, else the user's cache folder."""
    if given or os.environ.get("SRDISTILL_CACHE"):
        return Path(given or os.environ["SRDISTILL_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "srdistill"
