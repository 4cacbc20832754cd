"""How much fine detail the training data of each regime hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from comparison.plots.panels import legend, regime_handles
from comparison.plots.scales import log_frequency, log_powers
from comparison.plots.style import WIDTH, Palette, styled
from datamodules.spectra import Spectrum

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@styled
def spectra_plot(spectra: Mapping[str, Spectrum], palette: Palette) -> Figure | None:
    """Radial power spectra, and beside them what sets them apart: their ratio to the reference, or to the baseline.

    Args:
        spectra: by regime.
        palette: with all these regimes.

    Returns:
        One panel, or two where reference or baseline is there with others; None without spectra. Those of
        flat patches, which have no power, are left out.
    """
    from matplotlib.figure import Figure

    spectra = {name: spectrum for name, spectrum in spectra.items() if (spectrum.power > 0).all()}
    if not spectra:
        return None
    names = palette.sort(spectra)
    compared = len(names) > 1 and names[0] in (palette.reference, palette.baseline)
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    panels = figure.subplots(1, 1 + compared, squeeze=False)[0]
    lowest = min(spectrum.frequencies[0] for spectrum in spectra.values())
    for name in names:
        panels[0].plot(*spectra[name], color=palette[name].colour, ls=palette[name].dashes)
    powers = np.concatenate([spectrum.power for spectrum in spectra.values()])
    log_powers(panels[0], powers.min() / 1.5, powers.max() * 1.5)
    panels[0].set_ylabel("power [grey levels² / (cycle / pixel)²]")
    if compared:
        _relative(panels[1], spectra, names, palette)
    for axes in panels:
        log_frequency(axes, lowest)
        axes.grid()
    legend(figure, regime_handles(palette, names, marker=False))
    figure.supxlabel("spatial frequency [cycles / pixel]", fontsize=10)
    return figure


def _relative(axes: Axes, spectra: Mapping[str, Spectrum], names: Sequence[str], palette: Palette) -> None:
    """Spectra over the first one, in dB, where their frequencies overlap."""
    frequencies, power = spectra[names[0]]
    for name in names:
        own = spectra[name]
        inside = own.frequencies >= frequencies[0]
        first = np.interp(own.frequencies[inside], frequencies, np.log10(power))
        axes.plot(
            own.frequencies[inside],
            10 * (np.log10(own.power[inside]) - first),
            color=palette[name].colour, ls=palette[name].dashes,
        )  # fmt: skip
    axes.set_ylabel(f"power relative to {names[0]} [dB]")
