"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["write_whole"]


def write_whole(path: Path, content: str | bytes | Iterable[bytes]) -> Path:
    """Write a file so that a reader sees the old one or the new one, never half of one; returns its path.

    Text is written as UTF-8; a name in it that is no UTF-8 on disk is written with escapes, not lost. Of a file in
    parts, only one is held at a time.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", "backslashreplace")
    parts = [content] if isinstance(content, bytes) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(parts)
        # mkstemp makes a private file; results are for whoever may read the folder.
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path
