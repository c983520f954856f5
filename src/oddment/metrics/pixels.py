"""Where the anomaly is: pixel AUROC, pixel average precision and AUPRO, image by image in bounded memory.

A float32 keeps its order when its bits are read as an integer. Its upper 20 bits are a histogram of a million bins that
needs no range to be known beforehand and is finer than 0.03 % everywhere; three of them are all that is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from oddment.errors import ParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PixelResult", "PixelTally"]

_BITS = 20
_SIGN = np.uint32(0x80000000)


@dataclass(frozen=True, slots=True)
class PixelResult:
    """What anomaly maps are worth, pixel by pixel.

    Args:
        auroc: area under the ROC curve of all pixels.
        average_precision: of all pixels.
        aupro: mean share of each anomalous region that is found, averaged over false-alarm rates up to `limit`.
        limit: of AUPRO.
        n_images: images counted.
        n_regions: anomalous regions in their masks.
        anomalous_share: share of pixels that are anomalous; what a random map gets as average precision.
    """

    auroc: float
    average_precision: float
    aupro: float
    limit: float
    n_images: int
    n_regions: int
    anomalous_share: float


class PixelTally:
    """Collects anomaly maps and masks, one image at a time; memory does not grow with their number.

    Example:
        >>> mask = np.zeros((8, 8), bool)
        >>> mask[2:4, 2:4] = True
        >>> tally = PixelTally()
        >>> tally.add(mask.astype(np.float32), mask)
        >>> tally.result().aupro
        1.0
    """

    def __init__(self) -> None:
        self.n_images = 0
        self.n_regions = 0
        self._normal = np.zeros(1 << _BITS, dtype=np.int64)
        self._anomalous = np.zeros(1 << _BITS, dtype=np.int64)
        # Every region weighs one, however large it is.
        self._regions = np.zeros(1 << _BITS, dtype=np.float64)

    def add(self, anomaly_map: NDArray[np.float32], mask: NDArray[np.bool_] | None = None) -> None:
        """Count one image.

        Args:
            anomaly_map: float32 (h, w), finite; brought to the mask's size.
            mask: bool (H, W), true on anomalous pixels; None for a normal image.

        Raises:
            ParameterError: if a shape is wrong or the map is not finite.
        """
        levels = np.asarray(anomaly_map, dtype=np.float32)
        if levels.ndim != 2 or (mask is not None and mask.ndim != 2):
            shape = None if mask is None else mask.shape
            msg = f"map and mask must have the shape (height, width); got {levels.shape} and {shape}."
            raise ParameterError(msg)
        if not np.isfinite(levels).all():
            msg = "the anomaly map holds values that are not finite; leave that image out."
            raise ParameterError(msg)
        self.n_images += 1
        if mask is None:
            np.add.at(self._normal, _keys(levels).ravel(), 1)
            return
        if levels.shape != mask.shape:
            size = (mask.shape[1], mask.shape[0])
            levels = np.asarray(Image.fromarray(levels).resize(size, Image.Resampling.BILINEAR))
        self._add_masked(_keys(levels), mask)

    def _add_masked(self, keys: NDArray[np.intp], mask: NDArray[np.bool_]) -> None:
        from scipy.ndimage import label  # needed with masks only

        np.add.at(self._normal, keys[~mask], 1)
        inside = keys[mask]
        np.add.at(self._anomalous, inside, 1)
        # Pixels that touch at a corner belong to one region, as in the authors' own code.
        numbers, count = label(mask, structure=np.ones((3, 3)))
        owners = numbers[mask]
        np.add.at(self._regions, inside, 1 / np.bincount(owners, minlength=count + 1)[owners])
        self.n_regions += int(count)

    def result(self, *, limit: float = 0.3) -> PixelResult:
        """Return the figures of what was added.

        Args:
            limit: false-alarm rate per pixel up to which AUPRO is averaged, in (0, 1].

        Raises:
            ParameterError: if the limit breaks its rule, or no pixel was normal or none anomalous.

        Source:
            Bergmann, Batzner, Fauser, Sattlegger and Steger, "The MVTec Anomaly Detection Dataset", IJCV 129 (2021),
            section 5.2.
        """
        if not 0 < limit <= 1:
            msg = f"limit must lie in (0, 1]; got {limit:g}. The usual value is 0.3."
            raise ParameterError(msg)
        used = np.flatnonzero(self._normal + self._anomalous)[::-1]
        alarms, hits = self._normal[used], self._anomalous[used]
        n_normal, n_anomalous = int(alarms.sum()), int(hits.sum())
        if not n_normal or not n_anomalous:
            msg = f"there are {n_normal:,} normal and {n_anomalous:,} anomalous pixels; pixel figures need both kinds."
            raise ParameterError(msg)
        fpr = np.concatenate([[0.0], np.cumsum(alarms) / n_normal])
        tpr = np.concatenate([[0.0], np.cumsum(hits) / n_anomalous])
        overlap = np.concatenate([[0.0], np.cumsum(self._regions[used]) / self.n_regions])
        precision = np.cumsum(hits) / np.cumsum(hits + alarms)
        return PixelResult(
            auroc=float(np.trapezoid(tpr, fpr)),
            average_precision=float(np.dot(hits, precision) / n_anomalous),
            aupro=_area_up_to(fpr, overlap, limit),
            limit=limit,
            n_images=self.n_images,
            n_regions=self.n_regions,
            anomalous_share=n_anomalous / (n_normal + n_anomalous),
        )


def _keys(levels: NDArray[np.float32]) -> NDArray[np.intp]:
    """The bin of each value: integers in the order of the floats. Minus zero is zero."""
    bits = np.ascontiguousarray(levels + np.float32(0.0)).view(np.uint32)
    ordered = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return (ordered >> np.uint32(32 - _BITS)).astype(np.intp)


def _area_up_to(x: NDArray[np.float64], y: NDArray[np.float64], limit: float) -> float:
    """The mean height of a rising curve over [0, limit]."""
    inside = x <= limit
    last = int(inside.sum())
    x_cut, y_cut = x[inside], y[inside]
    if last < len(x):
        step = (limit - x[last - 1]) / (x[last] - x[last - 1])
        x_cut, y_cut = np.append(x_cut, limit), np.append(y_cut, y[last - 1] + step * (y[last] - y[last - 1]))
    return float(min(1.0, np.trapezoid(y_cut, x_cut) / limit))
