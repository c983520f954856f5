"""What the C library is told of memory, and when."""

from __future__ import annotations

import pytest

from oddment import allocator

MMAP, TRIM = allocator._MMAP_THRESHOLD, allocator._TRIM_THRESHOLD


class Library:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.told: dict[int, int] = {}
        self.trimmed = 0

    def mallopt(self, name: int, size: int) -> None:
        """Take a setting."""
        self.told[name] = size

    def malloc_trim(self, _: int) -> None:
        """Count."""
        self.trimmed += 1


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library()
    monkeypatch.setattr(allocator, "_library", lambda: library)
    allocator.keep_batches.cache_clear()
    return library


def test_after_a_training_batches_still_stay(library: Library) -> None:
    """Large blocks are kept for its length and given back after it; batches of small pictures stay in any case."""
    with allocator.kept_pages():
        assert min(library.told.values()) >= 1 << 30
        assert not library.trimmed
    assert 1 << 20 < library.told[MMAP] < library.told[TRIM] < 1 << 26
    assert library.trimmed == 1
    after = dict(library.told)
    library.told.clear()
    allocator.keep_batches()
    assert library.told == after


def test_batches_are_kept_once_told(library: Library) -> None:
    """The library is told once, and nothing is given back for it."""
    allocator.keep_batches()
    library.told.clear()
    allocator.keep_batches()
    assert not library.told
    assert not library.trimmed
    allocator.give_back_freed()
    assert library.trimmed == 1


def test_without_such_a_library_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere than on Linux, or with another C library."""
    monkeypatch.setattr(allocator.sys, "platform", "win32")
    allocator.keep_batches.cache_clear()
    allocator.keep_batches()
    allocator.give_back_freed()
    with allocator.kept_pages():
        pass
