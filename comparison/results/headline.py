"""What a comparison has found, in one or two sentences computed from its table."""

from __future__ import annotations

import math
from collections.abc import Sequence

from comparison.results.formatting import format_percent, format_psnr, format_seconds, format_signed
from comparison.results.rows import MEAN
from comparison.results.statistics import Summary
from comparison.results.untrained import wording


def headline(summaries: Sequence[Summary], reference: str, baseline: str) -> str:
    """The best regime at the smallest budget where one beats the baseline, and what is left against full data.

    Only means over the test sets count, and only data without a teacher. A regime beats the baseline where the 95 %
    interval of its gain is above 0, with the recipe that serves the baseline best on that network at that budget: what
    a better recipe does for random data, too, is no merit of a regime. Where none does, the text says so and names the
    nearest. Full data are those of the same network with whichever recipe is best for them.

    Args:
        summaries: of the whole comparison.
        reference: regime of the full data.
        baseline: regime that the others are to beat.
    """
    lines = [line for line in summaries if line.group.set == MEAN and not line.group.teacher]
    full = [line for line in lines if line.group.regime == reference and line.group.budget is None]
    small = [line for line in lines if line.group.regime != reference and line.group.budget is not None]
    random = [line for line in small if line.group.regime == baseline]
    ours = [line for line in small if line.group.regime != baseline]
    if not small:
        return _nothing_small(full)
    finding, line = _against_baseline(ours, random, baseline) if ours and random else _alone(ours, random, baseline)
    return f"{finding} {_against_full(line, full)}"


def _nothing_small(full: Sequence[Summary]) -> str:
    if not full:
        return "No network has yet been trained without a teacher and tested on all test sets."
    line = _best(full)
    over = format_signed(line.psnr_y - line.psnr_y_untrained)
    return (
        "Without a teacher, networks have been trained on full data only: "
        f"{format_psnr(line.psnr_y)} dB PSNR-Y, {over} dB against {wording(full).phrase} ({_setting(line)})."
    )


def _alone(ours: Sequence[Summary], random: Sequence[Summary], baseline: str) -> tuple[str, Summary]:
    """Where there is nothing but the baseline, or no baseline."""
    line = _best(_smallest(ours or random))
    reached = f"{format_psnr(line.psnr_y)} dB PSNR-Y ({_setting(line)})"
    if ours:
        other = baseline or "baseline"
        return f"On {_data(line)}, {_named(line, ours)} reaches {reached}; there is no {other} to compare with.", line
    return f"On {_data(line)}, {baseline} reaches {reached}; there is no distilled regime to compare with it.", line


def _against_baseline(ours: Sequence[Summary], random: Sequence[Summary], baseline: str) -> tuple[str, Summary]:
    places = {line.group._replace(regime=baseline) for line in ours}
    rising = sorted((line for line in random if line.group in places), key=lambda line: line.psnr_y)
    recipes = {(line.group.network, line.group.budget): line.group.recipe for line in rising}  # the last is the best
    fair = [line for line in ours if recipes.get((line.group.network, line.group.budget)) == line.group.recipe]
    sure = [line for line in fair if line.gain_interval is not None]
    winners = [line for line in sure if _interval(line)[0] > 0]
    if winners:
        line = _best(_smallest(winners))
        return _won(line, sure, baseline), line
    if sure:
        line = max(sure, key=lambda line: (round(_interval(line)[0], 3), -_budget(line), line.psnr_y))
        return _not_won(line, sure, baseline), line
    line = _best(_smallest(fair or ours))
    return _unsure(line, fair or ours, baseline), line


def _won(line: Summary, sure: Sequence[Summary], baseline: str) -> str:
    same = [other for other in sure if other.group.regime == line.group.regime and _budget(other) == _budget(line)]
    wins = sum(_interval(other)[0] > 0 for other in same)
    networks = f"; it does so with {wins} of {len(same)} networks" if len(same) > 1 else ""
    less = "; on less data, none is shown to" if any(_budget(other) < _budget(line) for other in sure) else ""
    return (
        f"On {_data(line)}, {_named(line, sure)} beats {baseline} by {_size(line.gain_over_random or 0.0)} PSNR-Y "
        f"({_bounds(line)}; {_setting(line)}){networks}{less}."
    )


def _not_won(line: Summary, sure: Sequence[Summary], baseline: str) -> str:
    worse = all(_interval(other)[1] < 0 for other in sure)
    return (
        f"No distilled regime {'beats' if worse else 'is shown to beat'} {baseline}: the nearest, {line.group.regime} "
        f"on {_data(line)}, differs from it by {format_signed(line.gain_over_random)} dB PSNR-Y "
        f"({_bounds(line)}; {_setting(line)})."
    )


def _unsure(line: Summary, others: Sequence[Summary], baseline: str) -> str:
    gain = line.gain_over_random
    known = "it cannot be compared with" if gain is None else f"that is {format_signed(gain)} dB against"
    why = "for want of the same budget and seed" if gain is None else "with no interval to tell it from chance"
    return (
        f"On {_data(line)}, {_named(line, others)} reaches {format_psnr(line.psnr_y)} dB PSNR-Y ({_setting(line)}); "
        f"{known} {baseline}, {why}."
    )


def _against_full(line: Summary, full: Sequence[Summary]) -> str:
    same = [other for other in full if other.group.network == line.group.network]
    time = f"takes {format_seconds(line.total_seconds)} with distillation"
    if not same:
        over = _compared(line.psnr_y - line.psnr_y_untrained, wording([line]).phrase)
        return f"It {over} and {time}; there are no full data to compare with."
    best = _best(same)
    recipe = "" if best.group.recipe == line.group.recipe else f" (recipe {best.group.recipe})"
    return (
        f"It {_compared(line.psnr_y - best.psnr_y, 'full data')}{recipe}, {_share(line, best)}, and {time}, against "
        f"{format_seconds(best.training_seconds)} of training on full data."
    )


def _compared(difference: float, other: str) -> str:
    if not format_signed(difference).strip("0."):
        return f"is level with {other}"
    return f"is {_size(difference)} {'above' if difference > 0 else 'below'} {other}"


def _share(line: Summary, full: Summary) -> str:
    gained, kept = full.psnr_y - line.psnr_y_untrained, line.psnr_y - line.psnr_y_untrained
    untrained = wording([line]).phrase
    if gained <= 0:
        return f"which gain nothing over {untrained}"
    if kept <= 0:
        return f"does not gain over {untrained}"
    return f"keeps {format_percent(100 * kept / gained)} of their gain over {untrained}"


def _named(line: Summary, others: Sequence[Summary]) -> str:
    """The regime, and among how many of the same network and budget."""
    rivals = [other for other in others if other.group._replace(regime="") == line.group._replace(regime="")]
    place = "the best" if _best(rivals) is line else "one"
    return f"{line.group.regime}, {place} of {len(rivals)} distilled regimes," if len(rivals) > 1 else line.group.regime


def _setting(line: Summary) -> str:
    seeds = "1 seed only" if line.seeds == 1 else f"{line.seeds} seeds"
    images = "1 test image" if line.test_images == 1 else f"{line.test_images} test images"
    return f"{line.group.network}, recipe {line.group.recipe}, {seeds}, {images}"


def _data(line: Summary) -> str:
    return f"{format_percent(line.group.budget)} of the data"


def _bounds(line: Summary) -> str:
    low, high = _interval(line)
    return f"95 % interval {format_signed(low)} to {format_signed(high)}"


def _size(difference: float) -> str:
    """Without its sign; nobody should read that a regime is better by 0.00 dB."""
    return f"{format_psnr(abs(difference))} dB" if format_signed(difference).strip("0.") else "less than 0.01 dB"


def _best(lines: Sequence[Summary]) -> Summary:
    return max(lines, key=lambda line: line.psnr_y)


def _smallest(lines: Sequence[Summary]) -> list[Summary]:
    least = min(map(_budget, lines))
    return [line for line in lines if _budget(line) == least]


def _budget(line: Summary) -> float:
    return math.inf if line.group.budget is None else line.group.budget


def _interval(line: Summary) -> tuple[float, float]:
    return line.gain_interval or (math.nan, math.nan)
