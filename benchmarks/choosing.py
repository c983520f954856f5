"""What `--model auto` should look at: `python benchmarks/choosing.py`, full results in benchmarks/results/.

Several models on the same images, by how many there are, by colour and by texture; beside the AUROC on real labels
stands the one on synthetic defects in held-out normal images, by which a race between models would choose.

    number    one class of MNIST or Fashion-MNIST normal, 40 or 300 images of it
    texture   gray crops of 32×32 of one photograph of a surface, those of ten others odd; upper half, lower half
    photographs   flawless magnetic tiles, 40, 100 or 300 of them, defective ones odd
    colour    crops of photographs in colour; articles of Fashion-MNIST tinted at random, where another article is odd
              (tinted) or the same one in hues of the other half of the circle (hue)

The photographs of `texture` and `colour` come with scikit-image (`pip install scikit-image`); MNIST, Fashion-MNIST and
magnetic tiles lie in the folder that ODDMENT_DATA names. A run goes on where an earlier one stopped.
"""

from __future__ import annotations

import argparse
import colorsys
import csv
import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image
from quality_small import make_case
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score

import oddment

if TYPE_CHECKING:
    from numpy.typing import NDArray

PATH = Path(__file__).parent / "results" / f"choosing-{oddment.__version__}.csv"
COLUMNS = ("part", "images", "case", "seed", "model", "auroc", "synthetic", "seconds")
SMALL = ("gradient-memory", "gradient-mixture", "conv-small", "knn", "pca")
MODELS = {"photographs": ("feature-memory", "photograph-memory", "conv-large", "knn", "pca")}
PARTS = ("number", "texture", "photographs", "colour")
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png")
PHOTOS = (*PHOTOS, "retina.jpg", "rocket.jpg")
SURFACES = ("brick.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "retina.jpg")
TESTED, TILES, SIDE = 3000, 150, 32


class Case(NamedTuple):
    """Normal images to fit, images to score, and which of those are odd."""

    train: NDArray[np.uint8] | list[Path]
    test: NDArray[np.uint8] | list[Path]
    odd: NDArray[np.bool_]


def main() -> None:
    """Run what is missing and print the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    done = {tuple(row[name] for name in COLUMNS[:5]) for row in _rows()}
    for part in asked.parts:
        for count, case, seed in _cases(part, asked.seeds):
            missing = [
                name for name in MODELS.get(part, SMALL) if (part, str(count), case, str(seed), name) not in done
            ]
            if missing:
                images = make(case, count, seed)
                for name in missing:
                    _append((part, count, case, seed, name, *measure(images, name, seed)))
    _print()


def _cases(part: str, seeds: int) -> list[tuple[int, str, int]]:
    """How many images, of what, and the seed."""
    if part == "number":
        names = [f"{data}/{number}" for data in ("mnist", "fashion") for number in range(0, 10, 2)]
        return [(count, name, seed) for seed in range(seeds) for count in (40, 300) for name in names]
    if part == "texture":
        return [(300, f"gray/{name}", seed) for seed in range(seeds) for name in SURFACES]
    if part == "photographs":
        return [(count, "tiles/free", seed) for seed in range(seeds) for count in (40, 100, 300)]
    names = [*(f"crops/{name}" for name in PHOTOS), *(f"{how}/{k}" for how in ("tinted", "hue") for k in (1, 4, 8))]
    return [(count, name, seed) for seed in range(seeds) for count in (30, 100, 400) for name in names]


def make(name: str, count: int, seed: int) -> Case:
    """Return the images of a case."""
    kind, which = name.split("/")
    rng = np.random.default_rng([seed, count])
    if kind in ("gray", "crops"):
        return _crops(which, count, rng, gray=kind == "gray")
    if kind == "tiles":
        return _tiles(which, count, rng)
    data = "one-class-mnist" if kind == "mnist" else "one-class-fashion"
    case = make_case(Path(os.environ["ODDMENT_DATA"]), data, int(which))
    train = case.train[rng.permutation(len(case.train))[:count]]
    if kind == "hue":
        same = case.test[~case.odd]
        half = len(same) // 2
        test = np.concatenate([_tint(same[:half], 0.0, 0.4, rng), _tint(same[half:], 0.5, 0.9, rng)])
        return Case(_tint(train, 0.0, 0.4, rng), test, np.arange(len(same)) >= half)
    test = case.test[:TESTED]
    if kind == "tinted":
        train, test = _tint(train, 0.0, 1.0, rng), _tint(test, 0.0, 1.0, rng)
    return Case(train, test, case.odd[:TESTED])


def measure(case: Case, model: str, seed: int) -> tuple[str, str, str]:
    """Return AUROC, AUROC on synthetic defects, and the seconds of the fit."""
    # As `auto` has it where it takes a model that redraws pixels.
    score: dict[str, Any] = {"score_mode": "best"} if model == "conv-small" else {}
    started = time.perf_counter()
    detector = oddment.Detector(model=model, target_fpr=0.1, random_state=seed, **score).fit(case.train)
    seconds = time.perf_counter() - started
    found = roc_auc_score(case.odd, detector.anomaly_score(case.test))
    tried = detector.scorer_.model.info["training"]["baselines"].get("auroc", {})
    return f"{found:.4f}", str(tried.get(model, "")), f"{seconds:.1f}"


def _crops(which: str, count: int, rng: np.random.Generator, *, gray: bool) -> Case:
    """Crops of the upper half of a photograph to fit; of lower halves of it and of others to score."""
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise SystemExit("the photographs come with scikit-image: pip install scikit-image")
    folder = Path(spec.origin).parent / "data"
    names = dict.fromkeys([*PHOTOS, *SURFACES]) if gray else PHOTOS
    photos = {name: np.asarray(Image.open(folder / name).convert("L" if gray else "RGB")) for name in names}
    train = _cut(photos[which], count, rng, lower=False)
    parts = [_cut(photo, 600 if name == which else 70, rng, lower=True) for name, photo in photos.items()]
    odd = np.concatenate([np.full(len(part), name != which) for name, part in zip(photos, parts, strict=True)])
    return Case(train, np.concatenate(parts), odd)


def _tiles(which: str, count: int, rng: np.random.Generator) -> Case:
    """Flawless photographs to fit; others and as many defective ones to score."""
    folder = Path(os.environ["ODDMENT_DATA"]) / "magnetic-tiles"
    usual = rng.permutation(sorted((folder / which).glob("*.jpg"))).tolist()
    odd = rng.permutation(sorted((folder / "defective").glob("*/*.jpg"))).tolist()
    test = [*usual[count : count + TILES], *odd[:TILES]]
    return Case(usual[:count], test, np.arange(len(test)) >= TILES)


def _cut(photo: NDArray[np.uint8], count: int, rng: np.random.Generator, *, lower: bool) -> NDArray[np.uint8]:
    half = len(photo) // 2
    photo = photo[half:] if lower else photo[:half]
    rows, columns = (rng.integers(0, length - SIDE + 1, count) for length in photo.shape[:2])
    return np.stack([photo[y : y + SIDE, x : x + SIDE] for y, x in zip(rows, columns, strict=True)])


def _tint(images: NDArray[np.uint8], low: float, high: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Gray images (N, H, W) in one hue each, from low to high of the circle."""
    hues, strengths = rng.uniform(low, high, len(images)), rng.uniform(0.5, 0.9, len(images))
    colours = np.array([colorsys.hsv_to_rgb(hue, strong, 1) for hue, strong in zip(hues, strengths, strict=True)])
    return (images[..., None] * colours[:, None, None]).astype(np.uint8)


def _rows() -> list[dict[str, str]]:
    if not PATH.is_file():
        return []
    with PATH.open(newline="") as file:
        return list(csv.DictReader(file))


def _append(row: tuple[Any, ...]) -> None:
    fresh = not PATH.is_file()
    with PATH.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if fresh:
            writer.writerow(COLUMNS)
        writer.writerow(row)
    print(*row, flush=True)


def _print() -> None:
    """Means over cases, with 95 % intervals over the seeds."""
    found: dict[tuple[str, ...], dict[str, list[tuple[float, float]]]] = {}
    for row in _rows():
        key = (row["part"], row["images"], row["case"].split("/")[0], row["model"])
        values = float(row["auroc"]), float(row["synthetic"] or "nan")
        found.setdefault(key, {}).setdefault(row["seed"], []).append(values)
    print("\n| part | images | kind | model | cases | AUROC | on synthetic defects |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for key, seeds in found.items():
        means = np.array([np.mean(values, axis=0) for values in seeds.values()])
        n = len(means)
        half = student.ppf(0.975, n - 1) * means[:, 0].std(ddof=1) / n**0.5 if n > 1 else float("nan")
        cases = sum(map(len, seeds.values()))
        print(f"| {' | '.join(key)} | {cases} | {means[:, 0].mean():.3f} ± {half:.3f} | {means[:, 1].mean():.3f} |")


if __name__ == "__main__":
    main()
