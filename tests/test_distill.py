"""From photographs to a table through the command line: choose, write, train, relabel, train on that, test.

Pixels are checked against Pillow's reading of the photographs, relabelled targets against NumPy's mix.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.distilled import DistilledSet, read_distilled
from lightning_modules.networks.trained import load_trained
from main import main

WEIGHT = 0.25


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def lr_file(folder: Path, line: dict) -> Path:
    return folder / "lr_x4" / Path(line["file_name"]).name


@pytest.fixture(scope="module")
def chain(tiny_in, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """Half of the candidates as a set, a teacher trained on all photographs, the relabelled set, a fit on each set."""
    root = tmp_path_factory.mktemp("chain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRDISTILL_CACHE", str(root / "cache"))
        network_of = tiny_in(root / "runs")
        at = network_of.index("--model.init_args.network")
        quick, network = network_of[:at] + network_of[at + 2 :], network_of[at : at + 2]
        chosen = [*quick, "--data", "SelectedPatches", "--data.budget.ipc", "2", "--data.pseudo_labels.classes", "3"]
        choice = main(["predict", "--model", "PatchSelection", *chosen, "--distilled.folder", str(root / "selected")])
        teacher = main(["fit", *quick, *network, "--run.experiment", "teacher", "--trainer.max_steps", "20"])
        learnt = ["--model", "Relabelling", "--model.teacher", str(teacher.run_dir), "--model.weight", str(WEIGHT)]
        given = [*quick, "--data", "SyntheticPatches", "--data.distilled"]
        main(["predict", *learnt, *given, str(root / "selected"), "--distilled.folder", str(root / "relabelled")])
        fits = {
            name: main(["fit", *given, str(root / name), *network, "--run.experiment", name])
            for name in ("selected", "relabelled")
        }
        yield SimpleNamespace(root=root, choice=choice, teacher=teacher, fits=fits, tiny=[*quick, *network])


@pytest.fixture
def selected(chain: SimpleNamespace) -> DistilledSet:
    return read_distilled(chain.root / "selected")


@pytest.fixture
def relabelled(chain: SimpleNamespace) -> DistilledSet:
    return read_distilled(chain.root / "relabelled")


def test_the_set_is_the_choice(selected: DistilledSet, tiny_photographs: Path) -> None:
    assert len(selected.metadata) == 2 * 3
    assert sorted(line["pseudo_label"] for line in selected.metadata) == [0, 0, 1, 1, 2, 2]
    for line in selected.metadata:
        whole, top, left = pixels(tiny_photographs / line["source"]), line["top"], line["left"]
        hr = whole[top : top + 32, left : left + 32]
        assert np.array_equal(pixels(selected.folder / line["file_name"]), hr)
        assert isinstance(line["score"], float)
    assert selected.provenance["budget"]["percent"] == pytest.approx(100 * 6 * 32**2 / (3 * 96**2))


def test_lr_lies_in_register(chain: SimpleNamespace, selected: DistilledSet) -> None:
    """It is the photograph's, which reached beyond the patch's border."""
    store = chain.teacher.datamodule.store
    for line in selected.metadata:
        lr, top, left = store.lr(store.index.names.index(line["source"])), line["top"] // 4, line["left"] // 4
        assert np.array_equal(pixels(lr_file(selected.folder, line)), lr[top : top + 8, left : left + 8])


def test_relabelled_targets(chain: SimpleNamespace, selected: DistilledSet, relabelled: DistilledSet) -> None:
    assert relabelled.metadata == selected.metadata
    network = load_trained(chain.teacher.run_dir).network
    for line in selected.metadata:
        lr, hr = pixels(lr_file(selected.folder, line)), pixels(selected.folder / line["file_name"])
        assert np.array_equal(pixels(lr_file(relabelled.folder, line)), lr)
        with torch.no_grad():
            answer = (
                network(torch.from_numpy(lr.copy()).permute(2, 0, 1)[None].float() / 255)[0].permute(1, 2, 0).numpy()
            )
        exact = np.clip((1 - WEIGHT) * hr + WEIGHT * 255 * answer, 0, 255)
        assert np.abs(pixels(relabelled.folder / line["file_name"]) - exact).max() <= 0.5 + 1e-3


def test_provenance_of_a_relabelled_set(
    chain: SimpleNamespace, selected: DistilledSet, relabelled: DistilledSet
) -> None:
    """The photographs are the first set's; the teacher comes with its data and its time."""
    provenance, teacher = relabelled.provenance, relabelled.provenance["teacher"]
    assert provenance["method"] == "relabelling"
    for key in ("source_fingerprint", "full_pixels"):
        assert provenance[key] == selected.provenance[key]
    assert provenance["budget"]["percent"] == selected.provenance["budget"]["percent"]
    assert provenance["source_fingerprint"] == chain.teacher.datamodule.fingerprint
    assert teacher["weight"] == WEIGHT
    assert teacher["data_fingerprint"] == chain.teacher.datamodule.fingerprint
    assert teacher["data_budget"]["images"] == 3
    cost = json.loads((chain.teacher.run_dir / "cost.json").read_text())
    assert teacher["training_seconds"] == cost["training_seconds"]
    assert len(teacher["sha256"]) == 64


def test_runs_know_what_they_were_trained_on(chain: SimpleNamespace) -> None:
    budgets = {
        name: json.loads((cli.run_dir / "provenance.json").read_text())["data_budget"]
        for name, cli in chain.fits.items()
    }
    assert budgets["selected"]["teacher"] is None
    cost = json.loads((chain.teacher.run_dir / "cost.json").read_text())
    assert budgets["relabelled"]["teacher"] == (
        f"{chain.teacher.run_dir.name}/checkpoints/best.ckpt, weight {WEIGHT}; "
        f"it took {cost['training_seconds']:.0f} s on 3 images, 100 %"
    )
    assert budgets["selected"]["images"] == budgets["relabelled"]["images"] == 6


def test_what_a_choice_cost_goes_with_the_data(chain: SimpleNamespace, selected: DistilledSet) -> None:
    """From the choice to the set, to the set made from that, and to the runs on both."""
    made = selected.provenance["preparation"]
    assert made["rule"] == "PSNRBicubic(colour=grey) -> Random() in 3 classes"
    assert made["seconds"] > 0
    prepared = {
        name: json.loads((cli.run_dir / "provenance.json").read_text())["data_preparation"]
        for name, cli in chain.fits.items()
    }
    assert prepared["selected"]["preparation"] == made
    assert prepared["relabelled"]["made_from"]["preparation"] == made
    assert prepared["relabelled"]["teacher"]["weight"] == WEIGHT


@pytest.mark.parametrize("name", ["selected", "relabelled"])
def test_results_are_marked(chain: SimpleNamespace, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    weights = ["--ckpt_path", str(chain.fits[name].run_dir / "checkpoints" / "last.ckpt")]
    tested = main(["test", *chain.tiny, *weights])
    shown = " ".join(capsys.readouterr().out.split())
    results = json.loads((tested.run_dir / "results.json").read_text())
    assert results["trained_on"]["images"] == 6
    assert "trained on: 6 images" in shown
    assert (results["trained_on"]["teacher"] is not None) == (name == "relabelled")
    assert ("targets of a teacher" in shown) == (name == "relabelled")
    assert ("s on 3 images, 100 %)" in shown) == (name == "relabelled")


def test_the_same_set_again(chain: SimpleNamespace, selected: DistilledSet) -> None:
    """By its resolved configuration, in an empty cache: the same bytes."""
    options = ["--run.root", str(chain.root / "again"), "--distilled.folder", str(chain.root / "again" / "selected")]
    main(["predict", "--config", str(chain.choice.run_dir / "config.yaml"), *options])
    for file in ("metadata.jsonl", *(line["file_name"] for line in selected.metadata)):
        assert (chain.root / "again" / "selected" / file).read_bytes() == (selected.folder / file).read_bytes()
