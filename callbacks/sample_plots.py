"""Samples against real patches in plots: power spectra and the PSNR of bicubic."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from datamodules.spectra import Spectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 30


class Look(NamedTuple):
    """How a group of patches is drawn: colours of M. Okabe and K. Ito's palette, and dashes for who sees none."""

    colour: str
    dashes: str
    label: str


LOOKS = {
    "real": Look("#1b1b1b", "-", "real"),
    "sampled": Look("#d55e00", "--", "sampled"),
    "bicubic": Look("#56b4e9", ":", "bicubic of real"),
}


def spectra_plot(spectra: Mapping[str, Spectrum], scale: int, title: Sequence[str]) -> Image.Image:
    """Radial power spectra on logarithmic axes, and beside them their ratio to that of real patches in dB.

    Args:
        spectra: by the names in `LOOKS`, of patches of one side. Those of flat patches, which have no power, are left
            out.
        scale: factor between HR and LR, whose Nyquist frequency is marked.
        title: lines above the plot; long ones are broken.

    Returns:
        RGB, 1650 x 750 pixels.
    """
    spectra = {name: spectrum for name, spectrum in spectra.items() if (spectrum.power > 0).all()}
    figure = _figure(title, (11, 5))
    power, ratio = figure.subplots(1, 2)
    for name, spectrum in spectra.items():
        _line(power, name, spectrum.frequencies, spectrum.power)
        if "real" in spectra:
            decibels = 10 * np.log10(spectrum.power / spectra["real"].power)
            _line(ratio, name, spectrum.frequencies, decibels)
    lowest = min((spectrum.frequencies[0] for spectrum in spectra.values()), default=0.01)
    power.set(yscale="log", ylabel="power [grey levels² / (cycle / pixel)²]")
    ratio.set(ylabel="power relative to real patches [dB]")
    for axes in (power, ratio):
        _frequencies(axes, lowest, scale)
    if spectra:
        power.legend(frameon=False, loc="lower left")
    return _picture(figure)


def psnr_plot(real: Tensor, sampled: Tensor, title: Sequence[str]) -> Image.Image:
    """Histograms of the PSNR of bicubic, with the medians.

    Args:
        real: in dB, (M,).
        sampled: likewise, (N,).
        title: lines above the plot; long ones are broken.

    Returns:
        RGB, 1350 x 675 pixels.
    """
    figure = _figure(title, (9, 4.5))
    axes = figure.add_subplot(xlabel="PSNR of bicubic [dB], complex patches to the left", ylabel="share per bin [%]")
    groups = {"real": real.numpy(), "sampled": sampled.numpy()}
    everything = np.concatenate(list(groups.values()))
    low, high = np.quantile(everything, [0.001, 0.999])  # flat patches, at 100 dB, would squeeze all others together
    bins = np.histogram_bin_edges(everything, BINS, (low, high)).tolist()
    for name, values in groups.items():
        look, median = LOOKS[name], float(np.median(values))
        fill: Any = {"histtype": "stepfilled", "alpha": 0.25} if name == "real" else {"histtype": "step", "lw": 2}
        weights = np.full(len(values), 100 / len(values))
        label = f"{look.label}: {len(values):,}, median {median:.1f} dB"
        axes.hist(values.clip(low, high), bins, weights=weights, color=look.colour, label=label, **fill)
        axes.axvline(median, color=look.colour, ls=look.dashes, lw=1.2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return _picture(figure)


def _figure(title: Sequence[str], inches: tuple[float, float]) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, dpi=150, layout="constrained")
    text = "\n".join(textwrap.fill(line, round(11 * inches[0])) for line in title)
    figure.suptitle(text, fontsize="medium", x=0.02, ha="left")
    return figure


def _picture(figure: Figure) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def _line(axes: Axes, name: str, frequencies: np.ndarray, values: np.ndarray) -> None:
    look = LOOKS[name]
    axes.plot(frequencies, values, color=look.colour, ls=look.dashes, label=look.label)


def _frequencies(axes: Axes, lowest: float, scale: int) -> None:
    """A logarithmic axis with ticks that people read, and the highest frequency that LR can carry."""
    from matplotlib.ticker import NullLocator

    limit = 0.5 / scale
    axes.set_xscale("log")
    axes.set_xticks(ticks := [0.01, 0.02, 0.05, 0.1, 0.2, 0.5], labels=[f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(0.95 * lowest, 0.525)
    axes.set_xlabel("spatial frequency [cycles / pixel]")
    axes.axvline(limit, color="#808080", lw=1)
    axes.text(
        limit, 0.99, " Nyquist of LR", color="#808080", fontsize="small", va="top", transform=axes.get_xaxis_transform()
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#1b1b1b", alpha=0.12)
