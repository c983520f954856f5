"""Work on many images at once, results in order, never more than a few in memory."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from oddment.images.files import ImageRef

__all__ = ["in_order"]

T = TypeVar("T")
# References a task: one future an image would cost more than a tiny image's decoding.
CHUNK = 8


def in_order(
    refs: Iterable[ImageRef], work: Callable[[ImageRef], T], *, workers: int | None = None
) -> Iterator[tuple[ImageRef, T]]:
    """Yield (reference, work(reference)) in the order of `refs`, computed ahead in threads.

    Args:
        refs: references to images; drawn from only as fast as results are taken.
        work: called in a worker thread; must not raise (return the error instead).
        workers: threads; all cores unless given.
    """
    count = workers or os.cpu_count() or 1
    source = iter(refs)
    with ThreadPoolExecutor(count, thread_name_prefix="oddment-decode") as pool:
        waiting: deque[Future[list[tuple[ImageRef, T]]]] = deque()

        def refill() -> None:
            while len(waiting) < 2 * count + 1 and (chunk := list(islice(source, CHUNK))):
                waiting.append(pool.submit(_run, chunk, work))

        try:
            refill()
            while waiting:
                done = waiting.popleft().result()
                refill()
                yield from done
        finally:
            for future in waiting:
                future.cancel()


def _run(chunk: list[ImageRef], work: Callable[[ImageRef], T]) -> list[tuple[ImageRef, T]]:
    return [(ref, work(ref)) for ref in chunk]
