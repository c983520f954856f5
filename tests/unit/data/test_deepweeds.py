from __future__ import annotations

import csv
import zipfile
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from oddment.data.catalog import CATALOG
from oddment.data.deepweeds import COUNTS, SPECIES, class_id, make_lookalike, open_deepweeds, read_labels
from oddment.data.verify import verify
from oddment.errors import DataError, ImageError, ParameterError
from oddment.images import decode

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def weeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two lookalikes of each class in a folder; not to be written to."""
    return make_lookalike(tmp_path_factory.mktemp("weeds") / "deepweeds", 2, seed=1)


def _table(folder: Path, *lines: str) -> Path:
    path = folder / "labels.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_lookalikes_have_the_published_layout(weeds: Path) -> None:
    """JPEGs of 256×256 in colour under images/, and a table with the three columns that names each once."""
    rows = list(csv.reader((weeds / "labels.csv").read_text(encoding="utf-8").splitlines()))
    assert rows[0] == ["Filename", "Label", "Species"]
    assert sorted(row[0] for row in rows[1:]) == sorted(path.name for path in (weeds / "images").iterdir())
    with Image.open(weeds / "images" / rows[1][0]) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (256, 256), "RGB")


def test_lookalikes_are_the_same_for_the_same_seed(weeds: Path, tmp_path: Path) -> None:
    """Equal arguments give equal files; another seed gives others; an archive holds the same images, flat."""
    again, other = make_lookalike(tmp_path / "a", 2, seed=1), make_lookalike(tmp_path / "b", {5: 2}, seed=2)
    archive = make_lookalike(tmp_path / "c", {"rubber vine": 2}, seed=1, archive=True)
    name = next(row.filename for row in read_labels(again / "labels.csv") if row.label == 5)
    content = (weeds / "images" / name).read_bytes()
    assert (again / "images" / name).read_bytes() == content
    assert (other / "images" / name).read_bytes() != content
    with zipfile.ZipFile(archive / "images.zip") as opened:
        assert opened.read(name) == content
        assert len(opened.namelist()) == 2


def test_lookalikes_differ_more_between_classes_than_within(tmp_path: Path) -> None:
    """The colours of a class are its own: the mean colour of one is nearer its own class than another."""
    found = open_deepweeds(make_lookalike(tmp_path / "weeds", {"lantana": 4, "negative": 4}))
    means = {
        name: [decode(ref.payload).pixels.mean(axis=(0, 1)) for ref in found.refs(found.select([name]))]
        for name in ("Lantana", "Negative")
    }
    lantana, negative = np.array(means["Lantana"]), np.array(means["Negative"])
    between = np.linalg.norm(lantana.mean(axis=0) - negative.mean(axis=0))
    assert between > 2 * max(lantana.std(axis=0).max(), negative.std(axis=0).max())


@pytest.mark.parametrize("archive", [False, True])
def test_classes_are_chosen_by_number_or_name(tmp_path: Path, *, archive: bool) -> None:
    """Number, text of a number and name in any case mean the same class, from a folder and from an archive."""
    found = open_deepweeds(make_lookalike(tmp_path / "weeds", {1: 2, 5: 3}, archive=archive))
    rows = found.select(["LANTANA"])
    assert rows == found.select([1]) == found.select(["1"])
    assert {row.species for row in rows} == {"Lantana"}
    assert len(found.select()) == 5
    refs = found.refs(found.select(["rubber vine"]))
    assert all(decode(ref.payload).size == (256, 256) for ref in refs)
    with pytest.raises(ParameterError, match="5 Rubber vine"):
        found.select(["tomato"])
    assert class_id(" siam weed ") == 6


@pytest.mark.parametrize("archive", [False, True])
def test_missing_images_are_reported(tmp_path: Path, *, archive: bool) -> None:
    """An image that is listed and not there is counted and becomes a reference with its reason."""
    folder = make_lookalike(tmp_path / "weeds", {0: 3}, archive=archive)
    with (folder / "labels.csv").open("a", encoding="utf-8") as stream:
        stream.write("20990101-000000-0.jpg,0,Chinee apple\n")
    found = open_deepweeds(folder)
    assert found.missing == ("20990101-000000-0.jpg",)
    payloads = [ref.payload for ref in found.refs(found.select())]
    assert len(payloads) == 4
    assert isinstance(payloads[3], ImageError)
    assert "missing in images" in str(payloads[3])
    assert not verify(CATALOG["deepweeds"], folder)[-1].ok


def test_a_damaged_member_is_one_rejected_image(tmp_path: Path) -> None:
    """One broken member of the archive has its own reason; the others are read."""
    folder = make_lookalike(tmp_path / "weeds", {0: 2}, archive=True)
    archive = folder / "images.zip"
    content = bytearray(archive.read_bytes())
    content[3000:3100] = bytes(100)
    archive.write_bytes(content)
    found = open_deepweeds(folder)
    first, second = (ref.payload for ref in found.refs(found.select()))
    assert isinstance(first, ImageError)
    assert isinstance(second, bytes)


def test_an_archive_with_a_folder_inside_is_read(tmp_path: Path) -> None:
    """Members are found by their last name, whatever folder they lie in."""
    folder = make_lookalike(tmp_path / "weeds", {0: 1})
    (path,) = (folder / "images").iterdir()
    with zipfile.ZipFile(folder / "images.zip", "w") as archive:
        archive.write(path, f"DeepWeeds/images/{path.name}")
    path.unlink()
    (folder / "images").rmdir()
    assert open_deepweeds(folder).missing == ()


def test_no_images_at_all_is_an_error(tmp_path: Path) -> None:
    """Without images, with a broken archive, or with none of the listed images, the remedy is named."""
    table = _table(tmp_path, "Filename,Label,Species", "a.jpg,0,Chinee apple")
    with pytest.raises(DataError, match="oddment data get deepweeds"):
        open_deepweeds(tmp_path)
    (tmp_path / "images.zip").write_bytes(b"no archive")
    with pytest.raises(DataError, match="not a zip archive"):
        open_deepweeds(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=r"none of the 1 images.*a\.jpg"):
        open_deepweeds(tmp_path)
    table.unlink()
    with pytest.raises(DataError, match=r"labels\.csv does not exist"):
        open_deepweeds(tmp_path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["File,Label", "a.jpg,0"], "lacks the column Filename and Species"),
        (["Filename,Label,Species", "a.jpg,9,Tomato"], "line 2: Label must be 0..8; got '9'"),
        (["Filename,Label,Species", "a.jpg,one,Lantana"], "got 'one'"),
        (["Filename,Label,Species", "../../etc/passwd,1,Lantana"], "must be the name of a file"),
        (["Filename,Label,Species", "..\\x.jpg,1,Lantana"], "must be the name of a file"),
        (["Filename,Label,Species", "a.jpg,1,Lantana", "a.jpg,2,Parkinsonia"], "more than once, such as a.jpg"),
        (["Filename,Label,Species"], "lists no image"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    """Every mistake in labels.csv names the file, the line and the rule."""
    with pytest.raises(DataError) as caught:
        read_labels(_table(tmp_path, *lines))
    assert message in str(caught.value)
    assert "labels.csv" in str(caught.value)


@pytest.mark.parametrize("n", [0, -1, {"lantana": -1}, {"tomato": 1}])
def test_lookalikes_of_nothing_are_refused(tmp_path: Path, n: int | dict[str | int, int]) -> None:
    """At least one image, no negative number, no unknown class."""
    with pytest.raises(ParameterError):
        make_lookalike(tmp_path / "weeds", n)


@pytest.mark.data
def test_the_real_table_is_read(real_data: Path) -> None:
    """The published labels.csv lists 17,509 images in the nine classes, and its sum is right."""
    rows = read_labels(real_data / "deepweeds" / "labels.csv")
    counts = Counter(row.label for row in rows)
    assert tuple(counts[label] for label in range(9)) == COUNTS
    assert all(row.species == SPECIES[row.label] for row in rows)
    assert verify(CATALOG["deepweeds"], real_data / "deepweeds")[0].ok
