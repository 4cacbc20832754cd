"""What the command line asks for is what happens, whatever a checkpoint or an earlier file says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from callbacks import EMA, LastCheckpoint, NaNGuard, Provenance
from cli.app import SRDistillCLI
from lightning_modules.losses import L1, MSE
from main import main
from tests.run_records import logged

SGD = ["--model.init_args.optimizer", "torch.optim.SGD", "--model.init_args.optimizer.init_args.lr"]
ONE_CYCLE = ["--model.init_args.lr_scheduler", "torch.optim.lr_scheduler.OneCycleLR"]


def run(*args: str) -> SRDistillCLI:
    cli = main(list(args))
    assert cli is not None
    return cli


def learning_rates(cli: SRDistillCLI) -> list[float]:
    """Of each step that this run took, as the LearningRateMonitor saw it just before the step."""
    return logged(cli.run_dir, "lr-SGD")


def weights(cli: SRDistillCLI) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in cli.model.parameters()])


def one_cycle(max_lr: float, total_steps: int) -> list[float]:
    """The schedule by torch alone."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=max_lr, total_steps=total_steps)
    rates = []
    for _ in range(total_steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step() if len(rates) < total_steps else None
    return rates


def test_learning_rate_of_a_resumed_run(tiny: list[str]) -> None:
    """One SGD step moves the weights by lr x gradient, so twice the rate moves them twice as far."""
    first = run("fit", *tiny, *SGD, "0.01")
    start = weights(first)
    resumed = [*tiny, "--trainer.max_steps", "3", "--ckpt_path", f"{first.run_dir}/checkpoints/last.ckpt"]
    as_before = run("fit", *resumed, *SGD, "0.01")
    doubled = run("fit", *resumed, *SGD, "0.02")
    assert (learning_rates(first), learning_rates(as_before), learning_rates(doubled)) == ([0.01] * 2, [0.01], [0.02])
    torch.testing.assert_close(weights(doubled) - start, 2 * (weights(as_before) - start), rtol=1e-3, atol=1e-7)


def test_schedule_of_a_resumed_run(tiny: list[str]) -> None:
    schedule = [*ONE_CYCLE, "--model.init_args.lr_scheduler.init_args.total_steps", "10"]
    rate = "--model.init_args.lr_scheduler.init_args.max_lr"
    first = run("fit", *tiny, *SGD, "1.0", *schedule, rate, "0.01")
    resumed = run("fit", *tiny, *SGD, "1.0", *schedule, rate, "0.03", "--trainer.max_steps", "4", "--ckpt_path", "last")
    assert learning_rates(first) == pytest.approx(one_cycle(0.01, 10)[:2])
    assert learning_rates(resumed) == pytest.approx(one_cycle(0.03, 10)[2:4])


@pytest.mark.parametrize("scheduled", [False, True])
def test_training_is_extended(tiny: list[str], scheduled: bool) -> None:
    schedule = [*ONE_CYCLE, "--model.init_args.lr_scheduler.init_args.max_lr", "0.01"] if scheduled else []
    run("fit", *tiny, *SGD, "0.01", *schedule)
    longer = run("fit", *tiny, *SGD, "0.01", *schedule, "--trainer.max_steps", "6", "--ckpt_path", "last")
    assert longer.trainer.global_step == 6
    expected = one_cycle(0.01, 6) if scheduled else [0.01] * 6
    assert learning_rates(longer) == pytest.approx(expected[2:])


def test_other_options_of_a_resumed_run(tiny: list[str]) -> None:
    first = run("fit", *tiny, "--model.init_args.loss", "L1")
    resumed = run("fit", *tiny, "--ckpt_path", "last", "--model.init_args.loss", "MSE", "--trainer.max_steps", "3")
    assert isinstance(first.model.loss, L1)
    assert isinstance(resumed.model.loss, MSE)
    tested = run("test", *tiny, "--ckpt_path", "last", "--model.init_args.protocol", "matlab")
    assert "MATLAB" in (tested.run_dir / "results.json").read_text()


def test_another_network_or_optimiser_than_the_checkpoints_is_refused(tiny: list[str]) -> None:
    run("fit", *tiny)
    with pytest.raises(ValueError, match=r"n_feats.*give the --config files that it was trained with"):
        main(["test", *tiny, "--ckpt_path", "last", "--model.init_args.network.options", "{n_feats: 8}"])
    with pytest.raises(ValueError, match="another optimiser than SGD"):
        main(["fit", *tiny, "--ckpt_path", "last", "--trainer.max_steps", "3", *SGD, "0.01"])


def test_later_file_and_command_line_win(tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("trainer: {max_steps: 7, max_epochs: 3}\ndata: {init_args: {batch_size: 4, scale: 2}}\n")
    second.write_text("trainer: {max_steps: 8}\ndata: {init_args: {batch_size: 5}}\n")
    files = ["--config", str(first), "--config", str(second)]
    with pytest.raises(SystemExit):
        main(["fit", *files, "--data.init_args.batch_size", "6", "--print_config"])
    shown = capsys.readouterr().out
    for line in ("max_steps: 8", "max_epochs: 3", "batch_size: 6", "scale: 2"):
        assert f" {line}\n" in shown


def test_printed_configuration_can_be_given_again(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = []
    for args in (tiny, ["--config", str(tmp_path / "printed.yaml")]):
        with pytest.raises(SystemExit):
            main(["fit", *args, "--print_config"])
        printed.append(capsys.readouterr().out)
        (tmp_path / "printed.yaml").write_text(printed[0])
    assert printed[0] == printed[1]
    assert run("fit", "--config", str(tmp_path / "printed.yaml")).trainer.global_step == 2


def test_scale_comes_from_the_data(tiny: list[str], tmp_path: Path) -> None:
    cli = run("fit", *tiny, "--data.init_args.scale", "2")
    assert cli.model.scale == 2
    assert cli.model(torch.zeros(1, 3, 8, 8)).shape == (1, 3, 16, 16)
    with pytest.raises(ValueError, match=r"model.init_args.scale is 3 but data.init_args.scale is 4"):
        main(["fit", *tiny, "--model.init_args.scale", "3", "--run.experiment", "refused"])
    assert not list((tmp_path / "runs" / "refused").glob("fit/*"))


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_random_weights_are_not_evaluated(tiny: list[str], command: str) -> None:
    with pytest.raises(ValueError, match=rf"{command} needs trained weights: add --ckpt_path last"):
        main([command, *tiny])


def test_essential_callbacks_survive_a_list_in_yaml(tiny: list[str], tmp_path: Path) -> None:
    file = tmp_path / "callbacks.yaml"
    file.write_text(
        "trainer:\n  callbacks: [{class_path: EarlyStopping, init_args: {monitor: train/loss}}]\n"
        "  logger: {class_path: CSVLogger, init_args: {save_dir: " + str(tmp_path / "mine") + "}}\n"
    )
    cli = run("fit", *tiny, "--config", str(file))
    kinds = {type(callback) for callback in cli.trainer.callbacks}
    assert {EMA, LastCheckpoint, NaNGuard, Provenance} <= kinds
    assert "EarlyStopping" in {kind.__name__ for kind in kinds}
    assert (cli.run_dir / "metrics.csv").is_file()
    assert list((tmp_path / "mine").rglob("metrics.csv"))
