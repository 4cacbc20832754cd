"""Files of trained weights: on this machine, or from the Hugging Face hub, and never unpickled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from pickle import UnpicklingError

TIMEOUT_SECONDS = 10
LONGEST_REASON = 200
"""Characters: torch lists every name of a state dict that does not fit."""


def hub_file(repo: str, names: Sequence[str], instead: str) -> Path:
    """A file of a repository on the hub: as cached on this machine, else downloaded.

    The hub is asked once, with a timeout, before any download: without a network its own client tries for most of a
    minute.

    Args:
        repo: owner/name.
        names: of the file, the preferred one first.
        instead: what to set when it cannot be had, for the error.

    Raises:
        FileNotFoundError: when it is neither cached nor to be had.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    for name in names:
        with suppress(HFValidationError, LocalEntryNotFoundError):
            return Path(hf_hub_download(repo, name, local_files_only=True))
    with _asking(f"{names[0]} of {repo}", instead):
        there = _files(repo)
        name = next((name for name in names if name in there), names[0])
        return Path(hf_hub_download(repo, name))


def hub_folder(repo: str, patterns: Sequence[str], instead: str) -> Path:
    """Some files of a repository on the hub, as `hub_file` gets one; those that are cached are taken to be all.

    Args:
        repo: owner/name.
        patterns: of the files' names, such as "vae/*".
        instead: what to set when they cannot be had, for the error.

    Raises:
        FileNotFoundError: when they are neither cached nor to be had.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    with suppress(HFValidationError, LocalEntryNotFoundError):
        cached = Path(snapshot_download(repo, allow_patterns=list(patterns), local_files_only=True))
        if all(any(cached.glob(pattern)) for pattern in patterns):
            return cached
    with _asking(repo, instead):
        _files(repo)
        return Path(snapshot_download(repo, allow_patterns=list(patterns)))


def _files(repo: str) -> set[str]:
    """What the hub says the repository holds; answers or fails within the timeout."""
    from huggingface_hub import HfApi

    return {file.rfilename for file in HfApi().model_info(repo, timeout=TIMEOUT_SECONDS).siblings or []}


@contextmanager
def _asking(what: str, instead: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of requests or of httpx, by the version of huggingface_hub
        raise FileNotFoundError(
            f"cannot get {what} from the Hugging Face hub ({_one_line(error)}); {instead}"
        ) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what goes wrong while the block loads a file of weights into one line.

    Raises:
        ValueError: when the file is damaged, holds more than tensors, or does not fit the model.
    """
    try:
        yield
    except Exception as error:  # each format has errors of its own; timm and diffusers wrap those of unpickling
        if any(isinstance(one, UnpicklingError) for one in _behind(error)):
            raise ValueError(
                f"{path}: holds more than tensors, or is damaged, and is not unpickled for safety; "
                "save its state dict as .safetensors"
            ) from error
        raise ValueError(f"{path}: cannot be loaded as weights of this model ({_one_line(error)})") from error


def _behind(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _one_line(error: Exception) -> str:
    line = " ".join(str(error).split()) or type(error).__name__
    return line if len(line) <= LONGEST_REASON else line[:LONGEST_REASON] + " ..."
