"""The store against direct decoding, and what makes it be built: content alone, by one process, completely."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules import fingerprint, patch_store
from datamodules.bicubic import downscale
from datamodules.image_files import find_images
from datamodules.patch_store import PatchStore, Source, open_store

FORK = multiprocessing.get_context("fork") if "fork" in multiprocessing.get_all_start_methods() else None
needs_fork = pytest.mark.skipif(FORK is None, reason="processes are forked here")


def sources_in(root: Path) -> list[Source]:
    return [Source(path.relative_to(root).as_posix(), path) for path in find_images(root).images]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders of the stores that were built, in order."""
    built: list[Path] = []
    original = patch_store._build

    def recorded(sources, index, folder):
        built.append(folder)
        original(sources, index, folder)

    monkeypatch.setattr(patch_store, "_build", recorded)
    return built


@pytest.fixture
def with_lr(photographs) -> Callable[..., list[Source]]:
    """`with_lr("a.png", size=(24, 32))`: photographs of 96 x 128 pixels and unrelated LR files of that size."""

    def make(*names: str, size: tuple[int, int] = (24, 32)) -> list[Source]:
        sources = sources_in(photographs(*names, size=(96, 128)))
        low = photographs(*names, size=size, folder="low", first=90)
        return [Source(source.name, source.path, low / source.name) for source in sources]

    return make


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_pixels_are_those_of_the_file_and_its_bicubic(photographs, cache, scale):
    root = photographs("b.png", "a.bmp", size=(50, 67))
    store = open_store(sources_in(root), scale, cache)
    assert store.index.names == ["a.bmp", "b.png"]
    for image, name in enumerate(store.index.names):
        decoded = Image.open(root / name)
        height, width = 50 - 50 % scale, 67 - 67 % scale
        assert np.array_equal(store.hr(image), np.asarray(decoded)[:height, :width])
        # Pillow's bicubic has a = -0.5 and widens the kernel too, but treats borders otherwise and sums in fixed point.
        cropped = decoded.crop((0, 0, width, height))
        reference = np.asarray(cropped.resize((width // scale, height // scale), Image.Resampling.BICUBIC)).astype(int)
        assert np.abs(reference - store.lr(image))[3:-3, 3:-3].max() <= 2
        exact = downscale(torch.from_numpy(store.hr(image).copy()).permute(2, 0, 1), scale).permute(1, 2, 0)
        assert np.array_equal(store.lr(image), exact)


def test_an_untouched_or_touched_folder_is_not_built_again(photographs, cache, builds):
    root = photographs("a.png", "b.png")
    first = open_store(sources_in(root), 4, cache)
    os.utime(root / "a.png", (1, 1))
    assert open_store(sources_in(root), 4, cache).index.fingerprint == first.index.fingerprint
    assert len(builds) == 1


def test_another_root_with_the_same_content_shares_the_store(photographs, cache, builds):
    root = photographs("a.png", "sub/b.png")
    shutil.copytree(root, root.with_name("elsewhere"))
    first, second = (open_store(sources_in(where), 4, cache) for where in (root, root.with_name("elsewhere")))
    assert first.folder == second.folder
    assert len(builds) == 1


def _edit(root: Path) -> None:
    pixels = np.array(Image.open(root / "a.bmp"))
    pixels[0, 0, 0] ^= 1
    before = (root / "a.bmp").stat()
    Image.fromarray(pixels).save(root / "replacement.bmp")
    os.utime(root / "replacement.bmp", ns=(before.st_atime_ns, before.st_mtime_ns))
    (root / "replacement.bmp").replace(root / "a.bmp")  # same name, size and time: content alone differs


@pytest.mark.parametrize(
    "change",
    [
        _edit,
        lambda root: shutil.copy(root / "a.bmp", root / "c.bmp"),
        lambda root: (root / "b.bmp").unlink(),
        lambda root: (root / "b.bmp").rename(root / "c.bmp"),
    ],
    ids=["edited", "added", "removed", "renamed"],
)
def test_changed_content_is_built_again(photographs, cache, builds, change: Callable[[Path], object]):
    root = photographs("a.bmp", "b.bmp")
    first = open_store(sources_in(root), 4, cache)
    change(root)
    second = open_store(sources_in(root), 4, cache)
    assert len(builds) == 2
    assert first.index.fingerprint != second.index.fingerprint
    assert np.array_equal(second.hr(0), np.asarray(Image.open(root / "a.bmp")))


def test_each_scale_has_its_store(photographs, cache, builds):
    sources = sources_in(photographs("a.png"))
    assert [open_store(sources, scale, cache).lr(0).shape for scale in (4, 2, 4)] == [
        (12, 16, 3),
        (24, 32, 3),
        (12, 16, 3),
    ]
    assert len(builds) == 2


def test_unchanged_files_are_not_read_again(photographs, cache, monkeypatch):
    sources = sources_in(photographs("a.png", "b.png"))
    open_store(sources, 4, cache)
    monkeypatch.setattr(fingerprint, "digest_file", lambda path: pytest.fail(f"{path} was read"))
    open_store(sources, 4, cache)


@pytest.mark.parametrize("damage", ["", "[1, 2]", '{"a": 1}', "{"])
def test_damaged_memo_is_made_anew(photographs, cache, damage):
    sources = sources_in(photographs("a.png"))
    digests = open_store(sources, 4, cache).index.fingerprint
    (memo,) = (cache / "digests").iterdir()
    memo.write_text(damage)
    assert open_store(sources, 4, cache).index.fingerprint == digests
    assert json.loads(memo.read_text())


def test_files_left_out_are_named_with_reasons(photographs, cache):
    root = photographs("good.png", "cut.png", "cut.jpg")
    for name in ("cut.png", "cut.jpg"):
        (root / name).write_bytes((root / name).read_bytes()[:-300])
    (root / "text.png").write_text("not pixels")
    (root / "empty.jpg").touch()
    Image.new("RGB", (40, 3)).save(root / "flat.png")
    (root / "gone.png").symlink_to(root / "nowhere.png")
    store = open_store(sources_in(root), 4, cache)
    assert store.index.names == ["good.png"]
    reasons = {file.name: file.reason for file in store.index.skipped}
    assert set(reasons) == {"cut.jpg", "cut.png", "empty.jpg", "flat.png", "gone.png", "text.png"}
    assert reasons["flat.png"] == "too small: 40 x 3 pixels"
    assert "no such file" in reasons["gone.png"]
    assert "empty" in reasons["empty.jpg"]
    assert "truncated" in reasons["cut.png"]
    assert "not an image" in reasons["text.png"]


def test_a_file_that_could_not_be_read_is_tried_again(photographs, cache, monkeypatch):
    root = photographs("a.png", "b.png")
    hidden = root / "b.png"
    with monkeypatch.context() as patch:  # root may read every file, so a permission cannot be taken away here
        patch.setattr(fingerprint, "digest_file", lambda path: "unreadable" if path == hidden else str(path))
        patch.setattr(patch_store, "_decode", _fail_on(hidden))
        assert open_store(sources_in(root), 4, cache).index.names == ["a.png"]
    assert open_store(sources_in(root), 4, cache).index.names == ["a.png", "b.png"]


def _fail_on(path: Path):
    decode = patch_store._decode
    return lambda source, scale: "permission denied" if source.path == path else decode(source, scale)


def test_installing_an_optional_decoder_makes_another_store(photographs, cache, builds, monkeypatch):
    sources = sources_in(photographs("a.png"))
    for installed in (None, object(), object()):
        monkeypatch.setattr(patch_store, "find_spec", lambda name, found=installed: found)
        open_store(sources, 4, cache)
    assert len(builds) == 2


def test_a_given_lr_is_stored_as_it_is(with_lr, cache):
    sources = with_lr("a.png", "b.png")
    mixed = open_store([sources[0], Source("b.png", sources[1].path)], 4, cache)
    for image, path in ((mixed.hr(0), sources[0].path), (mixed.lr(0), sources[0].lr), (mixed.hr(1), sources[1].path)):
        assert np.array_equal(image, np.asarray(Image.open(path)))
    bicubic = downscale(torch.from_numpy(mixed.hr(1).copy()).permute(2, 0, 1), 4).permute(1, 2, 0)
    assert np.array_equal(mixed.lr(1), bicubic)


def test_content_of_lr_files_makes_another_store(with_lr, photographs, cache, builds):
    sources = with_lr("a.bmp", "b.bmp")
    plain = [Source(source.name, source.path) for source in sources]
    first = [open_store(some, 4, cache).index.fingerprint for some in (plain, sources, [sources[0], plain[1]])]
    photographs("a.bmp", size=(24, 32), folder="low", first=7)
    assert len({*first, open_store(sources, 4, cache).index.fingerprint}) == 4
    assert open_store(plain, 4, cache).index.fingerprint == first[0]
    assert len(builds) == 4


def test_fingerprint_without_lr_files_has_not_changed(photographs, cache):
    """Recomputed by its definition, so that stores and records of before stay valid."""
    sources = sources_in(photographs("a.png", "b.png"))
    content = [[source.name, hashlib.sha256(source.path.read_bytes()).hexdigest()] for source in sources]
    expected = hashlib.sha256(json.dumps([1, 4, content]).encode()).hexdigest()
    assert open_store(sources, 4, cache).index.fingerprint == expected


def test_lr_that_cannot_be_used_is_named_with_reasons(with_lr, cache):
    sources = with_lr("a.png", "b.png", "c.png")
    Image.new("RGB", (33, 24)).save(sources[0].lr)
    sources[1].lr.write_text("not pixels")
    store = open_store(sources, 4, cache)
    assert store.index.names == ["c.png"]
    reasons = [file.reason for file in store.index.skipped]
    assert reasons[0] == "LR file has 33 x 24 pixels, expected 32 x 24"
    assert reasons[1].startswith("LR file b.png: not an image")


@needs_fork
def test_two_processes_at_once_build_once_and_read_the_same(photographs, cache, tmp_path, monkeypatch):
    sources = sources_in(photographs(*(f"{number}.png" for number in range(6))))
    original = patch_store._build

    def slow_build(*arguments):
        (tmp_path / f"built-by-{os.getpid()}").touch()
        time.sleep(0.3)  # the other one arrives meanwhile
        original(*arguments)

    monkeypatch.setattr(patch_store, "_build", slow_build)

    def read(results):
        store = open_store(sources, 4, cache)
        results.put([store.hr(image).tobytes() + store.lr(image).tobytes() for image in range(len(store))])

    results = FORK.SimpleQueue()
    processes = [FORK.Process(target=read, args=(results,)) for _ in range(2)]
    for process in processes:
        process.start()
    first, second = results.get(), results.get()
    for process in processes:
        process.join()
    assert len(list(tmp_path.glob("built-by-*"))) == 1
    assert first == second
    assert first[2].startswith(np.asarray(Image.open(sources[2].path)).tobytes())
    assert [path.name for path in (cache / "stores").iterdir() if path.suffix != ".lock" and path.name[0] == "."] == []


@needs_fork
def test_a_killed_build_is_not_taken_for_a_store(photographs, cache, monkeypatch):
    sources = sources_in(photographs("a.png", "b.png"))
    started = FORK.Event()
    with monkeypatch.context() as patch:
        patch.setattr(patch_store, "_decode", lambda *_: (started.set(), time.sleep(60)))
        process = FORK.Process(target=open_store, args=(sources, 4, cache))
        process.start()
        assert started.wait(20)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert [path for path in (cache / "stores").iterdir() if path.name.startswith(".building-")]
    store = open_store(sources, 4, cache)
    assert np.array_equal(store.hr(1), np.asarray(Image.open(sources[1].path)))
    assert not [path for path in (cache / "stores").iterdir() if path.name.startswith(".building-")]


def test_a_failed_build_leaves_nothing(photographs, cache, monkeypatch):
    sources = sources_in(photographs("a.png"))
    with monkeypatch.context() as patch:
        patch.setattr(patch_store, "_write_pixels", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        with pytest.raises(OSError, match=rf"{cache} \(No space left\); name a writable folder"):
            open_store(sources, 4, cache)
    assert [path.suffix for path in (cache / "stores").iterdir()] in ([], [".lock"])
    assert len(open_store(sources, 4, cache)) == 1


def test_a_cache_that_cannot_be_written_is_named(photographs, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"cannot keep decoded .*file/cache.*SRDISTILL_CACHE"):
        open_store(sources_in(photographs("a.png")), 4, tmp_path / "file" / "cache")


def test_a_damaged_store_is_named(photographs, cache):
    sources = sources_in(photographs("a.png"))
    folder = open_store(sources, 4, cache).folder
    (folder / "lr.u8").write_bytes(b"")
    with pytest.raises(ValueError, match=f"{folder}: damaged store .* delete this folder"):
        open_store(sources, 4, cache)


def test_pickled_store_reads_the_same_without_carrying_pixels(photographs, cache):
    store = open_store(sources_in(photographs("a.png", size=(256, 256))), 4, cache)
    before = store.hr(0).copy()
    message = pickle.dumps(store)
    assert len(message) < 2000
    assert np.array_equal(pickle.loads(message).hr(0), before)  # noqa: S301 - made in this test


def test_pixels_are_read_only_and_survive_release(photographs, cache):
    store: PatchStore = open_store(sources_in(photographs("a.png")), 4, cache)
    view, copy = store.hr(0), store.hr(0).copy()
    store.release()
    assert np.array_equal(view, copy)
    with pytest.raises(ValueError, match="read-only"):
        view[0, 0, 0] = 1
