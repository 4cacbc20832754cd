"""The command line of srdistill: `python main.py fit|validate|test|predict|compare --config ...`."""

from __future__ import annotations

import difflib
import os
import sys
from typing import TYPE_CHECKING

from cli import COMMANDS  # imports nothing else

if TYPE_CHECKING:
    from cli.app import SRDistillCLI

HELP = """\
usage: python main.py {fit,validate,test,predict,compare} [--config FILE ...] [--KEY VALUE ...]

Distil photographs into a few patches, train super-resolution networks on them, and compare fairly.

  fit        train; --ckpt_path last resumes the experiment's newest run exactly
  validate   measure on the validation images     (needs --ckpt_path last|best|FILE)
  test       measure on the test sets, with table (needs --ckpt_path last|best|FILE)
  predict    upscale images or folders            (needs --ckpt_path last|best|FILE),
             or write a distilled set: --config configs/distill/select.yaml
  compare    run a plan of all that, and write its report: --config configs/compare/quickstart.yaml

  python main.py fit --help                   options; --data.help RealImages shows a class's own
  python main.py fit --config A --print_config   the resolved configuration

Several --config files compose, later ones win, --KEY VALUE wins over all of them.
Start here: python main.py compare --config configs/compare/quickstart.yaml"""


def main(args: list[str] | None = None) -> SRDistillCLI | None:
    """Runs one command.

    Args:
        args: command line without the program's name; null takes the process's own.

    Returns:
        The CLI with its `trainer`, `model` and `datamodule`; nothing from `compare`, or when help was asked for.

    Raises:
        SystemExit: with status 1, when a stage of a comparison failed.
    """
    args = sys.argv[1:] if args is None else args
    if not args or args[0] in ("-h", "--help"):
        print(HELP)  # noqa: T201
        return None
    if args[0] not in COMMANDS:
        near = difflib.get_close_matches(args[0], COMMANDS, n=1, cutoff=0.5)
        hint = f"did you mean '{near[0]}'?" if near else "see python main.py --help"
        sys.exit(f"error: the first argument is '{args[0]}', expected one of {', '.join(COMMANDS)}; {hint}")
    # Threads that spin while they wait make training collapse as soon as another process wants a core
    # (benchmarks/threads.py); torch reads this when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if args[0] == "compare":
        from comparison.app import run as compare

        if status := compare(args[1:]):
            sys.exit(status)
        return None
    from cli.app import run  # after the help: importing lightning takes seconds

    return run(args)


if __name__ == "__main__":
    from cli.errors import exit_with_message

    with exit_with_message():
        main()
