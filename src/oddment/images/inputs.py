"""What the Python interface takes for images: arrays, or paths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from oddment.errors import ParameterError
from oddment.images.files import ImageRef, iter_images

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from oddment.images.prepare import Preparation

__all__ = ["Images", "as_prepared", "as_refs", "is_paths"]

Images = Any
"""An array (N, H, W[, C]) uint8, uint16 or float; a path; or a sequence of paths of files, folders, globs, archives."""


def is_paths(images: Images) -> bool:
    """Return whether `images` is a path or a non-empty sequence of paths."""
    if isinstance(images, str | PathLike):
        return True
    return isinstance(images, Sequence) and len(images) > 0 and all(isinstance(item, str | PathLike) for item in images)


def as_refs(images: Images) -> Iterator[ImageRef]:
    """Return references to images given as an array or as paths.

    Raises:
        ParameterError: if it is neither.
    """
    if isinstance(images, str | PathLike):
        return iter_images([Path(images)])
    if is_paths(images):
        return iter_images([Path(item) if isinstance(item, PathLike) else item for item in images])
    if isinstance(images, Iterable) and not isinstance(images, np.ndarray):
        images = list(images)
        if images and all(isinstance(item, ImageRef) for item in images):
            return iter(images)
    return _array_refs(np.asarray(images))


def as_prepared(images: Images, preparation: Preparation) -> NDArray[Any] | None:
    """Return the pictures (N, H, W, C) that preparing each image would give, where that changes nothing; else None.

    That is so for arrays of the model's own size, channels and type, which then need no work image by image.
    """
    if not isinstance(images, np.ndarray) or images.ndim not in (3, 4) or not len(images):
        return None
    shape = (preparation.height, preparation.width, preparation.channels)
    if images.shape[1:] != (shape if images.ndim == 4 else shape[:2]) or (images.ndim == 3 and shape[2] != 1):
        return None
    if images.dtype not in (np.uint8, np.uint16, np.float32) or images.dtype.name not in preparation.ranges:
        return None
    if images.dtype == np.float32 and not np.isfinite(images).all():
        return None
    return np.asarray(images).reshape(-1, *shape)


def _array_refs(images: NDArray[Any]) -> Iterator[ImageRef]:
    if (
        images.dtype.kind not in "buif"
        or images.ndim not in (3, 4)
        or (images.ndim == 4 and images.shape[3] not in (1, 3, 4))
    ):
        msg = (
            f"images must be a real array (N, H, W) or (N, H, W, C) with C = 1, 3 or 4, or paths; got an array of type "
            f"{images.dtype} and shape {images.shape}. For flat rows give Detector(image_shape=(H, W))."
        )
        raise ParameterError(msg)
    return (ImageRef(f"[{index}]", image) for index, image in enumerate(images))
