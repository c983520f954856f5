"""The models on gradient features: what the features ignore, what the memory and the windows find."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.metrics import roc_auc_score

from oddment import Detector
from oddment.data.sample import load_sample
from oddment.errors import ParameterError
from oddment.models import Batch, Shape, _mixtures, build
from oddment.models._gradients import GradientFeatures
from oddment.models._mixtures import principal
from oddment.models.memory import _RIDGE, _left_over
from oddment.scoring import ScoringGraph, export

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPE = Shape(1, 28, 28)
NAMES = ["gradient-autoencoder", "gradient-memory", "gradient-mixture"]


def whole(images: NDArray[np.float32] | torch.Tensor) -> Batch:
    """A batch without padding."""
    images = torch.as_tensor(images)
    return Batch(images, torch.ones(len(images), 1, *images.shape[2:]))


@pytest.fixture(scope="module")
def digits() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """300 sevens and 60 images of all kinds, float32 (N, 1, 28, 28) in [0, 1]."""
    train, test, fashion = (load_sample(name) for name in ("mnist-train", "mnist-test", "fashion-test"))
    normal = train.images[train.labels == 7][:300]
    other = np.concatenate([test.images[:40], fashion.images[:20]])
    return tuple(part[:, None].astype(np.float32) / 255 for part in (normal, other))  # type: ignore[return-value]


def settled(*passes: NDArray[np.float32], options: dict[str, Any] | None = None, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = build("gradient-memory", Shape(*passes[0].shape[1:]), options)
    with torch.no_grad():
        model.settle(*[lambda part=part: iter([whole(part)]) for part in passes])
    return model.eval()


def scores(model: Any, images: NDArray[np.float32]) -> NDArray[np.float32]:
    shape = Shape(*images.shape[1:])
    valid = torch.tensor([[0, 0, shape.height, shape.width]] * len(images))
    with torch.no_grad():
        found: NDArray[np.float32] = ScoringGraph(model, shape)(torch.from_numpy(images), valid)[0].numpy()
    return found


@pytest.mark.parametrize(
    ("size", "grid"),
    [((28, 28), (14, 14)), ((8, 8), (8, 8)), ((96, 48), (24, 12)), ((32, 20), (14, 9)), ((2, 1), (2, 1))],
)
def test_cells_follow_the_size(size: tuple[int, int], grid: tuple[int, int]) -> None:
    """About 14 cells along the longer side of small pictures, 4 pixels each in larger ones, never more than pixels."""
    features = GradientFeatures(Shape(3, *size))
    assert features.grid == grid
    found = features(torch.rand(2, 3, *size), torch.ones(2, 1, *size))
    assert found.shape == (2, features.width)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))


def test_exposure_changes_nothing(digits: Any) -> None:
    """Features of a picture that is dimmed, or brightened evenly, stay the same but for the floor."""
    images, mask = torch.from_numpy(digits[1]), torch.ones(60, 1, 28, 28)
    features = GradientFeatures(SHAPE)
    other = features(0.2 + 0.5 * images, mask)
    assert (features(images, mask) - other).norm(dim=1).max() < 0.03


def test_a_turned_picture_has_turned_features(digits: Any) -> None:
    """Rows and columns are treated alike: transposing the picture transposes cells and swaps directions."""
    images, mask = torch.from_numpy(digits[1]), torch.ones(60, 1, 28, 28)
    features = GradientFeatures(SHAPE)
    straight, turned = (features(x, mask).view(-1, 4, 14, 14) for x in (images, images.transpose(2, 3)))
    torch.testing.assert_close(turned, straight.transpose(2, 3)[:, [2, 3, 0, 1]], atol=1e-5, rtol=1e-4)


def test_padding_reaches_no_feature(digits: Any) -> None:
    """Whatever padding holds, features are equal to the bit, and the border to it is no edge."""
    mask = torch.zeros(60, 1, 28, 28)
    mask[..., 4:, :20] = 1
    features, images = GradientFeatures(SHAPE), torch.from_numpy(digits[1])
    assert torch.equal(features(images * mask, mask), features(images * mask + 7 * (1 - mask), mask))
    flat = features(torch.full((1, 1, 28, 28), 0.8) * mask[:1], mask[:1])
    torch.testing.assert_close(flat, torch.full_like(flat, 784**-0.5))


def test_conjugate_gradients_solve_the_ridge() -> None:
    """What is left over agrees with a direct solution, also with equal, missing and very close neighbours."""
    rng = np.random.default_rng(0)
    others = torch.from_numpy(rng.normal(0, 0.05, (6, 2, 32, 40)).astype(np.float32))
    others[1], others[2, :, 5:], others[3] = others[1, :, :1], others[2, :, :1], 1e-6 * others[3]
    codes = torch.from_numpy(rng.normal(0, 0.08, (6, 2, 40)).astype(np.float32))
    codes[4] = others[4].mean(1)
    left, made = _left_over(codes, others)
    mean = others.mean(2, keepdim=True).double()
    rest, rows = (codes.double()[:, :, None] - mean), others.double() - mean
    gram = rows @ rows.transpose(2, 3) + _RIDGE * torch.eye(32, dtype=torch.float64)
    weight = torch.linalg.solve(gram, rows @ rest.transpose(2, 3))
    rebuilt = (rows.transpose(2, 3) @ weight).transpose(2, 3)
    expected = (rest - rebuilt).square().sum((2, 3)) + _RIDGE * weight.square().sum((2, 3))
    torch.testing.assert_close(left.double(), expected, atol=1e-7, rtol=1e-3)
    torch.testing.assert_close(made.double(), (mean + rebuilt)[:, :, 0], atol=1e-3, rtol=1e-2)


def test_usual_pictures_score_about_one(digits: Any) -> None:
    """The score is relative to held-out normal pictures, whether they come as a pass or are taken from the memory."""
    normal, other = digits
    for model in (settled(normal[:200], normal[200:250]), settled(normal[:200])):
        assert 0.7 < np.median(scores(model, normal[250:])) < 1.5
        assert np.median(scores(model, other[40:])) > 2


def test_held_out_pictures_standardise_before_they_are_remembered(digits: Any) -> None:
    """Those of the last pass join the memory, each picture once, and never count as their own neighbours."""
    normal, _ = digits
    known, power = normal[:200], {"power": 0.5}
    apart, both = (settled(known, held, options=power) for held in (normal[200:250], normal[:50]))
    assert len(apart.bank) == 250
    assert len(both.bank) == 200
    assert len(settled(normal[:200], normal[200:250], options={"references": 120}).bank) == 120
    torch.testing.assert_close(both.usual[0], apart.usual[0], atol=0.3, rtol=0)


def test_a_picture_of_another_world_raises_an_alarm(digits: Any) -> None:
    """Noise has more beside the directions than any digit; what is unseen or not forgiven tells nothing about that."""
    normal, _ = digits
    noise = np.random.default_rng(0).random((20, 1, 28, 28)).astype(np.float32)

    def alarm(model: Any, images: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            found: NDArray[np.float32] = model._too_far_beside(model._all_features(whole(images))).numpy()
        return found

    model = settled(normal[:200], normal[200:250])
    assert (alarm(model, noise) > 1).all()
    assert np.mean(alarm(model, normal[250:]) > 0) < 0.05
    quiet = settled(normal[:200], normal[200:250])
    quiet.beside[1] = 1e9
    assert (scores(model, noise) > 2 * scores(quiet, noise)).all()
    for unknown in (settled(normal[:200]), settled(normal[:200], normal[200:250], options={"forgive": 0.0})):
        assert not alarm(unknown, noise).any()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"power": 0.35}, ["shifts"]),
        ({"power": 0.5}, ["shifts", "width"]),
        ({"power": 0.7}, ["width"]),
        ({"power": 0.7, "forgive": 0.0}, []),
    ],
)
def test_what_is_forgiven_is_said(options: dict[str, float], said: list[str], digits: Any) -> None:
    """Whoever looks for things that lie wrong, or have the wrong size, reads it where the model is made."""
    notes = " ".join(settled(digits[0][:60], options=options).notes)
    assert [word for word in ("shifts", "width") if word in notes] == said


def test_no_measure_jumps(digits: Any) -> None:
    """Between two pictures, where one reference after the other becomes the nearer, all measures move without a step.

    Otherwise two processors that round differently would disagree about a picture near such a place.
    """
    model = settled(digits[0][50:], digits[0][:50], options={"power": 0.7})
    with torch.no_grad():
        codes = model._code(model._all_features(whole(digits[1])))
        for start, end in zip(codes[:8], codes[8:16], strict=True):
            way = torch.linspace(0, 1, 4001)[:, None]
            measures = model._measure(start + way * (end - start))[0]
            assert measures.amax(0).sub(measures.amin(0)).min() > 0.1
            # A changed neighbour used to move one by 0.15 at once.
            assert measures.diff(dim=0).abs().max() < 0.004


@pytest.mark.parametrize("count", [1, 2, 5, 30])
def test_few_normal_pictures_are_enough(count: int, digits: Any) -> None:
    """Fewer than neighbours are asked for: scores are finite, and ONNX Runtime agrees."""
    normal, other = digits
    model = settled(normal[:count], normal[-1:])
    found = scores(model, other)
    assert np.isfinite(found).all()
    session = onnxruntime.InferenceSession(export(ScoringGraph(model, SHAPE)), providers=["CPUExecutionProvider"])
    again = session.run(None, {"images": other, "valid": np.array([[0, 0, 28, 28]] * len(other))})[0]
    np.testing.assert_allclose(again, found, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_the_map_shows_where_and_its_mean_is_the_score(name: str, digits: Any) -> None:
    """A white block in a dark corner stands out of the map."""
    normal, _ = digits
    detector = Detector(model=name, target_fpr=0.1).fit(normal[:250, 0])
    spoilt = normal[250:260].copy()
    spoilt[:, :, 20:25, 2:7] = 1
    result = detector.scorer_.runtime.run(
        spoilt, np.array([[0, 0, 28, 28]] * len(spoilt)), ("anomaly_score", "anomaly_map", "reconstruction")
    )
    anomaly_map = result["anomaly_map"]
    block = anomaly_map[:, 19:26, 1:8].mean((1, 2))
    assert (block > 3 * anomaly_map.mean((1, 2))).mean() > 0.8
    np.testing.assert_allclose(result["anomaly_score"], anomaly_map.mean((1, 2)), rtol=1e-4)
    assert np.abs(result["reconstruction"] - normal[250:260]).mean() < 0.25


@pytest.mark.parametrize("name", NAMES)
def test_other_digits_are_found(name: str) -> None:
    """From 300 sevens alone, other digits are told apart by far better than chance."""
    train, test = load_sample("mnist-train"), load_sample("mnist-test")
    detector = Detector(model=name, target_fpr=0.1).fit(train.images[train.labels == 7][:300])
    assert roc_auc_score(test.labels != 7, detector.anomaly_score(test.images)) > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_colour_and_odd_shapes(name: str) -> None:
    """Colour pictures of 20 × 33 go the whole way, a few constant ones among them."""
    rng = np.random.default_rng(0)
    images = (rng.random((40, 20, 33, 3)) * 80).astype(np.uint8)
    images[:3] = 90
    detector = Detector(model=name, target_fpr=0.2).fit(images)
    assert np.isfinite(detector.anomaly_score(images)).all()


def test_impossible_options_are_refused() -> None:
    """The message names every option that is wrong."""
    with pytest.raises(ParameterError, match=r"k must be a whole number .* neighbours must be"):
        build("gradient-memory", SHAPE, {"k": 0, "neighbours": 1})
    with pytest.raises(ParameterError, match="latent_dim must be a whole number of at least 1"):
        build("gradient-autoencoder", SHAPE, {"latent_dim": 0})


COLOUR = Shape(3, 24, 32)


def tinted(hues: NDArray[np.float64], seed: int = 0) -> NDArray[np.float32]:
    """Discs anywhere on a gray ground, each in its hue: float32 (N, 3, 24, 32) in [0, 1]."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[:24, :32]
    images = np.full((len(hues), 3, 24, 32), 0.4, np.float32)
    for image, hue in zip(images, hues, strict=True):
        row, column, radius = rng.uniform(8, 16), rng.uniform(8, 24), rng.uniform(4, 7)
        inside = (down - row) ** 2 + (across - column) ** 2 < radius**2
        image[:, inside] = np.array(colorsys.hsv_to_rgb(hue, 0.8, 0.9), np.float32)[:, None]
    return images


def test_colours_are_relative_to_brightness() -> None:
    """Half the exposure changes next to nothing, another hue much; without colours it does little."""
    plain, coloured = GradientFeatures(COLOUR), GradientFeatures(COLOUR, colour=1.0)
    images = torch.from_numpy(tinted(np.array([0.1])))
    other = torch.from_numpy(tinted(np.array([0.15])))
    mask = torch.ones(1, 1, 24, 32)
    assert coloured.width == plain.width + 3 * 16
    torch.testing.assert_close(coloured(images, mask)[:, : plain.width], plain(images, mask))
    moved = {
        name: [float((features(each, mask) - features(images, mask)).norm()) for each in (images / 2, other)]
        for name, features in (("plain", plain), ("coloured", coloured))
    }
    assert moved["coloured"][0] < 0.1 < 2 * moved["plain"][1] < moved["coloured"][1] * 2
    assert GradientFeatures(SHAPE, colour=1.0).width == GradientFeatures(SHAPE).width


def test_padding_reaches_no_colour() -> None:
    """A padded picture has the colours that it has without, and what lies in the padding is nothing to it."""
    features = GradientFeatures(COLOUR, colour=1.0)
    image = torch.from_numpy(tinted(np.array([0.6])))
    mask = torch.ones(1, 1, 24, 32)
    mask[..., 24:] = 0
    noise = torch.where(mask > 0, image, torch.rand(image.shape, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(features(noise, mask), features(image, mask))
    red, green, blue = features(image.mean((2, 3), keepdim=True).expand_as(image), mask)[0, -48:].view(3, 4, 4)
    for channel in (red, green, blue):
        torch.testing.assert_close(channel[:, :3], channel[:1, :1].expand(4, 3), rtol=1e-2, atol=0)


@pytest.mark.parametrize("name", ["gradient-memory", "gradient-mixture"])
def test_another_colour_is_found(name: str, digits: Any) -> None:
    """Of sevens in warm colours, those in cold ones stand out, and with colour=0 less so."""
    rng = np.random.default_rng(1)
    hues = np.concatenate([rng.uniform(0, 0.4, 260), rng.uniform(0.5, 0.9, 40)])
    colours = np.array([colorsys.hsv_to_rgb(hue, 0.7, 1) for hue in hues], np.float32)
    images = digits[0] * colours[:, :, None, None]
    found = {}
    for colour in (1.0, 0.0):
        torch.manual_seed(0)
        model = build(name, Shape(3, 28, 28), {"colour": colour})
        with torch.no_grad():
            model.settle(lambda: iter([whole(images[:160])]), lambda: iter([whole(images[160:220])]))
        found[colour] = roc_auc_score(np.arange(80) >= 40, scores(model.eval(), images[220:]))
    assert found[1.0] > 0.95
    assert found[1.0] > found[0.0] + 0.03


def _usual(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Directions by products of features; signs by the largest entry, as `principal` has it."""
    rows = rows - rows.mean(0)
    found = torch.linalg.eigh((rows.T @ rows).double())[1].flip(1).T[:count].float()
    return found * found.gather(1, found.abs().argmax(1, keepdim=True)).sign()


def test_directions_of_many_features_are_those_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of pictures span what products of features do; what they do not span is filled up at right angles."""
    rows = torch.randn(60, 40, generator=torch.Generator().manual_seed(0)) * torch.linspace(3, 0.1, 40)
    centre, usual = principal(rows, 12)
    monkeypatch.setattr(_mixtures, "_MANY", 39)
    again, found = principal(torch.cat([rows, rows]), 12)
    torch.testing.assert_close(again, centre, atol=1e-6, rtol=0)
    # Every fourth row or so is looked at: the same pictures, twice.
    assert found.shape == usual.shape
    torch.testing.assert_close(found @ found.T, torch.eye(12), atol=1e-5, rtol=0)
    # Fewer pictures than features, all of them looked at: the same directions.
    torch.testing.assert_close(principal(rows[:30], 12)[1], _usual(rows[:30], 12), atol=1e-4, rtol=0)
    few = principal(rows[:5], 12)[1]
    torch.testing.assert_close(few @ few.T, torch.eye(12), atol=1e-5, rtol=0)
    left = (rows[:5] - rows[:5].mean(0)) - (rows[:5] - rows[:5].mean(0)) @ few.T @ few
    assert left.abs().max() < 1e-4


def test_what_was_chosen_is_said(digits: Any) -> None:
    """The power that mixtures chose, or that there were too few to choose by; none where it was given."""
    normal, _ = digits
    assert "under which mixtures" in settled(normal[:200], normal[200:]).choices[0]
    assert "too few images" in settled(normal[:50], normal[50:60]).choices[0]
    [said] = settled(normal[:200], normal[200:], options={"power": 0.4}).choices
    assert said == "300 images remembered, in 2 clusters"
