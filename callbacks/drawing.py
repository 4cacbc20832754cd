"""Pictures for people: labelled rows of crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from datamodules.pair import to_uint8
from lightning_modules.upscaling import baseline

GAP = 4
CAPTION = 16
ERROR_GAIN = 4


def comparison_row(lr: Tensor, sr: Tensor, hr: Tensor, side: int) -> dict[str, Tensor]:
    """Crops of one image, side by side: LR (enlarged pixels), bicubic, SR, HR and the error of SR.

    At scale 1: the degraded input, the restored image, the truth and the error.

    Args:
        lr: float in [0, 1], (3, h, w).
        sr: (3, scale * h, scale * w).
        hr: the truth, like `sr`.
        side: of the crop in HR pixels; the same place for the same HR, where it has most detail.

    Returns:
        Label to crop, (3, side, side) or less where the image is smaller.
    """
    scale = hr.shape[-1] // lr.shape[-1]
    lr, sr, hr = (images.detach().float().cpu() for images in (lr, sr, hr))
    top, left, height, width = busiest_crop(hr, side, scale)
    window = (slice(None), slice(top, top + height), slice(left, left + width))
    if scale == 1:
        panels = {"input": lr, "restored": sr.clamp(0, 1), "truth": hr}
    else:
        enlarged = lr.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        panels = {"LR": enlarged, "bicubic": baseline(lr[None], scale)[0], "SR": sr.clamp(0, 1), "HR": hr}
    panels[f"error x{ERROR_GAIN}"] = ((sr - hr).abs() * ERROR_GAIN).clamp(0, 1)
    return {label: panel[window] for label, panel in panels.items()}


def busiest_crop(hr: Tensor, side: int, multiple: int) -> tuple[int, int, int, int]:
    """Top, left, height and width (multiples of `multiple`) of the window with the highest mean gradient."""
    grey = hr.mean(0)
    detail = torch.zeros_like(grey)
    detail[1:] += grey.diff(dim=0).abs()
    detail[:, 1:] += grey.diff(dim=1).abs()
    return highest_window(detail, side, multiple)


def highest_window(values: Tensor, side: int, multiple: int) -> tuple[int, int, int, int]:
    """The window with the highest mean, the first one of equals from the top left.

    Args:
        values: floating point, (H, W), both at least `multiple`.
        side: of the window; less where the image is smaller.
        multiple: all four numbers returned are multiples of it.

    Returns:
        Top, left, height and width.
    """
    height, width = (min(side, length) // multiple * multiple for length in values.shape)
    # One axis at a time: a window of 160 x 160 at each pixel of a 4K image would take minutes.
    rows = F.avg_pool2d(values[None, None], (height, 1), stride=(multiple, 1))
    means = F.avg_pool2d(rows, (1, width), stride=(1, multiple))[0, 0]
    row, column = divmod(int(means.argmax()), means.shape[1])
    return row * multiple, column * multiple, height, width


def draw_rows(rows: Sequence[tuple[str, Mapping[str, Tensor]]]) -> Image.Image:
    """One picture of captioned rows of labelled panels.

    Args:
        rows: caption and panels of each row; panels are float in [0, 1], (3, H, W), all of one size within a row; their
            labels may have several lines.
    """
    drawn = [_draw_row(caption, panels) for caption, panels in rows]
    picture = Image.new("RGB", (max(row.width for row in drawn), sum(row.height for row in drawn)), "white")
    top = 0
    for row in drawn:
        picture.paste(row, (0, top))
        top += row.height
    return picture


def _draw_row(caption: str, panels: Mapping[str, Tensor]) -> Image.Image:
    images = [_to_image(panel) for panel in panels.values()]
    width = sum(image.width + GAP for image in images) - GAP
    header = CAPTION * (2 + max(label.count("\n") for label in panels))
    row = Image.new("RGB", (width, header + images[0].height + GAP), "white")
    draw, font = ImageDraw.Draw(row), ImageFont.load_default(size=12)
    draw.text((0, 0), caption, fill="black", font=font)
    left = 0
    for label, image in zip(panels, images, strict=True):
        draw.text((left, CAPTION), label, fill="dimgray", font=font)
        row.paste(image, (left, header))
        left += image.width + GAP
    return row


def _to_image(panel: Tensor) -> Image.Image:
    levels = to_uint8(panel).permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(levels))
