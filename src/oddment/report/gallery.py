"""Which pictures a report keeps: the highest-scoring images', and a small sample of all, within a byte budget."""

from __future__ import annotations

import hashlib
import struct
from bisect import bisect, insort
from operator import itemgetter
from threading import RLock
from typing import TYPE_CHECKING

from oddment.errors import ParameterError
from oddment.report.journal import Entry, Floors, append_record, read_records, rewrite_records

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import BinaryIO

    from oddment.report.pictures import Pictures

__all__ = ["Gallery"]

_SAMPLE_SHARE = 10  # the sample may use one tenth of the budget
_COMPACT_BEYOND = 4  # times the budget
_SLACK = 1.5  # how far beyond the room an image's expected rank may lie for its pictures to be made at once


class _Shelf:
    """The longest run of entries, lowest key first, that fits into a byte budget and a count.

    Once an entry had to go, nothing with its key or a higher one is taken again. So what is left depends on which
    entries came, not on their order; only entries of exactly equal key may stand in for each other.
    """

    def __init__(self, budget: int, count: int | None = None) -> None:
        self.floor: float | None = None
        self.entries: list[tuple[float, str, Entry]] = []
        self.paths: set[str] = set()
        self._budget = budget
        self._count = count
        self._nbytes = 0

    def wants(self, key: float) -> bool:
        return self.floor is None or key < self.floor

    def will_keep(self, key: float, seen: float) -> bool:
        if self._count is None or not self.wants(key):
            return self.wants(key)
        # Once something had to go, what is there is what there is room for.
        room = self._count if self.floor is None else min(self._count, len(self.entries))
        rank = bisect(self.entries, key, key=itemgetter(0)) + 1
        return rank / seen <= _SLACK * room

    def add(self, key: float, entry: Entry) -> None:
        if not self.wants(key):
            return
        insort(self.entries, (key, entry.path, entry))
        self.paths.add(entry.path)
        self._nbytes += entry.pictures.nbytes
        while self._nbytes > self._budget or (self._count is not None and len(self.entries) > self._count):
            self._drop_last()

    def close_at(self, floor: float | None) -> None:
        """Take nothing at or beyond this key any more, and let go what lies beyond it."""
        while floor is not None and self.entries and self.entries[-1][0] > floor:
            self._drop_last()
        self.floor = floor

    def _drop_last(self) -> None:
        self.floor, path, dropped = self.entries.pop()
        self.paths.remove(path)
        self._nbytes -= dropped.pictures.nbytes


class Gallery:
    """Keeps the pictures of the highest-scoring images and a small sample of all images, memory flat.

    The images kept are the longest run from the highest score down that fits into nine tenths of the budget, and a
    sample of at most `typical` in the last tenth. Both depend on the images seen and on the seed, not on the order in
    which the images came; only among images of exactly equal score does the order decide. Threads may ask what it wants
    while another adds.

    Args:
        budget: bytes of encoded pictures kept at most.
        most: images kept at most; encoding their pictures costs more time than scoring small images does.
        typical: how many images the sample holds; they show what normal looks like.
        seed: of the sample.
        journal: a file to which everything taken in is appended. When it exists, its pictures are taken back, so that
            a resumed search scores nothing twice. It never grows beyond about four budgets.

    Raises:
        ParameterError: if `budget`, `most` or `typical` is negative.

    >>> gallery = Gallery(budget=1_000)
    >>> gallery.wants(0.5)
    True
    """

    def __init__(
        self,
        *,
        budget: int = 9_000_000,
        most: int = 1000,
        typical: int = 24,
        seed: int = 0,
        journal: Path | None = None,
    ) -> None:
        if min(budget, most, typical) < 0:
            raise ParameterError(f"budget, most and typical must be 0 or more; got {budget}, {most} and {typical}.")
        self._budget = budget
        self._most = most
        self._seed = seed
        self._journal = journal
        self._journal_size = 0
        self._file: BinaryIO | None = None
        self._ranking = _Shelf(budget - budget // _SAMPLE_SHARE, most)
        self._sample = _Shelf(budget // _SAMPLE_SHARE, typical)
        self._lock = RLock()
        if journal is not None and journal.exists():
            self._restore(journal)

    def wants(self, anomaly_score: float) -> bool:
        """Whether pictures of an image with this score may be kept: ask before rendering them."""
        with self._lock:
            return self._ranking.wants(-anomaly_score) or self._wants_in_sample(anomaly_score)

    def will_keep(self, anomaly_score: float, seen: float) -> bool:
        """Whether pictures of an image with this score will probably still be kept when all images have been seen.

        Among images that come in no particular order, one that ranks 10th in the first hundredth ends near rank 1,000.

        Args:
            anomaly_score: its score.
            seen: the share of all images that have been seen, in (0, 1].
        """
        with self._lock:
            return self._ranking.will_keep(-anomaly_score, seen) or self._wants_in_sample(anomaly_score)

    def holds(self, path: str) -> bool:
        """Whether pictures of an image are kept."""
        return self._holds(path)

    @property
    def most(self) -> int:
        """Images that the ranking keeps at most."""
        return self._most

    def add(self, path: str, anomaly_score: float, pictures: Pictures) -> None:
        """Take in an image's pictures; those that no longer fit go. A path that is kept already is ignored.

        Args:
            path: the image's name.
            anomaly_score: its score.
            pictures: as `render_pictures` gives them.
        """
        entry = Entry(path, float(anomaly_score), pictures)
        with self._lock:
            if self._holds(path) or not self.wants(anomaly_score):
                return
            self._take(entry)
        if self._journal is not None:
            self._write(self._journal, entry)

    def close(self) -> None:
        """Close the journal's file; it is opened again where more pictures come."""
        if self._file is not None:
            self._file.close()
        self._file = None

    def items(self) -> Mapping[str, Pictures]:
        """The pictures kept, by path: the highest scores first, then the sample."""
        return {entry.path: entry.pictures for entry in self._kept()}

    def _holds(self, path: str) -> bool:
        return path in self._ranking.paths or path in self._sample.paths

    def _kept(self) -> list[Entry]:
        both = [entry for shelf in (self._ranking, self._sample) for _, _, entry in shelf.entries]
        return list({entry.path: entry for entry in both}.values())

    def _take(self, entry: Entry) -> None:
        in_sample = self._wants_in_sample(entry.anomaly_score)
        self._ranking.add(-entry.anomaly_score, entry)
        if in_sample:
            self._sample.add(self._draw(entry.anomaly_score), entry)

    def _wants_in_sample(self, anomaly_score: float) -> bool:
        # A camera that stares at one scene gives one score many times: one picture of it is enough.
        key = self._draw(anomaly_score)
        return self._sample.wants(key) and all(key != other for other, _, _ in self._sample.entries)

    def _draw(self, anomaly_score: float) -> float:
        """A number in [0, 1) drawn from the score and the seed: the lowest draws are a sample without memory."""
        digest = hashlib.blake2b(struct.pack("<qd", self._seed, anomaly_score), digest_size=6).digest()
        return int.from_bytes(digest, "little") / 2**48

    def _floors(self) -> Floors:
        return Floors(self._ranking.floor, self._sample.floor)

    def _restore(self, journal: Path) -> None:
        for record in read_records(journal):
            if isinstance(record, Entry):
                if not self._holds(record.path):
                    self._take(record)
            else:
                self._ranking.close_at(record.ranking)
                self._sample.close_at(record.sample)
        self._journal_size = journal.stat().st_size

    def _write(self, journal: Path, entry: Entry) -> None:
        # A picture that was weighed and found too large leaves its mark as a floor, without its bytes.
        record = entry if self._holds(entry.path) else self._floors()
        # Opened once: opening a file anew for each picture took half as long as drawing it.
        self._file = self._file or journal.open("ab")
        self._journal_size = append_record(self._file, record)
        # Floors first: read back, an entry of the sample must not enter the ranking that had refused it.
        if self._journal_size > _COMPACT_BEYOND * self._budget:
            self.close()
            self._journal_size = rewrite_records(journal, [self._floors(), *self._kept()])
