"""The report in a real browser, opened as a file; every page fails on a console error or a request."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oddment.report import Explanations, ReportData, write_report

HOSTILE = [
    "a</script><script>document.title='owned'</script>.png",
    "quote\"s'&amp;<img src=x onerror=alert(1)>.png",
    "\u202egnp.exe.png",
    "صورة/قطعة.png",
    "🧱/🔥.png",
    "line\nbreak.png",
    "undecodable-\udcff.png",
    "very-long-" * 30 + ".png",
    "{{ 7 * 7 }}{% raw %}.png",
    "<!--<script>.png",
]


@pytest.fixture(scope="session")
def searched(
    tmp_path_factory: pytest.TempPathFactory, make_report: Callable[..., ReportData]
) -> tuple[Path, ReportData]:
    """A report of 120 images, 6 odd ones and 3 rejected, written once."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    data = make_report(120, n_odd=6)
    write_report(path, data)
    return path, data


def _settle(page: Any) -> None:
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def _number(page: Any, selector: str) -> int:
    return int(re.sub(r"\D", "", page.inner_text(selector)))


def _set_threshold(page: Any, value: float) -> None:
    page.fill("#threshold", repr(value))
    page.press("#threshold", "Enter")
    _settle(page)


def _shown_names(page: Any) -> list[str]:
    page.evaluate("document.querySelector('#items').scrollIntoView()")
    _settle(page)
    names: list[str] = page.eval_on_selector_all("#items li .name", "nodes => nodes.map((node) => node.textContent)")
    return names


def test_summary_states_the_counts_of_the_run(searched: Any, open_report: Any) -> None:
    """The first screen says how many images, anomalies and rejected files there are."""
    page = open_report(searched[0])
    text = page.inner_text(".summary")
    assert all(part in text for part in ("120", "6", "3", "1 %", "≤ 1.2"))
    assert page.locator(".callout.warning:visible").count() == 0
    assert _number(page, "[data-filter=all] span") == 123


def test_partial_run_shows_a_banner(tmp_path: Path, make_report: Any, open_report: Any) -> None:
    """An interrupted search says so above everything else."""
    write_report(tmp_path / "r.html", make_report(4, n_odd=1, complete=False, notes=["Two images were enlarged."]))
    page = open_report(tmp_path / "r.html")
    assert "partial" in page.inner_text(".callout.warning")
    assert page.get_by_text("Two images were enlarged.").is_visible()


def test_threshold_changes_counts_and_verdicts(searched: Any, open_report: Any) -> None:
    """A lower threshold recounts, flips verdicts, prints the command; reset brings the model's back."""
    path, data = searched
    page = open_report(path)
    scores = [row["anomaly_score"] for row in data.rows if row["status"] == "scored"]
    _set_threshold(page, 0.011)
    expected = sum(score > 0.011 for score in scores)
    assert expected > 6
    assert _number(page, "#n-anomalies") == _number(page, "[data-filter=anomalies] span") == expected
    share = (data.calibration_scores > 0.011).mean()
    assert page.inner_text("#live-fpr").startswith(f"{100 * share:.3g} %")
    assert page.inner_text("#command") == "oddment threshold tiles.oddment --threshold 0.011"
    _shown_names(page)
    assert page.locator("#items li").nth(6).locator(".verdict").inner_text() == "Anomaly"
    page.click("#reset")
    _settle(page)
    assert _number(page, "#n-anomalies") == 6
    assert page.locator("#permanent").is_hidden()


def test_slider_moves_the_line_and_never_flags_fewer_when_lowered(searched: Any, open_report: Any) -> None:
    """Stepping the slider down moves the histogram's line left and never lowers the count."""
    page = open_report(searched[0])
    page.focus("#slider")
    counts, places = [], []
    for _ in range(4):
        for _ in range(25):
            page.keyboard.press("ArrowLeft")
        _settle(page)
        counts.append(_number(page, "#n-anomalies"))
        places.append(float(page.get_attribute("#histogram .threshold", "x1")))
    assert counts == sorted(counts)
    assert places == sorted(places, reverse=True)
    assert page.inner_text("#command").endswith(f"--threshold {page.input_value('#threshold')}")


def test_wrong_threshold_is_marked_and_changes_nothing(searched: Any, open_report: Any) -> None:
    """Text that is no number is marked invalid; the threshold stays."""
    page = open_report(searched[0])
    page.fill("#threshold", "about one")
    page.press("#threshold", "Enter")
    _settle(page)
    assert page.get_attribute("#threshold", "aria-invalid") == "true"
    assert _number(page, "#n-anomalies") == 6


@pytest.mark.parametrize(("kind", "n"), [("anomalies", 6), ("normal", 114), ("rejected", 3), ("all", 123)])
def test_filter_shows_only_its_kind(searched: Any, open_report: Any, kind: str, n: int) -> None:
    """Each filter shows as many as it promises, and nothing else."""
    page = open_report(searched[0])
    page.click(f"[data-filter={kind}]")
    assert page.inner_text("#shown") == f"Showing {n} of 123 files"
    _shown_names(page)
    kinds = set(page.eval_on_selector_all("#items li", "nodes => nodes.map((node) => node.dataset.verdict)"))
    assert kind == "all" or kinds == {"anomaly" if kind == "anomalies" else kind}


def test_search_by_name_and_way_back(searched: Any, open_report: Any) -> None:
    """A search finds by part of the name; one without hits offers to clear it."""
    page = open_report(searched[0])
    page.fill("#search", "TILE_0004")
    assert len(_shown_names(page)) == 10
    page.fill("#search", "nowhere")
    assert page.locator("#items li").count() == 0
    page.click("#empty button")
    assert page.inner_text("#shown") == "Showing 123 of 123 files"


def test_sort_by_name_and_score(searched: Any, open_report: Any) -> None:
    """Sorting reorders the cards: by score from the top or the bottom, or by name."""
    path, data = searched
    page = open_report(path)
    ranked = [row["path"].rsplit("/", 1)[-1] for row in data.rows if row["status"] == "scored"]
    assert _shown_names(page)[:5] == ranked[:5]
    page.select_option("#sort", "lowest")
    assert _shown_names(page)[:5] == ranked[::-1][:5]
    page.select_option("#sort", "name")
    names = _shown_names(page)
    assert names[0] == "tile_00000.png"
    assert page.locator("#items li").first.get_attribute("aria-posinset") == "1"


def test_keyboard_alone_reaches_everything(searched: Any, open_report: Any) -> None:
    """Tab reaches every control, arrows walk the gallery, Enter opens, arrows turn, Escape returns the focus."""
    page = open_report(searched[0])
    page.keyboard.press("Tab")
    seen = []
    for _ in range(30):
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        if seen[-1] == "card":
            break
        page.keyboard.press("Tab")
    assert {"slider", "threshold", "search", "sort", "boxes"} <= set(seen)
    for key in ("ArrowRight", "ArrowRight", "End", "Home", "ArrowRight", "Enter"):
        page.keyboard.press(key)
    assert page.locator("#viewer").is_visible()
    assert page.inner_text("#viewer-place") == "2 of 123"
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#viewer-place") == "3 of 123"
    page.keyboard.press("Escape")
    assert page.locator("#viewer").is_hidden()
    # A dialog tells of its end in a task of its own, which hands the focus back.
    page.wait_for_function("document.activeElement.dataset.position === '2'")


def test_focus_is_visible(searched: Any, open_report: Any) -> None:
    """The focused control wears an outline."""
    page = open_report(searched[0])
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_larger_view_toggles_boxes_and_heat_map(searched: Any, open_report: Any) -> None:
    """In the larger view B hides the boxes and H the heat map."""
    page = open_report(searched[0])
    page.locator("#items button").first.click()
    assert page.locator("#viewer .frame img").count() == 3
    assert page.locator("#viewer .frame svg:visible").count() == 2
    page.keyboard.press("b")
    assert page.locator("#viewer .frame svg:visible").count() == 0
    page.keyboard.press("h")
    assert page.locator("#viewer .frame img").count() == 2
    assert page.get_attribute("#viewer-heat", "aria-pressed") == "false"


def test_larger_view_shows_what_explains_an_anomaly(tmp_path: Path, make_report: Any, open_report: Any) -> None:
    """The most similar normal images and the parts of the score stand beside an anomaly; a normal image has neither."""
    data = make_report(6, n_odd=2)
    first = data.rows[0]["path"]
    webp = data.pictures[first].original
    shown = Explanations(
        examples=((HOSTILE[0], webp), ("folder/b.png", webp)),
        similar={first: (1, 0)},
        parts={first: {"mse": 3.25, "ssim": -0.5}},
    )
    write_report(tmp_path / "r.html", dataclasses.replace(data, explanations=shown))
    page = open_report(tmp_path / "r.html")
    page.locator("#items li .card").first.click()
    names = page.eval_on_selector_all("#viewer-explained figcaption", "nodes => nodes.map((node) => node.textContent)")
    assert names == ["b.png", HOSTILE[0].rpartition("/")[2]]
    widths = page.eval_on_selector_all("#viewer-explained img", "nodes => nodes.map((node) => node.naturalWidth)")
    assert all(width > 0 for width in widths)
    assert page.inner_text("#viewer-explained .parts").split() == ["mse", "+3.25", "ssim", "−0.5"]
    page.keyboard.press("End")
    assert page.inner_text("#viewer-explained") == ""


def test_pictures_decode(searched: Any, open_report: Any) -> None:
    """The pictures on the page are pictures: the browser knows their size."""
    page = open_report(searched[0])
    _shown_names(page)
    page.wait_for_function("[...document.querySelectorAll('#items img')].every((img) => img.naturalWidth === 64)")
    assert page.locator("#items img").count() >= 9


def test_list_view_holds_the_same_rows(searched: Any, open_report: Any) -> None:
    """The list shows the same images in the same order as the gallery."""
    page = open_report(searched[0])
    gallery = _shown_names(page)[:6]
    page.click("[data-view=list]")
    assert _shown_names(page)[:6] == gallery
    assert page.locator("#list-head").is_visible()


def test_rejected_files_show_their_reason(searched: Any, open_report: Any) -> None:
    """Every rejected file stands in a table with its reason."""
    page = open_report(searched[0])
    assert page.locator("#rejected-rows tr").count() == 3
    assert "truncated" in page.inner_text("#rejected-rows")


@pytest.mark.parametrize("view", ["gallery", "list"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_scrolls_in_one_direction_only(searched: Any, open_report: Any, view: str, scheme: str) -> None:
    """At 360 pixels nothing is wider than the screen, in the page and in the larger view."""
    page = open_report(searched[0], width=360, height=740, color_scheme=scheme, reduced_motion="reduce")
    page.click(f"[data-view={view}]")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("#items button").first.click()
    for selector in (".viewer-body", ".viewer-foot", ".viewer-head"):
        assert page.evaluate(f"(node => node.scrollWidth <= node.clientWidth)(document.querySelector('{selector}'))")


def test_hostile_names_stay_text(tmp_path: Path, make_report: Any, open_report: Any) -> None:
    """Names that look like markup, templates, directions or nothing at all are shown, and do nothing."""
    data = make_report(len(HOSTILE), n_odd=4, names=HOSTILE, side=32, title="<b>bold</b> & co", model_name="</title>")
    write_report(tmp_path / "r.html", data)
    page = open_report(tmp_path / "r.html", width=360, height=740)
    assert page.title() == "<b>bold</b> & co · Oddment"
    page.select_option("#sort", "name")
    titles = set()
    for index in range(13):
        page.locator("#images").focus()
        page.evaluate(f"document.querySelector('#items').scrollIntoView(); scrollBy(0, {index} * 240)")
        _settle(page)
        titles |= set(page.eval_on_selector_all("#items li > button", "nodes => nodes.map((node) => node.title)"))
    assert HOSTILE[0] in titles
    assert HOSTILE[1] in titles
    assert "[U+202E]gnp.exe.png" in titles
    assert "line␊break.png" in titles
    assert len(titles) == len(HOSTILE) + 3
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize(("n", "n_odd", "n_rejected"), [(0, 0, 0), (0, 0, 40), (1, 0, 0), (30, 0, 0)])
def test_small_and_empty_searches_open(
    tmp_path: Path, make_report: Any, open_report: Any, n: int, n_odd: int, n_rejected: int
) -> None:
    """A search over nothing, with everything rejected, over one image or without anomalies is a report too."""
    write_report(tmp_path / "r.html", make_report(n, n_odd=n_odd, n_rejected=n_rejected, side=32))
    page = open_report(tmp_path / "r.html")
    page.click("[data-filter=anomalies]")
    assert page.locator("#empty").is_visible()
    assert _number(page, "#n-anomalies") == 0


def test_ten_thousand_images_stay_few_nodes(tmp_path: Path, make_report: Any, open_report: Any) -> None:
    """With 10,000 images the page holds some hundred nodes wherever it is scrolled to, and stays below 15 MB."""
    path = tmp_path / "r.html"
    write_report(path, make_report(10_000, n_odd=80, side=64, budget=1_500_000))
    assert path.stat().st_size < 15_000_000
    page = open_report(path)
    for share in (0, 0.3, 0.9, 1):
        page.evaluate(f"scrollTo(0, document.documentElement.scrollHeight * {share})")
        _settle(page)
        assert page.evaluate("document.querySelectorAll('*').length") < 2_000
    page.locator("#items").evaluate("node => node.scrollIntoView()")
    page.locator("#items button").first.focus()
    page.keyboard.press("End")
    _settle(page)
    assert page.evaluate("document.activeElement.dataset.position") == "10002"


def test_counts_reach_beyond_the_listed_rows(tmp_path: Path, make_report: Any, open_report: Any) -> None:
    """Scores that are not listed still count when the threshold moves."""
    data = make_report(50, n_odd=5, n_others=3_000)
    write_report(tmp_path / "r.html", data)
    page = open_report(tmp_path / "r.html")
    _set_threshold(page, 0.009)
    listed = sum(row["anomaly_score"] > 0.009 for row in data.rows if row["status"] == "scored")
    assert _number(page, "#n-anomalies") == listed + int((data.other_scores > 0.009).sum())


def test_printing_lays_cards_out_in_the_flow(searched: Any, open_report: Any) -> None:
    """On paper the first 60 images are there, whatever was scrolled into view."""
    page = open_report(searched[0])
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#items li").count() == 60
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("#items li").count() < 60


def test_without_scripts_the_numbers_are_there(searched: Any, open_report: Any) -> None:
    """A mail preview, which runs no script, shows the summary and the highest scores."""
    path, data = searched
    page = open_report(path, java_script_enabled=False)
    assert "≤ 1.2" in page.inner_text(".summary")
    assert data.rows[0]["path"] in page.inner_text("noscript")


def test_data_without_calibration_or_finite_threshold(tmp_path: Path, make_report: Any, open_report: Any) -> None:
    """No calibration scores, an infinite threshold and missing p-values leave gaps, not errors."""
    data = make_report(20, n_odd=0, side=32)
    rows = [{**row, "p_value": None} for row in data.rows]
    empty = data.calibration_scores[:0]
    data = dataclasses.replace(data, rows=rows, calibration_scores=empty, threshold=float("inf"), target_fpr=None)
    write_report(tmp_path / "r.html", data)
    page = open_report(tmp_path / "r.html")
    assert page.inner_text("#live-fpr") == "–"
    assert page.inner_text("#summary-threshold") == "∞"


def test_a_selection_says_what_it_promises(tmp_path: Path, make_report: Any, open_report: Any) -> None:
    """With a false-discovery rate the page speaks of the selected, and a moved threshold is the reader's own."""
    data = make_report(
        120, n_odd=24, fdr=0.1, target_fpr=None, rule="Benjamini-Hochberg over the 120 images of this search"
    )
    write_report(tmp_path / "r.html", data)
    page = open_report(tmp_path / "r.html")
    text = " ".join(page.inner_text(".summary").split())
    for part in (
        "≤ 2.4 of the 24 selected, on average",
        "at most 10 % are normal ones on average: here up to 2.4 of 24",
        "scores above it are selected",
    ):
        assert part in text
    assert "False alarms expected" not in page.inner_text(".summary")
    assert "threshold of the selection" in page.inner_text("#live-hint")
    _set_threshold(page, 2 * data.threshold)
    assert "the selection's is" in page.inner_text("#summary-threshold-note")
    page.click("#reset")
    _settle(page)
    assert _number(page, "#n-anomalies") == 24
