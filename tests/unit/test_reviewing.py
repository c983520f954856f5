"""Reviews as files, and which images they leave out of training."""

from __future__ import annotations

import csv
import json
import os
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oddment.errors import ParameterError
from oddment.images.matching import match_paths
from oddment.results import COLUMNS, Detection, Rejection
from oddment.reviewing import Review, Reviewed, leave_out, read_review, write_paths, write_review
from oddment.tables import csv_row

HEADER = "path,score,is_anomaly,verdict"


def written(folder: Path, content: str | bytes, name: str = "review.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def files(folder: Path, *names: str) -> list[str]:
    """Small files of different content, and their names as a fit from inside `folder` would have them."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(str(path).encode())
    return list(names)


class TestReading:
    """Every file that a report, a search, a spreadsheet or a person writes."""

    def test_marks_decide_and_selection_where_there_are_none(self, tmp_path: Path) -> None:
        """Left out is what is marked anomaly, and what was selected and not marked keep."""
        rows = [
            "marked.png,0.1,false,anomaly",
            "kept.png,9,true,keep",
            "selected.png,8,true,",
            "doubt.png,7,true,unsure",
            "maybe.png,1,false,unsure",
            "plain.png,1,false,",
        ]
        review = read_review(written(tmp_path, "\r\n".join([HEADER, *rows]) + "\r\n"))
        assert review.kind == "review"
        assert review.excluded() == ("marked.png", "selected.png", "doubt.png")
        assert review.kept() == ("kept.png", "maybe.png", "plain.png")
        assert set(review.excluded(unsure=True)) == {*review.excluded(), "maybe.png"}
        assert review.reasons(review.excluded()) == {"anomaly": 1, "selected": 2}
        assert review.rows[1] == Reviewed("kept.png", "keep", True, 9.0)

    @pytest.mark.parametrize(
        "content",
        [
            "\ufeffpath,verdict\r\na.png,anomaly\r\nb.png,\r\n",
            "path;verdict\na.png;anomaly\nb.png;\n",
            "path\tverdict\na.png\tanomaly\nb.png\n",
            "Path , Verdict\n\na.png, Anomaly \n\nb.png,   \n",
            "verdict,path\nANOMALY,a.png\n,b.png",
            "path,verdict\ra.png,anomaly\rb.png,\r",
            "\ufeffpath,verdict\na.png,anomaly\nb.png,\n".encode("utf-16-le"),
        ],
        ids=["bom-crlf", "semicolon", "tab", "spaces", "order", "cr", "utf-16"],
    )
    def test_what_spreadsheets_save(self, tmp_path: Path, content: str | bytes) -> None:
        """Byte-order marks, line ends, separators, spaces, letter case and the order of columns do not matter."""
        review = read_review(written(tmp_path, content))
        assert review.excluded() == ("a.png",)
        assert review.kept() == ("b.png",)

    def test_results_of_a_search(self, tmp_path: Path) -> None:
        """results.csv and results.jsonl leave out what has is_anomaly true; rejected files have no part in it."""
        shared: dict[str, Any] = {"threshold": 1.0, "p_value": 0.5, "size": (8, 8)}
        found = [
            Detection(path='odd, "so".png', anomaly_score=2.0, is_anomaly=True, **shared).as_row(),
            Detection(path="even.png", anomaly_score=0.5, is_anomaly=False, **shared).as_row(),
            Rejection(path="torn.png", reason="truncated").as_row(),
        ]
        table = tmp_path / "results.csv"
        with table.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *map(csv_row, found)])
        lines = written(tmp_path, "\n".join(map(json.dumps, found)), "results.jsonl")
        for path in (table, lines):
            review = read_review(path)
            assert (review.kind, review.excluded()) == ("results", ('odd, "so".png',))
            assert review.rows[0].score == 2.0

    def test_a_list_of_paths(self, tmp_path: Path) -> None:
        """Without a header a file is a list of paths, all of them left out; spaces in names stay."""
        review = read_review(written(tmp_path, "\ufeffa b.png\r\n\r\nc,d.png\r\na b.png\r\n", "bad.txt"))
        assert (review.kind, review.excluded(), review.kept()) == ("list", ("a b.png", "c,d.png"), ())
        assert read_review(written(tmp_path, "path\na.png\n")).kind == "list"
        assert read_review(written(tmp_path, "", "none.txt")).rows == ()

    def test_a_path_twice(self, tmp_path: Path) -> None:
        """One path has one row: a mark stands above no mark, whichever comes first."""
        for rows in (["a.png,1,false,", "a.png,1,true,keep"], ["a.png,1,true,keep", "a.png,1,false,"]):
            review = read_review(written(tmp_path, "\n".join([HEADER, *rows])))
            assert review.rows == (Reviewed("a.png", "keep", True, 1.0),)

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (f"{HEADER}\na.png,1,true,keep\nb.png,,,\na.png,1,true,anomaly\n", ["line 4", "line 2 says keep", "a.png"]),
            (f"{HEADER}\na.png,1,true,bad\n", ["line 2", "keep, anomaly, unsure or empty", "'bad'"]),
            (f"{HEADER}\na.png,1,WAHR,\n", ["line 2", "true or false", "'WAHR'"]),
            (f"{HEADER}\na.png,high,true,\n", ["line 2", "a number", "'high'"]),
            (f'{HEADER}\n"a\nb.png",1,true,\n,1,true,keep\n', ["line 4", "column path", "empty"]),
            (f'{HEADER}\n"a.png,1,true,\n', ["line", "not CSV"]),
            ("name,verdict\na.png,keep\n", ["line 1", "a column path", "'name,verdict'"]),
            ("path,label\na.png,3\n", ["line 1", "neither a column verdict nor is_anomaly", "label"]),
            (f"{HEADER}\nM\xfcll.png,1,true,\n".encode("latin-1"), ["line 2", "UTF-8", "0xfc"]),
            (b"\x89PNG\r\n\x1a\n\0\0", ["line 1", "UTF-8"]),
            (b"path,verdict\n\0\0\n", ["line 2", "zero byte"]),
            ('{"path": "a.png"\n', ["line 1", "not a row of results"]),
        ],
        ids=[
            "contradiction",
            "verdict",
            "flag",
            "score",
            "empty",
            "quote",
            "header",
            "columns",
            "latin",
            "png",
            "nul",
            "json",
        ],
    )
    def test_mistakes_are_named(self, tmp_path: Path, content: str | bytes, says: list[str]) -> None:
        """A mistake is refused with the file, the line, the rule, the value."""
        path = written(tmp_path, content)
        with pytest.raises(ParameterError) as caught:
            read_review(path)
        for part in (str(path), *says):
            assert part in str(caught.value)

    @given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda rest: b"path,verdict,is_anomaly\n" + rest))
    def test_any_bytes(self, tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
        """Whatever a file holds, it is a review or refused in words that begin with its name."""
        path = written(tmp_path_factory.mktemp("any"), content)
        try:
            review = read_review(path)
        except ParameterError as error:
            assert str(error).startswith(str(path))
        else:
            assert {*review.excluded(), *review.kept()} <= {row.path for row in review.rows}

    def test_no_such_file(self, tmp_path: Path) -> None:
        """A file that is not there, or a folder, is refused by name."""
        for path in (tmp_path / "none.csv", tmp_path):
            with pytest.raises(ParameterError, match="Name a review") as caught:
                read_review(path)
            assert str(path) in str(caught.value)


class TestWriting:
    """What is written is read again."""

    @given(
        st.dictionaries(
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(str.strip),
            st.tuples(st.sampled_from(["", "keep", "anomaly", "unsure"]), st.booleans(), st.floats(allow_nan=False)),
            min_size=1,
            max_size=8,
        )
    )
    def test_rows_survive(
        self, tmp_path_factory: pytest.TempPathFactory, rows: dict[str, tuple[Any, bool, float]]
    ) -> None:
        """Whatever a path holds, its row comes back as it was."""
        path = tmp_path_factory.mktemp("review") / "review.csv"
        reviewed = tuple(Reviewed(name, *values) for name, values in rows.items())
        write_review(path, reviewed)
        assert read_review(path) == Review(path, "review", reviewed)

    @pytest.mark.parametrize("name", ["=1+1.png", "+a", "-a.png", "@SUM(A1)", "\t=a", " =a", "＝a"])
    def test_no_cell_is_a_formula(self, tmp_path: Path, name: str) -> None:
        """A name that a spreadsheet would compute gets "./" in front, and is the same path."""
        path = tmp_path / "review.csv"
        write_review(path, [Reviewed(name, "keep", sha256="ab")])
        with path.open(newline="", encoding="utf-8") as file:
            header, row = csv.reader(file)
        assert header == ["path", "sha256", "score", "is_anomaly", "verdict"]
        assert row == [f"./{name}", "ab", "", "false", "keep"]
        assert read_review(path).rows == (Reviewed(name, "keep", sha256="ab"),)

    def test_lists(self, tmp_path: Path) -> None:
        """A list has a path a line; one that holds a line break is refused, and nothing is written."""
        write_paths(tmp_path / "clean.txt", ["a b.png", "c.png"])
        assert (tmp_path / "clean.txt").read_bytes() == b"a b.png\nc.png\n"
        with pytest.raises(ParameterError, match="line break"):
            write_paths(tmp_path / "other.txt", ["a\nb.png"])
        assert [path.name for path in tmp_path.iterdir()] == ["clean.txt"]


class TestMatching:
    """Which images a list means, wherever it was written."""

    @pytest.fixture
    def project(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder with images in two subfolders, searched from here into out/."""
        files(tmp_path, "photos/a.png", "photos/b.png", "more/a.png", "out/results.csv", "down/review.csv")
        monkeypatch.chdir(tmp_path)
        return tmp_path

    @pytest.mark.usefixtures("project")
    def test_as_it_was_written(self) -> None:
        """The same folder and the same words."""
        matched = match_paths(["photos/a.png"], ["photos/a.png", "photos/b.png", "more/a.png"])
        assert (matched.images, matched.missing, matched.guessed) == ({"photos/a.png"}, (), ())

    @pytest.mark.parametrize(
        "form", ["{0}/photos/a.png", "photos/../photos/./a.png", "./photos/a.png", "photos\\a.png"]
    )
    @pytest.mark.parametrize("name", ["photos/a.png", "{0}/photos/a.png", "more/../photos/a.png"])
    def test_relative_and_absolute(self, project: Path, form: str, name: str) -> None:
        """Relative or absolute, with dots or backslashes: the place counts, not the words."""
        image = name.format(project)
        assert match_paths([form.format(project)], [image, "more/a.png"]).images == {image}

    def test_from_another_folder(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Run elsewhere, relative paths start where the list's own folder, or one above it, says."""
        monkeypatch.chdir(project / "photos")
        matched = match_paths(["photos/a.png"], ["a.png", "b.png", "../more/a.png"], near=project / "out/results.csv")
        assert (matched.images, matched.guessed) == ({"a.png"}, ())

    def test_from_another_folder_with_the_list_elsewhere(
        self, project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With a list from a download folder the ends of the paths tell, and it is said."""
        monkeypatch.chdir(project / "photos")
        far = tmp_path_factory.mktemp("downloads") / "review.csv"
        matched = match_paths(["photos/a.png"], ["a.png", "b.png", "../more/a.png"], near=far)
        assert (matched.images, matched.guessed) == ({"a.png"}, (("photos/a.png", "a.png"),))

    def test_another_file_of_the_same_name(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file that is there and is not among the images is missing, not a namesake."""
        files(project, "test/good/1.png", "test/out/results.csv", "train/good/1.png", "train/good/2.png")
        monkeypatch.chdir(project / "train")
        with pytest.raises(ParameterError, match="none of its 1 paths"):
            match_paths(["good/1.png"], ["good/1.png", "good/2.png"], near=project / "test/out/results.csv")

    def test_a_copy_of_the_folder(self, project: Path) -> None:
        """A copy elsewhere is recognised while both are there, by content."""
        copy = project / "server/photos/a.png"
        copy.parent.mkdir(parents=True)
        copy.write_bytes((project / "photos/a.png").read_bytes())
        files(project, "server/photos/b.png")
        images = ["server/photos/a.png", "server/photos/b.png"]
        matched = match_paths(["photos/a.png", "photos/b.png"], images, near=project / "out/results.csv")
        assert (matched.images, matched.missing) == ({"server/photos/a.png"}, ("photos/b.png",))

    @pytest.mark.parametrize("old", ["{0}/photos", "/nowhere/photos", "photos", "C:\\big\\photos", "d:/photos"])
    def test_a_moved_folder(self, project: Path, old: str) -> None:
        """A folder that was moved keeps its name, whether its paths were relative or absolute, there or elsewhere."""
        (project / "new").mkdir()
        (project / "photos").rename(project / "new/photos")
        old = old.format(project)
        among = [f"{old}{chr(92) if chr(92) in old else '/'}{name}.png" for name in "ab"]
        matched = match_paths([among[0]], ["new/photos/a.png", "new/photos/b.png", "more/a.png"], among=among)
        assert matched.images == {"new/photos/a.png"}
        assert matched.guessed == ((among[0], "new/photos/a.png"),)

    def test_links(self, project: Path) -> None:
        """A folder reached by a link is the folder."""
        (project / "link").symlink_to(project / "photos")
        assert match_paths(["link/a.png"], ["photos/a.png"]).images == {"photos/a.png"}

    def test_archives_and_arrays(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Members of archives and elements of arrays have places too."""
        files(project, "in/x.zip", "in/y.npy", "in/z.npz", "out/results.csv")
        images = ["x.zip!/b/a.png", "x.zip!/a.png", "y.npy[1]", "y.npy[11]", "z.npz!/k[0]"]
        monkeypatch.chdir(project / "in")
        paths = ["in/x.zip!/a.png", "in/y.npy[1]", "in/z.npz!/k[0]"]
        matched = match_paths(paths, images, near=project / "out/results.csv")
        assert matched.images == {"x.zip!/a.png", "y.npy[1]", "z.npz!/k[0]"}
        assert not matched.guessed

    @pytest.mark.usefixtures("project")
    def test_ambiguous(self) -> None:
        """A path that may mean several images is refused with their names."""
        with pytest.raises(ParameterError, match=r"a\.png may mean photos/a\.png or more/a\.png"):
            match_paths(["a.png"], ["photos/a.png", "more/a.png"])

    def test_missing_and_repeated(self, project: Path) -> None:
        """What names no image is listed; an image that was named in two ways is meant in both."""
        images = ["photos/a.png", f"{project}/photos/a.png", "photos/b.png"]
        matched = match_paths(["photos/a.png", "gone.png"], images)
        assert matched.images == {"photos/a.png", f"{project}/photos/a.png"}
        assert matched.missing == ("gone.png",)

    def test_letters_composed_elsewhere(self, project: Path) -> None:
        """A name that another system has taken apart is the same name."""
        files(project, "photos/M\u00fcll.png")
        assert match_paths(["photos/Mu\u0308ll.png"], ["photos/M\u00fcll.png"]).images == {"photos/M\u00fcll.png"}

    def test_spaces_around_a_path(self, project: Path) -> None:
        """Spaces that a person has put around a path do no harm; spaces of the name count."""
        files(project, "photos/ a.png")
        images = ["photos/a.png", "photos/ a.png"]
        assert match_paths(["  photos/a.png "], images).images == {"photos/a.png"}
        assert match_paths(["photos/ a.png"], images).images == {"photos/ a.png"}

    def test_nothing_is_meant(self) -> None:
        """No path, no image, no error."""
        assert match_paths([], ["a.png"]).images == frozenset()

    @given(st.lists(st.text(string.ascii_lowercase + "./ [=é", min_size=1, max_size=12), min_size=1, unique=True))
    def test_every_image_is_itself(self, names: list[str]) -> None:
        """Asked for the very names of the images, exactly those at the same place come back."""
        names = [f"/x/{name}" for name in names]
        places = {name: os.path.normpath(name) for name in names}
        matched = match_paths(names[:1], names)
        assert matched.images == {name for name in names if places[name] == places[names[0]]}


class TestLeavingOut:
    """Several reviews, what is told of them and what weakens the result."""

    def test_told_and_kept_for_the_card(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What any review leaves out is left out; each says by which rule, what was not found, and what to doubt."""
        monkeypatch.chdir(tmp_path)
        images = files(tmp_path, *(f"n/{index}.png" for index in range(6)))
        first = written(tmp_path, f"{HEADER}\nn/0.png,2,true,anomaly\nn/1.png,2,true,\nn/9.png,2,true,anomaly\n")
        second = written(tmp_path, "n/0.png\nn/2.png\n", "bad.txt")
        done = leave_out([first, second], [*images, "n/5.png"])
        assert done.images == {"n/0.png", "n/1.png", "n/2.png"}
        assert done.left == 4
        assert done.as_dict() == {
            "images": 3,
            "files": [
                {
                    "name": "review.csv",
                    "kind": "review",
                    "images": 2,
                    "reasons": {"anomaly": 1, "selected": 1},
                    "missing": 1,
                },
                {"name": "bad.txt", "kind": "list", "images": 2, "reasons": {"listed": 2}, "missing": 0},
            ],
        }
        told = "\n".join(done.notes)
        assert "2 images (1 marked anomaly, 1 selected by the search and not marked keep)" in told
        assert "leaves out 1 of its 3 paths, such as n/9.png, which name no image" in told
        assert "2 images (2 listed by path)" in told
        assert len(done.caveats) == 1
        assert "1 images were left out because their score selected them" in done.caveats[0]

    def test_doubts_about_a_list_of_the_clean(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A plain list that leaves out most images may be the wrong file; one that leaves out all is refused."""
        monkeypatch.chdir(tmp_path)
        images = files(tmp_path, "a.png", "b.png", "c.png")
        done = leave_out([written(tmp_path, "a.png\nb.png\n", "clean.txt")], images)
        assert "give review.csv instead" in done.caveats[0]
        with pytest.raises(ParameterError, match="leaves out all 3 images"):
            leave_out([written(tmp_path, "a.png\nb.png\nc.png\n", "clean.txt")], images)

    def test_nothing_left_out(self, tmp_path: Path) -> None:
        """A review that leaves nothing out is told of and is no error."""
        done = leave_out([written(tmp_path, f"{HEADER}\na.png,1,true,keep\n")], ["a.png"])
        assert (done.images, done.left, done.caveats) == (frozenset(), 1, ())
        assert "0 images (no path is meant)" in done.notes[0]
