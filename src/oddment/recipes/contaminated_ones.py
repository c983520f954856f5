"""System 5: find the threes among the ones, in a set that nobody has labelled.

Source: Rosebrock, "Anomaly detection with Keras, TensorFlow, and Deep Learning", PyImageSearch (2020). Differs in
that the data set is saved as a plain array, images.npy, where the original writes a pickle. It names Isolation Forest,
One-class SVM, Elliptic Envelope and Local Outlier Factor as the classical alternatives: `oddment compare --baselines`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from oddment import plot
from oddment.calibration import ThresholdRule
from oddment.recipes._base import UNKNOWN, Call, Claim, Option, Recipe, Run, register, verdict
from oddment.recipes._data import digits, only
from oddment.recipes._report import number, over_seeds
from oddment.recipes._training import fit_as_keras, parameters_of
from oddment.report.page import Grid, Section
from oddment.scorer import Scorer, load
from oddment.training.split import Split

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["RECIPE"]

_LOSSES = {1: 0.0405, 3: 0.0088, 4: 0.0037, 20: 0.0019}
_SOURCE = "PyImageSearch, printed output"
_MOST_DRAWN = 20


def experiment(call: Call) -> Run:
    """Build the contaminated set, train, save, load again, and look at what scores highest."""
    options = call.options
    images, odd = _contaminated(call)
    _train(call, images)
    # The second command of the original: nothing but the two files is known from here on.
    scorer, images = load(call.out / options["model"]), np.load(call.out / options["dataset"], allow_pickle=False)
    scores = scorer.anomaly_score(images).astype(np.float64)
    threshold = float(np.quantile(scores, options["quantile"]))
    flagged = scores >= threshold
    run = Run(
        data=f"{int((~odd).sum()):,} images of {options['valid']} and {int(odd.sum())} of {options['anomaly']}, "
        f"unlabelled{' (embedded sample)' if call.quick else ' (MNIST)'}"
    )
    history = scorer.model.info["training"]["history"]
    run.figures = {
        "threshold": threshold,
        "outliers": float(flagged.sum()),
        "outliers that are contaminants": float((flagged & odd).sum()),
        "contaminants in the set": float(odd.sum()),
        "contaminants among as many top scores": float(odd[np.argsort(-scores, kind="stable")[: odd.sum()]].sum()),
        "seconds of training": float(scorer.model.info["training"]["seconds"]),
    } | {f"validation loss, epoch {row['number']}": float(row["validation_loss"]) for row in history}
    run.rows = [
        {
            "index": index,
            "truth": "anomaly" if odd[index] else "valid",
            "error": repr(float(scores[index])),
            "outlier": bool(flagged[index]),
        }
        for index in range(len(images))
    ]
    again = f"oddment find {options['dataset']} -m {options['model']} -o found/"
    run.sections.append(
        Section(
            "Outliers",
            (
                f"Threshold {number(threshold)}, the {options['quantile']:g} quantile of all errors.",
                f"The same by hand, in the folder of this report: {again}; oddment threshold changes the quantile.",
            ),
            Grid(
                ("image", "error", "truly"),
                [
                    (f"[{index}]", number(scores[index]), "anomaly" if odd[index] else "valid")
                    for index in np.argsort(-scores, kind="stable")[: flagged.sum()]
                ][:50],
            ),
        )
    )
    if call.draws:
        _draw(run, call, scorer, images, scores, flagged)
    return run


def _contaminated(call: Call) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """All images of the valid digit with a few of the other among them, shuffled; and which those are."""
    options, rng = call.options, np.random.default_rng(call.seed)
    train = digits("train", quick=call.quick)
    valid, others = only(train, options["valid"]), only(train, options["anomaly"])
    # The original rounds down: 67 for 6,742.
    chosen = rng.permutation(len(others))[: math.floor(len(valid) * options["contam"])]
    images = np.concatenate([valid, others[chosen]])
    order = rng.permutation(len(images))
    return images[order], order >= len(valid)


def _train(call: Call, images: NDArray[np.uint8]) -> None:
    """Fit to four fifths, watch the last; write model and data set."""
    options = call.options
    held = math.ceil(0.2 * len(images))  # as scikit-learn's train_test_split rounds
    order = np.random.default_rng(call.seed + 1).permutation(len(images))
    split = Split(np.sort(order[held:]), np.sort(order[:held]), order[:0], 0)
    trained = fit_as_keras(
        call,
        images,
        split,
        "conv-strided",
        epochs=options["epochs"],
        batch_size=options["batch-size"],
        learning_rate=options["learning-rate"],
        schedule="inverse-time",
        decay=options["learning-rate"] / options["epochs"],
        rule=ThresholdRule("quantile", options["quantile"], "training"),
    )
    trained.scorer.save(call.out / options["model"])
    np.save(call.out / options["dataset"], images, allow_pickle=False)


def _draw(
    run: Run,
    call: Call,
    scorer: Scorer,
    images: NDArray[np.uint8],
    scores: NDArray[np.float64],
    flagged: NDArray[np.bool_],
) -> None:
    options, rng = call.options, np.random.default_rng(call.seed)
    run.pictures[options["plot"]] = (
        plot.loss_curves(scorer.model.info["training"]["history"], heading="Loss"),
        "Training and validation loss.",
    )
    chosen = rng.choice(len(images), min(10, len(images)), replace=False)
    run.pictures[options["vis"]] = (
        plot.reconstructions(
            list(images[chosen]), list(scorer.reconstruct(images[chosen])), layout="stack", scores=scores[chosen]
        ),
        "Ten originals beside their reconstructions, with their error.",
    )
    top = np.argsort(-scores, kind="stable")[: min(int(flagged.sum()), _MOST_DRAWN)]
    more = int(flagged.sum()) - len(top)
    run.pictures["outliers.png"] = (
        plot.reconstructions(
            list(images[top]),
            list(scorer.reconstruct(images[top])),
            layout="stack",
            labels=[f"[{index}]" for index in top],
            scores=scores[top],
        ),
        "Every outlier beside its reconstruction, highest error first"
        + (f"; {more:,} more are in results.csv." if more else "."),
    )
    odd = np.array([row["truth"] == "anomaly" for row in run.rows])
    run.pictures["histogram.png"] = (
        plot.score_histogram(scores[~odd], scores[odd], threshold=run.figures["threshold"]),
        "The errors of the valid images and of the contaminants, with the threshold.",
    )
    run.pictures["model.png"] = (plot.model_diagram("conv-strided", (1, 28, 28)), "The layers of the model.")


def claims(runs: Sequence[Run], options: Mapping[str, Any]) -> Iterator[Claim]:
    """Judge the printed losses and counts."""
    for epoch, loss in _LOSSES.items():
        values = [run.figures[name] for run in runs if (name := f"validation loss, epoch {epoch}") in run.figures]
        text = f"validation loss {loss} at epoch {epoch}"
        if not values:
            yield Claim(text, _SOURCE, "–", UNKNOWN, f"only {options['epochs']} epochs were run")
            continue
        inside = 0.75 * loss <= float(np.mean(values)) <= 1.25 * loss
        yield Claim(text, _SOURCE, over_seeds(values), verdict(inside), "within a quarter counts as the same")
    seconds = [run.figures["seconds of training"] for run in runs]
    yield Claim(
        "training takes about 2 minutes on a 3 GHz Xeon",
        _SOURCE,
        f"{over_seeds(seconds)} s",
        UNKNOWN,
        "another machine, another library",
    )
    levels = [run.figures["threshold"] for run in runs]
    near = 0.75 * 0.0286 <= float(np.mean(levels)) <= 1.25 * 0.0286
    yield Claim(
        "threshold 0.0286 at the quantile 0.999",
        _SOURCE,
        over_seeds(levels),
        verdict(near),
        "within a quarter counts as the same",
    )
    counts = [run.figures["outliers"] for run in runs]
    yield Claim(
        "7 outliers",
        _SOURCE,
        over_seeds(counts),
        verdict(all(count == 7 for count in counts)),
        "the quantile alone fixes this number: of 6,809 errors, 7 lie at or above their 0.999 quantile, "
        "whatever the model is worth",
    )
    found = [run.figures["outliers that are contaminants"] for run in runs]
    there = over_seeds([run.figures["contaminants in the set"] for run in runs])
    yield Claim(
        "5 of them are true 3s",
        _SOURCE,
        f"{over_seeds(found)}; the set holds {there}",
        verdict(4 <= float(np.mean(found)) <= 6),
        "4 to 6 count as the same; the quantile leaves room for 7 of the 67",
    )
    for part, total, published in zip(
        ("encoder", "decoder"), parameters_of("conv-strided", (1, 28, 28)), (69_392, 109_377), strict=True
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
        name="contaminated-ones",
        title="threes among ones",
        question="In an unlabelled set, all MNIST training 1s with 1 % of 3s among them: can the 3s be found?",
        source='Rosebrock, "Anomaly detection with Keras, TensorFlow, and Deep Learning", PyImageSearch (2020)',
        setup=(
            (
                "ConvAutoencoder with filters (32, 64) and a latent of 16 is trained on four fifths of the "
                "contaminated set "
                "and watched on the rest. Model and data set are saved; then both are loaded, every image is "
                "scored, and "
                "errors at or above a quantile of all errors are outliers."
            ),
        ),
        options=(
            Option("dataset", "images.npy", "the data set to write and read, within OUT"),
            Option("model", "autoencoder.oddment", "the model file to write and read, within OUT"),
            Option("vis", "recon_vis.png", "originals beside reconstructions, within OUT"),
            Option("plot", "recon_plot.png", "loss curves, within OUT"),
            Option("quantile", 0.999, "of the errors: at or above is an outlier", least=1e-9, below=1),
            Option("valid", 1, "the digit that the set consists of", least=0, below=10),
            Option("anomaly", 3, "the digit that contaminates it", least=0, below=10),
            Option("contam", 0.01, "contaminants, as a share of the valid images", least=1e-9, below=1),
            Option("epochs", 20, "passes over the training images", least=1),
            Option("learning-rate", 0.001, "of Adam at first; decays by itself / epochs a step", least=1e-9),
            Option("batch-size", 32, "images a step", least=1),
        ),
        quick={"epochs": 3, "quantile": 0.99},
        minutes=3.3,
        experiment=experiment,
        claims=claims,
    )
)
