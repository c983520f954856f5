"""What a report's larger view says beyond the pictures: the most similar normal images, what each score contributed."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from oddment.examples import Examples
    from oddment.report.pictures import Pictures

__all__ = ["Explanations", "explain"]


@dataclass(frozen=True, slots=True)
class Explanations:
    """Explanations of some images, by path.

    Args:
        examples: name and WebP of the normal training images that are shown.
        similar: for an image the indices of the examples that it is most like, the likest first.
        parts: for an image the standardised scores that its own is the sum of, by name.
    """

    examples: tuple[tuple[str, bytes], ...] = ()
    similar: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of the examples together."""
        return sum(len(data) for _, data in self.examples)

    def payload(self, scored: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Everything the page's script needs, JSON-ready, images by their index into `scored`."""
        paths = [str(row["path"]) for row in scored]
        return {
            "examples": [[name, base64.b64encode(data).decode("ascii")] for name, data in self.examples],
            "similar": {
                str(index): list(self.similar[path]) for index, path in enumerate(paths) if path in self.similar
            },
            "parts": {
                str(index): [[name, float(f"{value:.4g}")] for name, value in self.parts[path].items()]
                for index, path in enumerate(paths)
                if path in self.parts and all(map(math.isfinite, self.parts[path].values()))
            },
        }


def explain(rows: Sequence[Mapping[str, Any]], pictures: Mapping[str, Pictures], examples: Examples) -> Explanations:
    """Return what there is to say about the anomalies among the rows.

    Args:
        rows: of the report; a combined score's are under "parts", by name.
        pictures: of some of the rows, by path, with the examples that each is most like.
        examples: of the model.
    """
    odd = [row for row in rows if row["is_anomaly"]]
    shown = [(str(row["path"]), pictures[row["path"]].similar) for row in odd if row["path"] in pictures]
    found = {path: similar for path, similar in shown if similar and max(similar) < len(examples)}
    # Only what is shown goes into the page, each example once.
    used = sorted({index for indices in found.values() for index in indices})
    place = {index: number for number, index in enumerate(used)}
    return Explanations(
        tuple((examples.names[index], examples.pictures[index]) for index in used),
        {path: tuple(place[index] for index in indices) for path, indices in found.items()},
        {str(row["path"]): row["parts"] for row in odd if row.get("parts")},
    )
