"""Decoding: every format and mode, upright, under limits, and one clear reason for each failure."""

from __future__ import annotations

import io
import os
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from oddment.errors import ImageError, ParameterError
from oddment.images import Decoded, decode, probe, thumbnail

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def encoded(image: Image.Image, format_name: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_name, **options)
    return stream.getvalue()


def scene(mode: str, size: tuple[int, int] = (24, 16)) -> Image.Image:
    """A picture of that mode with a bright left half."""
    rgb = Image.new("RGB", size, (20, 40, 60))
    rgb.paste((250, 200, 150), (0, 0, size[0] // 2, size[1]))
    if mode in {"I", "F"}:
        return rgb.convert("L").convert(mode)
    if mode == "I;16":
        return Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    if mode == "LAB":
        from PIL import ImageCms

        change = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
        return ImageCms.applyTransform(rgb, change)
    if mode == "P":
        return rgb.quantize(4)
    if mode == "PA":
        return rgb.convert("P").convert("PA")
    return rgb.convert(mode)


CASES = [
    ("JPEG", "L", "uint8", 2),
    ("JPEG", "RGB", "uint8", 3),
    ("JPEG", "CMYK", "uint8", 3),
    ("JPEG", "YCbCr", "uint8", 3),
    ("PNG", "1", "uint8", 2),
    ("PNG", "L", "uint8", 2),
    ("PNG", "LA", "uint8", 2),
    ("PNG", "P", "uint8", 3),
    ("PNG", "RGB", "uint8", 3),
    ("PNG", "RGBA", "uint8", 3),
    ("PNG", "I;16", "uint16", 2),
    ("BMP", "1", "uint8", 2),
    ("BMP", "L", "uint8", 2),
    ("BMP", "P", "uint8", 3),
    ("BMP", "RGB", "uint8", 3),
    ("TIFF", "1", "uint8", 2),
    ("TIFF", "L", "uint8", 2),
    ("TIFF", "LA", "uint8", 2),
    ("TIFF", "P", "uint8", 3),
    ("TIFF", "RGB", "uint8", 3),
    ("TIFF", "RGBA", "uint8", 3),
    ("TIFF", "CMYK", "uint8", 3),
    ("TIFF", "YCbCr", "uint8", 3),
    ("TIFF", "LAB", "uint8", 3),
    ("TIFF", "I;16", "uint16", 2),
    ("TIFF", "I", "uint16", 2),
    ("TIFF", "F", "float32", 2),
    ("WEBP", "RGB", "uint8", 3),
    ("WEBP", "RGBA", "uint8", 3),
    ("GIF", "L", "uint8", 3),
    ("GIF", "P", "uint8", 3),
    ("PPM", "1", "uint8", 2),
    ("PPM", "L", "uint8", 2),
    ("PPM", "RGB", "uint8", 3),
    ("PPM", "I;16", "uint16", 2),
    ("PPM", "F", "float32", 2),
    ("JPEG2000", "L", "uint8", 2),
    ("JPEG2000", "RGB", "uint8", 3),
    ("JPEG2000", "RGBA", "uint8", 3),
    ("MPO", "RGB", "uint8", 3),
]


@pytest.mark.parametrize(("format_name", "mode", "dtype", "axes"), CASES)
def test_format_and_mode(tmp_path: Path, format_name: str, mode: str, dtype: str, axes: int) -> None:
    """Each format and mode decodes to the promised dtype and shape, with its values in place."""
    file = tmp_path / "picture.bin"
    options = {"save_all": True, "append_images": [scene("RGB")]} if format_name == "MPO" else {}
    file.write_bytes(encoded(scene(mode), format_name, **options))
    decoded = decode(file)
    assert decoded.pixels.dtype == dtype
    assert decoded.pixels.shape == (16, 24, 3)[:axes]
    assert decoded.pixels.flags.c_contiguous
    assert decoded.size == probe(file).size == (24, 16)
    gray = np.asarray(scene("L"), np.float64)
    factor = 257 if mode == "I;16" else 1
    seen = decoded.pixels.astype(np.float64) if axes == 2 else decoded.pixels @ [0.299, 0.587, 0.114]
    if mode == "1":
        assert set(np.unique(decoded.pixels)) <= {0, 255}
    else:
        assert np.abs(seen / factor - gray)[:, [2, 20]].max() < 30


@pytest.mark.parametrize("kind", ["path", "bytes"])
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(tmp_path: Path, orientation: int, format_name: str, kind: str) -> None:
    """A picture stored in any of the eight EXIF orientations comes out upright, its mark at the upper left."""
    upright = Image.new("L", (48, 32), 10)
    upright.paste(240, (0, 0, 16, 8))
    upright.paste(120, (0, 24, 16, 32))  # lower left, so that a mirrored or turned picture differs
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the inverse of each transposition
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(stored.convert("RGB") if format_name == "WEBP" else stored, format_name, exif=exif)
    file = tmp_path / "turned"
    file.write_bytes(content)
    payload = file if kind == "path" else content
    decoded = decode(payload)
    pixels = decoded.pixels if decoded.pixels.ndim == 2 else decoded.pixels[..., 0]
    assert decoded.size == probe(payload).size == (48, 32)
    assert pixels.shape == (32, 48)
    assert [round(int(pixels[at]) / 10) for at in ((3, 5), (28, 5), (3, 40), (28, 40))] == [24, 12, 1, 1]


def test_damaged_exif_is_ignored() -> None:
    """Unreadable EXIF data do not cost the picture."""
    content = encoded(scene("RGB"), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 40)
    assert decode(content).size == (24, 16)


def test_transparency_is_laid_on_white() -> None:
    """Transparent pixels of RGBA, LA, palette and keyed pictures are white; half-transparent black is mid-gray."""
    rgba = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    rgba.putpixel((1, 1), (0, 0, 0, 128))
    pixels = decode(encoded(rgba, "PNG")).pixels
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[1, 1].tolist() == [127, 127, 127]
    assert decode(encoded(rgba.convert("LA"), "PNG")).pixels[:2, 1].tolist() == [255, 127]
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 200, 0, 0])
    palette.putpixel((0, 0), 0)
    for format_name in ("PNG", "GIF"):
        pixels = decode(encoded(palette, format_name, transparency=0)).pixels
        assert pixels[0, 0].tolist() == [255, 255, 255]
        assert pixels[2, 2].tolist() == [200, 0, 0]
    assert decode(encoded(Image.new("L", (2, 2), 7), "PNG", transparency=7)).pixels.tolist() == [[255, 255]] * 2
    assert decode(encoded(Image.new("RGB", (1, 1)), "PNG", transparency=(0, 0, 0))).pixels.tolist() == [[[255] * 3]]
    deep = encoded(Image.fromarray(np.array([[5, 6]], np.uint16)), "PNG", transparency=5)
    assert decode(deep).pixels.tolist() == [[65535, 6]]


def test_sixteen_bits_are_kept() -> None:
    """16-bit gray keeps every value, in either byte order; a 32-bit picture beyond 16 bits becomes float32."""
    values = np.array([[0, 1, 255], [256, 40_000, 65_535]], np.uint16)
    for format_name in ("PNG", "TIFF", "PPM"):
        assert decode(encoded(Image.fromarray(values), format_name)).pixels.tolist() == values.tolist()
    big_endian = Image.frombytes("I;16B", (3, 2), values.astype(">u2").tobytes())
    decoded = decode(encoded(big_endian, "TIFF"))
    assert decoded.pixels.dtype == np.dtype(np.uint16)
    assert decoded.pixels.tolist() == values.tolist()
    wide = decode(encoded(Image.fromarray(np.array([[-5, 100_000]], np.int32)), "TIFF")).pixels
    assert (wide.dtype, wide.tolist()) == (np.float32, [[-5.0, 100_000.0]])


def test_float_picture_with_nan_is_refused() -> None:
    """NaN and infinity are reported, not scored."""
    for bad in (np.nan, np.inf):
        with pytest.raises(ImageError, match="NaN or infinite"):
            decode(encoded(Image.fromarray(np.array([[0.5, bad]], np.float32)), "TIFF"))


def test_first_frame_of_an_animation() -> None:
    """An animation gives its first picture."""
    frames = [Image.new("L", (8, 8), level) for level in (200, 90)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(content).pixels.flat[0] == 200


@pytest.mark.parametrize(
    ("at_least", "expected"),
    [
        ((100, 150), (100, 150)),
        ((101, 150), (200, 300)),
        ((50, 60), (50, 75)),
        ((1, 1), (50, 75)),
        ((900, 1), (400, 600)),
    ],
)
def test_reduced_jpeg(at_least: tuple[int, int], expected: tuple[int, int]) -> None:
    """A JPEG is decoded at the smallest scale that keeps both sides, and remembers its own size."""
    decoded = decode(encoded(scene("RGB", (600, 400)), "JPEG"), at_least=at_least)
    assert decoded.pixels.shape == (*expected, 3)
    assert decoded.size == (600, 400)


def test_reduced_jpeg_lying_on_its_side() -> None:
    """The wanted size is that of the upright picture, also where it is stored on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode(encoded(scene("L", (600, 400)), "JPEG", exif=exif), at_least=(300, 100))
    assert decoded.pixels.shape == (300, 200)
    assert decoded.size == (400, 600)


def test_other_formats_are_never_reduced() -> None:
    """Only a JPEG can be decoded at reduced scale."""
    assert decode(encoded(scene("RGB"), "PNG"), at_least=(1, 1)).pixels.shape == (16, 24, 3)


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "BMP", "TIFF", "GIF", "PPM"])
@pytest.mark.parametrize("kind", ["path", "bytes"])
def test_truncated(tmp_path: Path, format_name: str, kind: str) -> None:
    """A file cut in half is reported as truncated, from disk and from memory."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))
    content = encoded(noise, format_name)
    file = tmp_path / "half"
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageError, match=r"truncated|cut short"):
        decode(file if kind == "path" else file.read_bytes())


def test_reasons_for_files(tmp_path: Path) -> None:
    """Each thing that is no picture has a reason a stranger can act on."""
    (tmp_path / "empty.png").touch()
    (tmp_path / "note.jpg").write_text("milk, bread")
    (tmp_path / "broken").symlink_to(tmp_path / "gone")
    (tmp_path / "page.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    reasons = {
        "empty.png": "empty file (0 bytes)",
        "note.jpg": "not an image Oddment reads (JPEG, PNG, ",
        "page.eps": "not an image Oddment reads (JPEG, PNG, ",
        "broken": "no such file",
        ".": "a folder, not a file",
    }
    for name, reason in reasons.items():
        for function in (decode, probe):
            with pytest.raises(ImageError) as caught:
                function(tmp_path / name)
            assert str(caught.value).startswith(reason)
    with pytest.raises(ImageError, match="empty file"):
        decode(b"")
    with pytest.raises(ImageError, match="a PNG file that cannot be read"):
        decode(b"\x89PNG\r\n\x1a\n\0\0\0\1\1\2\3\4garbage")
    with pytest.raises(ImageError, match="encrypted"):
        decode(ImageError("encrypted"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipe_does_not_block(tmp_path: Path) -> None:
    """A named pipe in a folder is refused instead of waited for."""
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="pipe"):
        decode(tmp_path / "pipe.png")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(tmp_path: Path) -> None:
    """A file that may not be read says so."""
    file = tmp_path / "secret.png"
    file.write_bytes(encoded(scene("L"), "PNG"))
    file.chmod(0)
    with pytest.raises(ImageError, match="permission denied"):
        decode(file)


def test_permission_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A denied permission is named, whoever runs this test."""
    file = tmp_path / "secret.png"
    file.write_bytes(b"x")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ImageError, match=r"^permission denied$"):
        decode(file)


def test_max_pixels() -> None:
    """A picture above the limit is refused by its header, an array by its shape; the message has the numbers."""
    message = r"^384 pixels \(24×16\) exceed max_pixels=383$"
    for payload in (encoded(scene("L"), "PNG"), np.zeros((16, 24), np.uint8)):
        assert decode(payload, max_pixels=384).size == (24, 16)
        for function in (decode, probe):
            with pytest.raises(ImageError, match=message):
                function(payload, max_pixels=383)


def bmp_header(width: int, height: int) -> bytes:
    content = bytearray(encoded(Image.new("L", (1, 1)), "BMP"))
    content[18:26] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    return bytes(content)


def test_pillows_own_limit(recwarn: pytest.WarningsRecorder) -> None:
    """Beyond Pillow's limit the reason names that limit; near it no warning reaches the user."""
    with pytest.raises(ImageError, match="Pillow's own limit"):
        decode(bmp_header(60_000, 60_000), max_pixels=10**12)
    with pytest.raises(ImageError, match="exceed max_pixels"):
        decode(bmp_header(10_000, 11_000))
    assert not recwarn.list


def test_warnings_of_pillow_stay_inside() -> None:
    """Pillow's warnings are neither shown nor, where warnings are errors, a reason to refuse; filters stay as set."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        assert probe(bmp_header(10_000, 10_000), max_pixels=10**9).size == (10_000, 10_000)
        barrier = threading.Barrier(4)
        content = encoded(scene("RGB"), "PNG")

        def work() -> None:
            barrier.wait()
            for _ in range(50):
                decode(content)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert warnings.filters == before


@pytest.mark.parametrize(
    ("array", "dtype", "expected"),
    [
        (np.array([[True, False]]), "uint8", [[255, 0]]),
        (np.array([[3, 4]], np.uint8), "uint8", [[3, 4]]),
        (np.array([[3, 4]], np.uint16), "uint16", [[3, 4]]),
        (np.array([[3, 400]], ">u2"), "uint16", [[3, 400]]),
        (np.array([[3, 4]], np.int64), "uint8", [[3, 4]]),
        (np.array([[3, 256]], np.int32), "uint16", [[3, 256]]),
        (np.array([[3, 65_536]], np.uint32), "float32", [[3, 65_536]]),
        (np.array([[-1, 4]], np.int8), "float32", [[-1, 4]]),
        (np.array([[0.5, 4]], np.float64), "float32", [[0.5, 4]]),
        (np.array([[0.5, 4]], np.float16), "float32", [[0.5, 4]]),
        (np.zeros((2, 1, 1), np.uint8), "uint8", [[0], [0]]),
        (np.array([[[10, 20, 30, 0]], [[10, 20, 30, 255]]], np.uint8), "uint8", [[[255] * 3], [[10, 20, 30]]]),
        (np.array([[[0, 0, 0, 65535]], [[0, 0, 0, 0]]], np.uint16), "uint16", [[[0] * 3], [[65535] * 3]]),
        (np.array([[[0, 0.25, 1, 0.5]]]), "float32", [[[0.5, 0.625, 1]]]),
    ],
)
def test_arrays(array: NDArray[Any], dtype: str, expected: list[Any]) -> None:
    """Arrays keep or find the dtype that holds their values; alpha is laid on white."""
    decoded = decode(array)
    assert decoded.pixels.dtype == np.dtype(dtype)
    assert decoded.pixels.tolist() == expected
    assert decoded.pixels.flags.c_contiguous
    assert decoded.size == (array.shape[1], array.shape[0])


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array([[np.nan, 1]]), "NaN"),
        (np.array([[1e300, 1]]), "infinite"),
        (np.zeros((0, 5), np.uint8), "no pixels"),
        (np.zeros((5, 0, 3), np.uint8), "no pixels"),
        (np.zeros(5, np.uint8), "is not one image"),
        (np.zeros((3, 8, 8), np.uint8), "is not one image"),
        (np.zeros((2, 2), complex), "is not numbers"),
        (np.array([["a"]]), "is not numbers"),
        (np.array([[None]]), "is not numbers"),
    ],
)
def test_arrays_refused(array: NDArray[Any], reason: str) -> None:
    """Arrays that are no image say why."""
    with pytest.raises(ImageError, match=reason):
        decode(array)


def test_fortran_order_becomes_contiguous() -> None:
    """Any memory layout comes out C-contiguous with the same values."""
    array = np.asfortranarray(np.arange(24, dtype=np.uint8).reshape(2, 4, 3))
    pixels = decode(array).pixels
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels, array)


@pytest.mark.parametrize(
    ("payload", "mode", "is_deep", "is_colour"),
    [
        (encoded(scene("L"), "PNG"), "L", False, False),
        (encoded(scene("P"), "PNG"), "P", False, True),
        (encoded(scene("I;16"), "PNG"), "I;16", True, False),
        (encoded(scene("F"), "TIFF"), "F", True, False),
        (encoded(scene("CMYK"), "JPEG"), "CMYK", False, True),
        (np.zeros((16, 24, 3), np.uint8), "uint8", False, True),
        (np.zeros((16, 24), np.float64), "float64", True, False),
        (np.zeros((16, 24), np.int64), "int64", False, False),
    ],
)
def test_probe(payload: Any, mode: str, is_deep: bool, is_colour: bool) -> None:
    """A probe tells mode, depth and whether the mode can carry colour."""
    found = probe(payload)
    assert (found.size, found.mode, found.is_deep, found.is_colour_mode) == ((24, 16), mode, is_deep, is_colour)


def test_probe_reads_no_pixels() -> None:
    """A picture whose pixels are missing can still be probed."""
    content = encoded(scene("RGB", (200, 100)), "PNG")
    assert probe(content[:60]).size == (200, 100)


def test_thumbnail_shrinks_and_never_enlarges() -> None:
    """The longest side meets the limit, the shape is kept, and a small picture stays as it is."""
    wide = Decoded(np.zeros((100, 400, 3), np.uint8), (400, 100))
    assert thumbnail(wide, 64).shape == (16, 64, 3)
    assert thumbnail(wide, 1000).shape == (100, 400, 3)
    assert thumbnail(Decoded(np.zeros((1, 900), np.uint8), (900, 1)), 30).shape == (1, 30)
    with pytest.raises(ParameterError, match="max_side"):
        thumbnail(wide, 0)


def test_thumbnail_stretches_deep_pictures() -> None:
    """Deep pictures are scaled from low to high onto 0 to 255, beyond them clipped; without contrast mid-gray."""
    deep = Decoded(np.array([[1000, 1500, 2000]], np.uint16), (3, 1))
    assert thumbnail(deep, 9).tolist() == [[0, 128, 255]]
    assert thumbnail(deep, 9, low=1500, high=1600).tolist() == [[0, 0, 255]]
    flat = Decoded(np.full((2, 2), 7.0, np.float32), (2, 2))
    assert thumbnail(flat, 9).tolist() == [[128, 128]] * 2
    huge = Decoded(np.array([[-3e38, 3e38]], np.float32), (2, 1))
    assert thumbnail(huge, 9).tolist() == [[0, 255]]
