"""How well models find defects in magnetic tiles, image by image and pixel by pixel; public API only.

    python benchmarks/quality_tiles.py --model feature-memory --split cluster --seeds 0 1 2 3 4

"random" holds out a fifth of the flawless photographs whatever they show, as publications do. "cluster" holds out whole
clusters of photographs of one tile (groups.csv names them) until they are a fifth; the largest always trains. All
defective photographs are tested. The folder of the data comes from --data or the variable ODDMENT_DATA, with
magnetic-tiles/{free,defective,masks} and magnetic-tiles/groups.csv. Rows are appended to a CSV file named by device and
version, and a run goes on where an earlier one stopped.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import random
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

import oddment
from oddment.metrics import PixelTally, auroc

KINDS = ("blowhole", "break", "crack", "fray", "uneven")
KEY = ("model", "options", "split", "rule", "seed")
COLUMNS = (*KEY, "auroc", *KINDS, "pixel", "training", "fit_seconds", "score_seconds", "model_mib", "threads")
RULES = {"default": {}, "nothing-held-out": {"hold_out": False, "max_normal": True}}


class Case(NamedTuple):
    """Flawless photographs to fit with their clusters, others to test, and defective ones of each kind."""

    train: list[Path]
    clusters: list[int]
    good: list[Path]
    bad: list[tuple[Path, str]]


def make_case(folder: Path, split: str, seed: int) -> Case:
    """Return one split."""
    free = sorted((folder / "free").glob("*.jpg"))
    with (folder / "groups.csv").open(newline="") as file:
        cluster = {row["file"]: int(row["cluster"]) for row in csv.DictReader(file)}
    number = [cluster[path.name] for path in free]
    chance = random.Random(seed)
    if split == "random":
        order = list(range(len(free)))
        chance.shuffle(order)
        test = set(order[int(0.8 * len(free)) :])
    else:
        ids = sorted(set(number) - {int(np.bincount(number).argmax())})
        chance.shuffle(ids)
        test = set()
        while len(test) < len(free) / 5:
            chosen = ids.pop(0)
            test |= {index for index, value in enumerate(number) if value == chosen}
    train = [index for index in range(len(free)) if index not in test]
    bad = [(path, kind) for kind in KINDS for path in sorted((folder / "defective" / kind).glob("*.jpg"))]
    return Case([free[i] for i in train], [number[i] for i in train], [free[i] for i in sorted(test)], bad)


def measure(folder: Path, asked: argparse.Namespace, model: str, seed: int) -> dict[str, object]:
    """Fit and score one split; return the columns that a run fills in."""
    case = make_case(folder, asked.split, seed)
    started = time.perf_counter()
    options = dict(pair.split("=", 1) for pair in asked.option)
    detector = oddment.Detector(
        model=model,
        options={name: int(value) if value.isdigit() else value for name, value in options.items()} or None,
        random_state=seed,
        **RULES[asked.rule],
    )
    detector.fit(case.train, groups=case.clusters if asked.split == "cluster" else None)
    fitted = time.perf_counter()
    found = detector.detect([*case.good, *(path for path, _ in case.bad)], maps=True)
    done = time.perf_counter()
    kinds = np.array(["good"] * len(case.good) + [kind for _, kind in case.bad])
    scores = np.array([item.anomaly_score for item in found])
    row: dict[str, object] = {"auroc": f"{auroc(scores, kinds != 'good'):.4f}"}
    for kind in KINDS:
        chosen = (kinds == "good") | (kinds == kind)
        row[kind] = f"{auroc(scores[chosen], kinds[chosen] == kind):.4f}"
    size = len(detector.scorer_.model.graph) + len(detector.scorer_.model.weights)
    return row | {
        "pixel": f"{pixels(folder, case, found):.4f}",
        "training": detector.scorer_.model.info["data"]["training"],
        "fit_seconds": f"{fitted - started:.1f}",
        "score_seconds": f"{done - fitted:.1f}",
        "model_mib": f"{size / 2**20:.1f}",
        "threads": os.environ.get("ODDMENT_THREADS", "default"),
    }


def pixels(folder: Path, case: Case, found: list[oddment.Detection]) -> float:
    """Return the AUROC over every pixel of every test photograph, at the photograph's own resolution."""
    tally = PixelTally()
    masks = [None] * len(case.good) + [folder / "masks" / kind / f"{path.stem}.png" for path, kind in case.bad]
    for item, mask in zip(found, masks, strict=True):
        tally.add(item.anomaly_map, None if mask is None else np.asarray(Image.open(mask).convert("L")) > 127)
    return tally.result().auroc


def results_path(folder: Path) -> Path:
    """Return the CSV file of this device and version."""
    device = f"{platform.machine()}-{os.cpu_count()}-cores"
    return folder / f"quality-tiles-{device}-oddment-{oddment.__version__}.csv"


def done_already(path: Path) -> set[tuple[str, ...]]:
    """Return the keys of the rows in a file."""
    if not path.exists():
        return set()
    with path.open(newline="") as file:
        return {tuple(row[name] for name in KEY) for row in csv.DictReader(file)}


def run(path: Path, asked: argparse.Namespace, model: str, seed: int) -> None:
    """Measure one split unless the file has it, and append the row."""
    key = (model, " ".join(asked.option), asked.split, asked.rule, str(seed))
    if key in done_already(path):
        return
    row = dict(zip(KEY, key, strict=True)) | measure(asked.data / "magnetic-tiles", asked, model, seed)
    fresh = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if fresh:
            writer.writeheader()
        writer.writerow(row)
    print(*(f"{name}={value}" for name, value in row.items()), flush=True)


def summarise(path: Path) -> None:
    """Print means over the seeds."""
    found: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            found.setdefault(tuple(row[name] for name in KEY[:4]), []).append(
                (float(row["auroc"]), float(row["pixel"]))
            )
    for key, values in sorted(found.items()):
        image, pixel = np.mean(values, axis=0)
        print(*key, f"{len(values)} splits: image AUROC {image:.4f}, pixel AUROC {pixel:.4f}")


def main() -> None:
    """Run what is missing in the CSV file and print means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["feature-memory"])
    parser.add_argument("--option", nargs="*", default=[], help="of the model, as name=value")
    parser.add_argument("--split", choices=("cluster", "random"), default="cluster")
    parser.add_argument("--rule", choices=tuple(RULES), default="default", help="of the threshold; decides what trains")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("ODDMENT_DATA", ".")))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    asked = parser.parse_args()
    asked.results.mkdir(parents=True, exist_ok=True)
    path = results_path(asked.results)
    for seed in asked.seeds:
        for model in asked.model:
            run(path, asked, model, seed)
    summarise(path)


if __name__ == "__main__":
    main()
