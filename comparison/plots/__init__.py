"""The plots of a comparison, as matplotlib figures, PNG and SVG."""

from comparison.plots.drawing import draw_all
from comparison.plots.output import save_png, to_svg

__all__ = ["draw_all", "save_png", "to_svg"]
