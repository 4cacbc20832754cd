"""Every file here is generated, and its pixels are compared with the array it was made from."""

from __future__ import annotations

import importlib.util
import os
import pickle
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from datamodules.image_files import UnreadableImage, find_images, read_rgb, read_rgba

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (13, 11, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (13, 11, 4), dtype=np.uint16)

# Exif 2.32, tag 274: which visible side the stored row 0 and column 0 are. The upright image is 1 2 3 / 4 5 6.
STORED = {
    1: [[1, 2, 3], [4, 5, 6]],  # top, left
    2: [[3, 2, 1], [6, 5, 4]],  # top, right
    3: [[6, 5, 4], [3, 2, 1]],  # bottom, right
    4: [[4, 5, 6], [1, 2, 3]],  # bottom, left
    5: [[1, 4], [2, 5], [3, 6]],  # left, top
    6: [[3, 6], [2, 5], [1, 4]],  # right, top
    7: [[6, 3], [5, 2], [4, 1]],  # right, bottom
    8: [[4, 1], [5, 2], [6, 3]],  # left, bottom
}
ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def deep_png(pixels, interlaced=False, transparent=b""):
    """16-bit PNG put together from the PNG specification, as Pillow writes only grey ones."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = pixels.shape
    passes = [pixels[top::down, left::right] for top, left, down, right in ADAM7] if interlaced else [pixels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for part in passes if part.size for row in part)
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, int(interlaced))
    colour_key = chunk(b"tRNS", transparent) if transparent else b""
    body = chunk(b"IHDR", header) + colour_key + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def rounded(pixels):
    """16 to 8 bits by the definition: v / 65535 * 255, to the nearest."""
    return np.floor(pixels.astype(np.float64) / 65535 * 255 + 0.5).astype(np.uint8)


def expected_rgb(pixels):
    return pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)


def reason(path):
    with pytest.raises(UnreadableImage) as caught:
        read_rgb(path)
    assert caught.value.path == path
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value.reason


class TestFindImages:
    def test_lists_images_by_relative_posix_path(self, tmp_path):
        names = ["b.PNG", "a/z.jpg", "a.jpeg", "a/B.tif", "c.WebP", "d.bmp", "e.tiff", "a-b/1.png"]
        for name in [*names, "notes.txt", "a/list.csv"]:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        found = find_images(tmp_path)
        assert [path.relative_to(tmp_path).as_posix() for path in found.images] == sorted(names)
        assert [path.relative_to(tmp_path).as_posix() for path in found.others] == ["a/list.csv", "notes.txt"]

    def test_passes_over_clutter(self, tmp_path):
        for name in [".DS_Store", "Thumbs.db", ".hidden/x.png", "__MACOSX/._x.png", "._a.png", "a.png"]:
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        found = find_images(tmp_path)
        assert found.images == [tmp_path / "a.png"]
        assert found.others == []

    def test_follows_links_without_looping(self, tmp_path):
        (tmp_path / "root").mkdir()
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "x.png").touch()
        (tmp_path / "root" / "linked").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "root")
        assert find_images(tmp_path / "root").images == [tmp_path / "root" / "linked" / "x.png"]

    def test_folder_with_a_suffix_is_a_folder(self, tmp_path):
        (tmp_path / "x.png").mkdir()
        (tmp_path / "x.png" / "y.png").touch()
        assert find_images(tmp_path).images == [tmp_path / "x.png" / "y.png"]

    def test_errors_say_what_is_wrong(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="absent: no such folder"):
            find_images(tmp_path / "absent")
        with pytest.raises(FileNotFoundError, match=r"no images; expected PNG.* found no files at all"):
            find_images(tmp_path)
        (tmp_path / "a.gif").touch()
        with pytest.raises(FileNotFoundError, match=r"1 other files, such as a\.gif"):
            find_images(tmp_path)
        with pytest.raises(NotADirectoryError, match="is a file; name the folder"):
            find_images(tmp_path / "a.gif")

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
    def test_unreadable_subfolder_is_an_error(self, tmp_path):
        (tmp_path / "a.png").touch()
        (tmp_path / "closed").mkdir(mode=0)
        with pytest.raises(PermissionError, match="closed"):
            find_images(tmp_path)


class TestEightBits:
    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("x.png", {}),
            ("x.bmp", {}),
            ("x.webp", {"lossless": True}),
            ("x.tif", {}),
            ("x.tif", {"compression": "tiff_lzw"}),
            ("x.tif", {"compression": "tiff_deflate"}),
        ],
    )
    def test_lossless_formats_are_exact(self, tmp_path, name, options):
        Image.fromarray(PHOTO).save(tmp_path / name, **options)
        pixels = read_rgb(tmp_path / name)
        np.testing.assert_array_equal(pixels, PHOTO)
        assert pixels.flags.c_contiguous
        assert pixels.flags.writeable
        assert read_rgba(tmp_path / name)[1] is None

    def test_suffix_does_not_matter(self, tmp_path):
        Image.fromarray(PHOTO).save(tmp_path / "x.jpg", format="PNG")
        np.testing.assert_array_equal(read_rgb(tmp_path / "x.jpg"), PHOTO)

    @pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
    def test_jpeg(self, tmp_path, mode):
        colour = {"RGB": (200, 100, 50), "L": 77, "CMYK": (0, 255, 255, 0)}[mode]
        Image.new(mode, (16, 8), colour).save(tmp_path / "x.jpg", quality=100)
        expected = {"RGB": (200, 100, 50), "L": (77, 77, 77), "CMYK": (255, 0, 0)}[mode]
        pixels = read_rgb(tmp_path / "x.jpg")
        assert pixels.shape == (8, 16, 3)
        assert np.abs(pixels.astype(int) - expected).max() <= 2

    def test_grey_and_one_bit(self, tmp_path):
        Image.fromarray(PHOTO[..., 0]).save(tmp_path / "grey.png")
        np.testing.assert_array_equal(read_rgb(tmp_path / "grey.png"), expected_rgb(PHOTO[..., :1]))
        bits = PHOTO[..., 0] > 128
        for name in ("bits.png", "bits.tif", "bits.bmp"):
            Image.fromarray(bits).save(tmp_path / name)
            np.testing.assert_array_equal(read_rgb(tmp_path / name), expected_rgb(np.uint8(255) * bits[..., None]))

    def test_palette(self, tmp_path):
        palette = RNG.integers(0, 256, (256, 3), dtype=np.uint8)
        image = Image.fromarray(PHOTO[..., 0]).convert("P")
        image.putpalette(palette.tobytes())
        image.save(tmp_path / "opaque.png")
        np.testing.assert_array_equal(read_rgb(tmp_path / "opaque.png"), palette[PHOTO[..., 0]])
        opacity = RNG.integers(0, 256, 256, dtype=np.uint8)
        image.save(tmp_path / "clear.png", transparency=opacity.tobytes())
        rgb, alpha = read_rgba(tmp_path / "clear.png")
        np.testing.assert_array_equal(rgb, palette[PHOTO[..., 0]])
        np.testing.assert_array_equal(alpha, opacity[PHOTO[..., 0]])

    def test_transparent_colour(self, tmp_path):
        key = tuple(int(value) for value in PHOTO[0, 0])
        Image.fromarray(PHOTO).save(tmp_path / "x.png", transparency=key)
        alpha = read_rgba(tmp_path / "x.png")[1]
        np.testing.assert_array_equal(alpha == 0, np.all(np.array(key) == PHOTO, axis=2))

    @pytest.mark.parametrize("channels", [2, 4])
    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_alpha_is_kept_or_laid_over_white(self, tmp_path, channels, suffix):
        pixels = (DEEP[..., :channels] >> 8).astype(np.uint8)
        path = tmp_path / f"x.{suffix}"
        Image.fromarray(pixels, {2: "LA", 4: "RGBA"}[channels]).save(path)
        rgb, alpha = read_rgba(path)
        np.testing.assert_array_equal(rgb, expected_rgb(pixels))
        np.testing.assert_array_equal(alpha, pixels[..., -1])
        opacity = pixels[..., -1:] / 255
        white = np.floor(rgb * opacity + 255 * (1 - opacity) + 0.5)  # Porter and Duff's "over" on white
        np.testing.assert_array_equal(read_rgb(path), white)

    def test_first_of_several(self, tmp_path):
        frames = [Image.fromarray(PHOTO), Image.fromarray(255 - PHOTO)]
        for name, options in {"x.tif": {}, "x.png": {}, "x.webp": {"lossless": True}}.items():
            frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
            np.testing.assert_array_equal(read_rgb(tmp_path / name), PHOTO)


class TestOrientation:
    @pytest.mark.parametrize("orientation", STORED)
    @pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
    def test_eight_bits(self, tmp_path, orientation, suffix):
        path = tmp_path / f"x.{suffix}"
        exif = Image.Exif()
        exif[274] = orientation
        stored = np.array(STORED[orientation], dtype=np.uint8)[..., None].repeat(3, axis=2)
        Image.fromarray(stored).save(path, exif=exif, lossless=True)
        np.testing.assert_array_equal(read_rgb(path)[..., 0], STORED[1])

    @pytest.mark.parametrize("orientation", STORED)
    @pytest.mark.parametrize("suffix", ["png", "tif"])
    def test_sixteen_bits(self, tmp_path, orientation, suffix):
        path = tmp_path / f"x.{suffix}"
        stored = np.array(STORED[orientation], dtype=np.uint16) * 257
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(stored).save(path, exif=exif)
        np.testing.assert_array_equal(read_rgb(path)[..., 1], STORED[1])

    def test_jpeg(self, tmp_path):
        exif = Image.Exif()
        exif[274] = 6
        stored = np.zeros((16, 32, 3), dtype=np.uint8)
        stored[:, :16] = 255  # stored left half is the visible top half
        Image.fromarray(stored).save(tmp_path / "x.jpg", exif=exif)
        pixels = read_rgb(tmp_path / "x.jpg")
        assert pixels.shape == (32, 16, 3)
        assert pixels[:16].min() > 250
        assert pixels[16:].max() < 5

    def test_damaged_exif_is_ignored(self, tmp_path):
        Image.fromarray(PHOTO).save(tmp_path / "x.png", exif=b"Exif\0\0nonsense")
        np.testing.assert_array_equal(read_rgb(tmp_path / "x.png"), PHOTO)


class TestDeep:
    @pytest.mark.parametrize("channels", [1, 2, 3, 4])
    @pytest.mark.parametrize("interlaced", [False, True])
    def test_png(self, tmp_path, channels, interlaced):
        (tmp_path / "x.png").write_bytes(deep_png(DEEP[..., :channels], interlaced))
        rgb, alpha = read_rgba(tmp_path / "x.png")
        np.testing.assert_array_equal(rgb, expected_rgb(rounded(DEEP[..., :channels])))
        if channels in (2, 4):
            np.testing.assert_array_equal(alpha, rounded(DEEP[..., channels - 1]))
        else:
            assert alpha is None

    def test_all_values_round_to_the_nearest(self, tmp_path):
        ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
        Image.fromarray(ramp).save(tmp_path / "x.png")
        np.testing.assert_array_equal(read_rgb(tmp_path / "x.png")[..., 0], rounded(ramp))

    @pytest.mark.parametrize("channels", [1, 2, 3, 4])
    @pytest.mark.parametrize("options", [{}, {"compression": "zlib", "predictor": True}, {"bigtiff": True}])
    def test_tiff(self, tmp_path, channels, options):
        pixels = DEEP[..., :channels]
        extra = {"extrasamples": ["unassalpha"]} if channels in (2, 4) else {}
        photometric = "rgb" if channels > 2 else "minisblack"
        stored = pixels if channels > 1 else pixels[..., 0]
        tifffile.imwrite(tmp_path / "x.tif", stored, photometric=photometric, **extra, **options)
        rgb, alpha = read_rgba(tmp_path / "x.tif")
        np.testing.assert_array_equal(rgb, expected_rgb(rounded(pixels)))
        assert (alpha is None) == (channels in (1, 3))

    def test_tiff_with_separate_planes(self, tmp_path):
        planes = np.moveaxis(DEEP[..., :3], -1, 0)
        tifffile.imwrite(tmp_path / "x.tif", planes, photometric="rgb", planarconfig="separate")
        np.testing.assert_array_equal(read_rgb(tmp_path / "x.tif"), rounded(DEEP[..., :3]))

    def test_tiff_where_zero_is_white(self, tmp_path):
        tifffile.imwrite(tmp_path / "x.tif", DEEP[..., 0], photometric="miniswhite")
        np.testing.assert_array_equal(read_rgb(tmp_path / "x.tif")[..., 0], 255 - rounded(DEEP[..., 0]))

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_floats(self, tmp_path, dtype):
        values = (PHOTO / 255).astype(dtype)
        tifffile.imwrite(tmp_path / "x.tif", values, photometric="rgb")
        np.testing.assert_array_equal(read_rgb(tmp_path / "x.tif"), PHOTO)

    def test_unclear_values_are_refused(self, tmp_path):
        path = tmp_path / "x.tif"
        tifffile.imwrite(path, np.float32([[0, 255]]))
        assert reason(path) == "float values from 0 to 255; expected [0, 1]"
        tifffile.imwrite(path, np.float32([[0, np.nan]]))
        assert "expected [0, 1]" in reason(path)
        tifffile.imwrite(path, np.int32([[0, 255]]))
        assert reason(path).startswith("int32 values")
        tifffile.imwrite(path, DEEP, photometric="rgb", extrasamples=["assocalpha"])
        assert "premultiplied" in reason(path)
        tifffile.imwrite(path, DEEP, photometric="separated")
        assert reason(path).startswith("16-bit SEPARATED TIFF")
        (tmp_path / "x.png").write_bytes(deep_png(DEEP[..., :3], transparent=bytes(6)))
        assert "transparent colour" in reason(tmp_path / "x.png")

    @pytest.mark.skipif(importlib.util.find_spec("imagecodecs") is not None, reason="imagecodecs decodes it")
    def test_compression_that_needs_another_package(self, tmp_path):
        Image.fromarray(DEEP[..., 0]).save(tmp_path / "x.tif", compression="tiff_lzw")
        assert "pip install imagecodecs" in reason(tmp_path / "x.tif")


class TestDamaged:
    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("x.png", {}),
            ("x.jpg", {}),
            ("x.jpg", {"progressive": True}),
            ("x.bmp", {}),
            ("x.webp", {}),
            ("x.tif", {}),
            ("x.tif", {"compression": "tiff_lzw"}),
            ("x.tif", {"compression": "jpeg"}),
        ],
    )
    @pytest.mark.parametrize("part", [0.05, 0.5, 0.95])
    def test_truncated(self, tmp_path, name, options, part):
        path = tmp_path / name
        Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path, **options)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * part)])
        assert reason(path).startswith(("truncated", "damaged"))

    @pytest.mark.parametrize("part", [0.05, 0.5, 0.95])
    def test_truncated_deep(self, tmp_path, part):
        whole = deep_png(DEEP)
        (tmp_path / "x.png").write_bytes(whole[: int(len(whole) * part)])
        assert reason(tmp_path / "x.png") in {"truncated file", "damaged, truncated or unusual file"}
        for compression in (None, "zlib"):
            tifffile.imwrite(tmp_path / "x.tif", DEEP, photometric="rgb", compression=compression)
            whole = (tmp_path / "x.tif").read_bytes()
            (tmp_path / "x.tif").write_bytes(whole[: int(len(whole) * part)])
            assert reason(tmp_path / "x.tif").startswith(("truncated", "damaged"))

    def test_altered_bytes(self, tmp_path):
        altered = bytearray(deep_png(DEEP[..., :3]))
        altered[len(altered) // 2] ^= 0xFF
        (tmp_path / "x.png").write_bytes(altered)
        assert reason(tmp_path / "x.png").startswith("damaged file")

    def test_not_images(self, tmp_path):
        path = tmp_path / "x.png"
        assert reason(path) == "no such file"
        path.touch()
        assert reason(path) == "empty file"
        path.write_text("a shopping list")
        assert reason(path).startswith("not an image")
        Image.fromarray(PHOTO).save(path, format="GIF")
        assert reason(path).startswith("not an image")
        path.write_bytes(b"\xff\xd8\xff and no more")
        assert reason(path) == "damaged, truncated or unusual file"
        path.write_bytes(b"II*\0\x08\0\0\0")
        assert reason(path) == "damaged, truncated or unusual file"

    def test_not_files(self, tmp_path):
        (tmp_path / "x.png").mkdir()
        assert reason(tmp_path / "x.png") == "a folder, not a file"
        if hasattr(os, "mkfifo"):
            os.mkfifo(tmp_path / "pipe.png")
            assert reason(tmp_path / "pipe.png") == "not a regular file"

    def test_decompression_bomb(self, tmp_path):
        small = deep_png(DEEP)
        header = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 10_000, 8, 2, 0, 0, 0)
        (tmp_path / "x.png").write_bytes(small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:])
        assert reason(tmp_path / "x.png").startswith("decompression bomb")

    def test_decompression_bomb_in_a_deep_tiff(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", DEEP[..., 0].size // 2 - 1)
        tifffile.imwrite(tmp_path / "x.tif", DEEP, photometric="rgb")
        assert reason(tmp_path / "x.tif").startswith("decompression bomb")

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
    def test_closed_file(self, tmp_path):
        Image.fromarray(PHOTO).save(tmp_path / "x.png")
        (tmp_path / "x.png").chmod(0)
        assert reason(tmp_path / "x.png") == "permission denied"

    def test_error_survives_pickling(self, tmp_path):
        error = pickle.loads(pickle.dumps(UnreadableImage(tmp_path / "x.png", "truncated file")))  # noqa: S301
        assert (error.path, error.reason) == (tmp_path / "x.png", "truncated file")
        assert str(error) == f"{tmp_path / 'x.png'}: truncated file"
