"""Turns one file, one archive member or one array into pixels, or says in a sentence why that cannot be done.

Only raster formats with a safe, self-contained reader are opened, whatever the file is called; the header is checked
against `max_pixels` before a pixel is decoded; and nothing but `ImageError` comes out of here.

- 16-bit gray keeps its 16 bits. Of 16-bit colour Pillow keeps the upper 8, so those come as uint8.
- Of an animation or a file with several pages the first picture is taken.
- Transparency is laid on white; gray stays gray.
- Nothing global in Pillow is changed. `PIL.ImageFile.LOAD_TRUNCATED_IMAGES`, where the user sets it, is obeyed.
"""

from __future__ import annotations

import io
import os
import re
import stat
import threading
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from oddment.errors import ImageError, ParameterError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["DEFAULT_MAX_PIXELS", "Decoded", "Payload", "Probe", "decode", "probe", "thumbnail"]

DEFAULT_MAX_PIXELS: Final = 100_000_000
"""The largest picture that is decoded, in pixels; a larger one is rejected on its header."""

Payload: TypeAlias = "Path | bytes | NDArray[Any] | ImageError"
"""What `decode` takes: a file, the bytes of a file, the array of one image, or why there is none."""

# Pillow's plugin, then the formats it registers. MPO (what many phones write) is opened by the JPEG reader.
_READERS: Final = (
    ("Jpeg", "JPEG"),
    ("Png", "PNG"),
    ("Bmp", "BMP"),
    ("Tiff", "TIFF"),
    ("WebP", "WEBP"),
    ("Gif", "GIF"),
    ("Ppm", "PPM"),
    ("Jpeg2K", "JPEG2000"),
)
_UNREADABLE: Final = (
    "not an image Oddment reads (JPEG, PNG, BMP, TIFF, WebP, GIF, PGM/PPM, JPEG 2000); convert or remove it"
)
_TRUNCATED: Final = "truncated: the file ends before the picture does (re-copy it)"
_TRUNCATED_SIGNS: Final = ("truncat", "buffer is not large enough", "not enough image data", "unexpected end")
_EMPTY: Final = "empty file (0 bytes)"
_NOT_FINITE: Final = "contains NaN or infinite values; replace them with numbers"

_GRAY_MODES: Final = frozenset({"1", "L", "LA", "La"})
_ORIENTATION_TAG: Final = 0x0112
_ORIENTATION_KEYS: Final = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
_UPRIGHT_BY: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS: Final = frozenset({5, 6, 7, 8})
_MID_GRAY: Final = 128
_READ_AT_ONCE: Final = 2**20  # bytes


@dataclass(frozen=True, slots=True)
class Decoded:
    """One picture, upright and without transparency.

    Args:
        pixels: (h, w) gray or (h, w, 3) RGB; uint8, uint16 or float32, C-contiguous. Often read-only, and of an array
            payload often the payload's own memory.
        size: width and height of the original upright picture; `pixels` is smaller than that where a JPEG was decoded
            at reduced scale.
    """

    pixels: NDArray[Any]
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Probe:
    """What a header tells.

    Args:
        size: width and height of the upright picture.
        mode: Pillow's mode, or the dtype of an array.
        format: "JPEG", "PNG", …; "array" for an array.
        is_deep: more than 8 bits a channel reach `Decoded.pixels` (16-bit gray, 32-bit or float).
        is_colour_mode: the mode can carry colour; the pixels may still all be gray.
    """

    size: tuple[int, int]
    mode: str
    format: str
    is_deep: bool
    is_colour_mode: bool


def decode(
    payload: Payload, *, max_pixels: int = DEFAULT_MAX_PIXELS, at_least: tuple[int, int] | None = None
) -> Decoded:
    """The pixels of one image. Safe to call from many threads; Pillow releases the GIL while it decodes.

    Arrays: bool becomes uint8 0/255; uint8 and uint16 are kept; other integers become uint8 or uint16 where all
    values fit, else float32; floats become float32. A fourth channel is alpha: 0 to 255 (uint8), 0 to 65535 (uint16),
    of floats 0 to 1, or 0 to 255 where any value is above 1.

    Args:
        payload: a file, the bytes of one, or an array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4).
        max_pixels: the largest picture to decode, in pixels.
        at_least: (h, w) in pixels: a JPEG may be decoded at 1/2, 1/4 or 1/8 scale (much faster) while neither side
            falls below this. Other formats ignore it.

    Raises:
        ImageError: if the image cannot be used; the message is the reason.

    >>> import numpy as np
    >>> decode(np.array([[True, False]])).pixels
    array([[255,   0]], dtype=uint8)
    """
    if isinstance(payload, np.ndarray):
        return _decode_array(payload, max_pixels)
    with _opened(payload, max_pixels) as image:
        return _decode_image(image, at_least)


def probe(payload: Payload, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Probe:
    """What the header tells, without decoding a pixel.

    A PNG that stores its orientation after its pixels (nothing common writes one) is reported as stored.

    Args:
        payload: as for `decode`.
        max_pixels: the largest picture to accept, in pixels.

    Raises:
        ImageError: if the header already shows that the image cannot be used.
    """
    if isinstance(payload, np.ndarray):
        array = _checked_array(payload, max_pixels)
        size = (array.shape[1], array.shape[0])
        return Probe(size, str(array.dtype), "array", _narrow_dtype(array) != np.uint8, array.ndim == 3)
    with _opened(payload, max_pixels) as image:
        is_deep = image.mode.startswith(("I", "F"))
        is_colour = not is_deep and image.mode not in _GRAY_MODES
        # Pillow has already swapped the size of a TIFF that lies on its side.
        is_sideways = image.format != "TIFF" and _orientation(image) in _SIDEWAYS
        size = image.size[::-1] if is_sideways else image.size
        return Probe(size, image.mode, image.format or "", is_deep, is_colour)


def thumbnail(
    decoded: Decoded, max_side: int, *, low: float | None = None, high: float | None = None
) -> NDArray[np.uint8]:
    """A small copy for display; never enlarged.

    Args:
        decoded: the picture.
        max_side: the longest side of the result, in pixels.
        low: the value shown black in a uint16 or float32 picture; its own smallest by default.
        high: the value shown white; its own largest by default. 8-bit pictures ignore both.

    Returns:
        uint8 (h, w) or (h, w, 3); a picture without contrast (high not above low) is mid-gray.

    Raises:
        ParameterError: if max_side is below 1.
    """
    if max_side < 1:
        msg = f"max_side must be at least 1 pixel; got {max_side}."
        raise ParameterError(msg)
    pixels = decoded.pixels if decoded.pixels.dtype == np.uint8 else _stretched(decoded.pixels, low, high)
    height, width = pixels.shape[:2]
    shrink = max_side / max(height, width)
    if shrink >= 1:
        return pixels
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    small: NDArray[np.uint8] = np.asarray(
        Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    )
    return small


def _stretched(pixels: NDArray[Any], low: float | None, high: float | None) -> NDArray[np.uint8]:
    """Low to high mapped onto 0 to 255."""
    black = float(pixels.min()) if low is None else low
    white = float(pixels.max()) if high is None else high
    if not white > black:  # also catches NaN
        return np.full(pixels.shape, _MID_GRAY, np.uint8)
    # float64: the span of two float32 values can overflow float32.
    shade: NDArray[np.float64] = np.subtract(pixels, black, dtype=np.float64)
    shade *= 255.0 / (white - black)
    np.clip(np.rint(shade, out=shade), 0, 255, out=shade)
    return shade.astype(np.uint8)


# --- files and bytes ---------------------------------------------------------------------------------------------


def _decode_image(image: Image.Image, at_least: tuple[int, int] | None) -> Decoded:
    stored = image.size
    if at_least is not None and image.format in {"JPEG", "MPO"}:
        # draft() speaks of the picture as stored, which may lie on its side.
        height, width = at_least[::-1] if _orientation(image) in _SIDEWAYS else at_least
        image.draft(None, (max(1, width), max(1, height)))
    image.load()
    if image.format == "TIFF":  # Pillow has turned it while loading
        return Decoded(np.ascontiguousarray(_pixels(image)), image.size)
    orientation = _orientation(image)
    size = stored[::-1] if orientation in _SIDEWAYS else stored
    if orientation in _UPRIGHT_BY:
        image = image.transpose(_UPRIGHT_BY[orientation])
    return Decoded(np.ascontiguousarray(_pixels(image)), size)


def _pixels(image: Image.Image) -> NDArray[Any]:
    """A loaded picture as an array of a dtype and shape that `Decoded` allows."""
    mode = image.mode
    if mode in {"L", "RGB"} and "transparency" not in image.info:
        return np.asarray(image)
    if mode.startswith("I;16"):
        return _deep_gray(image)
    if mode in {"I", "F"}:
        return _deep_values(np.asarray(image))
    if image.has_transparency_data:
        return _on_white(image)
    return np.asarray(image.convert("L" if mode in _GRAY_MODES else "RGB"))


def _deep_gray(image: Image.Image) -> NDArray[np.uint16]:
    pixels = np.asarray(image).astype(np.uint16, copy=False)  # to this machine's byte order
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):  # PNG: the one gray level that is see-through
        return np.where(pixels == transparent, np.uint16(65535), pixels)
    return pixels


def _deep_values(values: NDArray[Any]) -> NDArray[Any]:
    """32-bit pixels: uint16 where the integers fit, else float32.

    Never uint8: a dark 16-bit picture would come out brightened 257 times.
    """
    if values.dtype.kind == "f":
        return _finite(values.astype(np.float32, copy=False))
    fits = values.min() >= 0 and values.max() <= np.iinfo(np.uint16).max
    return values.astype(np.uint16 if fits else np.float32)


def _on_white(image: Image.Image) -> NDArray[np.uint8]:
    gray = image.mode in _GRAY_MODES
    layer = image.convert("LA" if gray else "RGBA")
    canvas = Image.new("L", image.size, 255) if gray else Image.new("RGB", image.size, (255, 255, 255))
    canvas.paste(layer, mask=layer)
    return np.asarray(canvas)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or it cannot be read, as viewers do."""
    # Pillow would decode a whole PNG in search of a tag that its header does not carry.
    if not any(key in image.info for key in _ORIENTATION_KEYS):
        return 1
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001  a damaged tag is no reason to refuse a sound picture
        return 1
    return value if isinstance(value, int) else 1


@contextmanager
def _opened(payload: Path | bytes | ImageError, max_pixels: int) -> Iterator[Image.Image]:
    """The picture with its header read and checked; every failure inside the block leaves as `ImageError`."""
    if isinstance(payload, ImageError):
        raise ImageError(str(payload))  # a fresh one: raising the same twice would pile up tracebacks
    try:
        with _PILLOW_WARNINGS_OFF, _stream(payload) as stream, _header(stream) as image:
            _check_pixels(*image.size, max_pixels)
            yield image
    except ImageError:
        raise
    except Exception as error:  # Pillow's readers raise whatever their parsers stumble over
        raise ImageError(_reason(error)) from error


def _stream(payload: Path | bytes) -> IO[bytes]:
    if isinstance(payload, bytes):
        if not payload:
            raise ImageError(_EMPTY)
        return io.BytesIO(payload)
    # Looked at before it is opened: opening a pipe would wait for its other end for ever.
    status = os.stat(payload)  # noqa: PTH116  half the time of Path.stat
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("a folder, not a file" if stat.S_ISDIR(status.st_mode) else "a pipe, socket or device")
    if status.st_size == 0:
        raise ImageError(_EMPTY)
    # A stream and not a name: Pillow memory-maps files it opens itself, and one that shrinks would end the process.
    stream = open(payload, "rb")  # noqa: PTH123, SIM115  the caller closes it
    if status.st_size > _READ_AT_ONCE:
        return stream
    # Read at once: after each of Pillow's many short reads a thread would wait for Python's lock again.
    with stream:
        return io.BytesIO(stream.read())


@cache
def _formats() -> tuple[str, ...]:
    """The formats to open; loads their readers on first use, and theirs only, where Pillow would load forty."""
    for plugin, _ in _READERS:
        import_module(f"PIL.{plugin}ImagePlugin")
    return tuple(name for _, name in _READERS)


def _header(stream: IO[bytes]) -> Image.Image:
    try:
        return Image.open(stream, formats=_formats())
    except UnidentifiedImageError:
        stream.seek(0)
        start = stream.read(16)
        for name in _formats():
            accepts = Image.OPEN[name][1]
            if accepts is not None and accepts(start) is True:
                msg = f"a {name} file that cannot be read: damaged, cut short or of an unusual kind (re-save it)"
                raise ImageError(msg) from None
        raise ImageError(_UNREADABLE) from None


def _check_pixels(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        msg = f"{width * height:,} pixels ({width}×{height}) exceed max_pixels={max_pixels:,}"
        raise ImageError(msg)
    if width < 1 or height < 1:
        msg = f"no pixels ({width}×{height})"
        raise ImageError(msg)


def _reason(error: Exception) -> str:  # noqa: PLR0911  a table of causes
    """One sentence for whatever went wrong."""
    text = re.sub(r"\s+", " ", str(error)).strip()[:120]
    match error:
        case Image.DecompressionBombError():
            limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
            return f"more pixels than Pillow's own limit of {limit:,}; scale it down"
        case PermissionError():
            return "permission denied"
        case FileNotFoundError():
            return "no such file (moved or deleted, or a broken link)"
        case IsADirectoryError():
            return "a folder, not a file"
        case MemoryError():
            return "not enough memory to decode it; scale it down"
        case EOFError():
            return _TRUNCATED
        case OSError(errno=int(), strerror=str() as cause):
            return f"cannot be read: {cause}"
        case _ if any(sign in text.lower() for sign in _TRUNCATED_SIGNS):
            return _TRUNCATED
    return f"damaged: {text or type(error).__name__} (re-copy or re-save it)"


class _PillowWarningsOff:
    """Keeps Pillow's warnings from the user while any thread is inside: each has its reason in a row of results.

    `warnings.catch_warnings` swaps the process-wide list of filters and is not safe with threads. This adds one
    filter, for Pillow's modules only, when the first thread enters, and takes that one out when the last leaves: from
    the list it went into, which is not the current list if someone else swapped it in between.
    """

    _FILTER: Final = ("ignore", None, Warning, re.compile(r"PIL\."), 0)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters: list[Any] = []

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._filters is not warnings.filters:
                self._withdraw()
                self._filters = warnings.filters  # type: ignore[assignment]  # a list; typeshed says Sequence
                self._filters.insert(0, self._FILTER)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._withdraw()
                self._filters = []

    def _withdraw(self) -> None:
        while self._FILTER in self._filters:
            self._filters.remove(self._FILTER)


_PILLOW_WARNINGS_OFF: Final = _PillowWarningsOff()


# --- arrays ------------------------------------------------------------------------------------------------------


def _decode_array(array: NDArray[Any], max_pixels: int) -> Decoded:
    array = _checked_array(array, max_pixels)
    size = (array.shape[1], array.shape[0])
    pixels = _narrowed(array)
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        pixels = _array_on_white(pixels)
    return Decoded(np.ascontiguousarray(pixels), size)


def _checked_array(array: NDArray[Any], max_pixels: int) -> NDArray[Any]:
    """The array as (h, w), (h, w, 3) or (h, w, 4) of plain numbers, not yet converted."""
    array = np.asarray(array)  # drops the memory-map subclass, whose every slice is slow
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim != 2 and not (array.ndim == 3 and array.shape[2] in {3, 4}):
        msg = f"shape {array.shape} is not one image: (h, w), (h, w, 1), (h, w, 3) or (h, w, 4)"
        raise ImageError(msg)
    if array.dtype.kind not in "buif":
        msg = f"dtype {array.dtype} is not numbers; save integers or floats"
        raise ImageError(msg)
    _check_pixels(array.shape[1], array.shape[0], max_pixels)
    return array


def _narrow_dtype(array: NDArray[Any]) -> type[np.uint8 | np.uint16 | np.float32]:
    """The dtype of `Decoded.pixels` for these values."""
    kind, bytes_each = array.dtype.kind, array.dtype.itemsize
    if kind == "f":
        return np.float32
    if kind == "b" or (kind == "u" and bytes_each == 1):
        return np.uint8
    if kind == "u" and bytes_each == 2:
        return np.uint16
    high = int(array.max())
    if array.min() < 0 or high > np.iinfo(np.uint16).max:
        return np.float32
    return np.uint16 if high > np.iinfo(np.uint8).max else np.uint8


def _narrowed(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a double too large for float32 becomes inf, which is reported
            return _finite(array.astype(np.float32, copy=False))
    return array.astype(_narrow_dtype(array), copy=False)


def _finite(values: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(values).all():
        raise ImageError(_NOT_FINITE)
    return values


def _array_on_white(rgba: NDArray[Any]) -> NDArray[Any]:
    """(h, w, 4) laid on white: (h, w, 3) of the same dtype."""
    whole = rgba.dtype.kind == "u"
    white = np.float32(np.iinfo(rgba.dtype).max if whole else 1.0 if rgba.max() <= 1 else 255.0)
    alpha = np.clip(rgba[:, :, 3:] / white, 0, 1, dtype=np.float32)
    flat: NDArray[np.float32] = white + (rgba[:, :, :3] - white) * alpha
    np.rint(flat, out=flat, where=whole)
    return flat.astype(rgba.dtype)
