"""Pictures and boxes of the images that a report shows, by the models that scored them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from oddment.progress import Progress
from oddment.regions import find_regions, map_peaks
from oddment.report import render_pictures
from oddment.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from oddment.auditing.judged import Judged
    from oddment.auditing.run import Audit
    from oddment.report.pictures import Pictures
    from oddment.results import Region

__all__ = ["Drawn", "draw"]

_HIGHEST = 300
_SAMPLE = 60
# Images of each model that say how high an ordinary map goes.
_ORDINARY = 64
_SIDE = 224


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was drawn.

    Args:
        pictures: path → pictures.
        regions: index of an image → its boxes.
    """

    pictures: dict[str, Pictures] = field(default_factory=dict)
    regions: dict[int, tuple[Region, ...]] = field(default_factory=dict)


def draw(audit: Audit, progress: Progress | None = None) -> Drawn:
    """Return pictures and boxes of the highest scores, selected ones first, and pictures of a sample of the others."""
    progress = progress or Progress()
    order = np.argsort(-audit.scores, kind="stable")
    highest = order[: max(_HIGHEST, min(audit.chosen.count, 3 * _HIGHEST))]
    step = max(1, len(order) // _SAMPLE)
    wanted = np.union1d(highest, order[::step])
    drawn = Drawn()
    progress.start("Drawing the report", len(wanted))
    for judged in audit.judged:
        for part in range(len(judged.crossed.models)):
            _draw_part(audit, judged, part, wanted, drawn)
            progress.update(len(drawn.pictures))
    progress.finish()
    return drawn


def _draw_part(audit: Audit, judged: Judged, part: int, wanted: NDArray[np.int64], drawn: Drawn) -> None:
    own = judged.members[judged.crossed.parts == part]
    shown = np.intersect1d(own, wanted)
    if not shown.size:
        return
    made = audit.choice.preparation
    runtime = Runtime(
        judged.crossed.models[part].graph,
        shape=(made.channels, made.height, made.width),
        batch=audit.choice.scored_at_once,
    )
    usual = own[~audit.chosen.selected[own]]
    usual = usual[:: max(1, len(usual) // _ORDINARY)] if usual.size else own
    maps = [anomaly_map for _, anomaly_map, _ in _run(audit, runtime, usual)]
    level = float(np.quantile(map_peaks(maps), 0.99))
    low = float(np.quantile(np.concatenate([item.ravel()[:: max(1, item.size // 4096)] for item in maps]), 0.9))
    high = max(level, low + 1e-6)
    map_range = (low, low + 1.5 * (high - low))
    for index, anomaly_map, redrawn in _run(audit, runtime, shown):
        facts, path = audit.collection.measures[index], audit.collection.paths[index]
        size = (facts.width, facts.height)
        top, left, bottom, right = audit.collection.store.valid[index].tolist()
        original = made.displayed(audit.collection.store.pixels[index][top:bottom, left:right], size, _SIDE)
        drawn.pictures[path] = render_pictures(original, redrawn, anomaly_map, map_range=map_range, max_side=_SIDE)
        insist = bool(audit.chosen.selected[index])
        drawn.regions[index] = find_regions(anomaly_map, size, level, insist=insist)


def _run(
    audit: Audit, runtime: Runtime, images: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.float32]]]:
    """Index, anomaly map and reconstruction of each image, padding cut off."""
    store, made, size = audit.collection.store, audit.choice.preparation, runtime.batch
    valid = store.valid
    for start in range(0, len(images), size):
        chosen = images[start : start + size]
        found = runtime.run(
            made.scale(store.pixels[chosen]), valid[chosen], ("anomaly_score", "anomaly_map", "reconstruction")
        )
        for offset, index in enumerate(chosen.tolist()):
            top, left, bottom, right = valid[index].tolist()
            inside = np.s_[top:bottom, left:right]
            redrawn = found["reconstruction"][offset].transpose(1, 2, 0)[inside]
            yield index, found["anomaly_map"][offset][inside], redrawn
