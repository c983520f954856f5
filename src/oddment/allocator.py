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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["give_back_freed", "kept_pages"]

# Names and numbers of malloc.h in the GNU C library.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_USUAL = 128 * 1024  # bytes, both
_KEPT = 1 << 30  # bytes; larger blocks still come from the system, and go back to it


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
        for name in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            library.mallopt(name, _USUAL)
        library.malloc_trim(0)


def give_back_freed() -> None:
    """Give freed memory back to the system; without effect where malloc cannot be told so."""
    library = _library()
    if library is not None:
        library.malloc_trim(0)


def _library() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
