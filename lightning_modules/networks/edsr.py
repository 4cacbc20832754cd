"""EDSR (Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", CVPRW 2017).

Parameter names follow the authors' EDSR-PyTorch, so the weights they published load as they are.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
SCALES = (1, 2, 3, 4, 8)


class MeanShift(nn.Module):
    """Adds or takes away the mean colour of DIV2K.

    The published weights hold it as a frozen 1x1 convolution, so its weight and bias are in the state dict here too; an
    addition is faster, and stays in float32 under autocast.

    Args:
        rgb_range: value of white inside the network.
        sign: -1 to take the mean away, +1 to add it.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, rgb_range: float, sign: int) -> None:
        super().__init__()
        self.rgb_range = rgb_range
        self.register_buffer("weight", torch.eye(3).view(3, 3, 1, 1))
        self.register_buffer("bias", sign * rgb_range * torch.tensor(DIV2K_MEAN))
        self.register_load_state_dict_post_hook(_check_mean)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) to the same shape."""
        return x + self.bias.view(1, 3, 1, 1)


def _check_mean(shift: MeanShift, _: Any) -> None:
    """Weights of another range would load without complaint, overwrite the mean, and give grey images."""
    found = shift.bias.abs().sum().item() / sum(DIV2K_MEAN)
    if not math.isclose(found, shift.rgb_range, rel_tol=0.2):
        raise ValueError(
            f"these weights work on colours of 0..{found:.3g}, but the network was built with rgb_range="
            f"{shift.rgb_range:g}; set the network's option rgb_range to {found:.3g}"
        )
    if not torch.equal(shift.weight.float().cpu(), torch.eye(3).view(3, 3, 1, 1)):
        raise ValueError("these weights divide colours by a standard deviation, which EDSR here does not support")


class ResBlock(nn.Module):
    """Two 3x3 convolutions without normalisation, added to their input.

    Args:
        n_feats: channels.
        res_scale: factor on the residual; 0.1 keeps 256 channels stable (the paper's section 3.3).
    """

    def __init__(self, n_feats: int, res_scale: float) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(n_feats, n_feats), nn.ReLU(inplace=True), _conv(n_feats, n_feats))
        self.res_scale = res_scale

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_feats, H, W) to the same shape."""
        return torch.add(x, self.body(x), alpha=self.res_scale)


class EDSR(nn.Module):
    """EDSR for RGB images in [0, 1].

    The defaults are the paper's "EDSR baseline" (16 blocks of 64 channels); the large one has 32 of 256 with
    res_scale 0.1.

    Args:
        scale: 1 (restoration, no upsampler), 2, 3, 4 or 8.
        n_feats: channels.
        n_resblocks: residual blocks.
        res_scale: factor on each block's residual.
        rgb_range: value of white INSIDE the network; input and output stay in [0, 1]. The published weights need 255.
        direct_shuffle: upscale by ONE convolution to 3 * scale^2 channels and one pixel shuffle, in place of the
            paper's stages at the full number of channels: several times faster for small networks.
        bicubic_skip: learn the residual to the bicubic image (Keys' kernel, a = -0.5, as in MATLAB). The last
            convolution starts at zero, so an untrained network IS bicubic upscaling.

    Raises:
        ValueError: for a scale that is not supported.
    """

    def __init__(
        self,
        *,
        scale: int,
        n_feats: int = 64,
        n_resblocks: int = 16,
        res_scale: float = 1.0,
        rgb_range: float = 255.0,
        direct_shuffle: bool = False,
        bicubic_skip: bool = False,
    ) -> None:
        super().__init__()
        if scale not in SCALES:
            raise ValueError(f"EDSR has no scale {scale}; use one of {', '.join(map(str, SCALES))}")
        self.scale = scale
        self.rgb_range = rgb_range
        self.bicubic_skip = bicubic_skip
        self.sub_mean = MeanShift(rgb_range, sign=-1)
        self.add_mean = MeanShift(rgb_range, sign=1)
        self.head = nn.Sequential(_conv(3, n_feats))
        blocks = [ResBlock(n_feats, res_scale) for _ in range(n_resblocks)]
        self.body = nn.Sequential(*blocks, _conv(n_feats, n_feats))
        self.tail = _direct_tail(scale, n_feats) if direct_shuffle else _staged_tail(scale, n_feats)
        if bicubic_skip:
            _zero_last_convolution(self.tail)

    def forward(self, x: Tensor) -> Tensor:
        """Upscale (B, 3, H, W) to (B, 3, scale * H, scale * W); both in [0, 1], the output not clipped."""
        x = self.sub_mean(x * self.rgb_range)
        features = self.head(x)
        y = self.tail(self.body(features) + features)
        if self.bicubic_skip:
            y = y + F.interpolate(x, scale_factor=self.scale, mode="bicubic", antialias=True)
        return self.add_mean(y) / self.rgb_range


def _conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)


def _staged_tail(scale: int, n_feats: int) -> nn.Sequential:
    """The paper's tail: one stage of x3, or log2(scale) stages of x2, then a convolution to RGB."""
    factors = [3] if scale == 3 else [2] * int(math.log2(scale))
    stages: list[nn.Module] = []
    for factor in factors:
        stages += [_conv(n_feats, n_feats * factor**2), nn.PixelShuffle(factor)]
    return nn.Sequential(nn.Sequential(*stages), _conv(n_feats, 3))


def _direct_tail(scale: int, n_feats: int) -> nn.Sequential:
    return nn.Sequential(_conv(n_feats, 3 * scale**2), nn.PixelShuffle(scale))


def _zero_last_convolution(tail: nn.Sequential) -> None:
    last = [module for module in tail.modules() if isinstance(module, nn.Conv2d)][-1]
    nn.init.zeros_(last.weight)
    if last.bias is not None:
        nn.init.zeros_(last.bias)
