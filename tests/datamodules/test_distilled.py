"""The distilled-dataset folder: what others read in it, what reading refuses, and what failures leave behind."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.distilled import DistilledPatch, DistilledSet, read_distilled, write_distilled

FORK = multiprocessing.get_context("fork") if "fork" in multiprocessing.get_all_start_methods() else None
PHOTOGRAPHS = {"images": 379, "pixels": 58_516_079, "bytes": 48_000_000, "percent": 98.5, "teacher": None}
MADE_BY = {"method": "selection", "command": ["main.py", "predict", "--data.root", "my photos"], "seed": 3}


def some_patches(count: int = 3, lr: bool = False, height: int = 16, width: int = 24) -> list[DistilledPatch]:
    """Noise, with the metadata of a selection; LR is noise too, so that no reduction of HR is taken for it."""
    rng = np.random.default_rng(count)
    return [
        DistilledPatch(
            rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
            rng.integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8) if lr else None,
            {"pseudo_label": number % 2, "score": 20.5 + number, "source": "caf\u00e9/a.png", "top": 0, "left": 4},
        )
        for number in range(count)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "sets" / "chosen"


def written(folder: Path, **options) -> DistilledSet:
    return write_distilled(folder, some_patches(lr=True), 4, MADE_BY, **options)


def siblings(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.iterdir())


# --- what is written ---


def test_files_are_the_patches(folder):
    patches = some_patches(lr=True)
    opened = write_distilled(folder, iter(patches), 4, MADE_BY)
    assert opened == read_distilled(folder)
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert lines == opened.metadata
    for number, (patch, line) in enumerate(zip(patches, lines, strict=True)):
        files = {"file_name": f"images/00000{number}.png", "lr_file_name": f"lr_x4/00000{number}.png"}
        assert line == {**files, **patch.metadata}
        assert np.array_equal(np.asarray(Image.open(folder / line["file_name"])), patch.hr)
        assert np.array_equal(np.asarray(Image.open(folder / line["lr_file_name"])), patch.lr)


def test_provenance_has_digests_budget_and_software(folder):
    provenance = write_distilled(folder, some_patches(lr=True), 4, {**MADE_BY, "full_pixels": 11520}).provenance
    files = [*folder.glob("*/*.png"), folder / "metadata.jsonl"]
    digests = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert provenance["sha256"] == digests
    size = sum(path.stat().st_size for path in folder.glob("*/*.png"))
    assert provenance["budget"] == {"images": 3, "pixels": 1152, "bytes": size, "percent": 10.0, "teacher": None}
    assert (provenance["schema"], provenance["scale"], provenance["sizes"]) == (1, 4, [[16, 24]])
    assert MADE_BY.items() <= provenance.items()
    assert {"commit", "packages", "python", "platform", "created"} <= provenance.keys()


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ({}, "its cost is unknown"),
        ({"training_seconds": 75.4}, "it took 75 s on unknown data"),
        ({"data_budget": PHOTOGRAPHS}, "it took an unknown time on 379 images, 98.5 %"),
        ({"training_seconds": 75.4, "data_budget": PHOTOGRAPHS}, "it took 75 s on 379 images, 98.5 %"),
        (
            {"training_seconds": 9, "data_budget": {**PHOTOGRAPHS, "percent": None, "teacher": "a.ckpt, weight 1"}},
            "it took 9 s on 379 images, targets of a teacher (a.ckpt, weight 1)",
        ),
    ],
)
def test_a_teacher_is_in_the_budget_line_with_its_cost(folder, known, words):
    teacher = {"file": "best.ckpt", "weight": 0.5, "sha256": "12ab", **known}
    opened = write_distilled(folder, some_patches(), 4, {**MADE_BY, "teacher": teacher})
    assert opened.provenance["teacher"] == teacher
    assert opened.budget.percent is None
    assert opened.budget.describe() == (
        f"3 images, 0.00 MP, {opened.budget.bytes / 1e6:.2f} MB, targets of a teacher (best.ckpt, weight 0.5; {words})"
    )
    assert "best.ckpt" in (folder / "README.md").read_text()


def test_the_same_patches_are_the_same_bytes(folder):
    first, second = (write_distilled(where, some_patches(), 4, MADE_BY) for where in (folder, folder.with_name("b")))
    assert first.provenance["sha256"] == second.provenance["sha256"]


def test_names_of_files_in_given_metadata_are_passed_over(folder):
    first = written(folder)
    patches = [DistilledPatch(patch.hr, None, line) for patch, line in zip(some_patches(), first.metadata, strict=True)]
    again = write_distilled(folder.with_name("b"), reversed(patches), 4, {})
    assert [line["file_name"] for line in again.metadata] == [f"images/00000{number}.png" for number in range(3)]
    assert [line["score"] for line in again.metadata] == [22.5, 21.5, 20.5]
    assert all("lr_file_name" not in line for line in again.metadata)


def test_pixels_are_not_held_in_memory(folder):
    def stream() -> Iterator[DistilledPatch]:
        for number in range(64):
            yield DistilledPatch(np.full((512, 512, 3), number, dtype=np.uint8))

    tracemalloc.start()
    write_distilled(folder, stream(), 4, {})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * 512 * 512 * 3  # of 64


# --- Hugging Face ---


@pytest.fixture
def hugging_face(monkeypatch, tmp_path):
    """The real library, kept from the network and from the user's cache."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    return datasets


@pytest.mark.parametrize("count", [1, 3])  # of one image there are as many as other files
@pytest.mark.parametrize("lr", [False, True], ids=["HR", "HR and LR"])
@pytest.mark.parametrize("with_builder", [False, True], ids=["by the card", "imagefolder"])
def test_hugging_face_datasets_read_it(folder, hugging_face, tmp_path, count, lr, with_builder):
    patches = some_patches(count, lr)
    write_distilled(folder, patches, 4, MADE_BY)
    given = {"path": "imagefolder", "data_dir": str(folder)} if with_builder else {"path": str(folder)}
    rows = hugging_face.load_dataset(**given, split="train", cache_dir=str(tmp_path / "cache"))
    columns = {"image", "pseudo_label", "score", "source", "top", "left"} | ({"lr"} if lr else set())
    assert set(rows.column_names) == columns
    assert len(rows) == count
    for row, patch in zip(rows, patches, strict=True):
        assert np.array_equal(np.asarray(row["image"]), patch.hr)
        assert not lr or np.array_equal(np.asarray(row["lr"]), patch.lr)
        assert {key: row[key] for key in patch.metadata} == patch.metadata


def test_the_hub_understands_the_card(folder):
    hub = pytest.importorskip("huggingface_hub")
    written(folder)
    card = hub.DatasetCard.load(folder / "README.md")
    assert card.data.license == "unknown"
    assert card.data.task_categories == ["image-to-image"]
    assert "3 images" in card.text
    assert "python main.py predict --data.root 'my photos'" in card.text


# --- what reading refuses ---


def _append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def _edit(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


DAMAGES = {
    "missing image": (lambda at: (at / "images/000001.png").unlink(), r"images/000001\.png is missing"),
    "missing LR": (lambda at: (at / "lr_x4/000002.png").unlink(), r"lr_x4/000002\.png is missing"),
    "missing metadata": (lambda at: (at / "metadata.jsonl").unlink(), r"metadata\.jsonl is missing"),
    "missing record": (
        lambda at: (at / "provenance.json").unlink(),
        r"holds no provenance\.json, so it is no distilled",
    ),
    "altered image": (lambda at: (at / "images/000000.png").write_bytes(b"x"), r"images/000000\.png was altered"),
    "extra line": (lambda at: _append(at / "metadata.jsonl", "{}\n"), r"metadata\.jsonl was altered"),
    "extra image": (
        lambda at: (at / "images/000003.png").write_bytes(b""),
        r"images/000003\.png is no part of the distilled set; remove it",
    ),
    "newer": (
        lambda at: _edit(at / "provenance.json", schema=2),
        r"schema 2 but this version knows 1; install a newer",
    ),
    "no schema": (
        lambda at: _edit(at / "provenance.json", schema=None),
        r"provenance\.json is no record of a distilled",
    ),
    "no JSON": (lambda at: _append(at / "provenance.json", "}"), r"provenance\.json is no record of a distilled"),
    "elsewhere": (
        lambda at: _edit(at / "provenance.json", sha256={"metadata.jsonl": "0", "../../photo.png": "0"}),
        r"provenance\.json is no record of a distilled",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_set_is_refused_in_one_line(folder, damage):
    inflict, message = DAMAGES[damage]
    written(folder)
    inflict(folder)
    with pytest.raises(FileNotFoundError if damage.startswith("missing") else ValueError, match=message) as error:
        read_distilled(folder)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


def test_metadata_must_fit_the_record_even_where_files_are_trusted(folder):
    written(folder)
    lines = (folder / "metadata.jsonl").read_text().splitlines(keepends=True)
    (folder / "metadata.jsonl").write_text("".join(lines[:2]))
    with pytest.raises(ValueError, match=r"metadata\.jsonl does not name the images"):
        read_distilled(folder, verify=False)


def test_a_folder_that_is_not_there(folder):
    with pytest.raises(FileNotFoundError, match=r"chosen is no folder; name a folder that python main\.py predict"):
        read_distilled(folder)


def test_card_and_files_beside_the_images_may_change(folder):
    written(folder)
    (folder / "README.md").write_text("license: mit")
    (folder / ".gitattributes").touch()
    assert len(read_distilled(folder).metadata) == 3


# --- what writing refuses ---


@pytest.mark.parametrize(
    ("patches", "message"),
    [
        ([], "at least one patch"),
        ([DistilledPatch(np.zeros((16, 18, 3), np.uint8))], "patch 0: HR is 18 x 16 pixels; expected multiples of"),
        ([DistilledPatch(np.zeros((16, 16, 3), np.float32))], r"patch 0: HR is float32 \(16, 16, 3\); expected uint8"),
        ([DistilledPatch(np.zeros((16, 16), np.uint8))], r"patch 0: HR is uint8 \(16, 16\)"),
        (
            [DistilledPatch(np.zeros((16, 16, 3), np.uint8), np.zeros((8, 8, 3), np.uint8))],
            "patch 0: LR is 8 x 8 pixels but HR of 16 x 16 at x4 asks for 4 x 4",
        ),
        (
            [*some_patches(1), *some_patches(1, lr=True)],
            "patch 1 has file_name, left, lr_file_name, .* all an LR or none",
        ),
        ([DistilledPatch(np.zeros((4, 4, 3), np.uint8), None, {"score": float("nan")})], "patch 0: its metadata holds"),
        ([DistilledPatch(np.zeros((4, 4, 3), np.uint8), None, {"score": np.float32(1)})], "patch 0: .*float32"),
    ],
)
def test_patches_that_do_not_fit(folder, patches, message):
    with pytest.raises(ValueError, match=message):
        write_distilled(folder, patches, 4, {})
    assert siblings(folder) == []


def test_provenance_that_json_cannot_hold_is_refused_before_the_first_patch(folder):
    with pytest.raises(ValueError, match="provenance holds a value that does not fit in JSON"):
        write_distilled(folder, (pytest.fail("a patch was made") for _ in range(1)), 4, {"config": Path("x")})


def test_nothing_is_overwritten_unasked(folder):
    before = written(folder)
    with pytest.raises(FileExistsError, match="chosen exists and is not overwritten: name another folder, or set over"):
        write_distilled(folder, (pytest.fail("a patch was made") for _ in range(1)), 4, {})
    assert read_distilled(folder) == before


def test_a_folder_that_came_meanwhile_is_not_overwritten(folder):
    def stream() -> Iterator[DistilledPatch]:
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
        yield from some_patches()

    with pytest.raises(FileExistsError, match="exists and is not overwritten"):
        write_distilled(folder, stream(), 4, {})
    assert (folder / "notes.txt").read_text() == "mine"


def test_overwriting_replaces_all_of_a_set(folder):
    written(folder)
    after = write_distilled(folder, some_patches(2), 4, {}, overwrite=True)
    assert read_distilled(folder) == after
    assert not (folder / "lr_x4").exists()
    assert siblings(folder) == ["chosen"]


def test_overwriting_follows_a_link(folder, tmp_path):
    written(folder)
    (tmp_path / "link").symlink_to(folder)
    write_distilled(tmp_path / "link", some_patches(2), 4, {}, overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert len(read_distilled(folder).metadata) == 2


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda at: at.mkdir(parents=True), "is no distilled set that could be replaced"),
        (lambda at: (at.parent.mkdir(parents=True), at.write_text("file")), "is no distilled set"),
        (lambda at: (at.mkdir(parents=True), (at / "provenance.json").write_text('{"schema": 1}')), "is no distilled"),
        (lambda at: (written(at), (at / "notes.txt").touch()), r"is not replaced: notes\.txt in it is no part"),
        (lambda at: (written(at), (at / "images/mine.png").touch()), r"is not replaced: images/mine\.png in it"),
    ],
    ids=["empty", "file", "other record", "with notes", "with pictures"],
)
def test_overwriting_spares_what_is_no_distilled_set(folder, prepare, message):
    prepare(folder)
    before = sorted(folder.rglob("*"))
    with pytest.raises(FileExistsError, match=message):
        write_distilled(folder, some_patches(), 4, {}, overwrite=True)
    assert sorted(folder.rglob("*")) == before


# --- failures ---


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "over an old set"])
def test_an_interrupted_write_leaves_what_was_there(folder, kind, overwrite):
    def stream() -> Iterator[DistilledPatch]:
        yield from some_patches(2)
        raise kind

    before = written(folder) if overwrite else None
    with pytest.raises(kind):
        write_distilled(folder, stream(), 4, {}, overwrite=overwrite)
    assert siblings(folder) == (["chosen"] if overwrite else [])
    assert not overwrite or read_distilled(folder) == before


def test_an_old_set_comes_back_when_the_new_one_cannot_take_its_place(folder, monkeypatch):
    before = written(folder)
    rename = Path.rename

    def refuse(self, target):
        if self.name.endswith(".writing"):
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="no"):
        write_distilled(folder, some_patches(2), 4, {}, overwrite=True)
    assert read_distilled(folder) == before
    assert siblings(folder) == ["chosen"]


@pytest.mark.skipif(FORK is None, reason="processes are forked here")
def test_leftovers_of_a_killed_write_are_removed_by_the_next(folder):
    started = FORK.Event()

    def stream() -> Iterator[DistilledPatch]:
        yield from some_patches(2)
        started.set()
        time.sleep(60)

    process = FORK.Process(target=write_distilled, args=(folder, stream(), 4, {}))
    process.start()
    assert started.wait(20)
    with pytest.raises(FileExistsError, match=r"another process is writing .*chosen just now"):
        written(folder)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert (folder.parent / ".chosen.writing" / "images").is_dir()
    written(folder)
    assert siblings(folder) == ["chosen"]


def test_a_set_set_aside_by_a_killed_overwrite_comes_back(folder):
    before = written(folder)
    folder.rename(folder.with_name(".chosen.replaced"))  # killed between the two renames
    with pytest.raises(FileExistsError, match="exists and is not overwritten"):
        written(folder)
    assert read_distilled(folder) == before
