"""Tables of results on disk: a journal that grows while a search runs, and the tables made from it when it ends.

The journal is the one file that must survive a kill: a line an image, appended and flushed as results come. Everything
else (CSV, JSON lines, Parquet, ranks) is made from it in one pass, so that memory stays flat however many rows there
are.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import time
from array import array
from operator import itemgetter
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from oddment.errors import DataError, MissingExtraError
from oddment.results import COLUMNS, Detection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from oddment.results import Result

__all__ = ["Journal", "Line", "Totals", "csv_row", "ranked_rows", "require_parquet", "write_tables"]

_FLUSH_ROWS = 64
_FLUSH_SECONDS = 1.0
_NO_RANK = '"rank": null,'
_cells = itemgetter(*COLUMNS)


class Totals:
    """Counts and scores of a search so far; eight bytes an image."""

    def __init__(self) -> None:
        self.scores = array("d")
        self.anomalies = 0
        self.rejected = 0

    def add(self, score: float | None, *, is_anomaly: bool) -> None:
        """Count one row; `score` is None for a rejected one."""
        if score is None:
            self.rejected += 1
        else:
            self.scores.append(score)
            self.anomalies += is_anomaly

    @property
    def scored(self) -> int:
        """Images with a score."""
        return len(self.scores)

    def ranks(self) -> NDArray[np.int64]:
        """Rank of each scored image in order of arrival, 1 for the highest score; the earlier of equals comes first."""
        scores = np.frombuffer(self.scores, dtype=np.float64) if self.scores else np.empty(0)
        ranks = np.empty(len(scores), dtype=np.int64)
        ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
        return ranks


class Line(NamedTuple):
    """A row as the journal keeps it, and what is counted of it; small, since it travels between processes.

    Args:
        path: the image's name.
        anomaly_score: None of a rejected one.
        is_anomaly: the verdict.
        text: the row as JSON, without a line break.
    """

    path: str
    anomaly_score: float | None
    is_anomaly: bool
    text: str

    @classmethod
    def of(cls, result: Result) -> Line:
        """Return the line of a result."""
        text = json.dumps(result.as_row(), ensure_ascii=True)
        if isinstance(result, Detection):
            return cls(result.path, result.anomaly_score, result.is_anomaly, text)
        return cls(result.path, None, is_anomaly=False, text=text)


class Journal:
    """The growing file of a search: a first line about the run, then one row a line.

    Args:
        path: where it lies.
        about: what identifies the run; a journal of another run is not gone on with.
        resume: go on with the file that is there.

    Raises:
        DataError: if `resume` is set and the file is missing, damaged or of another run.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], *, resume: bool = False) -> None:
        self.path = path
        self.totals = Totals()
        self.resumed = 0
        self._done = np.empty(0, dtype=np.uint64)
        self._left = np.empty(0, dtype=np.int64)
        self._pending = 0
        self._flushed = time.monotonic()
        if resume:
            self._reopen(about)
            self._file: IO[str] = path.open("a", encoding="utf-8", newline="\n")
        else:
            self._file = path.open("w", encoding="utf-8", newline="\n")
            self._file.write(json.dumps({"oddment-journal": 1, **about}) + "\n")
            self._file.flush()

    def _reopen(self, about: Mapping[str, Any]) -> None:
        try:
            with self.path.open("rb") as file:
                header = json.loads(file.readline())
        except FileNotFoundError as error:
            msg = f"{self.path}: there is no interrupted search to resume. Run again without --resume."
            raise DataError(msg) from error
        except ValueError as error:
            msg = f"{self.path}: not a journal of a search. Delete it and run again without --resume."
            raise DataError(msg) from error
        if header != json.loads(json.dumps({"oddment-journal": 1, **about})):
            msg = (
                f"{self.path}: the interrupted search used another model or threshold, or another --fdr. Repeat its "
                "command with --resume, or start anew with --overwrite."
            )
            raise DataError(msg)
        _cut_torn_line(self.path)
        try:
            keys = array("Q", (_key(row["path"]) for row in self.rows()))
            self.recount()
        except (ValueError, KeyError, TypeError) as error:
            msg = f"{self.path}: the interrupted search's journal is damaged ({error}). Start anew with --overwrite."
            raise DataError(msg) from error
        self.resumed = len(keys)
        self._done, self._left = np.unique(np.frombuffer(keys, np.uint64) if keys else self._done, return_counts=True)

    def recount(self) -> None:
        """Count anew what the file holds."""
        self.totals = Totals()
        for row in self.rows():
            self.totals.add(row["anomaly_score"], is_anomaly=bool(row["is_anomaly"]))

    def take(self, path: str) -> bool:
        """Return whether the resumed search had a row for this path already; a row answers once.

        Sources may name an image twice, and it then has two rows.
        """
        if not self._done.size:
            return False
        key = np.uint64(_key(path))
        position = int(np.searchsorted(self._done, key))
        if position == self._done.size or self._done[position] != key or not self._left[position]:
            return False
        self._left[position] -= 1
        return True

    def add(self, line: Line) -> None:
        """Append one row."""
        self.totals.add(line.anomaly_score, is_anomaly=line.is_anomaly)
        self._file.write(line.text + "\n")
        self._pending += 1
        if self._pending >= _FLUSH_ROWS or time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Hand all rows to the operating system: they then survive the death of this process."""
        self._file.flush()
        self._pending, self._flushed = 0, time.monotonic()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield all rows so far, in order of arrival."""
        return map(json.loads, self.texts())

    def texts(self) -> Iterator[str]:
        """Yield all rows so far as JSON, with their line breaks."""
        with self.path.open(encoding="utf-8") as file:
            next(file)
            yield from file

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._file.close()


def ranked_rows(
    journal: Journal,
    keep: Callable[[dict[str, Any]], bool],
    *,
    judge: Callable[[dict[str, Any]], None] | None = None,
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the journal's rows with their ranks, and as JSON, in order of arrival, those that `keep` returns true for.

    Args:
        journal: of a search that has ended.
        keep: asked of each row when rank and verdict are final.
        judge: changes the verdict of each scored row, where only the whole batch decides it.
    """
    # Not a list of them: its numbers would take 32 bytes each.
    ranks = iter(journal.totals.ranks())
    for text in journal.texts():
        row, line = json.loads(text), text.rstrip()
        if row["status"] == "scored":
            row["rank"] = int(next(ranks))
            if judge is not None:
                judge(row)
                line = json.dumps(row, ensure_ascii=True)
            else:
                # A third of the time of writing all of it anew. Within a name the quotes would have a backslash.
                line = line.replace(_NO_RANK, f'"rank": {row["rank"]},', 1)
        if keep(row):
            yield row, line


def write_tables(
    folder: Path,
    rows: Callable[[], Iterator[tuple[dict[str, Any], str]]],
    *,
    parquet: bool = False,
    also: Callable[[dict[str, Any]], None] | None = None,
) -> list[Path]:
    """Write results.csv and results.jsonl (and results.parquet), each whole or not at all.

    Args:
        folder: where to.
        rows: returns a fresh pass over the ranked rows, each also as JSON, each time it is called.
        parquet: also write results.parquet; needs pyarrow.
        also: called once with each row, after it was written.

    Returns:
        The files written.

    Raises:
        MissingExtraError: if pyarrow is needed and not installed.
    """
    csv_file, json_file = _Swap(folder / "results.csv"), _Swap(folder / "results.jsonl")
    with csv_file as table, json_file as lines:
        writer = csv.writer(table)
        writer.writerow(COLUMNS)
        for row, text in rows():
            writer.writerow(csv_row(row))
            lines.write(text + "\n")
            if also is not None:
                also(row)
    written = [csv_file.path, json_file.path]
    if parquet:
        written.append(_write_parquet(folder / "results.parquet", (row for row, _ in rows())))
    return written


def csv_row(row: Mapping[str, Any]) -> list[str]:
    """Return a row as CSV cells: empty for nothing, size as 632x312, regions as JSON."""
    path, status, score, threshold, p_value, is_anomaly, rank, size, regions, reason, rule = (
        row[name] for name in COLUMNS
    )
    return [
        # A name that is not UTF-8 on disk is written with escapes, not lost.
        path if path.isascii() else path.encode("utf-8", "backslashreplace").decode(),
        status,
        "" if score is None else str(score),
        "" if threshold is None else str(threshold),
        "" if p_value is None else str(p_value),
        "" if is_anomaly is None else "true" if is_anomaly else "false",
        "" if rank is None else str(rank),
        f"{size[0]}x{size[1]}" if size else "",
        json.dumps(regions) if regions else "",
        "" if reason is None else reason,
        "" if rule is None else rule,
    ]


class _Swap:
    """A text file that appears under its name only when it is complete."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> IO[str]:
        self._file = NamedTemporaryFile(
            "w", encoding="utf-8", newline="", dir=self.path.parent, prefix=f".{self.path.name}.", delete=False
        )
        return self._file.file  # each write through the wrapper would be looked up anew

    def __exit__(self, kind: object, *_: object) -> None:
        self._file.close()
        temporary = Path(self._file.name)
        if kind is None:
            temporary.chmod(0o644)
            temporary.replace(self.path)
        else:
            temporary.unlink(missing_ok=True)


def require_parquet() -> None:
    """Check that Parquet can be written.

    Raises:
        MissingExtraError: if pyarrow is not installed.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        msg = "--parquet needs pyarrow: pip install 'oddment[parquet]'."
        raise MissingExtraError(msg) from error


def _write_parquet(path: Path, rows: Iterator[dict[str, Any]]) -> Path:
    require_parquet()
    import pyarrow as pa
    import pyarrow.parquet as pq

    region = pa.struct([("box", pa.list_(pa.int32(), 4)), ("peak", pa.float64())])
    types = {
        "path": pa.string(),
        "status": pa.string(),
        "anomaly_score": pa.float64(),
        "threshold": pa.float64(),
        "p_value": pa.float64(),
        "is_anomaly": pa.bool_(),
        "rank": pa.int64(),
        "size": pa.list_(pa.int32()),
        "regions": pa.list_(region),
        "reason": pa.string(),
        "rule": pa.string(),
    }
    schema = pa.schema([(name, types[name]) for name in COLUMNS])
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with pq.ParquetWriter(temporary, schema) as writer:
            chunk: list[dict[str, Any]] = []
            for row in rows:
                row["path"] = row["path"].encode("utf-8", "backslashreplace").decode()
                chunk.append(row)
                if len(chunk) == 4096:
                    writer.write_table(pa.Table.from_pylist(chunk, schema))
                    chunk.clear()
            writer.write_table(pa.Table.from_pylist(chunk, schema))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _key(path: str) -> int:
    data = path.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def _cut_torn_line(path: Path) -> None:
    """Cut off what follows the last line break: a row that a kill interrupted."""
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            position = file.read(end - start).rfind(b"\n")
            if position >= 0:
                file.truncate(start + position + 1)
                return
            end = start
