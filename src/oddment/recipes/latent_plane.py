"""System 3: sevens are normal, fives are not; a latent of two numbers that can be drawn as a plane.

Source: an industrial-AI lecture notebook on autoencoders and anomaly detection. It also teaches Gaussian densities, one
number at a time and all together; here they are fitted to the latents of the training images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from oddment import plot
from oddment.calibration import ThresholdRule
from oddment.metrics import auroc
from oddment.recipes._base import Call, Claim, Option, Recipe, Run, register, verdict
from oddment.recipes._data import digits, only
from oddment.recipes._report import number, over_seeds
from oddment.recipes._training import Trained, fit_as_keras, parameters_of, watched
from oddment.report.page import Grid, Section

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["RECIPE"]

_SOURCE = "lecture notebook, figures and text"


def experiment(call: Call) -> Run:
    """Train on one digit, judge it and another by the reconstruction error."""
    options = call.options
    train, test = digits("train", quick=call.quick), digits("test", quick=call.quick)
    normal = only(train, options["normal"])
    seen = {kind: only(test, options[kind])[: options["test-images"]] for kind in ("normal", "abnormal")}
    # The threshold is one of the root of the error where the scores are; the model file keeps the error itself.
    fixed = options["threshold"] ** 2 if options["score"] == "rmse" else options["threshold"]
    trained = fit_as_keras(
        call,
        np.concatenate([normal, seen["normal"]]),
        watched(len(normal), len(seen["normal"])),
        "latent-plane",
        epochs=options["epochs"],
        batch_size=options["batch-size"],
        rule=ThresholdRule("fixed", fixed),
    )
    errors = {kind: trained.scorer.anomaly_score(images).astype(np.float64) for kind, images in seen.items()}
    scores = {kind: np.sqrt(values) if options["score"] == "rmse" else values for kind, values in errors.items()}
    run = Run(
        data=f"{len(normal):,} images of {options['normal']} train, {len(seen['normal'])} others and "
        f"{len(seen['abnormal'])} of {options['abnormal']} test"
        f"{' (embedded sample)' if call.quick else ' (MNIST)'}"
    )
    _measure(run, scores, options["threshold"])
    _densities(run, trained, normal, seen)
    if call.draws:
        _draw(run, call, trained, seen, scores)
    return run


def _measure(run: Run, scores: dict[str, NDArray[np.float64]], threshold: float) -> None:
    normal, abnormal = scores["normal"], scores["abnormal"]
    every, truth = np.concatenate([normal, abnormal]), np.arange(len(normal) + len(abnormal)) >= len(normal)
    # Every threshold that changes a verdict lies at a score.
    best = max((((every > level) == truth).mean(), level) for level in every)
    run.figures = {
        "mean score, normal": float(normal.mean()),
        "mean score, abnormal": float(abnormal.mean()),
        "AUROC": auroc(every, truth),
        "accuracy at the threshold": float(((every > threshold) == truth).mean()),
        "normal images above the threshold": float((normal > threshold).mean()),
        "abnormal images above the threshold": float((abnormal > threshold).mean()),
        "accuracy of the best threshold": float(best[0]),
        "best threshold": float(best[1]),
    }
    run.rows = [
        {
            "index": index,
            "truth": "abnormal" if odd else "normal",
            "score": repr(float(score)),
            "verdict": "anomaly" if score > threshold else "normal",
        }
        for index, (score, odd) in enumerate(zip(every, truth, strict=True))
    ]


def _densities(run: Run, trained: Trained, normal: NDArray[np.uint8], seen: dict[str, NDArray[np.uint8]]) -> None:
    """Gaussian densities of the latent: each number on its own, and all with their covariance."""
    latents = trained.scorer.latent(normal).astype(np.float64)
    mean, covariance = latents.mean(0), np.cov(latents, rowvar=False)
    shown = np.concatenate([trained.scorer.latent(images) for images in seen.values()]) - mean
    truth = np.arange(len(shown)) >= len(seen["normal"])
    # Minus twice the logarithm of the density, constants left out: the same order, and higher is odder.
    alone = (shown**2 / np.diag(covariance)).sum(1)
    together = np.einsum("ni,ij,nj->n", shown, np.linalg.inv(covariance), shown)
    run.figures |= {
        "univariate Gaussian of the latent: AUROC": auroc(alone, truth),
        "multivariate Gaussian of the latent: AUROC": auroc(together, truth),
    }
    names = {
        "reconstruction error": "AUROC",
        "univariate Gaussian of the latent": "univariate Gaussian of the latent: AUROC",
        "multivariate Gaussian of the latent": "multivariate Gaussian of the latent: AUROC",
    }
    rows = [(name, number(run.figures[key])) for name, key in names.items()]
    words = (
        (
            "The univariate density multiplies one Gaussian a number and sees no relation between them; the "
            "multivariate one "
            "has their covariance, needs more images than numbers squared, and is as wrong where the latents are "
            "not Gaussian."
        ),
    )
    run.sections.append(Section("Scores compared", words, Grid(("score", "AUROC"), rows)))


def _draw(
    run: Run, call: Call, trained: Trained, seen: dict[str, NDArray[np.uint8]], scores: dict[str, NDArray[np.float64]]
) -> None:
    options, rng = call.options, np.random.default_rng(call.seed)
    names = {kind: f"{kind}: {options[kind]}" for kind in seen}
    odd, unit = [names["abnormal"]], "root mean squared error" if options["score"] == "rmse" else "mean squared error"
    for kind, images in seen.items():
        run.pictures[f"examples-{kind}.png"] = (
            plot.sample_strip(list(images[:10]), heading=names[kind]),
            f"Examples of {names[kind]}.",
        )
        redrawn = list(trained.scorer.reconstruct(images[:5]))
        run.pictures[f"redrawn-{kind}.png"] = (
            plot.reconstructions(list(images[:5]), redrawn, scores=scores[kind][:5], heading=names[kind]),
            f"Five images of {names[kind]} as they are redrawn, with their error.",
        )
    draws = {"normal": 1000, "abnormal": 50}
    latents = {kind: trained.scorer.latent(images) for kind, images in seen.items()}
    points = {kind: latents[kind][rng.integers(len(latents[kind]), size=count)] for kind, count in draws.items()}
    run.pictures["latent.png"] = (
        plot.latent_scatter(
            np.concatenate(list(points.values())),
            [names[kind] for kind, count in draws.items() for _ in range(count)],
            anomalies=odd,
            heading="Latent plane",
        ),
        "1,000 draws of normal and 50 of abnormal test images, with replacement, in the latent plane.",
    )
    labels = [names[kind] for kind, values in scores.items() for _ in values]
    run.pictures["errors.png"] = (
        plot.error_by_index(
            np.concatenate(list(scores.values())),
            labels,
            anomalies=odd,
            log=False,
            y=unit,
            threshold=options["threshold"],
            heading="Error against index",
        ),
        "The error of every test image; the threshold dashed.",
    )
    run.pictures["model.png"] = (plot.model_diagram("latent-plane", (1, 28, 28)), "The layers of the model.")
    run.pictures["loss.png"] = (
        plot.loss_curves(trained.history, heading="Loss"),
        "The loss on training images and on the normal test images.",
    )


def claims(runs: Sequence[Run], options: Mapping[str, Any]) -> Iterator[Claim]:
    """Judge what the notebook says."""
    normal = [run.figures["mean score, normal"] for run in runs]
    abnormal = [run.figures["mean score, abnormal"] for run in runs]
    holds = all(low < high for low, high in zip(normal, abnormal, strict=True))
    yield Claim(
        "7s reconstruct better than 5s",
        _SOURCE,
        f"mean error {over_seeds(normal)} against {over_seeds(abnormal)}",
        verdict(holds),
        f"the mean error of the normal digit is the lower one with {'every seed' if holds else 'not every seed'}",
    )
    best = [run.figures["accuracy of the best threshold"] for run in runs]
    at = [run.figures["accuracy at the threshold"] for run in runs]
    most = float(np.mean(at)) >= 0.75
    yield Claim(
        "a horizontal line separates most of them",
        _SOURCE,
        f"right at {options['threshold']:g}: {over_seeds(at)}; at the best line, chosen with the labels: "
        f"{over_seeds(best)}",
        verdict(most),
        "three quarters right is taken for most; half is chance",
    )
    for part, total, published in zip(
        ("encoder", "decoder"), parameters_of("latent-plane", (1, 28, 28)), (25_090, 26_369), strict=True
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
        name="latent-plane",
        title="sevens, fives and a latent plane",
        question="Normal is the digit 7, abnormal the digit 5: what does the two-dimensional latent space look "
        "like, and "
        "does the reconstruction error tell them apart?",
        source="an industrial-AI lecture notebook on autoencoders and anomaly detection",
        setup=(
            (
                "A convolutional autoencoder with two latent numbers is trained on the 7s. The first 200 test 7s "
                "and the first "
                "200 test 5s are scored; the threshold is the notebook's, chosen by eye from its plot."
            ),
        ),
        options=(
            Option("normal", 7, "the digit that is normal", least=0, below=10),
            Option("abnormal", 5, "the digit that is not", least=0, below=10),
            Option("epochs", 10, "passes over the training images", least=1),
            Option("batch-size", 32, "images a step", least=1),
            Option("threshold", 0.05, "errors above are anomalies"),
            Option("test-images", 200, "test images of each digit", least=2),
            Option("score", "mse", "mse or rmse", ("mse", "rmse")),
        ),
        quick={"epochs": 3, "test-images": 50},
        minutes=0.8,
        experiment=experiment,
        claims=claims,
    )
)
