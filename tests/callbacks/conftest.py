"""One fit and one test that the tests of what a run leaves behind share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from main import main


@pytest.fixture(scope="session")
def runs(tiny_in: Callable[[Path], list[str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The CLI after `fit` and after `test` of its last checkpoint, and what both were called with."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRDISTILL_CACHE", str(root / "cache"))
        arguments = [*tiny_in(root), "--trainer.max_steps", "4", "--trainer.val_check_interval", "2"]
        fit = main(["fit", *arguments])
        test = main(["test", *arguments, "--ckpt_path", "last"])
        yield SimpleNamespace(fit=fit, test=test, arguments=arguments)
