"""How well models find what is not normal among small images: MNIST and Fashion-MNIST, full test sets, public API only.

    python benchmarks/quality_small.py --task one-class-mnist --model gradient-memory --seeds 3

Tasks, each a mean over ten classes: one class of MNIST or of Fashion-MNIST is normal and nine are not; or one digit is
left out of training and is to be found; or one of the two data sets is normal and the other is not. The folder of the
data comes from --data or the variable ODDMENT_DATA, as IDX files in mnist/ and fashion-mnist/. Rows are appended to a
CSV file named by device and version, and a run goes on where an earlier one stopped.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score

import oddment

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = ("task", "model", "class", "seed", "auroc", "fit_seconds", "score_seconds", "images", "model_mib", "threads")
ONE_CLASS = {"one-class-mnist": "mnist", "one-class-fashion": "fashion-mnist"}
ACROSS = {"mnist-against-fashion": ("mnist", "fashion-mnist"), "fashion-against-mnist": ("fashion-mnist", "mnist")}
TASKS = (*ONE_CLASS, "digit-left-out", *ACROSS)


class Case(NamedTuple):
    """Normal images to fit, images to score, and which of those are not normal."""

    train: NDArray[np.uint8]
    test: NDArray[np.uint8]
    odd: NDArray[np.bool_]


def read(path: Path) -> NDArray[np.uint8]:
    """Return the array in a gzipped IDX file."""
    data = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(data, ">u4", data[3], 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def load(folder: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return images and labels of "train" or "t10k"."""
    return read(folder / f"{part}-images-idx3-ubyte.gz"), read(folder / f"{part}-labels-idx1-ubyte.gz")


def make_case(data: Path, task: str, number: int) -> Case:
    """Return the images of one class of a task."""
    if task in ACROSS:
        normal, other = (data / name for name in ACROSS[task])
        test = [load(folder, "t10k")[0] for folder in (normal, other)]
        return Case(load(normal, "train")[0], np.concatenate(test), np.repeat([False, True], [len(x) for x in test]))
    folder = data / ONE_CLASS.get(task, "mnist")
    (train, labels), (test, truth) = load(folder, "train"), load(folder, "t10k")
    if task in ONE_CLASS:
        return Case(train[labels == number], test, truth != number)
    return Case(train[labels != number], test, truth == number)


def measure(case: Case, model: str, seed: int) -> dict[str, object]:
    """Fit and score; return the columns that a run fills in."""
    started = time.perf_counter()
    detector = oddment.Detector(model=model, random_state=seed).fit(case.train)
    fitted = time.perf_counter()
    scores = detector.anomaly_score(case.test)
    done = time.perf_counter()
    size = len(detector.scorer_.model.graph) + len(detector.scorer_.model.weights)
    return {
        "auroc": f"{roc_auc_score(case.odd, scores):.5f}",
        "fit_seconds": f"{fitted - started:.1f}",
        "score_seconds": f"{done - fitted:.1f}",
        "images": len(case.train),
        "model_mib": f"{size / 2**20:.1f}",
    }


def done_already(path: Path) -> set[tuple[str, ...]]:
    """Return (task, model, class, seed) of the rows in a file."""
    if not path.exists():
        return set()
    with path.open(newline="") as file:
        return {tuple(row[name] for name in COLUMNS[:4]) for row in csv.DictReader(file)}


def results_path(folder: Path) -> Path:
    """Return the CSV file of this device and version."""
    device = f"{platform.machine()}-{os.cpu_count()}-cores"
    return folder / f"quality-small-{device}-oddment-{oddment.__version__}.csv"


def main() -> None:
    """Run what is missing in the CSV file and print the mean of each model on each task."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=TASKS, nargs="+", default=list(TASKS))
    parser.add_argument("--model", nargs="+", default=["gradient-memory"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--classes", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("ODDMENT_DATA", ".")))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    asked = parser.parse_args()
    path = results_path(asked.results)
    asked.results.mkdir(parents=True, exist_ok=True)
    for seed in range(asked.seeds):
        for task in asked.task:
            for number in [0] if task in ACROSS else asked.classes:
                for model in asked.model:
                    run(path, asked.data, (task, model, str(number), str(seed)))
    summarise(path)


def run(path: Path, data: Path, key: tuple[str, str, str, str]) -> None:
    """Measure one case unless the file has it, and append the row."""
    if key in done_already(path):
        return
    task, model, number, seed = key
    row = dict(zip(COLUMNS[:4], key, strict=True)) | measure(make_case(data, task, int(number)), model, int(seed))
    row["threads"] = os.environ.get("ODDMENT_THREADS", "default")
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if fresh:
            writer.writeheader()
        writer.writerow(row)
    print(*row.values(), flush=True)


def summarise(path: Path) -> None:
    """Print mean AUROC over classes for each task, model and seed."""
    found: dict[tuple[str, str, str], list[float]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault((row["task"], row["model"], row["seed"]), []).append(float(row["auroc"]))
    for (task, model, seed), values in sorted(found.items()):
        print(f"{task}  {model}  seed {seed}: {np.mean(values):.4f} over {len(values)} classes")


if __name__ == "__main__":
    main()
