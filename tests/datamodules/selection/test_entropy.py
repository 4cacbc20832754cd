"""The sum of grey-level and gradient entropy, against scikit-image and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.selection.criteria import Entropy


def reference(patch: np.ndarray, grey_weight: float, gradient_weight: float) -> float:
    """Of uint8 (H, W, 3), in bits: Pillow's grey, SciPy's Sobel, scikit-image's entropy."""
    from scipy import ndimage
    from skimage.measure import shannon_entropy

    luma = np.asarray(Image.fromarray(patch).convert("L"), dtype=np.float64)
    across, down = (ndimage.sobel(luma, axis=axis, mode="nearest") for axis in (0, 1))
    gradient = np.hypot(across, down) / 8
    return grey_weight * shannon_entropy(luma) + gradient_weight * shannon_entropy(np.floor(gradient + 1e-9))


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.25, 3.0)])
def test_entropy_is_the_weighted_sum_of_scikit_images(batch, patches, weights):
    expected = [reference(patch, *weights) for patch in patches]
    np.testing.assert_allclose(Entropy(*weights)(batch(patches)).numpy(), expected, atol=1e-9)
    assert np.ptp(expected) > 1


def test_entropies_that_can_be_counted(batch):
    """Half black, half white: 1 bit of grey, and two of 16 columns at the edge have another gradient."""
    patch = np.zeros((1, 16, 16, 3), dtype=np.uint8)
    patch[:, :, 8:] = 255
    share = 2 / 16
    of_gradients = -(share * np.log2(share) + (1 - share) * np.log2(1 - share))
    assert Entropy()(batch(patch)).item() == pytest.approx(1 + of_gradients, rel=1e-12)
    assert Entropy()(batch(np.full_like(patch, 93))).item() == 0


def test_weights_are_checked_and_known_by():
    assert Entropy(1.0, 0.5).identity() == {"class": "Entropy", "grey_weight": 1.0, "gradient_weight": 0.5}
    for weights in ((0, 0), (-1, 1), (1, float("nan")), (float("inf"), 1)):
        with pytest.raises(ValueError, match=r"Entropy: grey_weight is .*; expected 0 or more, and one of"):
            Entropy(*weights)


def test_scores_do_not_depend_on_the_batch(batch, patches):
    together = Entropy()(batch(patches))
    alone = torch.cat([Entropy()(batch(patches[number : number + 1])) for number in range(len(patches))])
    assert torch.equal(together, alone)
    assert together.dtype == torch.float64
