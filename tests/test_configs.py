"""Every YAML that is shipped works, from training to test and resume, on four tiny pictures."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.app import SRDistillCLI
from comparison.planning.regimes import read_regime
from lightning_modules.networks import NetworkSpec
from lightning_modules.networks.build import takes_scale
from main import main
from tests.diffusion_runs import MODEL, lines, provenance, small, write_model
from tests.gsdd_runs import PROXY, write_sr

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FULL = CONFIGS / "sr" / "full.yaml"
ON_DISTILLED = CONFIGS / "sr" / "distilled.yaml"
ON_SAMPLES = CONFIGS / "sr" / "diffusion.yaml"
ON_DECODED = CONFIGS / "sr" / "gsdd.yaml"
ON_EDITED = CONFIGS / "sr" / "tripled.yaml"
ON_SETS = {ON_DISTILLED, ON_SAMPLES, ON_DECODED, ON_EDITED}
ALONE = sorted({*CONFIGS.glob("*.yaml"), *CONFIGS.glob("sr/*.yaml")} - ON_SETS)
SELECTIONS = sorted(CONFIGS.glob("selection/*.yaml"))
DISTILLERS = {name: CONFIGS / "distill" / f"{name}.yaml" for name in ("select", "relabel")}
DIFFUSION = {file.stem: file for file in sorted(CONFIGS.glob("distill/diffusion/*.yaml"))}
GSDD = {file.stem: file for file in sorted(CONFIGS.glob("distill/gsdd/*.yaml"))}
TRIPLED = {file.stem: file for file in sorted(CONFIGS.glob("distill/tripled/*.yaml"))}
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

CHAINS = {
    "quickstart": {"prior": ["prior"], "lora": ["lora"], "sample": ["sample"]},
    "bsd": {step: [step, f"{step}_bsd"] for step in ("prior", "lora", "sample")},
    "paper": {step: [step, f"{step}_paper"] for step in ("lora", "sample")},
}
"""Files of configs/distill/diffusion that lie on top of one another, by size and step."""

GSDD_CHAINS = {
    "quickstart": {"prior": ["prior"], "invert": ["invert"], "decode": ["decode"]},
    "bsd": {step: [step, f"{step}_bsd"] for step in ("prior", "invert", "decode")},
    "paper": {step: [step, f"{step}_paper"] for step in ("invert", "decode")},
}
"""Likewise, of configs/distill/gsdd."""

DATA_OF = {"quickstart": [], "bsd": [CONFIGS / "data" / "bsd.yaml"], "paper": [CONFIGS / "data" / "ost.yaml"]}
TRIPLED_SIZES = {**DATA_OF, "uhd": [CONFIGS / "data" / "uhd.yaml"]}
NO_PICTURES = ["--sample_grid.per_class", "0", "--image_grid.images", "0", "--sample_report.patches", "0"]
NOT_FOR_LABELS = {"augmentation", "batch_size"}
"""Settings of the data that decide no pseudo-label."""


def names(files: list[Path]) -> list[str]:
    return [file.stem for file in files]


def run(command: str, files: list[Path], *args: str) -> SRDistillCLI:
    configs = [arg for file in files for arg in ("--config", str(file))]
    cli = main([command, *configs, *args])
    assert cli is not None
    return cli


def whole_chain(files: list[Path], args: list[str]) -> None:
    """Fit, validate, test, and fit on."""
    assert run("fit", files, *args).trainer.global_step == 2
    for command in ("validate", "test"):
        assert (run(command, files, *args, "--ckpt_path", "best").run_dir / "results.json").is_file()
    resumed = run("fit", files, *args, "--ckpt_path", "last", "--trainer.max_steps", "3")
    assert resumed.trainer.global_step == 3
    assert (resumed.run_dir / "weights.safetensors").is_file()


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


def diffusion(command: str, size: str, step: str, *args: str) -> SRDistillCLI:
    """One step of a size, on its data set."""
    return run(command, [*(DIFFUSION[name] for name in CHAINS[size][step]), *DATA_OF[size]], *args)


@pytest.fixture
def small_data(tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options for patches of 16 pixels of the tiny pictures, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return [*small(tiny), "--data.init_args.validation", "1", "--run.root", "runs", *NO_PICTURES]


@pytest.fixture
def small_paper(small_data: list[str]) -> list[str]:
    """What the published setting needs besides: any patch is hard enough, and features without weights."""
    any_patch = ["--data.init_args.filters", "[]", "--data.init_args.candidate_stride", "16"]
    return [*small_data, *any_patch, "--data.init_args.features", "Descriptor"]


def test_diffusion(small_data: list[str]) -> None:
    """Each file reads what the ones before it have written, where they say."""
    for command, step in (("fit", "prior"), ("fit", "lora"), ("predict", "sample")):
        diffusion(command, "quickstart", step, *small_data)
    network = [f"{MODEL}network", "{architecture: EDSR, options: {n_feats: 4, n_resblocks: 1}}"]
    whole_chain([ON_SAMPLES], [*small_data, *network])


def test_larger_diffusion(small_data: list[str], tmp_path: Path) -> None:
    """The same in latents of a quarter of the side."""
    diffusion("fit", "bsd", "prior", *small_data, f"{MODEL}autoencoder_steps", "1")
    diffusion("fit", "bsd", "lora", *small_data)
    diffusion("predict", "bsd", "sample", *small_data)
    assert provenance(tmp_path / "distilled" / "diffusion")["model"]["latent_shape"] == [12, 4, 4]


@pytest.mark.parametrize("adaptation", ["LoRA", "DiffFit"])
def test_published_diffusion(adaptation: str, small_paper: list[str], tmp_path: Path) -> None:
    """On a pipeline of this machine; of each class one patch, not ten."""
    pretrained = write_model(tmp_path / "model")
    options = [*small_paper, f"{MODEL}pretrained", str(pretrained), f"{MODEL}adaptation", adaptation]
    assert diffusion("fit", "paper", "lora", *options).trainer.global_step == 2
    diffusion("predict", "paper", "sample", *options, f"{MODEL}budget.ipc", "1")
    record = provenance(tmp_path / "distilled" / "diffusion")
    assert record["samples"]["sampled"] == 7
    assert record["model"]["adaptation"]["class"] == adaptation


@pytest.mark.parametrize(("command", "step"), [("fit", "lora"), ("predict", "sample")])
def test_published_diffusion_is_parsed(command: str, step: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As it is in the paper (arXiv 2509.14777): DiT-XL/2-512, 7 classes below 23 dB, guidance 4, 50 steps."""
    with pytest.raises(SystemExit, match="0"):
        diffusion(command, "paper", step, "--print_config")
    config = yaml.safe_load(capsys.readouterr().out)
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    assert model["pretrained"] == "facebook/DiT-XL-2-512"
    assert model["sampler"] == {"method": "ddim", "steps": 50, "guidance": 4.0, "strength": 1.0}
    assert (data["root"], data["patch_size"]) == ("OutdoorSceneTrain_v2", 512)
    assert data["pseudo_labels"]["init_args"]["classes"] == 7
    assert [one["init_args"]["below"] for one in data["filters"]] == [23]
    if step == "sample":
        assert model["budget"] == {"ipc": 10, "patches": None, "percent": None}


def test_published_diffusion_without_network(
    small_paper: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(FileNotFoundError) as raised:
        diffusion("fit", "paper", "lora", *small_paper)
    assert str(raised.value).startswith("cannot get facebook/DiT-XL-2-512 from the Hugging Face hub (")
    assert "; for model.pretrained give a folder of diffusers on this machine" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("size", CHAINS)
def test_samples_are_of_the_classes_that_were_learned(size: str) -> None:
    """Fine-tuning and sampling agree in all settings of the data that decide pseudo-labels."""

    def decides(step: str) -> dict[str, Any]:
        given = [yaml.safe_load(DIFFUSION[name].read_text()).get("data", {}) for name in CHAINS[size][step]]
        options = {key: value for data in given for key, value in data.get("init_args", {}).items()}
        return {key: value for key, value in options.items() if key not in NOT_FOR_LABELS}

    assert decides("lora") == decides("sample") != {}


def gsdd(command: str, size: str, step: str, *args: str) -> SRDistillCLI:
    """One step of a size, on its data set."""
    return run(command, [*(GSDD[name] for name in GSDD_CHAINS[size][step]), *DATA_OF[size]], *args)


@pytest.mark.parametrize("size", ["quickstart", "bsd"])
def test_gsdd(size: str, small_data: list[str]) -> None:
    """Each file reads what the ones before it have written, where they say; the run inverts once and matches once."""
    gsdd("fit", size, "prior", *small_data)
    found = gsdd("fit", size, "invert", *small_data, f"{MODEL}inversion_steps", "1", f"{MODEL}proxy", PROXY)
    gsdd("predict", size, "decode", *small_data)
    assert len(lines(Path("distilled/gsdd"))) == len(found.model.latents)
    if size == "quickstart":
        network = [f"{MODEL}network", "{architecture: EDSR, options: {n_feats: 4, n_resblocks: 1}}"]
        whole_chain([ON_DECODED], [*small_data, *network])


@pytest.fixture
def in_folders(tiny_photographs: Path, small_data: list[str], tmp_path: Path) -> list[str]:
    """Options for two pictures in one folder and two in another, whose names are the classes."""
    for number, file in enumerate(sorted(tiny_photographs.iterdir())):
        folder = tmp_path / "tree" / ("sky", "water")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder)
    return [*small_data, "--data.init_args.root", str(tmp_path / "tree"), f"{MODEL}generator.dtype", "float32"]


def test_published_gsdd(in_folders: list[str], tmp_path: Path) -> None:
    """On an SR network that spandrel recognises; of each class three patches, not ten."""
    source = [f"{MODEL}generator.source", str(write_sr(tmp_path / "weights.safetensors"))]
    smaller = [f"{MODEL}budget.ipc", "3", f"{MODEL}inversion_steps", "1", f"{MODEL}proxy", PROXY]
    found = gsdd("fit", "paper", "invert", *in_folders, *source, *smaller)
    assert found.model.latents.shape == (6, 3, 4, 4)
    gsdd("predict", "paper", "decode", *small_to_decode(in_folders))
    assert [line["pseudo_label"] for line in lines(tmp_path / "distilled" / "gsdd")] == [0, 0, 0, 1, 1, 1]


def small_to_decode(options: list[str]) -> list[str]:
    """Without those of a generator, which the latents name."""
    return [word for at, word in enumerate(options) if "generator" not in options[at - at % 2]]


def test_published_gsdd_is_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    """As GSDD has it (AAAI 2024): Real-ESRGAN, the folders of OST as classes."""
    with pytest.raises(SystemExit, match="0"):
        gsdd("fit", "paper", "invert", "--print_config")
    config = yaml.safe_load(capsys.readouterr().out)
    model, data = config["model"]["init_args"], config["data"]["init_args"]
    assert model["generator"]["source"].endswith("RealESRGAN_x4plus.pth")
    assert model["budget"] == {"ipc": 10, "patches": None, "percent": None}
    assert data["pseudo_labels"]["class_path"].endswith("FolderLabels")


@pytest.mark.parametrize("overlay", ["invert_realesrgan", "invert_paper"])
def test_gsdd_without_network(overlay: str, small_data: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(Path("hub").absolute()))
    classes = ["--data.init_args.pseudo_labels", "{class_path: PseudoLabels, init_args: {classes: 2}}"]
    with pytest.raises(FileNotFoundError) as raised:
        run("fit", [GSDD["invert"], GSDD[overlay]], *small_data, *classes)
    assert str(raised.value).startswith("cannot get RealESRGAN_x4plus.pth of lllyasviel/Annotators from the Hugging")
    assert "; for model.generator.source give a file that spandrel reads" in str(raised.value)


@pytest.mark.parametrize("size", TRIPLED_SIZES)
def test_tripled(size: str, small_data: list[str]) -> None:
    """Editing reads what aligning has written; where a size says nothing of features, those without weights."""
    overlay = [] if size == "quickstart" else [size]
    budget = ["--data.init_args.budget", "{patches: 5, percent: null}", f"{MODEL}features", "Descriptor"]
    for command, step in (("fit", "align"), ("predict", "edit")):
        files = [TRIPLED[step], *TRIPLED_SIZES[size], *(TRIPLED[f"{step}_{name}"] for name in overlay)]
        run(command, files, *small_data, *budget)
    assert len(lines(Path("distilled/tripled"))) == 5
    if size == "quickstart":
        network = [f"{MODEL}network", "{architecture: EDSR, options: {n_feats: 4, n_resblocks: 1}}"]
        whole_chain([ON_EDITED], [*small_data, *network])


def test_published_tripled_is_parsed(capsys: pytest.CaptureFixture[str]) -> None:
    """As TripleD has it (arXiv 2504.14826): the most complex 2 %, by entropy."""
    with pytest.raises(SystemExit, match="0"):
        run("fit", [TRIPLED["align"], *DATA_OF["paper"], TRIPLED["align_paper"]], "--print_config")
    data = yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]
    assert data["budget"]["percent"] == 2
    assert data["criterion"]["class_path"].endswith(".Entropy")
    assert data["selector"]["class_path"].endswith(".Highest")


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
    whole_chain([FULL, file], tiny)


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
    """Checked and expanded to its stages, of which none is done; for one seed and network, since all are read alike."""
    monkeypatch.setattr("comparison.running.timing.measure_update", lambda config, device: 0.001)
    plan = yaml.safe_load(file.read_text())
    less = ["--seeds", "[0]", "--networks", "[edsr_tiny]", "--root", str(tmp_path / "runs")]
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
    distillation = {*ON_SETS, *DISTILLERS.values(), GSDD["invert_realesrgan"], *TRIPLED.values()}
    distillation |= {DIFFUSION[name] for chain in CHAINS.values() for files in chain.values() for name in files}
    distillation |= {GSDD[name] for chain in GSDD_CHAINS.values() for files in chain.values() for name in files}
    fits = {*ALONE, *SELECTIONS, *distillation, *NETWORKS, *DATA, *RESTORATION, *TRAINERS, *debug}
    assert set(CONFIGS.rglob("*.yaml")) == {*fits, *PLANS, *REGIMES}
