from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from oddment.data.catalog import DataFile, DataSet
from oddment.data.download import fetch, get, urls_of
from oddment.errors import DataError, ParameterError
from oddment.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONTENT = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
PACKED = gzip.compress(CONTENT, 1)
OTHER = gzip.compress(CONTENT[::-1], 1)
DEAD = "http://127.0.0.1:9"  # the discard port: nobody listens


def _file(name: str = "images.gz", content: bytes = CONTENT) -> DataFile:
    return DataFile(name, (hashlib.sha256(content).hexdigest(),), len(content), ())


def _set(*files: DataFile) -> DataSet:
    return DataSet("tiny", "Tiny", "idx", 1, 1, "none", "made up", files, ())


class Told(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.shares: list[float] = []

    def update(self, done: float, note: str = "") -> None:
        """Note it."""
        self.shares.append(done)
        self.notes.append(note)


def _left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "partial" in path.name)


def test_a_file_is_downloaded_and_nothing_else_remains(serve: Callable, tmp_path: Path) -> None:
    """The file has its name and content, the partial file is gone, and progress ended at the whole with time left."""
    site, told = serve({"/images.gz": PACKED}), Told()
    path = fetch(_file(), tmp_path, urls=[f"{site.url}/images.gz"], progress=told)
    assert path == tmp_path / "images.gz"
    assert path.read_bytes() == PACKED
    assert not _left_over(tmp_path)
    assert told.shares[-1] == 1.0
    assert "s left" in told.notes[-1]


def test_a_truncated_transfer_is_resumed(serve: Callable, tmp_path: Path) -> None:
    """When the connection is cut the next request asks for the rest only."""
    site = serve({"/images.gz": PACKED}, cut_after=[100_000, 50_000])
    assert fetch(_file(), tmp_path, urls=[f"{site.url}/images.gz"]).read_bytes() == PACKED
    assert [asked for _, asked in site.requests] == [None, "bytes=100000-", "bytes=150000-"]


def test_without_ranges_a_truncated_transfer_starts_over(serve: Callable, tmp_path: Path) -> None:
    """A server that ignores Range sends the whole again, and it is not appended to what was there."""
    site = serve({"/images.gz": PACKED}, cut_after=[100_000], ranges=False)
    # The whole comes again and is longer than what was cut off: that counts as going on.
    assert fetch(_file(), tmp_path, urls=[f"{site.url}/images.gz"]).read_bytes() == PACKED


def test_a_mirror_that_breaks_off_at_once_is_given_up(serve: Callable, tmp_path: Path) -> None:
    """A mirror that gives nothing more is left after one vain attempt, and the next one serves."""
    bad, good = serve({"/images.gz": PACKED}, cut_after=[0] * 9), serve({"/images.gz": PACKED})
    path = fetch(_file(), tmp_path, urls=[f"{bad.url}/images.gz", f"{good.url}/images.gz"])
    assert path.read_bytes() == PACKED
    assert len(bad.requests) == 1
    assert good.requests == [("/images.gz", None)]


def test_two_mirrors_are_never_mixed(serve: Callable, tmp_path: Path) -> None:
    """What one mirror began is not continued from another, whose container may differ."""
    bad = serve({"/images.gz": PACKED}, cut_after=[100_000, 0])
    good = serve({"/images.gz": gzip.compress(CONTENT, 9)}, etag='"two"')
    path = fetch(_file(), tmp_path, urls=[f"{bad.url}/images.gz", f"{good.url}/images.gz"])
    assert good.requests == [("/images.gz", None)]
    assert gzip.decompress(path.read_bytes()) == CONTENT


def test_wrong_content_is_named_and_the_next_mirror_tried(serve: Callable, tmp_path: Path) -> None:
    """A wrong sum on every mirror names each with what it gave; a right one after a wrong one is enough."""
    wrong, page, right = (serve({"/images.gz": body}) for body in (OTHER, b"<html>confirm</html>", PACKED))
    urls = [f"{site.url}/images.gz" for site in (wrong, page)]
    with pytest.raises(DataError) as caught:
        fetch(_file(), tmp_path, urls=urls)
    message = str(caught.value)
    assert all(url in message for url in urls)
    assert hashlib.sha256(CONTENT[::-1]).hexdigest() in message
    assert hashlib.sha256(CONTENT).hexdigest() in message
    assert "a web page" in message
    assert not _left_over(tmp_path)
    assert not (tmp_path / "images.gz").exists()
    assert fetch(_file(), tmp_path, urls=[*urls, f"{right.url}/images.gz"]).read_bytes() == PACKED


def test_a_dead_mirror_and_a_404_are_passed_over(serve: Callable, tmp_path: Path) -> None:
    """Mirrors that cannot be reached or lack the file are skipped."""
    empty, good = serve({}), serve({"/images.gz": PACKED})
    urls = [f"{DEAD}/images.gz", f"{empty.url}/images.gz", f"{good.url}/images.gz"]
    assert fetch(_file(), tmp_path, urls=urls).read_bytes() == PACKED


def test_a_mirror_that_falls_silent_is_given_up(serve: Callable, tmp_path: Path) -> None:
    """Silence beyond the timeout counts as broken off."""
    slow, good = serve({"/images.gz": PACKED}, pause=3.0), serve({"/images.gz": PACKED})
    urls = [f"{slow.url}/images.gz", f"{good.url}/images.gz"]
    started = time.monotonic()
    fetch(_file(), tmp_path, urls=urls, timeout=0.3)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("length", [True, False])
def test_a_mirror_that_sends_far_too_much_is_stopped(serve: Callable, tmp_path: Path, *, length: bool) -> None:
    """More bytes than the file can have are refused, whether announced or not."""
    site = serve({"/images.gz": b"\0" * 1_000_000}, length=length)
    with pytest.raises(DataError, match="not this file"):
        fetch(_file(), tmp_path, urls=[f"{site.url}/images.gz"])
    assert not _left_over(tmp_path)


def test_gzip_that_swells_is_not_unpacked_to_its_end(serve: Callable, tmp_path: Path) -> None:
    """Content larger than the file's own is wrong without being read further."""
    site = serve({"/images.gz": gzip.compress(bytes(50_000_000))})
    with pytest.raises(DataError, match="more than 300,000 bytes"):
        fetch(_file(), tmp_path, urls=[f"{site.url}/images.gz"])


def test_damaged_gzip_is_named(serve: Callable, tmp_path: Path) -> None:
    """A container cut short by the mirror itself is called damaged."""
    site = serve({"/images.gz": PACKED[:-1000]})
    with pytest.raises(DataError, match="damaged gzip"):
        fetch(_file(), tmp_path, urls=[f"{site.url}/images.gz"])


def test_uncompressed_content_loses_the_ending(serve: Callable, tmp_path: Path) -> None:
    """A mirror that unpacks on the way gives a file without .gz, which everything can open."""
    site = serve({"/images.gz": CONTENT})
    assert fetch(_file(), tmp_path, urls=[f"{site.url}/images.gz"]).name == "images"


def test_without_a_length_the_sum_decides(serve: Callable, tmp_path: Path) -> None:
    """A server that does not say how much it sends is believed when the sum is right."""
    site = serve({"/images.gz": PACKED}, length=False)
    assert fetch(_file(), tmp_path, urls=[f"{site.url}/images.gz"]).read_bytes() == PACKED


def _leave_partial(folder: Path, url: str, body: bytes, etag: str = '"one"') -> None:
    (folder / "images.gz.partial").write_bytes(body)
    note = {"url": url, "total": len(PACKED), "validator": etag}
    (folder / "images.gz.partial.json").write_text(json.dumps(note))


def test_an_earlier_run_is_resumed_at_its_own_mirror(serve: Callable, tmp_path: Path) -> None:
    """A partial file is continued at the mirror it came from, even when that is not the first."""
    first, second = serve({"/images.gz": PACKED}), serve({"/images.gz": PACKED})
    _leave_partial(tmp_path, f"{second.url}/images.gz", PACKED[:70_000])
    fetch(_file(), tmp_path, urls=[f"{first.url}/images.gz", f"{second.url}/images.gz"])
    assert not first.requests
    assert second.requests == [("/images.gz", "bytes=70000-")]


def test_a_partial_file_of_an_older_version_is_replaced(serve: Callable, tmp_path: Path) -> None:
    """When the mirror's file has changed since, all of it is fetched."""
    site = serve({"/images.gz": PACKED}, etag='"new"')
    _leave_partial(tmp_path, f"{site.url}/images.gz", OTHER[:70_000], '"old"')
    assert fetch(_file(), tmp_path, urls=[f"{site.url}/images.gz"]).read_bytes() == PACKED


@pytest.mark.parametrize("body", [OTHER[:70_000], OTHER + b"\0" * 9_000])
def test_a_foreign_partial_file_costs_one_more_try(serve: Callable, tmp_path: Path, body: bytes) -> None:
    """A partial file that turns out wrong, or too long for the mirror, is thrown away and fetched from the start."""
    site = serve({"/images.gz": PACKED}, etag="")
    _leave_partial(tmp_path, f"{site.url}/images.gz", body, "")
    assert fetch(_file(), tmp_path, urls=[f"{site.url}/images.gz"]).read_bytes() == PACKED


def test_a_complete_partial_file_needs_no_network(tmp_path: Path) -> None:
    """A run killed between the last byte and the new name only verifies and renames."""
    _leave_partial(tmp_path, f"{DEAD}/images.gz", PACKED)
    assert fetch(_file(), tmp_path, urls=[f"{DEAD}/images.gz"]).read_bytes() == PACKED


def test_a_killed_download_goes_on(serve: Callable, tmp_path: Path) -> None:
    """A process killed in the middle leaves no file under its name, and the next run asks for the rest only."""
    site = serve({"/images.gz": PACKED}, pause=0.05)
    spec = _file()
    program = (
        "import sys; from pathlib import Path; from oddment.data.catalog import DataFile\n"
        "from oddment.data.download import fetch\n"
        f"fetch({spec!r}, Path(sys.argv[1]), urls=[sys.argv[2]])"
    )
    command = [sys.executable, "-c", program, str(tmp_path), f"{site.url}/images.gz"]
    partial = tmp_path / "images.gz.partial"
    with subprocess.Popen(command) as process:
        deadline = time.monotonic() + 30
        while not (partial.exists() and partial.stat().st_size > 30_000) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
    kept = partial.stat().st_size
    assert 30_000 < kept < len(PACKED)
    assert not (tmp_path / "images.gz").exists()
    site.pause = 0.0
    assert fetch(spec, tmp_path, urls=[f"{site.url}/images.gz"]).read_bytes() == PACKED
    assert site.requests[-1] == ("/images.gz", f"bytes={kept}-")


def test_get_fetches_only_what_lacks_or_is_wrong(serve: Callable, tmp_path: Path) -> None:
    """Right files stay untouched, a damaged one is replaced, a missing one fetched."""
    files = [_file("a.gz"), _file("b.gz", CONTENT[::-1]), _file("c", b"three")]
    site = serve({"/d/a.gz": PACKED, "/d/b.gz": OTHER, "/d/c": b"three"})
    (tmp_path / "a.gz").write_bytes(PACKED)
    (tmp_path / "b.gz").write_bytes(b"damaged")
    assert get(_set(*files), tmp_path, mirrors=[f"{site.url}/d/"]) == tmp_path
    assert [path for path, _ in site.requests] == ["/d/b.gz", "/d/c"]
    assert (tmp_path / "b.gz").read_bytes() == OTHER


def test_without_a_network_get_says_what_to_do_by_hand(tmp_path: Path) -> None:
    """The error names the mirrors, every file that lacks, the folder and ODDMENT_DATA."""
    with pytest.raises(DataError) as caught:
        get(_set(_file("a.gz"), _file("b.gz")), tmp_path, mirrors=[DEAD])
    message = str(caught.value)
    assert all(text in message for text in ("a.gz, b.gz", str(tmp_path), "ODDMENT_DATA", DEAD, "cannot be reached"))


def test_only_one_process_downloads_into_a_folder(tmp_path: Path) -> None:
    """A second download into the same folder is refused, for both would write the same partial file."""
    fcntl = pytest.importorskip("fcntl")
    with (tmp_path / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process"):
            get(_set(_file()), tmp_path, mirrors=[DEAD])


@pytest.mark.parametrize("mirror", ["file:///etc/", "ftp://example.org/", "example.org", ""])
def test_a_mirror_must_be_on_the_web(mirror: str) -> None:
    """Anything but http and https is refused."""
    with pytest.raises(ParameterError, match="http"):
        urls_of(_file(), [mirror])
