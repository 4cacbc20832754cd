"""Augmentation against numpy, torchvision and torch's own resizing; draws against the published ranges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as vision

from lightning_modules.gan import augmentation
from lightning_modules.gan.augmentation import (
    DiffAugment,
    Siamese,
    brightness,
    contrast,
    cutout,
    flip,
    rotate,
    saturation,
    scale,
    translate,
)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def ramp(height: int, width: int, by_row: float, by_column: float) -> Tensor:
    """0.5 at the centre, rising by so much per pixel."""
    rows = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
    columns = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    return (0.5 + by_row * rows[:, None] + by_column * columns).expand(1, 3, height, width)


def slopes(image: Tensor) -> tuple[float, float]:
    """Rise per row and per column of a ramp's middle."""
    middle = vision.center_crop(image, [33, 33])[0, 0].double()
    return (middle[-1] - middle[0]).mean().item() / 32, (middle[:, -1] - middle[:, 0]).mean().item() / 32


def test_colours_are_the_formulas():
    images, values = drawn(0, 3, 3, 5, 7), torch.tensor([-0.3, 1.0, 1.8])
    x, v = images.double().numpy(), values.double().numpy()[:, None, None, None]
    pixel, image = x.mean(1, keepdims=True), x.mean((1, 2, 3), keepdims=True)
    for found, expected in (
        (brightness(images, values), x + v),
        (saturation(images, values), v * x + (1 - v) * pixel),
        (contrast(images, values), v * x + (1 - v) * image),
    ):
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    assert torch.equal(contrast(images, torch.ones(3)), images)
    assert torch.equal(saturation(images, torch.ones(3)), images)


def test_flip_is_exact_and_per_image():
    images = drawn(1, 3, 3, 4, 5)
    found = flip(images, torch.tensor([True, False, True]))
    first, second, third = images.numpy()
    assert np.array_equal(found.numpy(), np.stack((first[..., ::-1], second, third[..., ::-1])))


def test_shifts_are_exact():
    images, down, right = drawn(2, 6, 3, 5, 8), [0, 2, -1, 5, -4, 9], [0, -3, 7, 1, -8, -20]
    found = translate(images, torch.tensor(down), torch.tensor(right), fill=0.25)
    for image, rows, columns, shifted in zip(images.numpy(), down, right, found.numpy(), strict=True):
        expected = np.full_like(image, 0.25)
        for row in range(5):
            for column in range(8):
                if 0 <= row - rows < 5 and 0 <= column - columns < 8:
                    expected[:, row, column] = image[:, row - rows, column - columns]
        assert np.array_equal(shifted, expected)


def test_cutout_paints_the_part_of_the_rectangle_that_is_inside():
    images, top, left = drawn(3, 5, 3, 6, 9), [0, 2, -2, 4, -3], [0, 3, 7, -1, -4]
    found = cutout(images, torch.tensor(top), torch.tensor(left), size=(3, 4))
    for image, first, column, cut in zip(images.numpy(), top, left, found.numpy(), strict=True):
        expected = image.copy()
        expected[:, max(first, 0) : first + 3, max(column, 0) : max(column + 4, 0)] = 0
        assert np.array_equal(cut, expected)


def test_quarter_and_half_turns_are_torchvisions():
    """Positive angles are counter-clockwise, as torchvision's and torch.rot90's are."""
    images = drawn(4, 4, 3, 8, 8)
    angles = [90.0, -90.0, 180.0, 0.0]
    found = rotate(images, torch.tensor(angles))
    for image, angle, turned in zip(images, angles, found, strict=True):
        expected = vision.rotate(image, angle, interpolation=InterpolationMode.NEAREST)
        torch.testing.assert_close(turned, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(found[0], torch.rot90(images[0], dims=(-2, -1)), rtol=0, atol=1e-5)
    oblong = drawn(5, 1, 3, 6, 11)
    torch.testing.assert_close(rotate(oblong, torch.tensor([180.0])), oblong.flip(-1, -2), rtol=0, atol=1e-5)


def test_any_turn_of_an_oblong_image_keeps_its_shape():
    """A ramp turned by an angle is the ramp in turned coordinates, (row, column) from the centre, rows downwards.

    torch's cubic kernel, unlike MATLAB's, is off by up to 0.05 pixels where it reads between two.
    """
    angle = np.deg2rad(25.0)
    by_row, by_column = 0.01, 0.03
    found = rotate(ramp(16, 24, by_row, by_column), torch.tensor([25.0], dtype=torch.float64))
    # Counter-clockwise with rows downwards: what was at (r, c) lies at (r cos - c sin, c cos + r sin).
    expected = ramp(
        16, 24, by_row * np.cos(angle) - by_column * np.sin(angle), by_row * np.sin(angle) + by_column * np.cos(angle)
    )
    torch.testing.assert_close(found[..., 6:-6, 6:-6], expected[..., 6:-6, 6:-6], rtol=0, atol=0.05 * 0.04)


def test_stretching_is_torchs_bicubic_resize():
    images = drawn(6, 1, 3, 12, 16)
    for vertical, horizontal in ((2.0, 1.0), (1.0, 2.0), (2.0, 2.0)):
        whole = F.interpolate(images, scale_factor=(vertical, horizontal), mode="bicubic", align_corners=False)
        expected = vision.center_crop(whole, [12, 16])[..., 4:-4, 4:-4]
        found = scale(images, torch.tensor([vertical]), torch.tensor([horizontal]))[..., 4:-4, 4:-4]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_shrinking_shows_the_fill_around():
    found = scale(torch.ones(1, 3, 16, 16), torch.tensor([0.5]), torch.tensor([1.0]), fill=0.25)
    assert torch.equal(found[..., :3, :], torch.full((1, 3, 3, 16), 0.25))
    torch.testing.assert_close(found[..., 6:10, 4:12], torch.ones(1, 3, 4, 8))


SHIFTS = (torch.tensor([1, -2]), torch.tensor([0, 1]))
FACTORS = torch.tensor([0.7, 1.3], dtype=torch.float64)
OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "brightness": partial(brightness, offset=FACTORS),
    "saturation": partial(saturation, factor=FACTORS),
    "contrast": partial(contrast, factor=FACTORS),
    "flip": partial(flip, flipped=torch.tensor([True, False])),
    "translate": partial(translate, down=SHIFTS[0], right=SHIFTS[1]),
    "cutout": partial(cutout, top=SHIFTS[0], left=SHIFTS[1], size=(2, 3)),
    "scale": partial(scale, vertical=FACTORS, horizontal=1 / FACTORS),
    "rotate": partial(rotate, degrees=20 * FACTORS),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradients_are_the_numerical_ones(name):
    assert torch.autograd.gradcheck(OPERATIONS[name], drawn(7, 2, 3, 4, 5).double().requires_grad_())


def test_diffaugment_has_a_double_backward():
    augment = DiffAugment()

    def bent(images: Tensor) -> Tensor:
        return augment(images, seed=0, numbers=torch.arange(2)) ** 3

    images = drawn(8, 2, 3, 4, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(bent, images)
    assert torch.autograd.gradgradcheck(bent, images, fast_mode=True)


def test_turns_are_as_exact_under_autocast():
    images, degrees = drawn(9, 1, 3, 32, 32), torch.tensor([10.0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = rotate(images, degrees)
    torch.testing.assert_close(found, rotate(images, degrees))


@pytest.mark.parametrize("strategy", ["color", "crop", "cutout", "flip", "scale", "rotate"])
def test_siamese_does_the_same_to_an_image_in_any_batch(strategy):
    siamese, images = Siamese(strategy), drawn(10, 5, 3, 12, 12)
    for step in range(4):
        together = siamese(images, 1, step, 2)
        alone = torch.cat([siamese(one, 1, step, 2) for one in images.split(1)])
        torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


def offset(seed: int, step: int, label: int) -> float:
    """By how much siamese brightness changes a grey image, which has neither saturation nor contrast."""
    return Siamese("color")(torch.full((1, 3, 4, 4), 0.5), seed, step, label)[0, 0, 0, 0].item() - 0.5


def test_siamese_depends_on_seed_step_and_label():
    keys = [(seed, step, label) for seed in range(3) for step in range(3) for label in range(3)]
    assert len({offset(*key) for key in keys}) == len(keys)
    assert offset(0, 1, 2) == offset(0, 1, 2)


def test_siamese_applies_one_operation_of_equal_chances(monkeypatch):
    """600 draws of 6: the standard deviation of each count is 9."""
    names = Siamese().strategy.split("_")
    tagged = {name: lambda images, _, tag=10**n: images + tag for n, name in enumerate(names)}
    monkeypatch.setattr(augmentation, "_SIAMESE", tagged)
    siamese, image = Siamese(), torch.zeros(1, 3, 1, 1, dtype=torch.float64)
    found = Counter(int(siamese(image, 0, step, step % 7)[0, 0, 0, 0]) for step in range(600))
    assert sorted(found) == [10**n for n in range(6)]
    assert all(abs(count - 100) < 4 * 9 for count in found.values())


def spread(values: list[float], low: float, high: float) -> None:
    """All in the range but for 1 % of it, and both of its ends nearly reached."""
    length = high - low
    assert low - 0.01 * length < min(values) < low + 0.05 * length
    assert high - 0.05 * length < max(values) < high + 0.01 * length


def test_siamese_colours_have_the_published_ranges():
    """Brightness is half a standard deviation of CIFAR-10 (0.2) either way."""
    spread([offset(0, step, 0) for step in range(120)], -0.1, 0.1)
    # One pixel's colour about its own mean shrinks with saturation; image means alike by contrast.
    colour = torch.tensor([0.2, 0.5, 0.8]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    both = [Siamese("color")(colour, 0, step, 0)[0, :, 0, 0].diff()[0].item() / 0.3 for step in range(120)]
    assert min(both) >= -1e-4
    assert max(both) <= 2 * 1.5 + 1e-4
    assert max(both) > 2 * 1.5 * 0.8
    grey = torch.tensor([0.4, 0.6]).view(1, 1, 1, 2).expand(1, 3, 1, 2)
    spread([Siamese("color")(grey, 0, step, 0)[0, 0, 0].diff().item() / 0.2 for step in range(120)], 0.5, 1.5)


def test_siamese_geometry_has_the_published_ranges():
    image, steps = ramp(48, 56, 0.01, 0.02), range(120)
    stretched = [slopes(Siamese("scale")(image, 0, step, 0)) for step in steps]
    vertical, horizontal = ([slope[axis] / by for slope in stretched] for axis, by in ((0, 0.01), (1, 0.02)))
    spread(vertical, 1 / 1.2, 1.2)
    spread(horizontal, 1 / 1.2, 1.2)
    assert abs(np.corrcoef(vertical, horizontal)[0, 1]) < 0.3  # two draws
    assert np.mean(vertical) == pytest.approx((1 / 1.2 + 1.2) / 2, abs=0.03)  # uniform in one over the stretch
    turned = [slopes(Siamese("rotate")(ramp(48, 56, 0, 0.02), 0, step, 0)) for step in steps]
    spread([float(np.rad2deg(np.arctan2(-row, column))) for row, column in turned], -15, 15)
    flipped = [slopes(Siamese("flip")(image, 0, step, 0)) == pytest.approx((0.01, -0.02)) for step in steps]
    assert 30 < sum(flipped) < 90


def test_crop_shifts_by_up_to_an_eighth_into_grey():
    """8 x 16 pixels: 1 row and 2 columns, each of the 3 x 5 shifts as likely as any other."""
    image = torch.zeros(1, 3, 8, 16)
    image[..., 4, 8] = 1
    places = Counter()
    for step in range(300):
        found = Siamese("crop")(image, 3, step, 0)
        places[tuple((found[0, 0] == 1).nonzero()[0].tolist())] += 1
        assert set(found.unique().tolist()) <= {0.0, 0.5, 1.0}
    assert set(places) == {(4 + down, 8 + right) for down in range(-1, 2) for right in range(-2, 3)}
    assert max(places.values()) < 20 + 5 * 20**0.5


@pytest.mark.parametrize("side", [7, 8])
def test_cutout_is_half_the_side_with_its_centre_anywhere(side):
    """Published: a size of int(side / 2 + 0.5), its middle row (size // 2 from its top) at 0 to side - size % 2."""
    size = int(side / 2 + 0.5)
    first = range(-(size // 2), side + 1 - size % 2 - size // 2)
    expected = {tuple(sorted({min(max(top + k, 0), side - 1) for k in range(size)})) for top in first}
    rows, columns = set(), set()
    for step in range(100):
        cut = Siamese("cutout")(torch.zeros(1, 3, side, side), 4, step, 0)[0, 0] == 0.5
        rows.add(tuple(cut.any(1).nonzero()[:, 0].tolist()))
        columns.add(tuple(cut.any(0).nonzero()[:, 0].tolist()))
        assert cut.sum() == cut.any(1).sum() * cut.any(0).sum()
    assert rows == columns == expected


def test_diffaugment_gives_each_image_its_own_transform_in_any_batch():
    augment, images, numbers = DiffAugment(), drawn(11, 1, 3, 16, 16).expand(6, -1, -1, -1), torch.arange(40, 46)
    together = augment(images, 5, numbers)
    assert len({tuple(one.flatten().tolist()) for one in together}) == 6
    order = torch.tensor([3, 0, 5])
    torch.testing.assert_close(augment(images[:3], 5, numbers[order]), together[order], rtol=0, atol=1e-6)
    assert not torch.allclose(augment(images, 6, numbers), together)


def test_diffaugment_brightness_is_a_quarter_either_way():
    """Published: half of a unit either way where pixels span two."""
    found = DiffAugment("color")(torch.full((300, 3, 2, 2), 0.5), 0, torch.arange(300))
    spread((found[:, 0, 0, 0] - 0.5).tolist(), -0.25, 0.25)


def test_diffaugment_applies_all_operations_in_order():
    """The last one's grey is left as it is; the first one's change is seen elsewhere."""
    numbers = torch.arange(20)
    found = DiffAugment()(torch.full((20, 3, 16, 16), 0.9), 0, numbers)
    colours = DiffAugment("color")(torch.full((20, 3, 1, 1), 0.9), 0, numbers)
    for image, colour in zip(found, colours[:, 0, 0, 0], strict=True):
        torch.testing.assert_close(image.unique(), torch.stack((torch.tensor(0.5), colour)).sort().values)
    assert (found[:, 0] == 0.5).sum((1, 2)).max() > 8 * 8  # more than the cut: shifts brought grey in too


@pytest.mark.parametrize("strategy", ["", "none", "None"])
def test_no_strategy_does_nothing(strategy):
    images = drawn(12, 2, 3, 4, 4)
    assert Siamese(strategy)(images, 0, 0, 0) is images
    assert DiffAugment(strategy)(images, 0, torch.arange(2)) is images


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"Siamese: strategy 'color_rotat' names 'rotat'; .* is 'rotate'"):
        Siamese("color_rotat")
    with pytest.raises(ValueError, match=r"DiffAugment: .* names 'colour'; the nearest valid name is 'color'"):
        DiffAugment("translation,colour")
    with pytest.raises(ValueError, match=r"DiffAugment: .* names 'rotate'"):
        DiffAugment("rotate")


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 1, 4, 4\); augmentation needs float RGB"):
        Siamese()(torch.zeros(2, 1, 4, 4), 0, 0, 0)
    with pytest.raises(ValueError, match=r"uint8 \(2, 3, 4, 4\)"):
        DiffAugment()(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), 0, torch.arange(2))
    with pytest.raises(ValueError, match=r"numbers are \(1,\) for 2 images"):
        DiffAugment()(torch.zeros(2, 3, 4, 4), 0, torch.arange(1))
