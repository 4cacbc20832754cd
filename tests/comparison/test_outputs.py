"""What a comparison's folder is made from, when it is made anew, and what its report tells the reader to know."""

from __future__ import annotations

import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
from PIL import Image

from comparison import outputs as module
from comparison.outputs import WRITTEN_FOR, Outputs
from comparison.pictures.picture import Sample
from comparison.planning.plan import Plan
from comparison.running.runner import Failure
from comparison.running.store import Done, Store

KEYS = {"train": "key-of-train", "test": "key-of-test"}


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "root")
    for name, key in KEYS.items():
        (store.root / name).mkdir(parents=True)
        store.finish(Done(name, key, name, [name, "--x", "a b"], name, name, 1.0, "s"))
    return store


@pytest.fixture
def make(store, study):
    """Outputs of a plan with the trainings of `study`."""
    trainings = list(dict.fromkeys(row.cell for row in study[0]))
    tasks = [SimpleNamespace(stage=SimpleNamespace(name=name), key=key) for name, key in KEYS.items()]
    prepared = SimpleNamespace(trainings=trainings, tasks=tasks, keys=KEYS, regimes={})

    def outputs(**changed):
        plan = Plan(name="study", regimes={}, **{"seeds": [0, 1, 2], **changed})
        return Outputs(store.root / "study", plan, prepared, store, "disabled", "p")

    return outputs


@pytest.fixture
def written(make, study, monkeypatch):
    """Writes, with a stand-in for what takes long; tells whether anything was written."""
    monkeypatch.setattr(module, "draw_all", lambda *arguments: {})
    monkeypatch.setattr(module, "sample_sheets", lambda *arguments: [])
    monkeypatch.setattr(Outputs, "_crops", lambda *arguments: [])
    monkeypatch.setattr(module, "distilled_spectrum", lambda folder: None)
    monkeypatch.setattr(module, "summarise", lambda *arguments: [])
    monkeypatch.setattr(module, "headline", lambda *arguments: "")
    monkeypatch.setattr(module, "log_summary", lambda *arguments: None)
    pages = []

    def write_report(path, content):
        path.write_text("page")
        pages.append(content)

    monkeypatch.setattr(module, "write_report", write_report)

    def write(failures=(), **changed):
        before = len(pages)
        make(**changed).write(*study, list(failures))
        return len(pages) > before

    write.pages = pages
    return write


def test_nothing_is_written_twice(written, store):
    assert written()
    assert not written()
    (store.root / "study" / "wandb").mkdir()
    (store.root / "study" / "wandb" / "later").touch()  # W&B's own process writes when it likes
    (store.root / "study" / ".lock").touch()
    assert not written()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda store: (store.root / "study" / "report.html").unlink(), id="lost file"),
        pytest.param(lambda store: (store.root / "study" / WRITTEN_FOR).unlink(), id="was interrupted"),
        pytest.param(lambda store: (store.root / "train").rmdir(), id="lost stage"),
        pytest.param(
            lambda store: store.finish(replace(store.done(KEYS["train"]), seconds=2.0)), id="stage was run again"
        ),
    ],
)
def test_what_changes_the_report_writes_it_anew(written, store, change):
    written()
    change(store)
    assert written()
    assert not written()


def test_plan_and_failures_are_part_of_the_report(written):
    written()
    assert written(title="Another one")
    failure = Failure("select", "error: too few", None)
    assert written([failure], title="Another one")
    assert written.pages[-1].failed == [("select", "error: too few")]
    assert written(title="Another one")  # mended: all of it is there


def test_commands_are_those_of_the_records(written):
    written()
    assert written.pages[-1].commands == [
        ("train", "python main.py train --x 'a b'"),
        ("test", "python main.py test --x 'a b'"),
    ]


def notes(make, rows, **changed):
    outputs = make(**changed)
    return module._notes(rows, outputs.prepared, outputs.plan)


def test_only_what_equal_lengths_mean_where_all_is_alike(make, study):
    (told,) = notes(make, study[0])
    assert told.startswith("All trainings do the same number of updates: times differ by what else")
    longer = replace(study[0][0], updates=4000)
    assert notes(make, [longer, *study[0][1:]]) == []


def test_reader_is_told_what_weakens_the_figures(make, study):
    rows = study[0]
    other = replace(rows[0], commit="def5678+", device="H200")
    lacking = [row for row in [other, *rows[1:]] if row.cell != rows[-1].cell]
    told = notes(make, lacking, seeds=[0])
    trainings = len({row.cell for row in rows})
    assert told == [
        "The trainings ran with 2 commits of the framework: def5678+, abc1234.",
        "Some trainings ran with changes that were not committed (marked +).",
        "The trainings ran on different devices (H200, x86_64): their times do not compare.",
        f"1 of {trainings} trainings of the plan are missing.",
        "All trainings do the same number of updates: times differ by what else the machine did, not by regime.",
        "One seed: differences of less than about 0.1 dB may be chance.",
    ]


def test_environment_names_device_and_versions(study):
    environment = module._environment(study[0])
    assert environment["devices"] == "x86_64"
    assert environment["CPU cores"] == str(os.cpu_count())
    assert {"torch", "lightning", "Python"} <= environment.keys()


def test_spectra_are_of_one_small_set_of_each_regime_without_a_teacher(study, monkeypatch, tmp_path):
    rows = [
        replace(row, distilled_folder=f"{row.cell.regime}-{row.cell.budget}-{row.cell.teacher}-{row.cell.seed}")
        if row.cell.budget
        else row
        for row in study[0]
    ]
    monkeypatch.setattr(module, "distilled_spectrum", lambda folder: folder)
    for given, seed in ((rows, 0), (rows[::-1], 2)):  # those with a teacher come last, then first
        assert module._spectra(given, tmp_path) == {
            regime: tmp_path / f"{regime}-0.68-False-{seed}" for regime in ("random", "sharpening")
        }


def test_pictures_of_an_earlier_state_go(make, monkeypatch):
    outputs = make()
    monkeypatch.setattr(module, "sample_sheet", lambda sample: Image.new("RGB", (8, 8)))
    sample = Sample.__new__(Sample)  # what is in it does not matter here
    folder = outputs.folder / "pictures"
    outputs._save_pictures([sample] * 3, [])
    assert {path.name for path in folder.iterdir()} == {"set-00.png", "set-01.png", "set-02.png"}
    outputs._save_pictures([sample], [])
    assert {path.name for path in folder.iterdir()} == {"set-00.png"}
    with Image.open(folder / "set-00.png") as picture:
        assert picture.size == (8, 8)
