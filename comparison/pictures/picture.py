"""Pictures as the report shows them: crops of test images side by side, and samples of distilled sets."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class Panel:
    """One picture of a row.

    Attributes:
        label: what it shows, such as LR, HR or the regime that the network was trained with.
        detail: the figure that goes with it, such as the PSNR-Y of the whole image; empty where there is none.
        picture: RGB, of the same size for all panels of a row, a pixel for each HR pixel: small, to be enlarged without
            smoothing where it is shown.
    """

    label: str
    detail: str
    picture: Image.Image


@dataclass(frozen=True)
class CropRow:
    """The same window of one test image, as each training reconstructs it.

    Attributes:
        caption: test set, image and what the window is.
        panels: LR, bicubic, one for each training, HR; where images are restored, input, trainings, truth.
    """

    caption: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Sample:
    """What one distilled set looks like.

    Attributes:
        title: regime, budget and number of patches.
        caption: what one looks at.
        picture: RGB, a contact sheet of patches.
    """

    title: str
    caption: str
    picture: Image.Image
