"""One search: images in, a folder of results out. What `oddment find` runs."""

from __future__ import annotations

import hashlib
import io
import shlex
import shutil
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

import oddment
from oddment.allocator import give_back_freed
from oddment.card import model_card
from oddment.errors import DataError, OddmentError
from oddment.images.decode import DEFAULT_MAX_PIXELS, decode, thumbnail
from oddment.images.files import iter_images, require_images
from oddment.images.references import ImageRef
from oddment.images.stream import portions
from oddment.progress import Progress
from oddment.report import (
    Gallery,
    Listing,
    Pictures,
    ReportData,
    explain,
    load_template,
    render_heat_map,
    render_pictures,
    write_report,
)
from oddment.results import Detection
from oddment.scorer import full_map
from oddment.selection import Selection, select
from oddment.tables import Journal, Line, ranked_rows, require_parquet, write_tables
from oddment.whole import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from oddment.forked import Copies
    from oddment.report.gallery import Wanted
    from oddment.scorer import Found, Scorer

    _Task = tuple[list[ImageRef | str], Wanted | None]
    _Row = tuple[Line, Pictures | None]

__all__ = ["Search", "SearchOptions", "Summary"]

JOURNAL = "results.partial.jsonl"
PICTURES = "pictures.partial"
_MAPS_MARK = "maps/.oddment"
_FILES = (JOURNAL, PICTURES, "results.csv", "results.jsonl", "results.parquet", "report.html")
_PICTURE_SIDE = 224
_WORTH_COPIES = 500  # images; copies of the process take a thirtieth of a second


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """What a search writes.

    Args:
        maps: heat maps at original size, in a folder `maps`.
        parquet: results.parquet as well.
        report: report.html.
        top: list only this many of the highest scores.
        only_anomalies: list only anomalies, and rejected files.
        max_pixels: larger images are rejected before they are decoded.
        resume: finish an interrupted search.
        overwrite: begin anew where an interrupted search lies.
        fdr: select by Benjamini-Hochberg over all images, at this false-discovery rate, instead of by the threshold.
    """

    maps: bool = False
    parquet: bool = False
    report: bool = True
    top: int | None = None
    only_anomalies: bool = False
    max_pixels: int = DEFAULT_MAX_PIXELS
    resume: bool = False
    overwrite: bool = False
    fdr: float | None = None

    def lists(self, row: dict[str, Any]) -> bool:
        """Return whether a ranked row belongs into the tables."""
        if row["status"] != "scored":
            return True
        return not (self.only_anomalies and not row["is_anomaly"]) and (self.top is None or row["rank"] <= self.top)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a search came to.

    Args:
        scored: images with a score.
        anomalies: images above the threshold, which are the selected ones with `fdr`.
        rejected: files that could not be used.
        resumed: rows that an earlier, interrupted run had left.
        complete: False when it was interrupted.
        threshold: the threshold.
        target_fpr: the promised false-alarm rate; None when the rule promises none.
        files: what was written.
        rule: what decided, as the tables name it: `target_fpr=0.01`, `fdr=0.1`.
        selection: the selection from the whole batch; None where each image was judged by itself.
    """

    scored: int
    anomalies: int
    rejected: int
    resumed: int
    complete: bool
    threshold: float
    target_fpr: float | None
    files: tuple[Path, ...]
    rule: str
    selection: Selection | None = None


class Search:
    """A search into a folder. Call `run`, then, interrupted or not, `finish`.

    Args:
        scorer: what scores.
        model_path: the model file, for the report and to recognise the run.
        sources: files, folders, globs, archives, arrays.
        out: the folder to write to; made if missing.
        options: what is written.
        progress: told how far it is.

    Raises:
        DataError: if there are no images, or the folder holds an interrupted search and neither resume nor
            overwrite was asked for.
        ParameterError: if a source does not exist.
        TooFewImagesError: if the model has too few calibration images for `fdr`.
    """

    def __init__(
        self,
        scorer: Scorer,
        model_path: Path,
        sources: Sequence[str | Path],
        out: Path,
        options: SearchOptions,
        progress: Progress | None = None,
    ) -> None:
        if options.parquet:
            require_parquet()
        self.scorer = scorer if options.fdr is None else scorer.candidates(options.fdr)
        self.model_path, self.out, self.options = model_path, out, options
        self.progress = progress or Progress()
        self.sources = list(sources)
        # Checks that the sources exist, that OUT may be written to and that there is something to search, in this order
        # and before anything is written.
        self._refs = iter_images(self.sources, exclude=self._outputs)
        self._check_folder()
        self.total = require_images(self.sources, exclude=self._outputs)
        out.mkdir(parents=True, exist_ok=True)
        self._clear()
        self.journal = Journal(out / JOURNAL, self._about(), resume=options.resume)
        self.gallery = Gallery(journal=out / PICTURES) if options.report else None
        # Which pictures were wanted when the last image was handed out, and whose there are none yet that may be.
        self._wanted: Wanted | None = None
        self._missed: list[tuple[float, str]] = []
        if self.gallery is not None and options.resume:
            for row in self.journal.rows():
                if row["status"] == "scored":
                    self.gallery.note(row["anomaly_score"], row["path"])
                    if not self.gallery.holds(row["path"]):
                        self._miss(self.gallery, row["anomaly_score"], row["path"])
        if options.maps:
            (out / "maps").mkdir(exist_ok=True)
            (out / _MAPS_MARK).touch()

    @property
    def _outputs(self) -> list[Path]:
        """What a search reads and writes besides images: not to be searched, should it lie among them."""
        maps = ("maps",) if self.options.maps or self._has_own_maps else ()
        return [self.model_path, *(self.out / name for name in (*_FILES, *maps))]

    @property
    def _has_own_maps(self) -> bool:
        """Whether OUT/maps was written by a search; any other folder of that name is the user's."""
        return (self.out / _MAPS_MARK).exists()

    def _about(self) -> dict[str, Any]:
        model = self.scorer.model
        return {
            "oddment": oddment.__version__,
            "model": [model.info.get("created", ""), hashlib.sha256(model.graph).hexdigest()],
            "threshold": self.scorer.threshold_,
            **({} if self.options.fdr is None else {"fdr": self.options.fdr}),
        }

    def _check_folder(self) -> None:
        """Neither an interrupted search nor the user's own files are thrown away unasked."""
        maps = self.out / "maps"
        if self.options.maps and maps.exists() and not self._has_own_maps and any(maps.iterdir()):
            msg = f"{maps} exists and was not written by a search. Name another folder with -o, or move it."
            raise DataError(msg)
        if (self.out / JOURNAL).exists() and not (self.options.resume or self.options.overwrite):
            msg = f"{self.out} holds an interrupted search. Add --resume to finish it, or --overwrite to begin anew."
            raise DataError(msg)

    def _clear(self) -> None:
        """Make room for a new run."""
        if self.options.resume:
            return
        for name in _FILES:
            (self.out / name).unlink(missing_ok=True)
        if self._has_own_maps:
            shutil.rmtree(self.out / "maps", ignore_errors=True)

    def run(self) -> Iterator[Line]:
        """Score the images that have no row yet, write each row as it comes, and yield it.

        Raises:
            OddmentError: if the system ended a process of the search.
        """
        if self.options.fdr is not None:
            for caveat in self._selection(np.zeros(self.total, np.float32)).caveats():
                self.progress.say(f"Note: {caveat}")
        # Before a bar moves in a thread of its own.
        copies = self._copies()
        # Which of them are selected is known when all are scored.
        what = "anomalies" if self.options.fdr is None else "candidates"
        self.progress.start("Finding", self.total)
        done = self.journal.resumed
        try:
            refs = self._watched(ref for ref in self._refs if not self.journal.take(ref.path))
            for line, pictures in self._scored(refs, copies, self.scorer.runtime.piece):
                self._keep(line, pictures)
                done += 1
                totals = self.journal.totals
                rejected = f" · {totals.rejected:,} rejected" if totals.rejected else ""
                self.progress.update(done, f"{totals.anomalies:,} {what}{rejected}")
                yield line
            self._catch_up(copies)
        except BrokenExecutor as error:
            msg = (
                "the system ended a process of this search, as it does where memory runs out. Finish it with --resume; "
                "ODDMENT_THREADS=1 in the environment makes it work in one process."
            )
            raise OddmentError(msg) from error
        finally:
            if copies is not None:
                copies.close()
            self.journal.flush()
            self.progress.finish()

    def _copies(self) -> Copies[_Task, list[_Row]] | None:
        """Copies of this process to work in, for many pictures that are scored in batches; None for threads."""
        model = self.scorer.model
        few = self.total - self.journal.resumed < _WORTH_COPIES
        # One picture at a time is scored with threads of its own, and tiles are brought together to batches.
        if few or model.scoring_batch == 1 or model.preparation.fit == "tile":
            return None
        from oddment.forked import copies

        return copies(self._work, self.scorer.runtime.at_once)

    def _scored(self, refs: Iterable[ImageRef], copies: Copies[_Task, list[_Row]] | None, size: int) -> Iterator[_Row]:
        """The row of each image, and pictures that will probably be wanted; a copy gets so many images at a time."""
        if copies is None:
            for found in self.scorer.find(refs, max_pixels=self.options.max_pixels, also=self._row):
                yield found.extra  # type: ignore[misc]
            return
        # Names travel in place of paths, which take five times as long.
        tasks = (
            ([ref.path if _has_name_of_file(ref) else ref for ref in some], self._wanted)
            for some in portions(refs, size)
        )
        done = copies.ahead(tasks)
        yield from next(done, [])
        if self.options.report:
            load_template()  # while there is nothing to do here
        for rows in done:
            yield from rows

    def _watched(self, refs: Iterable[ImageRef]) -> Iterator[ImageRef]:
        """The references; whoever works on one knows which pictures were wanted about when it was drawn."""
        totals = self.journal.totals
        for number, ref in enumerate(refs):
            if self.gallery is not None and number % self.scorer.model.scoring_batch == 0:
                # Of those that have come back, not of those handed out: their ranks are what is known.
                self._wanted = self.gallery.wanted(totals.scored + totals.rejected, self.total)
            yield ref

    def _work(self, task: _Task) -> list[_Row]:
        """What a copy does: score a few images and put them into words and pictures."""
        named, self._wanted = task
        refs = [ImageRef(ref, Path(ref)) if isinstance(ref, str) else ref for ref in named]
        found = self.scorer.find_here(refs, max_pixels=self.options.max_pixels, also=self._row)
        return [item.extra for item in found]  # type: ignore[misc]

    def _row(self, found: Found) -> _Row:
        """The row of an image, in the thread or the copy that scored it, where its pictures are made, too."""
        if self.options.maps:
            self._write_map(found)
        return Line.of(found.result), self._drawn(found) if self._wants_pictures(found) else None

    def _wants_pictures(self, found: Found) -> bool:
        """Whether to make pictures now, which costs more than scoring a small image does.

        Of an image that will probably be pushed out by others, they are made at the end if it was not: `_catch_up`.
        """
        result = found.result
        if self._wanted is None or not isinstance(result, Detection):
            return False
        what = result.anomaly_score, result.path
        return self._wanted.will_stay(*what) or (not _has_name_of_file(found.ref) and self._wanted.may_stay(*what))

    def _keep(self, line: Line, pictures: Pictures | None) -> None:
        score = line.anomaly_score
        if self.gallery is not None and score is not None:
            self.gallery.note(score, line.path)
            # Pictures first: a row in the journal is never scored again, so its pictures must be safe by then.
            if pictures is not None:
                self.gallery.add(line.path, score, pictures)
            else:
                self._miss(self.gallery, score, line.path)
        self.journal.add(line)

    def _miss(self, gallery: Gallery, score: float, path: str) -> None:
        """Remember an image whose pictures may yet be wanted."""
        if gallery.wants(score, path):
            self._missed.append((score, path))
            if len(self._missed) > 4 * gallery.most:
                self._missed = gallery.most_wanted(self._missed, by_size=False)

    def _catch_up(self, copies: Copies[_Task, list[_Row]] | None) -> None:
        """Make the pictures of images that ended higher than it had looked; what they are is read and scored again."""
        gallery = self.gallery
        # A few at a time: once there is no room, the rest are no longer wanted.
        while gallery is not None and (some := gallery.most_wanted(self._missed)):
            missing = {path: score for score, path in some}
            self._wanted = gallery.wanted()
            refs = (ImageRef(path, Path(path)) for path in missing if Path(path).is_file())
            for line, pictures in self._scored(refs, copies, self.scorer.model.scoring_batch):
                # A file that has changed since then is no longer what the row is about.
                if pictures is not None and line.anomaly_score == missing[line.path]:
                    gallery.add(line.path, missing[line.path], pictures)
            self._missed = [item for item in self._missed if item[1] not in missing]

    def _drawn(self, found: Found) -> Pictures | None:
        result, scored = found.result, found.scored
        if scored is None or not isinstance(result, Detection):
            return None
        original = self.scorer.model.preparation.displayed(scored.original, result.size, _PICTURE_SIDE)
        drawn = render_pictures(
            original,
            scored.reconstruction,
            scored.anomaly_map,
            map_range=self.scorer.model.map_range,
            max_side=_PICTURE_SIDE,
        )
        [similar] = self.scorer.model.examples.nearest([original]) if result.is_anomaly else [()]
        return replace(drawn, similar=similar) if similar else drawn

    def _write_map(self, found: Found) -> None:
        result = found.result
        if not isinstance(result, Detection):
            return
        low, high = self.scorer.model.preparation.ranges.get("uint16", (0.0, 65535.0))
        decoded = decode(found.ref.payload, max_pixels=self.options.max_pixels)
        deep = decoded.pixels.dtype == np.uint16
        shown = thumbnail(decoded, max(result.size), low=low if deep else None, high=high if deep else None)
        drawn = render_heat_map(shown, full_map(found), map_range=self.scorer.model.map_range, size=result.size)
        folder, name = self.out / "maps", _map_name(result.path)
        try:
            _save(drawn, folder / name)
        except OSError:
            # Too long for the file system, or a folder of that name: the name's digest always fits.
            _save(drawn, folder / f"{_short_digest(result.path)}.png")

    def finish(self, *, complete: bool) -> Summary:
        """Write the tables and the report from all rows so far.

        Args:
            complete: False when the search was interrupted; the journal then stays for --resume.
        """
        self.journal.close()
        if not complete:
            # Ctrl-C may have come between counting a row and writing it.
            self.journal.recount()
        if self.gallery is not None:
            # Pictures that are missing when a search is interrupted are made when it is resumed: Ctrl-C must not wait.
            self.gallery.close()
        give_back_freed()
        selection = self._selection(self.journal.totals.scores) if self.options.fdr is not None else None
        judge = self._judge(selection) if selection else None

        def rows() -> Iterator[tuple[dict[str, Any], str]]:
            return ranked_rows(self.journal, self.options.lists, judge=judge)

        listing = Listing(self.gallery.items()) if self.gallery else None
        files = write_tables(self.out, rows, parquet=self.options.parquet, also=listing.add if listing else None)
        if listing is not None:
            write_report(self.out / "report.html", self._report(listing, selection, complete=complete))
            files.append(self.out / "report.html")
        if self.options.maps:
            files.append(self.out / "maps")
        if complete:
            for name in (JOURNAL, PICTURES):
                (self.out / name).unlink(missing_ok=True)
        totals = self.journal.totals
        rule = self.scorer.calibration.rule
        return Summary(
            scored=totals.scored,
            anomalies=selection.selected if selection else totals.anomalies,
            rejected=totals.rejected,
            resumed=self.journal.resumed,
            complete=complete,
            threshold=selection.threshold if selection else self.scorer.threshold_,
            target_fpr=None if selection else self.scorer.calibration.target_fpr,
            files=tuple(files),
            rule=selection.label if selection else rule.label,
            selection=selection,
        )

    def _selection(self, scores: ArrayLike) -> Selection:
        return select(scores, self.scorer.calibration, self.options.fdr or 0.0)

    def _judge(self, selection: Selection) -> Callable[[dict[str, Any]], None]:
        level = self.scorer.region_level

        def judge(row: dict[str, Any]) -> None:
            chosen = row["anomaly_score"] > selection.threshold
            row.update(threshold=selection.threshold, is_anomaly=chosen, rule=selection.label)
            if not chosen:
                # A candidate was given a box in any case; one that is not selected keeps what stands out by itself.
                row["regions"] = [region for region in row["regions"] if region["peak"] > level]

        return judge

    def _report(self, listing: Listing, selection: Selection | None, *, complete: bool) -> ReportData:
        calibration, info = self.scorer.calibration, self.scorer.model.info
        shown, rejected, others = listing.ranked(), listing.rejected, listing.others
        totals = self.journal.totals
        anomalies = selection.selected if selection else totals.anomalies
        notes = [*(selection.caveats() if selection else (text for text in (calibration.caveat(),) if text))]
        if self.options.top or self.options.only_anomalies:
            notes.append(f"Only {len(shown) + len(others):,} of {totals.scored:,} scored images are listed, as asked.")
        if others:
            notes.append(f"The {len(shown):,} highest scores are listed here; all rows are in results.csv.")
        if totals.rejected > len(rejected):
            notes.append(
                f"{len(rejected):,} of {totals.rejected:,} rejected files are listed here; all are in results.csv."
            )
        return ReportData(
            title=_title(anomalies, totals.scored),
            model_name=self.model_path.name,
            created=datetime.now(UTC),
            version=oddment.__version__,
            rows=[*shown, *rejected],
            pictures=listing.pictures,
            n_scored=totals.scored,
            n_rejected=totals.rejected,
            n_anomalies=anomalies,
            other_scores=np.sort(np.array(others, np.float32)),
            calibration_scores=calibration.scores,
            threshold=selection.threshold if selection else calibration.threshold,
            rule=selection.describe() if selection else calibration.rule.describe(),
            target_fpr=None if selection else calibration.target_fpr,
            fdr=selection.fdr if selection else None,
            card=model_card(self.scorer.model, info),
            notes=notes,
            complete=complete,
            explanations=explain(shown, listing.pictures, self.scorer.model.examples),
            recompute=f"oddment threshold {shlex.quote(str(self.model_path))} --threshold {{threshold}}",
        )


def _title(anomalies: int, scored: int) -> str:
    if not scored:
        return "No image could be scored"
    what = "One image is" if anomalies == 1 else f"{anomalies:,} images are" if anomalies else "No image is"
    return f"{what} odd among {scored:,}"


def _has_name_of_file(ref: ImageRef) -> bool:
    """Whether the image can be read again under its name: neither in an archive nor in memory."""
    return isinstance(ref.payload, Path) and str(ref.payload) == ref.path


def _map_name(path: str) -> str:
    """A file name below `maps` that mirrors the image's path and never leaves the folder.

    It depends on the path alone, so that a resumed search gives the names that the first would have given.
    """
    plain = path.replace("!/", "/").lstrip("/")
    parts = PurePosixPath(plain.replace("\\", "/").replace(":", "_")).parts
    name = "/".join(part for part in parts if part not in ("/", "..", ".")) or "image"
    # Two paths must not meet in one name once their dots are gone.
    return f"{name}.png" if name == plain else f"{name}~{_short_digest(path)}.png"


def _short_digest(path: str) -> str:
    return hashlib.blake2b(path.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _save(picture: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=3)
    # An image that is named twice may be drawn twice at the same time.
    write_whole(path, buffer.getvalue())
