"""Small pictures of normal training images in a model file, and which of them are most like another picture.

They are for people to compare with, and no score depends on them. Likeness is measured by a fixed descriptor that NumPy
computes from the small pictures themselves: the file holds no second description that could disagree with them, and a
later release may describe better.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from oddment.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["MOST_BYTES", "MOST_EXAMPLES", "SIDE", "Examples", "describe", "encode_example", "pack", "unpack"]

SIDE = 96
"""Pixels on the longer side of an example, at most."""
MOST_EXAMPLES = 300
"""Examples that fitting keeps, at most."""
MOST_BYTES = 1_000_000
"""Bytes of all pictures that fitting keeps, at most."""

# What a file may hold, whoever wrote it.
_LIMIT_SIDE, _LIMIT_EXAMPLES, _LIMIT_BYTES = 128, 500, 4 * 1024**2
_TENSORS = {"names": np.uint8, "ends": np.int64, "pictures": np.uint8}
# Of tiny pictures, where every pixel counts, lossless costs no more bytes.
_TINY_SIDE, _QUALITY = 64, 70
# The descriptor: gradients of a square of this side in cells and directions, and the colours of a coarser square.
_SQUARE, _CELL, _DIRECTIONS, _COARSE = 32, 4, 8, 8
_COLOUR_WEIGHT, _ASPECT_WEIGHT = 2.0, 0.5
_ANGLES = np.arange(_DIRECTIONS).reshape(-1, 1, 1) * (2 * np.pi / _DIRECTIONS)
_COSINES, _SINES = np.cos(_ANGLES).astype(np.float32), np.sin(_ANGLES).astype(np.float32)
_AT_ONCE = 32


@dataclass(frozen=True)
class Examples:
    """Small pictures of normal training images.

    Args:
        names: the image that each was made of.
        pictures: WebP, at most 128 pixels a side.
    """

    names: tuple[str, ...] = ()
    pictures: tuple[bytes, ...] = ()

    def __len__(self) -> int:
        """Examples."""
        return len(self.names)

    @cached_property
    def _known(self) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The indices of the examples that can be decoded, and their descriptors (n, D)."""
        images = {}
        for index, data in enumerate(self.pictures):
            try:
                with Image.open(io.BytesIO(data), formats=["WEBP"]) as image:
                    images[index] = image.convert("RGB")
            except (OSError, ValueError):
                continue  # its header was in order and its pixels are not: it is never shown
        return np.array([*images], np.int64), _describe([*images.values()])

    def nearest(self, pictures: Sequence[NDArray[np.uint8]], count: int = 3) -> list[tuple[int, ...]]:
        """Return for each picture the indices of the examples that are most like it, the likest first.

        Args:
            pictures: uint8 (h, w), (h, w, 1) or (h, w, 3) each.
            count: how many at most.
        """
        indices, known = self._known if self.names and len(pictures) else (np.empty(0, np.int64), np.empty((0, 0)))
        if not indices.size:
            return [() for _ in pictures]
        return [
            tuple(indices[np.argsort(np.square(known - one).sum(axis=1), kind="stable")[:count]].tolist())
            for one in describe(pictures)
        ]


def describe(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """Return a descriptor of each picture, float32 (N, D); the squared distance of two says how little they are alike.

    Args:
        pictures: uint8 (h, w), (h, w, 1) or (h, w, 3) each, of any size.

    Source:
        Histograms of oriented gradients: Dalal and Triggs, "Histograms of oriented gradients for human detection"
        (2005). Differs in signed directions that share a gradient smoothly, in the square root of each histogram
        (Arandjelović and Zisserman, 2012), and in the coarse colours and the aspect ratio beside them.
    """
    return _describe([_as_image(picture) for picture in pictures])


def _describe(images: Sequence[Image.Image]) -> NDArray[np.float32]:
    if not images:
        return np.empty((0, (_SQUARE // _CELL) ** 2 * _DIRECTIONS + 3 * _COARSE**2 + 1), np.float32)
    if len(images) > _AT_ONCE:
        return np.concatenate([_describe(images[at : at + _AT_ONCE]) for at in range(0, len(images), _AT_ONCE)])
    gray = np.stack([np.asarray(_shrunk(image, _SQUARE).convert("L"), np.float32) for image in images]) / 255
    coarse = np.stack([np.asarray(_shrunk(image, _COARSE).convert("RGB"), np.float32) for image in images]) / 255
    down, across = _slopes(gray, 1), _slopes(gray, 2)
    strengths = np.maximum(across[:, None] * _COSINES + down[:, None] * _SINES, 0)
    bands = strengths.reshape(-1, _CELL, _SQUARE).sum(axis=1)
    shapes = np.sqrt(bands.reshape(-1, _CELL).sum(axis=1)).reshape(len(gray), -1)
    shapes /= np.maximum(np.linalg.norm(shapes, axis=1, keepdims=True), np.float32(1e-6))
    colours = coarse.reshape(len(gray), -1) * np.float32(_COLOUR_WEIGHT / coarse[0].size ** 0.5)
    aspects = np.log([[image.width / image.height] for image in images]).astype(np.float32) * np.float32(_ASPECT_WEIGHT)
    return np.concatenate([shapes, colours, aspects], axis=1)


def _slopes(gray: NDArray[np.floating[Any]], axis: int) -> NDArray[np.floating[Any]]:
    """What `numpy.gradient` gives along an axis, in a fifth of the time where pictures come one by one."""
    slopes = np.empty_like(gray)
    values, ends = gray.swapaxes(0, axis), slopes.swapaxes(0, axis)
    np.subtract(values[2:], values[:-2], out=ends[1:-1])
    ends[1:-1] /= 2
    ends[0], ends[-1] = values[1] - values[0], values[-1] - values[-2]
    return slopes


def _as_image(picture: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(picture[:, :, 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture)


def _shrunk(image: Image.Image, side: int) -> Image.Image:
    return image.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)


def encode_example(picture: NDArray[np.uint8]) -> bytes:
    """Return a picture, uint8 (h, w) or (h, w, 3), as a WebP of at most `SIDE` pixels a side."""
    image = Image.fromarray(picture)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    # Exact pixels where there are few; neither kind has metadata or a chunk beside that of the picture.
    options = {"lossless": True, "quality": 20} if max(image.size) <= _TINY_SIDE else {"quality": _QUALITY}
    image.save(buffer, "WEBP", method=2, **options)
    return buffer.getvalue()


# --- the member of the model file


def pack(examples: Examples) -> bytes:
    """Return the examples as safetensors bytes; see docs/FORMAT.md."""
    from safetensors.numpy import save

    names = json.dumps(list(examples.names)).encode("ascii")
    return save(
        {
            "names": np.frombuffer(names, np.uint8),
            "ends": np.cumsum([len(data) for data in examples.pictures], dtype=np.int64),
            "pictures": np.frombuffer(b"".join(examples.pictures), np.uint8),
        }
    )


def unpack(data: bytes) -> Examples:
    """Return the examples that `pack` packed.

    Raises:
        ModelFileError: if they do not follow the format.
    """
    tensors = _tensors(data)
    names = json.loads(tensors["names"].tobytes().decode("utf-8"))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        msg = "its examples' names are no list of texts"
        raise ModelFileError(msg)
    starts = [0, *tensors["ends"].tolist()]
    if len(starts) != len(names) + 1 or starts[-1] != tensors["pictures"].size or sorted(set(starts)) != starts:
        msg = f"its examples' pictures do not lie end to end, one for each of {len(names):,} names"
        raise ModelFileError(msg)
    whole = tensors["pictures"].tobytes()
    pictures = tuple(whole[start:end] for start, end in pairwise(starts))
    for name, picture in zip(names, pictures, strict=True):
        width, height = _webp_size(picture)
        if not (1 <= width <= _LIMIT_SIDE and 1 <= height <= _LIMIT_SIDE):
            msg = f"its example {name[:60]!r} is no plain WebP picture of at most {_LIMIT_SIDE} pixels a side"
            raise ModelFileError(msg)
    return Examples(tuple(names), pictures)


def _tensors(data: bytes) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(data)
    except SafetensorError as error:
        msg = f"its examples.safetensors is damaged ({error})"
        raise ModelFileError(msg) from error
    found = {name: (tensor.dtype, tensor.ndim) for name, tensor in tensors.items()}
    if found != {name: (np.dtype(kind), 1) for name, kind in _TENSORS.items()}:
        msg = f"its examples.safetensors holds other tensors than {', '.join(_TENSORS)}"
        raise ModelFileError(msg)
    if tensors["ends"].size > _LIMIT_EXAMPLES or len(data) > _LIMIT_BYTES:
        msg = f"its examples are more than {_LIMIT_EXAMPLES:,}, or larger than {_LIMIT_BYTES:,} bytes"
        raise ModelFileError(msg)
    return tensors


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of a WebP of one picture chunk, from its header; (0, 0) of anything else.

    Source:
        RFC 9649, sections 2.5 and 2.6: no extended file, so neither animation nor metadata.
    """
    if len(data) < 30 or data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return 0, 0
    if int.from_bytes(data[4:8], "little") + 8 != len(data):
        return 0, 0
    if data[12:16] == b"VP8 ":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return 0, 0
