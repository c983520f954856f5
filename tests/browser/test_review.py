"""Triage in the report: marks by key and by button, where they are kept, and the files that carry them on."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oddment.report import ReportData, write_report
from oddment.reviewing import Reviewed, read_review, write_review

expect = pytest.importorskip("playwright.sync_api", reason="browser tests need playwright").expect
expect.set_options(timeout=15_000)

REFUSED = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError'); }});"
FULL = "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); };"


@pytest.fixture(scope="session")
def suspects(
    tmp_path_factory: pytest.TempPathFactory, make_report: Callable[..., ReportData]
) -> tuple[Path, ReportData]:
    """A report of 40 images, 6 of them selected, and 3 rejected files; not to be written to."""
    path = tmp_path_factory.mktemp("review") / "report.html"
    data = make_report(40, n_odd=6, side=32)
    write_report(path, data)
    return path, data


@pytest.fixture
def page(suspects: Any, open_report: Any) -> Any:
    """That report, opened, with the focus on its first image."""
    opened = open_report(suspects[0])
    focus_first(opened)
    return opened


def focus_first(page: Any) -> None:
    page.locator("#items .card").first.focus()


def press(page: Any, keys: str) -> None:
    for key in keys:
        page.keyboard.press({"<": "Backspace"}.get(key, key))


def counts(page: Any) -> list[int]:
    """Unmarked, keep, anomaly, unsure, as the page counts them."""
    return [
        int(page.inner_text(f"[data-marked={mark}] span").replace(",", ""))
        for mark in ("unmarked", "keep", "anomaly", "unsure")
    ]


def position(page: Any) -> int:
    return int(page.evaluate("document.activeElement.dataset.position"))


def marks_shown(page: Any) -> list[str]:
    """The mark of each image in view, as its buttons say."""
    marks: list[str] = page.eval_on_selector_all(
        "#items li",
        "nodes => nodes.map((node) => node.querySelector('[data-set][aria-pressed=true]')?.dataset.set || '')",
    )
    return marks


def paths_of(data: ReportData) -> list[str]:
    return [row["path"] for row in data.rows if row["status"] == "scored"]


def downloaded(page: Any, button: str) -> bytes:
    if not page.locator("#export").is_visible():
        page.click("#export-open")
    with page.expect_download() as waiting:
        page.click(button)
    assert waiting.value.suggested_filename in {"review.csv", "clean.txt"}
    return Path(waiting.value.path()).read_bytes()


def load(page: Any, path: Path) -> str:
    """Load a review as the reader does, and return what the page says of it."""
    if not page.locator("#export").is_visible():
        page.click("#export-open")
    page.evaluate("document.querySelector('#export-said').textContent = ''")
    with page.expect_file_chooser() as chooser:
        page.click("#import-open")
    chooser.value.set_files(path)
    # Not `wait_for_function`, which evaluates text: the page forbids it.
    expect(page.locator("#export-said")).not_to_have_text("")
    return str(page.inner_text("#export-said"))


def test_keys_mark_and_move_on(page: Any) -> None:
    """K, A and U mark the focused image and go to the next unmarked one; the arrow keys go as before."""
    press(page, "kAu")
    assert (counts(page), position(page)) == ([37, 1, 1, 1], 3)
    assert marks_shown(page)[:4] == ["keep", "anomaly", "unsure", ""]
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    press(page, "k")
    assert (counts(page), position(page)) == ([37, 2, 0, 1], 3)
    assert page.locator("#items li").nth(1).locator(".card").get_attribute("aria-label").endswith("you marked it keep")
    assert "4 of 40" not in page.inner_text("#marks-live")
    assert "keep. 3 of 40 marked." in page.inner_text("#marks-live")


def test_the_same_key_again_and_backspace_undo(page: Any) -> None:
    """The same key takes the mark away and stays; Backspace takes the last step back and goes there."""
    press(page, "kk<")
    assert (counts(page), position(page)) == ([39, 1, 0, 0], 1)
    page.keyboard.press("End")
    page.keyboard.press("Home")
    press(page, "k")
    assert (counts(page), position(page)) == ([40, 0, 0, 0], 0)
    press(page, "ka<<<")
    assert (counts(page), position(page)) == ([39, 1, 0, 0], 0)
    press(page, "<<<<")
    assert counts(page) == [40, 0, 0, 0]
    assert page.locator("#review-undo").is_disabled()


def test_other_keys_and_text_fields_mark_nothing(page: Any) -> None:
    """Neither combinations, nor held keys, nor letters typed into the search mark anything."""
    page.keyboard.press("Control+a")
    page.evaluate(
        "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: 'k', repeat: true, bubbles: true}))"
    )
    page.focus("#search")
    page.keyboard.type("kau")
    assert counts(page) == [40, 0, 0, 0]


def test_another_keyboard_layout(page: Any) -> None:
    """Where the layout has other letters on the keys, the place of the key counts."""
    event = "new KeyboardEvent('keydown', {key: '\u0444', code: 'KeyA', bubbles: true})"
    page.evaluate(f"document.activeElement.dispatchEvent({event})")
    assert counts(page) == [39, 0, 1, 0]


def test_rejected_files_carry_no_mark(page: Any) -> None:
    """A rejected file has no buttons, and a key on it does nothing but say so."""
    page.click("[data-filter=rejected]")
    focus_first(page)
    press(page, "k")
    assert counts(page) == [40, 0, 0, 0]
    assert page.locator("#items [data-set]").count() == 0
    assert "Rejected files carry no mark" in page.inner_text("#marks-live")


def test_buttons_with_a_mouse(page: Any) -> None:
    """A click on a card's button marks that image and opens nothing; another click takes the mark away."""
    keep = page.locator("#items li").nth(2).locator("[data-set=keep]")
    keep.click()
    assert (counts(page), keep.get_attribute("aria-pressed")) == ([39, 1, 0, 0], "true")
    keep.click()
    assert (counts(page), keep.get_attribute("aria-pressed")) == ([40, 0, 0, 0], "false")
    assert page.locator("#viewer").is_hidden()
    assert "K" in keep.inner_text()


def test_marks_in_the_larger_view(page: Any) -> None:
    """The larger view marks by key and button, moves on, undoes, and the gallery shows it afterwards."""
    page.click("#review-start")
    press(page, "k")
    assert page.inner_text("#viewer-place") == "2 of 43"
    page.click("#viewer-marks [data-set=anomaly]")
    assert page.inner_text("#viewer-place") == "3 of 43"
    assert "anomaly. 2 of 40 marked." in page.inner_text("#viewer-said")
    page.keyboard.press("ArrowLeft")
    assert page.get_attribute("#viewer-marks [data-set=anomaly]", "aria-pressed") == "true"
    page.click("#viewer-undo")
    assert page.inner_text("#viewer-place") == "2 of 43"
    press(page, "u")
    page.keyboard.press("Escape")
    assert marks_shown(page)[:3] == ["keep", "unsure", ""]
    assert position(page) == 2


def test_filters_and_review_to_the_end(page: Any, suspects: Any) -> None:
    """With "unmarked" shown a marked image goes; when none is left the larger view closes and the page says so."""
    page.click("[data-filter=anomalies]")
    page.click("[data-marked=unmarked]")
    page.click("#review-start")
    for place in ("1 of 6", "1 of 5", "1 of 4", "1 of 3", "1 of 2", "1 of 1"):
        assert page.inner_text("#viewer-place") == place
        press(page, "a")
    assert page.locator("#viewer").is_hidden()
    assert "Every image here is marked" in page.inner_text("#empty")
    page.click("[data-filter=all]")
    page.click("[data-marked=anomaly]")
    assert page.inner_text("#shown") == "Showing 6 of 43 files"
    names = page.eval_on_selector_all("#items .card", "nodes => nodes.map((node) => node.title)")
    assert names == paths_of(suspects[1])[: len(names)]
    page.click("#review-start")
    assert page.inner_text("#viewer-place") == "1 of 34"


def test_marks_survive_a_reload(page: Any, suspects: Any, open_report: Any) -> None:
    """Marks are kept for this report, in this browser; another report, and another browser, know nothing of them."""
    press(page, "kau")
    page.reload()
    assert counts(page) == [37, 1, 1, 1]
    assert marks_shown(page)[:4] == ["keep", "anomaly", "unsure", ""]
    assert "Saved in this browser only" in page.inner_text("#kept")
    assert counts(open_report(suspects[0])) == [40, 0, 0, 0]


def test_two_windows_of_one_report(page: Any) -> None:
    """What is marked in one window shows in the other."""
    other = page.context.new_page()
    other.goto(page.url)
    # Keys go to the window in front.
    page.bring_to_front()
    focus_first(page)
    press(page, "ka")
    assert counts(page) == [38, 1, 1, 0]
    for mark, number in (("keep", "1"), ("anomaly", "1"), ("unmarked", "38")):
        expect(other.locator(f"[data-marked={mark}] span")).to_have_text(number)
    assert marks_shown(other)[0] == "keep"


def test_reports_do_not_share_marks(tmp_path: Path, make_report: Any, open_report: Any) -> None:
    """Reports of other scores keep apart even where the browser gives all files one storage; a copy shares them."""
    first = make_report(10, n_odd=2, side=32)
    rows = [{**row, "anomaly_score": 2 * row["anomaly_score"]} for row in first.rows if row["status"] == "scored"]
    write_report(tmp_path / "a.html", first)
    write_report(tmp_path / "copy.html", dataclasses.replace(first, version="9.9", notes=["made again"]))
    write_report(tmp_path / "b.html", dataclasses.replace(first, rows=rows))
    page = open_report(tmp_path / "a.html")
    focus_first(page)
    press(page, "k")
    keys = page.evaluate("Object.keys(localStorage)")
    found = [
        re.search(r'"key":"([^"]+)"', (tmp_path / name).read_text(encoding="utf-8"))
        for name in ("a.html", "copy.html", "b.html")
    ]
    a, copy, b = (match[1] for match in found if match)
    assert keys == [a]
    assert (a == copy, a == b) == (True, False)
    press(page, "<")
    assert page.evaluate("Object.keys(localStorage)") == []


@pytest.mark.parametrize("script", [REFUSED, FULL], ids=["refused", "full"])
def test_a_browser_that_keeps_nothing(suspects: Any, open_report: Any, script: str) -> None:
    """Where the browser refuses to keep marks, all works, and the page asks before it is left without an export."""
    page = open_report(suspects[0], script=script)
    focus_first(page)
    press(page, "ka")
    assert counts(page) == [38, 1, 1, 0]
    assert "Not saved by this browser" in page.inner_text("#kept")
    page.click("#export-open")
    assert "refuses to save them" in page.inner_text("#export-state")
    with page.expect_event("dialog") as waiting:
        page.close(run_before_unload=True)
    assert waiting.value.type == "beforeunload"
    waiting.value.dismiss()
    assert downloaded(page, "#export-review").count(b"\r\n") == 41
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    page.reload()
    assert asked == []
    assert counts(page) == [40, 0, 0, 0]


def test_review_csv_is_read_by_fit(page: Any, suspects: Any, tmp_path: Path) -> None:
    """review.csv has every listed image with score, selection and mark, and comes back as it was."""
    press(page, "kau")
    content = downloaded(page, "#export-review")
    assert content.startswith(b"path,score,is_anomaly,verdict\r\n")
    (tmp_path / "review.csv").write_bytes(content)
    review = read_review(tmp_path / "review.csv")
    rows = [row for row in suspects[1].rows if row["status"] == "scored"]
    verdicts = ["keep", "anomaly", "unsure", *[""] * 37]
    assert review.rows == tuple(
        Reviewed(row["path"], verdict, row["is_anomaly"], row["anomaly_score"])  # type: ignore[arg-type]
        for row, verdict in zip(rows, verdicts, strict=True)
    )
    assert review.excluded() == tuple(paths_of(suspects[1])[1:6])


def test_clean_txt_follows_the_same_rule(page: Any, suspects: Any, tmp_path: Path) -> None:
    """clean.txt lists what `Review.kept` does, whatever threshold is tried; what is left out stands at the button."""
    press(page, "kau")
    page.fill("#threshold", "0")
    page.press("#threshold", "Enter")
    clean = downloaded(page, "#export-clean").decode()
    (tmp_path / "review.csv").write_bytes(downloaded(page, "#export-review"))
    assert clean.splitlines() == list(read_review(tmp_path / "review.csv").kept())
    assert len(clean.splitlines()) == 35
    words = page.inner_text("#export-clean-help")
    assert "35 paths, one a line. Left out: the 1 you marked anomaly, and the 4 that the report selected" in words
    assert "threshold that you try on this page does not count" in words


def test_clean_txt_needs_every_image(tmp_path: Path, make_report: Any, open_report: Any) -> None:
    """Where the page does not list all images, clean.txt would lack some: it is refused with the reason."""
    write_report(tmp_path / "r.html", make_report(10, n_odd=2, side=32, n_others=500))
    page = open_report(tmp_path / "r.html")
    page.click("#export-open")
    assert page.locator("#export-clean").is_disabled()
    assert "lack the 500 images" in page.inner_text("#export-clean-help")
    assert "other 500 images" in page.inner_text("#export-review-help")


def test_hostile_names_in_the_files(tmp_path: Path, make_report: Any, open_report: Any) -> None:
    """Names with quotes, separators, line breaks, formulas or half characters come back as the tables have them."""
    names = [
        'a"b.png',
        "a,b;c.png",
        "line\nbreak.png",
        "=SUM(A1).png",
        "-x.png",
        "@a.png",
        " lead.png",
        "\udcff.png",
        "é🧱.png",
    ]
    write_report(tmp_path / "r.html", make_report(len(names), n_odd=1, names=names, side=32))
    page = open_report(tmp_path / "r.html")
    page.select_option("#sort", "name")
    content = downloaded(page, "#export-review")
    cells = [row[0] for row in csv.reader(io.StringIO(content.decode(), newline=""))][1:]
    assert not [cell for cell in cells if re.match(r"\s*[=+\-@]", cell)]
    (tmp_path / "review.csv").write_bytes(content)
    expected = [name.encode("utf-8", "backslashreplace").decode() for name in names]
    review = read_review(tmp_path / "review.csv")
    assert sorted(row.path for row in review.rows) == sorted(expected)
    clean = downloaded(page, "#export-clean").decode().split("\n")[:-1]
    assert sorted(clean) == sorted(name for name in review.kept() if "\n" not in name)
    marked = [dataclasses.replace(row, verdict="keep") for row in review.rows]
    write_review(tmp_path / "marked.csv", marked)
    assert f"{len(names)} marks loaded" in load(page, tmp_path / "marked.csv")
    assert counts(page) == [0, len(names), 0, 0]


def test_hashes_are_carried_on(tmp_path: Path, make_report: Any, open_report: Any) -> None:
    """Where the rows have a SHA-256, so has review.csv."""
    data = make_report(3, n_odd=1, side=32)
    rows = [
        {**row, "sha256": f"{index:064x}"} if row["status"] == "scored" else row for index, row in enumerate(data.rows)
    ]
    write_report(tmp_path / "r.html", dataclasses.replace(data, rows=rows))
    (tmp_path / "review.csv").write_bytes(downloaded(open_report(tmp_path / "r.html"), "#export-review"))
    assert [row.sha256 for row in read_review(tmp_path / "review.csv").rows] == [f"{index:064x}" for index in range(3)]


def test_a_review_is_loaded_and_undone(page: Any, suspects: Any, tmp_path: Path) -> None:
    """A loaded review replaces the marks that it has, leaves the others, counts what is strange, and can be undone."""
    press(page, "kk")
    press(page, "a")
    paths = paths_of(suspects[1])
    rows = [
        Reviewed(paths[0], "unsure"),
        Reviewed(paths[1], ""),
        Reviewed(paths[5], "anomaly"),
        Reviewed("other/x.png", "keep"),
    ]
    write_review(tmp_path / "review.csv", rows)
    said = load(page, tmp_path / "review.csv")
    assert "2 marks loaded, 2 of them new or changed. 1 path is not on this page, such as other/x.png" in said
    assert counts(page) == [36, 1, 2, 1]
    page.click("#export-close")
    page.click("#review-undo")
    assert counts(page) == [37, 2, 1, 0]


WRONG = [
    (b"path,verdict\n{0},keep\n{0},anomaly\n", "line 3: anomaly, but line 2 says keep of the same path"),
    (b"path,verdict\n{0},good\n", 'line 2: the verdict must be keep, anomaly, unsure or empty; got "good"'),
    (b"name,mark\na,keep\n", "line 1 must name the columns path and verdict"),
    (b'path,verdict\n"a,keep\n', "line 2: a quotation mark is not closed"),
    (b"path,verdict\n\xff,keep\n", "no text in UTF-8"),
    (b"", "line 1 must name"),
]


def test_a_wrong_review_changes_nothing(page: Any, suspects: Any, tmp_path: Path) -> None:
    """A file that is no review is refused in words, with the line, and the marks stay."""
    press(page, "k")
    for content, says in WRONG:
        (tmp_path / "review.csv").write_bytes(content.replace(b"{0}", paths_of(suspects[1])[0].encode()))
        assert says in load(page, tmp_path / "review.csv")
        assert counts(page) == [39, 1, 0, 0]


def test_what_a_spreadsheet_saved(page: Any, suspects: Any, tmp_path: Path) -> None:
    """A review that a spreadsheet has saved is loaded too: byte-order mark, separators, other order, CRLF, quotes."""
    first, second, third = paths_of(suspects[1])[:3]
    lines = ("Verdict|note|Path", f'KEEP|"says ""so"""|{first}', f"||{second}", f' unsure |"a\nb"|{third}')
    for separator in (",", ";", "\t"):
        text = "\ufeff" + "\r\n".join(lines).replace("|", separator)
        (tmp_path / "review.csv").write_bytes(text.encode())
        assert "2 marks loaded, 2 of them new or changed" in load(page, tmp_path / "review.csv")
        assert counts(page) == [38, 1, 0, 1]
        page.click("#marks-clear")


def test_clearing_can_be_undone(page: Any) -> None:
    """All marks are cleared in one step, which one undo takes back."""
    press(page, "kau")
    page.click("#export-open")
    page.click("#marks-clear")
    assert counts(page) == [40, 0, 0, 0]
    page.keyboard.press("Escape")
    page.click("#review-undo")
    assert counts(page) == [37, 1, 1, 1]


def test_an_image_named_twice_has_one_mark(tmp_path: Path, make_report: Any, open_report: Any) -> None:
    """Two rows of one path are marked together."""
    write_report(tmp_path / "r.html", make_report(4, n_odd=2, side=32, names=["a.png", "b.png", "a.png", "c.png"]))
    page = open_report(tmp_path / "r.html")
    page.select_option("#sort", "name")
    focus_first(page)
    press(page, "k")
    assert (counts(page), position(page)) == ([2, 2, 0, 0], 2)


def test_tab_stops_stay_few(page: Any) -> None:
    """The images share one tab stop, all mark buttons have names, and Tab reaches everything in the export."""
    for view in ("gallery", "list"):
        page.click(f"[data-view={view}]")
        assert page.locator("#items [tabindex='0']").count() == 1
        buttons = page.locator("#items [data-set]")
        assert set(buttons.evaluate_all("nodes => nodes.map((node) => node.getAttribute('aria-label'))")) == {
            "Keep",
            "Anomaly",
            "Unsure",
        }
    page.click("#export-open")
    inside = []
    for _ in range(8):
        page.keyboard.press("Tab")
        inside.append(page.evaluate("document.activeElement.id"))
    assert {"export-review", "export-clean", "import-open", "export-close"} <= set(inside)
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "export-open"


CONTRAST = """(selector) => {
  const light = (text) => {
    const parts = text.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
    const [r, g, b] = parts.map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  return [...document.querySelectorAll(selector)].map((node) => {
    const style = getComputedStyle(node);
    const [high, low] = [light(style.color), light(style.backgroundColor)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_of_the_marks(suspects: Any, open_report: Any, scheme: str) -> None:
    """Every mark button, pressed or not, can be read: 4.5 to 1 at least."""
    page = open_report(suspects[0], color_scheme=scheme, reduced_motion="reduce")
    focus_first(page)
    press(page, "kau")
    ratios = page.evaluate(CONTRAST, "#items .mark")
    assert len(ratios) >= 18
    assert min(ratios) >= 4.5


@pytest.mark.parametrize("width", [360, 700])
def test_small_screens(suspects: Any, open_report: Any, width: int) -> None:
    """Nothing is wider than the screen, in the page, the larger view and the export, in gallery and list."""
    page = open_report(suspects[0], width=width, height=740)
    focus_first(page)
    press(page, "kau")
    for view in ("gallery", "list"):
        page.click(f"[data-view={view}]")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.click("#export-open")
    assert page.evaluate("(node => node.scrollWidth <= node.clientWidth)(document.querySelector('.export-body'))")
    page.click("#export-close")
    page.click("#review-start")
    assert page.evaluate("(node => node.scrollWidth <= node.clientWidth)(document.querySelector('.viewer-foot'))")


def test_an_empty_report_has_nothing_to_mark(tmp_path: Path, make_report: Any, open_report: Any) -> None:
    """Where nothing was scored there are no marks, no keys and no exports."""
    write_report(tmp_path / "r.html", make_report(0, n_odd=0, n_rejected=2))
    page = open_report(tmp_path / "r.html")
    assert page.locator("#marks-bar").is_hidden()
    assert page.locator("#items-help").is_hidden()
