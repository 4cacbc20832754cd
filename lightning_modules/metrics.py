"""The SR evaluation protocol: PSNR, SSIM and, when asked for, LPIPS and DISTS, image by image.

A PSNR means something only beside its protocol (channel, rounding, border), so :class:`Protocol` is data that is
written next to the numbers, and :class:`SRMetrics` keeps one row per image: the mean over a set is the mean of its
images' values, never the value of their pooled error.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.perceptual import perceptual_network

Row = dict[str, str | int | float]

HIGHER_IS_BETTER: dict[str, bool] = {
    "psnr_y": True,
    "ssim_y": True,
    "psnr_rgb": True,
    "ssim_rgb": True,
    "lpips": False,
    "dists": False,
}
"""Direction of each metric, for tables; a column such as ``psnr_y_bicubic`` has the direction of ``psnr_y``."""

_WINDOW = 11
_SIGMA = 1.5
_STRIP = 64  # rows at a time: 4K images take little memory, and six times less time than in one piece
_KEYS = ("set", "index", "name", "protocol")


@dataclass(frozen=True)
class Protocol:
    """What exactly PSNR and SSIM are computed on.

    Attributes:
        channel: ``"y"`` for the luma of ITU-R BT.601 in studio range (16..235), ``"rgb"`` for the three colours.
        crop_border: pixels left out on each side; None leaves out as many as the scale, and none at scale 1, as is
            usual for restoration.
        quantise: round SR and HR to uint8 first, as a saved image would be. HR of a benchmark is uint8-valued anyway.
        y_rounding: round Y to uint8 too, as MATLAB's ``rgb2ycbcr`` does (only for channel ``"y"``).

    Raises:
        ValueError: for an unknown channel or a negative border.
    """

    channel: Literal["y", "rgb"] = "y"
    crop_border: int | None = None
    quantise: bool = True
    y_rounding: bool = False

    def __post_init__(self) -> None:
        if self.channel not in ("y", "rgb"):
            raise ValueError(f"channel is {self.channel!r}, expected 'y' or 'rgb'")
        if self.crop_border is not None and self.crop_border < 0:
            raise ValueError(f"crop_border is {self.crop_border}, expected 0 or more pixels, or None for the scale")

    def border(self, scale: int) -> int:
        """Pixels left out on each side for images that were enlarged by `scale`; at scale 1 the border is as good."""
        by_scale = scale if scale > 1 else 0
        return by_scale if self.crop_border is None else self.crop_border

    def channels(self, scale: int | None = None) -> list[Literal["y", "rgb"]]:
        """What is measured at a scale: the protocol's channel, and RGB besides where images are restored (scale 1)."""
        return ["y", "rgb"] if scale == 1 and self.channel == "y" else [self.channel]

    def describe(self, scale: int | None = None) -> str:
        """One line to print beside numbers; `scale` turns "crop = scale" into pixels."""
        rounded = ", rounded as in MATLAB" if self.y_rounding else ""
        names = {"y": f"Y (BT.601{rounded})", "rgb": "RGB"}
        channels = " and ".join(names[channel] for channel in self.channels(scale))
        known = scale is not None or self.crop_border is not None
        crop = f"crop {self.border(scale or 0)}" if known else "crop = scale"
        return f"PSNR/SSIM on {channels}, {'uint8' if self.quantise else 'not rounded'}, {crop}, mean over images"

    def __str__(self) -> str:
        return self.describe()


PROTOCOLS: dict[str, Protocol] = {"basicsr": Protocol(), "matlab": Protocol(y_rounding=True)}
"""Named protocols: BasicSR's unrounded Y, and the Y of MATLAB's ``rgb2ycbcr``, about 0.01 dB lower on bicubic."""


def rgb_to_y(images: Tensor) -> Tensor:
    """Luma of ITU-R BT.601 in studio range: ``16 + 65.481 R + 128.553 G + 24.966 B``.

    Args:
        images: RGB in [0, 1], (..., 3, H, W).

    Returns:
        Grey levels in [16, 235], not rounded, float64, (..., 1, H, W).
    """
    rgb = _float64(images)
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=rgb.dtype, device=rgb.device)
    return 16 + (rgb * weights.view(3, 1, 1)).sum(dim=-3, keepdim=True)


def psnr(sr: Tensor, hr: Tensor, scale: int, protocol: Protocol = PROTOCOLS["basicsr"]) -> Tensor:
    """Peak signal-to-noise ratio of each image, ``10 log10(255^2 / MSE)`` in dB, for both channels with peak 255.

    Args:
        sr: RGB in [0, 1], (B, 3, H, W); what lies outside is clipped.
        hr: the truth, like `sr`.
        scale: what the images were enlarged by; gives the border that is left out.
        protocol: channel, border and rounding.

    Returns:
        float64, (B,); +inf for an image without any difference, NaN for one that holds NaN.

    Raises:
        ValueError: when the shapes differ or nothing is left inside the border.
    """
    first, second = _levels(sr, hr, scale, protocol, smallest=1)
    mse = (first - second).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(255**2 / mse)


def ssim(sr: Tensor, hr: Tensor, scale: int, protocol: Protocol = PROTOCOLS["basicsr"]) -> Tensor:
    """Structural similarity of each image (Wang et al., IEEE TIP 2004), as in its authors' ``ssim_index.m``.

    Gaussian window of 11 x 11 pixels with sigma 1.5, K1 = 0.01, K2 = 0.03, peak 255, averaged over the windows that lie
    wholly inside the image, and over the colours for channel ``"rgb"``. Arguments as for :func:`psnr`.

    Returns:
        float64, (B,), at most 1.

    Raises:
        ValueError: when the shapes differ or less than one window is left inside the border.
    """
    x, y = _levels(sr, hr, scale, protocol, smallest=_WINDOW)
    height, width = (side - _WINDOW + 1 for side in x.shape[-2:])
    total = x.new_zeros(len(x))
    for top in range(0, height, _STRIP):
        rows = slice(top, top + _STRIP + _WINDOW - 1)
        total += _similarity(x[..., rows, :], y[..., rows, :]).sum(dim=(1, 2, 3))
    return total / (x.shape[1] * height * width)


def _similarity(x: Tensor, y: Tensor) -> Tensor:
    """SSIM of every whole window of grey levels: (B, C, H, W) twice -> (B, C, H - 10, W - 10)."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = _window_mean(x), _window_mean(y)
    product = mean_x * mean_y
    squares = mean_x.square() + mean_y.square()
    variances = _window_mean(x * x) + _window_mean(y * y) - squares
    covariance = _window_mean(x * y) - product
    return (2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))


class SRMetrics:
    """Per-image metrics of whole test sets, for validation and test of a LightningModule.

    A plain object and no ``nn.Module``: held by a LightningModule it adds nothing to its ``state_dict``. Rows are kept
    by (set, index), so an image that a padded ``DistributedSampler`` hands out twice counts once. Use: :meth:`reset`
    when the epoch starts, :meth:`update` for each batch, :meth:`compute` at its end on EVERY process, then :meth:`rows`
    and :meth:`write_csv` wherever wanted.

    LPIPS and DISTS see the whole RGB image, rounded if the protocol says so, without cropping the border. Their
    networks are built when first needed, run on the images' device, and always in float32.

    Args:
        protocol: ``"basicsr"``, ``"matlab"`` or a :class:`Protocol`.
        lpips: also compute LPIPS (AlexNet; Zhang et al., CVPR 2018).
        dists: also compute DISTS (VGG-16; Ding et al., IEEE TPAMI 2020).

    Raises:
        ValueError: for a protocol name that does not exist.
    """

    def __init__(self, protocol: str | Protocol = "basicsr", lpips: bool = False, dists: bool = False) -> None:
        if isinstance(protocol, str) and protocol not in PROTOCOLS:
            raise ValueError(f"protocol is {protocol!r}, expected one of {', '.join(PROTOCOLS)}, or a Protocol")
        self.protocol = PROTOCOLS[protocol] if isinstance(protocol, str) else protocol
        self._perceptual = [name for name, wanted in (("lpips", lpips), ("dists", dists)) if wanted]
        self._networks: dict[str, nn.Module] = {}
        self._rows: dict[tuple[str, int], Row] = {}

    def reset(self) -> None:
        """Forget all rows; networks that were loaded stay."""
        self._rows.clear()

    @torch.no_grad()
    def update(
        self,
        set_name: str,
        names: Sequence[str],
        index: Tensor,
        outputs: Mapping[str, Tensor],
        *,
        hr: Tensor,
        scale: int,
    ) -> None:
        """Measure a batch; an image measured before is measured anew.

        Args:
            set_name: the test set.
            names: B image names, for the tables.
            index: int, (B,), each image's position in its set.
            outputs: what to measure, by the suffix of its columns: ``{"": sr, "_bicubic": bicubic}`` fills ``psnr_y``,
                ``ssim_y``, ``psnr_y_bicubic`` and ``ssim_y_bicubic``. Each RGB in [0, 1], (B, 3, H, W).
            hr: the truth, (B, 3, H, W).
            scale: what the images were enlarged by.

        Raises:
            ValueError: for shapes that do not fit together, images too small for SSIM, or two images with one index.
            FileNotFoundError: when the weights of LPIPS or DISTS are neither there nor to be fetched.
        """
        if not len(names) == len(index) == len(hr):
            raise ValueError(f"set {set_name!r}: {len(names)} names and {len(index)} indices for {len(hr)} images")
        values = {
            metric + suffix: scores.tolist()
            for suffix, images in outputs.items()
            for metric, scores in self._measure(images, hr, scale).items()
        }
        protocol = self.protocol.describe(scale)
        for i, (name, position) in enumerate(zip(names, index.tolist(), strict=True)):
            row: Row = dict(zip(_KEYS, (set_name, position, name, protocol), strict=True))
            row.update({column: scores[i] for column, scores in values.items()})
            _refuse_two_images(self._rows.get((set_name, position)), row)
            self._rows[set_name, position] = row

    def compute(self) -> dict[str, dict[str, float]]:
        """Means of each set over the images of all processes.

        Collective: every process must call it, and gets the same answer and all rows.

        An image identical to its truth has a PSNR of +inf, which would hide all others: the mean is over the finite
        values, and ``psnr_y_identical`` tells how many images were left out (the key is there only if there are any; a
        mean of +inf then says that all images are identical). A NaN makes the mean NaN: the network has diverged.

        Returns:
            ``{set: {metric: mean}}``, sets and metrics in the order of :meth:`rows`.

        Raises:
            ValueError: when two processes give one index of a set to two images.
        """
        self._rows = _gathered(self._rows)
        sets: dict[str, dict[str, list[float]]] = {}
        for row in self.rows():
            columns = sets.setdefault(str(row["set"]), {})
            for metric in row.keys() - set(_KEYS):
                columns.setdefault(metric, []).append(float(row[metric]))
        order = self._columns()
        return {name: _means({m: columns[m] for m in order if m in columns}) for name, columns in sets.items()}

    def rows(self) -> list[Row]:
        """One dict per image, sorted by set and index; before :meth:`compute` only this process's images."""
        return [self._rows[key] for key in sorted(self._rows)]

    def write_csv(self, path: Path | str) -> None:
        """Write :meth:`rows` to `path`, whole or not at all; makes its folder. Call it on one process."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*_KEYS, *self._columns()])
            writer.writeheader()
            writer.writerows(self.rows())
        temporary.replace(path)

    def _columns(self) -> list[str]:
        return [column for column in dict.fromkeys(c for row in self.rows() for c in row) if column not in _KEYS]

    def _measure(self, sr: Tensor, hr: Tensor, scale: int) -> dict[str, Tensor]:
        scores = {}
        for channel in self.protocol.channels(scale):
            protocol = replace(self.protocol, channel=channel)
            scores[f"psnr_{channel}"] = psnr(sr, hr, scale, protocol)
            scores[f"ssim_{channel}"] = ssim(sr, hr, scale, protocol)
        for name in self._perceptual:
            if name not in self._networks:
                self._networks[name] = perceptual_network(name)
            scores[name] = self._perceptual_distance(name, sr, hr)
        return scores

    def _perceptual_distance(self, name: str, sr: Tensor, hr: Tensor) -> Tensor:
        network = self._networks[name].to(sr.device)
        sr, hr = (_grey_levels(images, self.protocol).float().to(sr.device) / 255 for images in (sr, hr))
        # The Trainer's mixed precision must not change a metric.
        with torch.autocast(sr.device.type, enabled=False):
            return (network(sr, hr, normalize=True) if name == "lpips" else network(sr, hr)).reshape(-1)


def _float64(images: Tensor) -> Tensor:
    images = images.detach()
    return (images.cpu() if images.device.type == "mps" else images).double()  # Apple's GPUs have no float64


def _grey_levels(images: Tensor, protocol: Protocol) -> Tensor:
    """RGB in [0, 1] -> RGB in [0, 255], float64, rounded if the protocol says so."""
    levels = _float64(images).clamp(0, 1) * 255
    return levels.round() if protocol.quantise else levels


def _levels(sr: Tensor, hr: Tensor, scale: int, protocol: Protocol, smallest: int) -> tuple[Tensor, Tensor]:
    """Both images as the protocol compares them: float64 grey levels 0..255, (B, 1 or 3, h, w), border cropped."""
    border = protocol.border(scale)
    if sr.shape != hr.shape or sr.ndim != 4 or sr.shape[1] != 3:
        raise ValueError(
            f"SR {tuple(sr.shape)} and HR {tuple(hr.shape)} cannot be compared: expected (B, 3, H, W) twice"
        )
    height, width = hr.shape[-2] - 2 * border, hr.shape[-1] - 2 * border
    if min(height, width) < smallest:
        raise ValueError(
            f"images of {hr.shape[-2]} x {hr.shape[-1]} pixels are too small: {max(height, 0)} x {max(width, 0)} "
            f"are left inside a border of {border}, expected at least {smallest} x {smallest}"
        )
    inside = (..., slice(border, border + height), slice(border, border + width))
    return _compared(sr[inside], protocol), _compared(hr[inside], protocol)


def _compared(images: Tensor, protocol: Protocol) -> Tensor:
    levels = _grey_levels(images, protocol)
    if protocol.channel == "rgb":
        return levels
    luma = rgb_to_y(levels / 255)
    return luma.round() if protocol.y_rounding else luma


def _window_mean(planes: Tensor) -> Tensor:
    """Gaussian-weighted mean of every whole window: (B, C, H, W) -> (B, C, H - 10, W - 10).

    Two one-dimensional passes: 20 times faster in float64 on a CPU than the square window of torchmetrics, in a
    twentieth of its memory (5 GB for one megapixel).
    """
    offset = torch.arange(_WINDOW, dtype=planes.dtype, device=planes.device) - _WINDOW // 2
    window = torch.exp(-offset.square() / (2 * _SIGMA**2))
    window = window / window.sum()
    single = planes.flatten(0, 1).unsqueeze(1)
    blurred = F.conv2d(F.conv2d(single, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
    return blurred.view(*planes.shape[:2], *blurred.shape[-2:])


def _gathered(rows: dict[tuple[str, int], Row]) -> dict[tuple[str, int], Row]:
    """The rows of all processes, each image once; the lowest rank wins, so that all processes agree."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return rows
    shares: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(shares, rows)
    merged: dict[tuple[str, int], Row] = {}
    for share in shares:
        for key, row in share.items():
            _refuse_two_images(merged.get(key), row)
            merged.setdefault(key, row)
    return merged


def _refuse_two_images(held: Row | None, row: Row) -> None:
    if held is not None and held["name"] != row["name"]:
        raise ValueError(
            f"set {row['set']!r} has two images with index {row['index']}, {held['name']!r} and {row['name']!r}: "
            "index must be the image's position in the whole set"
        )


def _means(columns: dict[str, list[float]]) -> dict[str, float]:
    means: dict[str, float] = {}
    for metric, values in columns.items():
        counted = [value for value in values if value != math.inf]
        means[metric] = math.fsum(counted) / len(counted) if counted else math.inf
        if len(counted) < len(values):
            means[f"{metric}_identical"] = float(len(values) - len(counted))
    return means
