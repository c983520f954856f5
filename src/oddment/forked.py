"""Work in copies of this process, for what threads of Python do not get done side by side.

A search of small pictures holds Python's lock for half of its time, so that its threads wait for each other, the longer
the more processors there are; copies do not. (20,000 JPEGs of 256×256 on two cores: 12.7 s in threads, 10.4 in copies.)

A copy is made by forking: model, libraries and all else that is loaded are shared, and only what changes needs memory
of its own. That is safe on Linux while this process has no other thread. Copies end with this process, however it ends.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from oddment.images.stream import in_turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Copies", "copies"]

S = TypeVar("S")
T = TypeVar("T")
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux's prctl.h
# Torch's threads, and the locks that they hold, would be missing in a copy.
_THREADED = ("torch",)


class Copies(Generic[S, T]):
    """Copies of this process that do one kind of work; `close` ends them.

    Args:
        work: called in a copy with an item; what it raises is raised here. All it refers to is there as it was when the
            copies were made; items and results travel through pipes.
        count: how many copies.

    Raises:
        OSError: if the system makes none.
    """

    def __init__(self, work: Callable[[S], T], count: int) -> None:
        # A hundredth of a second that a search of a few images need not pay.
        from concurrent.futures import ProcessPoolExecutor
        from multiprocessing import active_children, get_context

        before = set(active_children())
        self._count = count
        self._pool = ProcessPoolExecutor(
            count, mp_context=get_context("fork"), initializer=_begin, initargs=(work, os.getpid())
        )
        # What is there now is garbage of nobody's: looking through it would give each copy pages of its own.
        gc.freeze()
        try:
            # The first task makes all copies, before this process gets a thread.
            self._pool.submit(os.getpid)
        except OSError:
            # Those that were made wait for work, and this process would wait for them.
            for child in set(active_children()) - before:
                child.kill()
            raise
        finally:
            gc.unfreeze()

    def ahead(self, items: Iterable[S]) -> Iterator[T]:
        """Yield what the work makes of each item, in order, worked out ahead.

        Args:
            items: drawn from only as fast as results are taken.

        Raises:
            concurrent.futures.BrokenExecutor: if a copy was ended from outside.
        """
        return in_turn(items, lambda item: self._pool.submit(_do, item), waiting=2 * self._count + 1)

    def close(self) -> None:
        """Wait for what is being worked on, and end the copies."""
        self._pool.shutdown(cancel_futures=True)


def copies(work: Callable[[S], T], count: int) -> Copies[S, T] | None:
    """Return copies of this process for some work; None where threads have to do.

    Args:
        work: as `Copies` takes it.
        count: how many copies; fewer than two are not worth it.
    """
    alone = threading.active_count() == 1 and not any(name in sys.modules for name in _THREADED)
    if count < 2 or sys.platform != "linux" or not alone:
        return None
    try:
        return Copies(work, count)
    except (ImportError, NotImplementedError, OSError):  # no semaphores, or no more processes
        return None


# In a copy, what it does; in this process, nothing.
_WORK: list[Callable[[Any], Any]] = []


def _begin(work: Callable[[Any], Any], parent: int) -> None:
    """Make ready in a copy: Ctrl-C is the parent's to obey, and its end is ours."""
    _WORK[:] = [work]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)


def _do(item: Any) -> Any:  # noqa: ANN401
    return _WORK[0](item)
