"""One-class AUROC of the classical baselines, every class of a data set in turn: `python benchmarks/baselines.py`.

Needs the full data set (`oddment data get mnist`, or ODDMENT_DATA). Each class is one `oddment.comparison.compare`, the
same as

    oddment compare mnist --normal 3 --models knn,pca -o OUT

and is kept as soon as it is done: after an interruption the same command goes on. Writes one CSV, a row a class and
baseline, and prints the means over the classes.

    python benchmarks/baselines.py                    # knn and pca, a fifth of the training images held out
    python benchmarks/baselines.py --no-hold-out      # on every training image, as published figures have it
    python benchmarks/baselines.py --all              # all baselines
"""

from __future__ import annotations

import argparse
import csv
import platform
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import oddment
from oddment.calibration import ThresholdRule
from oddment.comparison import Comparison, compare
from oddment.data.labelled import open_labelled
from oddment.training.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = Path(__file__).parent / "results"
USUAL = ("knn", "pca")
OTHERS = ("elliptic-envelope", "gaussian", "isolation-forest", "local-outlier-factor", "one-class-svm")
CLASSES = [str(number) for number in range(10)]


def main() -> None:
    """Compare, class after class, and write what came of it."""
    given = _arguments()
    names = [*USUAL, *(OTHERS if given.all else ())]
    done = {normal: _one_class(given, normal, names) for normal in given.classes}
    classes = "" if given.classes == CLASSES else f"-{'-'.join(given.classes)}"
    kind = "held-out" if given.hold_out else "all-images"
    path = RESULTS / f"baselines-{given.data}{classes}-{kind}-{platform.machine()}-{oddment.__version__}.csv"
    _write(path, done)
    _print(done, names)
    print(f"\nwritten: {path}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist", choices=["mnist", "fashion-mnist"])
    parser.add_argument("--classes", nargs="+", default=CLASSES, help="normal classes, one after another")
    parser.add_argument("--all", action="store_true", help="all baselines, not knn and pca alone")
    parser.add_argument("--hold-out", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--work", type=Path, default=Path("baselines-work"), help="where finished entries are kept")
    return parser.parse_args()


def _one_class(given: argparse.Namespace, normal: str, names: Sequence[str]) -> Comparison:
    # Without held-out images there is no promise to calibrate; the threshold plays no part in an AUROC.
    rule = ThresholdRule() if given.hold_out else ThresholdRule("max_normal", 0.0, "training")
    settings = Settings(rule=rule, hold_out=given.hold_out, device="cpu")
    folder = given.work / f"{given.data}-{normal}-{'held-out' if given.hold_out else 'all-images'}"
    result = compare(
        open_labelled(given.data, normal=[normal]), (), baselines=names, settings=settings, folder=folder, bootstrap=200
    )
    print(normal, *(f"{item.model} {item.auroc.value:.4f}" for item in result.standings), sep="  ", flush=True)
    return result


def _write(path: Path, done: dict[str, Comparison]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["normal", "model", "auroc", "average_precision"])
        for normal, result in done.items():
            for item in sorted(result.standings, key=lambda standing: standing.model):
                figures = (f"{item.auroc.value:.5f}", f"{item.average_precision.value:.5f}")
                rows.writerow([normal, item.model, *figures])


def _print(done: dict[str, Comparison], names: Sequence[str]) -> None:
    print(f"\nmean AUROC over {len(done)} classes")
    for name in names:
        values = [item.auroc.value for result in done.values() for item in result.standings if item.model == name]
        print(f"{name:22} {np.mean(values):.4f}  ({min(values):.3f} … {max(values):.3f})")


if __name__ == "__main__":
    main()
