"""`python main.py compare` as a whole, on tiny pictures: the record, what is run again and what is not, failures."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import time
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import pytest
from PIL import Image

from comparison import outputs
from tests.compare_runs import assert_same_weights, attempts, compare, read_csv, stages_of, write_plan

ROOT = Path(__file__).parent.parent

TRAININGS = {
    ("full", False): "full-{}-net-plain-s0",
    ("random", False): "random-{}-20-net-plain-s0",
    ("sharpening", False): "sharpening-{}-20-net-plain-s0",
    ("random", True): "random-teacher-{}-20-net-plain-s0",
    ("sharpening", True): "sharpening-teacher-{}-20-net-plain-s0",
}
"""Names of the stages, by regime and use of a teacher."""

WITHOUT_TEACHER = ("--relabelling", "[false]")
TWO_REGIMES = ("--regimes", "{full: {}, random: {}}")


class Finished(NamedTuple):
    plan: Path
    root: Path

    @property
    def folder(self):
        return self.root / "study"

    def run(self, *options):
        """Runs the command again, and returns what was run of the stages."""
        before = attempts(self.root)
        compare(self.plan, self.root, *options)
        return attempts(self.root) - before

    def record(self, stage, name):
        (path,) = (self.root / "stages" / stage).glob(f"*/*/{name}")
        return json.loads(path.read_text())

    def of_set(self, stage):
        (path,) = (self.root / "sets").glob(f"{stage}-*/provenance.json")
        return json.loads(path.read_text())


@pytest.fixture(scope="module")
def original(tmp_path_factory, tiny_photographs):
    """The comparison, run once; no test may change it."""
    folder = tmp_path_factory.mktemp("compare")
    plan = write_plan(folder, tiny_photographs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRDISTILL_CACHE", str(folder / "cache"))
        compare(plan, folder / "root")
    return Finished(plan, folder / "root")


@pytest.fixture
def copy(original, tmp_path):
    """The same in another folder."""
    shutil.copytree(original.root, tmp_path / "root")
    return original._replace(root=tmp_path / "root")


@pytest.fixture
def no_plots(monkeypatch):
    """They take most of the time in which a report is written."""
    monkeypatch.setattr(outputs, "draw_all", lambda *arguments: {})


@pytest.fixture
def rows(original):
    """Lines of results.csv by regime and use of a teacher."""
    lines = read_csv(original.folder / "results.csv")
    rows = {(line["regime"], line["teacher"] == "True"): line for line in lines}
    assert len(rows) == len(lines)
    return rows


def test_every_training_of_the_plan_has_the_figures_of_its_test(original, rows):
    assert rows.keys() == TRAININGS.keys()
    for key, row in rows.items():
        results = original.record(TRAININGS[key].format("test"), "results.json")
        for name in ("psnr_y", "ssim_y"):
            assert float(row[name]) == results["sets"]["tiny"][name]
            assert float(row[f"{name}_untrained"]) == results["sets"]["tiny"][f"{name}_bicubic"]
        assert (row["untrained"], row["psnr_rgb"]) == ("bicubic", "")
        assert (row["set"], row["network"], row["recipe"], row["seed"]) == ("tiny", "net", "plain", "0")
        assert (row["budget"], row["updates"]) == ("" if key[0] == "full" else "20.0", "4")
        assert row["protocol"] == results["protocol"]


def test_rows_are_means_of_their_images(original, rows):
    images = read_csv(original.folder / "per_image.csv")
    assert len(images) == 5 * 4
    for key, row in rows.items():
        mine = [image for image in images if (image["regime"], image["teacher"] == "True") == key]
        assert [image["image"] for image in mine] == ["0.png", "1.png", "2.png", "3.png"]
        assert fmean(float(image["psnr_y"]) for image in mine) == pytest.approx(float(row["psnr_y"]), abs=1e-5)


def test_costs_add_up(original, rows):
    teacher = original.record("full-train-net-plain-s0", "cost.json")
    for (regime, relabelled), row in rows.items():
        train = original.record(TRAININGS[regime, relabelled].format("train"), "cost.json")
        before, memory = 0.0, [train["peak_rss_mib"]]
        if regime != "full":
            chosen = original.of_set(f"{regime}-select-20-s0")
            before += max(chosen["seconds"], (chosen["preparation"] or {}).get("seconds", 0.0))
            memory.append(original.record(f"{regime}-select-20-s0", "cost.json")["peak_rss_mib"])
        if relabelled:
            relabel = f"{regime}-teacher-relabel-20-net-plain-s0"
            before += teacher["seconds"] + original.of_set(relabel)["seconds"]
            memory += [teacher["peak_rss_mib"], original.record(relabel, "cost.json")["peak_rss_mib"]]
        assert float(row["distillation_seconds"]) == pytest.approx(before)
        assert float(row["training_seconds"]) == train["training_seconds"]
        assert float(row["total_seconds"]) == pytest.approx(before + train["training_seconds"])
        assert float(row["peak_memory_mib"]) == max(memory)


def test_data_are_what_the_budget_allows(original, rows):
    photographs = 3 * 96 * 96  # one of four is for validation
    assert (rows["full", False]["pixels"], rows["full", False]["percent"]) == (str(photographs), "100.0")
    for key, row in rows.items():
        if key[0] != "full":
            patches = int(0.2 * photographs / 32**2)
            assert (row["images"], row["pixels"]) == (str(patches), str(patches * 32**2))
            assert float(row["percent"]) == pytest.approx(100 * patches * 32**2 / photographs)
            assert len(list((original.root / row["distilled_folder"] / "images").iterdir())) == patches


def test_report_tables_and_pictures_are_there(original):
    page = (original.folder / "report.html").read_text()
    for title in ("all photographs", "patches at random", "patches that sharpening improves most"):
        assert title in page
    assert "are missing" not in page
    plots = sorted(path.stem for path in (original.folder / "plots").iterdir())
    assert {"learning_curves", "spectra"} <= set(plots)
    for path in [*(original.folder / "plots").iterdir(), *(original.folder / "pictures").iterdir()]:
        with Image.open(path) as picture:
            assert min(picture.size) >= 32
    pictures = {path.name for path in (original.folder / "pictures").iterdir()}
    assert pictures == {"crops.png", *(f"set-{number:02d}.png" for number in range(4))}  # of each distilled set
    for name in ("table.md", "table.tex", "summary.csv"):
        assert "sharpening" in (original.folder / name).read_text()
    results = json.loads((original.folder / "results.json").read_text())
    assert len(results["rows"]) == 5
    for kind in (False, True):
        ranked = {line["regime"] for line in results["summary"] if line["teacher"] is kind}
        assert ranked >= {"random", "sharpening"}


def test_report_has_commands_that_can_be_run_again(original):
    page = (original.folder / "report.html").read_text()
    done = [json.loads(path.read_text()) for path in (original.root / "done").iterdir()]
    assert len(done) == 14
    for record in done:
        provenance = json.loads((original.root / record["run"] / "provenance.json").read_text())
        assert provenance["command"] == ["main.py", *record["command"]]
        assert f"--run.experiment {shlex.quote(record['stage'])}" in page


def test_plan_in_the_folder_gives_the_same_stages(original, capsys):
    compare(original.folder / "plan.yaml", original.root, "--dry_run")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["done"] * 14
    assert lines[-1].startswith("the rest takes about 0")


def test_second_call_runs_and_writes_nothing(original, capsys):
    def state():
        return {path: path.stat().st_mtime_ns for path in original.root.rglob("*") if path.is_file()}

    before, start = state(), time.perf_counter()
    assert original.run() == set()
    assert time.perf_counter() - start < 10
    assert {path for path, stamp in state().items() if before.get(path) != stamp} <= {original.folder / ".lock"}
    assert str(original.folder / "report.html") in capsys.readouterr().out


def test_lost_plot_is_drawn_again_without_a_stage(copy):
    lost = copy.folder / "plots" / "spectra.png"
    lost.unlink()
    (copy.folder / "plots" / "of_another_plan.png").touch()
    assert copy.run() == set()
    assert lost.is_file()
    assert not (copy.folder / "plots" / "of_another_plan.png").exists()


@pytest.mark.usefixtures("no_plots")
def test_learning_rate_is_of_no_concern_to_the_selection(copy):
    recipe = {"data.init_args.augmentation": "plain", "model.init_args.lr_scheduler.init_args.max_lr": 1e-3}
    ran = copy.run("--recipes", json.dumps({"plain": {"set": recipe}}), *TWO_REGIMES, *WITHOUT_TEACHER)
    both = [TRAININGS[regime, False].format(step) for regime in ("full", "random") for step in ("test", "train")]
    assert stages_of(ran) == both


@pytest.mark.usefixtures("no_plots")
def test_lost_output_is_made_again_and_nothing_else(copy):
    (lost,) = (copy.root / "sets").glob("random-select-*")
    files = {path.name: path.read_bytes() for path in (lost / "images").iterdir()}
    shutil.rmtree(lost)
    report = (copy.folder / "report.html").stat().st_mtime_ns
    assert stages_of(copy.run()) == ["random-select-20-s0"]
    assert {path.name: path.read_bytes() for path in (lost / "images").iterdir()} == files
    assert (copy.folder / "report.html").stat().st_mtime_ns > report  # the choice has cost something else


@pytest.mark.usefixtures("no_plots")
def test_fit_that_was_killed_when_it_was_over_is_not_trained_again(copy):
    """In its last validation, or while it wrote its records."""
    name = TRAININGS["random", False].format("train")
    (first,) = (copy.root / "stages" / name / "fit").iterdir()
    next((copy.root / "done").glob(f"{first.name}*")).unlink()
    results = read_csv(copy.folder / "results.csv")
    assert copy.run() == {f"{name}/fit/{first.name}-1"}
    second = first.with_name(f"{first.name}-1")
    assert_same_weights(first, second)
    assert (second / "checkpoints" / "last.ckpt").is_file()
    assert read_csv(second / "metrics.csv") == read_csv(first / "metrics.csv")
    for old, new in zip(results, read_csv(copy.folder / "results.csv"), strict=True):
        assert {key for key in old if old[key] != new[key]} <= {"train_folder", "peak_memory_mib"}


def test_dry_run_tells_what_is_to_do(copy, capsys):
    name = TRAININGS["random", False].format("test")
    shutil.rmtree(copy.root / "stages" / name)
    assert copy.run("--dry_run") == set()
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == 14
    assert [line.split() for line in lines if not line.startswith("done")] == [["to", "do", "test", name]]
    (record,) = (json.loads(path.read_text()) for path in (copy.root / "done").iterdir() if name in path.read_text())
    assert record["seconds"] < 120
    assert re.fullmatch(r"the rest takes about .* on 2 jobs", last)  # as long as the other tests, which are done


def test_single_stage_is_run_when_what_it_reads_is_there(copy):
    train, test = (TRAININGS["random", False].format(step) for step in ("train", "test"))
    shutil.rmtree(copy.root / "stages" / train)
    shutil.rmtree(copy.root / "stages" / test)
    report = (copy.folder / "report.html").stat().st_mtime_ns
    with pytest.raises(ValueError, match=f"^--only {test}: it reads {train}, which is not done$"):
        copy.run("--only", test)
    assert stages_of(copy.run("--only", train)) == [train]
    assert stages_of(copy.run("--only", test)) == [test]
    assert copy.run("--only", test) == set()
    assert (copy.folder / "report.html").stat().st_mtime_ns == report


def test_slurm_script_submits_what_is_missing_in_waves(copy, tmp_path, capsys):
    for stage in ("random-select-20-s0", TRAININGS["random", False].format("train")):
        shutil.rmtree(copy.root / "stages" / stage)
    shutil.rmtree(next((copy.root / "sets").glob("random-select-*")))
    script = tmp_path / "jobs" / "slurm.sh"
    assert copy.run("--slurm", str(script)) == set()
    text = script.read_text()
    waves = dict(re.findall(r"^(wave_\w+)=\((.*)\)$", text, re.MULTILINE))
    assert waves == {"wave_1_1": "random-select-20-s0", "wave_2_1": TRAININGS["random", False].format("train")}
    (command,) = re.findall(r"^compare=\((.*)\)$", text, re.MULTILINE)
    words = shlex.split(command)
    assert words[1:3] == [str(ROOT / "main.py"), "compare"]
    assert words[words.index("--root") + 1] == str(copy.root)
    assert "--slurm" not in words
    assert str(script) not in words
    assert 'exec "${compare[@]}" --only "${stages[SLURM_ARRAY_TASK_ID]}"' in text
    assert "2 stages to submit" in capsys.readouterr().out


THIRTY = (*WITHOUT_TEACHER, "--budgets", "[30]", "--name", "thirty")
FAILED = "sharpening-select-30-s0"


@pytest.mark.usefixtures("no_plots")
def test_failed_stage_stops_no_other_and_is_tried_again_when_mended(copy, capsys):
    """Of the 27 patches, 7 are in the upper quarter, and 30 % are 8: only the selection itself finds this out."""
    before = attempts(copy.root)
    with pytest.raises(SystemExit) as status:
        copy.run(*THIRTY)
    assert status.value.code == 1
    ran = attempts(copy.root) - before
    assert stages_of(ran) == [f"random-{step}" for step in ("select-30-s0", "test-30-net-plain-s0")] + [
        "random-train-30-net-plain-s0"
    ]

    log = copy.root / "logs" / f"{FAILED}.log"
    told = capsys.readouterr().out.splitlines()
    (reason,) = (line for line in told if line.startswith(f"{FAILED}: error: data.budget asks for 8 patches"))
    assert reason.endswith(f"(log: {log})")
    assert log.read_text().splitlines()[-1] in reason
    for step in ("train", "test"):
        assert f"sharpening-{step}-30-net-plain-s0: not run: {FAILED} failed" in told

    page = (copy.root / "thirty" / "report.html").read_text()
    assert FAILED in page
    assert "1 of 3 trainings of the plan are missing" in page
    assert {row["regime"] for row in read_csv(copy.root / "thirty" / "results.csv")} == {"full", "random"}

    finer = {"sharpening": {"set": {"select": {"data.init_args.candidate_stride": 16}}}}
    mended = copy.run(*THIRTY, "--regimes", json.dumps({"full": {}, "random": {}, **finer}))
    steps = ("select-30-s0", "test-30-net-plain-s0", "train-30-net-plain-s0")
    assert stages_of(mended) == [f"sharpening-{step}" for step in steps]
    page = (copy.root / "thirty" / "report.html").read_text()
    assert "are missing" not in page
    assert len(read_csv(copy.root / "thirty" / "results.csv")) == 3


def test_nothing_to_report_where_no_training_was_tested(original, tmp_path, capsys):
    only = ("--regimes", "{sharpening: {}}", "--reference", "", "--baseline", "")
    with pytest.raises(SystemExit):
        compare(original.plan, tmp_path / "root", *THIRTY, *only)
    assert "no training was tested: there is nothing to report" in capsys.readouterr().out
    assert not (tmp_path / "root" / "thirty" / "report.html").exists()


@pytest.mark.usefixtures("no_plots")
def test_stages_and_summary_are_one_group_of_weights_and_biases(copy, monkeypatch):
    records = pytest.importorskip("tests.wandb_records")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    steps = {"select": "random-select-20-s0"}
    steps |= {step: TRAININGS["random", False].format(step) for step in ("train", "test")}
    for stage in steps.values():
        shutil.rmtree(copy.root / "stages" / stage)
    shutil.rmtree(next((copy.root / "sets").glob("random-select-*")))
    ran = copy.run("--wandb", "offline", "--project", "mine", *TWO_REGIMES, *WITHOUT_TEACHER)
    assert stages_of(ran) == sorted(steps.values())

    labels = {"regime": "random", "teacher": False, "budget": 20.0, "seed": 0}
    of_training = {**labels, "network": "net", "recipe": "plain"}
    about = {"select": ("distill", labels), "train": ("train", of_training), "test": ("test", of_training)}
    for run in ran:
        read = records.OfflineRun(copy.root / "stages" / run)
        (step,) = (step for step, stage in steps.items() if run.startswith(stage))
        assert (read.run.run_group, read.run.project, read.run.display_name) == ("study", "mine", steps[step])
        assert read.run.job_type == about[step][0]
        assert {key: read.config[key] for key in about[step][1]} == about[step][1]
    summary = records.OfflineRun(copy.folder)
    assert (summary.run.run_group, summary.run.job_type) == ("study", "summary")
    assert any(name.startswith("study-random-select-20-s0") for name in summary.artifacts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--only", "random-selct-20-s0"],
            "--only random-selct-20-s0: the plan has no such stage.*random-select-20-s0",
        ),
        (["--jobs", "0"], "--jobs 0; expected 1 stage at a time, or more"),
    ],
)
def test_option_that_cannot_be_meant_is_refused(original, options, message):
    before = sorted(os.listdir(original.folder))  # noqa: PTH208
    with pytest.raises(ValueError, match=message):
        original.run(*options)
    assert sorted(os.listdir(original.folder)) == before  # noqa: PTH208
