"""Which pictures a report keeps: the highest-scoring images', and a small sample of all, within a byte budget."""

from __future__ import annotations

import hashlib
import heapq
import math
import struct
import sys
from bisect import bisect_left, insort
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING

from oddment.errors import ParameterError
from oddment.report.journal import Entry, Floors, append_record, read_records, rewrite_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from oddment.report.pictures import Pictures

__all__ = ["Gallery", "Wanted"]

_SAMPLE_SHARE = 10  # the sample may use one tenth of the budget
_COMPACT_BEYOND = 4  # times the budget
# Standard deviations that an image's expected rank may lie beyond the room for its pictures to be made at once. Late,
# it has to be read and scored again, which takes twice as long as drawing a small one, and forty times of photographs.
_SLACK = 2.0
# Of so many times the room in all, an image is worth its pictures before anything is known of its rank.
_WORTH = 3
# How much of the budget is looked at for what would stay: pictures that are yet to be made may be smaller than most.
_ROOMY = 1.02


_Key = tuple[float, str]
"""What entries are ordered by: a number, the lowest first, and of equal ones the path."""
_END: _Key = (math.inf, "")
_LAST = chr(sys.maxunicode)  # no path comes after it


@dataclass(frozen=True, slots=True)
class Wanted:
    """Of which images a gallery wants pictures, as of one moment; what it wants later is never more.

    Args:
        highest: the key of the ranking below which it takes any; the number of a key is the score, its sign changed.
        highest_likely: the key up to which they will probably still be there when all images have been seen.
        sample: the key below which it takes an image into the sample; the number of a key is drawn from the score.
        sample_likely: the key up to which it will probably stay there.
        sampled: the path in the sample for each number that was drawn.
        seed: of the draws.
    """

    highest: _Key
    highest_likely: _Key
    sample: _Key
    sample_likely: _Key
    sampled: Mapping[float, str]
    seed: int

    def may_stay(self, anomaly_score: float, path: str) -> bool:
        """Whether pictures of an image may be kept."""
        return (-anomaly_score, path) < self.highest or self._samples(anomaly_score, path) < self.sample

    def will_stay(self, anomaly_score: float, path: str) -> bool:
        """Whether they will probably still be kept when all images have been seen."""
        key = (-anomaly_score, path)
        if key <= self.highest_likely and key < self.highest:
            return True
        key = self._samples(anomaly_score, path)
        return key <= self.sample_likely and key < self.sample

    def _samples(self, anomaly_score: float, path: str) -> _Key:
        """The key of an image in the sample, the last of all where another stands for it."""
        number = _draw(self.seed, anomaly_score)
        return _END if path >= self.sampled.get(number, _LAST) else (number, path)


class _Shelf:
    """The longest run of entries, lowest key first, that fits into a byte budget and a count.

    Once an entry had to go, nothing with its key or a higher one is taken again. So what is left depends on which
    entries came, not on their order.

    Args:
        budget: bytes of pictures.
        count: of entries.
        once: of each number it holds one entry, that of the lowest path: a camera that stares at one scene gives one
            score many times, and one picture of it is enough.
    """

    def __init__(self, budget: int, count: int, *, once: bool = False) -> None:
        self.floor: _Key | None = None
        self.entries: list[tuple[_Key, Entry]] = []
        self.paths: set[str] = set()
        self.numbers: dict[float, str] = {}  # the path of each, where it holds one of each
        self._budget, self._count, self._once = budget, count, once
        self._nbytes = 0
        self._lowest: list[_Key] = []

    def note(self, key: _Key) -> None:
        """Note a key of something that came, taken in or not: what is likely to stay depends on all."""
        if not self._count or (len(self._lowest) >= self._count and key >= self._lowest[-1]):
            return
        place = bisect_left(self._lowest, key)
        if self._once:
            before, after = self._lowest[max(0, place - 1) : place], self._lowest[place : place + 1]
            if any(number == key[0] for number, _ in before):
                return
            if any(number == key[0] for number, _ in after):
                del self._lowest[place]
        self._lowest.insert(place, key)
        del self._lowest[self._count :]

    def was_low(self, key: _Key) -> bool:
        """Whether a key that was noted is among the lowest that were, of as many as there may be entries."""
        return key in self._lowest

    def likely(self, noted: int, total: int) -> _Key:
        """The key up to which an entry will probably stay, so many of all having been noted.

        Among entries that come in no particular order, one that ranks 10th in the first hundredth ends near 1,000.
        """
        # What fits into the budget is known by what is there.
        room = min(self._count, self._budget / self._each) if self._each else self._count
        if total <= room:
            return _END
        seen = min(1.0, noted / total)
        highest = seen * room + _SLACK * math.sqrt(room * seen * (1 - seen))
        place = int(highest) - 1
        if place < 0:
            return _END if total <= _WORTH * room else (-math.inf, "")
        return self._lowest[place] if place < len(self._lowest) else _END

    def fitting(self, keys: Iterable[_Key], *, by_size: bool) -> list[_Key]:
        """Return those of further keys that would stay among the entries if they came now.

        Args:
            keys: of entries that are about as large as those that are there.
            by_size: go by what is left of the budget as well, not by the count alone.
        """
        own = ((key, entry.pictures.nbytes, False) for key, entry in self.entries)
        new = ((key, self._each, True) for key in sorted(keys) if key < self.below)
        fitting: list[_Key] = []
        nbytes = 0.0
        for place, (key, size, is_new) in enumerate(heapq.merge(own, new, key=itemgetter(0))):
            nbytes += size
            if place >= self._count or (by_size and nbytes > _ROOMY * self._budget):
                break
            if is_new:
                fitting.append(key)
        return fitting

    @property
    def _each(self) -> float:
        """Bytes of an entry, on average."""
        return self._nbytes / len(self.entries) if self.entries else 0.0

    @property
    def below(self) -> _Key:
        """The key below which it takes entries."""
        return _END if self.floor is None else self.floor

    def takes(self, key: _Key) -> bool:
        """Whether it takes an entry."""
        return key < self.below and not (self._once and key[1] >= self.numbers.get(key[0], _LAST))

    def add(self, key: _Key, entry: Entry) -> None:
        """Take an entry, and let go what no longer fits."""
        if not self.takes(key):
            return
        if self._once and key[0] in self.numbers:
            self._drop(bisect_left(self.entries, (key[0], self.numbers[key[0]]), key=itemgetter(0)))
        insort(self.entries, (key, entry), key=itemgetter(0))
        self.paths.add(key[1])
        if self._once:
            self.numbers[key[0]] = key[1]
        self._nbytes += entry.pictures.nbytes
        while self._nbytes > self._budget or len(self.entries) > self._count:
            self.floor = self.entries[-1][0]
            self._drop(-1)

    def close_at(self, floor: _Key | None) -> None:
        """Take nothing at or beyond this key any more, and let go what lies beyond it."""
        while floor is not None and self.entries and self.entries[-1][0] > floor:
            self._drop(-1)
        self.floor = floor

    def _drop(self, place: int) -> None:
        (number, path), dropped = self.entries.pop(place)
        self.paths.remove(path)
        self.numbers.pop(number, None)
        self._nbytes -= dropped.pictures.nbytes


class Gallery:
    """Keeps the pictures of the highest-scoring images and a small sample of all images, memory flat.

    The images kept are the longest run from the highest score down that fits into nine tenths of the budget, and a
    sample of at most `typical` in the last tenth. Both depend on the images seen and on the seed, not on the order in
    which the images came; among images of exactly equal score the path decides.

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
    >>> gallery.wants(0.5, "a.png")
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
        self._most, self._typical = most, typical
        self._seed = seed
        self._journal = journal
        self._journal_size = 0
        self._file: BinaryIO | None = None
        self._ranking = _Shelf(budget - budget // _SAMPLE_SHARE, most)
        self._sample = _Shelf(budget // _SAMPLE_SHARE, typical, once=True)
        if journal is not None and journal.exists():
            self._restore(journal)

    def note(self, anomaly_score: float, path: str) -> None:
        """Note an image, whether there are pictures of it or not."""
        for shelf, key in self._places(anomaly_score, path):
            shelf.note(key)

    def wanted(self, noted: int | None = None, total: int = 0) -> Wanted:
        """Return of which images it wants pictures by now.

        Args:
            noted: images that have been noted; None where all that may stay are likely to.
            total: images in all.
        """
        highest, sample = self._ranking, self._sample
        return Wanted(
            highest=highest.below,
            highest_likely=_END if noted is None else highest.likely(noted, total),
            sample=sample.below,
            sample_likely=_END if noted is None else sample.likely(noted, total),
            sampled=dict(sample.numbers),
            seed=self._seed,
        )

    def wants(self, anomaly_score: float, path: str) -> bool:
        """Whether pictures of an image may be kept: ask before rendering them."""
        return any(shelf.takes(key) for shelf, key in self._places(anomaly_score, path))

    def most_wanted(self, images: Iterable[tuple[float, str]], *, by_size: bool = True) -> list[tuple[float, str]]:
        """Of scores and paths, return those whose pictures would be kept if they came now, highest first.

        Args:
            images: scores and paths, all of them noted.
            by_size: go by how large the pictures may be; False for all that could be kept if they were small.
        """
        new = {(-score, path): score for score, path in images if not self._holds(path)}
        chosen = set(self._ranking.fitting(new, by_size=by_size))
        for key, score in new.items():
            _, (_, place) = self._places(score, key[1])
            if self._sample.was_low(place) and self._sample.takes(place):
                chosen.add(key)
        return [(new[key], key[1]) for key in sorted(chosen)]

    def holds(self, path: str) -> bool:
        """Whether pictures of an image are kept."""
        return self._holds(path)

    @property
    def most(self) -> int:
        """Images that it keeps at most, the sample included."""
        return self._most + self._typical

    def add(self, path: str, anomaly_score: float, pictures: Pictures) -> None:
        """Take in an image's pictures; those that no longer fit go. A path that is kept already is ignored.

        Args:
            path: the image's name.
            anomaly_score: its score.
            pictures: as `render_pictures` gives them.
        """
        entry = Entry(path, float(anomaly_score), pictures)
        if self._holds(path) or not self.wants(anomaly_score, path):
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
        both = [entry for shelf in (self._ranking, self._sample) for _, entry in shelf.entries]
        return list({entry.path: entry for entry in both}.values())

    def _places(self, anomaly_score: float, path: str) -> tuple[tuple[_Shelf, _Key], tuple[_Shelf, _Key]]:
        """The two shelves, and the keys of an image in them."""
        return (
            (self._ranking, (-anomaly_score, path)),
            (self._sample, (_draw(self._seed, anomaly_score), path)),
        )

    def _take(self, entry: Entry) -> None:
        for shelf, key in self._places(entry.anomaly_score, entry.path):
            shelf.add(key, entry)

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


def _draw(seed: int, anomaly_score: float) -> float:
    """A number in [0, 1) drawn from the score and the seed: the lowest draws are a sample without memory."""
    digest = hashlib.blake2b(struct.pack("<qd", seed, anomaly_score), digest_size=6).digest()
    return int.from_bytes(digest, "little") / 2**48
