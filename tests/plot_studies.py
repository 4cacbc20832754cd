"""Lines of the table to draw, and what is read back from figures."""

import numpy as np

from comparison.plots.style import Palette
from comparison.results.rows import MEAN
from comparison.results.statistics import Group, Summary
from datamodules.spectra import Spectrum

FULL = 28.5
FIVE = ("edsr_tiny", "edsr_baseline", "rcan_small", "swinir_light", "srformer_light")
PALETTE = Palette(["full", "random", "sharpening"])
NAMES = ["psnr_against_budget", "psnr_against_time", "cost_bars", "cross_architecture", "learning_curves", "spectra"]


def line(regime, budget, psnr, teacher=False, recipe="plain", network="edsr_tiny", std=0.02, seconds=(20.0, 60.0)):
    """A line of the table; what no plot looks at is made up."""
    return Summary(
        group=Group(regime, teacher, recipe, network, budget, MEAN),
        seeds=3, test_images=19, psnr_y=psnr, psnr_y_std=std, ssim_y=0.8, ssim_y_std=None, psnr_rgb=None,
        lpips=None, psnr_y_untrained=26.4, ssim_y_untrained=0.74, untrained="bicubic",
        gap_to_full=psnr - FULL, gap_to_best_full=None, gain_over_random=None, gain_interval=None, kept=None,
        images=9, bytes=9, percent=budget or 100.0, distillation_seconds=seconds[0], training_seconds=seconds[1],
        peak_memory_mib=900, updates=2000,
    )  # fmt: skip


def small_study(**changed):
    """Full data, random and `sharpening` at two budgets, as lines of one panel."""
    values = {("random", 0.68): 27.8, ("random", 5.0): 28.0, ("sharpening", 0.68): 27.9, ("sharpening", 5.0): 28.2}
    return [line("full", None, FULL, **changed), *(line(*key, psnr, **changed) for key, psnr in values.items())]


def large_study(regimes=5, budgets=(0.68, 2.0, 5.0, 10.0), networks=("edsr_tiny", "swinir_light"), teachers=2):
    names = ["random", *(f"regime_{number:02d}" for number in range(1, regimes - 1))]
    return [
        line(
            name, budget, 27.5 + 0.1 * number + 0.02 * (budget or 0), bool(teacher), recipe, network, None, (30.0, 400)
        )
        for network in networks
        for recipe in ("plain", "strong")
        for teacher in range(teachers)
        for number, name in enumerate(["full", *names] if not teacher else names)
        for budget in ([None] if name == "full" else budgets)
    ]


def spectra(names):
    frequencies = np.arange(1, 33) / 64
    return {name: Spectrum(frequencies, 2.0**number / frequencies**2) for number, name in enumerate(names)}


def panels(figure):
    """Axes by title."""
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def texts(axes):
    return [text.get_text() for text in axes.texts]


def write_log(folder, values, step=lambda number: 100 * number + 99):
    """As Lightning's CSVLogger: training and validation in lines of their own."""
    folder.mkdir(parents=True)
    lines = [f"0,0.001,{step(number)},0.02,\n,,{step(number)},,{value}\n" for number, value in enumerate(values)]
    (folder / "metrics.csv").write_text("epoch,lr-Adam,step,train/loss,val/psnr_y\n" + "".join(lines))
