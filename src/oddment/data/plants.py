"""Draws pictures that look a little like photographs of weeds: leaves and flowers on soil, a kind for each class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SIDE", "draw_plant"]

SIDE: Final = 256

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a species looks: leaves by colour, number, length in pixels and width as a share of it; flowers likewise."""

    leaf: Colour
    leaves: int
    length: int
    slim: float
    flower: Colour = (0, 0, 0)
    flowers: int = 0
    petal: int = 0
    soil: Colour = (122, 104, 78)


# By class id: Chinee apple to Snake weed, and Negative, which is mostly grass and soil.
_KINDS: Final = (
    _Kind((96, 128, 70), 150, 30, 0.62),
    _Kind((74, 118, 52), 110, 40, 0.66, (222, 120, 168), 9, 5),
    _Kind((140, 160, 92), 330, 24, 0.14, (236, 208, 70), 10, 5),
    _Kind((118, 146, 104), 240, 26, 0.26, (238, 238, 226), 26, 3),
    _Kind((84, 124, 66), 380, 17, 0.20, (228, 196, 60), 8, 3),
    _Kind((58, 112, 60), 80, 54, 0.42, (196, 160, 196), 3, 8),
    _Kind((104, 150, 60), 130, 38, 0.48, (228, 224, 240), 14, 4),
    _Kind((88, 132, 78), 140, 34, 0.40, (120, 96, 190), 8, 4),
    _Kind((150, 146, 96), 190, 46, 0.07, soil=(150, 128, 96)),
)


def draw_plant(label: int, index: int, seed: int) -> Image.Image:
    """Return the picture number `index` of class `label`, RGB 256×256; the same for the same three numbers."""
    rng = np.random.default_rng((seed, label, index))
    kind = _KINDS[label]
    image = _ground(rng, kind.soil)
    draw = ImageDraw.Draw(image)
    light = rng.uniform(0.8, 1.15)
    _leaves(draw, rng, kind, light)
    for _ in range(round(kind.flowers * rng.uniform(0.5, 1.5))):
        _flower(draw, rng, kind, light)
    return _photographed(image.filter(ImageFilter.BoxBlur(0.6)), rng)


def _ground(rng: np.random.Generator, soil: Colour) -> Image.Image:
    """Soil: noise of three sizes of grain."""
    grain = np.zeros((SIDE, SIDE), dtype=np.float32)
    for cells, strength in ((6, 22.0), (32, 14.0), (128, 12.0)):
        coarse = Image.fromarray(rng.normal(0, strength, (cells, cells)).astype(np.float32))
        grain += np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return Image.fromarray(_as_bytes(np.array(soil, dtype=np.float32) + grain[:, :, None]))


def _leaves(draw: ImageDraw.ImageDraw, rng: np.random.Generator, kind: _Kind, light: float) -> None:
    n = round(kind.leaves * rng.uniform(0.8, 1.2))
    at, angle = rng.uniform(-10, SIDE + 10, (n, 2, 1)), rng.uniform(0, 2 * np.pi, (n, 1))
    length = kind.length * rng.uniform(0.6, 1.3, (n, 1))
    along = length * np.array([0, 0.15, 0.4, 0.7, 1, 0.7, 0.4, 0.15])  # (n, 8), the outline of a leaf
    across = length * kind.slim * np.array([0, 0.3, 0.5, 0.36, 0, -0.36, -0.5, -0.3])
    xs = at[:, 0] + along * np.cos(angle) - across * np.sin(angle)
    ys = at[:, 1] + along * np.sin(angle) + across * np.cos(angle)
    # What is drawn first lies below, in the shade of what comes after.
    shade = light * np.linspace(0.45, 1.05, n)[:, None] * rng.uniform(0.85, 1.15, (n, 1))
    colours = np.array(kind.leaf) * shade * rng.uniform(0.92, 1.08, (n, 3))
    fills = np.clip(colours, 0, 255).astype(int).tolist()
    ribs = np.clip(colours * 1.25, 0, 255).astype(int).tolist()
    outlines = np.stack([xs, ys], axis=2).reshape(n, -1).tolist()
    for outline, fill, rib, wide in zip(outlines, fills, ribs, (length[:, 0] * kind.slim > 8).tolist(), strict=True):
        draw.polygon(outline, fill=tuple(fill))
        if wide:  # enough to show its midrib, from the stalk to the tip
            draw.line([*outline[:2], *outline[8:10]], fill=tuple(rib))


def _flower(draw: ImageDraw.ImageDraw, rng: np.random.Generator, kind: _Kind, light: float) -> None:
    x, y = rng.uniform(0, SIDE, 2)
    for angle in np.arange(5) * 2 * np.pi / 5 + rng.uniform(0, 1):
        size = kind.petal * rng.uniform(0.7, 1.2)
        px, py = x + kind.petal * np.cos(angle), y + kind.petal * np.sin(angle)
        colour = _tint(kind.flower, light * rng.uniform(0.9, 1.05, 3))
        draw.ellipse((px - size, py - size, px + size, py + size), fill=colour)


def _photographed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Light from one side, and the camera's noise."""
    slope_x, slope_y = rng.uniform(-0.18, 0.18, 2)
    ramp = np.linspace(-1, 1, SIDE, dtype=np.float32)
    light = 1 + slope_x * ramp[None, :] + slope_y * ramp[:, None]
    noise = rng.standard_normal((SIDE, SIDE, 1), dtype=np.float32) * 5
    return Image.fromarray(_as_bytes(np.asarray(image, dtype=np.float32) * light[:, :, None] + noise))


def _tint(colour: Colour, factors: NDArray[np.float64]) -> Colour:
    red, green, blue = (min(255, max(0, round(c * f))) for c, f in zip(colour, factors.tolist(), strict=True))
    return red, green, blue


def _as_bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.clip(values, 0, 255).astype(np.uint8)
