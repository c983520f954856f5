"""Choosing between fixed features without any anomaly: by how well they tell mixtures of two normal pictures.

A mixture is the upper half of one picture above the lower half of another, the left beside the right, or the brighter
of both at each pixel: made of normal parts, and hardly ever normal. Features that hold mixtures apart from held-out
normal pictures were found to be those that tell other things apart, too: strokes want strong gradients to decide, and
how wide and tall they are not to count; cloth wants weak gradients to count, and where it lies not to. (The same
mixtures did not tell which score is best; they are not asked.)

Source: patches of other pictures as stand-ins for anomalies after Li et al., "CutPaste: self-supervised learning for
anomaly detection and localization" (2021).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from oddment.models._base import Batch
from oddment.models._deformations import forgiving
from oddment.models._neighbours import squared_distances

if TYPE_CHECKING:
    from oddment.models._base import Passes
    from oddment.models._gradients import GradientFeatures

__all__ = ["USUAL_POWER", "choose_power", "enough_to_choose", "principal", "strokes", "thinned"]

USUAL_POWER = 0.5
_CLOTH, _STROKES = 0.35, 0.7
_POWERS = (_CLOTH, USUAL_POWER, _STROKES)
_COMPONENTS = 128
_K, _AROUND = 5, 10
# Features, from more of which it is products of as many pictures, evenly chosen, that are decomposed.
_MANY = 3000
_NOTHING = 1e-9  # of the largest variance
_LEAST_HELD, _LEAST_KNOWN = 20, 100


def enough_to_choose(known: Batch, held: Batch) -> bool:
    """Return whether there are enough pictures for a difference of hundredths to say something."""
    return len(held.images) >= _LEAST_HELD and len(known.images) >= _LEAST_KNOWN


def choose_power(features: GradientFeatures, known: Batch, held: Batch, *, forgive: float, seed: int) -> float:
    """Return the power under which mixtures of held-out with known pictures stand out most.

    Args:
        features: of the pictures; its power is changed.
        known: normal pictures to compare with, some thousand.
        held: other normal pictures, some hundred.
        forgive: how much of what framing changes is forgiven, see `_deformations`.
        seed: of the pairing.
    """
    mixed = _mix(held, known, seed)
    told = {}
    for power in _POWERS:
        features.power.fill_(power)
        memory = features.of_many(known.images, known.mask)
        centre, basis = principal(memory, _COMPONENTS)
        share = float(strokes(features.power))
        turn = basis.T @ forgiving(features, known, centre, basis, strokes=share, strength=forgive, seed=seed)
        rows = (memory - centre) @ turn
        usual, *odd = (
            _distance((features.of_many(each.images, each.mask) - centre) @ turn, rows) for each in (held, *mixed)
        )
        told[power] = sum(_ranked(usual, each) for each in odd)
    return max(told, key=lambda power: told[power])


def strokes(power: Tensor) -> Tensor:
    """Return how much pictures are taken for strokes where gradients have this power: 0 for cloth, 1 for strokes."""
    return ((power - _CLOTH) / (_STROKES - _CLOTH)).clamp(0, 1)


def principal(features: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the mean (1, F) and the strongest `count` principal directions (count, F) of features (n, F)."""
    centre = features.mean(0, keepdim=True)
    rows = features - centre
    if rows.shape[1] > _MANY:
        directions = _spanned(rows[:: -(-len(rows) // _MANY)], count)
    else:
        directions = torch.linalg.eigh((rows.T @ rows).double())[1].flip(1).T[:count]
    # The sign of a direction is chance; its largest entry decides, so that machines agree.
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return centre, (directions * largest.sign()).float().contiguous()


def _spanned(rows: Tensor, count: int) -> Tensor:
    """Return the strongest `count` directions (count, F) of rows (n, F) from their products with each other.

    Where they span fewer, others at right angles to them, drawn once for all, fill up.
    """
    values, mixed = torch.linalg.eigh((rows @ rows.T).double())
    values, mixed = values.flip(0)[:count], mixed.flip(1)[:, :count]
    found = (mixed.T @ rows.double())[values > _NOTHING * values[0]]
    chance = torch.Generator().manual_seed(0)
    more = torch.randn(count, rows.shape[1], generator=chance, dtype=torch.float64)
    spanned: Tensor = torch.linalg.qr(torch.cat([found, more[len(found) :]]).T)[0].T.contiguous()
    return spanned


def thinned(pictures: Passes, count: int, most: int) -> Batch:
    """Return at most `most` of the `count` pictures of a pass, evenly spread, padding 0."""
    step, start, images, masks = -(-count // most), 0, [], []
    for batch in pictures():
        chosen = slice(-start % step, None, step)
        images.append((batch.images * batch.mask)[chosen])
        masks.append(batch.mask[chosen])
        start += len(batch.images)
    return Batch(torch.cat(images), torch.cat(masks))


def _mix(held: Batch, known: Batch, seed: int) -> list[Batch]:
    """Return upper and lower halves, left and right halves, and the brighter of two pictures each."""
    chance = torch.Generator().manual_seed(seed)
    partner = torch.randint(len(known.images), (len(held.images),), generator=chance)
    other = known.images[partner]
    mask = held.mask * known.mask[partner]
    height, width = held.images.shape[2] // 2, held.images.shape[3] // 2
    mixed = [
        torch.cat([held.images[:, :, :height], other[:, :, height:]], 2),
        torch.cat([held.images[..., :width], other[..., width:]], 3),
        torch.maximum(held.images, other),
    ]
    return [Batch(images, mask) for images in mixed]


def _distance(codes: Tensor, rows: Tensor) -> Tensor:
    """Return (N,): mean squared distance to the nearest rows, relative to how far apart those lie."""
    found = squared_distances(codes, rows).topk(_K, largest=False)
    nearest, place = torch.unique(found.indices, return_inverse=True)
    around = squared_distances(rows[nearest], rows).topk(_AROUND + 1, largest=False).values[:, 1:].mean(1)
    return found.values.mean(1) / around.clamp_min(1e-9)[place].mean(1).sqrt()


def _ranked(usual: Tensor, odd: Tensor) -> float:
    """Return the area under the ROC curve of odd (m,) over usual (n,)."""
    below = torch.searchsorted(usual.sort().values, odd)
    return float(below.double().mean()) / len(usual)
