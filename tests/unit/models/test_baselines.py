"""The classical baselines against scikit-learn, ONNX Runtime and what is promised of them."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch

from oddment.data.sample import load_sample
from oddment.errors import ParameterError, TrainingError
from oddment.models import Batch, Shape, build, get_spec, model_names
from oddment.scoring import ScoringGraph, export

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from oddment.models._baseline import Baseline

SHAPE = Shape(1, 28, 28)
NAMES = [name for name in model_names() if get_spec(name).baseline]
# Options that make the small forms below, which every test of scores goes through.
CASES: list[tuple[str, dict[str, Any]]] = [
    ("gaussian", {}),
    ("gaussian", {"measure": "density"}),
    ("gaussian", {"covariance": "full"}),
    ("gaussian", {"covariance": "full", "measure": "density"}),
    ("pca", {"n_components": 16}),
    ("knn", {}),
    ("knn", {"k": 5}),
    ("knn", {"k": 3, "company": 0.05}),
    ("isolation-forest", {}),
    ("isolation-forest", {"n_estimators": 30, "max_samples": 100}),
    ("one-class-svm", {}),
    ("one-class-svm", {"nu": 0.3, "gamma": 0.02, "n_components": 12}),
    ("local-outlier-factor", {}),
    ("local-outlier-factor", {"n_neighbors": 7, "n_components": 20}),
    ("elliptic-envelope", {"n_components": 8}),
]


@pytest.fixture(scope="module")
def digits() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """300 sevens, none of them twice, and 60 images of all kinds, float32 (N, 1, 28, 28) in [0, 1]."""
    train, test, fashion = (load_sample(name) for name in ("mnist-train", "mnist-test", "fashion-test"))
    normal = train.images[train.labels == 7][:300]
    other = np.concatenate([test.images[:40], fashion.images[:20]])
    return tuple(part[:, None].astype(np.float32) / 255 for part in (normal, other))  # type: ignore[return-value]


def whole(images: NDArray[np.float32]) -> Batch:
    """A batch without padding."""
    return Batch(torch.from_numpy(images), torch.ones(len(images), 1, *images.shape[2:]))


def fitted(name: str, options: dict[str, Any], normal: NDArray[np.float32], seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = build(name, SHAPE, options)
    with torch.no_grad():
        # Batches of different lengths, as the end of a pass brings them.
        model.settle(lambda: iter([whole(normal[:128]), whole(normal[128:])]))
    return model.eval()


def scores(model: Baseline, images: NDArray[np.float32]) -> NDArray[np.float64]:
    valid = torch.tensor([[0, 0, 28, 28]] * len(images))
    with torch.no_grad():
        score: NDArray[np.float32] = ScoringGraph(model, SHAPE)(torch.from_numpy(images), valid)[0].numpy()
    return score.astype(np.float64)


def features(model: Baseline, images: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.no_grad():
        found: NDArray[np.float32] = model.features(whole(images)).numpy()
    return found


def by_scikit_learn(name: str, options: dict[str, Any], model: Any, rows: Any, others: Any) -> Any:  # noqa: PLR0911
    """Scikit-learn's own score of `others`, higher is more anomalous, in the unit that the baseline documents."""
    from sklearn.covariance import EllipticEnvelope
    from sklearn.decomposition import PCA
    from sklearn.ensemble import IsolationForest
    from sklearn.mixture import GaussianMixture
    from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
    from sklearn.svm import OneClassSVM

    options = {**get_spec(name).options, **options}
    if name == "gaussian":
        kind = "full" if options["covariance"] == "full" else "diag"
        found = GaussianMixture(covariance_type=kind, reg_covar=options["regularisation"]).fit(rows.astype(np.float64))
        density = -found.score_samples(others)
        if options["measure"] == "density":
            return density / 784
        # Twice the log density, without the part that does not depend on the image.
        return 2 * (density + found.score_samples(found.means_)[0]) / 784
    if name == "pca":
        found = PCA(options["n_components"], random_state=model.seed).fit(rows)
        return np.square(others - found.inverse_transform(found.transform(others))).mean(1)
    if name == "knn":
        found = NearestNeighbors().fit(rows)
        own, _ = found.kneighbors(n_neighbors=max(1, round(options["company"] * len(rows))))
        distances, which = found.kneighbors(others, n_neighbors=len(rows))
        counted = np.maximum(distances, own[which, -1] if options["company"] else 0)
        return np.square(np.sort(counted, axis=1)[:, : options["k"]]).mean(1) / 784
    if name == "isolation-forest":
        sizes = {key: options[key] for key in ("n_estimators", "max_samples")}
        found = IsolationForest(**sizes, random_state=model.seed).fit(rows)
        return -found.score_samples(others)
    if name == "one-class-svm":
        found = OneClassSVM(nu=options["nu"], gamma=options["gamma"] or "scale").fit(rows)
        return 1 - found.score_samples(others) / found.dual_coef_.sum()
    if name == "local-outlier-factor":
        found = LocalOutlierFactor(n_neighbors=options["n_neighbors"], novelty=True).fit(rows)
        return -found.score_samples(others)
    found = EllipticEnvelope(random_state=model.seed).fit(rows.astype(np.float64))
    return -found.score_samples(others) / rows.shape[1]


def label(case: Any) -> str:
    return str(case) if isinstance(case, str) else "-".join(map(str, case.values())) or "default"


@pytest.mark.parametrize(("name", "options"), CASES, ids=label)
def test_scores_are_those_of_scikit_learn(name: str, options: dict[str, Any], digits: Any) -> None:
    """Every score of other images agrees to 1e-4, relative to the largest."""
    normal, other = digits
    model = fitted(name, options, normal)
    rows, others = features(model, normal), features(model, other)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = by_scikit_learn(name, options, model, rows, others)
    assert np.abs(scores(model, other) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_few_wrong_images_of_a_kind_do_not_vouch_for_each_other(digits: Any) -> None:
    """Ten copies of an article among 300 sevens bring it near; with company they are as far as the sevens are."""
    normal, other = digits
    article = other[-1:]
    dirty = np.concatenate([normal, article + np.linspace(0, 0.01, 10, dtype=np.float32)[:, None, None, None]])
    plain, robust = (fitted("knn", {"company": company}, dirty) for company in (0.0, 0.05))
    usual = other[:40]
    assert scores(plain, article) < scores(plain, usual).min()
    assert scores(robust, article) > scores(robust, usual).max()


@pytest.mark.parametrize(("name", "options"), CASES, ids=label)
def test_onnx_runtime_agrees(name: str, options: dict[str, Any], digits: Any) -> None:
    """Score, map and reconstruction of the exported graph are torch's to 1e-4, padded images among them."""
    normal, other = digits
    model = fitted(name, options, normal)
    graph = ScoringGraph(model, SHAPE).eval()
    valid = torch.tensor([[0, 0, 28, 28]] * 40 + [[3, 5, 28, 20]] * 20)
    with torch.no_grad():
        expected = graph(torch.from_numpy(other), valid)[:3]
    session = onnxruntime.InferenceSession(export(graph), providers=["CPUExecutionProvider"])
    found = session.run(None, {"images": other, "valid": valid.numpy()})
    for ours, theirs in zip(expected, found, strict=False):
        assert np.abs(ours.numpy() - theirs).max() <= 1e-4 * float(ours.abs().max())


@pytest.mark.parametrize("name", NAMES)
def test_content_of_padding_changes_nothing(name: str, digits: Any) -> None:
    """Whatever the padding holds, while fitting and while scoring, every score stays the same to the bit."""
    normal, other = digits
    mask = torch.zeros(1, 1, 28, 28)
    mask[..., 2:25, 4:] = 1
    valid = torch.tensor([[2, 4, 25, 28]] * len(other))
    results = []
    for fill in (0.0, 9.0):
        padded = [torch.from_numpy(part) * mask + fill * (1 - mask) for part in (normal, other)]
        batch = Batch(padded[0], mask.expand(len(normal), -1, -1, -1))
        torch.manual_seed(0)
        model = build(name, SHAPE, {})
        with torch.no_grad():
            model.settle(lambda batch=batch: iter([batch]))
            results.append(ScoringGraph(model.eval(), SHAPE)(padded[1], valid)[0])
    assert torch.equal(*results)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_scores(name: str, digits: Any) -> None:
    """To the bit, where images are drawn, trees grown and subsets tried at random."""
    normal, other = digits
    options = {"references": 120}
    first, second = (scores(fitted(name, options, normal, seed=3), other) for _ in range(2))
    assert np.array_equal(first, second)


def test_memory_is_capped_by_a_fair_draw(digits: Any) -> None:
    """As many references as allowed, early and late images alike, another seed other ones; a note says so."""
    normal, _ = digits
    early = []
    for seed in range(20):
        model = fitted("knn", {"references": 60}, normal, seed)
        assert model.bank.shape == (60, 784)
        pixels = model.bank + model.centre
        distances = torch.cdist(pixels, torch.from_numpy(normal).flatten(1))
        early.append(int((distances.argmin(1) < 150).sum()))
        assert model.notes == ("It knows 60 of the 300 normal pictures, drawn at random (references=60).",)
    assert 24 < np.mean(early) < 36
    assert len(set(early)) > 3


@pytest.mark.parametrize("name", ["gaussian", "pca", "knn"])
def test_maps_show_where(name: str, digits: Any) -> None:
    """A white block in a dark corner stands out of the map, and the map's mean is the score."""
    normal, _ = digits
    model = fitted(name, {}, normal[:-5])
    spoilt = normal[-5:].copy()
    spoilt[:, :, 20:25, 2:7] = 1
    with torch.no_grad():
        left = model.leftover(whole(spoilt))
    block = left.anomaly_map[:, 20:25, 2:7].mean((1, 2))
    assert (block > 5 * left.anomaly_map.mean((1, 2))).all()
    assert scores(model, spoilt) == pytest.approx(left.anomaly_map.mean((1, 2)).numpy(), rel=1e-5)


@pytest.mark.parametrize("name", ["isolation-forest", "one-class-svm", "local-outlier-factor", "elliptic-envelope"])
def test_scores_without_a_place_are_spread_evenly(name: str, digits: Any) -> None:
    """Every real pixel of the map holds the score."""
    normal, other = digits
    model = fitted(name, {}, normal)
    with torch.no_grad():
        anomaly_map = model.leftover(whole(other)).anomaly_map
    assert torch.equal(anomaly_map, anomaly_map[:, :1, :1].expand(-1, 28, 28))
    assert anomaly_map[:, 0, 0].numpy() == pytest.approx(scores(model, other), rel=1e-5)


def test_reconstructions_are_normal_images(digits: Any) -> None:
    """The Gaussian draws the mean, kNN the mean of two neighbours, LOF the nearest, PCA what it can redraw."""
    normal, other = digits
    flat = torch.from_numpy(normal).flatten(1)
    drawn = {}
    for name in ("gaussian", "knn", "local-outlier-factor", "pca"):
        with torch.no_grad():
            drawn[name] = fitted(name, {}, normal)(torch.from_numpy(other)).flatten(1)
    nearest = torch.cdist(torch.from_numpy(other).flatten(1), flat).topk(2, largest=False).indices
    torch.testing.assert_close(drawn["gaussian"], flat.mean(0).expand(len(other), -1))
    torch.testing.assert_close(drawn["knn"], flat[nearest].mean(1))
    torch.testing.assert_close(drawn["local-outlier-factor"], flat[nearest[:, 0]])
    assert (drawn["pca"] - torch.from_numpy(other).flatten(1)).square().mean() < 0.06


def test_weights_fit_a_new_model(digits: Any) -> None:
    """What fitting has found, of any length, can be loaded into a model that knows nothing."""
    normal, other = digits
    model, fresh = fitted("local-outlier-factor", {}, normal), build("local-outlier-factor", SHAPE)
    fresh.load_state_dict(model.state_dict())
    assert np.array_equal(scores(model, other), scores(fresh.eval(), other))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "elliptic-envelope"])
def test_constant_and_equal_images_are_no_trouble(name: str) -> None:
    """Six images that are all the same, and a different one: scores are finite, and the different one's is higher."""
    normal = np.full((6, 1, 28, 28), 0.3, np.float32)
    model = fitted(name, {}, normal)
    found = scores(model, np.concatenate([normal[:1], normal[:1] + 0.4]))
    assert np.isfinite(found).all()
    assert found[1] >= found[0]


def test_an_envelope_around_equal_images_is_refused() -> None:
    """Most images alike have no covariance; the message names another baseline."""
    with pytest.raises(TrainingError, match=r"elliptic-envelope cannot be fitted to 6 images .* Use gaussian"):
        fitted("elliptic-envelope", {}, np.full((6, 1, 28, 28), 0.3, np.float32))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gaussian", {"covariance": "round"}, "covariance must be diagonal or full; got 'round'"),
        ("gaussian", {"measure": "luck"}, "measure must be mahalanobis or density"),
        ("gaussian", {"regularisation": 0}, "regularisation must be a number of at least 1e-09"),
        ("gaussian", {"covariance": 1}, "option covariance of model 'gaussian' is text, such as 'diagonal'; got 1"),
        ("pca", {"n_components": "many"}, "option n_components of model 'pca' is a number, such as 32; got 'many'"),
        ("pca", {"n_components": 0}, "n_components must be a whole number of at least 1; got 0"),
        ("knn", {"k": 1.5}, "k must be a whole number of at least 1; got 1.5"),
        ("knn", {"company": -0.1}, "company must be a number of at least 0.0; got -0.1"),
        ("knn", {"company": 2.0}, "company must be a share below 1, such as 0.02"),
        ("knn", {"on": "pca"}, "on='pca' is itself fitted in one pass"),
        ("knn", {"on": "densse"}, "Did you mean 'dense'"),
        ("one-class-svm", {"nu": 0.0}, "nu must lie above 0"),
        ("isolation-forest", {"max_samples": 1, "n_estimators": 0}, "n_estimators .* max_samples"),
    ],
)
def test_impossible_options_are_refused(name: str, options: dict[str, Any], message: str) -> None:
    """The message names the option, its rule and what was given."""
    with pytest.raises(ParameterError, match=message):
        build(name, SHAPE, options)
