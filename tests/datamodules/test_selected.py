"""SelectedPatches through the command line, against the photographs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cli.errors import message_for_users
from datamodules import RealImages, SelectedPatches
from datamodules.selection import Budget, Highest, PSNRBicubic
from main import main

CHOSEN = ["--data", "SelectedPatches", "--data.budget.patches", "4", "--data.selector", "Highest"]


@pytest.fixture
def selected(tiny_photographs) -> SelectedPatches:
    """Nine 32-pixel patches of each of three pictures, the four that bicubic does best."""
    data = SelectedPatches(
        Budget(patches=4), selector=Highest(), root=str(tiny_photographs), scale=4, patch_size=32, seed=0
    )
    data.prepare_data()
    data.setup("fit")
    return data


def test_batches_are_the_chosen_patches_of_the_photographs(selected, tiny_photographs):
    crops = selected.training_patches()
    assert len(crops) == 4
    batch = crops.__getitems__(range(4))
    places = selected.selection.candidates.places[selected.selection.chosen]
    names = selected.store.index.names
    expected = {
        np.asarray(Image.open(tiny_photographs / names[image]))[top : top + 32, left : left + 32].tobytes()
        for image, top, left in places
    }
    assert {hr.permute(1, 2, 0).contiguous().numpy().tobytes() for hr in batch.hr} == expected
    everything = selected.selection.candidates.pairs(np.arange(27))
    best = PSNRBicubic()(everything).topk(4).values
    torch.testing.assert_close(PSNRBicubic()(batch).sort(descending=True).values, best)


def test_validation_is_that_of_full_data(selected, tiny_photographs):
    full = RealImages(str(tiny_photographs), scale=4, patch_size=32, seed=0)
    full.setup("fit")
    assert selected.validation_images().names == full.validation_images().names
    held_out = set(full.validation_images().names)
    names = selected.store.index.names
    assert held_out.isdisjoint(names[image] for image in selected.selection.candidates.places[:, 0])


def test_patches_to_distil_tell_where_they_come_from(selected):
    patches = list(selected.distilled_patches())
    selection = selected.selection
    assert [patch.metadata["score"] for patch in patches] == selection.scores[selection.chosen].tolist()
    assert patches[0].metadata.keys() == {"pseudo_label", "score", "source", "top", "left"}
    assert patches[0].hr.shape == (32, 32, 3)
    assert patches[0].lr.shape == (8, 8, 3)


def test_fit_shows_and_records_what_was_chosen_and_resumes(tiny):
    cli = main(["fit", *tiny, *CHOSEN])
    provenance = json.loads((cli.run_dir / "provenance.json").read_text())
    assert provenance["data_budget"]["images"] == 4
    assert provenance["data_preparation"]["rule"] == "PSNRBicubic(colour=grey) -> Highest()"
    assert provenance["data_preparation"]["seconds"] > 0
    assert provenance["data_fingerprint"] == cli.datamodule.fingerprint
    shown = {path.name for path in (cli.run_dir / "selection").iterdir()}
    assert shown == {"chosen.png", "candidates.png", "scores.png", "selection.json"}
    resumed = main(["fit", *tiny, *CHOSEN, "--ckpt_path", "last", "--trainer.max_steps", "3"])
    uninterrupted = main(["fit", *tiny, *CHOSEN, "--trainer.max_steps", "3", "--run.experiment", "other"])
    for mine, theirs in zip(resumed.model.parameters(), uninterrupted.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_validate_does_not_choose(tiny, monkeypatch):
    main(["fit", *tiny, *CHOSEN])
    monkeypatch.setattr("datamodules.selected.choose", lambda *_: pytest.fail("chosen"))
    cli = main(["validate", *tiny, *CHOSEN, "--ckpt_path", "last"])
    assert (cli.run_dir / "results.json").is_file()


def test_test_does_not_need_the_photographs(tiny, tiny_photographs):
    main(["fit", *tiny, *CHOSEN])
    cli = main(["test", *tiny, *CHOSEN, "--ckpt_path", "last", "--data.root", str(Path("nowhere"))])
    trained_on = json.loads((cli.run_dir / "results.json").read_text())["trained_on"]
    assert trained_on["images"] == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.candidate_size", "16"], "data.candidate_size is 16 but training patches have 32 pixels"),
        (["--data.sub_image", "64"], "data.sub_image is 64 but candidates have data.candidate_size"),
        (["--data.budget.percent", "5"], "budget has patches and percent; set one of them"),
        (["--data.budget.patches", "28"], "asks for 28 patches but there are 27"),
        (["--data.candidate_size", "100"], "the largest square in any photograph has 96 pixels"),
    ],
)
def test_mistakes_are_one_line(tiny, options, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the line that users see is looked at
        main(["fit", *tiny, *CHOSEN, *options])
    shown = message_for_users(caught.value)
    assert shown is not None
    assert message in shown
    assert "\n" not in shown
