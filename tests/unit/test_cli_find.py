"""`oddment find`: verdicts, tables, boxes, rejected files, maps, exit codes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from oddment.results import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Run = Callable[..., Any]


def read_json(folder: Path) -> list[dict[str, Any]]:
    """The rows of results.jsonl."""
    return [json.loads(line) for line in (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def read_csv(folder: Path) -> list[dict[str, str]]:
    """The rows of results.csv."""
    with (folder / "results.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def overlap(box: list[int], true: tuple[int, int, int, int]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    width = min(box[2], true[2]) - max(box[0], true[0])
    height = min(box[3], true[3]) - max(box[1], true[1])
    shared = max(0, width) * max(0, height)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, true)]
    return shared / (sum(areas) - shared)


def picture(path: Path) -> NDArray[np.uint8]:
    """The pixels of a file."""
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def found(invoke: Run, new_folder: Path, model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one search with everything that can be written."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    out = tmp_path_factory.mktemp("found") / "out"
    invoke("find", new_folder, "-m", model_file, "-o", out, "--parquet", "--maps")
    return out


class TestTables:
    """CSV, JSON lines and Parquet say the same."""

    def test_files(self, found: Path) -> None:
        """A finished search leaves its results and nothing else."""
        names = sorted(path.name for path in found.iterdir())
        assert names == ["maps", "report.html", "results.csv", "results.jsonl", "results.parquet"]

    def test_columns_in_order(self, found: Path) -> None:
        """Every table has the documented columns in the documented order."""
        import pyarrow.parquet as pq

        header = (found / "results.csv").read_text(encoding="utf-8").splitlines()[0]
        assert tuple(header.split(",")) == COLUMNS
        assert all(tuple(row) == COLUMNS for row in read_json(found))
        assert tuple(pq.read_schema(found / "results.parquet").names) == COLUMNS

    def test_the_three_tables_agree(self, found: Path) -> None:
        """Each row has the same values in all three."""
        import pyarrow.parquet as pq

        rows = read_json(found)
        assert len(rows) == 48
        for row, cells, packed in zip(
            rows, read_csv(found), pq.read_table(found / "results.parquet").to_pylist(), strict=True
        ):
            assert packed == row
            assert cells["path"] == row["path"]
            assert float(cells["anomaly_score"]) == row["anomaly_score"]
            assert float(cells["p_value"]) == row["p_value"]
            assert int(cells["rank"]) == row["rank"]
            assert cells["is_anomaly"] == ("true" if row["is_anomaly"] else "false")
            assert cells["size"] == "x".join(map(str, row["size"]))
            assert json.loads(cells["regions"] or "[]") == row["regions"]

    def test_agrees_with_python(self, found: Path, detector: Any, new_folder: Path) -> None:
        """The command line's scores, p-values and verdicts are those of the estimator, to the last bit."""
        rows = read_json(found)
        for row, detection in zip(rows, detector.detect(new_folder), strict=True):
            assert row == json.loads(json.dumps(detection.as_row()))

    def test_ranks_and_verdicts(self, found: Path) -> None:
        """Ranks run from 1 at the highest score; an image is an anomaly strictly above the threshold."""
        rows = sorted(read_json(found), key=lambda row: row["rank"])
        assert [row["rank"] for row in rows] == list(range(1, 49))
        scores = [row["anomaly_score"] for row in rows]
        assert scores == sorted(scores, reverse=True)
        assert all(row["is_anomaly"] == (row["anomaly_score"] > row["threshold"]) for row in rows)
        assert any("article" in row["path"] for row in rows[:3])

    def test_regions_lie_inside_the_image(self, found: Path) -> None:
        """Boxes are not empty, lie inside the image, come with the highest peak first, and anomalies have one."""
        for row in read_json(found):
            peaks = [region["peak"] for region in row["regions"]]
            assert peaks == sorted(peaks, reverse=True)
            assert row["regions"] or not row["is_anomaly"]
            for region in row["regions"]:
                left, top, right, bottom = region["box"]
                assert 0 <= left < right <= row["size"][0]
                assert 0 <= top < bottom <= row["size"][1]

    def test_report_is_one_page_with_the_names(self, found: Path) -> None:
        """The report names the images and refers to nothing outside itself."""
        page = (found / "report.html").read_text(encoding="utf-8")
        assert "article-0000.png" in page
        assert 'src="http' not in page

    def test_maps_mirror_the_names_at_original_size(self, found: Path, new_folder: Path) -> None:
        """Every scored image has a heat map of its own size under its own name."""
        maps = {path.name: picture(path).shape for path in (found / "maps").rglob("*.png")}
        assert maps == {f"{path.name}.png": (28, 28, 3) for path in new_folder.iterdir()}


class TestOutput:
    """What comes on the screen and which exit code."""

    def test_summary(self, invoke: Run, new_folder: Path, model_file: Path, tmp_path: Path) -> None:
        """The summary counts, explains the threshold and names the highest scores and the files."""
        text = invoke("find", new_folder, "-m", model_file, "-o", tmp_path).stdout
        assert "48 scored" in text
        assert "if all images were normal, 0.05 of them" in text
        assert "article-0" in text
        assert "results.csv" in text

    def test_json(self, invoke: Run, new_folder: Path, model_file: Path, tmp_path: Path) -> None:
        """--json prints one document, the rows of results.jsonl and nothing else on standard output."""
        document = json.loads(invoke("find", new_folder, "-m", model_file, "-o", tmp_path, "--json").stdout)
        assert document["results"] == read_json(tmp_path)
        assert document["summary"]["scored"] == 48
        assert document["summary"]["complete"] is True
        assert document["summary"]["anomalies"] == sum(row["is_anomaly"] for row in document["results"])
        assert all(Path(name).exists() for name in document["summary"]["files"])

    def test_pipes_get_no_colours_and_pure_json(
        self, spawn: Run, new_folder: Path, model_file: Path, tmp_path: Path
    ) -> None:
        """In a pipe standard output is pure JSON, progress goes to standard error, and nothing is coloured."""
        done = spawn("find", new_folder, "-m", model_file, "-o", tmp_path / "a", "--json")
        json.loads(done.stdout)
        plain = spawn("find", new_folder, "-m", model_file, "-o", tmp_path / "b")
        assert "Finding" in plain.stderr
        assert "Finding" not in plain.stdout
        assert "\x1b" not in done.stdout + done.stderr + plain.stdout + plain.stderr

    def test_quiet(self, invoke: Run, new_folder: Path, model_file: Path, tmp_path: Path) -> None:
        """--quiet prints nothing and writes all the same."""
        result = invoke("find", new_folder, "-m", model_file, "-o", tmp_path, "--quiet")
        assert result.output == ""
        assert len(read_json(tmp_path)) == 48

    @pytest.mark.parametrize(("threshold", "code"), [("0", 1), ("1000", 0)])
    def test_exit_code(
        self, invoke: Run, new_folder: Path, model_file: Path, tmp_path: Path, threshold: str, code: int
    ) -> None:
        """--exit-code exits with 1 when something was found and 0 when not."""
        options = ("-m", model_file, "-o", tmp_path, "--threshold", threshold)
        invoke("find", new_folder, *options, "--exit-code", code=code)
        invoke("find", new_folder, *options, code=0)
        assert {row["is_anomaly"] for row in read_json(tmp_path)} == {bool(code)}
        assert {row["threshold"] for row in read_json(tmp_path)} == {float(threshold)}

    def test_top_lists_the_highest_and_keeps_ranks(
        self, invoke: Run, new_folder: Path, model_file: Path, tmp_path: Path, found: Path
    ) -> None:
        """--top K lists the K highest scores with the ranks that they have among all."""
        invoke("find", new_folder, "-m", model_file, "-o", tmp_path, "--top", 5)
        assert read_json(tmp_path) == [row for row in read_json(found) if row["rank"] <= 5]

    def test_only_anomalies_lists_them_and_the_rejected(
        self, invoke: Run, new_folder: Path, model_file: Path, tmp_path: Path, found: Path
    ) -> None:
        """--only-anomalies leaves out what is normal, and never a rejected file."""
        bad = tmp_path / "bad.png"
        bad.write_bytes(b"?")
        invoke("find", new_folder, bad, "-m", model_file, "-o", tmp_path / "out", "--only-anomalies", "--parquet")
        rows = read_json(tmp_path / "out")
        assert rows[:-1] == [row for row in read_json(found) if row["is_anomaly"]]
        assert rows[-1]["status"] == "rejected"

    def test_no_report(self, invoke: Run, new_folder: Path, model_file: Path, tmp_path: Path) -> None:
        """--no-report writes the tables alone."""
        invoke("find", new_folder, "-m", model_file, "-o", tmp_path, "--no-report")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "results.jsonl"]


class TestErrors:
    """Usage errors exit with 2, failures with 3, and no traceback is shown unless asked for."""

    @pytest.mark.parametrize(
        ("arguments", "code", "says"),
        [
            (["{new}", "-m", "{model}", "--no-such-option"], 2, "No such option"),
            (["-m", "{model}"], 2, "Missing argument"),
            (["{new}"], 2, "Missing option"),
            (["{new}/nowhere", "-m", "{model}", "-o", "{out}"], 2, "does not exist"),
            (["{new}/*.jpg", "-m", "{model}", "-o", "{out}"], 2, "matches no file"),
            (["{new}", "-m", "{model}", "--top", "0"], 2, "--top"),
            (["{new}", "-m", "{model}", "--top", "many"], 2, "--top"),
            (["{new}", "-m", "{model}", "-o", "{model}"], 2, "is a file"),
            (["{new}", "-m", "{model}", "-o", "{out}", "--threshold", "nan"], 2, "finite"),
            (["{new}", "-m", "{out}/no.oddment", "-o", "{out}"], 3, "no such file"),
            (["{new}", "-m", "{new}/digit-0000.png", "-o", "{out}"], 3, "not a model file"),
            (["{new}", "-m", "{new}", "-o", "{out}"], 3, "it is a folder"),
            (["{new}", "-m", "{model}", "-o", "/proc/nowhere"], 3, "/proc/nowhere"),
            (["{new}", "-m", "{model}", "-o", "{out}", "--resume"], 3, "no interrupted search"),
        ],
    )
    def test_exit_codes(
        self,
        invoke: Run,
        new_folder: Path,
        model_file: Path,
        tmp_path: Path,
        arguments: list[str],
        code: int,
        says: str,
    ) -> None:
        """Every mistake has its exit code and a message that names it; no traceback."""
        words = [word.format(new=new_folder, model=model_file, out=tmp_path / "out") for word in arguments]
        result = invoke("find", *words, code=code)
        assert says in result.stderr
        assert "Traceback" not in result.output
        assert result.stdout == ""

    def test_debug_shows_the_traceback(self, spawn: Run, tmp_path: Path) -> None:
        """--debug adds the traceback, in a real process too; without it there is none."""
        plain = spawn("find", tmp_path, "-m", tmp_path / "no.oddment", code=3, cwd=tmp_path)
        assert "Traceback" not in plain.stderr
        debug = spawn("find", tmp_path, "-m", tmp_path / "no.oddment", "--debug", code=3, cwd=tmp_path)
        assert "Traceback" in debug.stderr
        assert plain.stderr.strip() in debug.stderr

    def test_missing_source_writes_nothing(self, invoke: Run, model_file: Path, tmp_path: Path) -> None:
        """A usage error leaves no output folder behind."""
        invoke("find", tmp_path / "nowhere", "-m", model_file, "-o", tmp_path / "out", code=2)
        assert not (tmp_path / "out").exists()


class TestRejected:
    """Files that cannot be used are rows with a reason."""

    @pytest.fixture
    def dirty(self, new_folder: Path, tmp_path: Path) -> Path:
        """A folder with one good image and one of each kind of bad file."""
        folder = tmp_path / "dirty"
        folder.mkdir()
        good = (new_folder / "digit-0000.png").read_bytes()
        (folder / "good.png").write_bytes(good)
        (folder / "corrupt.png").write_bytes(good[:40] + b"\0" * 40 + good[80:])
        (folder / "empty.png").write_bytes(b"")
        (folder / "notes.txt").write_text("remember the milk", encoding="utf-8")
        (folder / "truncated.png").write_bytes(good[: len(good) // 2])
        Image.new("L", (100, 100)).save(folder / "vast.png")
        return folder

    def test_each_is_a_row_with_its_reason(self, invoke: Run, dirty: Path, model_file: Path, tmp_path: Path) -> None:
        """Corrupt, empty, foreign, truncated and too large files are rejected rows, counted and shown."""
        result = invoke("find", dirty, "-m", model_file, "-o", tmp_path / "out", "--max-pixels", 5000)
        rows = {Path(row["path"]).name: row for row in read_json(tmp_path / "out")}
        assert len(rows) == 6
        reasons = {name: row["reason"] for name, row in rows.items() if row["status"] == "rejected"}
        assert reasons.pop("corrupt.png")
        assert reasons.pop("empty.png") == "empty file (0 bytes)"
        assert "not an image" in reasons.pop("notes.txt")
        assert "truncated" in reasons.pop("truncated.png")
        assert "5,000" in reasons.pop("vast.png")
        assert not reasons
        assert rows["good.png"]["status"] == "scored"
        assert rows["good.png"]["rank"] == 1
        assert "1 scored, " in result.stdout
        assert "5 rejected:" in result.stdout
        assert "notes.txt: not an image" in result.stdout
        empty = next(row for row in read_csv(tmp_path / "out") if row["path"].endswith("empty.png"))
        assert [empty[name] for name in COLUMNS[2:9]] == [""] * 7

    def test_strict(self, invoke: Run, dirty: Path, model_file: Path, tmp_path: Path) -> None:
        """--strict exits with 3 when a file was rejected, and the results are there."""
        invoke("find", dirty, "-m", model_file, "-o", tmp_path / "out", "--strict", code=3)
        assert len(read_json(tmp_path / "out")) == 6
        invoke("find", dirty / "good.png", "-m", model_file, "-o", tmp_path / "out", "--strict", code=0)

    def test_nothing_usable_is_a_failure(self, invoke: Run, model_file: Path, tmp_path: Path) -> None:
        """When not one file could be scored the exit code is 3."""
        (tmp_path / "a.txt").write_text("no", encoding="utf-8")
        invoke("find", tmp_path / "a.txt", "-m", model_file, "-o", tmp_path / "out", code=3)
        assert read_json(tmp_path / "out")[0]["status"] == "rejected"

    def test_empty_folder(self, invoke: Run, model_file: Path, tmp_path: Path) -> None:
        """An empty folder is an error that names it, and nothing is written."""
        (tmp_path / "none").mkdir()
        result = invoke("find", tmp_path / "none", "-m", model_file, "-o", tmp_path / "out", "--parquet", code=3)
        assert f"there are no images in {tmp_path / 'none'}" in result.stderr
        assert not (tmp_path / "out").exists()


class TestNames:
    """File names of every kind are shown, saved and found again."""

    def test_odd_names(self, spawn: Run, new_folder: Path, model_file: Path, tmp_path: Path) -> None:
        """Spaces, brackets, emoji, markup, line breaks and bytes that are no UTF-8 survive in every output."""
        folder = tmp_path / "in put"
        folder.mkdir()
        names = [
            "a b.png",
            "[1].png",
            "[red]x[red].png",
            "\N{SLICE OF PIZZA}.png",
            "line\nbreak.png",
            "-o.png",
            "é.png",
        ]
        good = new_folder / "digit-0000.png"
        for name in names:
            shutil.copy(good, folder / name)
        shutil.copy(good, os.fsencode(folder) + b"/bad-\xff.png")
        out = tmp_path / "o [2]"
        done = spawn("find", folder, "-m", model_file, "-o", out, "--parquet", "--maps", env={"COLUMNS": "200"})
        rows = read_json(out)
        assert sorted(Path(row["path"]).name for row in rows) == sorted([*names, "bad-\\udcff.png"])
        assert [row["path"] for row in rows] == [row["path"] for row in read_csv(out)]
        assert "[red]x[red].png" in done.stdout
        assert "[1].png" in done.stdout
        assert str(out) in done.stdout
        assert len(list((out / "maps").rglob("*.png"))) == 8

    def test_a_path_that_looks_like_a_glob_is_a_path(
        self, invoke: Run, new_folder: Path, model_file: Path, tmp_path: Path
    ) -> None:
        """`[1].png` names the file of that name; a quoted glob finds many."""
        shutil.copy(new_folder / "digit-0000.png", tmp_path / "[1].png")
        invoke("find", tmp_path / "[1].png", "-m", model_file, "-o", tmp_path / "out")
        assert len(read_json(tmp_path / "out")) == 1
        invoke("find", f"{new_folder}/article-*.png", "-m", model_file, "-o", tmp_path / "out")
        assert len(read_json(tmp_path / "out")) == 8

    def test_maps_never_leave_their_folder(
        self, invoke: Run, new_folder: Path, model_file: Path, tmp_path: Path
    ) -> None:
        """Members of an archive with hostile names get their maps inside OUT/maps."""
        good = (new_folder / "digit-0000.png").read_bytes()
        hostile = [
            "../../x.png",
            "/etc/x.png",
            "..\\..\\w.png",
            "C:/windows/y.png",
            "a/../../../z.png",
            "...",
            "a" * 254,
        ]
        with zipfile.ZipFile(tmp_path / "hostile.zip", "w") as archive:
            for name in hostile:
                archive.writestr(name, good)
        inside = tmp_path / "deep" / "er"
        before = set(tmp_path.rglob("*"))
        invoke("find", tmp_path / "hostile.zip", "-m", model_file, "-o", inside / "out", "--maps")
        rows = read_json(inside / "out")
        made = {path for path in tmp_path.rglob("*.png") if path not in before}
        assert len(made) == sum(row["status"] == "scored" for row in rows) >= 5
        assert all((inside / "out" / "maps").resolve() in path.resolve().parents for path in made)

    def test_maps_of_like_names_do_not_replace_each_other(
        self, invoke: Run, new_folder: Path, model_file: Path, tmp_path: Path
    ) -> None:
        """Names that differ only in what a safe name leaves out keep a map each; a file given twice has two rows."""
        good = new_folder / "digit-0000.png"
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for name in ("x.png", "../x.png", "./x.png", "/x.png"):
                archive.writestr(name, good.read_bytes())
        invoke("find", tmp_path / "a.zip", good, good, "-m", model_file, "-o", tmp_path / "out", "--maps")
        assert len(read_json(tmp_path / "out")) == 6
        assert len(list((tmp_path / "out" / "maps").rglob("*.png"))) == 5

    def test_a_folder_called_maps_is_the_users_own(
        self, invoke: Run, new_folder: Path, model_file: Path, tmp_path: Path
    ) -> None:
        """A folder `maps` of images beside the output is searched, and never deleted to make room."""
        (tmp_path / "maps").mkdir()
        shutil.copy(new_folder / "digit-0000.png", tmp_path / "maps" / "street.png")
        invoke("find", tmp_path, "-m", model_file, "-o", tmp_path)
        assert [Path(row["path"]).name for row in read_json(tmp_path)] == ["street.png"]
        refused = invoke("find", tmp_path, "-m", model_file, "-o", tmp_path, "--maps", code=3)
        assert "was not written by a search" in refused.stderr
        assert (tmp_path / "maps" / "street.png").exists()

    def test_output_inside_the_searched_folder_is_not_searched(
        self, invoke: Run, new_folder: Path, model_file: Path, tmp_path: Path
    ) -> None:
        """Results, report, maps and the model lie among the images, and a second search finds the images alone."""
        for path in list(new_folder.iterdir())[:5]:
            shutil.copy(path, tmp_path)
        shutil.copy(model_file, tmp_path / "m.oddment")
        rows = []
        for _ in range(2):
            invoke("find", tmp_path, "-m", tmp_path / "m.oddment", "-o", tmp_path, "--maps", "--parquet")
            rows.append(read_json(tmp_path))
        assert rows[0] == rows[1]
        assert len(rows[0]) == 5
        assert len(list((tmp_path / "maps").rglob("*.png"))) == 5


class TestBoxes:
    """Where: boxes are in the pixels of the upright original image, whatever its size or rotation."""

    @pytest.fixture(scope="class")
    @staticmethod
    def plain(tmp_path_factory: pytest.TempPathFactory, invoke: Run) -> Path:
        """A model fitted to plain gray photographs."""
        folder = tmp_path_factory.mktemp("plain")
        rng = np.random.default_rng(0)
        for index in range(40):
            pixels = np.clip(rng.normal(100, 3, (240, 320)) + rng.uniform(-10, 10), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{index:02d}.png")
        model = folder / "plain.oddment"
        invoke(
            "fit",
            f"{folder}/*.png",
            "-o",
            model,
            "--model",
            "conv-small",
            "--size",
            "64x48",
            "--epochs",
            12,
            "--target-fpr",
            "0.2",
            "--no-duplicates",
        )
        return model

    def draw(self, width: int, height: int, box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
        """A plain image with one bright square."""
        pixels = np.clip(np.random.default_rng(1).normal(100, 3, (height, width)), 0, 255)
        pixels[box[1] : box[3], box[0] : box[2]] = 250
        return pixels.astype(np.uint8)

    @pytest.mark.parametrize(
        ("size", "box"),
        [
            ((640, 480), (400, 100, 480, 180)),
            ((1280, 960), (100, 600, 260, 760)),
            ((640, 300), (40, 200, 120, 280)),
            ((301, 463), (180, 31, 280, 137)),
        ],
    )
    def test_a_planted_square_is_boxed(
        self, invoke: Run, plain: Path, tmp_path: Path, size: tuple[int, int], box: tuple[int, int, int, int]
    ) -> None:
        """The first box covers a planted square, in images of the training size and of others."""
        Image.fromarray(self.draw(*size, box)).save(tmp_path / "odd.png")
        invoke("find", tmp_path / "odd.png", "-m", plain, "-o", tmp_path / "out", "--maps")
        row = read_json(tmp_path / "out")[0]
        assert row["is_anomaly"]
        assert row["size"] == list(size)
        assert overlap(row["regions"][0]["box"], box) > 0.5
        assert picture(next((tmp_path / "out" / "maps").rglob("*.png"))).shape[1::-1] == size

    @pytest.mark.parametrize("orientation", [3, 6, 8])
    def test_boxes_of_a_rotated_photograph_are_upright(
        self, invoke: Run, plain: Path, tmp_path: Path, orientation: int
    ) -> None:
        """A JPEG that EXIF says to turn is boxed in the coordinates of the turned picture."""
        box = (400, 100, 520, 220)
        upright = Image.fromarray(self.draw(640, 480, box))
        turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
        stored = upright.transpose(turn[orientation])
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored.save(tmp_path / "odd.jpg", quality=95, exif=exif)
        invoke("find", tmp_path / "odd.jpg", "-m", plain, "-o", tmp_path / "out", "--maps")
        row = read_json(tmp_path / "out")[0]
        assert row["size"] == [640, 480]
        assert overlap(row["regions"][0]["box"], box) > 0.5
        assert picture(next((tmp_path / "out" / "maps").rglob("*.png"))).shape[:2] == (480, 640)


def test_the_order_of_files_and_batches_does_not_change_a_score(
    invoke: Run, new_folder: Path, model_file: Path, found: Path, tmp_path: Path
) -> None:
    """One image alone, and all in another order, score as among the others."""
    expected = {row["path"]: row["anomaly_score"] for row in read_json(found)}
    files = sorted(new_folder.iterdir(), reverse=True)
    invoke("find", *files, "-m", model_file, "-o", tmp_path / "a", "--no-report")
    assert {row["path"]: row["anomaly_score"] for row in read_json(tmp_path / "a")} == expected
    invoke("find", files[7], "-m", model_file, "-o", tmp_path / "b", "--no-report")
    assert read_json(tmp_path / "b")[0]["anomaly_score"] == expected[str(files[7])]
