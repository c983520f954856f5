"""Reviews: what a person has said of a search's images, as files, and which images training then leaves out.

One rule everywhere, here and on the report's page: a mark decides; where there is none, or it is unsure, the search's
own selection does.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from oddment.errors import ParameterError
from oddment.images.matching import match_paths
from oddment.whole import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["Exclusion", "Review", "Reviewed", "Verdict", "leave_out", "read_review", "write_paths", "write_review"]

Verdict = Literal["", "keep", "anomaly", "unsure"]
"""A person's mark on one image; empty where there is none."""

_BOOLEANS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False, "": False}
# A spreadsheet takes a cell that begins so for a formula. With "./" in front it is the same path, and text.
_FORMULA: Final = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]")
# The largest review that a report writes has 10,000 rows, results.csv as many as there were images.
_CELL: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class Reviewed:
    """One image of a review.

    Args:
        path: its name, as the search wrote it.
        verdict: the mark.
        is_anomaly: whether the search selected it.
        score: its anomaly score, if the file has it.
        sha256: of the file's content, if the file has it.
    """

    path: str
    verdict: Verdict = ""
    is_anomaly: bool = False
    score: float | None = None
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Review:
    """What a file says of images.

    Args:
        source: the file.
        kind: "review" has marks, "results" has only what a search selected, "list" names what is meant and no more.
        rows: one an image, each path once.
    """

    source: Path
    kind: Literal["review", "results", "list"]
    rows: tuple[Reviewed, ...]

    def excluded(self, *, unsure: bool = False) -> tuple[str, ...]:
        """Return the paths that training leaves out.

        These are all of a plain list; else those marked anomaly, and those that the search selected and nobody marked
        keep.

        Args:
            unsure: leave out every image marked unsure, whether selected or not.
        """
        return tuple(row.path for row in self.rows if self._why(row, unsure=unsure))

    def kept(self, *, unsure: bool = False) -> tuple[str, ...]:
        """Return the other paths, none for a plain list: what clean.txt holds."""
        return tuple(row.path for row in self.rows if not self._why(row, unsure=unsure))

    def reasons(self, paths: Iterable[str], *, unsure: bool = False) -> dict[str, int]:
        """Return for how many of these paths each rule decided: "listed", "anomaly", "unsure" or "selected"."""
        asked = set(paths)
        found = (self._why(row, unsure=unsure) for row in self.rows if row.path in asked)
        return dict(Counter(reason for reason in found if reason))

    def _why(self, row: Reviewed, *, unsure: bool) -> str:
        if self.kind == "list":
            return "listed"
        if row.verdict == "anomaly" or (row.verdict == "unsure" and unsure):
            return row.verdict
        return "selected" if row.is_anomaly and row.verdict != "keep" else ""


# --- reading -----------------------------------------------------------------------------------------------------


def read_review(path: str | Path) -> Review:
    """Read a review.csv, the results.csv or results.jsonl of a search, or a plain list of paths.

    Which of them it is shows in the first line, not in the name: a table names its columns there. Commas, semicolons
    and tabs separate, as spreadsheets save them; UTF-8 with or without a byte-order mark, UTF-16 with one.

    Raises:
        ParameterError: if it is none of these, or contradicts itself.
    """
    path = Path(path)
    text = _text(path)
    first = text.lstrip().partition("\n")[0]
    if first.startswith('{"'):
        return _review(path, _json_rows(path, text))
    separator = next((mark for mark in ",;\t" if "path" in _header(first, mark)), None)
    if separator is not None:
        return _review(path, _csv_rows(path, text, separator))
    if path.suffix.lower() in (".csv", ".tsv"):
        msg = (
            f"{path}, line 1: a table must name a column path; got {first.strip()[:60]!r}. Give review.csv of a report."
        )
        raise ParameterError(msg)
    names = dict.fromkeys(name for line in text.split("\n") if (name := line.rstrip("\r")).strip())
    return Review(path, "list", tuple(Reviewed(name) for name in names))


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        msg = f"{path}: {error.strerror or error}. Name a review.csv, a results.csv or a list of paths."
        raise ParameterError(msg) from error
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        msg = f"{path}, line {line}: not text in UTF-8 (byte 0x{content[error.start]:02x}). Save it as CSV UTF-8."
        raise ParameterError(msg) from error
    if "\0" in text:
        msg = f"{path}, line {text.count(chr(10), 0, text.index(chr(0))) + 1}: not a text file, it holds a zero byte."
        raise ParameterError(msg)
    return text


def _header(line: str, separator: str) -> list[str]:
    return [name.strip().strip('"').strip().lower() for name in line.split(separator)]


def _csv_rows(path: Path, text: str, separator: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield line number and cells of each row, by the name of the column."""
    csv.field_size_limit(_CELL)
    table = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        header = [name.strip().lower() for name in next(row for row in table if any(row))]
        line = table.line_num + 1
        for cells in table:
            if any(cell.strip() for cell in cells):
                # What a row lacks at its end is empty there.
                yield line, dict(zip(header, [*cells, *[""] * len(header)], strict=False))
            line = table.line_num + 1
    except csv.Error as error:
        msg = f"{path}, line {table.line_num}: not CSV ({error}). Mend the line, or export the review again."
        raise ParameterError(msg) from error


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
            yield line, {name: "" if row[name] is None else str(row[name]) for name in row}
        except (ValueError, TypeError) as error:
            msg = f"{path}, line {line}: not a row of results ({error}). Give results.jsonl or review.csv."
            raise ParameterError(msg) from error


def _review(path: Path, rows: Iterable[tuple[int, Mapping[str, str]]]) -> Review:
    """The rows as a review, each path once; a mark stands above no mark.

    Raises:
        ParameterError: if a cell breaks its rule, or two marks on one path differ.
    """
    found: dict[str, tuple[int, Reviewed]] = {}
    columns: set[str] = set()
    for line, row in rows:
        columns.update(row)
        new = _reviewed(path, line, row)
        before, old = found.get(new.path, (line, new))
        if old.verdict and new.verdict and old.verdict != new.verdict:
            msg = (
                f"{path}, line {line}: verdict {new.verdict} for {new.path}, but line {before} says {old.verdict}. "
                "Delete one of them."
            )
            raise ParameterError(msg)
        marked = old if old.verdict else new
        chosen = old.is_anomaly or new.is_anomaly
        merged = Reviewed(new.path, marked.verdict, chosen, marked.score, marked.sha256)
        found[new.path] = (before if marked is old else line, merged)
    images = tuple(image for _, image in found.values())
    if "verdict" in columns:
        return Review(path, "review", images)
    if "is_anomaly" in columns:
        return Review(path, "results", images)
    if columns - {"path"}:
        msg = (
            f"{path}, line 1: has neither a column verdict nor is_anomaly, only {', '.join(sorted(columns))}. Add one; "
            "or, if all of its paths are meant, give them alone, one a line."
        )
        raise ParameterError(msg)
    return Review(path, "list", images)


def _reviewed(path: Path, line: int, row: Mapping[str, str]) -> Reviewed:
    cells = {name: value if name == "path" else value.strip().lower() for name, value in row.items()}
    where = f"{path}, line {line}"
    if not cells.get("path", "").strip():
        raise ParameterError(
            f"{where}: the column path must name an image and is empty. Fill it in or delete the line."
        )
    verdict = cells.get("verdict", "")
    if verdict not in get_args(Verdict):
        raise ParameterError(f"{where}: verdict must be keep, anomaly, unsure or empty; got {row['verdict'][:40]!r}.")
    if cells.get("is_anomaly", "") not in _BOOLEANS:
        raise ParameterError(f"{where}: is_anomaly must be true or false; got {row['is_anomaly'][:40]!r}.")
    text = cells.get("score") or cells.get("anomaly_score") or "nan"
    try:
        score = float(text)
    except ValueError:
        raise ParameterError(f"{where}: the score must be a number or empty; got {text[:40]!r}.") from None
    name = cells["path"].removeprefix("./")
    return Reviewed(
        name if _FORMULA.match(name) else cells["path"],
        verdict,  # type: ignore[arg-type]  # checked above
        _BOOLEANS[cells.get("is_anomaly", "")],
        None if math.isnan(score) else score,
        cells.get("sha256", ""),
    )


# --- writing -----------------------------------------------------------------------------------------------------


def write_review(path: Path, rows: Sequence[Reviewed]) -> None:
    """Write review.csv as a report does: RFC 4180, whole or not at all.

    A path that a spreadsheet would take for a formula gets "./" in front.
    """
    hashed = any(row.sha256 for row in rows)
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(["path", *(["sha256"] if hashed else []), "score", "is_anomaly", "verdict"])
    for row in rows:
        name = f"./{row.path}" if _FORMULA.match(row.path) else row.path
        score = "" if row.score is None else row.score
        writer.writerow([name, *([row.sha256] if hashed else []), score, str(row.is_anomaly).lower(), row.verdict])
    write_whole(path, text.getvalue())


def write_paths(path: Path, paths: Iterable[str]) -> None:
    """Write a plain list such as clean.txt: a path a line.

    Raises:
        ParameterError: if a path holds a line break.
    """
    paths = list(paths)
    broken = [name for name in paths if "\n" in name or "\r" in name]
    if broken:
        msg = f"{path}: a list has a path a line, and {broken[0]!r} holds a line break. Rename the file."
        raise ParameterError(msg)
    write_whole(path, "".join(f"{name}\n" for name in paths))


# --- leaving images out ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Which images training leaves out, and why.

    Args:
        images: their names.
        left: how many references to images are left; an image that was named twice counts twice.
        files: for the model file: of each review its name, how many images it left out by which rule, and how many of
            its paths name no image here.
        notes: what was done, in sentences.
        caveats: what weakens the result, in sentences.
    """

    images: frozenset[str]
    left: int
    files: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """What the model file keeps."""
        return {"images": len(self.images), "files": [dict(entry) for entry in self.files]}


def leave_out(files: Sequence[str | Path], images: Sequence[str], *, unsure: bool = False) -> Exclusion:
    """Return which of these images the reviews leave out: those that any of them does.

    Args:
        files: as `read_review` takes them.
        images: names of all images, as `iter_images` gives them.
        unsure: leave out every image marked unsure too.

    Raises:
        ParameterError: if a file cannot be read, if none of the paths it leaves out names an image, or one may name
            several.
    """
    gone: set[str] = set()
    entries: list[dict[str, Any]] = []
    notes: list[str] = []
    caveats: list[str] = []
    for file in files:
        review = read_review(file)
        paths = review.excluded(unsure=unsure)
        try:
            matched = match_paths(paths, images, among=[row.path for row in review.rows], near=review.source)
        except ParameterError as error:
            raise ParameterError(f"--exclude {review.source}: {error}") from error
        gone |= matched.images
        reasons = review.reasons(set(paths).difference(matched.missing), unsure=unsure)
        entry = {"name": review.source.name, "kind": review.kind, "images": len(matched.images), "reasons": reasons}
        entries.append(entry | {"missing": len(matched.missing)})
        notes.append(_told(review, len(matched.images), reasons))
        if matched.guessed:
            pair = " = ".join(matched.guessed[0])
            notes.append(f"{len(matched.guessed):,} of its paths were recognised by their ends alone, such as {pair}.")
        if matched.missing:
            missing = f"{len(matched.missing):,} of its {len(paths):,} paths, such as {matched.missing[0]}"
            notes.append(f"Warning: {review.source} leaves out {missing}, which name no image here.")
        caveats += _doubts(review, reasons, len(matched.images), len(images))
    if files and gone.issuperset(images):
        msg = f"--exclude leaves out all {len(images):,} images. Give reviews that keep some, or more images."
        raise ParameterError(msg)
    return Exclusion(
        frozenset(gone), sum(name not in gone for name in images), tuple(entries), tuple(notes), tuple(caveats)
    )


def _told(review: Review, count: int, reasons: Mapping[str, int]) -> str:
    words = {
        "listed": "{:,} listed by path",
        "anomaly": "{:,} marked anomaly",
        "unsure": "{:,} marked unsure",
        "selected": "{:,} selected by the search and not marked keep",
    }
    if review.kind == "results":
        words["selected"] = "{:,} with is_anomaly true, for want of a column verdict"
    why = ", ".join(words[reason].format(number) for reason, number in sorted(reasons.items())) or "no path is meant"
    return f"Left out by {review.source}: {count:,} images ({why})."


def _doubts(review: Review, reasons: Mapping[str, int], count: int, of: int) -> Iterator[str]:
    if reasons.get("selected"):
        yield (
            f"{reasons['selected']:,} images were left out because their score selected them, and nobody has marked "
            "them anomaly. Normal images among them are missing from the calibration, and more than the promised share "
            "of such images would be flagged. Look at them in the report and mark keep what is normal."
        )
    if review.kind == "list" and 2 * count > of:
        yield (
            f"{review.source} is a plain list and leaves out {count:,} of {of:,} images. If it names the images to "
            "keep, as clean.txt does, give review.csv instead."
        )
