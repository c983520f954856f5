"""One search: images in, a folder of results out. What `oddment find` runs."""

from __future__ import annotations

import hashlib
import shlex
import shutil
from array import array
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

import oddment
from oddment.allocator import give_back_freed
from oddment.card import model_card
from oddment.errors import DataError
from oddment.images.decode import DEFAULT_MAX_PIXELS, decode, thumbnail
from oddment.images.files import iter_images, require_images
from oddment.images.references import ImageRef
from oddment.progress import Progress
from oddment.report import Gallery, Pictures, ReportData, explain, render_heat_map, render_pictures, write_report
from oddment.results import Detection
from oddment.scorer import full_map
from oddment.selection import Selection, select
from oddment.tables import Journal, ranked_rows, require_parquet, write_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from oddment.scorer import Found, Scorer

__all__ = ["Search", "SearchOptions", "Summary"]

JOURNAL = "results.partial.jsonl"
PICTURES = "pictures.partial"
_MAPS_MARK = "maps/.oddment"
_FILES = (JOURNAL, PICTURES, "results.csv", "results.jsonl", "results.parquet", "report.html")
_REPORT_ROWS = 10_000
_REPORTED = ("path", "status", "anomaly_score", "p_value", "is_anomaly", "rank", "size", "regions")
_REPORT_REJECTIONS = 2_000
_PICTURE_SIDE = 224


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

    def run(self) -> Iterator[Found]:
        """Score the images that have no row yet, write each row as it comes, and yield it."""
        if self.options.fdr is not None:
            for caveat in self._selection(np.zeros(self.total, np.float32)).caveats():
                self.progress.say(f"Note: {caveat}")
        # Which of them are selected is known when all are scored.
        what = "anomalies" if self.options.fdr is None else "candidates"
        self.progress.start("Finding", self.total)
        done = self.journal.resumed
        try:
            refs = (ref for ref in self._refs if not self.journal.take(ref.path))
            for found in self.scorer.find(refs, max_pixels=self.options.max_pixels, also=self._drawn_ahead):
                self._keep(found)
                done += 1
                totals = self.journal.totals
                rejected = f" · {totals.rejected:,} rejected" if totals.rejected else ""
                self.progress.update(done, f"{totals.anomalies:,} {what}{rejected}")
                yield found
        finally:
            self.journal.flush()
            self.progress.finish()

    def _keep(self, found: Found) -> None:
        result, scored = found.result, found.scored
        if isinstance(result, Detection) and scored is not None:
            # Pictures first: a row in the journal is never scored again, so its pictures must be safe by then.
            if self.gallery is not None and self._wants_pictures(self.gallery, found.ref, result.anomaly_score):
                self._picture(found)
            if self.options.maps:
                self._write_map(found)
        self.journal.add(result)

    def _drawn_ahead(self, found: Found) -> Pictures | None:
        """Pictures that will be wanted, by what is known when the image was scored."""
        result, gallery = found.result, self.gallery
        if gallery is None or not isinstance(result, Detection):
            return None
        return self._drawn(found) if self._wants_pictures(gallery, found.ref, result.anomaly_score) else None

    def _wants_pictures(self, gallery: Gallery, ref: ImageRef, score: float) -> bool:
        """Whether to make pictures now, which costs more than scoring a small image does.

        Of an image that will probably be pushed out by others, they are made at the end if it was not: `_catch_up`.
        """
        if not gallery.wants(score) or not _has_name_of_file(ref):
            return gallery.wants(score)
        totals = self.journal.totals
        return gallery.will_keep(score, (totals.scored + totals.rejected + 1) / self.total)

    def _catch_up(self, gallery: Gallery) -> None:
        """Make the pictures of images that ended higher than it had looked; what they are is read and scored again."""
        scores = np.frombuffer(self.journal.totals.scores) if self.journal.totals.scores else np.empty(0)
        if not scores.size or gallery.most < 1:
            return
        last = np.partition(scores, -min(gallery.most, scores.size))[-min(gallery.most, scores.size)]
        missing = {
            row["path"]: row["anomaly_score"]
            for row in self.journal.rows()
            if row["status"] == "scored" and row["anomaly_score"] >= last and not gallery.holds(row["path"])
        }
        highest = sorted(missing, key=lambda path: -missing[path])
        refs = (ImageRef(path, Path(path)) for path in highest if gallery.wants(missing[path]) and Path(path).is_file())
        for found in self.scorer.find(refs, max_pixels=self.options.max_pixels, also=self._drawn):
            # A file that has changed since then is no longer what the row is about.
            if isinstance(found.result, Detection) and found.result.anomaly_score == missing[found.ref.path]:
                self._picture(found)

    def _picture(self, found: Found) -> None:
        pictures = found.extra if isinstance(found.extra, Pictures) else self._drawn(found)
        if self.gallery is not None and pictures is not None and isinstance(found.result, Detection):
            self.gallery.add(found.result.path, found.result.anomaly_score, pictures)

    def _drawn(self, found: Found) -> Pictures | None:
        result, scored = found.result, found.scored
        if scored is None or not isinstance(result, Detection):
            return None
        original = self.scorer.model.preparation.displayed(scored.original, result.size, _PICTURE_SIDE)
        return render_pictures(
            original,
            scored.reconstruction,
            scored.anomaly_map,
            map_range=self.scorer.model.map_range,
            max_side=_PICTURE_SIDE,
        )

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
            self._catch_up(self.gallery)
            self.gallery.close()
        give_back_freed()
        selection = self._selection(self.journal.totals.scores) if self.options.fdr is not None else None
        judge = self._judge(selection) if selection else None

        def rows() -> Iterator[dict[str, Any]]:
            return ranked_rows(self.journal, self.options.lists, judge=judge)

        files = write_tables(self.out, rows, parquet=self.options.parquet)
        if self.options.report:
            write_report(self.out / "report.html", self._report(rows, selection, complete=complete))
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

    def _report(
        self, rows: Callable[[], Iterator[dict[str, Any]]], selection: Selection | None, *, complete: bool
    ) -> ReportData:
        calibration, info = self.scorer.calibration, self.scorer.model.info
        pictures = self.gallery.items() if self.gallery else {}
        shown: list[dict[str, Any]] = []
        rejected: list[dict[str, Any]] = []
        others = array("f")
        shared: dict[Any, Any] = {}
        # What is listed are the highest ranks, all of them or the first so many.
        for row in rows():
            if not row["rank"]:
                if len(rejected) < _REPORT_REJECTIONS:
                    rejected.append(row)
            elif row["rank"] <= _REPORT_ROWS:
                shown.append(_slim(row, pictures, shared))
            else:
                others.append(row["anomaly_score"])
        shown.sort(key=itemgetter("rank"))
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
            pictures=pictures,
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
            explanations=explain(shown, pictures, self.scorer.model.examples),
            recompute=f"oddment threshold {shlex.quote(str(self.model_path))} --threshold {{threshold}}",
        )


def _slim(row: dict[str, Any], pictures: Mapping[str, Any], shared: dict[Any, Any]) -> dict[str, Any]:
    """What the report shows of a scored row, boxes only where there is a picture to draw them on: thousands are held.

    Args:
        row: of the journal.
        pictures: of the report.
        shared: what rows have in common, so that it is held once; grows.
    """
    slim = {name: row[name] for name in _REPORTED}
    for name, value in (("status", row["status"]), ("size", tuple(row["size"] or ()))):
        slim[name] = shared.setdefault(value, value)
    if row["path"] not in pictures:
        slim["regions"] = ()
    if row["is_anomaly"] and row.get("parts"):
        slim["parts"] = row["parts"]
    return slim


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
    Image.fromarray(picture).save(path, compress_level=3)
