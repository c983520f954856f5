"""Work on many images at once, results in order, never more than a few in memory."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from oddment.processors import cores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from threading import Event

    from oddment.images.files import ImageRef

__all__ = ["ahead", "in_order", "in_turn", "portions"]

S = TypeVar("S")
T = TypeVar("T")
# References a task: one future an image would cost more than a tiny image's decoding.
CHUNK = 8
# Bytes of images from archives and arrays, about, that a portion holds.
_MOST_HELD = 2**25


def in_order(
    refs: Iterable[ImageRef], work: Callable[[ImageRef], T], *, workers: int | None = None, waiting: int | None = None
) -> Iterator[tuple[ImageRef, T]]:
    """Yield (reference, work(reference)) in the order of `refs`, computed ahead in threads.

    Args:
        refs: references to images; drawn from only as fast as results are taken.
        work: called in a worker thread; must not raise (return the error instead).
        workers: threads; all cores unless given.
        waiting: results that may wait to be taken, about; a few a worker unless given.
    """
    count = workers or cores()
    tasks = 2 * count + 1 if waiting is None else max(2 * count + 1, -(-waiting // CHUNK))
    source = iter(refs)
    chunks = iter(lambda: list(islice(source, CHUNK)), [])
    for done in ahead(chunks, lambda chunk: [(ref, work(ref)) for ref in chunk], workers=count, waiting=tasks):
        yield from done


def ahead(
    items: Iterable[S], work: Callable[[S], T], *, workers: int, waiting: int, stop: Event | None = None
) -> Iterator[T]:
    """Yield work(item) in the order of `items`, computed ahead in threads.

    Args:
        items: drawn from, in the caller's thread, only as fast as results are taken.
        work: called in a worker thread; what it raises is raised here.
        workers: threads.
        waiting: items at most that are being worked on or wait to be taken.
        stop: set when no more is wanted, before what is being worked on is waited for.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="oddment-ahead")
    try:
        yield from in_turn(items, lambda item: pool.submit(work, item), waiting=waiting, stop=stop)
    finally:
        pool.shutdown()


def in_turn(
    items: Iterable[S], submit: Callable[[S], Future[T]], *, waiting: int, stop: Event | None = None
) -> Iterator[T]:
    """Yield the results of the items in their order, whoever works them out.

    Args:
        items: drawn from only as fast as results are taken.
        submit: hands an item over to be worked on.
        waiting: items at most that are being worked on or wait to be taken.
        stop: set when no more is wanted.
    """
    source = iter(items)
    futures: deque[Future[T]] = deque()
    try:
        while True:
            while len(futures) < waiting and (chosen := list(islice(source, 1))):
                futures.append(submit(chosen[0]))
            if not futures:
                return
            yield futures.popleft().result()
    finally:
        if stop is not None:
            stop.set()
        for future in futures:
            future.cancel()


def portions(refs: Iterable[ImageRef], size: int) -> Iterator[list[ImageRef]]:
    """Yield the references in lists of `size`, shorter ones where they hold much themselves: members of archives do.

    Args:
        refs: references to images, drawn from only as fast as lists are taken.
        size: references in a list.
    """
    portion: list[ImageRef] = []
    held = 0
    for ref in refs:
        portion.append(ref)
        if isinstance(ref.payload, bytes):
            held += len(ref.payload)
        elif isinstance(ref.payload, np.ndarray):
            held += ref.payload.nbytes
        if len(portion) >= size or held >= _MOST_HELD:
            yield portion
            portion, held = [], 0
    if portion:
        yield portion
