"""From scores to standings: means over seeds, paired differences to the best, and what follows in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from oddment.comparison.records import Comparison, Entry, Standing, scores_of
from oddment.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from oddment.metrics import Interval

__all__ = ["rank"]


def rank(result: Comparison, baselines: set[str], bootstrap: int) -> None:
    """Fill in standings, verdicts and notes of a comparison whose entries are done.

    Images that any entry rejected count for none. Every resample draws test images, the same for all models, and seeds,
    the same for all models: the interval holds both kinds of chance, and differences are paired.

    Raises:
        DataError: if no entry could be scored.
    """
    done = result.done
    if not done:
        reasons = "; ".join(f"{entry.model}: {entry.failure}" for entry in result.entries[:3])
        msg = f"no model could be fitted and scored: {reasons}"
        raise DataError(msg)
    scores = scores_of(done)
    usable = np.isfinite(scores).all(axis=0)
    truth = np.array(result.is_anomaly, dtype=bool)[usable]
    result.resamples = bootstrap
    names = list(dict.fromkeys(entry.model for entry in done))
    drawn = _Drawn(done, names, scores[:, usable], truth, bootstrap)
    order = sorted(names, key=lambda name: -drawn.auroc(name).value)
    result.standings = [_standing(drawn, name, order[0], is_baseline=name in baselines) for name in order]
    result.verdicts = list(_verdicts(result.standings, drawn))
    result.notes = list(_notes(result, int((~usable).sum())))


class _Drawn:
    """Figures of every model on the whole test set and on its resamples."""

    def __init__(
        self, entries: list[Entry], names: list[str], scores: NDArray[np.float64], truth: NDArray[np.bool_], count: int
    ) -> None:
        from oddment.metrics import resample

        self.entries, self.names, self.scores, self.truth = entries, names, scores, truth
        resampled = resample(scores, truth, resamples=count)
        seeds = sorted({entry.seed for entry in entries})
        # How often each seed is drawn, the same for every model: float64 (R, S).
        rng = np.random.default_rng(0)
        picks = rng.integers(0, len(seeds), (count, len(seeds)))
        self._weights = (picks[:, :, None] == np.arange(len(seeds))).sum(axis=1).astype(np.float64)
        self._seed_of = np.array([seeds.index(entry.seed) for entry in entries])
        self._samples = {"auroc": resampled.auroc, "average_precision": resampled.average_precision}

    def of(self, name: str) -> list[int]:
        """The positions of a model's entries."""
        return [index for index, entry in enumerate(self.entries) if entry.model == name]

    def samples(self, name: str, figure: str = "auroc") -> NDArray[np.float64]:
        """A model's figure, mean over the drawn seeds, float64 (R,)."""
        own = self.of(name)
        weights = self._weights[:, self._seed_of[own]]
        # A model that failed with the seeds drawn is judged by those it has.
        weights = np.where(weights.sum(axis=1, keepdims=True) > 0, weights, 1.0)
        return np.asarray((self._samples[figure][:, own] * weights).sum(axis=1) / weights.sum(axis=1))

    def each(self, name: str, figure: str = "auroc") -> list[float]:
        """A model's figure with each of its seeds."""
        from oddment.metrics import auroc, average_precision

        measure = auroc if figure == "auroc" else average_precision
        return [measure(self.scores[index], self.truth) for index in self.of(name)]

    def auroc(self, name: str) -> Interval:
        """A model's AUROC."""
        return self.interval(name, "auroc")

    def interval(self, name: str, figure: str) -> Interval:
        """A model's figure with its interval."""
        from oddment.metrics.bootstrap import percentiles

        return percentiles(float(np.mean(self.each(name, figure))), self.samples(name, figure))

    def difference(self, better: str, other: str) -> Interval:
        """The AUROC of one minus that of another, paired."""
        from oddment.metrics.bootstrap import percentiles

        value = float(np.mean(self.each(better)) - np.mean(self.each(other)))
        return percentiles(value, self.samples(better) - self.samples(other))


def _standing(drawn: _Drawn, name: str, best: str, *, is_baseline: bool) -> Standing:
    own = drawn.of(name)
    entries = [drawn.entries[index] for index in own]
    flagged = drawn.scores[own] > np.array([[entry.threshold] for entry in entries])
    each = drawn.each(name)
    return Standing(
        model=name,
        is_baseline=is_baseline,
        seeds=tuple(entry.seed for entry in entries),
        auroc=drawn.auroc(name),
        auroc_range=(min(each), max(each)),
        average_precision=drawn.interval(name, "average_precision"),
        tpr=float(flagged[:, drawn.truth].mean()),
        fpr=float(flagged[:, ~drawn.truth].mean()),
        behind=None if name == best else drawn.difference(best, name),
        seconds=float(np.mean([entry.seconds for entry in entries])),
        images_per_second=float(np.mean([entry.images_per_second for entry in entries])),
        parameters=entries[0].parameters,
    )


def _verdicts(standings: list[Standing], drawn: _Drawn) -> Iterator[str]:
    """What follows: whether a baseline does as well as what had to be trained."""
    baselines = [item for item in standings if item.is_baseline]
    models = [item for item in standings if not item.is_baseline]
    if baselines and models:
        yield from _against(baselines, models, drawn)
    elif len(standings) > 1:
        best, second = standings[:2]
        gap = drawn.difference(best.model, second.model)
        if gap.low > 0:
            yield f"{best.model} is better than {second.model}, the next best, by {gap}."
        else:
            yield (
                f"{best.model} is ahead of {second.model} by {gap}: no more than chance. Take the faster or "
                "the smaller of the two."
            )


def _against(baselines: list[Standing], models: list[Standing], drawn: _Drawn) -> Iterator[str]:
    model, baseline = models[0].model, baselines[0].model
    beaten = [item.model for item in models if drawn.difference(baseline, item.model).low > 0]
    for name in beaten:
        rivals = [item.model for item in baselines if drawn.difference(item.model, name).low > 0]
        yield f"{rivals[0]} is better than {name} by {drawn.difference(rivals[0], name)}: use it."
    if model in beaten:
        return
    gap = drawn.difference(model, baseline)
    if gap.low > 0:
        yield f"{model} is better than {baseline}, the best baseline, by {gap}."
    else:
        ahead, behind = (model, baseline) if gap.value >= 0 else (baseline, model)
        yield (
            f"{ahead} is ahead of {behind} by {drawn.difference(ahead, behind)}: no more than chance. {baseline} is "
            f"the simpler one; take {model} for what else it gives, such as its heat maps."
        )


def _notes(result: Comparison, rejected: int) -> Iterator[str]:
    for entry in result.entries:
        if entry.failure is not None:
            yield f"{entry.model} with seed {entry.seed} failed: {entry.failure}"
    if rejected:
        yield f"{rejected:,} of {len(result.paths):,} test images were rejected by an entry and count for none."
    unusable = max(entry.rejected for entry in result.entries)
    if unusable:
        yield f"{unusable:,} training images could not be used."
    if len({entry.seed for entry in result.entries}) == 1:
        yield "One seed: the intervals hold the chance of the test images alone. Give several for that of training."
    yield (
        "The best is named after these test images were seen, which flatters it a little; a difference is to be "
        "trusted where its interval stays clear of zero."
    )
