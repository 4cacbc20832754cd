"""The missing stages of a comparison as one bash script that submits them to SLURM."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from datamodules.fingerprint import write_atomic

if TYPE_CHECKING:
    from comparison.planning.stages import Stage

LARGEST_ARRAY = 1000
"""Tasks of one job array that every cluster takes, unless its MaxArraySize was lowered from the usual 1001."""

HEAD = """\
#!/bin/bash
# Runs the stages of a comparison on a SLURM cluster. To submit them, with any options of sbatch:
#
#   bash slurm.sh --partition=gpu --gres=gpu:1 --time=02:00:00
#
# Stages run in waves, each one or several job arrays. A wave starts when all stages of the wave before have ended, well
# or not: a stage that lacks its input refuses by itself, and the others go on. The last job is the comparison itself:
# it skips what is done, tries again what has failed, and writes the report. Submitting the script again is safe when
# no job of it is left: stages that are done end at once, and interrupted ones resume.
#
# The stages, what they need and their commands; {output:NAME} stands for what the stage NAME has written:
"""

RUN = """
set -euo pipefail

case "${1:-}" in
stage) # a task of a job array; $2 is the name of its list
    declare -n stages=$2
    exec "${compare[@]}" --only "${stages[SLURM_ARRAY_TASK_ID]}"
    ;;
report)
    exec "${compare[@]}"
    ;;
esac

script=$(readlink -f "$0")
options=("$@")
before="" # the jobs of the last wave, as :NUMBER:NUMBER
wave=""   # of this one
all=""    # of all waves
mkdir -p "$logs"

submit() { # JOBS-TO-WAIT-FOR LOG-FILE SBATCH-ARGUMENT...: leaves the job's number in $job
    job=$(sbatch --parsable "${options[@]}" --chdir="$folder" --output="${logs//%/%%}/$2" \\
        ${1:+"--dependency=afterany$1"} "${@:3}")
    job=${job%%;*} # a cluster's name may follow
}

submit_stages() { # NAME-OF-LIST
    local -n list=$1
    submit "$before" slurm-%A_%a.out --array="0-$((${#list[@]} - 1))$throttle" "$script" stage "$1"
    wave+=":$job"
    echo "$1: job $job, ${#list[@]} stages"
}

end_wave() {
    before=$wave
    all+=$wave
    wave=""
}

"""

REPORT = """
submit "$all" slurm-%j.out "$script" report
echo "report: job $job"
"""


def write_script(path: Path, stages: Sequence[Stage], plan_command: Sequence[str], jobs: int | None = None) -> None:
    """Writes the script.

    Args:
        path: of the script; logs of the jobs go to `logs` beside it.
        stages: the missing ones, each after those that it needs; needs that are not among them are done.
        plan_command: runs the whole comparison from the present working folder; with `--only STAGE`, one of its stages.
        jobs: tasks of an array that may run at the same time; None leaves it to the cluster.
    """
    planned = waves(stages)
    arrays = [_arrays(number, wave) for number, wave in enumerate(planned, start=1)]
    settings = [
        f"compare=({shlex.join(plan_command)})",
        f"folder={shlex.quote(str(Path.cwd()))}",
        f"logs={shlex.quote(str(path.absolute().parent / 'logs'))}",
        f"throttle={'' if jobs is None else f'%{jobs}'}",
        *(f"{array}=({shlex.join(names)})" for wave in arrays for array, names in wave.items()),
    ]
    submissions = [line for wave in arrays for line in [*(f"submit_stages {array}" for array in wave), "end_wave"]]
    write_atomic(path, "\n".join([HEAD + _listing(planned), *settings, RUN + "\n".join(submissions), REPORT]))


def waves(stages: Sequence[Stage]) -> list[list[Stage]]:
    """Stages by the longest chain of needs before them, so that each needs only stages of waves before its own.

    Args:
        stages: each after those that it needs; needs that are not among them do not count.
    """
    depth: dict[str, int] = {}
    result: list[list[Stage]] = []
    for stage in stages:
        depth[stage.name] = max((depth[need] + 1 for need in stage.needs if need in depth), default=0)
        if depth[stage.name] == len(result):
            result.append([])
        result[depth[stage.name]].append(stage)
    return result


def _arrays(number: int, wave: Sequence[Stage]) -> dict[str, list[str]]:
    """The job arrays of a wave: names of their stages by the name of the array."""
    names = [stage.name for stage in wave]
    starts = range(0, len(names), LARGEST_ARRAY)
    return {f"wave_{number}_{part}": names[start:][:LARGEST_ARRAY] for part, start in enumerate(starts, start=1)}


def _listing(planned: Sequence[Sequence[Stage]]) -> str:
    """What runs when, as comments."""
    text = ""
    for number, wave in enumerate(planned, start=1):
        text += f"\nwave {number}\n"
        for stage in wave:
            needs = f", needs {', '.join(stage.needs)}" if stage.needs else ""
            text += f"  {stage.name}{needs}\n    {shlex.join(['python', 'main.py', stage.command, *stage.words])}\n"
    return "".join(f"# {line}".rstrip() + "\n" for line in text.splitlines())  # words may hold line breaks
