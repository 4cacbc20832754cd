import pytest

from comparison.results.formatting import (
    format_bytes,
    format_gain,
    format_percent,
    format_psnr,
    format_seconds,
    format_signed,
    format_ssim,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.44, "0.4 s"),
        (9.96, "10 s"),
        (43, "43 s"),
        (59.6, "1 min 00 s"),
        (65, "1 min 05 s"),
        (3599.7, "1 h 00 min"),
        (3900, "1 h 05 min"),
        (86399, "1 d 00 h"),
        (183600, "2 d 03 h"),
    ],
)
def test_durations_have_two_units_and_carry_when_rounded(seconds, text):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (812, "812 B"), (999.6, "1.0 kB"), (1_240_000, "1.2 MB"), (999_960, "1.0 MB"), (5e16, "50000.0 TB")],
)
def test_sizes_are_in_powers_of_1000(count, text):
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("percent", "text"), [(0.68, "0.68 %"), (5.0, "5 %"), (93.21, "93.2 %"), (100, "100 %"), (103.4, "103 %")]
)
def test_percentages(percent, text):
    assert format_percent(percent) == text


def test_signs():
    assert [format_signed(value) for value in (0.154, -0.03, -0.001, 10.0)] == ["+0.15", "\u22120.03", "0.00", "+10.00"]
    assert format_percent(-3.2) == "\u22123.2 %"
    assert format_psnr(-1.5) == "\u22121.50"


def test_spread_and_interval_are_left_out_where_there_is_none():
    assert format_psnr(28.414, 0.018) == "28.41 ± 0.02"
    assert format_psnr(28.4) == "28.40"
    assert format_ssim(0.81236, 0.0004) == "0.8124 ± 0.0004"
    assert format_gain(0.15, (-0.12, 0.18)) == "+0.15 [\u22120.12, +0.18]"
    assert format_gain(0.15) == "+0.15"


def test_no_figure_is_a_dash():
    assert {format_psnr(None), format_signed(None), format_gain(None), format_percent(None)} == {"\u2013"}
