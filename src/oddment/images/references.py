"""A reference to one image, and how its name and the reason for refusing it are written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from oddment.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["MAX_MEMBER_BYTES", "ImageRef", "damaged", "printable"]

MAX_MEMBER_BYTES: Final = 1 << 30
"""An archive member, or one image of an array, that is or claims to be larger than this is rejected unread."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    r"""One image, or one thing that should have been one, not yet decoded.

    Args:
        path: its name in results: `dir/a.png`, `archive.zip!/member.png`, `digits.npy[12]`, `x.npz!/arr_0[3]`. Bytes
            of a file name that are no UTF-8 are written as `\udcff`, so that it can always be printed and saved.
        payload: a file still to be opened, the bytes of an archive member, the array of one image, or why there is
            none.
    """

    path: str
    payload: Path | bytes | NDArray[Any] | ImageError


def printable(path: str) -> str:
    """The name as results show it: forward slashes, and nothing that UTF-8 cannot carry."""
    if os.sep != "/":
        path = path.replace(os.sep, "/")
    return path if path.isascii() else path.encode("utf-8", "backslashreplace").decode()


def damaged(what: str, error: Exception) -> ImageError:
    """The reason to show for whatever a parser stumbled over."""
    if isinstance(error, PermissionError):
        return ImageError("permission denied")
    if isinstance(error, FileNotFoundError):
        return ImageError("no such file (moved or deleted, or a broken link)")
    cause = " ".join(str(error).split())[:120] or type(error).__name__
    return ImageError(f"damaged {what}: {cause} (re-copy it)")
