import dataclasses
import time

import numpy as np
import pytest

from comparison.results.rows import MEAN, Cell, ImageRow
from comparison.results.statistics import Group, summarise


def lines(rows, images=(), bootstrap=200, **changed):
    found = summarise(rows, images, **{"reference": "full", "baseline": "random", **changed}, bootstrap=bootstrap)
    assert len({line.group for line in found}) == len(found)
    return {line.group: line for line in found}


def group(regime, budget, name=MEAN, teacher=False, recipe="plain", network="edsr_tiny"):
    return Group(regime, teacher, recipe, network, budget, name)


def test_every_line_of_the_study_and_its_mean_are_there(study):
    found = lines(*study)
    # (full + two regimes x two budgets x teacher or not) x two networks x two recipes x two sets and their mean
    assert len(found) == (1 + 2 * 2 * 2) * 4 * 3
    assert {line.seeds for line in found.values()} == {3}
    assert {each.set: line.test_images for each, line in found.items()} == {"Set5": 5, "Set14": 14, MEAN: 19}


def test_means_and_deviations_are_those_computed_by_hand(study):
    found = lines(*study)
    # 28.4 + 1.8 + (0 + 0.02 + 0.04) / 3, and 26 + the same; sample deviation of 0, 0.02, 0.04 is 0.02
    for name, psnr in (("Set5", 30.22), ("Set14", 27.82), (MEAN, 29.02)):
        line = found[group("sharpening", 0.68, name)]
        assert line.psnr_y == pytest.approx(psnr)
        assert line.psnr_y_std == pytest.approx(0.02)
        assert line.ssim_y == pytest.approx(0.7 + (psnr - 26) / 50)
        assert line.ssim_y_std == pytest.approx(0.02 / 50)
    assert found[group("full", None)].psnr_y_untrained == pytest.approx(27.2)
    assert found[group("full", None)].training_seconds == pytest.approx(61)
    assert found[group("sharpening", 0.68)].total_seconds == pytest.approx(81)


def test_deviation_of_the_mean_is_over_seeds_of_means_over_sets(row):
    psnr = np.random.default_rng(0).normal(28, 1, (3, 2))
    cells = [Cell("random", False, "plain", "edsr_tiny", 5.0, seed) for seed in range(3)]
    rows = [row(cells[seed], name, psnr[seed, k]) for seed in range(3) for k, name in enumerate(("Set5", "Set14"))]
    line = lines(rows)[group("random", 5.0)]
    assert line.psnr_y == pytest.approx(psnr.mean())
    assert line.psnr_y_std == pytest.approx(np.std(psnr.mean(axis=1), ddof=1))
    assert lines(rows[:2])[group("random", 5.0)].psnr_y_std is None


def test_gaps_and_share_kept_by_hand(study):
    line = lines(*study)[group("sharpening", 0.68)]
    assert line.gap_to_full == pytest.approx(-0.2)  # 1.8 against 2.0
    assert line.gap_to_best_full == pytest.approx(-0.3)  # `strong` adds 0.1 to full data
    assert line.kept == pytest.approx(1.82 / 2.02)  # over bicubic, with 0.02 as the mean of the seeds
    assert line.gain_over_random == pytest.approx(0.2)


def test_reference_is_compared_with_itself_and_baseline_with_nothing(study):
    found = lines(*study)
    full, strong = found[group("full", None)], found[group("full", None, recipe="strong")]
    assert (full.gap_to_full, full.kept) == (0.0, 1.0)
    assert full.gap_to_best_full == pytest.approx(-0.1)
    assert strong.gap_to_best_full == 0.0
    assert full.gain_over_random is None
    assert found[group("random", 5.0)].gain_over_random is None
    assert found[group("random", 5.0)].gain_interval is None


def test_teacher_is_compared_with_random_of_the_same_teacher_and_full_without(study):
    line = lines(*study)[group("sharpening", 5.0, teacher=True)]
    assert line.gain_over_random == pytest.approx(0.2)
    assert line.gap_to_full == pytest.approx(1.8 + 0.1 + 0.05 - 2.0)


def test_nothing_to_compare_with(study):
    rows, images = study
    found = lines([row for row in rows if row.cell.regime == "sharpening"], images)
    line = found[group("sharpening", 0.68)]
    assert (line.gap_to_full, line.gap_to_best_full, line.kept) == (None, None, None)
    assert (line.gain_over_random, line.gain_interval) == (None, None)
    assert summarise([], [], "full", "random") == []


def test_share_kept_needs_full_data_that_gain_over_bicubic(row):
    full, small = (
        Cell("full", False, "plain", "edsr_tiny", None, 0),
        Cell("random", False, "plain", "edsr_tiny", 5.0, 0),
    )
    found = lines([row(full, "Set5", 28.0), row(small, "Set5", 27.9)])
    assert found[group("random", 5.0)].kept is None
    assert found[group("random", 5.0)].gap_to_full == pytest.approx(-0.1)


def test_gain_is_over_common_seeds_only(row):
    levels = {("random", 0): 28.0, ("random", 1): 29.0, ("sharpening", 1): 29.3, ("sharpening", 2): 20.0}
    rows = [row(Cell(regime, False, "plain", "edsr_tiny", 5.0, s), "Set5", p) for (regime, s), p in levels.items()]
    assert lines(rows)[group("sharpening", 5.0)].gain_over_random == pytest.approx(0.3)
    assert lines(rows[:1] + rows[3:])[group("sharpening", 5.0)].gain_over_random is None


def test_mean_is_over_trainings_that_have_all_sets(row):
    cells = [Cell("random", False, "plain", "edsr_tiny", 5.0, seed) for seed in range(2)]
    rows = [row(cells[0], "Set5", 29.0), row(cells[0], "Set14", 27.0), row(cells[1], "Set5", 31.0)]
    found = lines(rows)
    assert found[group("random", 5.0, "Set5")].psnr_y == 30.0
    assert (found[group("random", 5.0)].psnr_y, found[group("random", 5.0)].seeds) == (28.0, 1)
    other = row(Cell("sharpening", False, "plain", "edsr_tiny", 5.0, 0), "Set5", 30.0)
    assert group("sharpening", 5.0) not in lines([*rows, other])


def test_costs_are_means_over_seeds_and_memory_the_largest(row):
    cells = [Cell("random", False, "plain", "edsr_tiny", 5.0, seed) for seed in range(2)]
    rows = [
        row(cell, name, 28.0, peak_memory_mib=900.0 - 100 * cell.seed, bytes=100 + 50 * cell.seed)
        for cell in cells
        for name in ("Set5", "Set14")
    ]
    line = lines(rows)[group("random", 5.0)]
    assert (line.peak_memory_mib, line.bytes, line.training_seconds) == (900.0, 125.0, 60.5)


def test_lpips_is_a_mean_only_where_all_have_it(row):
    cells = [Cell("random", False, "plain", "edsr_tiny", 5.0, seed) for seed in range(2)]
    rows = [row(cell, "Set5", 28.0, lpips=0.2 + 0.2 * cell.seed) for cell in cells]
    assert lines(rows)[group("random", 5.0)].lpips == pytest.approx(0.3)
    assert lines([rows[0], dataclasses.replace(rows[1], lpips=None)])[group("random", 5.0)].lpips is None


def paired(sizes, seeds=2, generator=0, gain=0.1, noise=0.3):
    """Rows of `random` and `sharpening` whose images differ by noise: (images, differences per set, over seeds)."""
    draws = np.random.default_rng(generator)
    images, differences = [], {}
    for name, count in sizes.items():
        base, difference = draws.normal(28, 2, (seeds, count)), draws.normal(gain, noise, (seeds, count))
        differences[name] = difference.mean(axis=0)
        for regime, psnr in (("random", base), ("sharpening", base + difference)):
            for seed in range(seeds):
                cell = Cell(regime, False, "plain", "edsr_tiny", 5.0, seed)
                images += [ImageRow(cell, name, f"{k}.png", psnr[seed, k], 0.8, 26.0, 0.7) for k in range(count)]
    return images, differences


def rows_of(row, images):
    psnr = {}
    for image in images:
        psnr.setdefault((image.cell, image.set), []).append(image.psnr_y)
    return [dataclasses.replace(row(cell, "Set5", np.mean(values)), set=name) for (cell, name), values in psnr.items()]


def plain_bootstrap(differences, resamples):
    """An own bootstrap, one draw after the other: mean over sets of the means over images drawn with replacement."""
    draws = np.random.default_rng(1)
    means = [
        np.mean([draws.choice(values, len(values), replace=True).mean() for values in differences])
        for _ in range(resamples)
    ]
    return np.percentile(means, [2.5, 97.5])


def test_interval_is_that_of_a_plain_bootstrap_and_of_scipy(row):
    from scipy.stats import bootstrap

    images, differences = paired({"Set5": 5, "Set14": 14})
    found = lines(rows_of(row, images), images, bootstrap=20_000)
    # the ends of 4 000 draws have a Monte-Carlo error of about 0.04 standard deviations of the mean
    for name, parts in (("Set5", [differences["Set5"]]), (MEAN, list(differences.values()))):
        line = found[group("sharpening", 5.0, name)]
        deviation = np.sqrt(sum(np.var(part) / len(part) for part in parts)) / len(parts)
        assert line.gain_over_random == pytest.approx(np.mean([part.mean() for part in parts]))
        assert line.gain_interval == pytest.approx(plain_bootstrap(parts, 4_000), abs=0.15 * deviation)
        theirs = bootstrap(
            parts,
            lambda *samples, axis: sum(sample.mean(axis=axis) for sample in samples) / len(samples),
            method="percentile",
            n_resamples=20_000,
            rng=2,
            vectorized=True,
        ).confidence_interval
        assert line.gain_interval == pytest.approx(tuple(theirs), abs=0.1 * deviation)


def test_interval_is_the_normal_one_for_many_images(row):
    images, differences = paired({"Urban100": 1000}, seeds=1)
    interval = lines(rows_of(row, images), images, bootstrap=10_000)[group("sharpening", 5.0)].gain_interval
    values = differences["Urban100"]
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert interval == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.1 * error)


def test_interval_is_the_same_each_time_and_in_any_order_of_images(row):
    images, _ = paired({"Set5": 5, "Set14": 14})
    rows = rows_of(row, images)
    target = group("sharpening", 5.0)
    assert lines(rows, images)[target].gain_interval == lines(rows, images)[target].gain_interval
    assert lines(rows, images[::-1])[target].gain_interval == lines(rows, images)[target].gain_interval


@pytest.mark.parametrize("kept", [lambda image: image.image == "0.png", lambda image: image.cell.seed == 0])
def test_no_interval_of_one_image_or_of_a_seed_without_images(row, kept):
    images, _ = paired({"Set5": 5, "Set14": 14})
    some = [image for image in images if image.set == "Set14" or kept(image)]
    found = lines(rows_of(row, images), some)
    assert found[group("sharpening", 5.0, "Set14")].gain_interval is not None
    assert found[group("sharpening", 5.0, "Set5")].gain_interval is None
    assert found[group("sharpening", 5.0)].gain_interval is None
    assert found[group("sharpening", 5.0)].gain_over_random is not None


def test_images_are_paired_by_name(row):
    images, _ = paired({"Set5": 5})
    renamed = [
        dataclasses.replace(image, image=f"other_{image.image}") if image.cell.regime == "random" else image
        for image in images
    ]
    assert lines(rows_of(row, images), renamed)[group("sharpening", 5.0)].gain_interval is None


def test_five_hundred_lines_take_seconds(row):
    sizes = {"Set5": 5, "Set14": 14, "BSD100": 100, "Urban100": 100}
    images, _ = paired(sizes, seeds=3)
    images = [
        dataclasses.replace(image, cell=image.cell._replace(network=f"net_{k}")) for k in range(50) for image in images
    ]
    rows = rows_of(row, images)
    start = time.perf_counter()
    found = lines(rows, images, bootstrap=10_000)
    assert len(found) == 500
    assert time.perf_counter() - start < 10
