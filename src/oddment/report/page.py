"""A plain page of sentences, tables and figures, as one HTML file and as Markdown."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Grid", "Page", "Picture", "Section", "is_number", "page_html", "page_markdown"]


@dataclass(frozen=True, slots=True)
class Grid:
    """A table of text.

    Args:
        columns: headings.
        rows: as many cells each; a cell that begins like a number is set right.
        best: index of a row to stand out.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    best: int | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure beside the page and inside of it.

    Args:
        name: of the file beside the page, such as roc.png.
        content: the PNG file.
        caption: what it shows, in a sentence; also what is read aloud.
    """

    name: str
    content: bytes
    caption: str

    @property
    def width(self) -> int:
        """Pixels on a screen of usual density: figures are drawn half as fine again."""
        return round(int.from_bytes(self.content[16:20]) / 1.5)

    @property
    def is_wide(self) -> bool:
        """Whether it deserves a line of its own; a PNG file says so in its header."""
        width, height = (int.from_bytes(self.content[at : at + 4]) for at in (16, 20))
        return width > 1.7 * height


@dataclass(frozen=True, slots=True)
class Section:
    """One part of a page: sentences, then a table, then figures; each may be missing."""

    heading: str
    text: Sequence[str] = ()
    grid: Grid | None = None
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A page.

    Args:
        title: the heading.
        lead: what it comes to, in sentences.
        sections: the parts.
        colophon: who made it and when.
    """

    title: str
    lead: Sequence[str]
    sections: Sequence[Section]
    colophon: str


def page_html(page: Page) -> str:
    """Return the page as one HTML file that needs nothing else: style and figures are inside, script there is none."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(base64=lambda content: base64.b64encode(content).decode("ascii"), is_number=is_number)
    style = resources.files("oddment.report").joinpath("page.css").read_text(encoding="utf-8")
    template = resources.files("oddment.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(page=page, style=Markup(style))  # noqa: S704 - our own file


def page_markdown(page: Page) -> str:
    """Return the page as Markdown; figures are links to the files beside it."""
    parts = [f"# {_inline(page.title)}", *map(_inline, page.lead)]
    for section in page.sections:
        parts += [f"## {_inline(section.heading)}", *map(_inline, section.text)]
        if section.grid is not None:
            parts.append(_markdown_grid(section.grid))
        parts += [f"![{_inline(picture.caption)}]({picture.name})" for picture in section.pictures]
    return "\n\n".join([*parts, f"*{_inline(page.colophon)}*"]) + "\n"


def _markdown_grid(grid: Grid) -> str:
    rules = ["---:" if all(is_number(row[index]) for row in grid.rows) else "---" for index in range(len(grid.columns))]
    lines = [grid.columns, rules, *grid.rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return _inline(text).replace("|", "\\|")


def _inline(text: str) -> str:
    """Text of others (names of files and classes) without what Markdown would make of it."""
    flat = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "\\`*_<[" else letter for letter in flat)


def is_number(text: str) -> bool:
    """Return whether a cell begins like a number, or is empty, and is set right."""
    return text[:1].isdigit() or text in ("–", "") or (text[:1] in "-−+<" and text[1:2].isdigit())
