"""TripleD's alignment through the command line, with the shipped configurations: editor, set, network; and mistakes.

What is written is checked against the editor used by hand.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cli.errors import message_for_users
from datamodules.distilled import read_distilled
from lightning_modules.networks.editor import load_editor
from main import main
from tests.diffusion_runs import MODEL, furthest, images, lines, provenance, run, small
from tests.run_records import logged
from tests.test_diffusion_mistakes import complaint  # noqa: F401  # a fixture
from tests.test_resume import differences, kept, last  # noqa: F401  # a fixture
from tests.tripled_runs import KEPT, align, edit, few

STEPS, EVERY = 30, 15
NETWORK = [f"{MODEL}network", "{architecture: EDSR, options: {n_feats: 4, n_resblocks: 1}}"]
TWO = ["--trainer.strategy", "ddp_fork", "--trainer.devices", "2"]
RATE = f"{MODEL}lr_scheduler.init_args.max_lr"


@pytest.fixture(scope="module")
def chain(tiny_in, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """An editor, the set that it makes of the kept patches, these as they are, and a network trained on the set."""
    root = tmp_path_factory.mktemp("tripled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRDISTILL_CACHE", str(root / "cache"))
        patch.chdir(root)
        tiny = small(tiny_in(Path("runs")))
        options = [*("--trainer.max_steps", str(STEPS), "--trainer.val_check_interval", str(EVERY), RATE, "0.02")]
        found = align(*tiny, *options, f"{MODEL}weight", "0.1", "--sample_grid.per_class", "2")
        edit(*tiny)
        checkpoint = ["--ckpt_path", str(found.run_dir / "checkpoints" / "last.ckpt"), f"{MODEL}init_from", "null"]
        sizes = [f"{MODEL}editor", "{channels: 4, depth: 2}"]
        edit(*tiny, *sizes, *checkpoint, "--distilled.folder", "distilled/of_checkpoint")
        chosen = ["--data.init_args.criterion", "Entropy", "--data.init_args.filters", "[]"]
        run("predict", "distill/select.yaml", *tiny, *few(), *chosen, "--data.init_args.selector", "Highest")
        on_set = ["--data.init_args.distilled", "distilled/tripled"]
        network = run("fit", "sr/distilled.yaml", *tiny, *NETWORK, *on_set)
        yield SimpleNamespace(root=root, found=found, folder=root / found.run_dir, network=network)


@pytest.fixture
def in_chain(chain: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(chain.root)
    return chain.root / "distilled"


def test_the_distance_falls(chain: SimpleNamespace, in_chain: Path) -> None:
    before, after = (logged(chain.found.run_dir, f"val/distance_{when}") for when in ("before", "after"))
    assert len(before) == len(after) == STEPS // EVERY
    assert before[0] == pytest.approx(before[1])
    assert after[-1] < 0.95 * before[0]
    assert 0 < logged(chain.found.run_dir, "val/distance_random")[0] < before[0]  # these were chosen
    steps = logged(chain.found.run_dir, "train/distance")
    assert len(steps) == STEPS
    assert steps[0] == pytest.approx(before[0], rel=1e-5)  # an untrained editor changes nothing
    assert logged(chain.found.run_dir, "val/edit_psnr")[-1] < 60


def test_the_set_is_what_the_editor_makes_of_the_kept_patches(chain: SimpleNamespace, in_chain: Path) -> None:
    editor = load_editor(chain.folder / "editor.safetensors")
    before, after = images(in_chain / "selected"), images(in_chain / "tripled")
    with torch.no_grad():
        edited = editor(torch.from_numpy(np.stack(before)).permute(0, 3, 1, 2).float() / 255)
    expected = (edited * 255).round().byte().permute(0, 2, 3, 1).numpy()
    assert furthest(after, list(expected)) <= 1  # batches round a product in another order
    assert (np.stack(after) == expected).mean() > 0.999
    assert 1 <= furthest(before, after) <= 8
    assert lines(in_chain / "tripled") == lines(in_chain / "selected")


def test_a_checkpoint_edits_alike(in_chain: Path) -> None:
    assert lines(in_chain / "tripled") == lines(in_chain / "of_checkpoint")
    assert furthest(images(in_chain / "tripled"), images(in_chain / "of_checkpoint")) == 0
    records = [provenance(in_chain / name)["alignment"]["editor"] for name in ("tripled", "of_checkpoint")]
    assert records[0] == records[1]  # of the same run


def test_record(chain: SimpleNamespace, in_chain: Path) -> None:
    record = provenance(in_chain / "tripled")
    found = record["alignment"]
    assert record["method"] == "tripled"
    assert found["distance"] == {"class": "Frechet"}
    assert found["features"] == {"class": "Descriptor"}
    assert found["full_patches"] == 3 * 36
    for key in ("distance_before", "distance_after", "distance_random", "edit_psnr", "edit_levels"):
        assert found[key] == pytest.approx(logged(chain.found.run_dir, f"val/{key}")[-1], rel=1e-5)
    assert found["editor"].items() >= {"channels": 4, "depth": 2, "bound": 8.0, "optimizer_steps": STEPS}.items()
    before, after = (np.stack(images(in_chain / name)).astype(float) for name in ("selected", "tripled"))
    assert found["edit_levels"] == pytest.approx(np.abs(after - before).mean())


def test_lr_is_stored_and_trained_on(chain: SimpleNamespace, in_chain: Path) -> None:
    written = read_distilled(in_chain / "tripled")
    assert written.budget.images == KEPT
    assert all("lr_file_name" in line for line in written.metadata)
    assert (
        json.loads((chain.network.run_dir / "provenance.json").read_text())["data_preparation"]["method"] == "tripled"
    )
    assert (chain.network.run_dir / "weights.safetensors").is_file()


def test_pictures(chain: SimpleNamespace, in_chain: Path) -> None:
    pictures = sorted((chain.folder / "images").iterdir())
    assert [path.name for path in pictures] == [f"samples_{step:08d}.png" for step in (EVERY, STEPS)]
    assert pictures[0].read_bytes() != pictures[1].read_bytes()


def test_a_set_can_be_edited_again(chain: SimpleNamespace, tiny: list[str], in_chain: Path, tmp_path: Path) -> None:
    """SyntheticPatches in place of SelectedPatches; pixels, numbers and metadata as of the same patches selected."""
    of_set = {"distilled": in_chain / "selected", "root": tiny[tiny.index("--data.init_args.root") + 1], "scale": 4}
    of_set |= {"patch_size": 16, "batch_size": 2}
    data = [word for key, value in of_set.items() for word in (f"--data.{key}", str(value))]
    model = ["--model", "DistributionAlignment", "--model.init_from", str(chain.folder), "--trainer.logger", "false"]
    out = ["--distilled.folder", str(tmp_path / "again"), "--run.root", str(tmp_path), "--trainer.accelerator", "cpu"]
    main(["predict", *model, "--data", "SyntheticPatches", *data, *out])
    assert lines(tmp_path / "again") == lines(in_chain / "tripled")
    assert furthest(images(tmp_path / "again"), images(in_chain / "tripled")) <= 1
    record = provenance(tmp_path / "again")
    assert record["made_from"]["method"] == "selection"
    assert record["alignment"]["full_patches"] == 3 * 36


# --- resume, processes ---


@pytest.mark.parametrize("options", [[], [f"{MODEL}batch_patches", "3", f"{MODEL}chunk", "2"]], ids=["all", "draws"])
def test_resume_is_exact(options: list[str], tiny: list[str], kept: Path) -> None:  # noqa: F811
    cycle = "{class_path: OneCycleLR, init_args: {max_lr: 0.01, total_steps: 6}}"
    arguments = [
        *small(tiny),
        *(f"{MODEL}lr_scheduler", cycle, "--checkpoint.every_n_steps", "1"),
        *("--trainer.val_check_interval", "2", "--trainer.max_steps", "6"),
        *options,
    ]
    uninterrupted = align(*arguments)
    for cut in ("2", "3"):
        resumed = align(*arguments, "--ckpt_path", str(kept / f"{cut}.ckpt"))
        assert differences(last(uninterrupted), last(resumed)) == [], cut
    assert len({*logged(uninterrupted.run_dir, "train/distance")}) == 6


NETWORK_FEATURES = (
    "{class_path: NetworkFeatures, init_args: {network: {class_path: RandomConvNet, init_args: {width: 4, depth: 2}}}}"
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
@pytest.mark.usefixtures("decoded")
@pytest.mark.parametrize(
    "options",
    [
        [f"{MODEL}features", NETWORK_FEATURES, f"{MODEL}distance", "MMD"],
        [f"{MODEL}batch_patches", "4", f"{MODEL}distance", "SlicedWasserstein"],
        [],
    ],
    ids=["MMD of a network", "sliced Wasserstein of draws", "Frechet"],
)
def test_two_processes_agree_with_one(options: list[str], tiny: list[str], tmp_path: Path) -> None:
    """In plain SGD, whose updates are in proportion to gradients; five patches, of which one has three."""
    training = [
        *small(tiny),
        *(f"{MODEL}optimizer", "{class_path: torch.optim.SGD, init_args: {lr: 1.0}}", f"{MODEL}lr_scheduler", "null"),
        *("--trainer.max_steps", "4", "--trainer.val_check_interval", "2", f"{MODEL}chunk", "2"),
        *options,
    ]
    two, one = align(*training, *TWO), align(*training, "--run.experiment", "one")
    first, second = (load_file(cli.run_dir / "editor.safetensors") for cli in (two, one))
    assert max((first[name] - second[name]).abs().max() for name in first) < 1e-5
    assert first["body.2.weight"].abs().max() > 1e-3  # it was zero
    for name in ("train/distance", "train/edit_levels", "train/loss", "val/distance_after", "val/edit_psnr"):
        assert logged(two.run_dir, name) == pytest.approx(logged(one.run_dir, name), rel=1e-4, abs=1e-6)
    if not options:
        written = []
        for name, processes in (("two", TWO), ("one", [])):
            folder = tmp_path / name
            edit(*small(tiny), f"{MODEL}init_from", str(one.run_dir), *processes, "--distilled.folder", str(folder))
            written.append(folder)
        assert lines(written[0]) == lines(written[1])
        assert furthest(*map(images, written)) == 0
        records = [provenance(folder)["alignment"] for folder in written]
        for key in ("distance_before", "distance_after", "distance_random", "edit_psnr", "edit_levels"):
            assert records[0][key] == pytest.approx(records[1][key], rel=1e-6)


# --- mistakes ---


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        ([f"{MODEL}editor.bound", "0"], "model.editor has channels 4, depth 2 and bound 0"),
        ([f"{MODEL}weight", "-1"], "model.weight is -1.0; expected at least 0"),
        ([f"{MODEL}distance", "{class_path: MMD, init_args: {rows: 1}}"], "MMD: rows is 1; expected 2 or more"),
        (["--data.init_args.patch_size", "12"], "set data.candidate_size to 16 or more"),
        (["--trainer.accumulate_grad_batches", "2"], "trainer.accumulate_grad_batches 2, but edits are small"),
        (["--trainer.precision", "16-true"], "trainer.precision is 16-true"),
        (["--trainer.precision", "64-true"], "use 32-true, 16-mixed or bf16-mixed, and 1"),
        ([f"{MODEL}optimizer.init_args.lr", "-1"], "Invalid learning rate"),
        (["--data.init_args.budget.patches", "500"], "data.budget asks for 500 patches but there are 108"),
    ],
)
def test_setting(mistake: list[str], expected: str, tiny: list[str], complaint: Callable[..., str]) -> None:  # noqa: F811
    assert expected in complaint(align, *small(tiny), *mistake)


def test_unknown_distance(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        align(*small(tiny), f"{MODEL}distance", "Frechett")
    assert "there is no class 'Frechett'; did you mean 'Frechet'?" in capsys.readouterr().err


def test_photographs_are_no_patches(
    tiny: list[str],
    complaint: Callable[..., str],  # noqa: F811
    tmp_path: Path,
    tiny_photographs: Path,
) -> None:
    """Where they are not squares of one size."""
    for number, file in enumerate(sorted(tiny_photographs.iterdir())):
        Image.open(file).resize((64 + 16 * number, 64)).save(tmp_path / file.name)
    words = small(tiny)
    words[words.index("--data.init_args.root") + 1] = str(tmp_path)
    said = complaint(lambda: main(["fit", "--model", "DistributionAlignment", "--data", "RealImages", *words]))
    assert "x 64 pixels and other sizes, but DistributionAlignment compares squares of one size; use data Sel" in said


def test_edits_that_destroy_are_refused(chain: SimpleNamespace, in_chain: Path, tiny: list[str]) -> None:
    with pytest.raises(ValueError, match="min_psnr") as error:
        edit(
            *small(tiny), f"{MODEL}min_psnr", "70", f"{MODEL}init_from", str(chain.folder), "--distilled.folder", "none"
        )
    said = message_for_users(error.value)
    assert said is not None
    assert "dB against the original ones, less than model.min_psnr 70, and nothing is written" in said
    assert not Path("none").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([f"{MODEL}init_from", "null"], "predict needs trained weights"),
        ([f"{MODEL}init_from", "./nowhere"], "there is no editor.safetensors at nowhere"),
        (
            [f"{MODEL}editor", "{channels: 4, depth: 2, bound: 16}"],
            "an editor with bound 8.0 but model.editor.bound is 16",
        ),
    ],
)
def test_editors_that_do_not_fit(
    options: list[str], expected: str, chain: SimpleNamespace, in_chain: Path, tiny: list[str],
    complaint: Callable[..., str],  # noqa: F811
) -> None:  # fmt: skip
    arguments = [f"{MODEL}init_from", str(chain.folder), "--distilled.folder", "none", *options]
    assert expected in complaint(edit, *small(tiny), *arguments)


def test_checkpoint_of_something_else(
    chain: SimpleNamespace, in_chain: Path, tiny: list[str], complaint: Callable[..., str]  # noqa: F811
) -> None:  # fmt: skip
    network = ["--ckpt_path", str(chain.network.run_dir / "checkpoints" / "last.ckpt")]
    assert "is no checkpoint of DistributionAlignment" in complaint(align, *small(tiny), *network)
    wider = [f"{MODEL}editor.channels", "6", "--ckpt_path", str(chain.folder / "checkpoints" / "last.ckpt")]
    said = complaint(align, *small(tiny), *wider)
    assert "the checkpoint has an editor with channels 4 but model.editor.channels is 6" in said
