"""Small pictures of training images in a model file: which are kept, what is like what, and what a report shows."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from oddment import Detector, load
from oddment.artifact import OPTIONAL, read_model, write_model
from oddment.calibration import ThresholdRule
from oddment.examples import MOST_BYTES, MOST_EXAMPLES, SIDE, Examples, describe, encode_example, pack, unpack
from oddment.fitting import Settings, fit_images
from oddment.images.inputs import as_refs
from oddment.report import explain
from oddment.report.pictures import Pictures

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

QUICK: dict[str, Any] = {"model": "dense", "epochs": 1, "quantile": 0.9, "baseline_check": False}


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=["WEBP"])


@pytest.fixture(scope="module")
def examples(digits: NDArray[np.uint8]) -> Examples:
    """Fifty digits."""
    return Examples(tuple(f"{n}.png" for n in range(50)), tuple(encode_example(image) for image in digits[:50]))


class TestLikeness:
    """What is like what."""

    def test_an_image_is_most_like_itself(self, digits: NDArray[np.uint8], examples: Examples) -> None:
        """Each picture finds itself first, with or without a channel axis, and two others after it."""
        found = examples.nearest(digits[:20])
        assert [indices[0] for indices in found] == list(range(20))
        assert all(len(set(indices)) == 3 for indices in found)
        assert examples.nearest([digits[3][..., None]], 1) == [(3,)]
        assert examples.nearest([np.repeat(digits[3][..., None], 3, axis=2)], 1) == [(3,)]

    def test_size_and_shift_of_light_matter_less_than_shape(
        self, digits: NDArray[np.uint8], examples: Examples
    ) -> None:
        """A picture enlarged fourfold and darkened still finds itself."""
        changed = [np.asarray(Image.fromarray(image).resize((112, 112))) * 0.7 for image in digits[:20]]
        found = examples.nearest([image.astype(np.uint8) for image in changed], 1)
        assert [indices[0] for indices in found] == list(range(20))

    def test_digits_are_like_digits_of_their_kind(self) -> None:
        """Nine in ten neighbours of a new digit have its label; the colours alone would not do that."""
        from oddment.data.sample import load_sample

        known, new = load_sample("mnist-train"), load_sample("mnist-test")
        rows, asked = describe(known.images[:1000]), describe(new.images[:100])
        nearest = np.square(asked[:, None] - rows[None]).sum(2).argmin(1)
        assert (known.labels[nearest] == new.labels[:100]).mean() >= 0.85

    def test_colour_tells_apart_what_shape_cannot(self) -> None:
        """Two even pictures of different colours are not alike."""
        red, blue, dark_red = (
            np.full((20, 30, 3), value, np.uint8) for value in ((200, 0, 0), (0, 0, 200), (170, 0, 0))
        )
        both = Examples(("red", "blue"), (encode_example(red), encode_example(blue)))
        assert both.nearest([dark_red]) == [(0, 1)]

    def test_aspect_ratio_counts_where_all_else_is_equal(self) -> None:
        """Of two even pictures the one of the same proportions is nearer."""
        wide, tall = np.full((20, 60), 90, np.uint8), np.full((60, 20), 90, np.uint8)
        both = Examples(("wide", "tall"), (encode_example(wide), encode_example(tall)))
        assert both.nearest([np.full((45, 15), 95, np.uint8), np.full((10, 30), 85, np.uint8)], 1) == [(1,), (0,)]

    def test_nothing_to_compare_with(self, digits: NDArray[np.uint8], examples: Examples) -> None:
        """Without examples, or without pictures, there is an empty answer."""
        assert Examples().nearest(digits[:2]) == [(), ()]
        assert examples.nearest([]) == []

    def test_a_damaged_picture_is_never_shown(self, digits: NDArray[np.uint8], examples: Examples) -> None:
        """Pixels that cannot be decoded under a header in order take one example away, and no other."""
        broken = bytearray(examples.pictures[3])
        broken[25:] = b"\xff" * (len(broken) - 25)
        damaged = replace(examples, pictures=(*examples.pictures[:3], bytes(broken), *examples.pictures[4:]))
        damaged = unpack(pack(damaged))
        assert 3 not in damaged.nearest(digits[3:4], 50)[0]
        assert damaged.nearest(digits[4:5], 1) == [(4,)]


class TestKept:
    """What a fit puts into the model file."""

    @pytest.mark.parametrize("fit_mode", ["letterbox", "stretch", "tile"])
    def test_whole_training_images(self, fit_mode: str, tmp_path: Path) -> None:
        """Whatever the model sees, the examples are whole pictures of their own aspect ratio, at most 96 pixels."""
        rng = np.random.default_rng(0)
        for index in range(30):
            picture = np.kron(rng.integers(0, 256, (6, 12)), np.ones((20, 20))).astype(np.uint8)
            Image.fromarray(picture).save(tmp_path / f"{index:02}.png")
        detector = Detector(**QUICK, fit_mode=fit_mode, size=32).fit(tmp_path)
        kept = detector.scorer_.model.examples
        data = detector.scorer_.model.info["data"]
        assert 0 < len(kept) <= data["training"]
        for name, picture in zip(kept.names, kept.pictures, strict=True):
            width, height = opened(picture).size
            assert max(width, height) <= SIDE
            assert width == pytest.approx(2 * height, abs=1)
            small = Image.open(name).resize((width, height), Image.Resampling.BOX)
            assert np.abs(np.asarray(small, float) - np.asarray(opened(picture).convert("L"), float)).mean() < 20

    def test_no_calibration_image(self, digits: NDArray[np.uint8]) -> None:
        """Images that calibrate, or are watched, stay unknown to the file; of the training images all fit in."""
        scorer = Detector(**QUICK, find_duplicates=False).fit(digits[:100]).scorer_
        data = scorer.model.info["data"]
        assert len(scorer.model.examples) == data["training"] < 100
        names = {int(name.strip("[]")) for name in scorer.model.examples.names}
        assert len(names) == data["training"]
        for name, picture in zip(scorer.model.examples.names, scorer.model.examples.pictures, strict=True):
            assert np.array_equal(np.asarray(opened(picture).convert("L")), digits[int(name.strip("[]"))])

    def test_budget(self, monkeypatch: pytest.MonkeyPatch, digits: NDArray[np.uint8]) -> None:
        """Not more than the budget allows, and as much of it as fits."""
        monkeypatch.setattr("oddment.training.examples.MOST_BYTES", 5_000)
        kept = Detector(**QUICK).fit(digits[:100]).scorer_.model.examples
        assert 4_500 < sum(map(len, kept.pictures)) <= 5_000
        monkeypatch.setattr("oddment.training.examples.MOST_EXAMPLES", 7)
        assert len(Detector(**QUICK).fit(digits[:100]).scorer_.model.examples) == 7
        assert (MOST_EXAMPLES, MOST_BYTES) == (300, 1_000_000)

    def test_they_cover_what_there_is(self, digits: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
        """A rare kind of image among many of one kind is represented, where a random draw would miss it."""
        monkeypatch.setattr("oddment.training.examples.MOST_EXAMPLES", 8)
        rng = np.random.default_rng(0)
        many = np.clip(digits[0].astype(float) + rng.normal(0, 2, (96, 28, 28)), 0, 255).astype(np.uint8)
        rare = np.stack([digits[1], digits[2]])
        images = np.concatenate([many, rare])
        settings = Settings(
            model="dense",
            epochs=1,
            rule=ThresholdRule("max_normal", 0.0, "training"),
            hold_out=False,
            baseline_check=False,
        )
        fitted = fit_images(lambda: as_refs(images), len(images), settings)
        assert {"[96]", "[97]"} <= set(fitted.model.examples.names)

    def test_deep_images_are_shown_by_the_range_of_the_model(self, digits: NDArray[np.uint8]) -> None:
        """Sixteen bits and floats become the same small pictures as the eight bits that they were made of."""
        plain = Detector(**QUICK).fit(digits[:60]).scorer_.model.examples
        for deep in (digits[:60].astype(np.uint16) * 257, digits[:60].astype(np.float32) / 255):
            kept = Detector(**QUICK).fit(deep).scorer_.model.examples
            assert set(kept.names) == set(plain.names)
            pictures = dict(zip(kept.names, kept.pictures, strict=True))
            for name, picture in zip(plain.names, plain.pictures, strict=True):
                difference = np.asarray(opened(pictures[name]).convert("L"), int) - np.asarray(
                    opened(picture).convert("L")
                )
                assert np.abs(difference).max() <= 1

    def test_none_of_rows_of_numbers(self) -> None:
        """Features are no pictures to look at."""
        rows = np.random.default_rng(0).random((40, 12))
        assert len(Detector(**QUICK).fit(rows).scorer_.model.examples) == 0

    def test_opt_out(self, digits: NDArray[np.uint8], normal_folder: Path, invoke: Any, tmp_path: Path) -> None:
        """--no-thumbnails leaves the member out; search and inspect work, and nothing is named."""
        path = tmp_path / "m.oddment"
        invoke(
            "fit",
            normal_folder,
            "-o",
            path,
            "--model",
            "dense",
            "--epochs",
            1,
            "--target-fpr",
            0.1,
            "--no-thumbnails",
            "-q",
        )
        assert len(read_model(path).examples) == 0
        assert b"digit-0" not in path.read_bytes()
        assert "training images kept none" in " ".join(invoke("inspect", path).stdout.split())
        assert all(item.similar == () for item in load(path).detect(digits[:3], similar=3))  # type: ignore[union-attr]
        assert "[]" in json.dumps(explain([], {}, Examples()).payload([])["examples"])


class TestNamed:
    """What a search says of them."""

    def test_detections_name_them_where_asked(self, digits: NDArray[np.uint8], detector: Any) -> None:
        """A training image that is kept names itself first; without asking nothing is named; rows stay as they are."""
        kept = detector.scorer_.model.examples
        index = int(kept.names[0].strip("[]"))
        [asked] = detector.detect(digits[index : index + 1], similar=2)
        [plain] = detector.detect(digits[index : index + 1])
        assert asked.similar[0] == kept.names[0]
        assert len(asked.similar) == 2
        assert plain.similar == ()
        assert asked.as_row() == plain.as_row()

    def test_a_stretched_picture_is_compared_in_its_own_proportions(self, digits: NDArray[np.uint8]) -> None:
        """A model that sees squares names a wide image itself first."""
        wide = np.repeat(digits[:60], 2, axis=2)
        detector = Detector(**QUICK, fit_mode="stretch", size=28).fit(wide)
        for name in detector.scorer_.model.examples.names[:5]:
            index = int(name.strip("[]"))
            assert detector.detect(wide[index : index + 1], similar=1)[0].similar == (name,)  # type: ignore[union-attr]

    def test_explanations_are_of_anomalies_with_a_picture(self, digits: NDArray[np.uint8], examples: Examples) -> None:
        """Only the examples that are shown go into the page, each once."""

        def picture(index: int) -> Pictures:
            [similar] = examples.nearest([digits[index]])
            return Pictures(encode_example(digits[index]), None, None, 28, 28, similar)

        rows = [{"path": str(n), "is_anomaly": n < 3} for n in range(5)]
        found = explain(rows, {"0": picture(0), "1": picture(0), "4": picture(4)}, examples)
        assert set(found.similar) == {"0", "1"}
        assert found.similar["0"] == found.similar["1"]
        assert len(found.examples) == 3
        assert found.examples[found.similar["0"][0]] == (examples.names[0], examples.pictures[0])
        payload = found.payload(rows)
        assert set(payload["similar"]) == {"0", "1"}

    def test_what_names_no_example_of_this_model_is_not_shown(self, examples: Examples) -> None:
        """Pictures that a damaged file gives impossible examples, and those that were compared with none."""
        pictures = {"0": Pictures(b"x", None, None, 1, 1, (len(examples),)), "1": Pictures(b"x", None, None, 1, 1)}
        found = explain([{"path": path, "is_anomaly": True} for path in pictures], pictures, examples)
        assert found.similar == {}
        assert found.examples == ()


class TestFile:
    """The member of the model file."""

    def test_round_trip(self, examples: Examples) -> None:
        """Names of any kind and pictures come back as they were."""
        odd = replace(examples, names=("🧱/é.png", 'q"uote', *examples.names[2:]))
        assert unpack(pack(odd)) == odd

    def test_old_files_have_none(self, model_file: Path, tmp_path: Path, digits: NDArray[np.uint8]) -> None:
        """A file without the member is read, scores to the bit as before, and is written without it again."""
        model = read_model(model_file)
        write_model(tmp_path / "old.oddment", replace(model, examples=Examples()))
        old = load(tmp_path / "old.oddment")
        assert OPTIONAL[0].encode() not in (tmp_path / "old.oddment").read_bytes()
        assert np.array_equal(old.anomaly_score(digits[:9]), load(model_file).anomaly_score(digits[:9]))

    def test_a_new_rule_keeps_them(self, model_file: Path) -> None:
        """Another threshold is another verdict on the same model."""
        scorer = load(model_file)
        assert scorer.with_rule(ThresholdRule("fixed", 1.0)).model.examples == scorer.model.examples
