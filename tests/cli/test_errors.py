"""Which exceptions end in one line, and which in a traceback, wherever they are raised."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cli.app import _format_warning
from cli.errors import exit_with_message
from datamodules import real
from main import main


def ending(*args: str) -> str:
    """The message that a command ends with."""
    with pytest.raises(SystemExit) as stop, exit_with_message():
        main(list(args))
    message = str(stop.value.code)
    assert message.startswith("error: ")
    assert "Union" not in message
    assert message.count("\n") == 0
    return message


def test_constructors_of_model_network_data_and_callbacks(tiny: list[str]) -> None:
    fit = ["fit", *tiny]
    assert "unknown network 'EDSRR' (did you mean 'EDSR'?)" in ending(*fit, "--model.network.architecture", "EDSRR")
    assert "EDSR has no option 'n_feat' (did you mean 'n_feats'?)" in ending(
        *fit, "--model.network.options.n_feat", "4"
    )
    assert "did you mean 'strong'?" in ending(*fit, "--data.augmentation", "strng")
    assert "patch_size is 30; expected a multiple of the scale 4" in ending(*fit, "--data.patch_size", "30")
    assert "ema.decay is 2.0; expected" in ending(*fit, "--ema.decay", "2")


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--trainer.accelerator=gpuu", "trainer: You selected an invalid accelerator name"),
        ("--trainer.strategy=dpp", "trainer: You selected an invalid strategy name"),
        ("--trainer.devices=0", "value is not a valid input using cpu accelerator"),
    ],
)
def test_flags_that_the_trainer_refuses(tiny: list[str], flag: str, expected: str) -> None:
    assert expected in ending("fit", *tiny, flag)


def test_preparing_data(tiny: list[str], tmp_path: Path) -> None:
    assert "data.root: no folder" in ending("fit", *tiny, "--data.root", str(tmp_path / "nowhere"))


def test_setting_up(tiny: list[str], tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.safetensors")
    assert missing in ending("fit", *tiny, "--model.init_from", missing)


def test_training(tiny: list[str]) -> None:
    overflow = ["--model.optimizer=torch.optim.SGD", "--model.optimizer.lr=1e30", "--trainer.val_check_interval=50"]
    assert "not finite for 10 steps in a row" in ending("fit", *tiny, *overflow, "--trainer.max_steps=30")


def test_interruption(tiny: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cli.app.run_loggers", interrupt)
    with pytest.raises(SystemExit) as stop, exit_with_message():
        main(["fit", *tiny])
    assert stop.value.code == 130


def test_our_own_mistakes_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError), exit_with_message():
        _ = 1 / 0
    with pytest.raises(ValueError, match="invalid literal"), exit_with_message():
        int("x")  # a ValueError, but nobody raised it on purpose
    with pytest.raises(RuntimeError, match="shape"), exit_with_message():
        torch.zeros(2, 3).view(5)
    monkeypatch.setenv("SRDISTILL_DEBUG", "1")
    with pytest.raises(ValueError, match="needs trained weights"), exit_with_message():
        main(["test"])


def test_files_that_the_system_refuses(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: No such file or directory: .*nothing"), exit_with_message():
        (tmp_path / "nothing").read_text()


def test_our_own_warnings_are_plain() -> None:
    assert _format_warning("left out: a.png", UserWarning, real.__file__, 3) == "warning: left out: a.png\n"
    assert torch.__file__ in _format_warning("deprecated", UserWarning, torch.__file__, 3)
