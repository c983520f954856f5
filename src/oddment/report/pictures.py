"""Small encoded pictures of one image: the original, its reconstruction and its heat map.

Boxes are never burnt in: the page draws them over the pictures, so that they can be switched off.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from oddment.errors import ParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Pictures", "render_heat_map", "render_pictures"]

# From here down every pixel counts (a digit is 28 x 28) and lossless costs no more bytes than lossy.
_TINY_SIDE = 32
# From here down the page shows pixels as squares, and little may be lost.
_SMALL_SIDE, _SMALL_QUALITY = 64, 90
# JPEG: lossy WebP takes three quarters of the bytes and ten times as long, which is most of a report's cost.
_QUALITY = 78
# The heat map repeats the original in gray; it carries smooth colour, which survives a lower quality.
_HEAT_QUALITY = 66

# Rising lightness from violet through red and orange to pale yellow, after matplotlib's inferno (CC0, Smith and
# van der Walt): readable in gray and by every kind of colour vision. Its black end is left out, because the low end
# is transparent here and would only darken the photograph.
_CONTROL_POINTS = np.array(
    [(75, 12, 107), (128, 31, 108), (181, 54, 86), (225, 89, 50), (246, 133, 17), (251, 186, 31), (252, 255, 164)],
    dtype=np.float64,
)
_GRAY_CONTRAST = 0.75
_TRANSPARENT_BELOW, _FULL_FROM, _FULL_OPACITY = 0.12, 0.6, 0.86


@dataclass(frozen=True, slots=True)
class Pictures:
    """Encoded pictures of one image, all of one shape: JPEG, or WebP where nothing may be lost.

    Args:
        original: the image as it is displayed.
        reconstruction: what the model redrew, no larger than it did; None when it has none.
        heat_map: the original in gray under the coloured anomaly map.
        width: width of the original and the heat map in pixels.
        height: height of the original and the heat map in pixels.
        similar: which of the model's examples the image is most like, the likest first; empty where nobody asked.
    """

    original: bytes
    reconstruction: bytes | None
    heat_map: bytes | None
    width: int
    height: int
    similar: tuple[int, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of the encoded pictures together."""
        return len(self.original) + len(self.reconstruction or b"") + len(self.heat_map or b"")


def render_pictures(
    original: NDArray[np.uint8],
    reconstruction: NDArray[np.float32] | None,
    anomaly_map: NDArray[np.float32],
    *,
    map_range: tuple[float, float],
    max_side: int = 224,
) -> Pictures:
    """The small pictures of one image; it is made smaller where needed and never larger.

    Args:
        original: uint8 (h, w) gray or (h, w, 3) colour.
        reconstruction: float32 (rh, rw, C) in [0, 1], C of 1 or 3; stretched over the original.
        anomaly_map: float32 (mh, mw) over the original.
        map_range: the map values drawn as transparent and as brightest; one range for a whole run, so that colours
            compare between images. Values outside are clipped for display only.
        max_side: longest side of the pictures in pixels.

    Raises:
        ParameterError: if an array has another shape.
    """
    image = _as_image(original)
    size = _fitted(image.size, max_side)
    small = _resized(image, size)
    redrawn = None if reconstruction is None else _as_drawn(_as_image(_to_bytes(reconstruction)), size)
    heat = _blend(small, anomaly_map, map_range)
    return Pictures(
        original=_encode(small, _QUALITY),
        reconstruction=None if redrawn is None else _encode(redrawn, _QUALITY),
        heat_map=_encode(heat, _HEAT_QUALITY),
        width=size[0],
        height=size[1],
    )


def render_heat_map(
    original: NDArray[np.uint8],
    anomaly_map: NDArray[np.float32],
    *,
    map_range: tuple[float, float],
    size: tuple[int, int],
) -> NDArray[np.uint8]:
    """The original in gray under the coloured anomaly map, uint8 (height, width, 3).

    Args:
        original: uint8 (h, w) or (h, w, 3).
        anomaly_map: float32 (mh, mw) over the original.
        map_range: the map values drawn as transparent and as brightest.
        size: width and height of the result in pixels.

    Raises:
        ParameterError: if an array has another shape.
    """
    return np.asarray(_blend(_resized(_as_image(original), size), anomaly_map, map_range), dtype=np.uint8)


def _blend(image: Image.Image, anomaly_map: NDArray[np.float32], map_range: tuple[float, float]) -> Image.Image:
    if anomaly_map.ndim != 2 or not anomaly_map.size:
        raise ParameterError(f"anomaly_map must have the shape (h, w); got {anomaly_map.shape}.")
    low, high = map_range
    span = max(high - low, float(np.finfo(np.float32).tiny))
    # Clipped before it is divided: an infinite value stays the brightest, and not a number stays transparent.
    if not np.isfinite(anomaly_map).all():
        anomaly_map = np.nan_to_num(anomaly_map, nan=low, posinf=high, neginf=low)
    level = (np.clip(anomaly_map, low, high) - low) / span
    smooth = np.asarray(Image.fromarray(level.astype(np.float32)).resize(image.size, Image.Resampling.BILINEAR))
    index = Image.fromarray(np.rint(smooth * 255).astype(np.uint8))
    gray = image.convert("L").point(_GRAYS).convert("RGB")
    opacity = index.point(_OPACITY)
    index.putpalette(_COLOURS)
    # Pillow looks up and composites in bytes: a 24-megapixel map never becomes three float planes.
    return Image.composite(index.convert("RGB"), gray, opacity)


def _colour_table() -> NDArray[np.uint8]:
    at = np.linspace(0.0, 1.0, len(_CONTROL_POINTS))
    levels = np.linspace(0.0, 1.0, 256)
    channels = [np.interp(levels, at, _CONTROL_POINTS[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)


def _opacity_table() -> NDArray[np.uint8]:
    rise = np.clip((np.linspace(0.0, 1.0, 256) - _TRANSPARENT_BELOW) / (_FULL_FROM - _TRANSPARENT_BELOW), 0.0, 1.0)
    smoothstep = rise * rise * (3 - 2 * rise)
    return np.rint(255 * _FULL_OPACITY * smoothstep).astype(np.uint8)


# As Pillow takes them.
_GRAYS = (255 * (1 - _GRAY_CONTRAST) / 2 + _GRAY_CONTRAST * np.arange(256)).astype(np.uint8).tolist()
_COLOURS = _colour_table().tobytes()
_OPACITY = _opacity_table().tolist()


def _as_image(pixels: NDArray[np.uint8]) -> Image.Image:
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    if not pixels.size or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise ParameterError(f"an image must have the shape (h, w) or (h, w, 3); got {pixels.shape}.")
    return Image.fromarray(np.ascontiguousarray(pixels))


def _to_bytes(pixels: NDArray[np.float32]) -> NDArray[np.uint8]:
    finite = pixels if np.isfinite(pixels).all() else np.nan_to_num(pixels)
    return np.rint(np.clip(finite, 0.0, 1.0) * 255).astype(np.uint8)


def _fitted(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    scale = min(1.0, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _as_drawn(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The reconstruction in the shape of `size`, no larger than either: whoever looks at it enlarges it."""
    scale = min(1.0, max(image.width / size[0], image.height / size[1]))
    return _resized(image, (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))))


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    if image.size == size:
        return image
    # reducing_gap shrinks large photographs in two steps: five times as fast, with no visible difference.
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def _encode(image: Image.Image, quality: int) -> bytes:
    if max(image.size) <= _TINY_SIDE:
        return _encoded(image, "WEBP", lossless=True, quality=20, method=0)
    if max(image.size) <= _SMALL_SIDE:
        lossy = _encoded(image, "JPEG", quality=_SMALL_QUALITY, subsampling=0)
    else:
        lossy = _encoded(image, "JPEG", quality=quality)
    # Drawings, screenshots and binary masks: lossless is sharp there, and often smaller.
    if image.getcolors(maxcolors=64) is None:
        return lossy
    lossless = _encoded(image, "WEBP", lossless=True)
    return lossless if len(lossless) < len(lossy) else lossy


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
