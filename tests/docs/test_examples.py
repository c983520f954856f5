"""Every example in the README and in docs/ runs.

Blocks marked bash, console or python are run from top to bottom, page by page, in a folder with what the pages take for
granted: `normal/` and `new/` with images of the embedded sample, `more/` with some others, and a fitted model under the
names that pages use. They run as written, but that a fit which names no number of epochs is held to two.

A block that must not run here has `<!-- no-test: the reason -->` on the line before it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if page.exists()]
MODELS = ("parts.oddment", "tiles.oddment")
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<text>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL)

SHIM = """#!/bin/sh
case "$1 $*" in
fit*--epochs* | fit*--help*) ;;
fit*) set -- "$@" --epochs 2 ;;
esac
exec "{python}" -m oddment "$@"
"""


class Block(NamedTuple):
    """One example: its language, its text, and the line that it starts at."""

    language: str
    text: str
    line: int


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page that are to be run."""
    content = page.read_text(encoding="utf-8")
    blocks = []
    for match in FENCE.finditer(content):
        before = content[: match.start()].rstrip("\n").rpartition("\n")[2].strip()
        if match["language"] in {"bash", "console", "python"} and not before.startswith("<!-- no-test"):
            text = re.sub(rf"^{match['indent']}", "", match["text"], flags=re.MULTILINE)
            blocks.append(Block(match["language"], text, content[: match.start()].count("\n") + 1))
    return blocks


def commands_of(block: Block) -> str:
    """What a shell is given: of a console block, the lines after a prompt and their continuations."""
    if block.language == "bash":
        return block.text
    lines, wanted = [], False
    for line in block.text.splitlines():
        wanted = line.startswith("$ ") or (wanted and lines[-1].endswith("\\"))
        if wanted:
            lines.append(line.removeprefix("$ "))
    return "\n".join(lines)


@pytest.fixture
def laid_out(
    digits: NDArray[Any], new_folder: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with what the pages take for granted, `oddment` on its path, and nothing of the user's."""
    for folder, images in (("normal", digits[:260]), ("more/a", digits[260:300])):
        (tmp_path / folder).mkdir(parents=True)
        for index, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / folder / f"part{index:03d}_front.png")
    shutil.copytree(new_folder, tmp_path / "new")
    for name in MODELS:
        shutil.copy(model_file, tmp_path / name)
    shim = tmp_path / ".bin" / "oddment"
    shim.parent.mkdir()
    shim.write_text(SHIM.format(python=sys.executable), encoding="utf-8")
    shim.chmod(0o755)
    python = Path(sys.executable).parent
    monkeypatch.setenv("PATH", os.pathsep.join([str(shim.parent), str(python), os.environ["PATH"]]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.skipif(not PAGES, reason="neither a README nor docs are written yet")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)], ids=lambda page: page.name)
def test_examples_run(page: Path, laid_out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every block of the page runs without an error, in order."""
    for block in blocks_of(page):
        where = f"{page.relative_to(ROOT)}:{block.line}"
        if block.language == "python":
            try:
                exec(compile(block.text, where, "exec"), {"__name__": "__main__"})
            except Exception as error:  # noqa: BLE001 - whatever an example raises is its failure
                pytest.fail(f"{where}: {type(error).__name__}: {error}")
            continue
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands_of(block)],
            cwd=laid_out,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{where}: exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    capsys.readouterr()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link and picture of the page exists, and so does the heading that it names."""
    content = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", content):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor and path.suffix == ".md":
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page.name}: {target}"
