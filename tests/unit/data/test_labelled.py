from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from oddment.data.deepweeds import make_lookalike
from oddment.data.labelled import LabelledSet, open_labelled
from oddment.errors import DataError, ImageError, ParameterError, TooFewImagesError
from oddment.natural import naturally_sorted

if TYPE_CHECKING:
    from collections.abc import Callable


def _tested(found: LabelledSet) -> Counter[tuple[str, bool]]:
    return Counter((image.label, image.is_anomaly) for image in found.test)


def _names(found: LabelledSet) -> tuple[list[str], list[str]]:
    return [ref.path for ref in found.train], [image.ref.path for image in found.test]


# --- named data sets ---


def test_one_class_is_normal(idx_home: Path) -> None:
    """Normal 7 and anomaly 5: the training 7s to fit on, the test 7s and 5s to test on, nothing else."""
    found = open_labelled("mnist", normal=["7"], anomaly=["5"])
    assert len(found.train) == 20
    assert _tested(found) == {("7", False): 6, ("5", True): 6}
    assert all(np.all(np.asarray(ref.payload) == 7) for ref in found.train)
    assert found.train[0].path.endswith("train-images-idx3-ubyte.gz[7]")
    assert found.name == "mnist"
    assert all(text in found.description for text in ("20 training images", "6 normal (7)", "6 abnormal (5)", "seed 0"))


def test_all_other_classes_are_abnormal_by_default(idx_home: Path) -> None:
    """Without anomaly every class that is not normal is one."""
    assert sum(image.is_anomaly for image in open_labelled("mnist", normal=["7"]).test) == 54
    assert sum(image.is_anomaly for image in open_labelled("mnist", normal=["1", "7"]).test) == 48


def test_a_class_is_held_out(idx_home: Path) -> None:
    """Held out 5: trained on all classes but 5, tested on all."""
    found = open_labelled("MNIST", held_out=["5"])
    assert len(found.train) == 180
    assert len(found.test) == 60
    assert {image.label for image in found.test if image.is_anomaly} == {"5"}


def test_classes_of_fashion_have_names_and_numbers(idx_home: Path) -> None:
    """A class of Fashion-MNIST is meant by its number or by its name in any case."""
    found = open_labelled("fashion-mnist", normal=["sneaker"], anomaly=["9"])
    assert _tested(found) == {("Sneaker", False): 6, ("Ankle boot", True): 6}


def test_digits_against_articles(idx_home: Path) -> None:
    """All training digits to fit on; test digits normal, Fashion-MNIST's test images abnormal."""
    found = open_labelled("mnist+fashion-mnist")
    assert len(found.train) == 200
    assert sum(image.is_anomaly for image in found.test) == 60
    assert {image.label for image in found.test if image.is_anomaly} == {"fashion-mnist"}
    assert found.test[-1].ref.path.endswith("fashion-mnist/t10k-images-idx3-ubyte.gz[59]")


def test_a_digit_held_out_beside_articles(idx_home: Path) -> None:
    """With a digit held out, it and the articles are abnormal: the set of the held-out-digit experiment."""
    found = open_labelled("mnist+fashion-mnist", held_out=["5"])
    assert len(found.train) == 180
    assert {image.label for image in found.test if image.is_anomaly} == {"5", "fashion-mnist"}


def test_contamination_trains_and_tests_on_one_set(idx_home: Path) -> None:
    """So many anomalies, as a share of the normals, are mixed in unmarked; test is train with the labels."""
    found = open_labelled("mnist", normal=["1"], anomaly=["3"], contaminate=0.1)
    assert _tested(found) == {("1", False): 20, ("3", True): 2}
    assert found.train == tuple(image.ref for image in found.test)
    assert "contaminated" in found.description
    assert open_labelled("mnist", held_out=["3"], contaminate=0.05).description.count("9 abnormal") == 1


def test_the_seed_draws_the_contamination(idx_home: Path) -> None:
    """The same seed mixes in the same images, another seed others."""
    chosen = [open_labelled("mnist", normal=["1"], anomaly=["3"], contaminate=0.2, seed=seed) for seed in (0, 0, 1)]
    names = [[image.ref.path for image in found.test if image.is_anomaly] for found in chosen]
    assert names[0] == names[1] != names[2]


def test_deepweeds_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes by name; without a split of its own a share of the normals is held back."""
    make_lookalike(tmp_path / "deepweeds", {1: 3, 5: 10, 8: 2})
    monkeypatch.setenv("ODDMENT_DATA", str(tmp_path))
    found = open_labelled("deepweeds", normal=["rubber vine"], anomaly=["1"])
    assert len(found.train) == 8
    assert _tested(found) == {("Rubber vine", False): 2, ("Lantana", True): 3}
    assert isinstance(found.train[0].payload, Path)


def test_of_an_archive_only_what_is_used_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From images.zip the bytes of the chosen images come, and missing ones come with their reason."""
    folder = make_lookalike(tmp_path / "weeds", {1: 3, 5: 5, 8: 4}, archive=True)
    with (folder / "labels.csv").open("a", encoding="utf-8") as stream:
        stream.write("20990101-000000-0.jpg,1,Lantana\n")
    read: list[str] = []
    import zipfile

    original = zipfile.ZipFile.read

    def spy(self: zipfile.ZipFile, name: Any, pwd: bytes | None = None) -> bytes:
        read.append(name.filename)
        return original(self, name, pwd)

    monkeypatch.setattr(zipfile.ZipFile, "read", spy)
    found = open_labelled(str(folder), normal=["5"], anomaly=["1"])
    assert len(read) == 8
    assert all(isinstance(ref.payload, bytes) for ref in found.train)
    assert isinstance(found.test[-1].ref.payload, ImageError)


def test_a_folder_of_idx_files_is_recognised(idx_home: Path) -> None:
    """A copy of MNIST anywhere is read like the named one."""
    moved = (idx_home / "mnist").rename(idx_home / "copy")
    assert len(open_labelled(str(moved), normal=["7"]).train) == 20


# --- folders ---


def test_mvtec_layout(mvtec: Path) -> None:
    """train/good to fit on, all of test/ to test on, each defect with its mask."""
    found = open_labelled(str(mvtec))
    assert found.name == "bottle"
    assert len(found.train) == 12
    assert _tested(found) == {("good", False): 2, ("crack", True): 3, ("scratch", True): 2}
    for image in found.test:
        if image.is_anomaly:
            assert image.mask is not None
            assert image.mask.name == f"{Path(image.ref.path).stem}_mask.png"
            assert image.mask.parent.name == image.label
        else:
            assert image.mask is None


def test_one_defect_of_mvtec(mvtec: Path) -> None:
    """With anomaly only that defect is tested."""
    assert _tested(open_labelled(str(mvtec), anomaly=["Crack"])) == {("good", False): 2, ("crack", True): 3}


def test_a_defect_held_out_of_mvtec(mvtec: Path) -> None:
    """A defect is never normal, whichever is held out."""
    assert _tested(open_labelled(str(mvtec), held_out=["crack"])) == _tested(open_labelled(str(mvtec)))


def test_mvtec_contaminated_from_the_test_half(mvtec: Path) -> None:
    """Where no anomaly is there for training, the contamination comes from the test images."""
    found = open_labelled(str(mvtec), anomaly=["crack"], contaminate=0.2)
    assert _tested(found) == {("good", False): 12, ("crack", True): 2}


def test_mvtec_without_any_masks(mvtec: Path) -> None:
    """Without ground_truth/ there are no masks, and that is no mistake."""
    (mvtec / "ground_truth").rename(mvtec.parent / "elsewhere")
    assert all(image.mask is None for image in open_labelled(str(mvtec)).test)


def test_a_missing_mask_is_a_mistake(mvtec: Path) -> None:
    """A defect of which some masks exist must have them all."""
    (mvtec / "ground_truth" / "crack" / "001_mask.png").unlink()
    with pytest.raises(DataError, match=r"1 images have no mask.*crack/001\.png"):
        open_labelled(str(mvtec))


def test_a_folder_above_mvtec_says_which_to_name(mvtec: Path) -> None:
    """The folder that holds several categories names them."""
    with pytest.raises(DataError, match=r"1 data sets.*Name one: .*bottle"):
        open_labelled(str(mvtec.parent))


def test_train_and_test_without_good(tmp_path: Path, paint: Callable[..., Path]) -> None:
    """train/ and test/ without train/good/ are not taken for two classes."""
    paint(tmp_path / "x" / "train" / "a.png")
    paint(tmp_path / "x" / "test" / "b.png")
    with pytest.raises(DataError, match="no train/good/"):
        open_labelled(str(tmp_path / "x"))


def test_a_folder_per_class(class_folder: Path) -> None:
    """good/ is normal by itself; a seeded fifth of it is held back; all other classes are tested; order is natural."""
    found = open_labelled(str(class_folder))
    train, tested = _names(found)
    assert len(train) == 16
    assert _tested(found) == {("good", False): 4, ("bent", True): 5, ("broken", True): 3}
    assert not set(train) & set(tested)
    assert train == naturally_sorted(train)
    assert tested == naturally_sorted(tested)


def test_the_split_comes_from_the_seed(class_folder: Path) -> None:
    """The same seed gives the same split, another seed another, and test_share its size."""
    first, again, other = (_names(open_labelled(str(class_folder), seed=seed))[0] for seed in (3, 3, 4))
    assert first == again != other
    assert len(open_labelled(str(class_folder), test_share=0.5).train) == 10


def test_several_normal_classes_are_split_alike(class_folder: Path) -> None:
    """Every normal class gives the same share to the test."""
    found = open_labelled(str(class_folder), normal=["good", "bent"])
    assert _tested(found) == {("good", False): 4, ("bent", False): 1, ("broken", True): 3}
    held_out = open_labelled(str(class_folder), held_out="broken")
    assert _tested(held_out) == _tested(found)


def test_no_class_that_is_normal_by_name(class_folder: Path) -> None:
    """Without a folder good, normal, ok or free the caller must say which class is normal."""
    (class_folder / "good").rename(class_folder / "fine")
    with pytest.raises(ParameterError, match=r"nothing says which classes are normal.*bent, broken, fine"):
        open_labelled(str(class_folder))
    assert len(open_labelled(str(class_folder), normal=["fine"]).train) == 16


def test_images_beside_the_class_folders(class_folder: Path, paint: Callable[..., Path]) -> None:
    """An image that lies in no class is not left out in silence."""
    paint(class_folder / "stray.png")
    (class_folder / "README.txt").write_text("not an image")
    with pytest.raises(DataError, match=r"1 images lie beside the class folders \(stray\.png\)"):
        open_labelled(str(class_folder))


def test_a_folder_without_classes(tmp_path: Path, paint: Callable[..., Path]) -> None:
    """A plain folder of images has no labels to measure with."""
    paint(tmp_path / "plain" / "a.png")
    with pytest.raises(DataError, match="holds 1 images and no folder"):
        open_labelled(str(tmp_path / "plain"))


def test_magnetic_tiles(tiles: Path) -> None:
    """groups.csv fixes the split of free/; every defect has its kind and its mask."""
    found = open_labelled(str(tiles))
    assert [Path(ref.path).name for ref in found.train] == [f"free{index}.jpg" for index in range(4)]
    assert _tested(found) == {("free", False): 2, ("crack", True): 1, ("fray", True): 1}
    assert [image.mask.name for image in found.test if image.mask] == ["crack1.png", "fray1.png"]
    assert "cluster" in found.description
    assert found.train == open_labelled(str(tiles), seed=9).train


def test_tiles_without_a_table_are_split_at_random(tiles: Path) -> None:
    """Without groups.csv the seed splits."""
    (tiles / "groups.csv").unlink()
    found = open_labelled(str(tiles), test_share=0.5)
    assert len(found.train) == 3
    assert "cluster" not in found.description


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("free3.jpg,1,train\n", "", "has no row for .*free3.jpg"),
        ("free3.jpg,1,train\n", "free3.jpg,1,train\nfree9.jpg,9,test\n", "lists free9.jpg, which free/ does not hold"),
        ("free3.jpg,1,train", "free3.jpg,1,validate", "line 5: side must be train or test; got 'validate'"),
        ("file,cluster", "name,cluster", "lacks the column file"),
    ],
)
def test_a_wrong_table_of_tiles(tiles: Path, old: str, new: str, message: str) -> None:
    """The table must name exactly the free tiles, each with a side."""
    path = tiles / "groups.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        open_labelled(str(tiles))


# --- tables ---


def _table(folder: Path, text: str, paint: Callable[..., Path]) -> Path:
    for index in range(6):
        paint(folder / "img" / f"{index}.png")
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_with_split_and_mask(tmp_path: Path, paint: Callable[..., Path]) -> None:
    """Columns in any case and order, semicolons and a byte order mark; paths relative to the table."""
    text = (
        "\ufeffLabel;Path;split;mask\ngood;img/0.png;train;\ngood;img/1.png;test;\ndent;img/2.png;test;img/3.png\n"
        "dent;img/4.png;train;\n"
    )
    found = open_labelled(str(_table(tmp_path, text, paint)))
    assert _names(found) == ([str(tmp_path / "img/0.png")], [str(tmp_path / "img/1.png"), str(tmp_path / "img/2.png")])
    assert found.test[1].mask == tmp_path / "img/3.png"
    assert "1 anomalies of the training half are not used" in found.description


@pytest.mark.parametrize("normal", ["normal", "Good", "0"])
def test_a_table_without_split(tmp_path: Path, paint: Callable[..., Path], normal: str) -> None:
    """normal, good and 0 are normal, anything else is not; the split is drawn."""
    rows = "".join(f"img/{index}.png,{normal if index < 5 else 'dent'}\n" for index in range(6))
    found = open_labelled(str(_table(tmp_path, f"path,label\n{rows}", paint)))
    assert len(found.train) == 4
    assert _tested(found) == {(normal, False): 1, ("dent", True): 1}


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("file,label\na,b\n", ["lacks the column path", "'file,label'"]),
        (
            "path,label\nimg/0.png,\nimg/99.png,good\n",
            ["line 2: label is empty", "line 3: path 'img/99.png' is no file"],
        ),
        ("path,label,split\nimg/0.png,good,validate\n", ["line 2: split must be train or test; got 'validate'"]),
        ("path,label,mask\nimg/0.png,bad,no.png\n", ["line 2: mask 'no.png' is no file"]),
        ("path,label\nimg/0.png,good\nimg/0.png,bad\n", ["line 3: img/0.png is listed in line 2 already"]),
        ("path,label\n", ["lists no image"]),
        ("", ["lacks the column path and label"]),
    ],
)
def test_a_wrong_table(tmp_path: Path, paint: Callable[..., Path], text: str, messages: list[str]) -> None:
    """Every mistake of a table comes at once, with its line."""
    with pytest.raises(DataError) as caught:
        open_labelled(str(_table(tmp_path, text, paint)))
    assert all(message in str(caught.value) for message in messages), caught.value


def test_a_table_that_is_no_text(tmp_path: Path) -> None:
    """A file in another encoding is refused with the remedy."""
    path = tmp_path / "table.csv"
    path.write_bytes(b"path,label\n\xff\xfe\xe4,good\n")
    with pytest.raises(DataError, match="CSV UTF-8"):
        open_labelled(str(path))


# --- parameters ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"normal": ["good"], "held_out": ["bent"]}, "held_out makes all other classes normal"),
        ({"contaminate": 0.1}, "needs the classes to mix in"),
        ({"contaminate": 0.0, "anomaly": ["bent"]}, "above 0 and at most 1; got 0.0"),
        ({"contaminate": 1.5, "anomaly": ["bent"]}, "got 1.5"),
        ({"contaminate": 0.01, "anomaly": ["bent"]}, "is 0 anomalies; there must be at least 1"),
        ({"contaminate": 0.5, "anomaly": ["broken"]}, "is 10 anomalies"),
        ({"test_share": 1.0}, "test_share must lie between 0 and 1; got 1.0"),
        ({"limit": 1}, "limit must be at least 2"),
        ({"seed": -1}, "seed must not be negative"),
        ({"normal": ["goood"]}, r"'goood' \(did you mean good\?\) is no class of parts. It has bent, broken, good"),
        ({"anomaly": ["7"]}, "anomaly: '7' is no class"),
        ({"normal": ["good"], "anomaly": ["good"]}, "cannot be normal and an anomaly at once"),
        ({"held_out": ["good", "bent", "broken"]}, "no normal training images"),
        ({"normal": ["good", "bent", "broken"]}, "no abnormal test images"),
    ],
)
def test_wrong_parameters(class_folder: Path, arguments: dict[str, Any], message: str) -> None:
    """Each wrong parameter names the rule, the value and what there is."""
    with pytest.raises((ParameterError, TooFewImagesError), match=message):
        open_labelled(str(class_folder), **arguments)


def test_several_mistakes_come_at_once(class_folder: Path) -> None:
    """All wrong parameters are told in one error."""
    with pytest.raises(ParameterError, match=r"(?s)test_share.*limit.*seed"):
        open_labelled(str(class_folder), test_share=2, limit=0, seed=-3)


@pytest.mark.parametrize("spec", ["mnits", "", "no/such/folder"])
def test_a_source_that_does_not_exist(spec: str, alone: Path) -> None:
    """What is neither a data set nor a path says what there is."""
    with pytest.raises(ParameterError, match="mnist, fashion-mnist, deepweeds"):
        open_labelled(spec)


def test_a_file_that_is_no_table(tmp_path: Path, paint: Callable[..., Path]) -> None:
    """A single image is no labelled set."""
    with pytest.raises(ParameterError, match="no CSV table"):
        open_labelled(str(paint(tmp_path / "a.png")))


def test_a_named_set_that_is_not_here(alone: Path) -> None:
    """A known data set that is not on this machine names the command that gets it."""
    with pytest.raises(DataError, match="oddment data get mnist"):
        open_labelled("mnist", normal=["7"])


def test_a_folder_is_found_by_name(tiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder inside the one that ODDMENT_DATA names is found by its name alone."""
    monkeypatch.setenv("ODDMENT_DATA", str(tiles.parent))
    assert open_labelled("tiles").name == "tiles"


def test_a_limit_keeps_the_proportion(idx_home: Path) -> None:
    """At most so many training and test images, normal and abnormal as before, both always there."""
    found = open_labelled("mnist", held_out=["5"], limit=20)
    assert len(found.train) == 20
    assert sum(_tested(found).values()) == 20
    assert sum(image.is_anomaly for image in found.test) == 2
    assert sum(image.is_anomaly for image in open_labelled("mnist", held_out=["5"], limit=2).test) == 1
    mixed = open_labelled("mnist", normal=["1"], anomaly=["3"], contaminate=0.2, limit=12)
    assert _tested(mixed) == {("1", False): 10, ("3", True): 2}


# --- real data ---


@pytest.mark.data
def test_the_real_contaminated_ones(real_data: Path) -> None:
    """System 5's set: 6,742 ones and 67 threes."""
    found = open_labelled("mnist", normal=["1"], anomaly=["3"], contaminate=0.01)
    assert _tested(found) == {("1", False): 6742, ("3", True): 67}


@pytest.mark.data
def test_the_real_digits_and_articles(real_data: Path) -> None:
    """Systems 1 and 2: all digits but one to fit on, all test digits and articles to test on."""
    found = open_labelled("mnist+fashion-mnist", held_out=["5"])
    assert len(found.train) == 60_000 - 5_421
    assert len(found.test) == 20_000
    assert sum(image.is_anomaly for image in found.test) == 10_000 + 892


@pytest.mark.data
def test_the_real_tiles(real_data: Path) -> None:
    """The magnetic tiles: 759 and 193 free ones by cluster, 392 defects, each with its mask."""
    found = open_labelled("magnetic-tiles")
    assert len(found.train) == 759
    assert sum(not image.is_anomaly for image in found.test) == 193
    assert sum(image.mask is not None for image in found.test if image.is_anomaly) == 392
