"""A curriculum from the command line: exact resume, the same draws in two processes, any dataset."""

from __future__ import annotations

import csv
import os

import numpy as np
import pytest
import torch

import callbacks.curriculum
from main import main
from tests.test_distributed import TWO, weights
from tests.test_resume import differences, kept, last  # noqa: F401  # a fixture

FEW = 2


@pytest.fixture
def learning(tiny, monkeypatch) -> list[str]:
    """Measures 5 of 27 windows every second step, in force two batches later; stage two begins with batch 6."""
    monkeypatch.setattr(callbacks.curriculum, "LAG", FEW)
    return [
        *tiny,
        *("--data.init_args.sub_image", "48", "--data.init_args.augmentation", "strong"),
        *("--data.init_args.batch_size", "4"),
        *("--curriculum.enabled", "true", "--curriculum.refresh_windows", "5", "--curriculum.refresh_every", "2"),
        *("--trainer.max_steps", "12", "--trainer.val_check_interval", "4", "--checkpoint.every_n_steps", "1"),
    ]


def table(cli) -> list[list[str]]:
    with (cli.run_dir / "curriculum" / "drawn.csv").open() as file:
        return list(csv.reader(file))


@pytest.mark.parametrize(
    ("options", "cuts"),
    [
        pytest.param([], ["2", "5", "7", "8", "8-validated"], id="step"),
        pytest.param(["--data.init_args.num_workers", "1", "--curriculum.uncertainty", "loss"], ["7"], id="a worker"),
        pytest.param(
            ["--curriculum.at", "plateau", "--curriculum.patience", "1", "--curriculum.switch", "0.9"],
            ["8-validated", "9"],
            id="plateau",
        ),
    ],
)
def test_resume_is_exact(learning, kept, options, cuts):  # noqa: F811
    uninterrupted = main(["fit", *learning, *options])
    known = last(uninterrupted)["callbacks"]["Curriculum"]["stages"]["uncertainty"]
    assert (known >= 0).sum() > 5
    for cut in cuts:
        resumed = main(["fit", *learning, *options, "--ckpt_path", str(kept / f"{cut}.ckpt")])
        assert differences(last(uninterrupted), last(resumed)) == [], cut
        assert table(resumed) == table(uninterrupted)


def test_other_settings_begin_where_training_is(learning, kept):  # noqa: F811
    main(["fit", *learning])
    with pytest.warns(UserWarning, match="begins afresh here: its settings, or the data, are not the checkpoint's"):
        resumed = main(["fit", *learning, "--ckpt_path", str(kept / "8.ckpt"), "--curriculum.switch", "10"])
    rows = table(resumed)[1:]
    assert [(row[0], row[2]) for row in rows] == [("9", "1"), ("10", "1"), ("11", "2"), ("12", "2")]
    plain = main(["fit", *learning, "--ckpt_path", str(kept / "8.ckpt"), "--curriculum.enabled", "false"])
    assert "Curriculum" not in last(plain)["callbacks"]


def test_other_patches_begin_where_training_is(learning, kept):  # noqa: F811
    """As many, chosen by another seed: what is known is not of them."""
    selected = ["--data", "SelectedPatches", "--data.init_args.sub_image", "null", "--data.budget.patches", "8"]
    main(["fit", *learning, *selected, "--data.select_seed", "1"])
    other = [*selected, "--data.select_seed", "2", "--ckpt_path", str(kept / "8.ckpt")]
    with pytest.warns(UserWarning, match="begins afresh here"):
        again = main(["fit", *learning, *other])
    assert table(again)[1][0] == "9"


RESTORATION = ["--data.init_args.scale", "1", "--data.init_args.degradation", "[{class_path: GaussianNoise}]"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
@pytest.mark.usefixtures("decoded")
@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], id="5 windows"),
        pytest.param([*RESTORATION, "--curriculum.refresh_windows", "1"], id="1 window, restored"),
    ],
)
def test_two_processes_draw_what_one_does(learning, options):
    one = main(["fit", *learning, *options])
    two = main(["fit", *learning, *options, *TWO, "--data.init_args.batch_size", "2"])
    assert table(one) == table(two)
    first, second = weights(one), weights(two)
    assert max((first[name] - second[name]).abs().max().item() for name in first) < 1e-5
    known = [last(cli)["callbacks"]["Curriculum"]["stages"]["uncertainty"] for cli in (one, two)]
    assert torch.equal(*known)


@pytest.mark.parametrize("data", ["SelectedPatches", "SyntheticPatches"])
def test_any_dataset(tiny, tiny_but_network, tmp_path, data):
    """A selection, and the distilled set that is made of it."""
    options = ["--data", "SelectedPatches", "--data.budget.patches", "8"]
    if data == "SyntheticPatches":
        folder = str(tmp_path / "set")
        main(["predict", *tiny_but_network, *options, "--model", "PatchSelection", "--distilled.folder", folder])
        options = ["--data", "SyntheticPatches", "--data.distilled", folder]
    cli = main(["fit", *tiny, *options, "--curriculum.enabled", "true"])
    counts = np.array([row[5:] for row in table(cli)[1:]], dtype=int)
    assert counts.sum() == 2 * 2
