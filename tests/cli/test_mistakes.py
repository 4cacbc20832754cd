"""Mistakes on the command line and in files: one short line that names the key and the closest valid one."""

from __future__ import annotations

from pathlib import Path

import pytest

from main import main

WRONG_ARGUMENTS = [
    ("--trainer.max_step=3", "no option 'trainer.max_step'; did you mean 'trainer.max_steps'?"),  # no abbreviations
    ("--conf=x.yaml", "no option 'conf'; did you mean 'config'?"),
    ("--trainr.max_steps=3", "no option 'trainr.max_steps'; did you mean 'trainer'?"),
    ("--max_steps=3", "did you mean 'trainer.max_steps'?"),
    ("--batch_size=3", "did you mean 'data.init_args.batch_size'?"),
    ("--lr=3", "did you mean 'model.init_args.optimizer.init_args.lr'?"),
    ("--run.nme=x", "did you mean 'run.name'?"),
    ("--model.init_args.networks=3", "model: SuperResolution has no option 'networks'; did you mean 'network'?"),
    ("--model.netwrk.architecture=EDSR", "no option 'netwrk.architecture'; did you mean 'network'?"),
    ("--model.optimizer.init_args.lrr=1", "model.optimizer: Adam has no option 'lrr'; did you mean 'lr'?"),
    ("--data.patchsize=3", "data: RealImages has no option 'patchsize'; did you mean 'patch_size'?"),
    ("--data=RealImage", "data: there is no class 'RealImage'; did you mean 'RealImages'?"),
    ("--model.loss=Charbonier", "model.loss: there is no class 'Charbonier'; did you mean 'Charbonnier'?"),
    ("--model.optimizer=torch.optim.Adamm", "model.optimizer: there is no class 'Adamm'; did you mean 'Adam'?"),
    ("--data.augmentation=[RandomFlp]", "data.augmentation: there is no class 'RandomFlp'; did you mean 'RandomFlip'?"),
    ("--trainer.max_steps=abc", "trainer.max_steps: got abc, expected int"),
    ("--trainer.precision=bf16-mixd", "did you mean 'bf16-mixed'?"),
    ("--run.wandb=onlin", "run.wandb: got onlin, expected auto, offline, online, disabled; did you mean 'online'?"),
    ("--data.degradation=JPEG", "data.degradation: got JPEG, expected a list in brackets"),
    ("--data.patch_size=3.5", "data.patch_size: got 3.5, expected int"),
    ("--model.optimizer.lr=abc", "model.optimizer.lr: got abc, expected float"),
    ("--config=nope.yaml", "File does not exist"),
    ("--data=null", "data must be given"),
]
WRONG_FILES = [
    ("modle: {class_path: SuperResolution}", "no option 'modle.class_path'; did you mean 'model'?"),
    ("trainer: {max_step: 4}", "did you mean 'trainer.max_steps'?"),
    ("fit: {trainer: {max_steps: 4}}", "a file's options stand at its top level"),
    ("model: {init_args: {optimiser: Adam}}", "SuperResolution has no option 'optimiser'; did you mean 'optimizer'?"),
    ("model: {init_args: {network: {architecture: EDSR, option: {n_feats: 4}}}}", "did you mean 'network.options'?"),
    ("model: {class_path: SuperResolution, scale: 2}", "beside class_path stands init_args"),
    ("model: {initargs: {scale: 2}}", "did you mean 'init_args'?"),
    ("data: {class_path: RealImagess}", "there is no class 'RealImagess'; did you mean 'RealImages'?"),
    ("data: {class_path: nowhere.Data}", "No module named 'nowhere'"),
    ("data: {init_args: {benchmarks: {set: [Set5]}}}", "did you mean 'benchmarks.sets'?"),
    ("data: {class_path: SelectedPatches, init_args: {selector: Hihgest}}", "did you mean 'Highest'?"),
    ("data: {class_path: SelectedPatches, init_args: {filters: [{class_path: Bnad}]}}", "did you mean 'Band'?"),
    ("data: {class_path: SelectedPatches, init_args: {budget: {ipcs: 3}}}", "did you mean 'budget.ipc'?"),
    ("data: {class_path: SelectedPatches, init_args: {criterion: SRLoss}}", "data.criterion: checkpoint must be given"),
    ("data: {init_args: {augmentation: [Mixp]}}", "there is no class 'Mixp'; did you mean 'Mixup'?"),
    ("data: {init_args: {augmentation: [{class_path: Mixup, init_args: {alfa: 2}}]}}", "did you mean 'alpha'?"),
    ("trainer: {callbacks: [{class_path: EarlyStoping}]}", "did you mean 'EarlyStopping'?"),
    ("trainer: {callbacks: [EarlyStopping]}", "trainer.callbacks: monitor must be given"),
    ("data: {init_args: {patch_size: abc}}", "data.patch_size: got abc, expected int"),
    ("model: {class_path: [\ntrainer: 3: 4\n", "wrong.yaml, line 2: no valid YAML: did not find expected ',' or ']'"),
    ("just text", "expected options such as 'trainer: {max_steps: 100}', found just text"),
    ("", "found nothing"),
]


def complaint(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """What a command that ends with status 2 says; one line."""
    with pytest.raises(SystemExit) as stop:
        main(["fit", *args, "--ckpt_path=nothing"])  # ends the command where a mistake is not noticed
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert not said.out
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert len(said.err) < 300
    return said.err


@pytest.mark.parametrize(("argument", "expected"), WRONG_ARGUMENTS)
def test_argument(argument: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert expected in complaint(capsys, argument)


@pytest.mark.parametrize(("content", "expected"), WRONG_FILES)
def test_file(content: str, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(content)
    assert expected in complaint(capsys, "--config", str(file))


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_other_commands_explain_too(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([command, "--data.rot=x"])
    assert capsys.readouterr().err == "error: data: RealImages has no option 'rot'; did you mean 'root'?\n"


def test_command() -> None:
    with pytest.raises(SystemExit, match=r"the first argument is 'fti', .*; did you mean 'fit'?"):
        main(["fti"])


@pytest.mark.parametrize("content", ["trainer: [1, 2]", "run: null", "ema: 3"])
def test_group_that_is_no_mapping(content: str, tmp_path: Path) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(content)
    with pytest.raises(ValueError, match="expected a mapping of its options"):
        main(["fit", "--config", str(file), "--ckpt_path=nothing"])


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_distiller_that_does_not_learn(command: str, tiny_but_network: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^PatchSelection only predicts: python main\.py predict --config \.\.\.$"):
        main([command, *tiny_but_network, "--model", "PatchSelection"])
    assert not (tmp_path / "runs").exists()
