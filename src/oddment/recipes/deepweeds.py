"""System 4: eleven Lantana among a thousand Rubber vines, in colour photographs; and why the published result is none.

Source: an article on Medium about anomalies in DeepWeeds. The claim does not hold as published: pixels 0..255 are
compared with a sigmoid's 0..1, the list of all images is zipped with the reconstructions of the test images, and the
check asks whether any pixel of two images coincides. The recipe does it right and runs the article's arithmetic beside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from oddment import plot
from oddment.calibration import ThresholdRule
from oddment.metrics import auroc, average_precision
from oddment.recipes._base import Call, Claim, Option, Recipe, Run, register, verdict
from oddment.recipes._data import Photographs, photographs
from oddment.recipes._report import number, over_seeds
from oddment.recipes._training import Trained, fit_as_keras, parameters_of
from oddment.report.page import Grid, Section
from oddment.training.split import Split

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["RECIPE", "printed_by_the_article"]

_SOURCE = "Medium article, text and printed output"


def experiment(call: Call) -> Run:
    """Hide a few images of one class among another, train, and flag the largest errors; then do as the article does."""
    options = call.options
    found = photographs(call)
    split = _held_back(len(found.images), options["held-back"], call.seed)
    right = _fit(call, found, split)
    scores = right.fitted.scores.astype(np.float64)
    test = split.validation
    threshold = float(np.quantile(scores[test], options["quantile"]))
    flagged = np.zeros(len(scores), dtype=bool)
    flagged[test] = scores[test] >= threshold
    run = Run(data=found.description)
    hidden = int(found.odd.sum())
    run.figures = {
        "held-back images": float(len(test)),
        "anomalies among them": float(found.odd[test].sum()),
        "over the threshold": float(flagged.sum()),
        "of these anomalies": float((flagged & found.odd).sum()),
        "threshold": threshold,
        "anomalies in the set": float(hidden),
        "anomalies among as many top scores of the set": float(
            found.odd[np.argsort(-scores, kind="stable")[:hidden]].sum()
        ),
        "AUROC over the set": auroc(scores, found.odd),
        "average precision over the set": average_precision(scores, found.odd),
    }
    run.rows = [
        {
            "image": name,
            "truth": "anomaly" if odd else "normal",
            "held_back": bool(inside),
            "error": repr(float(score)),
            "flagged": bool(flag),
        }
        for name, odd, inside, score, flag in zip(
            found.names, found.odd, np.isin(np.arange(len(scores)), test), scores, flagged, strict=True
        )
    ]
    epochs = options["article-epochs"] or (options["epochs"] if found.real else min(3, options["epochs"]))
    wrong = _fit(call, found, split, ranges={"uint8": (0.0, 1.0)}, epochs=epochs)
    redrawn = np.asarray(wrong.scorer.reconstruct(found.images[test]), np.float32)
    article = printed_by_the_article(found.images, redrawn, found.odd, options["quantile"])
    run.figures |= {f"the article's arithmetic: {name}": value for name, value in article.items()}
    run.sections.append(_beside(run, hidden))
    if call.draws:
        _draw(run, found, right, scores, split, threshold)
    return run


def _held_back(count: int, share: float, seed: int) -> Split:
    order = np.random.default_rng(seed).permutation(count)
    held = min(count - 1, max(1, round(share * count)))
    return Split(np.sort(order[held:]), np.sort(order[:held]), order[:0], 0)


def _fit(call: Call, found: Photographs, split: Split, **more: Any) -> Trained:  # noqa: ANN401 - fields of Settings
    options = call.options
    return fit_as_keras(
        call,
        found.images,
        split,
        "conv-strided-deep",
        batch_size=options["batch-size"],
        learning_rate=options["learning-rate"],
        schedule="inverse-time",
        decay=options["learning-rate"] / 50,
        rule=ThresholdRule("quantile", options["quantile"], "training"),
        **{"epochs": options["epochs"]} | more,
    )


def printed_by_the_article(
    images: NDArray[np.uint8], redrawn: NDArray[np.float32], odd: NDArray[np.bool_], quantile: float
) -> dict[str, float]:
    """Return what the article's own arithmetic gives.

    Args:
        images: uint8 (N, H, W, C), all of them, unscaled.
        redrawn: float32 (n, H, W, C), reconstructions of the n held-back images, from a sigmoid.
        odd: bool (N,), the truth.
        quantile: of the errors.
    """
    # zip() ends with the shorter list: the first n of *all* images, against the reconstructions of n others.
    errors = np.array(
        [np.mean((image.astype(np.float32) - other) ** 2) for image, other in zip(images, redrawn, strict=False)]
    )
    over = np.flatnonzero(errors >= np.quantile(errors, quantile))
    anomalies = images[odd]
    return {
        "over the threshold": float(len(over)),
        "found to be anomalies by the any-pixel check": _coincide(images[over], anomalies),
        "truly anomalies": float(odd[over].sum()),
        "normal images that pass the same check": _coincide(images[~odd][: len(over)], anomalies),
        "mean error": float(errors.mean()),
        "mean reconstruction, 0 to 1": float(redrawn.mean()),
    }


def _coincide(images: NDArray[np.uint8], anomalies: NDArray[np.uint8]) -> float:
    """How many images share the value of any pixel, at the same place, with any of the anomalies."""
    return float(sum(any(bool((image == other).any()) for other in anomalies) for image in images))


def _beside(run: Run, hidden: int) -> Section:
    figures, own = run.figures, "the article's arithmetic: "
    rows = [
        (
            "images over the threshold",
            number(figures[f"{own}over the threshold"]),
            number(figures["over the threshold"]),
            "5 % of the held-back images lie over their 95 % quantile, whatever the errors are",
        ),
        (
            "of these, said to be anomalies",
            number(figures[f"{own}found to be anomalies by the any-pixel check"]),
            number(figures["of these anomalies"]),
            (
                "the article asks whether any pixel coincides with one of an anomaly: "
                f"{number(figures[f'{own}normal images that pass the same check'])} normal images pass the check as "
                f"well"
            ),
        ),
        (
            "of these, truly anomalies",
            number(figures[f"{own}truly anomalies"]),
            number(figures["of these anomalies"]),
            f"the set hides {hidden}; by the labels",
        ),
        (
            "mean error",
            number(figures[f"{own}mean error"]),
            number(float(np.mean([float(row["error"]) for row in run.rows]))),
            (
                "0..255 against a sigmoid's 0..1: the sigmoid saturates at a mean of "
                f"{number(figures[f'{own}mean reconstruction, 0 to 1'])}, and the error is the image's own brightness"
            ),
        ),
    ]
    words = (
        (
            "The article pairs the first images of the whole list with the reconstructions of the held-back ones: "
            "an image is "
            "compared with what was redrawn of another."
        ),
    )
    return Section(
        "What the article's own arithmetic prints",
        words,
        Grid(("figure", "as in the article", "done right", "why they differ"), rows),
    )


def _draw(
    run: Run, found: Photographs, right: Trained, scores: NDArray[np.float64], split: Split, threshold: float
) -> None:
    test = split.validation
    labels = [found.classes[int(odd)] for odd in found.odd[test]]
    run.pictures["errors.png"] = (
        plot.error_by_index(
            scores[test],
            labels,
            anomalies=[found.classes[1]],
            threshold=threshold,
            log=False,
            y="mean squared error",
            heading="Error of every held-back image",
        ),
        "The error of every held-back image; the 95 % quantile dashed.",
    )
    run.pictures["histogram.png"] = (
        plot.score_histogram(scores[~found.odd], scores[found.odd], threshold=threshold),
        "The errors of all images, anomalies apart.",
    )
    for name, chosen in (
        ("normal", np.flatnonzero(~found.odd)[:5]),
        ("anomalies", np.flatnonzero(found.odd)[:5]),
        ("highest", test[np.argsort(-scores[test])[:5]]),
    ):
        run.pictures[f"redrawn-{name}.png"] = (
            plot.reconstructions(
                list(found.images[chosen]),
                list(right.scorer.reconstruct(found.images[chosen])),
                scores=scores[chosen],
                labels=[found.classes[int(odd)] for odd in found.odd[chosen]],
            ),
            f"Images and what was redrawn of them: {name if name != 'highest' else 'the highest errors held back'}.",
        )
    run.pictures["loss.png"] = (plot.loss_curves(right.history, heading="Loss"), "Training and held-back loss.")
    run.pictures["model.png"] = (plot.model_diagram("conv-strided-deep", (3, 256, 256)), "The layers of the model.")


def claims(runs: Sequence[Run], _: Mapping[str, Any]) -> Iterator[Claim]:
    """Judge the article's result, done right."""
    over = [run.figures["over the threshold"] for run in runs]
    again = over_seeds([run.figures["the article's arithmetic: over the threshold"] for run in runs])
    yield Claim(
        "11 images over the threshold",
        _SOURCE,
        f"{over_seeds(over)}; the article's arithmetic: {again}",
        verdict(all(count == 11 for count in over)),
        "says nothing: of 204 errors, 11 lie at or above their 95 % quantile, whatever they are",
    )
    hits = [run.figures["of these anomalies"] for run in runs]
    there = over_seeds([run.figures["anomalies among them"] for run in runs])
    checked = over_seeds(
        [run.figures["the article's arithmetic: found to be anomalies by the any-pixel check"] for run in runs]
    )
    real = all("look-alikes" not in run.data for run in runs)
    wrong = "pixels unscaled, images zipped with others' reconstructions, and a check that everything passes"
    yield Claim(
        "all 11 of them the anomalies",
        _SOURCE,
        f"{over_seeds(hits)} by the labels, {there} held back; the article's any-pixel check: {checked}",
        verdict(min(hits) >= 11 if real else None) if max(hits) >= 11 else verdict(holds=False),
        wrong + ("" if real else "; on generated images: how many are truly found on photographs is open"),
    )
    for part, total, published in zip(
        ("encoder", "decoder"), parameters_of("conv-strided-deep", (3, 256, 256)), (2_121_216, 2_223_587), strict=True
    ):
        yield Claim(
            f"{part} has {published:,} parameters",
            "Keras's summary",
            f"{total:,}",
            verdict(total == published),
            "counted layer by layer, as Keras does",
            needs_full=False,
        )


RECIPE = register(
    Recipe(
        name="deepweeds",
        title="Lantana among Rubber vines",
        question="Can 11 images of Lantana be found among the 1,009 of Rubber vine in DeepWeeds, colour photographs of "
        "256×256 pixels?",
        source="an article on Medium about anomalies in DeepWeeds",
        setup=(
            (
                "A convolutional autoencoder, filters (16, 32, 64) and a latent of 32, is trained on four fifths of "
                "the mixed "
                "images. Held-back images whose error is at or above their 95 % quantile are anomalies."
            ),
        ),
        options=(
            Option("normal", "5", "the class that most images are of, by id or name"),
            Option("anomaly", "1", "the class that is hidden among them"),
            Option("anomalies", 11, "how many of it", least=1),
            Option("normals", 1009, "images of the normal class, at most", least=10),
            Option("size", 0, "side of the images in pixels, a multiple of 8; 0: 256, or 96 for look-alikes", least=0),
            Option("held-back", 0.2, "share of the images that do not train", least=1e-3, below=1),
            Option("epochs", 30, "passes over the training images", least=1),
            Option(
                "article-epochs",
                0,
                "passes of the article's own, unscaled training; 0: as many, or 3 on look-alikes",
                least=0,
            ),
            Option("batch-size", 32, "images a step", least=1),
            Option("learning-rate", 0.001, "of Adam at first; decays by a fiftieth of itself a step", least=1e-9),
            Option("quantile", 0.95, "of the held-back errors: at or above is an anomaly", least=1e-9, below=1),
            Option("data", "", "folder with labels.csv and images; found when empty, else look-alikes are generated"),
        ),
        quick={"anomalies": 4, "normals": 36, "size": 64, "epochs": 2, "batch-size": 8},
        minutes=3.4,
        experiment=experiment,
        claims=claims,
        seeds=1,
    )
)
