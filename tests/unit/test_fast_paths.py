"""Shortcuts give what the long way gives: arrays without bookkeeping, work ahead in threads, pictures made late."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from oddment import Detector, Scorer, load
from oddment.errors import ImageError
from oddment.images.decode import decode
from oddment.images.inputs import as_prepared, as_refs
from oddment.images.prepare import Preparation
from oddment.images.references import ImageRef
from oddment.images.stream import ahead, in_order
from oddment.regions import MOST_REGIONS, _smooth, find_each_regions, find_regions, map_peak, map_peaks
from oddment.report.gallery import Gallery
from oddment.report.pictures import Pictures
from oddment.results import Detection
from oddment.searching import Search, SearchOptions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

GRAY, COLOUR = Preparation(8, 6, 1), Preparation(8, 6, 3)


def pictures(*shape: int, dtype: str = "uint8") -> NDArray[Any]:
    values = np.random.default_rng(0).random(shape)
    return values.astype(dtype) if dtype.startswith("f") else (values * np.iinfo(dtype).max).astype(dtype)


@pytest.fixture(scope="module", params=[1, 3], ids=["gray", "colour"])
def scorer(request: pytest.FixtureRequest) -> Scorer:
    """A model of 8×8 pictures."""
    return Detector(model="conv-small", epochs=1, target_fpr=0.1).fit(pictures(60, 8, 8, request.param)).scorer_


class TestScoringArrays:
    """`Scorer.anomaly_score` of arrays that need no preparation."""

    @pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
    @pytest.mark.parametrize("count", [1, 33, 700])
    def test_the_score_of_a_search(self, scorer: Scorer, dtype: str, count: int) -> None:
        """The scores are those that `find` gives to each image, to the last bit."""
        images = pictures(count, 8, 8, scorer.model.preparation.channels, dtype=dtype)
        assert as_prepared(images, scorer.model.preparation) is not None
        found = [item.result for item in scorer.find(as_refs(images))]
        expected = np.array([item.anomaly_score for item in found if isinstance(item, Detection)], np.float32)
        assert scorer.anomaly_score(images).tobytes() == expected.tobytes()

    def test_views_and_read_only_arrays(self, scorer: Scorer) -> None:
        """An array that is neither contiguous nor writable scores as its copy does."""
        images = pictures(80, 8, 8, scorer.model.preparation.channels)[::-2]
        images.flags.writeable = False
        assert scorer.anomaly_score(images).tobytes() == scorer.anomaly_score(images.copy()).tobytes()

    def test_what_is_not_finite(self, scorer: Scorer) -> None:
        """NaN is refused and the image named, as everywhere."""
        images = pictures(40, 8, 8, scorer.model.preparation.channels, dtype="float32")
        images[7, 0, 0] = np.nan
        with pytest.raises(ImageError, match=r"\[7\]: contains NaN"):
            scorer.anomaly_score(images)


def test_files_that_are_none_among_images(scorer: Scorer, tmp_path: Path) -> None:
    """Wherever rejected files lie, each image has the score that it has alone, in order."""
    shape = (8, 8) if scorer.model.preparation.channels == 1 else (8, 8, 3)
    for number in range(90):
        path = tmp_path / f"{number:02}.png"
        if number % 7 == 3 or 40 <= number < 76:
            path.write_bytes(b"not a picture")
        else:
            Image.fromarray(np.random.default_rng(number).integers(0, 256, shape, np.uint8)).save(path)
    found = list(scorer.find(as_refs([tmp_path])))
    assert [item.ref.path for item in found] == sorted(str(path) for path in tmp_path.iterdir())
    assert sum(isinstance(item.result, Detection) for item in found) == 46
    for item in found[::5]:
        [alone] = scorer.find([item.ref])
        assert alone.result == item.result


@pytest.mark.parametrize(("side", "most"), [(8, 400), (2000, 60)], ids=["small", "large"])
def test_little_of_an_archive_is_held(scorer: Scorer, side: int, most: int) -> None:
    """Images that hold their own pixels are drawn a few batches ahead, and far fewer where they are large."""
    drawn = []

    def refs() -> Iterator[ImageRef]:
        for number, image in enumerate(np.broadcast_to(np.uint8(7), (1000, side, side))):
            drawn.append(number)
            yield ImageRef(f"archive.npz!/{number}", image)

    search = scorer.find(refs(), workers=2)
    found = next(search)
    search.close()
    assert isinstance(found.result, Detection)
    assert len(drawn) <= most


def test_a_search_that_is_left_ends_soon(scorer: Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever takes no more images does not wait for those that have been begun with."""
    seen = []

    def slow(payload: Any, **asked: Any) -> Any:
        seen.append(payload)
        time.sleep(0.005)
        return decode(payload, **asked)

    monkeypatch.setattr("oddment.scorer.decode", slow)
    search = scorer.find(as_refs(pictures(1000, 8, 8, scorer.model.preparation.channels)), workers=2)
    next(search)
    before = len(seen)
    search.close()
    assert len(seen) <= before + 2 * 2


@pytest.mark.parametrize(
    ("preparation", "images"),
    [
        (GRAY, pictures(5, 9, 6)),
        (GRAY, pictures(5, 8, 6, 3)),
        (GRAY, pictures(5, 8, 6, 4)),
        (COLOUR, pictures(5, 8, 6)),
        (COLOUR, pictures(5, 8, 6, 1)),
        (GRAY, pictures(5, 8, 6).astype(np.int64)),
        (GRAY, pictures(5, 8, 6).astype(">u2")),
        (GRAY, pictures(5, 8, 6, dtype="float64")),
        (GRAY, pictures(5, 8, 6) > 100),
        (GRAY, pictures(0, 8, 6)),
        (GRAY, pictures(8, 6)),
        (GRAY, list(pictures(5, 8, 6))),
        (GRAY, "folder"),
        (Preparation(8, 6, 1, ranges={"uint8": (0, 255)}), pictures(5, 8, 6, dtype="uint16")),
    ],
)
def test_what_needs_preparation(preparation: Preparation, images: Any) -> None:
    """Another size, number of channels or type takes the long way."""
    assert as_prepared(images, preparation) is None


class TestAhead:
    """Work in threads, results in order."""

    def test_in_order_and_never_far_ahead(self) -> None:
        """Results come in the order of the items, and no more items are drawn than may wait."""
        drawn: list[int] = []

        def items() -> Iterator[int]:
            for number in range(50):
                drawn.append(number)
                yield number

        def work(number: int) -> int:
            time.sleep(0.002 * (number % 3))
            return -number

        for index, result in enumerate(ahead(items(), work, workers=3, waiting=5)):
            assert result == -index
            assert len(drawn) <= index + 5
        assert len(drawn) == 50

    def test_errors_arrive(self) -> None:
        """What the work raises is raised to whoever takes the results, in its place."""

        def work(number: int) -> int:
            if number == 3:
                raise KeyError(number)
            return number

        results = ahead(range(9), work, workers=2, waiting=4)
        assert [next(results), next(results), next(results)] == [0, 1, 2]
        with pytest.raises(KeyError):
            next(results)

    def test_left_early(self) -> None:
        """Whoever stops taking results leaves no thread behind."""
        before = threading.active_count()
        results = in_order(as_refs(pictures(100, 4, 4)), lambda ref: ref.path, workers=4)
        assert next(results)[1] == "[0]"
        results.close()  # type: ignore[attr-defined]
        assert threading.active_count() == before


class TestPictures:
    """A search makes pictures of what will stay, and at its end of what stayed against expectation."""

    @pytest.mark.parametrize("order", ["rising", "falling", "mixed"])
    def test_the_pictures_of_a_search_that_makes_all(
        self, tiny_model: Path, tmp_path: Path, order: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever the order, the report keeps the pictures that it would if each were made as the image came."""
        scorer = load(tiny_model)
        images = pictures(60, 8, 8)
        scores = scorer.anomaly_score(images)
        ranks = {"rising": np.argsort(scores), "falling": np.argsort(-scores), "mixed": np.arange(60)}[order]
        folder = tmp_path / "new"
        folder.mkdir()
        for number, index in enumerate(ranks.tolist()):
            Image.fromarray(images[index]).save(folder / f"{number:02}.png")

        def run(out: Path) -> tuple[list[str], int]:
            search = Search(scorer, tiny_model, [folder], out, SearchOptions())
            search.gallery = gallery = Gallery(most=10, typical=2)
            made = 0
            for line in search.run():
                made += gallery.holds(line.path)
            search.finish(complete=True)
            return list(gallery.items()), made

        kept, made = run(tmp_path / "a")
        wanted = Gallery.wanted
        monkeypatch.setattr(Gallery, "wanted", lambda self, noted=None, total=0: wanted(self))  # noqa: ARG005
        expected, made_at_once = run(tmp_path / "b")
        assert kept == expected
        assert len(kept) >= 10
        assert made <= made_at_once
        if order != "rising":
            assert made < made_at_once

    def test_an_early_rank_is_scaled_up(self) -> None:
        """A rank among few is worth less than the same rank among all."""
        gallery = Gallery(most=10, typical=0)
        for number in range(8):
            gallery.note(float(number), str(number))
        assert gallery.wanted(100, 100).will_stay(-1.0, "a")
        assert not gallery.wanted(10, 100).will_stay(-1.0, "a")
        assert gallery.wanted(10, 100).will_stay(9.0, "a")
        assert not gallery.wanted(0, 100).will_stay(9.0, "a")
        assert gallery.wanted(10, 100).may_stay(-1.0, "a")
        # Where all will have room, and where many will, nothing need be known of ranks.
        assert gallery.wanted(0, 10).will_stay(-1.0, "a")
        assert gallery.wanted(9, 10).will_stay(-1.0, "a")
        assert gallery.wanted(0, 30).will_stay(-1.0, "a")
        assert not gallery.wanted(0, 31).will_stay(-1.0, "a")

    def test_what_will_stay_is_what_stays_and_little_more(self) -> None:
        """Of scores in no order, nearly all that are kept at the end were expected to be, and few others."""
        scores = np.random.default_rng(0).permutation(20_000) / 20_000
        gallery = Gallery(most=500, typical=20)
        expected = []
        for number, score in enumerate(scores.tolist()):
            if gallery.wanted(number, len(scores)).will_stay(score, str(score)):
                expected.append(score)
                gallery.add(str(score), score, Pictures(b"x", None, None, 1, 1))
            gallery.note(score, str(score))
        highest = set(np.sort(scores)[-500:].tolist())
        assert len(highest & set(expected)) > 450
        assert len(expected) < 650

    def test_the_most_wanted_of_those_that_were_missed(self) -> None:
        """The highest scores, as many as there is room for, and one of each score that the sample is about to hold."""
        gallery = Gallery(most=30, typical=2)
        scores = [float(number) for number in range(100)]
        for score in scores:
            gallery.note(score, f"a{score}")
            gallery.note(score, f"b{score}")
        for score in scores[90:]:
            gallery.add(f"a{score}", score, Pictures(b"x" * 1000, None, None, 1, 1))
        missed = [(score, f"{kind}{score}") for score in scores for kind in "ab"]
        found = gallery.most_wanted(missed)
        assert found == sorted(found, key=lambda item: (-item[0], item[1]))
        assert not any(gallery.holds(path) for _, path in found)
        assert {path for _, path in found} >= {f"b{score}" for score in scores[90:]} | {"a89.0", "b89.0", "a85.0"}
        sampled = [path for score, path in found if score < 75]
        assert 1 <= len(sampled) <= 2
        assert all(path.startswith("a") for path in sampled)
        for score, path in found:
            gallery.add(path, score, Pictures(b"x" * 1000, None, None, 1, 1))
        assert gallery.most_wanted(missed) == []


def test_boxes_are_those_of_a_flood_fill() -> None:
    """Regions are what a cell-by-cell flood fill finds, highest peak first."""
    rng = np.random.default_rng(3)
    for share in (0.05, 0.2, 0.4, 0.6):
        anomaly_map = (rng.random((40, 31)) < share).astype(np.float32) * rng.random((40, 31), np.float32)
        level = float(np.quantile(anomaly_map, 0.8)) / 9
        (coarse,), step = _smooth(anomaly_map[None])
        assert step == 1
        expected = sorted(flooded(coarse, level), reverse=True)[:MOST_REGIONS]
        found = find_regions(anomaly_map, (31, 40), level)
        assert [(box.peak, box.left, box.top, box.right, box.bottom) for box in found] == expected


def test_boxes_of_many_maps() -> None:
    """Maps of all shapes looked at together have the boxes and peaks that each has alone."""
    rng = np.random.default_rng(5)
    shapes = [(40, 31), (64, 64), (65, 200), (3, 1), (300, 224)]
    maps = [rng.random(shapes[rng.integers(len(shapes))], np.float32) ** 4 for _ in range(60)]
    sizes = [(2 * item.shape[1], 3 * item.shape[0]) for item in maps]
    peaks = map_peaks(maps)
    assert peaks.tolist() == [map_peak(item) for item in maps]
    level = float(np.median(peaks))
    insist = (rng.random(60) < 0.5).tolist()
    together = find_each_regions(maps, sizes, level, insist)
    alone = [
        find_regions(item, size, level, insist=asked) for item, size, asked in zip(maps, sizes, insist, strict=True)
    ]
    assert together == alone
    assert 30 <= sum(map(bool, together)) < 60


def flooded(values: NDArray[np.float32], level: float) -> list[tuple[float, int, int, int, int]]:
    """Peak, left, top, right and bottom of each 8-connected part above a level."""
    todo = {(int(y), int(x)) for y, x in np.argwhere(values > level)}
    parts = []
    while todo:
        part, border = [], [todo.pop()]
        while border:
            y, x = border.pop()
            part.append((y, x))
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & todo
            todo -= near
            border += near
        rows, columns = [y for y, _ in part], [x for _, x in part]
        peak = max(float(values[cell]) for cell in part)
        parts.append((peak, min(columns), min(rows), max(columns) + 1, max(rows) + 1))
    return parts
