"""Figures as readers see them, the same in tables, plots, report and headline."""

from __future__ import annotations

MISSING = "\N{EN DASH}"
"""Stands where there is no figure."""

MINUS = "\N{MINUS SIGN}"
"""Sign of negative figures: as wide as a plus, and no line breaks after it."""

_SIZES = ("B", "kB", "MB", "GB", "TB")


def format_psnr(mean: float | None, std: float | None = None, digits: int = 2) -> str:
    """`28.41 ± 0.02`; the mean alone where there is no deviation (one seed), MISSING without a mean."""
    if mean is None:
        return MISSING
    figure = f"{mean:.{digits}f}".replace("-", MINUS)
    return figure if std is None else f"{figure} ± {std:.{digits}f}"


def format_ssim(mean: float | None, std: float | None = None) -> str:
    """As `format_psnr`, with the four digits that SSIM is printed with."""
    return format_psnr(mean, std, digits=4)


def format_signed(value: float | None, digits: int = 2) -> str:
    """A difference: `+0.15`, `-0.03` (with MINUS), and `0.00` for what rounds to nothing; MISSING for None."""
    if value is None:
        return MISSING
    figure = f"{value:+.{digits}f}"
    return figure.replace("-", MINUS) if figure.strip("+-0.") else figure[1:]


def format_gain(gain: float | None, interval: tuple[float, float] | None = None) -> str:
    """A difference in dB and its 95 % interval: `+0.15 [+0.12, +0.18]`; without brackets where there is no interval."""
    if interval is None:
        return format_signed(gain)
    return f"{format_signed(gain)} [{format_signed(interval[0])}, {format_signed(interval[1])}]"


def format_seconds(seconds: float) -> str:
    """A duration in its two largest units: `0.4 s`, `43 s`, `1 min 05 s`, `1 h 05 min`, `2 d 03 h`; 0 is `0 s`."""
    if round(seconds, 1) < 10:
        return f"{seconds:.1f} s" if seconds else "0 s"
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    if round(seconds) < 3600:
        return _pair(seconds, "min", 60, "s")
    if round(seconds / 60) < 24 * 60:
        return _pair(seconds / 60, "h", 60, "min")
    return _pair(seconds / 3600, "d", 24, "h")


def _pair(count: float, large: str, ratio: int, small: str) -> str:
    """Rounded before it is divided, so that 59.7 s are never `0 min 60 s`."""
    whole, rest = divmod(round(count), ratio)
    return f"{whole} {large} {rest:02d} {small}"


def format_bytes(count: float) -> str:
    """A size in powers of 1000, as file managers and disks count: `812 B`, `1.2 MB`."""
    if round(count) < 1000:
        return f"{count:.0f} B"
    for unit in _SIZES[1:]:
        count /= 1000
        if round(count, 1) < 1000 or unit == _SIZES[-1]:
            break
    return f"{count:.1f} {unit}"


def format_percent(percent: float | None) -> str:
    """`0.68 %`, `5 %`, `93.2 %`, `100 %`: three digits, and no decimals from 100 on; MISSING for None."""
    if percent is None:
        return MISSING
    figure = f"{percent:.0f}" if abs(percent) >= 100 else f"{percent:.3g}"
    return f"{figure.replace('-', MINUS)} %"
