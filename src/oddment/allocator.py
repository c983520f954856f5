"""Memory that the C library holds: kept from one training step to the next, or given back to the system.

Each step allocates the same large tensors as the one before. The C library returns large blocks to the system at once,
and the system clears every page that it hands out again: a third of the time of a convolutional step. (Profile:
conv-pooling, batch 64, two threads: 960 → 1,500 images/s; conv-strided 560 → 640.)

A search is the other way round: what its threads have freed lies in heaps of their own, 10 MiB and more, beside what
the report then needs.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["give_back_freed", "keep_batches", "kept_pages"]

# Names and numbers of malloc.h in the GNU C library.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT = 1 << 30  # bytes; larger blocks still come from the system, and go back to it
# Bytes. Left to itself, the library gives the end of a heap back as soon as two batches of small pictures are free, and
# asks for it again for the next; told 128 KiB, its threshold at the start, it asks the system for each batch.
_BATCHES = {_MMAP_THRESHOLD: 4 << 20, _TRIM_THRESHOLD: 8 << 20}


@contextmanager
def kept_pages() -> Iterator[None]:
    """Keep freed memory in the process for the length of the block; without effect where malloc cannot be told so."""
    library = _library()
    if library is None:
        yield
        return
    for name in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
        library.mallopt(name, _KEPT)
    try:
        yield
    finally:
        _keep(library)
        library.malloc_trim(0)


@cache
def keep_batches() -> None:
    """Keep a few MiB of freed memory from one batch to the next from now on; without effect where malloc cannot."""
    library = _library()
    if library is not None:
        _keep(library)


def _keep(library: ctypes.CDLL) -> None:
    for name, size in _BATCHES.items():
        library.mallopt(name, size)


def give_back_freed() -> None:
    """Give freed memory back to the system; without effect where malloc cannot be told so."""
    library = _library()
    if library is not None:
        library.malloc_trim(0)


def _library() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
