"""From a decoded image to what the model sees, and from what the model sees back to the image's own pixels.

The same code prepares for training, for finding and for the service: one preparation, one score. Pixels keep their own
type (uint8 where the file has 8 bits) until a batch is assembled, so that a training set in memory is as small as its
files allow.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from oddment.errors import ImageError, ParameterError
from oddment.images.decode import Decoded, thumbnail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["FITS", "Fit", "Placement", "Preparation", "Prepared", "assemble"]

Fit = Literal["letterbox", "stretch", "tile"]
FITS: tuple[Fit, ...] = ("letterbox", "stretch", "tile")
_LARGEST = 1e37
_KINDS = {"u1": "uint8", "u2": "uint16", "f4": "float32"}


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one prepared picture came from.

    Args:
        valid: (top, left, bottom, right) of the real pixels inside the prepared picture; outside lies padding.
        source: (left, top, right, bottom) of those pixels in the original image.
    """

    valid: tuple[int, int, int, int]
    source: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Prepared:
    """One image, ready for the model.

    Args:
        pixels: uint8, uint16 or float32 (T, H, W, C); T > 1 only where the image is cut into tiles.
        placements: one for each of the T pictures.
        size: width and height of the original image.
    """

    pixels: NDArray[Any]
    placements: tuple[Placement, ...]
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Preparation:
    """How every image of a model is prepared; kept in the model file.

    Args:
        height: rows of the prepared picture.
        width: columns of the prepared picture.
        channels: 1 (gray) or 3 (RGB).
        fit: "letterbox" keeps the aspect ratio and pads, "stretch" does not keep it, "tile" cuts the image into
            pictures of its own resolution, the last ones moved inwards to overlap rather than padded.
        ranges: for each pixel type, the values that become 0 and 1. Nothing is clipped.
    """

    height: int
    width: int
    channels: int
    fit: Fit = "letterbox"
    ranges: Mapping[str, tuple[float, float]] = field(
        default_factory=lambda: {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0), "float32": (0.0, 1.0)}
    )

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ParameterError: if one breaks its rule.
        """
        problems = []
        if not (1 <= self.height <= 8192 and 1 <= self.width <= 8192):
            problems.append(f"size must lie between 1 and 8192; got {self.height}×{self.width}.")
        if self.channels not in (1, 3):
            problems.append(f"channels must be 1 (gray) or 3 (colour); got {self.channels}.")
        if self.fit not in FITS:
            problems.append(f"fit must be one of {', '.join(FITS)}; got {self.fit!r}.")
        for name, (low, high) in self.ranges.items():
            # Within what float32 can subtract and divide by; NaN fails here too.
            if not (-_LARGEST < low < high < _LARGEST and high - low > 1 / _LARGEST):
                problems.append(f"the range of {name} must be finite and rising; got ({low}, {high}).")
        if problems:
            raise ParameterError(" ".join(problems))

    @property
    def at_least(self) -> tuple[int, int] | None:
        """The (height, width) that decoding must not fall below; None when it needs every pixel."""
        return None if self.fit == "tile" else (self.height, self.width)

    def prepare(self, decoded: Decoded) -> Prepared:
        """Return the image as the model sees it.

        Raises:
            ImageError: if the pixel type is one that the model has no range for.
        """
        pixels = _to_channels(decoded.pixels, self.channels)
        if _KINDS.get(pixels.dtype.str[1:]) not in self.ranges:
            msg = f"pixels of type {pixels.dtype} are not what this model was made for"
            raise ImageError(msg)
        if self.fit == "tile":
            return self._tiles(pixels, decoded.size)
        if self.fit == "stretch":
            target, valid = (self.height, self.width), (0, 0, self.height, self.width)
        else:
            target, valid = self._letterbox(decoded.size)
        resized = _resize(pixels, target)
        padded = _pad(resized, valid, (self.height, self.width))
        width, height = decoded.size
        return Prepared(padded[None], (Placement(valid, (0, 0, width, height)),), decoded.size)

    def _letterbox(self, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
        scale = min(self.width / size[0], self.height / size[1])
        w = min(self.width, max(1, round(size[0] * scale)))
        h = min(self.height, max(1, round(size[1] * scale)))
        top, left = (self.height - h) // 2, (self.width - w) // 2
        return (h, w), (top, left, top + h, left + w)

    def _tiles(self, pixels: NDArray[Any], size: tuple[int, int]) -> Prepared:
        h, w = pixels.shape[:2]
        rows, columns = _starts(h, self.height), _starts(w, self.width)
        inside = (min(h, self.height), min(w, self.width))
        pictures, placements = [], []
        for y in rows:
            for x in columns:
                cut = pixels[y : y + self.height, x : x + self.width]
                valid = (0, 0, *inside)
                pictures.append(_pad(cut, valid, (self.height, self.width)))
                placements.append(Placement(valid, (x, y, x + inside[1], y + inside[0])))
        return Prepared(np.stack(pictures), tuple(placements), size)

    def displayed(self, pixels: NDArray[Any], size: tuple[int, int], max_side: int) -> NDArray[np.uint8]:
        """A prepared picture for people, brought back to its own aspect ratio: uint8 (h, w) or (h, w, 3).

        Args:
            pixels: (h, w, C) of a type that `ranges` has, padding cut off.
            size: width and height of the original.
            max_side: the longest side of the result where the aspect ratio was lost.
        """
        low, high = self.ranges[pixels.dtype.name]
        whole = Decoded(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels, size)
        shown = thumbnail(whole, max(pixels.shape), low=low, high=high)
        if self.fit != "stretch":
            return shown
        scale = max_side / max(size)
        target = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
        return np.asarray(Image.fromarray(shown).resize(target, Image.Resampling.BILINEAR))

    def scale(self, pixels: NDArray[Any]) -> NDArray[np.float32]:
        """Return float32 (N, C, H, W) of `pixels` (N, H, W, C), range low..high brought to 0..1, not clipped."""
        low, high = self.ranges[_KINDS[pixels.dtype.str[1:]]]
        planes = pixels if self.channels == 1 else np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        batch = planes.reshape(len(pixels), self.channels, self.height, self.width).astype(np.float32)
        if low:
            batch -= np.float32(low)
        # A true division, not a product with the reciprocal: 255 must become 1 exactly, on every machine.
        batch /= np.float32(high - low)
        return batch

    def as_dict(self) -> dict[str, Any]:
        """The preparation, JSON-ready."""
        data = asdict(self)
        data["ranges"] = {name: list(bounds) for name, bounds in self.ranges.items()}
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preparation:
        """Return the preparation that `as_dict` described.

        Raises:
            ParameterError: if a field breaks its rule.
        """
        ranges = {str(name): (float(low), float(high)) for name, (low, high) in data["ranges"].items()}
        height, width, channels = (int(data[key]) for key in ("height", "width", "channels"))
        return cls(height, width, channels, data["fit"], ranges)


def assemble(
    preparation: Preparation, prepared: Sequence[Prepared]
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Return one batch of all pictures of these images.

    Returns:
        images: float32 (P, C, H, W), P the pictures of all images in order.
        valid: int64 (P, 4), the (top, left, bottom, right) of real pixels.
        owners: int64 (P,), the index of the image that each picture belongs to.
    """
    kinds = [list(same) for _, same in groupby((item.pixels for item in prepared), key=lambda pixels: pixels.dtype)]
    images = [preparation.scale(np.concatenate(same)) for same in kinds]
    valid = np.array([place.valid for item in prepared for place in item.placements], dtype=np.int64)
    owners = np.repeat(np.arange(len(prepared)), [len(item.placements) for item in prepared])
    return images[0] if len(images) == 1 else np.concatenate(images), valid.reshape(-1, 4), owners


def _to_channels(pixels: NDArray[Any], channels: int) -> NDArray[Any]:
    """Bring (h, w) or (h, w, 3) to (h, w, channels), of uint8, uint16 or float32."""
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, None], channels, axis=2) if channels > 1 else pixels[:, :, None]
    if channels == pixels.shape[2]:
        return pixels
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]
    # ITU-R 601 luma, the weights that Pillow uses for 8 bits.
    gray = pixels.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    if pixels.dtype == np.uint16:
        gray = np.rint(gray)
    converted: NDArray[Any] = gray.astype(pixels.dtype)[:, :, None]
    return converted


def _resize(pixels: NDArray[Any], target: tuple[int, int]) -> NDArray[Any]:
    """Resize (h, w, C) to (target, C) with an antialiased bilinear filter, keeping the type."""
    if pixels.shape[:2] == target:
        return pixels
    size = (target[1], target[0])
    if pixels.dtype == np.uint8:
        image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        resized = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
        return resized.reshape(*target, -1)
    planes = [
        np.asarray(Image.fromarray(pixels[:, :, c].astype(np.float32)).resize(size, Image.Resampling.BILINEAR))
        for c in range(pixels.shape[2])
    ]
    stacked = np.stack(planes, axis=2)
    return np.rint(stacked).astype(np.uint16) if pixels.dtype == np.uint16 else stacked


def _pad(pixels: NDArray[Any], valid: tuple[int, int, int, int], size: tuple[int, int]) -> NDArray[Any]:
    """Pad with the nearest real pixel, which makes no edge that a convolution could see; padding is never scored."""
    top, left, bottom, right = valid
    if (top, left) == (0, 0) and (bottom, right) == size:
        return pixels
    return np.pad(pixels, ((top, size[0] - bottom), (left, size[1] - right), (0, 0)), mode="edge")


def _starts(length: int, tile: int) -> list[int]:
    """First pixel of each tile along one side: as few as cover it, evenly spread, the last flush with the edge."""
    count = max(1, math.ceil(length / tile))
    span = max(0, length - tile)
    return [round(index * span / (count - 1)) if count > 1 else 0 for index in range(count)]
