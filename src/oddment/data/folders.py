"""Labelled images on the user's own disk: MVTec's layout, a folder per class, magnetic tiles, a CSV table.

Each reader returns a `Listing`: every image with its class and, where the layout fixes one, its side of the split.
Which classes are normal and who lands in the test set is decided afterwards, in one place, by `oddment.data.labelled`.
Nothing is decoded here; the order is the natural order of the names.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from oddment.errors import DataError
from oddment.images.files import iter_images
from oddment.images.references import ImageRef, printable
from oddment.natural import naturally_sorted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

__all__ = ["Item", "Listing", "Side", "is_mvtec", "list_folder", "list_table", "mask_of", "subfolders"]

Side = Literal["train", "test", ""]

NORMAL_FOLDERS: Final = ("good", "normal", "ok", "free")
"""Names of class folders that are normal where the user names none."""

NORMAL_LABELS: Final = ("normal", "good", "0")
"""Labels in a table that are normal where the user names none."""

IMAGE_ENDINGS: Final = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pgm", ".ppm", ".jp2"}
)
_SIDES: Final[dict[str, Side]] = {"train": "train", "test": "test"}
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Item:
    """One image with its class; `side` is empty where nothing says which side of the split it belongs to."""

    ref: ImageRef
    label: str
    side: Side = ""
    mask: Path | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """A labelled collection before it is divided into normal and abnormal, training and test.

    Args:
        name: of the collection.
        title: one phrase that says what it is, and how its split came about if it has one.
        items: every image, in order.
        normal: the classes that are normal if the user names none; empty if nobody can know.
        abnormal: the classes that are abnormal whatever else is said: the defects, where the layout knows them.
        aliases: other names of classes, each with the class it means.
        read: turns references to members of an archive into ones that hold their bytes; only what is used is read.
    """

    name: str
    title: str
    items: tuple[Item, ...]
    normal: tuple[str, ...] = ()
    abnormal: tuple[str, ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()
    read: Callable[[Sequence[ImageRef]], Sequence[ImageRef]] | None = None


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, hidden ones left out, in natural order."""
    found = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX"))]
    return [folder / name for name in naturally_sorted(path.name for path in found)]


def is_mvtec(folder: Path) -> bool:
    """Return whether the folder has MVTec's layout: train/good and test."""
    return (folder / "train" / "good").is_dir() and (folder / "test").is_dir()


def list_folder(folder: Path) -> Listing:
    """Return the images of a folder by whichever layout it has.

    Raises:
        DataError: if it has none that is known, or breaks the one it has.
    """
    if is_mvtec(folder):
        return _mvtec(folder)
    if (folder / "free").is_dir() and (folder / "defective").is_dir():
        return _tiles(folder)
    _refuse_half_mvtec(folder)
    return _classes(folder)


def _refs(folder: Path) -> Iterator[ImageRef]:
    return iter_images([folder])


# --- MVTec: train/good, test/<defect>, test/good, ground_truth/<defect>/<stem>_mask.png ------------------------------


def _mvtec(folder: Path) -> Listing:
    items = [Item(ref, "good", "train") for ref in _refs(folder / "train" / "good")]
    lacking: list[str] = []
    for kind in subfolders(folder / "test"):
        masks = folder / "ground_truth" / kind.name
        for ref in _refs(kind):
            mask = mask_of(masks, ref) if kind.name != "good" and masks.is_dir() else None
            if mask is None and kind.name != "good" and masks.is_dir():
                lacking.append(ref.path)
            items.append(Item(ref, kind.name, "test", mask))
    _refuse_lacking(lacking, folder / "ground_truth", "<stem>_mask.png")
    return _with_defects(folder, "MVTec layout, split as published", items, "good")


def _with_defects(folder: Path, title: str, items: Sequence[Item], normal: str) -> Listing:
    defects = tuple(label for label in dict.fromkeys(item.label for item in items) if label != normal)
    return Listing(folder.resolve().name, title, tuple(items), (normal,), defects)


def mask_of(folder: Path, ref: ImageRef) -> Path | None:
    """Return the mask of an image in a folder of masks: `<stem>_mask.png` or `<stem>.png`; None if there is none."""
    if not isinstance(ref.payload, Path):
        return None
    stem = ref.payload.stem
    return next((path for path in (folder / f"{stem}_mask.png", folder / f"{stem}.png") if path.is_file()), None)


def _refuse_lacking(lacking: Sequence[str], folder: Path, pattern: str) -> None:
    if lacking:
        msg = (
            f"{folder}: {len(lacking):,} images have no mask {pattern} there: {_some(lacking)}. Add the masks, or "
            "rename the folder of masks to go without any."
        )
        raise DataError(msg)


def _refuse_half_mvtec(folder: Path) -> None:
    """The mistakes that a folder per class would otherwise be made of."""
    inside = [path.name for path in subfolders(folder) if is_mvtec(path)]
    if inside:
        kinds = f"{len(inside)} data sets in MVTec's layout ({_some(inside)})"
        msg = f"{folder} holds {kinds}. Name one: {folder / inside[0]}."
        raise DataError(msg)
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        msg = (
            f"{folder}: has train/ and test/ but no train/good/. In MVTec's layout normal training images lie in "
            "train/good/, test images in test/good/ and test/<defect>/."
        )
        raise DataError(msg)


# --- a folder per class ---------------------------------------------------------------------------------------------


def _classes(folder: Path) -> Listing:
    kinds = subfolders(folder)
    loose = [path.name for path in folder.iterdir() if path.is_file() and path.suffix.lower() in IMAGE_ENDINGS]
    if not kinds:
        msg = (
            f"{folder}: no layout that Oddment knows. It needs a folder for each class, or MVTec's train/good/ and "
            f"test/; it holds {len(loose):,} images and no folder."
        )
        raise DataError(msg)
    if loose:
        msg = (
            f"{folder}: {len(loose):,} images lie beside the class folders ({_some(naturally_sorted(loose))}) and "
            "have no class. Move each into the folder of its class."
        )
        raise DataError(msg)
    items = tuple(Item(ref, kind.name) for kind in kinds for ref in _refs(kind))
    normal = tuple(kind.name for kind in kinds if kind.name.lower() in NORMAL_FOLDERS)
    return Listing(folder.resolve().name, "a folder for each class", items, normal)


# --- magnetic tiles: free, defective/<kind>, masks/<kind>/<stem>.png, groups.csv ------------------------------------


def _tiles(folder: Path) -> Listing:
    sides = _tile_sides(folder / "groups.csv")
    items, lacking = [], []
    for ref in _refs(folder / "free"):
        name = ref.path.rpartition("/")[2]
        if sides is not None and name not in sides:
            msg = (
                f"{folder / 'groups.csv'}: has no row for {ref.path}. Add one, or remove the table for a random split."
            )
            raise DataError(msg)
        items.append(Item(ref, "free", sides.pop(name) if sides is not None else ""))
    if sides:
        msg = f"{folder / 'groups.csv'}: lists {_some(list(sides))}, which free/ does not hold. Restore the images."
        raise DataError(msg)
    for kind in subfolders(folder / "defective"):
        masks = folder / "masks" / kind.name
        for ref in _refs(kind):
            mask = mask_of(masks, ref) if masks.is_dir() else None
            if mask is None and masks.is_dir():
                lacking.append(ref.path)
            items.append(Item(ref, kind.name, "test", mask))
    _refuse_lacking(lacking, folder / "masks", "<stem>.png")
    title = "magnetic tiles" + (", split by cluster of near-duplicates (groups.csv)" if sides is not None else "")
    return _with_defects(folder, title, items, "free")


def _tile_sides(path: Path) -> dict[str, Side] | None:
    """The side of every free tile; None without a table."""
    if not path.is_file():
        return None
    sides: dict[str, Side] = {}
    for line, row in _rows(path, ("file", "cluster", "side")):
        if row["side"] not in _SIDES:
            msg = f"{path}, line {line}: side must be train or test; got {row['side']!r}."
            raise DataError(msg)
        sides[row["file"]] = _SIDES[row["side"]]
    return sides


# --- a table: path,label[,split][,mask] ------------------------------------------------------------------------------


def list_table(path: Path) -> Listing:
    """Return the images that a CSV table names, with columns path, label and perhaps split and mask.

    Paths are relative to the table. Comma, semicolon or tab separates; the first line holds the names of the columns.

    Raises:
        DataError: for everything that is wrong in it, all at once, each with its line.
    """
    items: list[Item] = []
    problems: list[str] = []
    seen: dict[Path, int] = {}
    rows = list(_rows(path, ("path", "label")))
    for line, row in rows:
        item, wrong = _table_item(path.parent, row)
        if isinstance(item.ref.payload, Path):
            first = seen.setdefault(item.ref.payload, line)
            wrong += [f"{row['path']} is listed in line {first} already"] if first != line else []
        problems += [f"line {line}: {text}" for text in wrong]
        items.append(item)
    if not rows:
        problems.append("it lists no image")
    if problems:
        lines = "".join(f"\n  {text}" for text in problems[:10])
        more = f"\n  … and {len(problems) - 10} more" if len(problems) > 10 else ""
        msg = f"{path}:{lines}{more}"
        raise DataError(msg)
    title = "a table of paths and labels" + (", split as it says" if items[0].side else "")
    normal = tuple(label for label in dict.fromkeys(item.label for item in items) if label.lower() in NORMAL_LABELS)
    return Listing(path.stem, title, tuple(items), normal)


def _table_item(base: Path, row: dict[str, str]) -> tuple[Item, list[str]]:
    wrong = []
    image, mask = base / row["path"], base / row["mask"] if row.get("mask") else None
    if not row["path"] or not image.is_file():
        wrong.append(f"path {row['path']!r} is no file (paths are relative to {base}/)")
    if not row["label"]:
        wrong.append("label is empty; give normal, good or 0 for normal images, anything else for others")
    if mask is not None and not mask.is_file():
        wrong.append(f"mask {row['mask']!r} is no file")
    given = row.get("split", "")
    side = _SIDES.get(given, "")
    if "split" in row and not side:
        wrong.append(f"split must be train or test; got {given!r} (or leave the column out)")
    return Item(ImageRef(printable(str(image)), image), row["label"], side, mask), wrong


def _rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with their line numbers; names of columns in lower case, nothing around the values."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            header = stream.readline()
            stream.seek(0)
            delimiter = max(",;\t", key=header.count)
            reader = csv.DictReader(stream, delimiter=delimiter, restkey="")
            reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
            lacking = [name for name in needed if name not in reader.fieldnames]
            if lacking:
                msg = (
                    f"{path}: lacks the column {' and '.join(lacking)}. Its first line must name the columns: "
                    f"{','.join(needed)}; it reads {header.strip()[:80]!r}."
                )
                raise DataError(msg)
            for row in reader:
                yield reader.line_num, {name: (value or "").strip() for name, value in row.items() if name}
    except (csv.Error, UnicodeDecodeError) as error:
        msg = f"{path}: not a CSV file in UTF-8 ({error}). Save it as CSV UTF-8."
        raise DataError(msg) from error


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_SHOWN]) + (f" and {len(listed) - _SHOWN:,} more" if len(listed) > _SHOWN else "")
