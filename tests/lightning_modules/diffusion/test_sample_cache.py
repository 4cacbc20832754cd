"""Samples come back as they were, or not at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lightning_modules.diffusion.sample_cache import SampleCache, digest_tensors
from lightning_modules.requests import Request

IDENTITY = {"method": "ddim", "steps": 50, "guidance": 4.0, "seed": 0, "weights": "abc", "real": None}
REQUEST = Request(label=2, number=7, real=11)
HR = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def the_file(cache):
    (file,) = cache.folder.iterdir()
    return file


@pytest.fixture
def cache(tmp_path):
    """With one sample in it."""
    cache = SampleCache(tmp_path, IDENTITY)
    cache.put(REQUEST, HR, 0.25)
    return cache


def test_what_was_put_comes_back(cache, tmp_path):
    for again in (cache, SampleCache(tmp_path, dict(reversed(IDENTITY.items())))):
        pixels, seconds = again.get(REQUEST)
        np.testing.assert_array_equal(pixels, HR)
        assert pixels.dtype == np.uint8
        assert seconds == 0.25


@pytest.mark.parametrize("other", [Request(2, 8, 11), Request(1, 7, 11), Request(27, 0, 11), Request(0, 27, 11)])
def test_other_samples_are_not_there(cache, other):
    assert cache.get(other) is None


@pytest.mark.parametrize("change", [{"steps": 20}, {"guidance": 1.0}, {"weights": "abd"}, {"real": "x"}, {"more": 1}])
def test_whatever_decides_samples_has_a_folder_of_its_own(cache, tmp_path, change):
    other = SampleCache(tmp_path, {**IDENTITY, **change})
    assert other.folder != cache.folder
    assert other.get(REQUEST) is None
    other.put(REQUEST, 255 - HR, 1.0)
    np.testing.assert_array_equal(cache.get(REQUEST)[0], HR)


@pytest.mark.parametrize(
    "content",
    [b"", b"junk", b"PK\x03\x04 and no more", b"PK\x05\x06" + bytes(18), b"\x80\x04K\x01."],
    ids=["empty", "junk", "torn zip", "empty zip", "pickle"],
)
def test_a_damaged_file_is_as_good_as_none_and_is_replaced(cache, content):
    the_file(cache).write_bytes(content)
    assert cache.get(REQUEST) is None
    cache.put(REQUEST, HR, 0.25)
    np.testing.assert_array_equal(cache.get(REQUEST)[0], HR)


def test_no_damage_gives_other_pixels(cache):
    """A few hundred files with changed or missing bytes: the checksums within find every one that matters."""
    file, draw = the_file(cache), np.random.default_rng(0)
    sound, outcomes = file.read_bytes(), set()
    for trial in range(300):
        broken = bytearray(sound[: draw.integers(len(sound))] if trial % 3 == 0 else sound)
        for _ in range(min(3, len(broken))):
            broken[draw.integers(len(broken))] = draw.integers(256)
        file.write_bytes(broken)
        found = cache.get(REQUEST)
        assert found is None or (np.array_equal(found[0], HR) and found[1] == 0.25)
        outcomes.add(found is None)
    assert True in outcomes


def test_files_of_objects_are_not_unpickled(cache):
    np.savez(the_file(cache), hr=np.array([object()]), seconds=np.float64(1))
    assert cache.get(REQUEST) is None


def test_a_write_that_fails_leaves_what_was_there(cache, monkeypatch):
    def torn(file, **_):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", torn)
    with pytest.raises(OSError, match="disk full"):
        cache.put(REQUEST, 255 - HR, 1.0)
    np.testing.assert_array_equal(cache.get(REQUEST)[0], HR)


def test_digests_follow_names_shapes_types_and_values_and_nothing_else():
    weights = {"a": torch.arange(4.0), "b": torch.ones(2, dtype=torch.bfloat16)}
    digest = digest_tensors(weights)
    assert digest == digest_tensors(dict(reversed(weights.items())))
    assert digest == digest_tensors({name: torch.nn.Parameter(tensor) for name, tensor in weights.items()})
    others = [
        {**weights, "a": torch.tensor([0.0, 1.0, 2.0, 3.0000002])},
        {**weights, "a": torch.arange(4.0).reshape(2, 2)},
        {**weights, "a": torch.arange(4)},
        {"c": weights["a"], "b": weights["b"]},
        {"a": weights["a"]},
    ]
    assert len({digest, *map(digest_tensors, others)}) == len(others) + 1


def test_a_digest_is_of_the_values_not_of_their_place_in_memory():
    square = torch.arange(9.0).reshape(3, 3)
    assert digest_tensors({"a": square.T}) == digest_tensors({"a": square.T.contiguous()})
    assert digest_tensors({"a": square.T}) != digest_tensors({"a": square})
