"""The live display, on something like a terminal and on a plain file; and progress read from Lightning's CSV file."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import pytest
from rich.console import Console

from cli.loggers import run_loggers
from cli.run_folders import RunSettings
from comparison.running import display as module
from comparison.running.display import Display, read_progress
from lightning_modules import SuperResolution
from lightning_modules.networks import NetworkSpec

LOG = Path("stages/[b]/log.txt")


def screen(written: str) -> list[str]:
    """What a terminal shows in the end; of its commands, rich uses: to the line's start, up, and erase the line."""
    lines, row = [""], 0
    for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)", written):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part == "\x1b[1A":
            row -= 1
        elif not part.startswith(("\x1b", "\r")):
            lines[row] += part
    return [line.rstrip() for line in lines if line.strip()]


@pytest.fixture
def file() -> StringIO:
    return StringIO()


@pytest.fixture
def terminal(file: StringIO, monkeypatch: pytest.MonkeyPatch) -> Console:
    monkeypatch.setenv("TERM", "xterm-256color")
    return Console(file=file, force_terminal=True, width=100)


def test_plain_lines_where_there_is_no_terminal(file: StringIO):
    with Display(4, lambda: 5.0, Console(file=file, force_terminal=False)) as display:
        display.skipped(1)
        display.begin("a", resumed=False)
        display.begin("b", resumed=True)
        display.progress("a", 1, 2)
        display.end("a", 75)
        display.failed("b", LOG, "no [images]; " + "and so on " * 20)
    assert file.getvalue().splitlines() == [
        "a: started",
        "b: resumed",
        "a: done in 1 min 15 s",
        f"b: failed: no [images]; {'and so on ' * 20} (log: {LOG})",
    ]


def test_a_terminal_without_cursor_movement_gets_plain_lines(file: StringIO, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "dumb")
    with Display(1, lambda: None, Console(file=file, force_terminal=True)) as display:
        display.begin("a", resumed=False)
    assert screen(file.getvalue()) == ["a: started"]


def test_bars_of_what_runs(file: StringIO, terminal: Console):
    with Display(12, lambda: 4800.0, terminal) as display:
        display.skipped(3)
        for name in ("a", "b[x]", "c"):
            display.begin(name, resumed=name == "b[x]")
        display.progress("a", 250, 1000)
        display.end("c", 10)
    overall, *running = screen(file.getvalue())
    assert re.fullmatch(r"stages ━.* 4/12 0:00:0\d 1 h 20 min left", overall)
    assert len(running) == 2
    assert re.search(r" a +━.* 25% 0:00:0\d$", running[0])
    assert re.search(r" b\[x\] \(resumed\) ━[^%]* 0:00:0\d$", running[1])


def test_failures_stay_above_the_bars(file: StringIO, terminal: Console):
    with Display(3, lambda: None, terminal) as display:
        display.begin("b", resumed=False)
        display.failed("b", LOG, "no [images]")
        display.skipped(1)
        display.begin("c", resumed=False)
    first, overall, running = screen(file.getvalue())
    assert first == f"b: failed: no [images] (log: {LOG})"
    assert re.search(r" 2/3 .*unknown time left$", overall)
    assert " c " in running


def test_nothing_is_left_when_all_are_done(file: StringIO, terminal: Console):
    with Display(2, lambda: 0.0, terminal) as display:
        display.skipped(1)
        display.begin("c", resumed=False)
        display.end("c", 1)
    assert len(screen(file.getvalue())) == 1
    assert re.search(r" 2/2 0:00:0\d$", screen(file.getvalue())[0])


def test_time_left_counts_down_between_stages(file: StringIO, terminal: Console, monkeypatch: pytest.MonkeyPatch):
    clock = [1000.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    estimates = iter([120.0, 100.0])
    with Display(2, lambda: next(estimates), terminal) as display:
        display.begin("a", resumed=False)
        clock[0] += 30
    assert "1 min 10 s left" in screen(file.getvalue())[0]


def test_the_terminal_is_given_back_after_an_error(file: StringIO, terminal: Console):
    with pytest.raises(KeyboardInterrupt), Display(2, lambda: None, terminal):
        raise KeyboardInterrupt
    assert file.getvalue().rstrip().endswith("\x1b[?25h")  # shows the cursor


def test_progress_of_a_real_fit(tmp_path: Path, tiny_images, quick_trainer):
    seen = []

    class Look(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append(read_progress(tmp_path / "run", 6))

    loggers = run_loggers(tmp_path / "run", RunSettings(wandb="disabled"), "fit")
    trainer = quick_trainer(max_steps=6, val_check_interval=6, logger=loggers, log_every_n_steps=2, callbacks=[Look()])
    trainer.fit(SuperResolution(NetworkSpec("EDSR", {"n_feats": 4, "n_resblocks": 1})), tiny_images)
    # written every two steps, at once
    assert seen == [None, None, (2, 6), (2, 6), (4, 6), (4, 6)]
    assert read_progress(tmp_path / "run", 6) == (6, 6)


def metrics(folder: Path, text: str) -> Path:
    (folder / "metrics.csv").write_bytes(text.encode())
    return folder


HEADER = "epoch,step,train/loss\r\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("epoch,st", None),
        ("epoch,train/loss\r\n0,0.5\r\n", None),
        (HEADER, None),
        (HEADER + "0,49,0.5\r\n", (50, 200)),
        (HEADER + "0,49,0.5\r\n0,99,\r\n,99,\r\n", (100, 200)),
        (HEADER + "0,99,0.5\r\n0,149,0.", (100, 200)),  # half a line
        (HEADER + "0,99,0.5\r\n0,14", (100, 200)),
        (HEADER + "0,99,0.5\r\n0,1,149,0.5\r\n", (100, 200)),  # made anew with more columns
        (HEADER + "0,99,0.5\r\n0,,0.5\r\n\0\0,\0,\0\r\n", (100, 200)),
        (HEADER + "0,99,0.5\r\n0,1\r49,0.5\r\n", (100, 200)),
        (HEADER + "0,999,0.5\r\n", (200, 200)),
    ],
)
def test_progress_of_damaged_files(tmp_path: Path, text: str, expected: tuple[int, int] | None):
    assert read_progress(metrics(tmp_path, text), 200) == expected


def test_no_progress_without_a_file_or_a_total(tmp_path: Path):
    assert read_progress(tmp_path / "missing", 10) is None
    assert read_progress(metrics(tmp_path, HEADER + "0,4,0.5\r\n"), None) is None


@pytest.mark.parametrize("tail", range(26, 40))
def test_only_the_tail_of_a_large_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tail: int):
    """Wherever the tail begins: in a line, on its first byte, between CR and LF."""
    monkeypatch.setattr(module, "TAIL", tail)
    rows = "".join(f"0,{step},0.5\r\n" for step in range(9_999, 20_000))
    # Were the file read from the start, the first line would win.
    assert read_progress(metrics(tmp_path, HEADER + "0,50000,0.5\r\n" + rows), 100_000) == (20_000, 100_000)
