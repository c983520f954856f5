"""System 2: a digit that training never saw, and articles of clothing, without an anomaly or a label used anywhere.

Source: the ReNom tutorial on anomaly detection with an autoencoder. Its layers are lost in the document; 784 → 32
relu → 784 sigmoid with Glorot's start reproduces the published losses and is taken to be the model. ReNom's mean
squared error is the sum of squares over 2N, 392 times the mean over the pixels of 28×28 images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from oddment import plot
from oddment.calibration import ThresholdRule
from oddment.recipes._base import UNKNOWN, Call, Claim, Option, Recipe, Run, register, verdict
from oddment.recipes._data import digits, fashion, only
from oddment.recipes._report import number, over_seeds
from oddment.recipes._training import Trained, fit_as_keras, parameters_of, watched
from oddment.report.page import Grid, Section

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["RECIPE"]

FASHION = "fashion"
_RENOM = 392  # half of 28·28
_PUBLISHED = {
    "train": {10: 4.024, 20: 3.847, 30: 3.792, 40: 3.756, 50: 3.732},
    "test": {10: 3.856, 20: 3.721, 30: 3.675, 40: 3.649, 50: 3.634},
}
_WITHIN = 0.02
_SOURCE = "ReNom tutorial, printed output"


def experiment(call: Call) -> Run:
    """Train without one digit, take the largest training error as the threshold, judge eleven classes."""
    options = call.options
    train, test, articles = (
        digits("train", quick=call.quick),
        digits("test", quick=call.quick),
        fashion("test", quick=call.quick),
    )
    normal = train.images[train.labels != options["held-out"]]
    # The original watches the loss of test data without the digit that it holds out.
    unseen = test.images[test.labels != options["held-out"]]
    trained = fit_as_keras(
        call,
        np.concatenate([normal, unseen]),
        watched(len(normal), len(unseen)),
        "dense",
        options={"hidden": (32,)},
        epochs=options["epochs"],
        batch_size=options["batch-size"],
        learning_rate=options["learning-rate"],
        rule=ThresholdRule("max_normal", options["margin"], "training"),
    )
    each = options["per-class"]
    by_class = {str(label): only(test, label)[:each] for label in range(10)} | {FASHION: articles.images[:each]}
    labels = [name for name, images in by_class.items() for _ in images]
    shown = np.concatenate(list(by_class.values()))
    scores = trained.scorer.anomaly_score(shown).astype(np.float64)
    run = Run(
        data=f"{len(normal):,} digits train, {len(unseen):,} are watched, {len(shown):,} images test"
        f"{' (embedded sample)' if call.quick else ' (MNIST, Fashion-MNIST)'}"
    )
    _measure(run, trained, scores, np.array(labels), str(options["held-out"]))
    if call.draws:
        _draw(run, trained, by_class, scores, labels, str(options["held-out"]))
    return run


def _measure(run: Run, trained: Trained, scores: NDArray[np.float64], labels: NDArray[np.str_], held_out: str) -> None:
    threshold = trained.scorer.threshold_
    flagged = scores > threshold  # the original: error <= threshold is normal
    odd = {held_out, FASHION}
    right = flagged == np.isin(labels, list(odd))
    is_digit = ~np.isin(labels, list(odd))
    run.figures = {
        "threshold": threshold,
        "accuracy, normal digits": float(right[is_digit].mean()),
        f"accuracy, digit {held_out}": float(right[labels == held_out].mean()),
        "accuracy, fashion": float(right[labels == FASHION].mean()),
        "false positives among normal digits": float(flagged[is_digit].sum()),
        "normal digits judged": float(is_digit.sum()),
    }
    for row in trained.history:
        if row["number"] % 10 == 0 or row["number"] == len(trained.history):
            for kind, key in (("train", "training_loss"), ("test", "validation_loss")):
                run.figures[f"{kind} loss, epoch {row['number']}"] = _RENOM * row[key]
    run.rows = [
        {
            "index": index,
            "class": labels[index],
            "error": repr(float(scores[index])),
            "verdict": "anomaly" if flagged[index] else "normal",
            "right": bool(right[index]),
        }
        for index in range(len(scores))
    ]
    rows = [
        (
            name,
            str(int((labels == name).sum())),
            str(int(flagged[labels == name].sum())),
            number(float(right[labels == name].mean())),
        )
        for name in dict.fromkeys(labels.tolist())
    ]
    run.sections.append(
        Section(
            "Classes",
            (f"Threshold {number(threshold)}: the largest training error plus the margin.",),
            Grid(("class", "images", "flagged", "accuracy"), rows),
        )
    )


def _draw(
    run: Run,
    trained: Trained,
    by_class: dict[str, NDArray[np.uint8]],
    scores: NDArray[np.float64],
    labels: list[str],
    held_out: str,
) -> None:
    names = list(by_class)
    first = np.stack([by_class[name][0] for name in names])
    redrawn = list(trained.scorer.reconstruct(first))
    run.pictures["reconstructions.png"] = (
        plot.reconstructions(list(first), redrawn, labels=names, scores=trained.scorer.anomaly_score(first)),
        "One original of each class, what was redrawn of it, and its error.",
    )
    run.pictures["errors.png"] = (
        plot.error_by_index(
            scores,
            labels,
            anomalies=[held_out, FASHION],
            threshold=trained.scorer.threshold_,
            y="mean squared error",
            log=False,
            heading="Error of every test image, class by class",
        ),
        f"The error of every test image; the held-out {held_out} and fashion on coloured bands, the threshold dashed.",
    )
    run.pictures["loss.png"] = (
        plot.loss_curves(
            {
                "training": [_RENOM * row["training_loss"] for row in trained.history],
                "test": [_RENOM * row["validation_loss"] for row in trained.history],
            },
            heading="Loss, in ReNom's unit",
        ),
        "The loss over the epochs: half the sum of squares of an image.",
    )
    is_digit = ~np.isin(labels, [held_out, FASHION])
    run.pictures["histogram.png"] = (
        plot.score_histogram(scores[is_digit], scores[~is_digit], threshold=trained.scorer.threshold_),
        "The errors of normal digits and of the two anomalous classes: where the threshold would have to be.",
    )


def claims(runs: Sequence[Run], options: Mapping[str, Any]) -> Iterator[Claim]:
    """Judge the published losses and accuracies."""
    for kind, published in _PUBLISHED.items():
        for epoch, loss in published.items():
            values = [run.figures[name] for run in runs if (name := f"{kind} loss, epoch {epoch}") in run.figures]
            text = f"{kind} loss {loss} at epoch {epoch}"
            if not values:
                yield Claim(text, _SOURCE, "–", UNKNOWN, f"only {options['epochs']} epochs were run")
                continue
            away = abs(np.mean(values) / loss - 1)
            yield Claim(
                text,
                _SOURCE,
                over_seeds(values),
                verdict(bool(away <= _WITHIN)),
                f"{away:.1%} away; within {_WITHIN:.0%} counts as the same",
            )
    held = str(options["held-out"])
    missed = [run.figures[f"accuracy, digit {held}"] for run in runs]
    yield Claim(
        "the 5s: accuracy 0.00, not detected at all",
        _SOURCE,
        over_seeds(missed),
        verdict(float(np.mean(missed)) < 0.005) if held == "5" else UNKNOWN,
        "the largest of some 54,000 training errors lies above almost any 5",
    )
    alarms = [run.figures["false positives among normal digits"] for run in runs]
    yield Claim(
        "normal digits: no false positive",
        _SOURCE,
        f"{over_seeds(alarms)} of {number(runs[0].figures['normal digits judged'])}",
        verdict(max(alarms) == 0),
        "the same high threshold is what keeps false positives away",
    )
    found = [run.figures["accuracy, fashion"] for run in runs]
    yield Claim(
        'fashion: "almost correctly"',
        _SOURCE,
        over_seeds(found),
        verdict(float(np.mean(found)) >= 0.9),
        "an accuracy of 0.9 and more is taken for almost correct",
    )
    total = sum(parameters_of("dense", (1, 28, 28), {"hidden": (32,)}))
    yield Claim(
        "50,992 parameters",
        "inferred from the published losses",
        f"{total:,}",
        verdict(total == 50_992),
        "counted as Keras does",
        needs_full=False,
    )


RECIPE = register(
    Recipe(
        name="held-out-digit",
        title="a digit that training never saw",
        question="Can the digit 5, never seen in training, and Fashion-MNIST articles be detected, with no anomaly and "
        "no label used for training or for the threshold?",
        source="the ReNom tutorial on anomaly detection with an autoencoder",
        setup=(
            (
                "A dense autoencoder, 784 → 32 relu → 784 sigmoid, is trained on all MNIST training images but the "
                "5s. The "
                "threshold is the largest error of any training image, plus a margin. The first 100 test images of "
                "each "
                "digit and 100 articles are judged."
            ),
        ),
        options=(
            Option("held-out", 5, "the digit that training never sees", least=0, below=10),
            Option("epochs", 50, "passes over the training images", least=1),
            Option("batch-size", 128, "images a step", least=1),
            Option("learning-rate", 0.001, "of Adam", least=1e-9),
            Option("margin", 0.0, "added to the largest training error"),
            Option("per-class", 100, "test images of each class", least=1),
        ),
        quick={"epochs": 4, "per-class": 40},
        minutes=2.5,
        experiment=experiment,
        claims=claims,
    )
)
