"""Where weights come from."""

from __future__ import annotations

import time

import pytest

from datamodules.selection.features.weights import hub_file, reading


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


def test_reasons_are_one_short_line(tmp_path):
    message = rf"{tmp_path}: cannot be loaded as weights of this model \(one two x+ \.\.\.\)$"
    with pytest.raises(ValueError, match=message), reading(tmp_path):
        raise RuntimeError("one\n\ttwo " + "x" * 1000)
