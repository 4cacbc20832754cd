"""Layers with equalised learning rates, which style-based generators and their discriminators are made of."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EqualisedLinear(nn.Module):
    """A linear layer whose weights are stored with variance 1 and scaled as they are used (Karras et al., ICLR 2018).

    Adam's steps, which know no scale, then move all layers alike.

    Args:
        inputs: numbers of the input.
        outputs: of the output.
        bias: initial value of the bias.
        rate: the layer learns so many times as fast as the others.
    """

    def __init__(self, inputs: int, outputs: int, bias: float = 0.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.full((outputs,), bias / rate))
        self._scale, self._rate = rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs) -> (B, outputs)."""
        return F.linear(x, self.weight * self._scale, self.bias * self._rate)


class EqualisedConv(nn.Module):
    """A convolution that keeps the size of its input, scaled in the same way.

    Args:
        inputs: channels of the input.
        outputs: of the output.
        kernel: side of the kernel, odd.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self._scale = 1 / math.sqrt(inputs * kernel**2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H, W)."""
        return F.conv2d(x, self.weight * self._scale, self.bias, padding=self.weight.shape[-1] // 2)


def activate(x: Tensor) -> Tensor:
    """Leaky rectifier of slope 0.2, times sqrt(2): its second moment is then near that of a normal input."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)
