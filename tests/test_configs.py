"""Every YAML that is shipped works, from training to test and resume, on four tiny pictures.

The chains of configs/distill are in test_configs_distill.py.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml

from comparison.planning.regimes import read_regime
from lightning_modules.networks import NetworkSpec
from lightning_modules.networks.build import takes_scale
from main import main
from tests.config_runs import (
    CONFIGS,
    FULL,
    ON_DECODED,
    ON_DISTILLED,
    ON_EDITED,
    ON_SAMPLES,
    names,
    run,
    whole_chain,
)

ON_SETS = {ON_DISTILLED, ON_SAMPLES, ON_DECODED, ON_EDITED}
ALONE = sorted({*CONFIGS.glob("*.yaml"), *CONFIGS.glob("sr/*.yaml")} - ON_SETS)
SELECTIONS = sorted(CONFIGS.glob("selection/*.yaml"))
DISTILLERS = {name: CONFIGS / "distill" / f"{name}.yaml" for name in ("select", "relabel")}
CHAINS = [*CONFIGS.glob("distill/*/*.yaml")]
NETWORKS = sorted(CONFIGS.glob("sr/network/*.yaml"))
DATA = sorted(CONFIGS.glob("data/*.yaml"))
RESTORATION = sorted(CONFIGS.glob("restoration/*.yaml"))
DENOISE = CONFIGS / "restoration" / "denoise.yaml"
TRAINERS = sorted(CONFIGS.glob("trainer/*.yaml"))
PLANS = sorted(CONFIGS.glob("compare/*.yaml"))
REGIMES = sorted(CONFIGS.glob("compare/regimes/*.yaml"))
WHOLE_CHAIN = {"swinir_light", "nafnet_tiny"}
SHALLOW = {"n_resgroups": 1, "n_resblocks": 1, "num_conv": 1, "depths": [2], "depth": [2], "middle_blk_num": 1}
"""What makes a deep network quick, by the names that architectures have for their depth."""

ONE_BLOCK = {"num_blocks", "enc_blk_nums", "dec_blk_nums"}
"""Likewise, of numbers of blocks; U-shaped networks have one for each level."""


def shallow(file: Path) -> list[str]:
    """Options that give a network the least depth but its full width."""
    options = yaml.safe_load(file.read_text())["model"]["init_args"]["network"]["options"]
    changed: dict[str, Any] = {key: SHALLOW.get(key, value) for key, value in options.items()}
    for key in ONE_BLOCK & options.keys():
        changed[key] = [1] * len(options[key]) if isinstance(options[key], list) else 1
    if "num_heads" in changed:
        changed["num_heads"] = changed["num_heads"][:1]
    return ["--model.init_args.network.options", yaml.safe_dump(changed, default_flow_style=True)]


@pytest.mark.parametrize("file", ALONE, ids=names(ALONE))
def test_training_configuration(file: Path, tiny_but_network: list[str]) -> None:
    whole_chain([file], tiny_but_network)


@pytest.mark.parametrize("file", SELECTIONS, ids=names(SELECTIONS))
def test_selection(file: Path, tiny_but_network: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the 75 candidates of three pictures, which are smoother than any threshold for photographs."""
    monkeypatch.chdir(tmp_path)
    args = [*tiny_but_network, "--data.init_args.candidate_stride", "16"]
    if "checkpoint:" in file.read_text():
        run("fit", [FULL], *tiny_but_network, "--run.experiment", "scorer", "--run.name", "scorer")
    if file.stem == "threshold":
        args += ["--data.init_args.filters", "[{class_path: Threshold, init_args: {below: 99}}]"]
    assert run("fit", [CONFIGS / "sr" / "selected.yaml", file], *args).trainer.global_step == 2


def test_distillation(tiny_but_network: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file reads what the ones before it have written, where they say."""
    monkeypatch.chdir(tmp_path)
    run("predict", [DISTILLERS["select"]], *tiny_but_network)
    whole_chain([ON_DISTILLED], tiny_but_network)
    run("fit", [CONFIGS / "quickstart.yaml"], *tiny_but_network, "--run.name", "teacher")
    run("predict", [DISTILLERS["relabel"]], *tiny_but_network)
    again = ["--data.init_args.distilled", "distilled/relabelled", "--run.experiment", "relabelled"]
    whole_chain([ON_DISTILLED], [*tiny_but_network, *again])


@pytest.mark.parametrize("file", NETWORKS, ids=names(NETWORKS))
def test_network(file: Path, tiny_but_network: list[str]) -> None:
    """Those without a scale restore, and are laid on a file of configs/restoration."""
    spec = NetworkSpec(**yaml.safe_load(file.read_text())["model"]["init_args"]["network"])
    if "." in spec.architecture and not importlib.util.find_spec(spec.architecture.partition(".")[0]):
        pytest.skip(f"{spec.architecture} is not installed")
    files = [FULL, file] if takes_scale(spec) else [FULL, DENOISE, file]
    args = [*tiny_but_network, *shallow(file), "--data.init_args.patch_size", "64"]
    if file.stem in WHOLE_CHAIN:
        whole_chain(files, args)
    else:
        assert run("fit", files, *args, "--trainer.max_steps", "1").trainer.global_step == 1


@pytest.mark.parametrize("file", RESTORATION, ids=names(RESTORATION))
def test_restoration(file: Path, tiny: list[str]) -> None:
    """The whole chain for one task; all are the same code but for the degradation."""
    if file == DENOISE:
        whole_chain([FULL, file], tiny)
    else:
        assert run("fit", [FULL, file], *tiny, "--trainer.max_steps", "1").trainer.global_step == 1
        assert (run("test", [FULL, file], *tiny, "--ckpt_path", "last").run_dir / "results.json").is_file()


def test_all_in_one_is_the_tasks_beside_it() -> None:
    alone = {file.stem: degradation(file) for file in RESTORATION if file.stem not in ("all_in_one", "blind_sr")}
    (together,) = degradation(CONFIGS / "restoration" / "all_in_one.yaml")
    order = ("denoise", "deblur", "derain", "dehaze", "low_light")
    assert together["init_args"]["choices"] == [one for name in order for one in alone[name]]
    assert set(order) == set(alone)


def degradation(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(file.read_text())["data"]["init_args"]["degradation"]
    return found


@pytest.mark.parametrize("file", DATA, ids=names(DATA))
def test_data(file: Path, tiny_but_network: list[str]) -> None:
    args = [*tiny_but_network, "--data.init_args.validation", "1"]
    run("fit", [FULL, file], *args)
    assert (run("test", [FULL, file], *args, "--ckpt_path", "last").run_dir / "results.json").is_file()


@pytest.mark.parametrize("file", TRAINERS, ids=names(TRAINERS))
def test_trainer(file: Path, tiny_but_network: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Devices that may not be here are parsed; then the rest runs on the CPU."""
    files = [FULL, file]
    with pytest.raises(SystemExit, match="0"):
        run("fit", files, "--print_config")
    shipped = yaml.safe_load(file.read_text())["trainer"]
    assert yaml.safe_load(capsys.readouterr().out)["trainer"].items() >= shipped.items()
    on_cpu = ["--trainer.precision=32-true", "--trainer.devices=1", "--trainer.num_nodes=1", "--trainer.strategy=auto"]
    assert run("fit", files, *tiny_but_network, *on_cpu, "--data.init_args.num_workers", "0").trainer.global_step == 2


def test_one_batch(tiny_but_network: list[str]) -> None:
    """With its own number of steps and batches."""
    own = ("--trainer.max_steps", "--trainer.val_check_interval", "--trainer.log_every_n_steps")
    pairs = zip(tiny_but_network[::2], tiny_but_network[1::2], strict=True)
    args = [word for key, value in pairs if key not in own for word in (key, value)]
    files = [FULL, CONFIGS / "debug" / "one_batch.yaml"]
    assert run("fit", files, *args).trainer.global_step == 1
    tested = run("test", files, *args, "--ckpt_path", "best")
    assert len((tested.run_dir / "per_image.csv").read_text().splitlines()) == 2  # the heading and one of four images


def test_overfit(tiny_but_network: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The four batches of the second epoch are those of the first."""
    seen = []
    monkeypatch.setattr(
        "lightning_modules.SuperResolution.on_train_batch_start",
        lambda _, batch, index: seen.append(batch.hr.sum().item()),
    )
    run("fit", [FULL, CONFIGS / "debug" / "overfit.yaml"], *tiny_but_network, "--trainer.max_steps", "8")
    assert seen[:4] == seen[4:]
    assert len(set(seen)) == 4


def test_profiler(tiny_but_network: list[str], caplog: pytest.LogCaptureFixture) -> None:
    run("fit", [FULL, CONFIGS / "debug" / "profiler.yaml"], *tiny_but_network)
    assert "Profiler Report" in caplog.text


@pytest.fixture
def every_set(tiny_photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data folder in which all sets that configurations name are the tiny pictures."""
    for file in DATA:
        options = yaml.safe_load(file.read_text())["data"]["init_args"]
        for name in (options["root"], *options["benchmarks"]["sets"]):
            folder = tmp_path / "data" / name
            folder.parent.mkdir(exist_ok=True)
            if not folder.exists():
                folder.symlink_to(tiny_photographs)
    monkeypatch.setenv("SRDISTILL_DATA", str(tmp_path / "data"))


@pytest.mark.parametrize("file", PLANS, ids=names(PLANS))
@pytest.mark.usefixtures("every_set")
def test_plan(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Checked and expanded to its stages, none of which is done; for one seed, network and budget: all read alike."""
    monkeypatch.setattr("comparison.running.timing.measure_update", lambda config, device: 0.001)
    plan = yaml.safe_load(file.read_text())
    less = ["--seeds", "[0]", "--networks", "[edsr_tiny]", "--root", str(tmp_path / "runs")]
    less += ["--budgets", str(plan["budgets"][:1])]
    assert main(["compare", "--config", str(file), *less, "--dry_run"]) is None
    *lines, estimate = capsys.readouterr().out.splitlines()
    states, commands, stages = zip(*(line.rsplit(maxsplit=2) for line in lines), strict=True)
    assert set(states) == {"to do"}
    assert set(commands) == {"fit", "predict", "test"}
    assert {stage.split("-")[0] for stage in stages} == plan["regimes"].keys()
    assert estimate.startswith("the rest takes about ")
    assert plan["name"] == file.stem
    assert {*plan.get("networks", [])} <= {*names(NETWORKS)}


@pytest.mark.parametrize("file", SELECTIONS, ids=names(SELECTIONS))
def test_every_selection_is_a_regime(file: Path) -> None:
    """Its last stage selects by the rule of its name, as much as the plan says, for the seed that the plan says."""
    regime = read_regime(CONFIGS / "compare" / "regimes" / file.name)
    assert regime.title
    select = regime.distill[-1]
    assert select.configs == ["configs/distill/select.yaml", f"configs/selection/{file.name}"]
    of_plan = {"data.init_args.budget.percent": "{budget}", "data.init_args.select_seed": "{seed}"}
    assert select.set.items() >= of_plan.items()


def test_every_regime_is_in_a_plan() -> None:
    """Which are read above; by its name or as what another one extends."""
    regimes = [yaml.safe_load(file.read_text())["regimes"] for file in PLANS]
    extended = {regime.get("extends") for given in regimes for regime in given.values()}
    assert {*names(REGIMES)} <= {name for given in regimes for name in given} | extended


def test_every_file_is_covered() -> None:
    debug = {CONFIGS / "debug" / f"{name}.yaml" for name in ("one_batch", "overfit", "profiler")}
    distillation = {*ON_SETS, *DISTILLERS.values(), *CHAINS}
    fits = {*ALONE, *SELECTIONS, *distillation, *NETWORKS, *DATA, *RESTORATION, *TRAINERS, *debug}
    assert set(CONFIGS.rglob("*.yaml")) == {*fits, *PLANS, *REGIMES}
