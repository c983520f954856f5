"""Whatever bytes come in, decoding gives pixels within the promise or an `ImageError`, and listing never fails."""

from __future__ import annotations

import gzip
import io
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from oddment.errors import ImageError
from oddment.images import count_images, decode, iter_images, probe

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FORMATS = ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000"]


def png(level: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (5, 4), level).save(stream, "PNG")
    return stream.getvalue()


@cache
def sound(format_name: str) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(1).integers(0, 256, (19, 23, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {} if format_name in {"BMP", "GIF", "PPM", "JPEG2000"} else {"exif": exif}
    Image.fromarray(pixels).save(stream, format_name, **options)
    return stream.getvalue()


@cache
def container(name: str) -> bytes:
    stream = io.BytesIO()
    images = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
    if name == "zip":
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for at in range(4):
                archive.writestr(f"{at}.png", png(at))
    elif name.startswith("tar"):
        with tarfile.open(fileobj=stream, mode=f"w:{name[4:]}") as archive:
            for at in range(4):
                info = tarfile.TarInfo(f"{at}.png")
                info.size = len(png(at))
                archive.addfile(info, io.BytesIO(png(at)))
    elif name == "npy":
        np.save(stream, images)
    elif name == "npz":
        np.savez_compressed(stream, a=images, b=images[0], c=np.asfortranarray(images))
    else:
        content = b"\0\0\x0b\3" + np.array(images.shape, ">u4").tobytes() + images.astype(">i2").tobytes()
        stream.write(gzip.compress(content) if name.endswith("gz") else content)
    return stream.getvalue()


def check(content: bytes) -> None:
    for function in (decode, probe):
        try:
            found = function(content, max_pixels=1_000_000)
        except ImageError as error:
            assert 3 < len(str(error)) < 250
            assert "\n" not in str(error)
        else:
            assert min(found.size) > 0
    try:
        decoded = decode(content, max_pixels=1_000_000, at_least=(8, 8))
    except ImageError:
        return
    assert decoded.pixels.dtype in {np.dtype(name) for name in ("uint8", "uint16", "float32")}
    assert decoded.pixels.ndim == 2 or decoded.pixels.shape[2] == 3
    assert decoded.pixels.flags.c_contiguous


def mutated(content: bytes, edits: list[tuple[int, int]], keep: int) -> bytes:
    changed = bytearray(content)
    for place, value in edits:
        changed[place % len(changed)] = value
    return bytes(changed[: len(changed) * keep // 1000])


EDITS = st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6)
KEEP = st.one_of(st.just(1000), st.integers(0, 1000))


@QUICK
@given(st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"GIF89a", b"P5 "]))
def test_garbage_raises_only_image_error(content: bytes, start: bytes) -> None:
    """Random bytes, with the signature of a format or without, decode or raise `ImageError`."""
    check(start + content)


@QUICK
@given(st.sampled_from(FORMATS), EDITS, KEEP)
def test_damaged_pictures_raise_only_image_error(format_name: str, edits: list[tuple[int, int]], keep: int) -> None:
    """A picture with bytes changed or its end cut off decodes or raises `ImageError`."""
    check(mutated(sound(format_name), edits, keep))


CONTAINERS = {
    "zip": "a.zip",
    "tar": "a.tar",
    "tar:gz": "a.tar.gz",
    "tar:bz2": "a.tar.bz2",
    "tar:xz": "a.tar.xz",
    "npy": "a.npy",
    "npz": "a.npz",
    "idx": "a-idx3-ubyte",
    "idx.gz": "a-idx3-ubyte.gz",
}


@QUICK
@given(st.sampled_from(sorted(CONTAINERS)), EDITS, KEEP)
def test_damaged_containers_are_listed(name: str, edits: list[tuple[int, int]], keep: int) -> None:
    """A damaged archive or array file never raises while it is listed, always shows in the results, and is counted."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / CONTAINERS[name]
        file.write_bytes(mutated(container(name), edits, keep))
        references = list(iter_images([file]))
        assert references
        assert count_images([file]) == len(references)
        for reference in references:
            try:
                decode(reference.payload, max_pixels=1_000_000)
            except ImageError as error:
                assert str(error)


@QUICK
@given(st.sampled_from(sorted(CONTAINERS)), st.integers(1, 999))
def test_cut_containers_say_so(name: str, keep: int) -> None:
    """An archive or array file that was cut short has a row that says so, unless no image is lost."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / CONTAINERS[name]
        file.write_bytes(container(name))
        whole = list(iter_images([file]))
        file.write_bytes(container(name)[: len(container(name)) * keep // 1000])
        found = list(iter_images([file]))
        if not any(isinstance(reference.payload, ImageError | Path) for reference in found):
            assert [reference.path for reference in found] == [reference.path for reference in whole]
            for one, other in zip(found, whole, strict=True):
                assert np.array_equal(decode(one.payload).pixels, decode(other.payload).pixels)
