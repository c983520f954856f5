"""The whole way from a folder that nobody has looked through to a ranked list of what is odd in it."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, replace
from functools import partial as bind
from typing import TYPE_CHECKING

import numpy as np

import oddment
from oddment.auditing.checks import Duplicates, Leak, Oddity, alike, find_duplicates, find_leaks, find_oddities
from oddment.auditing.classes import Suspect, classes_of, find_suspects
from oddment.auditing.crossfit import by_appearance, cross_fit, fits, usual_trim
from oddment.auditing.judge import Chosen, Rule, choose_images
from oddment.auditing.judged import Judged
from oddment.auditing.null import LEAST_SCORES, p_of
from oddment.calibration import p_values as conformal_p_values
from oddment.errors import DataError, ParameterError, TooFewImagesError
from oddment.images.files import count_images, iter_images, require_images
from oddment.images.fingerprint import join_groups
from oddment.images.survey import survey
from oddment.progress import Progress
from oddment.training.choosing import choose
from oddment.training.collect import Collection, collect

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from oddment.auditing.partial import Partial
    from oddment.images.prepare import Preparation
    from oddment.training.choosing import Choice
    from oddment.training.settings import Settings

__all__ = ["Audit", "AuditOptions", "audit_images"]

# Elsewhere only what is at least this odd where it lies is tried: nothing else can bear a wrong label.
_TRIED_ELSEWHERE = 0.2
# Counted up when the same images and options would be worked on otherwise than before.
_PROCEDURE = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOptions:
    """What an audit can be told besides the settings of its models.

    Args:
        rule: how images are selected.
        parts: models of one cross-fit: each scores the part that it was fitted without.
        trim: the share of the images, those that look oddest, that is left out of training, in [0, 0.5); None for
            `crossfit.usual_trim`.
        classes: judge each subfolder by its own images; None does so where they look like classes.

    Raises:
        ParameterError: if one breaks its rule.
    """

    rule: Rule = field(default_factory=Rule)
    parts: int = 5
    trim: float | None = None
    classes: bool | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        problems = [
            text
            for text, holds in {
                f"parts must lie between 2 and 100; got {self.parts}.": 2 <= self.parts <= 100,
                f"trim must be at least 0 and below 0.5; got {self.trim}.": self.trim is None or 0 <= self.trim < 0.5,
            }.items()
            if not holds
        ]
        if problems:
            raise ParameterError(" ".join(problems))


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found.

    Args:
        collection: the images.
        choice: the model, and what it sees.
        options: what the audit was told.
        judged: one for each class, or a single one.
        scores: float64 (n,), deviations above the middle of the normal images.
        p_values: float64 (n,), estimated, or conformal where a reference was given.
        chosen: what was selected.
        classes: the class of each image, or None.
        suspects: images that may bear a wrong label.
        duplicates: images that show the same.
        oddities: images of another size, exposure or sharpness than the others.
        leaks: images that lie in the other folder as well.
        notes: what weakens the result, in sentences.
    """

    collection: Collection
    choice: Choice
    options: AuditOptions
    judged: tuple[Judged, ...]
    scores: NDArray[np.float64]
    p_values: NDArray[np.float64]
    chosen: Chosen
    classes: tuple[str, ...] | None
    suspects: tuple[Suspect, ...]
    duplicates: tuple[Duplicates, ...]
    oddities: tuple[Oddity, ...]
    leaks: tuple[Leak, ...]
    notes: tuple[str, ...]


def audit_images(
    sources: Sequence[str | Path],
    settings: Settings,
    options: AuditOptions,
    *,
    exclude: Sequence[str | Path] = (),
    reference: Sequence[str | Path] = (),
    against: Sequence[str | Path] = (),
    groups: Callable[[list[str]], NDArray[np.int64]] | None = None,
    partial: Callable[[str], Partial] | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Find what is odd among images of which nobody knows that they are normal.

    Every image is scored by a model that was fitted without it, and without images that looked odd.

    Args:
        sources: files, folders, globs, archives, arrays.
        settings: of the models; threshold rule, budget and checkpoints have no part in it.
        options: of the audit.
        exclude: files and folders to leave out, such as the folder that the result goes to.
        reference: images known to be normal; they turn estimated p-values into conformal ones.
        against: images that should have none in common with the audited ones, such as a test set.
        groups: gives a group number for each of the usable paths; a group is never on both sides of a model.
        partial: where an interrupted audit keeps what it has, for what identifies it.
        progress: told of stages.

    Raises:
        DataError: if no image can be used.
        ParameterError: if a source does not exist, or options do not go together.
        TooFewImagesError: if there are fewer than 20 images.
        TrainingError: if training diverges.
    """
    settings.check()
    if settings.fit == "tile":
        msg = "fit='tile' cuts images into pieces; an audit judges whole ones. Use letterbox or stretch."
        raise ParameterError(msg)
    progress = progress or Progress()
    # What is wrong with any of the folders is said before an image is read.
    counts = [require_images(given, exclude=exclude) for given in (sources, reference, against) if given]
    looked = survey(iter_images(sources, exclude=exclude), counts[0], max_pixels=settings.max_pixels)
    if not looked.n_usable:
        reasons = "; ".join(f"{number} × {reason}" for reason, number in list(looked.reasons.items())[:3])
        msg = f"no image in {_named(sources)} can be used: {reasons}."
        raise DataError(msg)
    choice = choose(settings, looked)
    if "forgive" in choice.spec.options and (by_appearance(choice) or _trim(choice, options)):
        # What trains is without the oddest: forgiving would make rare normal images look worse than they are.
        settings = replace(settings, options={"forgive": 0.0} | settings.options)
    progress.say(f"{choice.spec.name}, {choice.reason}.")
    read = bind(_read, preparation=choice.preparation, settings=settings, progress=progress)
    collection = read(sources, exclude=exclude, measured=True)
    if len(collection) < LEAST_SCORES:
        msg = (
            f"{len(collection):,} usable images are too few for an audit; it takes {LEAST_SCORES:,} to tell what is "
            "usual among them. Add images, or fit to normal ones and use find."
        )
        raise TooFewImagesError(msg)
    classes = _classes(collection, sources, options)
    if classes and reference:
        msg = (
            "--reference gives p-values for one kind of normal image, and each class is judged by itself here. Audit "
            "one class at a time, or add --no-classes."
        )
        raise ParameterError(msg)
    known = read(reference) if reference else None
    leaks = find_leaks(collection, read(against)) if against else []
    same = alike(collection)
    grouping = join_groups(
        np.arange(len(collection)),
        *([same] if settings.find_duplicates else []),
        *([groups(collection.paths)] if groups else []),
    )
    work = partial(_identity(collection, settings, options)) if partial else None
    sets = _sets(classes, len(collection))
    judged = _judge_all(collection, grouping, sets, choice, settings, options, work, progress)
    scores, estimated = np.empty(len(collection)), np.empty(len(collection))
    for item in judged:
        scores[item.members] = item.scores
        estimated[item.members] = p_of(scores[item.members])
    p_values = estimated if known is None else _conformal(scores, judged[0], known, choice)
    chosen = choose_images(scores, p_values, options.rule, reference=0 if known is None else len(known))
    suspects = _suspects(collection, judged, classes, estimated, choice, progress) if classes else []
    return Audit(
        collection=collection,
        choice=choice,
        options=options,
        judged=judged,
        scores=scores,
        p_values=p_values,
        chosen=chosen,
        classes=tuple(classes) if classes else None,
        suspects=tuple(suspects),
        duplicates=tuple(find_duplicates(collection, same)),
        oddities=tuple(find_oddities(collection.paths, collection.measures)),
        leaks=tuple(leaks),
        notes=(*_notes(collection, classes, judged, chosen), *_reference_notes(collection, known, chosen)),
    )


def _trim(choice: Choice, options: AuditOptions) -> float:
    return usual_trim(choice) if options.trim is None else options.trim


def _named(sources: Sequence[str | Path]) -> str:
    return ", ".join(map(str, list(sources)[:3])) + (", …" if len(sources) > 3 else "")


def _read(
    sources: Sequence[str | Path],
    *,
    preparation: Preparation,
    settings: Settings,
    progress: Progress,
    exclude: Sequence[str | Path] = (),
    measured: bool = False,
) -> Collection:
    count = count_images(sources, exclude=exclude)
    refs = iter_images(sources, exclude=exclude)
    found = collect(
        refs,
        count,
        preparation,
        max_pixels=settings.max_pixels,
        seed=settings.seed,
        progress=progress,
        measured=measured,
        exposure=settings.standardise_exposure,
    )
    found.check(strict=settings.strict)
    return found


def _classes(collection: Collection, sources: Sequence[str | Path], options: AuditOptions) -> list[str] | None:
    if options.classes is False:
        return None
    found = classes_of(collection.paths, sources)
    if found is None and options.classes:
        msg = (
            "--classes needs each image in one of 2 to 100 subfolders of at least 30 images each. Sort them so, or "
            "leave --classes away."
        )
        raise ParameterError(msg)
    return found


def _sets(classes: Sequence[str] | None, count: int) -> dict[str, NDArray[np.int64]]:
    if classes is None:
        return {"": np.arange(count)}
    names, inverse = np.unique(np.array(classes), return_inverse=True)
    return {str(name): np.flatnonzero(inverse == index) for index, name in enumerate(names)}


def _identity(collection: Collection, settings: Settings, options: AuditOptions) -> str:
    """What two audits share that may go on with each other's work."""
    about = {
        "procedure": [_PROCEDURE, oddment.__version__],
        "images": collection.fingerprint(),
        "paths": hashlib.sha256("\0".join(collection.paths).encode()).hexdigest(),
        "settings": asdict(settings),
        "options": {key: value for key, value in asdict(options).items() if key != "rule"},
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()


def _judge_all(
    collection: Collection,
    grouping: NDArray[np.int64],
    sets: dict[str, NDArray[np.int64]],
    choice: Choice,
    settings: Settings,
    options: AuditOptions,
    work: Partial | None,
    progress: Progress,
) -> tuple[Judged, ...]:
    trim = _trim(choice, options)
    done, total = 0, len(sets) * fits(choice, parts=options.parts, trim=trim, model=settings.model)
    progress.start("Scoring each image by models that have not seen it", total)
    judged = []
    for number, (name, members) in enumerate(sets.items()):

        def told(phrase: str, name: str = name) -> None:
            nonlocal done
            progress.update(done, f"{name}: {phrase}" if name else phrase)
            done += 1

        crossed = cross_fit(
            collection,
            members,
            grouping[members],
            choice,
            settings,
            parts=options.parts,
            trim=trim,
            partial=work,
            name=str(number),
            told=told,
        )
        judged.append(Judged.of(name, members, crossed))
    progress.update(total)
    progress.finish()
    return tuple(judged)


def _conformal(scores: NDArray[np.float64], judged: Judged, known: Collection, choice: Choice) -> NDArray[np.float64]:
    """P-values against images that are known to be normal.

    Each of them is scored by every model, and the highest of its scores counts: against the scores of any single model
    the p-value would be exact, against the highest it is at least as large.
    """
    everything = np.arange(len(known))
    highest = np.max([item for _, item in judged.judge(choice, known, everything)], axis=0)
    return conformal_p_values(scores, np.sort(highest))


def _suspects(
    collection: Collection,
    judged: Sequence[Judged],
    classes: Sequence[str],
    p_values: NDArray[np.float64],
    choice: Choice,
    progress: Progress,
) -> list[Suspect]:
    odd = np.flatnonzero(p_values < _TRIED_ELSEWHERE)
    elsewhere: dict[int, dict[str, float]] = {int(index): {} for index in odd}
    progress.start("Trying odd images under the other classes", len(judged))
    for number, item in enumerate(judged):
        progress.update(number, item.name)
        others = np.array([index for index in odd.tolist() if classes[index] != item.name], dtype=np.int64)
        if others.size:
            _, found = next(item.judge(choice, collection, others))
            for index, p in zip(others.tolist(), p_of(found).tolist(), strict=True):
                elsewhere[index][item.name] = p
    progress.finish()
    return find_suspects(collection.paths, classes, p_values.tolist(), elsewhere)


def _reference_notes(collection: Collection, known: Collection | None, chosen: Chosen) -> list[str]:
    """What weakens the promise that a reference makes."""
    if known is None:
        return []
    notes = []
    count, batch, rate = len(known), len(collection), chosen.rule.value
    fewest = math.ceil(round(batch / (rate * (count + 1)), 9)) if chosen.rule.kind == "fdr" else 1
    if fewest > batch:
        notes.append(
            f"{count:,} reference images are too few for fdr={rate:g}: nothing can be selected, whatever is in the "
            f"folder. It takes {math.ceil(round(1 / rate, 9)) - 1:,} at least, and {math.ceil(batch / rate) - 1:,} to "
            "select a single image."
        )
    elif fewest > 1:
        notes.append(
            f"With {count:,} reference images no p-value is below {1 / (count + 1):.2g}: of these {batch:,} images "
            f"none is selected, or at least {fewest:,} together. {math.ceil(batch / rate) - 1:,} would allow one."
        )
    shared = len({item.other for item in find_leaks(collection, known)})
    if shared:
        notes.append(
            f"{shared:,} of the {count:,} reference images lie in the audited folder as well, exactly or nearly: "
            "models have seen them, their scores are too low and p-values too small. Give images that were not audited."
        )
    return notes


def _notes(
    collection: Collection,
    classes: Sequence[str] | None,
    judged: Sequence[Judged],
    chosen: Chosen,
) -> tuple[str, ...]:
    notes = []
    if classes:
        names = ", ".join(item.name for item in judged[:5]) + (", …" if len(judged) > 5 else "")
        notes.append(
            f"{len(judged):,} subfolders were taken for classes ({names}): each image is judged among those of its "
            "own. --no-classes judges all together."
        )
    if chosen.rule.kind == "fdr" and not chosen.reference and chosen.count > 0.3 * len(collection):
        notes.append(
            f"{chosen.count / len(collection):.0%} of the images were selected: there may be several kinds of normal "
            "image here, of which the rarer ones count as odd. Audit them apart, or sort them into subfolders."
        )
    small = [item.name or "the folder" for item in judged if len(item.members) < 100]
    if small and chosen.rule.kind == "fdr" and not chosen.reference:
        notes.append(
            f"Fewer than 100 images in {', '.join(small[:5])}: what normal scores look like is then a rough estimate. "
            "Trust the order more than the selection."
        )
    left = sum(int(item.crossed.trimmed.sum()) for item in judged)
    if left:
        notes.append(
            f"The models were fitted without the {left:,} images that look oddest; they were scored all the same."
        )
    return tuple(notes)
