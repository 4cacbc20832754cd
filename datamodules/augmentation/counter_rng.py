"""Random numbers that are a function of (seed, stream, sample, draw): no generator state to keep, save or restore.

A sample's numbers depend on its index alone, not on the batch it lies in, the worker or process that handles it, or on
what was drawn before. A resumed run therefore repeats the uninterrupted one without any saved random state.

The hash is splitmix64, a bijection of 64-bit words with golden-gamma increments: G. L. Steele, D. Lea and C. H. Flood,
"Fast Splittable Pseudorandom Number Generators", OOPSLA 2014, https://doi.org/10.1145/2714064.2660195, with the
constants of S. Vigna's reference, https://prng.di.unimi.it/splitmix64.c (public domain).
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor


def _signed(word: int) -> int:
    """`word` modulo 2**64 as the int64 with the same bits: torch has no arithmetic for uint64."""
    return (word + 2**63) % 2**64 - 2**63


_GAMMA = _signed(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = _signed(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = _signed(0x94D049BB133111EB)


def _shift_right(words: Tensor, bits: int) -> Tensor:
    # int64 shifts copy the sign downwards; unsigned ones, which splitmix64 is defined with, bring in zeros.
    return (words >> bits) & (2 ** (64 - bits) - 1)


def _output(state: Tensor, position: Tensor) -> Tensor:
    """The output at `position` (0, 1, ...) of the splitmix64 generator seeded with `state`; int64 in, int64 out."""
    words = state + (position + 1) * _GAMMA
    words = (words ^ _shift_right(words, 30)) * _MULTIPLIER_1
    words = (words ^ _shift_right(words, 27)) * _MULTIPLIER_2
    return words ^ _shift_right(words, 31)


def _stream_number(stream: int | str) -> int:
    # Not hash(): Python salts the hash of a str anew in each process.
    if isinstance(stream, str):
        return int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest(), "little")
    return stream


def derive_seed(seed: int, stream: int | str) -> int:
    """A seed for one of many independent consumers of `seed`.

    Args:
        seed: any integer; taken modulo 2**64.
        stream: number or name of the consumer.

    Returns:
        An integer in [-2**63, 2**63).
    """
    return int(_output(torch.tensor(_signed(seed)), torch.tensor(_signed(_stream_number(stream)))))


def uniform(seed: int, stream: int | str, index: Tensor, count: int = 1) -> Tensor:
    """Independent uniform numbers in [0, 1), the same on every device.

    Args:
        seed: any integer; taken modulo 2**64.
        stream: number or name of the decision; different streams are independent.
        index: int64, any shape (...): the running numbers of the samples.
        count: how many numbers each sample gets. A larger count extends the numbers of a smaller one.

    Returns:
        float32, (..., count), on the device of `index`: multiples of 2**-24, so that 1 cannot come out of rounding.
    """
    sample = _output(torch.tensor(derive_seed(seed, stream)), index.to(torch.int64))
    words = _output(sample.unsqueeze(-1), torch.arange(count, device=index.device))
    return _shift_right(words, 40).to(torch.float32) * 2.0**-24


def symmetric_beta(concentration: float, seed: int, stream: int | str, index: Tensor) -> Tensor:
    """Numbers distributed as Beta(concentration, concentration), from two uniform ones each and without rejection.

    A Student t variable with 2a degrees of freedom is sqrt(2a (U**(-1/a) - 1)) cos(2 pi V) (R. W. Bailey, "Polar
    generation of random variates with the t-distribution", Math. Comp. 62, 1994), and (1 + t / sqrt(2a + t**2)) / 2
    is then Beta(a, a) (L. Devroye, "Random variate generation in one line of code", Winter Simulation Conference 1996).

    Args:
        concentration: the a above, positive. 1 is uniform, large values gather at 0.5, small ones at 0 and 1.
        seed: any integer.
        stream: number or name of the decision.
        index: int64, (...): the running numbers of the samples.

    Returns:
        float32 in [0, 1], (...).
    """
    radius, angle = uniform(seed, stream, index, count=2).unbind(-1)
    # Both fractions multiplied by U**(1/a), which stays finite for a small concentration; 1 - U is never 0.
    near = (1 - radius) ** (1 / concentration)
    cosine = torch.cos(2 * math.pi * angle)
    far = (1 - near) * cosine**2
    return 0.5 + 0.5 * torch.sign(cosine) * torch.sqrt(far / (near + far))
