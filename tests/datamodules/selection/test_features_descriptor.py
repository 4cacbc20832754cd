"""The weights-free descriptor, against a plain implementation with scipy's DCT and numpy's statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import dctn

from datamodules.patch_store import Source, open_store
from datamodules.selection.candidates import Candidates
from datamodules.selection.features import Descriptor, descriptor

BANDS, COLOURS, GRADIENTS = slice(0, 18), slice(18, 24), slice(24, 33)
NOISE = 1 / 12 / 255**2


def describe(*patches: np.ndarray) -> np.ndarray:
    """The raw values, without the division by each group's spread, of patches (side, side, 3) in [0, 1]."""
    vectors = Descriptor()(torch.from_numpy(np.stack(patches)).float().permute(0, 3, 1, 2)).double().numpy()
    spread = np.repeat([3.80, 0.655, 0.474], [18, 6, 9])
    return vectors * spread


def grey(luma: np.ndarray) -> np.ndarray:
    return np.repeat(luma[:, :, None], 3, axis=2)


def reference(patch: np.ndarray) -> list[float]:
    """One patch, one coefficient and one pixel after the other, as the class documents it."""
    side = len(patch)
    luma = patch @ [0.299, 0.587, 0.114]
    energies: list[list[float]] = [[] for _ in range(18)]
    for (v, u), coefficient in np.ndenumerate(dctn(luma, type=2, norm="ortho")):
        if u or v:
            ring = sum(np.hypot(u, v) / side >= edge for edge in (1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4))
            sector = min(2, int(np.degrees(np.arctan2(v, u)) // 30))
            energies[3 * ring + sector].append(coefficient**2)
    bands = [np.log10(1 + np.mean(band) / NOISE) for band in energies]

    red, green, blue = np.moveaxis(patch, 2, 0)
    opponent = [(red + green + blue) / 3, red - green, (red + green) / 2 - blue]
    colours = [c.mean() for c in opponent] + [np.log10(1 + c.std() ** 2 / NOISE) / 2 for c in opponent]

    square = [luma[:-1, :-1], luma[:-1, 1:], luma[1:, :-1], luma[1:, 1:]]
    right, down = (
        (square[1] + square[3] - square[0] - square[2]) / 2,
        (square[2] + square[3] - square[0] - square[1]) / 2,
    )
    m, a = np.hypot(right, down), np.arctan2(down, right)
    clear = np.minimum(1, m**2 / NOISE)  # gradients below the noise count less
    gradients = [(m * clear**k * f(2 * k * a)).sum() / m.sum() for k in (1, 2, 3, 4) for f in (np.cos, np.sin)]
    return [*bands, *colours, *gradients, np.log10((np.mean(m**2) + NOISE) / (m.mean() ** 2 + NOISE))]


@pytest.mark.parametrize("side", [16, 30, 64])
def test_is_the_plain_implementation(side):
    random = np.random.default_rng(side)
    blocks = np.kron(random.random((side // 5 + 1, side // 5 + 1, 3)), np.ones((5, 5, 1)))[:side, :side]
    noise = np.float32(random.random((side, side, 3))).astype(np.float64)
    for patch in (noise, np.float32(0.9 * blocks + 0.1 * noise).astype(np.float64)):
        np.testing.assert_allclose(describe(patch)[0], reference(patch), atol=2e-5)


def test_a_grating_lies_in_the_band_of_its_frequency_and_direction():
    """cos(pi (x + 1/2) u / N) is the u-th basis function of the DCT-II: all its energy is one coefficient."""
    wave = 0.5 + 0.4 * np.cos(np.pi * (np.arange(64) + 0.5) * 20 / 64)
    across, down = describe(grey(np.tile(wave, (64, 1))), grey(np.tile(wave[:, None], (1, 64))))
    ring = 2  # 20 / 64 lies between 1/4 and 3/8
    for vector, sector in ((across, 0), (down, 2)):
        assert np.flatnonzero(vector[BANDS] > 0.01).tolist() == [3 * ring + sector]
    assert across[GRADIENTS][0] == pytest.approx(1, abs=1e-3)  # all gradients horizontal: cos 2a is 1
    assert down[GRADIENTS][0] == pytest.approx(-1, abs=1e-3)


def test_a_flat_patch_has_colours_only():
    vector = describe(np.full((32, 32, 3), [0.8, 0.4, 0.2]))[0]
    np.testing.assert_allclose(vector[COLOURS], [1.4 / 3, 0.4, 0.4, 0, 0, 0], atol=1e-6)
    assert np.abs(vector[BANDS]).max() < 1e-5
    assert np.abs(vector[GRADIENTS]).max() < 1e-5


def test_sides_are_comparable():
    """White noise has the same energy in every coefficient, whatever the side: its variance."""
    random = np.random.default_rng(0)
    for side, count in ((32, 300), (128, 20)):
        patches = 0.5 + 0.1 * random.standard_normal((count, side, side))
        energy = NOISE * (10 ** describe(*map(grey, patches))[:, BANDS] - 1)
        np.testing.assert_allclose(energy.mean(0), 0.01, rtol=0.15)


def test_few_edges_are_sparser_than_texture():
    edge = np.zeros((32, 32))
    edge[:, 16:] = 1
    texture = np.random.default_rng(0).random((32, 32))
    sparse, even = (vector[GRADIENTS][8] for vector in describe(grey(edge), grey(texture)))
    assert sparse == pytest.approx(np.log10(31), abs=1e-3)  # one column of 31 holds all the gradients
    assert even < 0.2


def test_a_vector_does_not_depend_on_its_batch(monkeypatch):
    patches = torch.rand(10, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    together = Descriptor()(patches)
    assert together.shape == (10, 33)
    assert together.dtype == torch.float32
    monkeypatch.setattr(descriptor, "CHUNK_PIXELS", 3 * 24 * 24)
    torch.testing.assert_close(Descriptor()(patches), together, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 8), (16, 32)])
def test_patches_that_are_small_or_not_square_are_refused(shape):
    with pytest.raises(ValueError, match=r"no descriptor; set data\.candidate_size to 16 or more"):
        Descriptor()(torch.zeros(1, 3, *shape))


@pytest.mark.realdata
def test_groups_count_alike_over_photographs(data_root, tmp_path):
    """What SPREAD was measured for: a mean squared distance of 1 from the mean, here of every eighth photograph."""
    paths = sorted((data_root / "BSD400").glob("*.jpg"))[::8]
    store = open_store([Source(path.name, path) for path in paths], 4, tmp_path)
    candidates = Candidates(store, range(len(store)), 64, 64)
    hr = candidates.pairs(np.arange(len(candidates))).to_float().hr
    vectors = Descriptor()(hr).double()
    for group in (BANDS, COLOURS, GRADIENTS):
        assert vectors[:, group].var(0, correction=0).sum().item() == pytest.approx(1, rel=0.15)
