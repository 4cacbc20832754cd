"""Photographs on disk: finding them in a folder and decoding them to uint8, completely or not at all."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

if TYPE_CHECKING:
    from tifffile import TiffPage

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
"""uint8, (H, W, 3) for colours or (H, W) for alpha."""

FORMATS = "PNG, JPEG, BMP, TIFF or WebP"
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
)
_PNG_DEPTH_OFFSET = 24  # bits per channel, in the header chunk that always comes first (PNG specification, 11.2.1)

_REASONS: dict[type[Exception], str] = {
    FileNotFoundError: "no such file",
    PermissionError: "permission denied",
    UnidentifiedImageError: "damaged, truncated or unusual file",
    struct.error: "damaged, truncated or unusual file",  # from tifffile, where the file ends before its directory
    IndexError: "damaged, truncated or unusual file",
    Image.DecompressionBombError: "decompression bomb: more than 178 megapixels",  # Pillow's limit
}

# What undoes each EXIF orientation, on arrays (H, W, C); 1 is upright.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels, 1),
}


class UnreadableImage(ValueError):  # noqa: N818 - reads as a sentence where it is raised and caught
    """A file that could not be decoded to a whole image.

    Attributes:
        path: of the file.
        reason: a few words for a person, such as "truncated file".
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)  # both, so that it survives pickling between worker processes
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class _RefusedError(ValueError):
    """Carries a reason in our own words; the text of any other error comes from a decoder."""


@dataclass(frozen=True)
class FoundImages:
    """The files of a folder, sorted by their POSIX paths relative to it.

    Attributes:
        images: files whose suffix is that of a readable format.
        others: all other visible files, for a report of what was left out.
    """

    images: list[Path]
    others: list[Path]


def find_images(root: Path) -> FoundImages:
    """Images in a folder and its sub-folders, in an order that depends on nothing but their names.

    Links to folders are followed, each folder once. Hidden files, __MACOSX and Thumbs.db are passed over.

    Args:
        root: folder to look in; the paths found begin with it.

    Raises:
        FileNotFoundError: when there is no such folder, or no image in it.
        NotADirectoryError: when `root` is a file.
    """
    if not root.exists():
        raise FileNotFoundError(f"{root}: no such folder; name a folder of photographs ({FORMATS})")
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is a file; name the folder that holds the photographs, such as {root.parent}")
    files = sorted(_visible_files(root), key=lambda path: path.relative_to(root).as_posix())
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    others = [path for path in files if path.suffix.lower() not in SUFFIXES]
    if not images:
        seen = f"{len(others)} other files, such as {others[0].name}" if others else "no files at all"
        raise FileNotFoundError(f"{root}: no images; expected {FORMATS}, found {seen}")
    return FoundImages(images, others)


def read_rgb(path: Path) -> Pixels:
    """The colours of an image file, with transparent places laid over white.

    Everything else is as in read_rgba.

    Returns:
        uint8, (H, W, 3).

    Raises:
        UnreadableImage: when the file cannot be decoded completely.
    """
    rgb, alpha = read_rgba(path)
    return rgb if alpha is None else _over_white(rgb, alpha)


def read_rgba(path: Path) -> tuple[Pixels, Pixels | None]:
    """The colours and the transparency of an image file, turned upright as its EXIF data say.

    The format is told by the content, not by the suffix. Grey is repeated in three channels; 16-bit values are divided
    by 257 and rounded; floats in [0, 1] are multiplied by 255 and rounded; of several pages or frames the first is
    taken; colour profiles are ignored, as all SR benchmarks do.

    Returns:
        Colours, uint8 (H, W, 3), not premultiplied; and alpha, uint8 (H, W), 255 where opaque, or None where the file
        has no transparency.

    Raises:
        UnreadableImage: when the file cannot be decoded completely.
    """
    try:
        pixels, orientation = _decode(path)
    except Exception as error:  # decoders raise nearly anything on damaged files
        raise UnreadableImage(path, _reason(error)) from error
    pixels = _UPRIGHT.get(orientation, lambda same: same)(pixels)
    channels = pixels.shape[2]
    rgb = pixels[..., :3] if channels >= 3 else np.repeat(pixels[..., :1], 3, axis=2)
    alpha = np.ascontiguousarray(pixels[..., -1]) if channels in (2, 4) else None
    return np.ascontiguousarray(rgb), alpha


def _visible_files(root: Path) -> Iterator[Path]:
    seen: set[Path] = set()
    for folder, subfolders, names in os.walk(root, onerror=_raise, followlinks=True):
        real = Path(folder).resolve()
        if real in seen:  # links may form loops
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not _is_clutter(name))
        yield from (Path(folder, name) for name in names if not _is_clutter(name))


def _is_clutter(name: str) -> bool:
    return name.startswith(".") or name.lower() in {"__macosx", "thumbs.db", "desktop.ini"}


def _raise(error: OSError) -> NoReturn:
    raise error  # os.walk would pass over a folder that it may not read


def _decode(path: Path) -> tuple[Pixels, int]:
    """Pixels, uint8 (H, W, 1 to 4: grey, grey + alpha, RGB, RGBA), and the EXIF orientation still to be undone."""
    header = _header(path)
    kind = _format_of(header)
    if kind == "TIFF":
        return _decode_tiff(path)
    if kind == "PNG" and header[_PNG_DEPTH_OFFSET : _PNG_DEPTH_OFFSET + 1] == b"\x10":
        return _decode_deep_png(path)
    return _decode_8bit(path, kind)


def _header(path: Path) -> bytes:
    if path.is_dir():
        raise _RefusedError("a folder, not a file")
    if path.exists() and not path.is_file():
        raise _RefusedError("not a regular file")  # reading a pipe would wait for ever
    with path.open("rb") as file:
        return file.read(32)


def _format_of(header: bytes) -> str:
    if not header:
        raise _RefusedError("empty file")
    if header[:4] == b"RIFF" and header[8:12] == b"WEBP":
        return "WEBP"
    for signature, kind in _SIGNATURES:
        if header.startswith(signature):
            return kind
    raise _RefusedError(f"not an image ({FORMATS})")


def _decode_8bit(path: Path, kind: str) -> tuple[Pixels, int]:
    with Image.open(path, formats=(kind,)) as image:
        image.load()
        pixels = np.array(image.convert("RGBA" if image.has_transparency_data else "RGB"))
        return pixels, _orientation(image)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF data, of which any error may come, say nothing against the pixels
        return 1


def _decode_deep_png(path: Path) -> tuple[Pixels, int]:
    """16-bit PNG: Pillow keeps the high bytes only, so it is asked twice, the second time for the low bytes.

    torchvision decodes 16-bit PNG too, but its decoder kills the process on a damaged file.
    """
    with Image.open(path, formats=("PNG",)) as image:
        if "transparency" in image.info:
            raise _RefusedError("16-bit PNG with a transparent colour; save it with an alpha channel")
        raw_mode = str(image.tile[0].args)
        stored = _stored(image, "RGBA" if raw_mode == "LA;16B" else raw_mode)
        orientation = _orientation(image)
    if raw_mode == "I;16B":
        return _to_uint8(stored[..., None]), orientation
    if raw_mode == "LA;16B":  # the bytes of a pixel are grey high, grey low, alpha high, alpha low
        return _to_uint8(stored[..., ::2] << 8 | stored[..., 1::2]), orientation
    with Image.open(path, formats=("PNG",)) as image:  # big-endian data read as little-endian give the low bytes
        low = _stored(image, raw_mode.replace("16B", "16L"))
    return _to_uint8(stored << 8 | low), orientation


def _stored(image: ImageFile.ImageFile, raw_mode: str) -> np.ndarray:
    """uint16, (H, W) or (H, W, C): what Pillow's `raw_mode` picks from the bytes of each pixel."""
    image.tile = [image.tile[0]._replace(args=raw_mode)]
    return np.asarray(image).astype(np.uint16)


def _decode_tiff(path: Path) -> tuple[Pixels, int]:
    """Pillow knows 8-bit TIFF in all its kinds; it drops bits of deeper ones, which tifffile reads exactly."""
    from tifffile import TiffFile

    with TiffFile(path) as file:
        page = file.pages.first
        if page.dtype not in (np.dtype(np.uint8), np.dtype(bool)):
            return _decode_deep_tiff(page), int(page.tags.valueof("Orientation", 1))
    return _decode_8bit(path, "TIFF")


def _decode_deep_tiff(page: TiffPage) -> Pixels:
    from tifffile import PHOTOMETRIC

    photometric = PHOTOMETRIC(page.photometric)
    known = photometric in {PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.RGB}
    if not known or page.bitspersample % 16:
        raise _RefusedError(f"{page.bitspersample}-bit {photometric.name} TIFF; save it as grey or RGB in 8 or 16 bits")
    limit = 2 * (Image.MAX_IMAGE_PIXELS or np.inf)  # where Pillow itself refuses
    if page.imagewidth * page.imagelength > limit:
        raise Image.DecompressionBombError
    pixels = page.asarray()
    if page.axes not in {"YX", "YXS", "SYX"}:
        raise _RefusedError(f"TIFF with axes {page.axes}; save it as a plain image")
    pixels = np.moveaxis(pixels, 0, -1) if page.axes == "SYX" else pixels.reshape(*pixels.shape[:2], -1)
    result = _to_uint8(pixels[..., : _meaningful_channels(page)])
    if photometric == PHOTOMETRIC.MINISWHITE:
        result[..., 0] = 255 - result[..., 0]
    return result


def _meaningful_channels(page: TiffPage) -> int:
    """Colours, and alpha where the first extra channel is said to be one."""
    from tifffile import EXTRASAMPLE, PHOTOMETRIC

    if EXTRASAMPLE.ASSOCALPHA in page.extrasamples:
        raise _RefusedError("deep TIFF with premultiplied alpha; save it with straight alpha")
    colours = 3 if page.photometric == PHOTOMETRIC.RGB else 1
    return colours + (page.extrasamples[:1] == (EXTRASAMPLE.UNASSALPHA,))


def _to_uint8(pixels: np.ndarray) -> Pixels:
    """16-bit integers or floats in [0, 1] rounded to the nearest of 256 steps."""
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if not np.issubdtype(pixels.dtype, np.floating):
        raise _RefusedError(f"{pixels.dtype} values; expected 8 or 16 bits per channel, or floats in [0, 1]")
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # NaN fails too
        raise _RefusedError(f"float values from {pixels.min():g} to {pixels.max():g}; expected [0, 1]")
    return np.rint(pixels.astype(np.float64) * 255).astype(np.uint8)


def _over_white(rgb: Pixels, alpha: Pixels) -> Pixels:
    """Rounded rgb * a + 255 * (1 - a) with a = alpha / 255."""
    weight = alpha[..., None].astype(np.uint16)
    return ((rgb * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)


def _reason(error: Exception) -> str:
    """A few words for what a decoder raised."""
    for kind, reason in _REASONS.items():
        if isinstance(error, kind):
            return reason
    text = next(iter(str(error).splitlines()), type(error).__name__)
    if "imagecodecs" in text:
        return f"{text}: pip install imagecodecs, or save it without compression"
    if any(sign in text.lower() for sign in ("truncated", "failed to read")):
        return "truncated file"
    return text if isinstance(error, _RefusedError) else f"damaged file: {text}"
