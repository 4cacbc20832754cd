"""The sentences are compared in whole: their figures come by hand from the formula of the fixture `study`.

PSNR over bicubic is 2.0 for full data, 1.6 for random, 1.8 for sharpening, and more with `swinir_light` (0.3), `strong`
(0.1), 5 % (0.1) and, as the mean of three seeds, 0.02; bicubic upscaling has 27.2 dB as the mean of both sets.
"""

import dataclasses

import pytest

from comparison.results.headline import headline
from comparison.results.statistics import summarise

SETTING = "swinir_light, recipe strong, 3 seeds, 19 test images"
AGAINST = "takes 1 min 21 s with distillation, against 1 min 01 s of training on full data."


@pytest.fixture
def found(study):
    """Headline of the rows that are kept, with some of their PSNR changed."""
    rows, images = study

    def of(keep=lambda item: True, shift=lambda cell: 0.0, per_image=lambda image: True, untrained="bicubic"):
        def changed(items):
            return [dataclasses.replace(each, psnr_y=each.psnr_y + shift(each.cell)) for each in items if keep(each)]

        some = [image for image in changed(images) if per_image(image)]
        tested = [dataclasses.replace(row, untrained=untrained) for row in changed(rows)]
        return headline(summarise(tested, some, "full", "random", 500), "full", "random")

    return of


def sharpening(amount):
    return lambda cell: amount * (cell.regime == "sharpening")


def test_regime_that_beats_random(found):
    assert found() == (
        f"On 0.68 % of the data, sharpening beats random by 0.20 dB PSNR-Y (95 % interval +0.20 to +0.20; {SETTING}); "
        "it does so with 2 of 2 networks. It is 0.20 dB below full data, keeps 91.7 % of their gain over bicubic "
        f"upscaling, and {AGAINST}"
    )  # 2.22 of 2.42


def test_teacher_has_no_part_in_it(found):
    assert found() == found(lambda item: not item.cell.teacher)
    teacher_only = found(lambda item: item.cell.teacher)
    assert teacher_only == "No network has yet been trained without a teacher and tested on all test sets."


def test_budget_is_the_smallest_where_one_wins_and_smaller_ones_are_mentioned(found):
    text = found(shift=lambda cell: sharpening(-0.25)(cell) * (cell.budget == 0.68))
    assert text.startswith("On 5 % of the data, sharpening beats random by 0.20 dB")
    assert "; it does so with 2 of 2 networks; on less data, none is shown to. It is 0.10 dB below full data" in text


def test_networks_where_it_loses_are_counted(found):
    text = found(shift=lambda cell: sharpening(-0.3)(cell) * (cell.network == "edsr_tiny"))
    assert "it does so with 1 of 2 networks." in text


def test_a_gain_that_a_better_recipe_brings_random_too_is_none(found):
    text = found(shift=lambda cell: sharpening(-0.25)(cell) * (cell.recipe == "strong"))
    assert text.startswith("No distilled regime beats random: the nearest, sharpening on 0.68 % of the data, differs")
    assert "recipe strong" in text


def test_recipe_of_full_data_is_named_where_it_is_another(found):
    text = found(lambda item: item.cell.recipe == "plain" or item.cell.regime == "full")
    assert "It is 0.30 dB below full data (recipe strong), keeps 87.6 % of their gain" in text  # 2.12 of 2.42


def test_regime_that_beats_full_data(found):
    text = found(shift=sharpening(0.5))
    assert f"It is 0.30 dB above full data, keeps 112 % of their gain over bicubic upscaling, and {AGAINST}" in text


def test_regime_level_with_full_data(found):
    assert "It is level with full data, keeps 100 % of their gain" in found(shift=sharpening(0.2))


def test_every_regime_is_worse_than_random(found):
    text = found(shift=sharpening(-0.5))
    assert text == (
        "No distilled regime beats random: the nearest, sharpening on 0.68 % of the data, differs from it by "
        "\u22120.30 dB PSNR-Y (95 % interval \u22120.30 to \u22120.30; "
        f"{SETTING}). It is 0.70 dB below full data, keeps 71.1 % of their gain over bicubic upscaling, and {AGAINST}"
    )  # 1.72 of 2.42


@pytest.mark.parametrize(
    ("gain", "interval", "says"),
    [
        (
            0.02,
            (-0.02, 0.05),
            "No distilled regime is shown to beat random: the nearest, sharpening on 0.68 % of the data",
        ),
        (-0.02, (-0.05, -0.01), "No distilled regime beats random: the nearest, sharpening on 0.68 % of the data"),
        (0.004, (0.001, 0.006), "sharpening beats random by less than 0.01 dB PSNR-Y (95 % interval 0.00 to +0.01;"),
        (0.02, None, "that is +0.02 dB against random, with no interval to tell it from chance. It is"),
        (None, None, "it cannot be compared with random, for want of the same budget and seed. It is"),
    ],
)
def test_what_an_interval_says(study, gain, interval, says):
    lines = [
        dataclasses.replace(line, gain_over_random=gain, gain_interval=interval)
        if line.group.regime == "sharpening"
        else line
        for line in summarise(*study, "full", "random", 10)
    ]
    assert says in headline(lines, "full", "random")


def test_best_of_several_regimes_is_called_so(study):
    rows, images = study
    more = [
        dataclasses.replace(each, cell=each.cell._replace(regime="gsdd"), psnr_y=each.psnr_y + 0.05)
        for each in (*rows, *images)
        if each.cell.regime == "sharpening"
    ]
    half = len([row for row in rows if row.cell.regime == "sharpening"])
    text = headline(summarise(rows + more[:half], images + more[half:], "full", "random", 100), "full", "random")
    assert text.startswith("On 0.68 % of the data, gsdd, the best of 2 distilled regimes, beats random by 0.25 dB")


def test_no_full_data(found):
    text = found(lambda item: item.cell.regime != "full")
    assert text.startswith("On 0.68 % of the data, sharpening beats random by 0.20 dB")
    assert text.endswith(
        " It is 2.22 dB above bicubic upscaling and takes 1 min 21 s with distillation; "
        "there are no full data to compare with."
    )


def test_no_baseline(found):
    assert found(lambda item: item.cell.regime != "random") == (
        f"On 0.68 % of the data, sharpening reaches 29.42 dB PSNR-Y ({SETTING}); there is no random to compare with. "
        f"It is 0.20 dB below full data, keeps 91.7 % of their gain over bicubic upscaling, and {AGAINST}"
    )


def test_baseline_alone(found):
    assert found(lambda item: item.cell.regime != "sharpening").startswith(
        f"On 0.68 % of the data, random reaches 29.22 dB PSNR-Y ({SETTING}); there is no distilled regime to compare "
        "with it. It is 0.40 dB below full data, keeps 83.5 % of"  # 2.02 of 2.42
    )


def test_full_data_alone(found):
    assert found(lambda item: item.cell.regime == "full") == (
        "Without a teacher, networks have been trained on full data only: "
        f"29.62 dB PSNR-Y, +2.42 dB against bicubic upscaling ({SETTING})."
    )


def test_one_regime_alone(found):
    assert found(lambda item: item.cell.regime == "sharpening") == (
        f"On 0.68 % of the data, sharpening reaches 29.42 dB PSNR-Y ({SETTING}); there is no random to compare with. "
        "It is 2.22 dB above bicubic upscaling and takes 1 min 21 s with distillation; "
        "there are no full data to compare with."
    )


def test_plan_without_a_baseline(study):
    rows, images = study
    text = headline(summarise(rows, images, "full", "", 100), "full", "")
    assert "; there is no baseline to compare with. It is" in text


def test_one_seed_is_called_one_only(found):
    assert "recipe strong, 1 seed only, 19 test images" in found(lambda item: item.cell.seed == 0)


def test_one_network_is_not_counted(found):
    assert "it does so with" not in found(lambda item: item.cell.network == "edsr_tiny")


def test_share_of_nothing_is_not_told(found):
    assert "It is 0.20 dB below full data, which gain nothing over bicubic upscaling, and takes" in found(
        shift=lambda cell: -5.0
    )
    assert "It is 3.20 dB below full data, does not gain over bicubic upscaling, and takes" in found(
        shift=lambda cell: -3.0 * (cell.regime != "full")
    )


def test_nothing_at_all():
    assert (
        headline([], "full", "random")
        == "No network has yet been trained without a teacher and tested on all test sets."
    )


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"keep": lambda item: item.cell.regime == "full"},
        {"keep": lambda item: item.cell.regime == "sharpening"},
        {"shift": lambda cell: -5.0},
        {"shift": lambda cell: -3.0 * (cell.regime != "full")},
    ],
)
def test_restoration_is_against_the_degraded_input(found, changed):
    """Otherwise the sentences are those of super-resolution, which the tests above have in whole."""
    expected = found(**changed)
    assert "bicubic upscaling" in expected
    assert found(**changed, untrained="input") == expected.replace("bicubic upscaling", "the degraded input")
