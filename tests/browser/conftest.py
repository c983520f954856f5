"""A browser, pages that fail on any console error or request, and reports of synthetic searches."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from oddment.report import Gallery, Pictures, ReportData, render_pictures
from oddment.results import Detection, Region, Rejection

playwright = pytest.importorskip("playwright.sync_api", reason="browser tests need playwright")

_CHROMIUM = os.environ.get("ODDMENT_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One Chromium for the whole session; skipped without one, but never in CI."""
    if _CHROMIUM is None:
        message = "no chromium on this machine: install it or name it in ODDMENT_CHROMIUM"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=_CHROMIUM, args=_FLAGS)
        yield running
        running.close()


@pytest.fixture
def open_report(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a report as a file in a fresh page; at the end fail on any console error or any request.

    `script` runs before the page's own. What the page itself has made for a download is no request.
    """
    troubles: list[str] = []
    contexts: list[Any] = []

    def opened(path: Path, *, width: int = 1280, height: int = 800, script: str = "", **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        if script:
            context.add_init_script(script)
        page = context.new_page()
        page.set_default_timeout(15_000)
        url = path.as_uri()

        def said(message: Any) -> None:
            if message.type in {"error", "warning"}:
                troubles.append(message.text)

        def requested(request: Any) -> None:
            if request.url != url and not request.url.startswith(("data:", "blob:")):
                troubles.append(f"request: {request.url[:200]}")

        page.on("console", said)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", requested)
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert troubles == []


def texture(rng: np.random.Generator, side: int, *, colour: bool) -> NDArray[np.uint8]:
    """A photo-like picture, uint8 (side, side[, 3]): smooth light, fine grain and some edges."""
    coarse = rng.normal(size=(8, 8)).repeat(side // 8, 0).repeat(side // 8, 1)
    grain = rng.normal(size=(side, side)) * 9
    y, x = np.mgrid[:side, :side]
    waves = 22 * np.sin(x / rng.uniform(3, 12) + y / rng.uniform(5, 30)) + 16 * np.sin(y / rng.uniform(4, 9))
    gray = 128 + 14 * coarse + waves + grain + np.linspace(-30, 30, side)
    if not colour:
        return np.asarray(np.clip(gray, 0, 255), np.uint8)
    tint = np.array([1.04, 0.98, 0.86]) + rng.normal(0, 0.03, 3)
    return np.asarray(np.clip(gray[..., None] * tint, 0, 255), np.uint8)


def spoiled(
    rng: np.random.Generator, side: int, strength: float, *, colour: bool
) -> tuple[Pictures, tuple[Region, ...]]:
    """Pictures of a texture with a scratch of some strength, and the box around it."""
    image = texture(rng, side, colour=colour)
    left, top = (int(v) for v in rng.integers(side // 8, side // 2, 2))
    right, bottom = left + side // 4, top + side // 6
    normal = image.astype(np.float32) / 255
    if strength > 0:
        image[top:bottom, left:right] = np.clip(image[top:bottom, left:right] * (1 - 0.7 * strength), 0, 255)
    reconstruction = (normal if normal.ndim == 3 else normal[..., None]).astype(np.float32)
    y, x = np.mgrid[:side, :side] / side
    centre = (left + right) / 2 / side, (top + bottom) / 2 / side
    anomaly_map = strength * np.exp(-(((x - centre[0]) / 0.12) ** 2) - ((y - centre[1]) / 0.09) ** 2)
    anomaly_map = (anomaly_map + 0.04 * rng.random((side, side))).astype(np.float32)
    pictures = render_pictures(image, reconstruction, anomaly_map, map_range=(0.0, 1.0))
    return pictures, (Region(left, top, right, bottom, strength),) if strength > 0.4 else ()


def build_report(
    n: int = 120,
    *,
    n_odd: int | None = None,
    n_rejected: int = 3,
    side: int = 64,
    colour: bool = True,
    names: list[str] | None = None,
    n_others: int = 0,
    budget: int = 9_000_000,
    **changes: Any,
) -> ReportData:
    """A report of a synthetic search over `n` images, the first `n_odd` of which have a scratch."""
    rng = np.random.default_rng(7)
    n_odd = min(n, max(2, n // 20)) if n_odd is None else n_odd
    calibration = np.sort(rng.gamma(9, 0.0012, 499)).astype(np.float32)
    threshold = float(calibration[-5])
    normal = np.minimum(rng.gamma(9, 0.0012, n - n_odd), threshold * 0.999)
    scores = np.concatenate([threshold * np.exp(rng.uniform(0.05, 1.6, n_odd)), normal]).astype(np.float32)
    names = names or [f"line-3/2026-03-14/tile_{index:05d}.png" for index in rng.permutation(n)]
    gallery = Gallery(budget=budget)
    found = []
    for place, index in enumerate(np.argsort(-scores), 1):
        score = float(scores[index])
        regions: tuple[Region, ...] = ()
        if gallery.wants(score, names[index]):
            strength = min(1.0, score / threshold / 2.2) if score > threshold else 0.0
            pictures, regions = spoiled(rng, side, strength, colour=colour)
            gallery.add(names[index], score, pictures)
        p_value = (1 + int((calibration >= score).sum())) / (len(calibration) + 1)
        found.append(
            Detection(
                path=names[index],
                anomaly_score=score,
                threshold=threshold,
                p_value=p_value,
                is_anomaly=score > threshold,
                size=(side, side),
                regions=regions,
                rank=place,
            ).as_row()
        )
    reasons = ("The file is truncated: it ends after 12,288 of 80,112 bytes.", "Not an image: the content is text.")
    rejected = [
        Rejection(path=f"line-3/broken/upload_{index:03d}.jpg", reason=reasons[index % 2]).as_row()
        for index in range(n_rejected)
    ]
    others = np.sort(rng.gamma(8, 0.001, n_others)).astype(np.float32)
    values: dict[str, Any] = {
        "title": "Glazed tiles, line 3",
        "model_name": "tiles",
        "created": datetime(2026, 3, 14, 16, 5, tzinfo=UTC),
        "version": "0.1.0",
        "rows": found + rejected,
        "pictures": gallery.items(),
        "n_scored": n + n_others,
        "n_rejected": n_rejected,
        "n_anomalies": n_odd,
        "other_scores": others,
        "calibration_scores": calibration,
        "threshold": threshold,
        "rule": "target_fpr 0.01: the threshold is the 495th of 499 held-out normal scores, so that at most 1 % of "
        "normal images lie above it.",
        "target_fpr": 0.01,
        "card": {
            "Model": {"Family": "convolutional", "Latent dimension": "32", "Parameters": "412,805"},
            "Training": {"Images": "2,000 normal", "Epochs": "34 of 60, stopped early", "Device": "cpu"},
            "Preparation": {"Size": "64 × 64, letterboxed", "Colour": "RGB"},
            "Calibration": {"Images": "499 held out", "Rule": "target_fpr 0.01"},
            "File": {
                "Name": "tiles.oddment",
                "SHA-256": "9f2c5d8e41b07a63e2f1c4d5a6b7980112233445566778899aabbccddeeff001",
            },
        },
        "recompute": "oddment threshold tiles.oddment --threshold {threshold}",
    }
    return ReportData(**{**values, **changes})


@pytest.fixture(scope="session")
def make_report() -> Callable[..., ReportData]:
    """The factory of synthetic reports."""
    return build_report
