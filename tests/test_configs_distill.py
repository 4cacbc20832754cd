"""Every chain of configs/distill works: each step reads what the one before has written, on four tiny pictures."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.app import SRDistillCLI
from tests.config_runs import CONFIGS, ON_DECODED, ON_EDITED, ON_SAMPLES, run, whole_chain
from tests.diffusion_runs import MODEL, lines, provenance, small, write_model
from tests.gsdd_runs import PROXY, write_sr

DIFFUSION = {file.stem: file for file in sorted(CONFIGS.glob("distill/diffusion/*.yaml"))}
GSDD = {file.stem: file for file in sorted(CONFIGS.glob("distill/gsdd/*.yaml"))}
TRIPLED = {file.stem: file for file in sorted(CONFIGS.glob("distill/tripled/*.yaml"))}
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


def test_every_file_is_in_a_chain() -> None:
    """Those of the complexity network have tests of their own: test_complexity_regression.py."""
    diffusion_files = {name for chain in CHAINS.values() for files in chain.values() for name in files}
    gsdd_files = {name for chain in GSDD_CHAINS.values() for files in chain.values() for name in files}
    tripled_files = {f"{step}{size}" for step in ("align", "edit") for size in ("", "_bsd", "_uhd", "_paper")}
    assert diffusion_files == DIFFUSION.keys()
    assert gsdd_files | {"invert_realesrgan"} == GSDD.keys()
    assert tripled_files | {"complexity", "complexity_paper"} == TRIPLED.keys()
