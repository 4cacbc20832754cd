"""The parser for callers that go on: ValueError instead of the end of the process, again and again."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.app import options_parser
from cli.parser import FriendlyParser, RaisingParser


@pytest.fixture(scope="module")
def parser() -> RaisingParser:
    return options_parser()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trainer.max_stepz", "3"], "there is no option 'trainer.max_stepz'; did you mean 'trainer.max_steps'?"),
        (["--trainer.max_steps", "many"], "trainer.max_steps: got many, expected int"),
        (["--model", "SuperResolutio"], "did you mean 'SuperResolution'?"),
        (["--data.init_args.budgt", "3"], "data: RealImages has no option 'budgt'"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_errors_are_raised_in_a_line_and_the_parser_goes_on(
    parser: RaisingParser, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # the message is what is tested
        parser.parse_args(words)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert parser.parse_args(["--trainer.max_steps", "3"]).trainer.max_steps == 3
    assert capsys.readouterr() == ("", "")


def test_a_file_is_named_only_by_errors_in_it(parser: RaisingParser, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text("trainer: {max_steps: 3}")
    bad.write_text("trainer: {max_steps: many}")
    with pytest.raises(ValueError, match=rf"^{bad}: trainer\.max_steps: got many, expected int"):
        parser.parse_args(["--config", str(good), "--config", str(bad)])
    with pytest.raises(ValueError, match=r"^trainer\.max_steps: got few, expected int"):
        parser.parse_args(["--config", str(good), "--trainer.max_steps", "few"])


def test_the_parser_of_the_command_line_ends_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    parser = FriendlyParser()
    parser.add_argument("--number", type=int)
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--nubmer", "3"])
    assert capsys.readouterr().err == "error: there is no option 'nubmer'; did you mean 'number'?\n"
