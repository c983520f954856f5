"""Labelled images to measure with: what a model is fitted on, and what it is tested on.

`open_labelled` takes the name of a data set, a folder or a table, finds out which classes are normal and makes the
split. Whatever the source, the rules are the same and stand in `_divide` and below. Everything random comes from
`seed`; images stay in natural order; none is decoded.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from oddment.data.catalog import CATALOG, DataSet, data_folders, file_in, folder_of, load_arrays
from oddment.data.folders import Item, Listing, list_folder, list_table
from oddment.errors import ImageError, ParameterError, TooFewImagesError
from oddment.images.references import ImageRef, printable
from oddment.natural import naturally_sorted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["LabelledImage", "LabelledSet", "open_labelled"]

_PAIR: Final = "mnist+fashion-mnist"


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One test image.

    Args:
        ref: the image.
        is_anomaly: what a perfect model would say.
        label: its class.
        mask: a picture that is not black where the anomaly is; None if nobody drew one, or for a normal image.
    """

    ref: ImageRef
    is_anomaly: bool
    label: str
    mask: Path | None = None


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Images to fit on and images to test on.

    Args:
        name: of the data set, folder or table.
        description: one sentence: what is in it and how it was divided.
        train: what a model is fitted on; with contamination, anomalies are among them and nothing marks them.
        test: what it is measured on; with contamination the same images as `train`.
    """

    name: str
    description: str
    train: tuple[ImageRef, ...]
    test: tuple[LabelledImage, ...]


@dataclass(frozen=True, slots=True)
class _Classes:
    """Which classes are normal and which abnormal; the others are not used."""

    normal: frozenset[str]
    anomaly: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Request:
    """What the caller asked for, checked."""

    normal: tuple[str, ...]
    anomaly: tuple[str, ...]
    held_out: tuple[str, ...]
    contaminate: float | None
    test_share: float
    limit: int | None
    seed: int


def open_labelled(
    spec: str,
    *,
    normal: Sequence[str] = (),
    anomaly: Sequence[str] = (),
    held_out: Sequence[str] = (),
    contaminate: float | None = None,
    test_share: float = 0.2,
    limit: int | None = None,
    seed: int = 0,
) -> LabelledSet:
    """Return the labelled images that `spec` names, divided into training and test.

    Args:
        spec: `mnist`, `fashion-mnist`, `deepweeds`, `mnist+fashion-mnist` (digits normal, test articles abnormal);
            a folder in MVTec's layout, with a folder per class, or laid out as the magnetic tiles, DeepWeeds or MNIST;
            or a CSV table with columns path, label and perhaps split and mask. A folder is also found by its name in
            the folder that ODDMENT_DATA names. To use a folder called mnist, write ./mnist.
        normal: the normal classes. Not needed where the layout says so.
        anomaly: the abnormal classes; all others if not given.
        held_out: abnormal classes, all others being normal. Instead of `normal` and `anomaly`.
        contaminate: mix so many anomalies, as a share of the number of normal images, into the training images, and
            test on these same images.
        test_share: the share of normal images held back for testing where the data have no split of their own.
        limit: use at most so many training images, and so many test images (drawn, in the same proportion).
        seed: of everything drawn.

    Raises:
        ParameterError: if a parameter breaks its rule or names a class that is not there.
        DataError: if the images are not there, or break their layout.
        TooFewImagesError: if nothing is left to train on or to test with.
    """
    request = _checked(normal, anomaly, held_out, contaminate, test_share, limit, seed)
    listing = _listing(spec)
    classes = _classes(listing, request)
    rng = np.random.default_rng(seed)
    if contaminate is not None:
        return _contaminated(listing, classes, request, rng)
    return _divide(listing, classes, request, rng)


def _checked(
    normal: Sequence[str],
    anomaly: Sequence[str],
    held_out: Sequence[str],
    contaminate: float | None,
    test_share: float,
    limit: int | None,
    seed: int,
) -> _Request:
    problems = []
    if held_out and (normal or anomaly):
        problems.append("held_out makes all other classes normal; give it without normal and anomaly.")
    if contaminate is not None and not 0 < contaminate <= 1:
        problems.append(f"contaminate is a share of the normal images, above 0 and at most 1; got {contaminate}.")
    if contaminate is not None and not (anomaly or held_out):
        problems.append("contaminate needs the classes to mix in: give anomaly or held_out.")
    if not 0 < test_share < 1:
        problems.append(f"test_share must lie between 0 and 1; got {test_share}.")
    if limit is not None and limit < 2:
        problems.append(f"limit must be at least 2, one normal and one abnormal image; got {limit}.")
    if seed < 0:
        problems.append(f"seed must not be negative; got {seed}.")
    if problems:
        raise ParameterError("\n".join(problems))
    names = [_names_in(item) for item in (normal, anomaly, held_out)]
    return _Request(names[0], names[1], names[2], contaminate, test_share, limit, seed)


def _names_in(classes: Sequence[str]) -> tuple[str, ...]:
    # One string is one class, not its letters.
    return (classes,) if isinstance(classes, str) else tuple(str(name) for name in classes)


# --- where the images come from -------------------------------------------------------------------------------------


def _listing(spec: str) -> Listing:
    name = spec.lower()
    if name == _PAIR:
        return _pair()
    if name in CATALOG:
        return _named(CATALOG[name])
    path = _path_of(spec)
    if path.is_dir():
        return _own_folder(path)
    if path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        msg = f"{path}: a file, and no CSV table. Give a folder, a .csv file or one of {', '.join(_names())}."
        raise ParameterError(msg)
    return list_table(path)


def _path_of(spec: str) -> Path:
    candidates = [Path(spec), *(folder / spec for folder in data_folders())]
    found = next((path for path in candidates if path.exists()), None)
    if not spec or found is None:
        close = difflib.get_close_matches(spec.lower(), _names(), n=1)
        guess = f" Did you mean {close[0]}?" if close else ""
        looked = ", ".join(str(folder) for folder in data_folders())
        msg = (
            f"{spec!r} is no folder or file, neither here nor in {looked}, and no data set that Oddment knows: "
            f"{', '.join(_names())}.{guess}"
        )
        raise ParameterError(msg)
    return found


def _names() -> list[str]:
    return [*CATALOG, _PAIR]


def _own_folder(folder: Path) -> Listing:
    """A folder of the user's: DeepWeeds and IDX files are recognised by their names."""
    name = folder.resolve().name
    if _has_deepweeds_labels(folder):
        return _weeds(folder, name)
    if file_in(folder, CATALOG["mnist"].files[0]):
        known = CATALOG.get(name.lower(), CATALOG["mnist"])
        title = known.title if known.name == name.lower() else "IDX files"
        return replace(_idx(known, folder, name), title=f"{title}, split as published")
    return list_folder(folder)


def _has_deepweeds_labels(folder: Path) -> bool:
    table = folder / "labels.csv"
    if not table.is_file():
        return False
    with table.open("rb") as stream:
        return b"Filename" in stream.read(64)


def _named(wanted: DataSet) -> Listing:
    folder = folder_of(wanted)
    return _weeds(folder, wanted.name) if wanted.kind == "deepweeds" else _idx(wanted, folder, wanted.name)


def _aliases(wanted: DataSet) -> tuple[tuple[str, str], ...]:
    return tuple((str(index), label) for index, label in enumerate(wanted.classes))


def _weeds(folder: Path, name: str) -> Listing:
    from oddment.data.deepweeds import SPECIES, open_deepweeds

    weeds = open_deepweeds(folder)
    # Half a gigabyte of images: what an archive holds is read when it is known which are needed.
    unread = ImageError("not read yet")
    rows = {f"{printable(str(weeds.images))}!/{row.filename}": row for row in weeds.rows}
    refs = weeds.refs(weeds.rows) if weeds.images.is_dir() else tuple(ImageRef(path, unread) for path in rows)
    items = tuple(Item(ref, SPECIES[row.label]) for ref, row in zip(refs, weeds.rows, strict=True))

    def read(wanted: Sequence[ImageRef]) -> Sequence[ImageRef]:
        return weeds.refs([rows[ref.path] for ref in wanted])

    known = CATALOG["deepweeds"]
    return Listing(name, known.title, items, aliases=_aliases(known), read=None if weeds.images.is_dir() else read)


def _idx(wanted: DataSet, folder: Path, name: str) -> Listing:
    items = (*_idx_items(wanted, folder, "train"), *_idx_items(wanted, folder, "test"))
    return Listing(name, f"{wanted.title}, split as published", items, aliases=_aliases(wanted))


def _idx_items(wanted: DataSet, folder: Path, side: Literal["train", "test"], label: str = "") -> tuple[Item, ...]:
    """One half of an IDX data set, each image with its class or all with one label."""
    images, labels = load_arrays(wanted.name, side, folder=folder)
    path = file_in(folder, wanted.files[0 if side == "train" else 2])
    shown, classes = printable(str(path)), dict(enumerate(wanted.classes))
    return tuple(
        Item(ImageRef(f"{shown}[{index}]", image), label or classes.get(number, str(number)), side)
        for index, (image, number) in enumerate(zip(images, labels.tolist(), strict=True))
    )


def _pair() -> Listing:
    """Digits, and articles of clothing that never occur in training."""
    digits, articles = CATALOG["mnist"], CATALOG["fashion-mnist"]
    listing = _named(digits)
    strange = _idx_items(articles, folder_of(articles), "test", articles.name)
    title = "MNIST digits, split as published, and Fashion-MNIST test images as anomalies"
    return Listing(_PAIR, title, (*listing.items, *strange), digits.classes, (articles.name,))


# --- which classes are normal ---------------------------------------------------------------------------------------


def _classes(listing: Listing, request: _Request) -> _Classes:
    present = naturally_sorted({item.label for item in listing.items})
    normal = _resolve(request.normal, present, listing, "normal")
    anomaly = _resolve(request.anomaly, present, listing, "anomaly")
    held_out = _resolve(request.held_out, present, listing, "held_out")
    both = sorted(normal & anomaly)
    if both:
        msg = f"{', '.join(both)} cannot be normal and an anomaly at once."
        raise ParameterError(msg)
    if held_out:
        # What the data call abnormal stays so: Fashion-MNIST beside MNIST, every defect of MVTec's layout.
        abnormal = held_out | frozenset(listing.abnormal)
        return _Classes(frozenset(present) - abnormal, abnormal)
    normal = normal or (frozenset(listing.normal) & frozenset(present)) - anomaly
    if not normal:
        msg = (
            f"{listing.name}: nothing says which classes are normal. Name them (normal, --normal), or those held out "
            f"(held_out, --held-out). It has {_some(present)}."
        )
        raise ParameterError(msg)
    return _Classes(normal, anomaly or frozenset(present) - normal)


def _resolve(names: Iterable[str], present: Sequence[str], listing: Listing, parameter: str) -> frozenset[str]:
    """The classes meant: by their name, in any case, or by number where the data set numbers them."""
    lower = {label.lower(): label for label in reversed(present)} | {label: label for label in present}
    aliases = {number: label for number, label in listing.aliases if label in present}
    known = aliases | lower
    found, unknown = set(), []
    for name in names:
        label = known.get(name) or known.get(name.lower())
        if label is None:
            close = difflib.get_close_matches(name.lower(), known, n=1)
            unknown.append(f"{name!r}" + (f" (did you mean {known[close[0]]}?)" if close else ""))
        else:
            found.add(label)
    if unknown:
        msg = f"{parameter}: {', '.join(unknown)} is no class of {listing.name}. It has {_some(present)}."
        raise ParameterError(msg)
    return frozenset(found)


def _some(labels: Sequence[str], most: int = 20) -> str:
    return ", ".join(labels[:most]) + (f" and {len(labels) - most} more" if len(labels) > most else "")


# --- who trains, who is tested --------------------------------------------------------------------------------------


def _divide(listing: Listing, classes: _Classes, request: _Request, rng: np.random.Generator) -> LabelledSet:
    """Train on normal images alone; test on those held back and on every anomaly that is not for training."""
    held_back = _held_back(listing.items, classes, request.test_share, rng)
    train, test = [], []
    n_unused = 0
    for index, item in enumerate(listing.items):
        is_normal, is_anomaly = item.label in classes.normal, item.label in classes.anomaly
        if is_normal and item.side != "test" and index not in held_back:
            train.append(item)
        elif (is_normal or is_anomaly) and item.side != "train":
            test.append(item)
        else:
            n_unused += is_anomaly
    train = [train[index] for index in _draw(len(train), request.limit, rng)]
    test = _limited(test, classes, request.limit, rng)
    _refuse_empty(listing, classes, train, test)
    notes = f"; {n_unused:,} anomalies of the training half are not used" if n_unused else ""
    return _made(listing, classes, request, train, test, notes)


def _held_back(items: Sequence[Item], classes: _Classes, share: float, rng: np.random.Generator) -> frozenset[int]:
    """Which normal images without a side of their own are held back for testing: the same share of every class."""
    chosen: set[int] = set()
    for label in naturally_sorted(classes.normal):
        open_ones = [index for index, item in enumerate(items) if item.label == label and not item.side]
        if len(open_ones) > 1:
            n_test = min(max(1, round(share * len(open_ones))), len(open_ones) - 1)
            chosen.update(open_ones[at] for at in rng.permutation(len(open_ones))[:n_test].tolist())
    return frozenset(chosen)


def _contaminated(listing: Listing, classes: _Classes, request: _Request, rng: np.random.Generator) -> LabelledSet:
    """Mix anomalies into the training images; the same set is scored afterwards, as on a dirty folder."""
    share = request.contaminate or 0.0
    normal = [item for item in listing.items if item.label in classes.normal and item.side != "test"]
    # Where the anomalies have no training half (MVTec), they come from the test half.
    strange = [item for item in listing.items if item.label in classes.anomaly and item.side != "test"]
    strange = strange or [item for item in listing.items if item.label in classes.anomaly]
    most = None if request.limit is None else max(1, int(request.limit / (1 + share)))
    normal = [normal[index] for index in _draw(len(normal), most, rng)]
    n_strange = round(share * len(normal))
    if not 1 <= n_strange <= len(strange):
        msg = (
            f"contaminate={share} of {len(normal):,} normal images is {n_strange:,} anomalies; there must be "
            f"at least 1, and {listing.name} has {len(strange):,}. Choose another share or other classes."
        )
        raise TooFewImagesError(msg)
    kept = {id(item) for item in normal} | {id(strange[index]) for index in _draw(len(strange), n_strange, rng)}
    mixed = [item for item in listing.items if id(item) in kept]
    notes = "; one contaminated set, trained and tested on without telling which is which"
    return _made(listing, classes, request, mixed, mixed, notes)


def _draw(n: int, most: int | None, rng: np.random.Generator) -> list[int]:
    """At most so many of n, drawn, in order."""
    return list(range(n)) if most is None or n <= most else sorted(rng.choice(n, most, replace=False).tolist())


def _limited(test: list[Item], classes: _Classes, limit: int | None, rng: np.random.Generator) -> list[Item]:
    """At most so many test images, normal and abnormal in the proportion they had, at least one of each."""
    if limit is None or len(test) <= limit:
        return test
    normal = [index for index, item in enumerate(test) if item.label in classes.normal]
    strange = [index for index, item in enumerate(test) if item.label not in classes.normal]
    n_normal = min(max(round(limit * len(normal) / len(test)), 1 if normal else 0), limit - 1 if strange else limit)
    chosen = [normal[at] for at in _draw(len(normal), n_normal, rng)]
    chosen += [strange[at] for at in _draw(len(strange), limit - n_normal, rng)]
    return [test[index] for index in sorted(chosen)]


def _refuse_empty(listing: Listing, classes: _Classes, train: list[Item], test: list[Item]) -> None:
    normal, anomaly = (", ".join(naturally_sorted(names)) or "none" for names in (classes.normal, classes.anomaly))
    n_normal = sum(item.label in classes.normal for item in test)
    counts = {
        f"normal training images (classes: {normal})": len(train),
        f"normal test images (classes: {normal})": n_normal,
        f"abnormal test images (classes: {anomaly})": len(test) - n_normal,
    }
    lacking = [what for what, count in counts.items() if not count]
    if lacking:
        msg = (
            f"{listing.name}: has no {' and no '.join(lacking)}. Measuring needs some of each: add images, or name "
            "other classes."
        )
        raise TooFewImagesError(msg)


def _made(
    listing: Listing, classes: _Classes, request: _Request, train: Sequence[Item], test: Sequence[Item], notes: str
) -> LabelledSet:
    refs = _read(listing, [*train, *test])
    images = tuple(
        LabelledImage(refs[item.ref.path], item.label not in classes.normal, item.label, _mask(item, classes))
        for item in test
    )
    n_anomalies = sum(image.is_anomaly for image in images)
    normal, anomaly = (_some(naturally_sorted(names), 12) for names in (classes.normal, classes.anomaly))
    description = (
        f"{listing.title}. {len(train):,} training images; test: {len(images) - n_anomalies:,} normal ({normal}) and "
        f"{n_anomalies:,} abnormal ({anomaly}); seed {request.seed}{notes}."
    )
    return LabelledSet(listing.name, description, tuple(refs[item.ref.path] for item in train), images)


def _read(listing: Listing, items: Sequence[Item]) -> dict[str, ImageRef]:
    """The references of these images by their path, those in an archive with their bytes."""
    refs = {item.ref.path: item.ref for item in items}
    return refs if listing.read is None else dict(zip(refs, listing.read(list(refs.values())), strict=True))


def _mask(item: Item, classes: _Classes) -> Path | None:
    return None if item.label in classes.normal else item.mask
