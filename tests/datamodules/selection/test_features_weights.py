"""Where weights come from."""

from __future__ import annotations

import time
from pickle import UnpicklingError

import pytest
import torch

from datamodules.weight_files import hub_file, hub_folder, reading


def test_a_file_is_downloaded_then_read_from_the_cache(hub, no_hub):
    (hub / "owner" / "name").mkdir(parents=True)
    (hub / "owner" / "name" / "second.bin").write_bytes(b"weights")
    assert hub_file("owner/name", ["first.bin", "second.bin"], "no").read_bytes() == b"weights"
    no_hub("http://127.0.0.1:9")
    assert hub_file("owner/name", ["first.bin", "second.bin"], "no").read_bytes() == b"weights"


def test_no_network_is_one_line_at_once(no_hub):
    start = time.monotonic()
    with pytest.raises(
        FileNotFoundError, match=r"cannot get a\.bin of owner/name .*; set pretrained to a file"
    ) as caught:
        hub_file("owner/name", ["a.bin"], "set pretrained to a file")
    assert time.monotonic() - start < 5  # the hub's own client tries for 23 s a file
    assert "\n" not in str(caught.value)


def test_a_repository_without_the_file_is_one_line(hub):
    (hub / "owner" / "name").mkdir(parents=True)
    for repo in ("owner/name", "owner/none"):
        with pytest.raises(FileNotFoundError, match=rf"cannot get a\.bin of {repo}.*; set it"):
            hub_file(repo, ["a.bin"], "set it")


def test_a_folder_is_what_the_patterns_name_then_read_from_the_cache(hub, no_hub):
    names = ("vae/config.json", "vae/weights.bin", "text/weights.bin", "README.md", "config.json")
    for name in names:
        (hub / "owner" / "name" / name).parent.mkdir(parents=True, exist_ok=True)
        (hub / "owner" / "name" / name).write_text(name)
    for _ in ("downloaded", "cached"):
        folder = hub_folder("owner/name", ["vae/*", "config.json"], "no")
        found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert found == {"vae/config.json", "vae/weights.bin", "config.json"}
        assert all((folder / name).read_text() == name for name in found)
        no_hub("http://127.0.0.1:9")


def test_a_cached_folder_that_lacks_a_pattern_is_completed(hub):
    for name in ("vae/config.json", "transformer/config.json"):
        (hub / "owner" / "name" / name).parent.mkdir(parents=True)
        (hub / "owner" / "name" / name).write_text(name)
    assert not (hub_folder("owner/name", ["vae/*"], "no") / "transformer").exists()
    both = hub_folder("owner/name", ["vae/*", "transformer/*"], "no")
    assert (both / "vae/config.json").is_file()
    assert (both / "transformer/config.json").is_file()


@pytest.mark.parametrize("offline", [False, True], ids=["no network", "HF_HUB_OFFLINE"])
def test_a_folder_that_cannot_be_had_is_one_line_at_once(no_hub, monkeypatch, offline):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    start = time.monotonic()
    with pytest.raises(
        FileNotFoundError, match=r"cannot get owner/name from the Hugging Face hub .*; name it"
    ) as caught:
        hub_folder("owner/name", ["vae/*"], "name it")
    assert time.monotonic() - start < 5
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("repo", ["owner/none", "/no/name", "own er/name"])
def test_what_is_no_repository_is_one_line(hub, repo):
    with pytest.raises(FileNotFoundError, match=rf"cannot get {repo} from .*; name it"):
        hub_folder(repo, ["vae/*"], "name it")
    with pytest.raises(FileNotFoundError, match=rf"cannot get a\.bin of {repo} from .*; name it"):
        hub_file(repo, ["a.bin"], "name it")


class Code:
    """Runs when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_unpickling_is_refused_however_a_library_wraps_the_refusal(tmp_path):
    """timm raises from it, diffusers while it handles it, after a second try of its own."""
    torch.save(Code(str(tmp_path / "ran")), tmp_path / "weights.bin")

    def wrapped():
        try:
            torch.load(tmp_path / "weights.bin", weights_only=True)
        except UnpicklingError:
            try:
                (tmp_path / "weights.bin").read_text("ascii")
            except ValueError:
                raise OSError("unable to load weights")  # noqa: B904  # as diffusers does

    with pytest.raises(ValueError, match="is not unpickled for safety"), reading(tmp_path / "weights.bin"):
        wrapped()
    assert not (tmp_path / "ran").exists()


def test_reasons_are_one_short_line(tmp_path):
    message = rf"{tmp_path}: cannot be loaded as weights of this model \(one two x+ \.\.\.\)$"
    with pytest.raises(ValueError, match=message), reading(tmp_path):
        raise RuntimeError("one\n\ttwo " + "x" * 1000)
