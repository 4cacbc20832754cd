"""Each term of the diffusion loss can be switched off, from the command line alone; the rest adds up as weighted."""

from __future__ import annotations

import csv
from collections.abc import Iterator

import pytest
from safetensors.torch import load_file

from tests.diffusion_runs import MODEL, adapting, fit_lora, small, write_model

WEIGHTS = {"simple": 1.0, "representativeness": 0.5, "diversity": 0.25, "high_frequency": 2.0}
CASES = [
    pytest.param({}, id="all"),
    *(pytest.param({name: 0.0}, id=f"no {name}") for name in WEIGHTS),
    pytest.param({"simple": 0.0, "high_frequency": 0.0}, id="memories alone"),
]


@pytest.fixture(scope="module")
def options(tiny_in, tmp_path_factory) -> Iterator[list[str]]:
    root = tmp_path_factory.mktemp("losses")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRDISTILL_CACHE", str(root / "cache"))
        unseen = ["--trainer.limit_val_batches", "0", f"{MODEL}optimizer.init_args.lr", "0.1"]
        yield [*small(tiny_in(root / "runs")), *adapting(write_model(root / "model")), *unseen]


@pytest.mark.parametrize("changed", CASES)
def test_terms(changed: dict[str, float], options: list[str]) -> None:
    weights = {**WEIGHTS, **changed}
    given = [word for name, weight in weights.items() for word in (f"{MODEL}losses.{name}", str(weight))]
    run = fit_lora(*options, *given, "--trainer.max_steps", "3").run_dir
    with (run / "metrics.csv").open() as file:
        steps = [row for row in csv.DictReader(file) if row.get("train/loss")]
    assert len(steps) == 3
    logged = {key.removeprefix("train/") for key in steps[0] if key.startswith("train/")}
    assert logged - {"loss"} == {name for name, weight in weights.items() if weight}
    for step in steps:
        total = sum(weights[name] * float(step[f"train/{name}"]) for name in logged - {"loss"})
        assert float(step["train/loss"]) == pytest.approx(total, rel=1e-5, abs=1e-7)
    adapter = load_file(run / "adapter" / "adapter.safetensors")
    assert any(tensor.count_nonzero() for name, tensor in adapter.items() if "lora_B" in name)
