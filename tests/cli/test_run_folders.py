"""A run has a folder of its own, which no other run touches, and `last` and `best` find the newest."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from cli import run_folders
from cli.run_folders import RunSettings, find_checkpoint, release, reserve
from main import main


@pytest.fixture
def settings(tmp_path: Path) -> RunSettings:
    return RunSettings(root=str(tmp_path / "runs"))


def written(settings: RunSettings, run: str, name: str, time: int) -> str:
    """A checkpoint of a run, with its time of writing."""
    path = settings.folder / "fit" / run / "checkpoints" / f"{name}.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (time, time))
    return str(path)


def test_two_runs_in_one_second(settings: RunSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime(2026, 1, 2, 3, 4, 5).astimezone()

    monkeypatch.setattr(run_folders, "datetime", Stopped)
    names = [reserve(settings, "fit").name for _ in range(3)]
    assert names == ["20260102-030405", "20260102-030405-1", "20260102-030405-2"]


def test_a_name_is_used_once(tiny: list[str]) -> None:
    named = ["fit", *tiny, "--run.name", "mine"]
    cli = main(named)
    assert cli is not None
    before = {path: path.stat().st_mtime_ns for path in cli.run_dir.rglob("*")}
    with pytest.raises(FileExistsError, match=r"fit/mine exists and is not overwritten: give another --run.name"):
        main(named)
    assert {path: path.stat().st_mtime_ns for path in cli.run_dir.rglob("*")} == before


@pytest.mark.parametrize("name", ["a/b", "..", "", "/a"])
def test_a_name_is_no_path(settings: RunSettings, name: str) -> None:
    settings.name = name
    with pytest.raises(ValueError, match="expected the name of a folder"):
        reserve(settings, "fit")


@pytest.mark.parametrize(
    ("mistake", "error"),
    [
        (["--data.patch_size", "30"], ValueError),  # in a constructor
        (["--data.root", "nowhere"], FileNotFoundError),  # while data are prepared
        (["--data.patch_size", "128"], ValueError),  # in setup: no image is large enough
        (["--trainer.accelerator", "gpuu"], ValueError),  # in the Trainer
        (["--ckpt_path", "last", "--model.network.options", "{n_feats: 8}"], ValueError),  # while weights are loaded
    ],
)
def test_a_run_that_fails_before_it_begins_leaves_nothing(
    tiny: list[str], tmp_path: Path, mistake: list[str], error: type[Exception]
) -> None:
    if "--ckpt_path" in mistake:
        main(["fit", *tiny, "--run.name", "first"])
    with pytest.raises(error):
        main(["fit", *tiny, "--run.name", "second", *mistake])
    assert not (tmp_path / "runs" / "default" / "fit" / "second").exists()


def test_a_run_with_results_is_not_removed(settings: RunSettings) -> None:
    run = reserve(settings, "fit")
    (run / "config.yaml").touch()
    (run / "metrics.csv").touch()
    release(run)
    assert (run / "metrics.csv").is_file()


def test_last_and_best_are_of_the_newest_run(settings: RunSettings) -> None:
    written(settings, "b", "best", 1)
    written(settings, "b", "last", 2)
    best, last = written(settings, "a", "best", 3), written(settings, "a", "last", 4)
    written(RunSettings(root=settings.root, experiment="other"), "c", "last", 5)
    reserve(settings, "fit")  # a run without a checkpoint yet
    assert find_checkpoint("best", settings) == best
    assert find_checkpoint("last", settings) == last
    assert find_checkpoint(best, settings) == best


def test_best_is_not_taken_from_an_older_run(settings: RunSettings) -> None:
    written(settings, "old", "best", 1)
    written(settings, "new", "last", 2)
    with pytest.raises(FileNotFoundError, match=r"the newest run has only .*new/checkpoints/last.ckpt"):
        find_checkpoint("best", settings)


@pytest.mark.parametrize("given", ["last", "best"])
def test_no_checkpoint_is_an_error(tiny: list[str], given: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"--ckpt_path {given}: experiment 'default' has no checkpoint"):
        main(["fit", *tiny, "--ckpt_path", given])


def test_checkpoint_file_that_does_not_exist(tiny: list[str], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        main(["test", *tiny, "--ckpt_path", str(tmp_path / "nothing.ckpt")])


def test_the_configuration_of_a_run_makes_a_new_run(tiny: list[str], tmp_path: Path) -> None:
    first = main(["fit", *tiny, "--run.name", "first"])
    assert first is not None
    again = main(["fit", "--config", str(first.run_dir / "config.yaml")])
    assert again is not None
    assert again.run_dir != first.run_dir
    assert again.run_dir.parent == first.run_dir.parent
    configs = [yaml.safe_load((cli.run_dir / "config.yaml").read_text()) for cli in (first, again)]
    for config in configs:
        config["trainer"].pop("default_root_dir")
    assert configs[0] == configs[1]
    tested = main(["test", "--config", str(first.run_dir / "config.yaml"), "--ckpt_path", "last"])
    assert tested is not None
    assert (tested.run_dir / "results.json").is_file()


def test_weights_are_no_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    file.touch()
    with pytest.raises(ValueError, match=r"give --model\.init_args\.init_from .*weights\.safetensors"):
        find_checkpoint(str(file), RunSettings())
