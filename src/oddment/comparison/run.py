"""Fitting and scoring every entry on the same images, each kept as soon as it is done."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import oddment
from oddment.comparison.records import Comparison, Entry
from oddment.comparison.standings import rank
from oddment.errors import DataError, OddmentError, ParameterError
from oddment.evaluation.run import judge
from oddment.progress import Progress
from oddment.results import Detection
from oddment.whole import write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from oddment.data.labelled import LabelledSet
    from oddment.fitting import Settings

__all__ = ["CACHE", "compare"]

CACHE = "compare.json"
# Settings that are the same, or different, in every comparison whatever the caller gave.
_SET_HERE = ("model", "seed", "baseline_check")


def compare(
    data: LabelledSet,
    models: Sequence[str],
    *,
    baselines: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    settings: Settings | None = None,
    folder: Path | None = None,
    overwrite: bool = False,
    bootstrap: int = 1000,
    progress: Progress | None = None,
) -> Comparison:
    """Fit every model with every seed to the same images, score the same test images, and rank them.

    Args:
        data: labelled images.
        models: registered names.
        baselines: registered names of the classical ones, which differ only in what is said of them; models
            that are not trained by gradients count as such wherever they are named.
        seeds: of split, start and order; the same for every model.
        settings: of all fits; model and seed are set here, and the check against baselines is left to the labels. The
            default unless given.
        folder: where `compare.json` keeps each result as it comes; what it holds already is not fitted again.
        overwrite: throw away what it holds when it is of other images or settings.
        bootstrap: resamples behind the intervals.
        progress: told of stages.

    Raises:
        ParameterError: if no model is named, a name is unknown, or bootstrap is below 1.
        DataError: if the folder holds another comparison, or no entry could be scored.
    """
    from oddment.fitting import Settings

    progress, settings = progress or Progress(), settings or Settings()
    names = _checked(models, baselines, seeds, bootstrap)
    cache = _Cache(folder, _about(data, settings), overwrite=overwrite)
    result = Comparison(
        data.name,
        data.description,
        [],
        [item.ref.path for item in data.test],
        [item.label for item in data.test],
        [item.is_anomaly for item in data.test],
    )
    total = len(names) * len(seeds)
    for number, (seed, name) in enumerate(((seed, name) for seed in seeds for name in names), start=1):
        entry = cache.get(name, seed)
        if entry is None:
            progress.say(f"{number} of {total}: {name}, seed {seed}")
            entry = _enter(data, replace(settings, model=name, seed=seed, baseline_check=False), progress)
            cache.put(entry)
        else:
            result.resumed += 1
        result.entries.append(entry)
    rank(result, {*baselines, *_plain(names)}, bootstrap)
    return result


def _checked(models: Sequence[str], baselines: Sequence[str], seeds: Sequence[int], bootstrap: int) -> list[str]:
    from oddment.models import get_spec

    names = list(dict.fromkeys([*models, *baselines]))
    problems = []
    if not names:
        problems.append("name at least one model.")
    if not seeds or len(set(seeds)) != len(seeds):
        problems.append(f"seeds must be different numbers, at least one; got {', '.join(map(str, seeds)) or 'none'}.")
    if bootstrap < 1:
        problems.append(f"bootstrap must be at least 1; got {bootstrap}. A usual value is 1000.")
    for name in names:
        try:
            _ = name == "auto" or get_spec(name)
        except ParameterError as error:
            problems.append(str(error))
    if problems:
        raise ParameterError(" ".join(problems))
    return names


def _plain(names: Sequence[str]) -> list[str]:
    """The names of plain baselines, however they were named."""
    from oddment.models import get_spec

    return [name for name in names if name != "auto" and get_spec(name).baseline]


def _enter(data: LabelledSet, settings: Settings, progress: Progress) -> Entry:
    """Fit and score one entry; what fails on purpose is an entry that says so."""
    from oddment.fitting import fit_images
    from oddment.scorer import Scorer

    started = time.perf_counter()
    try:
        fitted = fit_images(lambda: iter(data.train), len(data.train), settings, progress=progress)
        seconds, started = time.perf_counter() - started, time.perf_counter()
        scorer = Scorer(fitted.model)
        scores: list[float | None] = []
        progress.start(f"Scoring with {settings.model}", len(data.test))
        for found, _ in judge(scorer, data.test, max_pixels=settings.max_pixels):
            scores.append(found.result.anomaly_score if isinstance(found.result, Detection) else None)
            progress.update(len(scores))
        progress.finish()
    except OddmentError as error:
        progress.finish()
        return Entry(settings.model, settings.seed, failure=str(error))
    return Entry(
        settings.model,
        settings.seed,
        tuple(scores),
        scorer.threshold_,
        round(seconds, 3),
        round(len(scores) / max(time.perf_counter() - started, 1e-9), 1),
        int(fitted.model.info["model"]["parameters"]),
        len(fitted.rejections),
    )


def _about(data: LabelledSet, settings: Settings) -> dict[str, Any]:
    """What must be the same for results to be used again."""
    digest = hashlib.sha256()
    for ref in data.train:
        digest.update(ref.path.encode("utf-8", "surrogatepass") + b"\0")
    for item in data.test:
        digest.update(f"{item.ref.path}\0{item.label}\0{item.is_anomaly}\0".encode("utf-8", "surrogatepass"))
    fits = {name: value for name, value in asdict(settings).items() if name not in _SET_HERE}
    return {
        "oddment": oddment.__version__,
        "data": data.name,
        "images": digest.hexdigest(),
        # As JSON gives it back: tuples as lists.
        "settings": json.loads(json.dumps(fits, default=str)),
    }


class _Cache:
    """Entries on disk, written whole after each; in memory alone without a folder."""

    def __init__(self, folder: Path | None, about: dict[str, Any], *, overwrite: bool) -> None:
        self._path, self._about = None if folder is None else folder / CACHE, about
        self._entries: dict[tuple[str, int], Entry] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            if (folder / CACHE).exists() and not overwrite:
                self._read(folder / CACHE)

    def _read(self, path: Path) -> None:
        try:
            content = json.loads(path.read_bytes())
            entries = [Entry.from_dict(item) for item in content["entries"]]
            about = content["about"]
        except (ValueError, KeyError, TypeError) as error:
            msg = f"{path}: not the results of a comparison. Name another folder, or add --overwrite."
            raise DataError(msg) from error
        if about != self._about:
            different = [name for name in self._about if about.get(name) != self._about[name]]
            msg = (
                f"{path} holds a comparison with other {', '.join(different)}. Name another folder, or add --overwrite "
                "to throw it away."
            )
            raise DataError(msg)
        self._entries = {(entry.model, entry.seed): entry for entry in entries}

    def get(self, model: str, seed: int) -> Entry | None:
        """An entry that was done before; one that failed is tried again."""
        entry = self._entries.get((model, seed))
        return entry if entry is not None and entry.failure is None else None

    def put(self, entry: Entry) -> None:
        """Keep an entry, at once and for good."""
        self._entries[entry.model, entry.seed] = entry
        if self._path is not None:
            entries = [item.as_dict() for item in self._entries.values()]
            write_whole(self._path, json.dumps({"about": self._about, "entries": entries}) + "\n")
