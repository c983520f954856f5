"""How well `oddment audit` finds what does not belong: `python benchmarks/audit_quality.py`.

Images of one class, with a share of other classes hidden among them; nobody tells the audit which. Beside it: the same
models without trimming, plain baselines, and `clean`, which is told what to leave out of training: what a folder that
somebody has cleaned by hand would give. Needs MNIST and Fashion-MNIST (`oddment data get`), or ODDMENT_DATA, which for
the tiles must name a folder with magnetic-tiles/free and magnetic-tiles/defective.

Each row is kept as soon as it is done: after an interruption the same command goes on. Prints means over the seeds with
95 % intervals (t).

    python benchmarks/audit_quality.py --cases ones          # all MNIST training 1s with 1 % of 3s
    python benchmarks/audit_quality.py --cases mnist fashion # one class with 5 and 10 % of all the others
    python benchmarks/audit_quality.py --cases clean         # nothing hidden: what is selected all the same
    python benchmarks/audit_quality.py --cases tiles         # flawless magnetic tiles with 5 and 10 % of defective ones
    python benchmarks/audit_quality.py --cases tiles --methods trim-20%  # and with trimming
    python benchmarks/audit_quality.py --methods knn-trim-2% knn-company-2% # told that little is wrong
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import t as student

import oddment
from oddment.auditing import Audit, AuditOptions, audit_images
from oddment.data.catalog import load_arrays
from oddment.fitting import Settings
from oddment.metrics.ranking import auroc, average_precision

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESULTS = Path(__file__).parent / "results"
METHODS = ("audit", "no-trim", "clean", "isolation-forest", "knn", "pca")
# Models, trims and options that are asked for; the others take what the audit chooses.
ASKED: dict[str, tuple[str, float | None, dict[str, Any]]] = {
    "isolation-forest": ("isolation-forest", 0.0, {}),
    "knn": ("knn", 0.0, {}),
    "pca": ("pca", 0.0, {}),
    "audit": ("auto", None, {}),
    "no-trim": ("auto", 0.0, {}),
    "trim-20%": ("auto", 0.2, {}),
    "knn-trim-2%": ("knn", 0.02, {}),
    "knn-company-2%": ("knn", 0.0, {"company": 0.02}),
}
COLUMNS = ("case", "method", "seed", "normal", "odd", "auroc", "average_precision", "selected", "precision", "recall")
MOST = 1_500  # normal images of a mixed case
TILES = 300  # flawless photographs
FIGURES = ("auroc", "average_precision", "precision", "recall")


def main() -> None:
    """Run what has no row yet, then print the means."""
    given = _arguments()
    path = RESULTS / f"audit-quality-{oddment.__version__}.csv"
    rows = _read(path)
    for case in given.cases:
        for name, seed in ((name, seed) for name in _variants(case) for seed in given.seeds):
            for method in given.methods:
                # Of photographs nothing is trimmed: it would be the audit again.
                if name.startswith("tiles") and method == "no-trim":
                    continue
                if any((row["case"], row["method"], int(row["seed"])) == (name, method, seed) for row in rows):
                    continue
                started = time.perf_counter()
                row = _run(name, method, seed)
                rows.append(row)
                _write(path, rows)
                told = "  ".join(f"{key} {row[key]}" for key in (*FIGURES, "selected"))
                print(f"{name} {method} {seed}: {told}  {time.perf_counter() - started:.0f} s", flush=True)
    _print(rows)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["ones"], choices=["ones", "mnist", "fashion", "clean", "tiles"])
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=list(dict.fromkeys([*METHODS, *ASKED])))
    parser.add_argument("--seeds", nargs="+", type=int, default=range(5))
    return parser.parse_args()


def _variants(case: str) -> list[str]:
    return {
        "ones": ["mnist-ones-1%"],
        "mnist": ["mnist-5%", "mnist-10%"],
        "fashion": ["fashion-mnist-5%", "fashion-mnist-10%"],
        "clean": ["mnist-0%", "fashion-mnist-0%"],
        "tiles": ["tiles-5%", "tiles-10%"],
    }[case]


def _images(name: str, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_], str]:
    """Images, which of them are odd, and the normal class: each seed has another one."""
    rng = np.random.default_rng(seed)
    data, share = name.rsplit("-", 1)
    ones = data == "mnist-ones"
    sample = load_arrays("mnist" if ones else data, "train")
    images, labels = sample.images, np.asarray(sample.labels).astype(str)
    normal = "1" if ones else str((3 * seed + 2) % 10)
    usual = rng.permutation(np.flatnonzero(labels == normal))[: None if ones else MOST]
    other = np.flatnonzero(labels == "3") if ones else np.flatnonzero(labels != normal)
    hidden = rng.permutation(other)[: round(float(share[:-1]) / 100 * len(usual))]
    chosen = rng.permutation(np.concatenate([usual, hidden]))
    return images[chosen], np.isin(chosen, hidden), normal


def _photographs(name: str, seed: int, folder: Path) -> NDArray[np.bool_]:
    """Fill a folder with flawless tiles and some defective ones in a random order; which of them are odd."""
    rng = np.random.default_rng(seed)
    tiles = Path(os.environ["ODDMENT_DATA"]) / "magnetic-tiles"
    usual = rng.permutation(sorted((tiles / "free").glob("*.jpg")))[:TILES]
    defective = rng.permutation(sorted((tiles / "defective").glob("*/*.jpg")))
    hidden = defective[: round(float(name.rsplit("-", 1)[1][:-1]) / 100 * len(usual))]
    order = rng.permutation(len(usual) + len(hidden))
    for place, index in enumerate(order):
        path = [*usual, *hidden][index]
        (folder / f"{place:04}.jpg").symlink_to(path.resolve())
    return order >= len(usual)


def _run(name: str, method: str, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if name.startswith("tiles"):
            odd, normal = _photographs(name, seed, folder), "tile"
        else:
            images, odd, normal = _images(name, seed)
            np.save(folder / "images.npy", images)
        scores, selected = _scores(folder, odd, method, seed)
    found = int((odd & selected).sum())
    measured = {
        "auroc": f"{auroc(scores, odd):.5f}" if odd.any() else "",
        "average_precision": f"{average_precision(scores, odd):.4f}" if odd.any() else "",
        "precision": f"{found / selected.sum():.4f}" if selected.any() else "",
        "recall": f"{found / odd.sum():.4f}" if odd.any() else "",
    }
    about = {"case": name, "method": method, "seed": seed, "normal": normal, "odd": int(odd.sum())}
    return about | measured | {"selected": int(selected.sum())}


def _scores(
    folder: Path, odd: NDArray[np.bool_], method: str, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    model, trim, options = ASKED.get(method, ("auto", 0.0, {}))
    settings = Settings(model=model, options=options, seed=seed, device="cpu")
    done = audit_images([folder], settings, AuditOptions(trim=trim))
    if method == "clean":
        done = _cleaned(done, odd, settings)
    return done.scores, done.chosen.selected


def _cleaned(done: Audit, odd: NDArray[np.bool_], settings: Settings) -> Audit:
    """The same audit by models that were fitted without what is odd: nobody could, without knowing."""
    from oddment.auditing import crossfit
    from oddment.auditing.judge import choose_images
    from oddment.auditing.null import fit_null, p_of

    item = done.judged[0]
    fitted = []
    for part in range(done.options.parts):
        training = item.members[(item.crossed.parts != part) & ~odd]
        split = crossfit._split(training, settings.seed)  # noqa: SLF001 - exactly as the audit does
        graph = crossfit.export(crossfit.fit_graph(done.choice, done.collection, split, settings))
        own = item.members[item.crossed.parts == part]
        fitted.append((crossfit.score_store(graph, done.choice, done.collection, own), graph))
    crossed = crossfit._combine(fitted, item.crossed.parts, odd)  # noqa: SLF001
    scores = fit_null(crossed.scores).standardise(crossed.scores)
    return replace(done, scores=scores, chosen=choose_images(scores, p_of(scores), done.options.rule))


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _print(rows: list[dict[str, Any]]) -> None:
    print(f"\n| case | method | seeds | {' | '.join(FIGURES)} | selected |\n| {' | '.join(['---'] * 8)} |")
    for case, method in dict.fromkeys((row["case"], row["method"]) for row in rows):
        mine = [row for row in rows if (row["case"], row["method"]) == (case, method)]
        cells = [_mean([float(row[key]) for row in mine if row[key] != ""]) for key in FIGURES]
        selected = np.mean([int(row["selected"]) for row in mine])
        print(f"| {case} | {method} | {len(mine)} | {' | '.join(cells)} | {selected:.0f} |")


def _mean(values: list[float]) -> str:
    if len(values) < 2:
        return "–" if not values else f"{values[0]:.3f}"
    half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{np.mean(values):.3f} ± {half:.3f}"


if __name__ == "__main__":
    main()
