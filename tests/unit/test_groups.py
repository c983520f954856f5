"""Naming the images that show the same thing: by a table or by a pattern."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oddment.errors import ParameterError
from oddment.images.groups import group_numbers, read_groups

if TYPE_CHECKING:
    from pathlib import Path


def table(folder: Path, text: str) -> str:
    path = folder / "groups.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_pattern_with_parenthesis() -> None:
    """The first parenthesis of a pattern names the group; a path without a match has none."""
    find = read_groups(r"part(\d+)_")
    assert find("a/part7_a.png") == find("b/part7_b.png") == "7"
    assert find("part8_a.png") == "8"
    assert find("other.png") is None


def test_pattern_without_parenthesis() -> None:
    """Without a parenthesis the whole match names the group."""
    assert read_groups("roll-[a-z]+")("x/roll-abc_1.png") == "roll-abc"


def test_optional_parenthesis() -> None:
    """A match in which the parenthesis took no part gives no group."""
    assert read_groups(r"part(\d+)?")("part_a.png") is None


def test_table(tmp_path: Path) -> None:
    """A table names images by their path or the end of it; the longest ending that fits decides."""
    find = read_groups(table(tmp_path, "image,group\na.png,red\nb/a.png,blue\nwhole/c.png,green\n"))
    assert find("x/a.png") == "red"
    assert find("x/b/a.png") == "blue"
    assert find("whole/c.png") == "green"
    assert find("c.png") is None
    assert find("xa.png") is None


def test_table_in_archives(tmp_path: Path) -> None:
    """Members of archives are found by the end of their name, Windows paths in the table too."""
    find = read_groups(table(tmp_path, "\ufeffimage,group\nb\\a.png,red\n\n"))
    assert find("photos.zip!/b/a.png") == "red"


@pytest.mark.parametrize("text", ["", "image,group\n", "image\na.png\n", "image,group\na.png\n", "a;b\nc;d\n"])
def test_wrong_table(tmp_path: Path, text: str) -> None:
    """A table without a header line and two columns is refused by name."""
    path = table(tmp_path, text)
    with pytest.raises(ParameterError, match="needs a header line and two columns") as caught:
        read_groups(path)
    assert path in str(caught.value)


def test_no_text(tmp_path: Path) -> None:
    """A table that is no UTF-8 is refused by name."""
    path = tmp_path / "groups.csv"
    path.write_bytes(b"image,group\n\xff\xfe,1\n")
    with pytest.raises(ParameterError, match="not a CSV file in UTF-8"):
        read_groups(str(path))


def test_missing_table() -> None:
    """A table that is not there is not taken for a pattern."""
    with pytest.raises(ParameterError, match=r"none\.csv: there is no such file"):
        read_groups("none.csv")


def test_wrong_pattern() -> None:
    """A pattern that cannot be compiled is refused with its mistake."""
    with pytest.raises(ParameterError, match=r"neither a CSV file nor a regular expression .*unterminated"):
        read_groups("part(")


def test_numbers() -> None:
    """Equal names share a number, whatever has no name stands alone and is counted; no name collides with those."""
    paths = ["g1_a", "x", "g2_a", "g1_b", "y", "galone:1_"]
    numbers, alone = group_numbers(paths, read_groups(r"^g(.+?)_"))
    assert numbers.tolist() == [0, 1, 2, 0, 3, 4]
    assert alone == 2
    assert group_numbers([], lambda _: None)[0].tolist() == []
