"""Downloads from a server on loopback; nothing here leaves the machine."""

from __future__ import annotations

import hashlib
import io
import re
import socket
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from datamodules import download
from datamodules.download import SETS, DownloadError, RemoteSet, fetch

FILLING = bytes(range(256)) * 1024  # makes the archive larger than one network buffer


class Handler(BaseHTTPRequestHandler):
    """Serves `server.content`; `server.mode` says how well."""

    def do_GET(self):
        server = self.server
        asked = self.headers.get("Range")
        server.ranges.append(asked)
        content = server.content
        start = int(asked.split("=")[1].rstrip("-")) if asked and server.mode != "no ranges" else 0
        if server.mode.isdecimal():
            self.send_error(int(server.mode))
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        cut = len(server.ranges) <= server.cuts
        self.wfile.write(content[start : len(content) // 2] if cut else content[start:])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    """A running server; BACKOFF is zero, and no proxy stands in between."""
    monkeypatch.setattr(download, "BACKOFF", 0.0)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.content, running.mode, running.cuts, running.ranges = b"", "ranges", 0, []
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def tar_of(members, links=()):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tape:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tape.addfile(entry, io.BytesIO(content))
        for name, target, kind in links:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, target
            tape.addfile(entry)
    return buffer.getvalue()


def zip_of(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as bundle:
        for name, content in members.items():
            bundle.writestr(name, content)
    return buffer.getvalue()


def offer(server, monkeypatch, content, archive="tiny.tar", **changes):
    """Makes the set "Tiny" known, whose archive the server offers."""
    server.content = content
    remote = RemoteSet(
        url=f"http://127.0.0.1:{server.server_port}/sets/{archive}",
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        rules=((r"Tiny/([\w-]+\.png)", r"Tiny/\1"),),
        layout="*.png",
        about="made for this test",
    )
    monkeypatch.setitem(SETS, "Tiny", replace(remote, **changes))


def files_below(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def visible(root):
    """Files below `root` but the lock, which stays."""
    return {name: content for name, content in files_below(root).items() if not name.endswith(".lock")}


MEMBERS = {"Tiny/a.png": b"first", "Tiny/b.png": FILLING, "Tiny/notes.txt": b"not wanted"}
INSTALLED = {"Tiny/a.png": b"first", "Tiny/b.png": FILLING}


class TestFetch:
    @pytest.mark.parametrize(("archive", "pack"), [("tiny.tar", tar_of), ("tiny.zip", zip_of)])
    def test_downloads_and_unpacks(self, server, monkeypatch, tmp_path, archive, pack):
        offer(server, monkeypatch, pack(MEMBERS), archive)
        assert fetch("Tiny", tmp_path / "new" / "root", progress=False) == tmp_path / "new" / "root" / "Tiny"
        assert visible(tmp_path / "new" / "root") == INSTALLED
        assert server.ranges == [None]

    def test_second_call_does_nothing(self, server, monkeypatch, tmp_path):
        offer(server, monkeypatch, tar_of(MEMBERS))
        fetch("Tiny", tmp_path, progress=False)
        before = files_below(tmp_path)
        fetch("Tiny", tmp_path, progress=False)
        assert files_below(tmp_path) == before
        assert len(server.ranges) == 1

    def test_images_put_there_by_hand_are_kept(self, server, monkeypatch, tmp_path):
        offer(server, monkeypatch, tar_of(MEMBERS))
        (tmp_path / "Tiny").mkdir()
        (tmp_path / "Tiny" / "mine.png").write_bytes(b"mine")
        fetch("Tiny", tmp_path, progress=False)
        assert files_below(tmp_path) == {"Tiny/mine.png": b"mine"}
        assert server.ranges == []

    def test_archive_put_there_by_hand_is_used_and_kept(self, server, monkeypatch, tmp_path):
        content = tar_of(MEMBERS)
        offer(server, monkeypatch, content)
        (tmp_path / "tiny.tar").write_bytes(content)
        (tmp_path / "Tiny").mkdir()  # an empty folder does not count
        fetch("Tiny", tmp_path, progress=False)
        assert visible(tmp_path) == INSTALLED | {"tiny.tar": content}
        assert server.ranges == []

    def test_two_at_once_download_once(self, server, monkeypatch, tmp_path):
        offer(server, monkeypatch, tar_of(MEMBERS))
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _: fetch("Tiny", tmp_path, progress=False), range(2)))
        assert visible(tmp_path) == INSTALLED
        assert len(server.ranges) == 1

    def test_progress_goes_to_standard_error(self, server, monkeypatch, tmp_path, capsys):
        offer(server, monkeypatch, tar_of(MEMBERS))
        fetch("Tiny", tmp_path, progress=True)
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "tiny.tar" in captured.err

    def test_unknown_name(self, tmp_path):
        with pytest.raises(ValueError, match="unknown set 'Set6'; known are Set5, Set14"):
            fetch("Set6", tmp_path)


class TestResume:
    def test_goes_on_after_a_cut(self, server, monkeypatch, tmp_path):
        content = tar_of(MEMBERS)
        offer(server, monkeypatch, content)
        server.cuts = 1
        fetch("Tiny", tmp_path, progress=False)
        assert server.ranges == [None, f"bytes={len(content) // 2}-"]
        assert visible(tmp_path) == INSTALLED

    def test_goes_on_after_an_earlier_run(self, server, monkeypatch, tmp_path):
        content = tar_of(MEMBERS)
        offer(server, monkeypatch, content)
        (tmp_path / "tiny.tar.part").write_bytes(content[:1000])
        fetch("Tiny", tmp_path, progress=False)
        assert server.ranges == ["bytes=1000-"]
        assert visible(tmp_path) == INSTALLED

    def test_starts_over_where_the_server_knows_no_ranges(self, server, monkeypatch, tmp_path):
        offer(server, monkeypatch, tar_of(MEMBERS))
        server.mode = "no ranges"
        (tmp_path / "tiny.tar.part").write_bytes(b"x" * 1000)
        fetch("Tiny", tmp_path, progress=False)
        assert server.ranges == ["bytes=1000-"]
        assert visible(tmp_path) == INSTALLED

    def test_too_long_a_part_is_thrown_away(self, server, monkeypatch, tmp_path):
        content = tar_of(MEMBERS)
        offer(server, monkeypatch, content)
        (tmp_path / "tiny.tar.part").write_bytes(content + b"more")
        fetch("Tiny", tmp_path, progress=False)
        assert server.ranges == [None]

    def test_gives_up_after_attempts_that_bring_nothing(self, server, monkeypatch, tmp_path):
        content = tar_of(MEMBERS)
        offer(server, monkeypatch, content)
        server.cuts, server.mode = 100, "no ranges"
        with pytest.raises(DownloadError, match="the connection ended early"):
            fetch("Tiny", tmp_path, progress=False)
        assert len(server.ranges) == 1 + download.ATTEMPTS  # the first brought half of it
        assert (tmp_path / "tiny.tar.part").stat().st_size == len(content) // 2  # kept for the next run


class TestFailure:
    def check_message(self, error, server, root):
        text = str(error.value)
        assert "\n" not in text
        assert text.startswith("Tiny: ")
        assert f"http://127.0.0.1:{server.server_port}/sets/tiny.tar" in text
        assert f"put tiny.tar into {root}, or the images into {root / 'Tiny'}: *.png" in text
        return text

    def test_no_connection(self, server, monkeypatch, tmp_path):
        offer(server, monkeypatch, b"")
        with socket.socket() as closed:  # bound, but nobody listens
            closed.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{closed.getsockname()[1]}/sets/tiny.tar"
            monkeypatch.setitem(SETS, "Tiny", replace(SETS["Tiny"], url=url, size=10))
            with pytest.raises(DownloadError) as error:
                fetch("Tiny", tmp_path, progress=False)
        assert re.search(rf"{url} could not be downloaded \(.*refused\)", str(error.value))
        assert f"put tiny.tar into {tmp_path}, or the images into {tmp_path / 'Tiny'}: *.png" in str(error.value)

    def test_silent_server(self, server, monkeypatch, tmp_path):
        offer(server, monkeypatch, b"")
        monkeypatch.setattr(download, "TIMEOUT", 0.1)
        with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/sets/tiny.tar"
            monkeypatch.setitem(SETS, "Tiny", replace(SETS["Tiny"], url=url, size=10))
            with pytest.raises(DownloadError, match="timed out"):
                fetch("Tiny", tmp_path, progress=False)

    def test_missing_file_is_not_asked_for_twice(self, server, monkeypatch, tmp_path):
        offer(server, monkeypatch, tar_of(MEMBERS))
        server.mode = "404"
        with pytest.raises(DownloadError) as error:
            fetch("Tiny", tmp_path, progress=False)
        assert "HTTP status 404 Not Found" in self.check_message(error, server, tmp_path)
        assert len(server.ranges) == 1

    def test_overloaded_server_is_asked_again(self, server, monkeypatch, tmp_path):
        offer(server, monkeypatch, tar_of(MEMBERS))
        server.mode = "503"
        with pytest.raises(DownloadError) as error:
            fetch("Tiny", tmp_path, progress=False)
        assert "HTTP status 503" in self.check_message(error, server, tmp_path)
        assert len(server.ranges) == download.ATTEMPTS

    def test_wrong_checksum_leaves_nothing(self, server, monkeypatch, tmp_path):
        content = tar_of(MEMBERS)
        offer(server, monkeypatch, content, sha256="0" * 64)
        with pytest.raises(DownloadError) as error:
            fetch("Tiny", tmp_path, progress=False)
        text = self.check_message(error, server, tmp_path)
        assert f"its SHA-256 is {hashlib.sha256(content).hexdigest()}, expected {'0' * 64}" in text
        assert visible(tmp_path) == {}
        assert not (tmp_path / "Tiny").exists()

    def test_wrong_archive_put_there_by_hand_is_kept(self, server, monkeypatch, tmp_path):
        offer(server, monkeypatch, tar_of(MEMBERS))
        (tmp_path / "tiny.tar").write_bytes(b"another file")
        with pytest.raises(DownloadError, match=r"tiny\.tar is not the file published at"):
            fetch("Tiny", tmp_path, progress=False)
        assert visible(tmp_path) == {"tiny.tar": b"another file"}

    def test_wrong_size_is_seen_before_the_download(self, server, monkeypatch, tmp_path):
        offer(server, monkeypatch, tar_of(MEMBERS))
        server.content = b"<html>This page has moved</html>"
        with pytest.raises(DownloadError) as error:
            fetch("Tiny", tmp_path, progress=False)
        assert "now gives 32 bytes instead of" in self.check_message(error, server, tmp_path)
        assert visible(tmp_path) == {}

    def test_archive_without_the_set(self, server, monkeypatch, tmp_path):
        offer(server, monkeypatch, tar_of({"Other/a.png": b"first"}))
        with pytest.raises(DownloadError, match="holds no member like"):
            fetch("Tiny", tmp_path, progress=False)
        assert visible(tmp_path) == {}


class TestUnsafeArchives:
    NAMES = ("../evil.png", "/evil.png", "Tiny/../../evil.png", "Tiny/..\\evil.png", "C:\\evil.png")

    @pytest.mark.parametrize(("archive", "pack"), [("tiny.tar", tar_of), ("tiny.zip", zip_of)])
    def test_names_that_reach_outside_are_not_written(self, server, monkeypatch, tmp_path, archive, pack):
        members = dict.fromkeys(self.NAMES, b"evil") | MEMBERS
        offer(server, monkeypatch, pack(members), archive)
        fetch("Tiny", tmp_path / "root", progress=False)
        assert visible(tmp_path) == {f"root/{name}": content for name, content in INSTALLED.items()}

    def test_links_are_not_written(self, server, monkeypatch, tmp_path):
        (tmp_path / "secret").write_bytes(b"secret")
        links = [
            ("Tiny/soft.png", str(tmp_path / "secret"), tarfile.SYMTYPE),
            ("Tiny/hard.png", "../secret", tarfile.LNKTYPE),
            ("Tiny/pipe.png", "", tarfile.FIFOTYPE),
        ]
        offer(server, monkeypatch, tar_of(MEMBERS, links))
        fetch("Tiny", tmp_path / "root", progress=False)
        assert sorted(path.name for path in (tmp_path / "root" / "Tiny").iterdir()) == ["a.png", "b.png"]


class TestPublishedSets:
    def serve(self, server, monkeypatch, name, content):
        """The published set, but for its address, size and checksum."""
        address = f"http://127.0.0.1:{server.server_port}/{SETS[name].archive}"
        changed = replace(SETS[name], url=address, size=len(content), sha256=hashlib.sha256(content).hexdigest())
        monkeypatch.setitem(SETS, name, changed)
        server.content = content

    @pytest.mark.parametrize("name", ["Set5", "Set14", "BSD100", "Urban100"])
    def test_benchmark_layout(self, server, monkeypatch, tmp_path, name):
        members = {}  # as in github.com/Coloquinte/torchSR, torchsr/datasets/benchmarks.py
        for theirs in ("Set5", "Set14", "B100", "Urban100"):
            members[f"benchmark/{theirs}/HR/img_001.png"] = f"{theirs} HR".encode()
            for scale in (2, 3, 4):
                members[f"benchmark/{theirs}/LR_bicubic/X{scale}/img_001x{scale}.png"] = f"{theirs} {scale}".encode()
        self.serve(server, monkeypatch, name, tar_of(members | {"benchmark/Set5/HR/._img_001.png": b"clutter"}))
        expected = {}
        for theirs, ours in {"Set5": "Set5", "Set14": "Set14", "B100": "BSD100", "Urban100": "Urban100"}.items():
            expected[f"{ours}/HR/img_001.png"] = f"{theirs} HR".encode()
            for scale in (2, 3, 4):
                expected[f"{ours}/LRbicx{scale}/img_001.png"] = f"{theirs} {scale}".encode()
        assert fetch(name, tmp_path, progress=False) == tmp_path / name
        assert visible(tmp_path) == expected

    def test_div2k_layout(self, server, monkeypatch, tmp_path):
        for name, image in {"DIV2K_train_HR": "0001.png", "DIV2K_valid_HR": "0801.png"}.items():
            self.serve(server, monkeypatch, name, zip_of({f"{name}/": b"", f"{name}/{image}": b"pixels"}))
            assert visible(fetch(name, tmp_path, progress=False)) == {image: b"pixels"}

    def test_bsd400_leaves_out_the_photographs_of_bsd100(self, server, monkeypatch, tmp_path):
        images = "BSR/BSDS500/data/images"
        members = {f"{images}/train/100075.jpg": b"1", f"{images}/test/100007.jpg": b"2"}
        members |= {f"{images}/val/101085.jpg": b"3", f"{images}/train/Thumbs.db": b"", "BSR/bench/x.jpg": b""}
        self.serve(server, monkeypatch, "BSD400", tar_of(members))
        assert visible(fetch("BSD400", tmp_path, progress=False)) == {"100075.jpg": b"1", "100007.jpg": b"2"}

    @pytest.mark.parametrize("name", SETS)
    def test_entries_are_well_formed(self, name):
        remote = SETS[name]
        assert remote.url.startswith("https://")
        assert re.fullmatch(r"[\w-]+\.(zip|tar|tgz)", remote.archive)
        assert re.fullmatch("[0-9a-f]{64}", remote.sha256)
        assert remote.size > 10**7
