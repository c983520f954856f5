"""Synthetic defects: small damage done to normal pictures, so that detectors can be tried where no anomaly is known.

A defect changes one small region and nothing else, inside the picture's real pixels. How strong it is varies, so that
some are plain and some are faint. A detector that finds these need not find the defects of a real process: what is
measured on them is a hint.

Sources:
    patch: a rectangle of another normal picture, blended in at another place. Li, Sohn, Yoon and Pfister, "CutPaste:
        self-supervised learning for anomaly detection and localization" (CVPR 2021), which cuts from the same picture
        and does not blend; the blending is that of Tan et al., "Detecting outliers with foreign patch interpolation"
        (MELBA 2022).
    blank: a rectangle of one value. DeVries and Taylor, "Improved regularization of convolutional neural networks with
        cutout" (2017), section 3.
    scratch: a thin straight line, as the scars of CutPaste, of one value instead of the picture's own colours.
    smear, turn, blob: a region wiped along one direction, a square turned, a smooth spot lighter or darker: textural
        damage in the manner of Zavrtanik, Kristan and Skočaj, "DRAEM" (ICCV 2021), without its foreign textures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from oddment.errors import ParameterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["KINDS", "LEAST_SIDE", "Defects", "make_defects"]

LEAST_SIDE = 8
"""Pixels that the real part of a picture must have on its shorter side."""

# The share of the picture that a rectangle covers lies between these, small ones as often as large ones.
_AREA = (0.02, 0.3)
# A change must be this share of the pictures' contrast on average, or it is tried again: nobody sees a black square on
# black ground.
_LEAST_CHANGE = 0.08
_TRIES = 12

Plane: TypeAlias = "NDArray[np.float32]"
Mask: TypeAlias = "NDArray[np.bool_]"


@dataclass(frozen=True, slots=True)
class Defects:
    """Pictures with a defect each.

    Args:
        pixels: (N, H, W, C) of the type that was given.
        regions: bool (N, H, W), where the defect lies; nothing else was changed.
        kinds: what each is, one of `KINDS`.
    """

    pixels: NDArray[Any]
    regions: Mask
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Site:
    """A picture that is about to be damaged.

    Args:
        picture: float32 (h, w, C), its real pixels.
        donor: (h', w', C), those of another normal picture, of their own type.
        contrast: from dark to light in these pictures.
    """

    picture: Plane
    donor: NDArray[Any]
    contrast: float


def make_defects(pictures: NDArray[Any], valid: NDArray[np.int64], *, seed: int) -> Defects:
    """Return a copy of each picture with one defect in it, the kinds in turn.

    Args:
        pictures: (N, H, W, C) uint8, uint16 or float, at least two, prepared.
        valid: int64 (N, 4), the (top, left, bottom, right) of each picture's real pixels, at least 8 a side; nothing
            outside is touched.
        seed: fixes every defect.

    Raises:
        ParameterError: if there are fewer than two pictures, or the real part of one is too small.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> pictures = rng.integers(0, 255, (6, 16, 16, 1), np.uint8)
        >>> made = make_defects(pictures, np.array([[0, 0, 16, 12]] * 6), seed=0)
        >>> made.kinds
        ('patch', 'blank', 'smear', 'turn', 'scratch', 'blob')
        >>> bool(made.regions[:, :, 12:].any())
        False
    """
    sides = valid[:, 2:] - valid[:, :2]
    if len(pictures) < 2 or sides.min(initial=LEAST_SIDE) < LEAST_SIDE:
        msg = (
            f"defects need at least 2 pictures of at least {LEAST_SIDE} pixels a side; got {len(pictures):,} whose "
            f"shortest side is {sides.min(initial=0)}."
        )
        raise ParameterError(msg)
    rng = np.random.default_rng(seed)
    real = [pictures[index, t:b, left:r] for index, (t, left, b, r) in enumerate(valid.tolist())]
    bounds, contrast = _levels(real)
    pixels, regions = pictures.copy(), np.zeros(pictures.shape[:3], dtype=bool)
    kinds = [list(_MAKERS)[index % len(_MAKERS)] for index in range(len(pictures))]
    for index, (top, left, bottom, right) in enumerate(valid.tolist()):
        other = int((index + rng.integers(1, len(pictures))) % len(pictures))
        site = _Site(real[index].astype(np.float32), real[other], contrast)
        damaged, region = _damage(_MAKERS[kinds[index]], site, bounds, rng)
        if pixels.dtype.kind in "ui":
            damaged = np.rint(damaged)
        inside = pixels[index, top:bottom, left:right]
        inside[region] = damaged[region].astype(pixels.dtype)
        regions[index, top:bottom, left:right] = region
    return Defects(pixels, regions, tuple(kinds))


def _levels(real: list[NDArray[Any]]) -> tuple[tuple[float, float], float]:
    """The least and the greatest value in these pictures, and the contrast that most of their pixels have."""
    bounds = min(float(part.min()) for part in real), max(float(part.max()) for part in real)
    dark, light = np.quantile(np.concatenate([part.ravel()[:: 1 + part.size // 4096] for part in real]), [0.01, 0.99])
    # Of thin strokes on an even ground, hardly any pixel is not ground.
    return bounds, float(light - dark) or bounds[1] - bounds[0]


def _damage(
    make: Callable[[_Site, np.random.Generator], tuple[Plane, Mask]],
    site: _Site,
    bounds: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[Plane, Mask]:
    """The first of several defects that can be seen, or the plainest of them; within the values that pictures have."""
    best, most = (site.picture, np.zeros(site.picture.shape[:2], dtype=bool)), -1.0
    for _ in range(_TRIES):
        damaged, region = make(site, rng)
        damaged = damaged.clip(*bounds)
        change = float(np.abs(damaged - site.picture)[region].mean()) if region.any() else 0.0
        if change > most:
            best, most = (damaged, region), change
        if change > 0 and change >= _LEAST_CHANGE * site.contrast:
            break
    return best


# --- the kinds of damage: each returns the picture float32 (h, w, C) and where it may have changed, bool (h, w)


def _patch(site: _Site, rng: np.random.Generator) -> tuple[Plane, Mask]:
    """A rectangle of another normal picture, at another place."""
    y, x, h, w = _rectangle(site, rng)
    h, w = min(h, site.donor.shape[0]), min(w, site.donor.shape[1])
    from_y, from_x = (int(rng.integers(0, n - k + 1)) for n, k in zip(site.donor.shape[:2], (h, w), strict=True))
    return _blended(site, (y, x, h, w), site.donor[from_y : from_y + h, from_x : from_x + w], rng)


def _blank(site: _Site, rng: np.random.Generator) -> tuple[Plane, Mask]:
    """A rectangle of one value, which the picture has somewhere else."""
    y, x = (int(rng.integers(0, n)) for n in site.picture.shape[:2])
    value = site.picture[y, x]
    return _blended(site, _rectangle(site, rng), value, rng)


def _smear(site: _Site, rng: np.random.Generator) -> tuple[Plane, Mask]:
    """A rectangle wiped along its rows or columns."""
    y, x, h, w = _rectangle(site, rng)
    axis = int(rng.integers(0, 2))
    return _blended(site, (y, x, h, w), site.picture[y : y + h, x : x + w].mean(axis=axis, keepdims=True), rng)


def _turn(site: _Site, rng: np.random.Generator) -> tuple[Plane, Mask]:
    """A square turned by a quarter, a half or three quarters."""
    y, x, h, w = _rectangle(site, rng)
    side = min(round(np.sqrt(h * w)), *(n - at for n, at in zip(site.picture.shape[:2], (y, x), strict=True)))
    turned = np.rot90(site.picture[y : y + side, x : x + side], int(rng.integers(1, 4)))
    return _blended(site, (y, x, side, side), turned, rng)


def _scratch(site: _Site, rng: np.random.Generator) -> tuple[Plane, Mask]:
    """A straight line, lighter or darker by up to the whole contrast."""
    rows, columns = _grid(site)
    short = min(site.picture.shape[:2])
    y, x = (rng.uniform(0, n) for n in site.picture.shape[:2])
    angle, reach = rng.uniform(0, np.pi), rng.uniform(0.1, 0.35) * short
    along = (rows - y) * np.sin(angle) + (columns - x) * np.cos(angle)
    across = (rows - y) * np.cos(angle) - (columns - x) * np.sin(angle)
    # At least a pixel thin, or the line would have holes.
    region = (np.abs(along) <= reach) & (np.abs(across) <= max(0.6, rng.uniform(0.005, 0.02) * short))
    step = rng.choice([-1.0, 1.0]) * rng.uniform(0.3, 1.0) * site.contrast
    return site.picture + np.float32(step) * region[:, :, None], region


def _blob(site: _Site, rng: np.random.Generator) -> tuple[Plane, Mask]:
    """A smooth round spot, lighter or darker by up to half of the contrast."""
    rows, columns = _grid(site)
    y, x = (rng.uniform(0, n) for n in site.picture.shape[:2])
    radius = max(1.5, rng.uniform(0.05, 0.15) * min(site.picture.shape[:2]))
    height = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * radius**2)).astype(np.float32)
    # It ends where little is left of it.
    height[height < 0.1] = 0
    step = rng.choice([-1.0, 1.0]) * rng.uniform(0.2, 0.5) * site.contrast
    return site.picture + np.float32(step) * height[:, :, None], height > 0


_MAKERS = {"patch": _patch, "blank": _blank, "smear": _smear, "turn": _turn, "scratch": _scratch, "blob": _blob}

KINDS = tuple(_MAKERS)
"""The names of all kinds of damage, in the order in which they are dealt."""


def _rectangle(site: _Site, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a rectangle inside the picture, at most three times as long as wide."""
    height, width = site.picture.shape[:2]
    area = np.exp(rng.uniform(*np.log(_AREA))) * height * width
    aspect = np.exp(rng.uniform(-np.log(3), np.log(3)))
    h = int(np.clip(round(np.sqrt(area * aspect)), 3, height))
    w = int(np.clip(round(np.sqrt(area / aspect)), 3, width))
    return int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w


def _blended(
    site: _Site, place: tuple[int, int, int, int], part: NDArray[Any], rng: np.random.Generator
) -> tuple[Plane, Mask]:
    """`part` laid over a rectangle, from half covering it to hiding it."""
    y, x, h, w = place
    share = np.float32(rng.uniform(0.5, 1.0))
    damaged, region = site.picture.copy(), np.zeros(site.picture.shape[:2], dtype=bool)
    region[y : y + h, x : x + w] = True
    damaged[y : y + h, x : x + w] += share * (part - damaged[y : y + h, x : x + w])
    return damaged, region


def _grid(site: _Site) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows (h, 1) and columns (1, w), of the middles of pixels."""
    height, width = site.picture.shape[:2]
    return np.arange(height, dtype=np.float64)[:, None] + 0.5, np.arange(width, dtype=np.float64)[None] + 0.5
