"""Which pictures a report keeps, and that a journal brings them back."""

from pathlib import Path

import numpy as np
import pytest

from oddment.errors import ParameterError
from oddment.report import Gallery, Pictures


def _pictures(nbytes: int, fill: int = 7) -> Pictures:
    return Pictures(bytes([fill % 256]) * nbytes, None, b"", 4, 4)


def _stream(n: int, seed: int = 0) -> list[tuple[str, float, Pictures]]:
    rng = np.random.default_rng(seed)
    return [
        (f"image-{index}", float(score), _pictures(int(size), index))
        for index, (score, size) in enumerate(zip(rng.permutation(n) / n, rng.integers(20, 400, n), strict=True))
    ]


def _fill(gallery: Gallery, stream: list[tuple[str, float, Pictures]]) -> None:
    for path, score, pictures in stream:
        if gallery.wants(score, path):
            gallery.add(path, score, pictures)
    gallery.close()


def _nbytes(gallery: Gallery) -> int:
    return sum(pictures.nbytes for pictures in gallery.items().values())


def test_budget_is_kept_at_every_step() -> None:
    """However many images stream by, the pictures kept stay within the budget."""
    gallery = Gallery(budget=5_000)
    for entry in _stream(2_000):
        _fill(gallery, [entry])
        assert _nbytes(gallery) <= 5_000


def test_highest_scores_are_kept_whole() -> None:
    """The images kept are the longest run from the highest score down that fits into nine tenths of the budget."""
    stream = _stream(500)
    gallery = Gallery(budget=10_000, typical=0)
    _fill(gallery, stream)
    ranked = sorted(stream, key=lambda entry: -entry[1])
    sizes = np.cumsum([pictures.nbytes for _, _, pictures in ranked])
    assert list(gallery.items()) == [path for path, _, _ in ranked[: int((sizes <= 9_000).sum())]]


@pytest.mark.parametrize("seed", range(5))
def test_order_of_the_images_does_not_matter(seed: int) -> None:
    """The same images in another order leave the same pictures, sample included."""
    stream = _stream(800)
    first, second = Gallery(budget=8_000), Gallery(budget=8_000)
    _fill(first, stream)
    order = np.random.default_rng(seed).permutation(len(stream))
    _fill(second, [stream[index] for index in order])
    assert dict(first.items()) == dict(second.items())


def test_sample_shows_images_below_the_highest() -> None:
    """Some typical images are kept beside the highest ones; another seed keeps others."""
    stream = _stream(5_000)
    kept = []
    for seed in (0, 1):
        gallery = Gallery(budget=40_000, typical=10, seed=seed)
        _fill(gallery, stream)
        scores = {path: score for path, score, _ in stream}
        kept.append({path for path in gallery.items() if scores[path] < 0.9})
    assert all(5 <= len(sample) <= 10 for sample in kept)
    assert kept[0] != kept[1]


def test_equal_scores_are_not_rendered_again_and_again() -> None:
    """A camera staring at one scene: once full, nothing with the same score is wanted."""
    gallery = Gallery(budget=1_000)
    wanted = 0
    for index in range(1_000):
        if gallery.wants(0.5, f"{index:04}.png"):
            wanted += 1
            gallery.add(f"{index:04}.png", 0.5, _pictures(100))
    assert wanted <= 11


def test_of_equal_scores_the_path_decides() -> None:
    """Whatever the order, those of the lowest paths stay, one of them in the sample."""
    rng = np.random.default_rng(0)
    kept = []
    for _ in range(5):
        gallery = Gallery(budget=2_000, typical=3)
        for index in rng.permutation(300).tolist():
            path, score = f"{index:03}", 0.5 + (index % 100 == 0)
            if gallery.wants(score, path):
                gallery.add(path, score, _pictures(100))
        kept.append(list(gallery.items()))
    assert kept[0] == ["000", "100", "200", *(f"{index:03}" for index in range(1, 16))]
    assert kept == kept[:1] * 5


def test_everything_is_kept_while_there_is_room() -> None:
    """A small search loses no picture; a path given twice counts once."""
    gallery = Gallery()
    _fill(gallery, _stream(50) + _stream(50))
    assert len(gallery.items()) == 50


@pytest.mark.parametrize("seed", range(10))
def test_journal_brings_the_pictures_back(tmp_path: Path, seed: int) -> None:
    """A resumed gallery holds what the first one held and goes on as if never interrupted."""
    stream = _stream(900, seed)
    journal = tmp_path / "pictures.journal"
    whole = Gallery(budget=6_000)
    _fill(whole, stream)
    _fill(Gallery(budget=6_000, journal=journal), stream[:400])
    resumed = Gallery(budget=6_000, journal=journal)
    _fill(resumed, stream[350:])
    assert dict(resumed.items()) == dict(whole.items())
    assert dict(Gallery(budget=6_000, journal=journal).items()) == dict(whole.items())


@pytest.mark.parametrize("lost", [1, 10, 60, 119])
def test_torn_tail_costs_the_last_entry_only(tmp_path: Path, lost: int) -> None:
    """An entry cut off while it was written is dropped, and appending goes on after the ones before it."""
    journal = tmp_path / "pictures.journal"
    gallery = Gallery(journal=journal)
    for index in range(3):
        gallery.add(str(index), float(index), _pictures(120))
    gallery.close()
    journal.write_bytes(journal.read_bytes()[:-lost])
    resumed = Gallery(journal=journal)
    assert set(resumed.items()) == {"0", "1"}
    resumed.add("3", 3.0, _pictures(120))
    resumed.close()
    assert set(Gallery(journal=journal).items()) == {"0", "1", "3"}


@pytest.mark.parametrize("content", [b"", b"ODPJ", b"not a journal at all", b"\x00" * 500, b"ODPJ" + b"\xff" * 40])
def test_foreign_journal_is_an_empty_one(tmp_path: Path, content: bytes) -> None:
    """A file that holds no record gives no pictures and no error."""
    journal = tmp_path / "pictures.journal"
    journal.write_bytes(content)
    assert Gallery(journal=journal).items() == {}


def test_flipped_byte_is_noticed(tmp_path: Path) -> None:
    """A damaged record and what follows it are dropped."""
    journal = tmp_path / "pictures.journal"
    gallery = Gallery(journal=journal)
    for index in range(3):
        gallery.add(str(index), float(index), _pictures(120))
    gallery.close()
    content = bytearray(journal.read_bytes())
    content[len(content) // 2] ^= 1
    journal.write_bytes(content)
    assert set(Gallery(journal=journal).items()) == {"0"}


def test_journal_does_not_outgrow_the_budget(tmp_path: Path) -> None:
    """Scores that only rise replace everything again and again: the journal is compacted, nothing is lost."""
    journal = tmp_path / "pictures.journal"
    gallery = Gallery(budget=4_000, journal=journal)
    for index in range(600):
        gallery.add(f"path-{index}", float(index), _pictures(100))
        assert journal.stat().st_size <= 4 * 4_000 + 400
    gallery.close()
    assert dict(Gallery(budget=4_000, journal=journal).items()) == dict(gallery.items())


def test_any_path_survives_the_journal(tmp_path: Path) -> None:
    """Undecodable bytes, emoji and line breaks in a name come back as they were."""
    names = ["a\nb", "🧱", "\udcff", "مرحبا", 'quo"te']
    gallery = Gallery(journal=tmp_path / "j")
    for score, name in enumerate(names):
        gallery.add(name, score, _pictures(10))
    gallery.close()
    assert set(Gallery(journal=tmp_path / "j").items()) == set(names)


def test_negative_budget_is_refused() -> None:
    """A budget below zero names the rule and the value."""
    with pytest.raises(ParameterError, match="-1"):
        Gallery(budget=-1)
