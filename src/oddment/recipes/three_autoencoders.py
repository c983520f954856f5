"""System 1: which of three autoencoders tells MNIST digits from Fashion-MNIST articles best?

Source: otenim, AnomalyDetectionUsingAutoencoder (GitHub, 2019). Differs in that the test images are drawn from all
10,000 of each kind; the original permutes within the first `test_samples` only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from oddment import plot
from oddment.metrics import auroc
from oddment.recipes._base import Call, Claim, Option, Recipe, Run, register, verdict
from oddment.recipes._data import FASHION_CLASSES, digits, fashion, first_of_each
from oddment.recipes._report import number, over_seeds
from oddment.recipes._training import Trained, fit_as_keras, parameters_of, watched
from oddment.report.page import Grid, Section

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["RECIPE"]

# The original's name, ours, and the parameters that Keras prints.
MODELS = {
    "autoencoder": ("dense", 101_200),
    "deep_autoencoder": ("dense-deep", 218_192),
    "convolutional_autoencoder": ("conv-pooling", 12_201),
}
DENSE = ("autoencoder", "deep_autoencoder")
CONVOLUTIONAL = "convolutional_autoencoder"
_AS_PUBLISHED: dict[str, dict[str, Any]] = {CONVOLUTIONAL: {"start": "gray"}}
_STOPS = (1, 5, 10, 15, 20)
# Convolutions are slow: a quick run of seconds has room for so many.
_QUICK_IMAGES = 600
_SOURCE = "otenim's README and its result pictures"

_BRIGHTEST = "brightest pixel redrawn of a digit"
_COLLAPSED = (
    "; it redraws everything as black, so that its loss is the image's own brightness: with Adam and the squared "
    "error, its last layer runs into the flat end of the sigmoid within fifty steps, in Keras 3.15 as well"
)


def experiment(call: Call) -> Run:
    """Train the three on digits and draw the loss of as many unseen digits and articles."""
    options, rng = call.options, np.random.default_rng(call.seed)
    train, test, articles = (
        digits("train", quick=call.quick),
        digits("test", quick=call.quick),
        fashion("test", quick=call.quick),
    )
    learnt = train.images[:_QUICK_IMAGES] if call.quick else train.images
    count = min(options["test-samples"], len(test.images), len(articles.images))
    normal = test.images[rng.choice(len(test.images), count, replace=False)]
    abnormal = articles.images[rng.choice(len(articles.images), count, replace=False)]
    images, split = np.concatenate([learnt, normal]), watched(len(learnt), count)
    stops = sorted({stop for stop in _STOPS if stop < options["epochs"]} | {options["epochs"]})
    trained = {
        name: fit_as_keras(
            call,
            images,
            split,
            ours,
            snapshots=stops,
            epochs=options["epochs"],
            batch_size=options["batch-size"],
            optimizer=options["optimizer"],
            loss=options["loss"],
            score="bce" if options["loss"] == "bce" else "model",
            options=_AS_PUBLISHED.get(name, {}),
        )
        for name, (ours, _) in MODELS.items()
    }
    shown = np.concatenate([normal, abnormal])
    losses = {
        stop: {name: model.after[stop].anomaly_score(shown).astype(np.float64) for name, model in trained.items()}
        for stop in stops
    }
    run = Run(
        data=f"{len(learnt):,} digits train, {count} unseen digits and {count} articles test"
        f"{' (embedded sample)' if call.quick else ' (MNIST, Fashion-MNIST)'}"
    )
    _measure(run, losses, count)
    for name, model in trained.items():
        brightest = float(np.asarray(model.scorer.reconstruct(normal)).max())
        run.figures[f"{name}, epoch {max(losses)}: {_BRIGHTEST}"] = brightest
    if call.draws:
        _draw(run, call, losses, count, trained)
        example = np.concatenate([normal[:5], abnormal[:5]])
        for name, model in trained.items():
            run.pictures[f"redrawn-{name}.png"] = (
                plot.reconstructions(
                    list(example),
                    list(model.scorer.reconstruct(example)),
                    scores=model.scorer.anomaly_score(example),
                    heading=name,
                ),
                f"Five digits and five articles as {name} redraws them, with their loss.",
            )
    return run


def _measure(run: Run, losses: dict[int, dict[str, NDArray[np.float64]]], count: int) -> None:
    truth = np.arange(2 * count) >= count
    for stop, by_model in losses.items():
        for name, values in by_model.items():
            normal, abnormal = values[:count], values[count:]
            run.figures |= {
                f"{name}, epoch {stop}: AUROC": auroc(values, truth),
                f"{name}, epoch {stop}: mean loss of abnormal over normal": abnormal.mean() / normal.mean(),
                f"{name}, epoch {stop}: abnormal above every normal": float(np.mean(abnormal > normal.max())),
                f"{name}, epoch {stop}: mean loss of abnormal": abnormal.mean(),
            }
    last = losses[max(losses)]
    run.rows = [
        {"index": index, "truth": "abnormal" if truth[index] else "normal"}
        | {name: repr(float(values[index])) for name, values in last.items()}
        for index in range(2 * count)
    ]
    rows = [
        (
            str(stop),
            name,
            *(
                number(run.figures[f"{name}, epoch {stop}: {what}"])
                for what in ("AUROC", "mean loss of abnormal over normal", "abnormal above every normal")
            ),
        )
        for stop, by_model in losses.items()
        for name in by_model
    ]
    columns = ("after epoch", "model", "AUROC", "mean loss, abnormal / normal", "abnormal above every normal")
    run.sections.append(Section("Separation", ("Of the first seed.",), Grid(columns, rows)))


def _draw(
    run: Run, call: Call, losses: dict[int, dict[str, NDArray[np.float64]]], count: int, trained: dict[str, Trained]
) -> None:
    labels = ["normal: digits"] * count + ["abnormal: articles"] * count
    last = max(losses)
    unit = "binary cross-entropy" if call.options["loss"] == "bce" else "mean squared error"
    for stop, by_model in losses.items():
        name = call.options["picture"] if stop == last else f"result-epoch-{stop}.png"
        figure = plot.error_by_index(
            by_model,
            labels,
            anomalies=["abnormal: articles"],
            y=f"loss ({unit})",
            heading=f"Loss of each test image after {stop} epoch{'s' * (stop > 1)}",
            log=False,
        )
        run.pictures[name] = (figure, f"The loss of {count} digits, then {count} articles, after {stop} epochs.")
    strips = {
        "digits": (digits("train", quick=call.quick), [str(label) for label in range(10)]),
        "articles": (fashion("train", quick=call.quick), list(FASHION_CLASSES)),
    }
    for name, (sample, names) in strips.items():
        run.pictures[f"{name}.png"] = (
            plot.sample_strip(list(first_of_each(sample)), names),
            f"The first image of each class of the {name}.",
        )
    for name, (ours, _) in MODELS.items():
        total = sum(parameters_of(ours, (1, 28, 28)))
        run.pictures[f"model-{name}.png"] = (
            plot.model_diagram(ours, (1, 28, 28), heading=f"{name}: {total:,} parameters"),
            f"The layers of {name}.",
        )
        history = trained[name].history
        run.pictures[f"loss-{name}.png"] = (
            plot.loss_curves(
                {
                    "training": [row["training_loss"] for row in history],
                    "test digits": [row["validation_loss"] for row in history],
                },
                heading=f"Loss of {name}",
            ),
            f"The loss of {name} on training digits and on the test digits, epoch by epoch.",
        )


def claims(runs: Sequence[Run], options: Mapping[str, Any]) -> Iterator[Claim]:
    """Judge what the original says."""
    end = options["epochs"]

    def of(name: str, what: str) -> list[float]:
        return [run.figures[f"{name}, epoch {end}: {what}"] for run in runs]

    ratios = {name: of(name, "mean loss of abnormal over normal") for name in MODELS}
    areas = {name: of(name, "AUROC") for name in MODELS}
    higher = all(min(values) > 1 for values in ratios.values())
    yield Claim(
        "the abnormal half scores higher",
        _SOURCE,
        "mean loss, abnormal over normal: " + "; ".join(f"{name} {over_seeds(v)}" for name, v in ratios.items()),
        verdict(higher),
        "the mean loss of the articles is above that of the digits"
        + (" for every model and seed" if higher else " not for every model and seed"),
    )
    better = all(
        np.mean(areas[name]) > np.mean(areas[CONVOLUTIONAL]) and np.mean(ratios[name]) > np.mean(ratios[CONVOLUTIONAL])
        for name in DENSE
    )
    yield Claim(
        "the two dense models separate better than the convolutional one",
        _SOURCE,
        "AUROC: " + "; ".join(f"{name} {over_seeds(v)}" for name, v in areas.items()),
        verdict(better),
        "judged by AUROC and by the ratio of the mean losses, both averaged over the seeds: "
        f"{'both' if better else 'not both'} are higher for both dense models",
    )
    losses = {name: of(name, "mean loss of abnormal") for name in MODELS}
    redraws = all(np.mean(losses[CONVOLUTIONAL]) < np.mean(losses[name]) for name in DENSE)
    yield Claim(
        "because the convolutional one reconstructs abnormal images too well",
        _SOURCE,
        "mean loss of the articles: " + "; ".join(f"{name} {over_seeds(v)}" for name, v in losses.items()),
        verdict(redraws),
        f"its loss on articles is {'below' if redraws else 'not below'} that of both dense models"
        + (_COLLAPSED if max(of(CONVOLUTIONAL, _BRIGHTEST)) < 0.01 else ""),
    )
    for name, (ours, published) in MODELS.items():
        total = sum(parameters_of(ours, (1, 28, 28)))
        yield Claim(
            f"{name} has {published:,} parameters",
            "Keras's summary",
            f"{total:,}",
            verdict(total == published),
            "counted layer by layer, as Keras does",
            needs_full=False,
        )


RECIPE = register(
    Recipe(
        name="three-autoencoders",
        title="three autoencoders on digits and articles",
        question="Which of three autoencoders separates MNIST digits (normal) from Fashion-MNIST articles "
        "(abnormal) best?",
        source="otenim, AnomalyDetectionUsingAutoencoder, GitHub (2019)",
        setup=(
            (
                "Three autoencoders are trained on all MNIST training images, pixels divided by 255. Then the loss "
                "of unseen "
                "digits and of articles of clothing is computed image by image and drawn side by side. There is no "
                "threshold."
            ),
        ),
        options=(
            Option(
                "optimizer", "adam", "adam, sgd or adagrad, with Keras's learning rates", ("adam", "sgd", "adagrad")
            ),
            Option("loss", "mse", "mse or bce; the images are scored by it, too", ("mse", "bce")),
            Option("epochs", 10, "passes over the training images", least=1),
            Option("batch-size", 64, "images a step", least=1),
            Option("test-samples", 50, "test images of each kind", least=2),
            Option("picture", "result.png", "the result picture, within OUT"),
        ),
        quick={"epochs": 2},
        minutes=9.7,
        experiment=experiment,
        claims=claims,
        seeds=1,
    )
)
