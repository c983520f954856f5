"""A web server for downloads, small data sets of every layout, and the folder of the real ones."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Site:
    """What one server gives: files by path, how it misbehaves, and what it was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    etag: str = '"one"'
    length: bool = True
    cut_after: list[int] = field(default_factory=list)  # for each answer in turn: bytes until the connection is cut
    pause: float = 0.0  # seconds after each 8 kB
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    site: Site

    def do_GET(self) -> None:
        site, asked = self.site, self.headers.get("Range")
        site.requests.append((self.path, asked))
        content = site.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-").split("-")[0]) if asked and site.ranges else 0
        if start and self.headers.get("If-Range", site.etag) != site.etag:
            start = 0
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if site.etag:
            self.send_header("ETag", site.etag)
        if site.length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        cut = site.cut_after.pop(0) if site.cut_after else len(content)
        body = content[start : start + cut]
        for at in range(0, len(body), 8192):
            self.wfile.write(body[at : at + 8192])
            time.sleep(site.pause)

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:  # the client was killed
            self.close_connection = True

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[..., Site]]:
    """Starts a web server on 127.0.0.1 that gives these files."""
    servers = []

    def start(files: dict[str, bytes], **behaviour: Any) -> Site:
        site = Site(files, **behaviour)
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": site}))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        site.url = f"http://127.0.0.1:{server.server_address[1]}"
        servers.append(server)
        return site

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the machine is not asked for 127.0.0.1."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any data set: an empty cache and no ODDMENT_DATA; the folder of the cache."""
    monkeypatch.delenv("ODDMENT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "oddment"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data sets."""
    folder = os.environ.get("ODDMENT_DATA")
    if not folder:
        pytest.skip(
            "ODDMENT_DATA is not set: it names the folder with mnist/, fashion-mnist/, deepweeds/, magnetic-tiles/"
        )
    return Path(folder)


def picture(path: Path, shade: int = 100) -> Path:
    """Write a gray picture of 8×8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), shade, dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def paint() -> Callable[..., Path]:
    """Writes a small picture: `paint(path)`."""
    return picture


@pytest.fixture
def mvtec(tmp_path: Path) -> Path:
    """MVTec's layout: twelve good to train; two good, three cracked and two scratched to test, with masks."""
    root = tmp_path / "bottle"
    for index in range(12):
        picture(root / "train" / "good" / f"{index}.png")
    for kind, count in (("good", 2), ("crack", 3), ("scratch", 2)):
        for index in range(count):
            picture(root / "test" / kind / f"{index:03d}.png")
            if kind != "good":
                picture(root / "ground_truth" / kind / f"{index:03d}_mask.png", 255)
    return root


@pytest.fixture
def class_folder(tmp_path: Path) -> Path:
    """A folder for each class: twenty good, five bent, three broken."""
    root = tmp_path / "parts"
    for kind, count in (("good", 20), ("bent", 5), ("broken", 3)):
        for index in range(count):
            picture(root / kind / f"{kind}{index}.png")
    return root


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """The layout of the magnetic tiles: six free with a fixed split, two defects with masks."""
    root = tmp_path / "tiles"
    rows = ["file,cluster,side"]
    for index in range(6):
        picture(root / "free" / f"free{index}.jpg")
        rows.append(f"free{index}.jpg,{index // 2},{'test' if index >= 4 else 'train'}")
    (root / "groups.csv").write_text("\n".join(rows) + "\n")
    for kind in ("crack", "fray"):
        picture(root / "defective" / kind / f"{kind}1.jpg")
        picture(root / "masks" / kind / f"{kind}1.png", 255)
    return root


@pytest.fixture
def idx_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that ODDMENT_DATA names, with small data sets in the files of MNIST and Fashion-MNIST."""
    from oddment.data.idx import pack_idx

    root = tmp_path / "data"
    for offset, name in enumerate(("mnist", "fashion-mnist")):
        (root / name).mkdir(parents=True)
        for part, count in (("train", 200), ("t10k", 60)):
            labels = (np.arange(count) % 10).astype(np.uint8)
            images = np.full((count, 28, 28), offset, dtype=np.uint8) + labels[:, None, None]
            (root / name / f"{part}-images-idx3-ubyte.gz").write_bytes(pack_idx(images))
            (root / name / f"{part}-labels-idx1-ubyte.gz").write_bytes(pack_idx(labels))
    monkeypatch.setenv("ODDMENT_DATA", str(root))
    return root
