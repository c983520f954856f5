"""Finding images: order, what is left out, archives and arrays, and a row for everything that cannot be read."""

from __future__ import annotations

import gzip
import io
import os
import random
import sys
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from oddment.errors import ImageError, ParameterError
from oddment.images import count_images, decode, files, iter_images

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


def png(level: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (5, 4), level).save(stream, "PNG")
    return stream.getvalue()


def touch(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png())


def names(*sources: str | Path, **options: Any) -> list[str]:
    """The names found, after checking that they are as many as counted."""
    found = [reference.path for reference in iter_images(sources, **options)]
    assert count_images(sources, **options) == len(found)
    return found


def only_error(source: Path) -> str:
    references = list(iter_images([source]))
    assert count_images([source]) == len(references) == 1
    assert isinstance(references[0].payload, ImageError)
    assert references[0].path.startswith(str(source))
    return str(references[0].payload)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- folders -----------------------------------------------------------------------------------------------------


def test_natural_order(here: Path) -> None:
    """Files and subfolders come in one natural order of their names, whatever order the disk has them in."""
    wanted = ["d/1.png", "d/2.png", "d/a01.png", "d/a1.png", "d/img2/9.png", "d/img2/10.png", "d/img10.png", "d/z.txt"]
    shuffled = random.Random(3).sample(wanted, len(wanted))
    touch(here, shuffled)
    assert names("d") == names("d/") == wanted
    assert names(here / "d") == [str(here / name) for name in wanted]
    assert names(".")[0] == "d/1.png"


def test_sources_in_the_order_given(here: Path) -> None:
    """Sources are read in their own order, and twice where they overlap."""
    touch(here, ["b/1.png", "a.png"])
    assert names("b", "a.png", "b/1.png") == ["b/1.png", "a.png", "b/1.png"]
    assert [reference.path for reference in iter_images("b")] == ["b/1.png"]


def test_hidden_and_system_files_are_left_out(here: Path) -> None:
    """Hidden files, hidden folders and the litter of file managers are no images, unless they are named."""
    touch(here, ["d/.a.png", "d/.git/b.png", "d/__MACOSX/c.png", "d/Thumbs.db", "d/desktop.ini", "d/e.png"])
    assert names("d") == names("d/**") == names("d/*") == ["d/e.png"]
    assert names("d/.a.png", "d/.git") == ["d/.a.png", "d/.git/b.png"]
    assert names("d/.*/*.png", "d/__MACOSX/*") == ["d/.git/b.png", "d/__MACOSX/c.png"]


def test_other_files_are_not_skipped(here: Path) -> None:
    """A file that is no image is found all the same, and decoding gives its reason."""
    (here / "d").mkdir()
    (here / "d/notes.txt").write_text("hello")
    (here / "d/gone.png").symlink_to("nowhere")
    assert names("d") == ["d/gone.png", "d/notes.txt"]
    for reference in iter_images(["d"]):
        with pytest.raises(ImageError):
            decode(reference.payload)


def test_empty_folder(here: Path) -> None:
    """A folder without files gives nothing."""
    (here / "d/e").mkdir(parents=True)
    assert names("d") == []


def test_symlinked_folders(here: Path) -> None:
    """A symlinked folder is followed; one that leads back up is not."""
    touch(here, ["d/a/1.png", "other/2.png"])
    (here / "d/link").symlink_to(here / "other")
    (here / "d/a/up").symlink_to(here / "d")
    (here / "other/self").symlink_to(here / "other")
    assert names("d") == ["d/a/1.png", "d/link/2.png"]


def test_exclude(here: Path) -> None:
    """Excluded files and folders are left out however they are reached; they need not exist."""
    touch(here, ["d/a.png", "d/out/b.png", "d/out/deep/c.png", "d/e/out/f.png", "d/g.png"])
    (here / "d/link").symlink_to(here / "d/out/deep")
    assert names("d", exclude=[Path("d/out"), here / "d/g.png", here / "none"]) == ["d/a.png", "d/e/out/f.png"]
    assert names("d/out/deep", "d/g.png", exclude=["d"]) == []
    assert names("d/**/*.png", exclude=["d/out"]) == ["d/a.png", "d/e/out/f.png", "d/g.png"]


def test_deep_folders(here: Path) -> None:
    """Folders nested deeper than Python recurses are listed."""
    deep = "x/" * 1200
    for end in range(0, len(deep), 200):
        os.makedirs(deep[: end + 200], exist_ok=True)
    file = Path(deep, "a.png")
    file.write_bytes(png())
    try:
        assert names("x") == [deep + "a.png"]
    finally:  # pytest clears old folders with a recursive function, which these would break
        file.unlink()
        for end in range(len(deep), 0, -2):
            os.rmdir(deep[:end])


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may list everything")
def test_unreadable_folder(here: Path) -> None:
    """A folder that may not be listed has a row of its own."""
    touch(here, ["d/a.png", "d/secret/b.png"])
    (here / "d/secret").chmod(0)
    try:
        assert names("d") == ["d/a.png", "d/secret"]
    finally:
        (here / "d/secret").chmod(0o700)


def test_unreadable_folder_reason(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason for such a folder names the permission, whoever runs this test."""
    touch(here, ["d/a.png", "d/secret/b.png"])
    scandir = os.scandir

    def refuse(folder: str) -> Any:
        if folder.endswith("secret"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    last = list(iter_images(["d"]))[-1]
    assert (last.path, str(last.payload)) == ("d/secret", "permission denied: the folder cannot be listed")
    assert count_images(["d"]) == 2


@pytest.mark.skipif(sys.platform in {"win32", "darwin"}, reason="needs names of any bytes")
def test_names_that_are_no_utf8(here: Path) -> None:
    """A file name of other bytes is shown with escapes and can still be opened."""
    folder = os.fsencode(here / "d")
    os.mkdir(folder)
    with open(folder + b"/caf\xe9.png", "wb") as file:
        file.write(png())
    (reference,) = iter_images(["d"])
    assert reference.path == "d/caf\\udce9.png"
    assert decode(reference.payload).size == (5, 4)


def test_memory_stays_flat(here: Path) -> None:
    """Going through a folder of 5,000 files holds their names, not more."""
    (here / "d").mkdir()
    for at in range(5000):
        (here / f"d/{at}.png").touch()
    peaks = []
    # What threads of earlier tests still ask for is counted as well, but not in every pass.
    for _ in range(3):
        tracemalloc.start()
        assert sum(1 for _ in iter_images(["d"])) == 5000
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert min(peaks) < 8e6


# --- sources -----------------------------------------------------------------------------------------------------


def test_missing_sources_are_named_at_once(here: Path) -> None:
    """All sources that do not exist or match nothing are named before any image is given."""
    touch(here, ["a.png"])
    for function in (iter_images, count_images):
        with pytest.raises(ParameterError) as caught:
            function(["a.png", "gone", "*.jpg", "none/*.png", ""])
        lines = str(caught.value).splitlines()
        assert [line.split()[0] for line in lines] == ["'gone'", "'*.jpg'", "'none/*.png'", "''"]
        assert "matches no file" in lines[1]


def test_globs(here: Path) -> None:
    """A glob spans one level with *, any with **, takes folders whole, and finds each file once, in natural order."""
    touch(here, ["d/a10.png", "d/a9.png", "d/s/b.png", "d/s/t/c.png", "d/s/t/c.jpg", "d/x.jpg"])
    assert names("d/*.png") == ["d/a9.png", "d/a10.png"]
    assert names("d/**/*.png") == ["d/a9.png", "d/a10.png", "d/s/b.png", "d/s/t/c.png"]
    assert names("**/c.*") == ["d/s/t/c.jpg", "d/s/t/c.png"]
    assert names("d/**/t/**/*.jpg") == ["d/s/t/c.jpg"]
    assert names("d/s*") == names("d/s/**") == ["d/s/b.png", "d/s/t/c.jpg", "d/s/t/c.png"]
    assert names(str(here / "d/a[0-9].png")) == [str(here / "d/a9.png")]
    assert names("d/**") == names("d")


def test_existing_path_wins_over_glob(here: Path) -> None:
    """A path that exists is taken literally even if it looks like a glob."""
    touch(here, ["a[1].png", "a1.png", "q?/b.png", "qq/b.png"])
    assert names("a[1].png", "q?") == ["a[1].png", "q?/b.png"]


# --- archives ----------------------------------------------------------------------------------------------------


def write_tar(file: Path, members: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(file, mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


MEMBERS = {
    "b/2.png": png(2),
    "../up.png": png(3),
    "a.txt": b"text",
    ".hidden.png": png(),
    "__MACOSX/b/._2.png": b"x",
    "inner.zip": b"PK",
    "deep.npy": b"x",
    "empty.png": b"",
}


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tgz", "a.tar.bz2", "a.tar.xz", "A.ZIP"])
def test_archives(here: Path, name: str) -> None:
    """Members come in the archive's order, named behind it; hidden ones are left out, nested archives refused."""
    file = here / "d" / name
    file.parent.mkdir()
    if name.lower().endswith("zip"):
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in MEMBERS.items():
                archive.writestr(member, content)
    else:
        mode = {"gz": "w:gz", "gz2": "w:gz", "bz2": "w:bz2", ".xz": "w:xz", "tgz": "w:gz", ".gz": "w:gz"}
        write_tar(file, MEMBERS, mode.get(name[-3:], "w"))
    wanted = ["b/2.png", "../up.png", "a.txt", "inner.zip", "deep.npy", "empty.png"]
    assert names("d") == names(f"d/{name}") == [f"d/{name}!/{member}" for member in wanted]
    found = {reference.path.rpartition("!/")[2]: reference.payload for reference in iter_images(["d"])}
    assert decode(found["b/2.png"]).pixels[0, 0] == 2
    assert decode(found["../up.png"]).pixels[0, 0] == 3
    assert str(found["inner.zip"]) == "an archive inside an archive; extract it first"
    assert str(found["deep.npy"]) == "an array file inside an archive; extract it first"
    for member, reason in (("a.txt", "not an image"), ("empty.png", "empty file")):
        with pytest.raises(ImageError, match=reason):
            decode(found[member])
    assert sorted(path.name for path in here.rglob("*")) == sorted(["d", name])


def test_links_in_tar(here: Path) -> None:
    """Links inside a tar archive are refused, not followed."""
    with tarfile.open("a.tar", "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("link.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    references = list(iter_images(["a.tar"]))
    assert {str(reference.payload) for reference in references} == {"a link or device in an archive, not a file"}
    assert len(references) == 3


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_member_above_the_limit(here: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member that expands beyond the limit is refused unread."""
    content = {"bomb.png": b"\0" * 100_000, "fine.png": png()}
    if name == "a.zip":
        with zipfile.ZipFile(name, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, data in content.items():
                archive.writestr(member, data)
    else:
        write_tar(Path(name), content, "w:gz")
    monkeypatch.setattr(files, "MAX_MEMBER_BYTES", 50_000)
    bomb, fine = iter_images([name])
    assert str(bomb.payload) == "100,000 bytes exceed the limit of 50,000 in an archive; extract it first"
    assert decode(fine.payload).size == (5, 4)


def test_encrypted_member(here: Path) -> None:
    """An encrypted member says so."""
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.writestr("a.png", png())
    content = bytearray(Path("a.zip").read_bytes())
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    Path("a.zip").write_bytes(content)
    assert only_error(Path("a.zip")) == "encrypted; extract it first"


def test_damaged_member_costs_only_itself(here: Path) -> None:
    """A member whose checksum fails is refused; its neighbours are read."""
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.writestr("a.png", png(1))
        archive.writestr("b.png", png(2))
    content = bytearray(Path("a.zip").read_bytes())
    content[60] ^= 255
    Path("a.zip").write_bytes(content)
    first, second = iter_images(["a.zip"])
    assert "damaged member of the archive: Bad CRC-32" in str(first.payload)
    assert decode(second.payload).pixels[0, 0] == 2


def test_broken_archives(here: Path) -> None:
    """An archive that cannot be opened, or breaks off, has a row under its own name."""
    touch(here, ["no.zip", "no.tar", "no.tar.gz"])
    for name in ("no.zip", "no.tar", "no.tar.gz"):
        assert "damaged" in only_error(Path(name))
    write_tar(Path("cut.tar"), {f"{at}.png": png(at) for at in range(4)})
    Path("cut.tar").write_bytes(Path("cut.tar").read_bytes()[:2600])  # within the third member
    assert names("cut.tar") == ["cut.tar!/0.png", "cut.tar!/1.png", "cut.tar!/2.png", "cut.tar"]
    assert "damaged tar archive" in str(list(iter_images(["cut.tar"]))[-1].payload)


# --- arrays ------------------------------------------------------------------------------------------------------


STACK = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)


@pytest.mark.parametrize(
    ("shape", "count", "size"),
    [
        ((3, 4, 5), 3, (5, 4)),
        ((3, 4, 5, 1), 3, (5, 4)),
        ((3, 4, 5, 3), 3, (5, 4)),
        ((3, 4, 5, 4), 3, (5, 4)),
        ((4, 5), None, (5, 4)),
        ((4, 5, 3), None, (5, 4)),
        ((4, 5, 4), None, (5, 4)),
        ((4, 5, 1), None, (5, 4)),
        ((1, 4, 5), 1, (5, 4)),
        ((3, 28, 28), 3, (28, 28)),
    ],
)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["npy", "npz", "npz compressed"])
def test_array_shapes(
    here: Path, shape: tuple[int, ...], count: int | None, size: tuple[int, int], order: Any, kind: str
) -> None:
    """Stacks give one image an entry; two axes, or three that end in 1, 3 or 4, are one image."""
    array = np.asarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8), order=order)
    if kind == "npy":
        np.save("x.npy", array)
    else:
        (np.savez if kind == "npz" else np.savez_compressed)("x.npz", array)
    base = "x.npy" if kind == "npy" else "x.npz!/arr_0"
    wanted = [base] if count is None else [f"{base}[{at}]" for at in range(count)]
    assert names(".") == wanted
    images = [array] if count is None else list(array)
    for reference, image in zip(iter_images(["."]), images, strict=True):
        assert np.array_equal(reference.payload, image)
        assert decode(reference.payload).size == size


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros(9), "shape (9,) is not images"),
        (np.float64(3), "shape () is not images"),
        (np.zeros((2, 2, 2, 2, 2)), "is not images"),
        (np.zeros((9, 3, 8, 8)), "has its channels first; transpose it to (N, H, W, C)"),
        (np.zeros((9, 8, 8, 2)), "is not images"),
        (np.zeros((0, 8, 8)), "holds no pixels"),
        (np.zeros((8, 0, 8)), "holds no pixels"),
        (np.zeros((2, 8, 8), complex), "is not numbers"),
        (np.array([["a", "b"]]), "is not numbers"),
        (np.array([[None]]), "is not numbers"),
    ],
)
@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_arrays_that_are_no_images(here: Path, array: NDArray[Any], reason: str, name: str) -> None:
    """An array that holds no images has one row with its reason, and is never unpickled."""
    if name == "x.npy":
        np.save(name, array)
    else:
        np.savez(name, arr_0=array)
    assert reason in only_error(Path(name))


def test_wide_integers_share_one_scale(here: Path) -> None:
    """All images of an array of wide integers get the dtype that the largest value in any of them needs."""
    array = np.zeros((2, 3, 5), np.int64)
    for highest, dtype in ((255, "uint8"), (4095, "uint16"), (70_000, "float32"), (-1, "float32")):
        array[1, 0, 0] = highest
        np.save("x.npy", array)
        np.savez_compressed("x.npz", array)
        for source in ("x.npy", "x.npz"):
            assert [decode(reference.payload).pixels.dtype for reference in iter_images([source])] == [dtype] * 2
    np.save("x.npy", np.zeros((2, 3, 5), ">u2"))
    assert decode(next(iter_images(["x.npy"])).payload).pixels.dtype == np.dtype(np.uint16)


def test_npz_with_many_arrays(here: Path) -> None:
    """Each array of an .npz is listed, images and others."""
    np.savez("mnist.npz", x_train=STACK, y_train=np.zeros(3), one=STACK[0])
    assert names("mnist.npz") == [
        *(f"mnist.npz!/x_train[{at}]" for at in range(3)),
        "mnist.npz!/y_train",
        "mnist.npz!/one",
    ]


def test_lying_headers(here: Path) -> None:
    """A header that promises more than the file can hold costs one row, however many images it promises."""
    np.save("x.npy", STACK)
    Path("x.npy").write_bytes(
        Path("x.npy").read_bytes().replace(b"(3, 4, 5)", b"(3000,4,5)"[:9]).replace(b"3000", b"9999")
    )
    np.save("y.npy", STACK)
    Path("y.npy").write_bytes(Path("y.npy").read_bytes()[:-1])
    Path("z-idx3-ubyte").write_bytes(b"\0\0\x08\3" + b"\xff\xff\xff\xff" * 3 + b"1234")
    Path("z-idx3-ubyte.gz").write_bytes(gzip.compress(Path("z-idx3-ubyte").read_bytes()))
    Path("bad.npy").write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((((")
    Path("bad.npz").write_bytes(b"PK\3\4nonsense")
    for name in ("x.npy", "y.npy", "z-idx3-ubyte", "z-idx3-ubyte.gz", "bad.npy", "bad.npz"):
        assert only_error(Path(name))


def idx(array: NDArray[Any], code: int) -> bytes:
    return bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize(
    ("code", "dtype"), [(8, "u1"), (9, "i1"), (0xB, ">i2"), (0xC, ">i4"), (0xD, ">f4"), (0xE, ">f8")]
)
def test_idx(here: Path, code: int, dtype: str, suffix: str) -> None:
    """IDX files of every number type give their images, gzipped or not."""
    content = idx(STACK.astype(dtype), code)
    name = f"train-images-idx3-ubyte{suffix}"
    Path(name).write_bytes(gzip.compress(content) if suffix else content)
    assert names(".") == [f"{name}[{at}]" for at in range(3)]
    for reference, image in zip(iter_images(["."]), STACK, strict=True):
        assert np.array_equal(decode(reference.payload).pixels, image)


def test_idx_labels_and_others(here: Path) -> None:
    """IDX labels are one row; a file that is only named like IDX is left to the decoder; three axes are a stack."""
    Path("train-labels-idx1-ubyte").write_bytes(idx(np.zeros(5, np.uint8), 8))
    assert only_error(Path("train-labels-idx1-ubyte")) == "IDX labels, not images"
    Path("my-idx.gz").write_bytes(gzip.compress(b"hello"))
    (reference,) = iter_images(["my-idx.gz"])
    assert reference.payload == Path("my-idx.gz")
    Path("t10k.idx3-ubyte").write_bytes(idx(np.zeros((2, 5, 4), np.uint8), 8))
    assert names("t10k.idx3-ubyte") == ["t10k.idx3-ubyte[0]", "t10k.idx3-ubyte[1]"]


def test_cut_gzip_gives_each_lost_image_a_row(here: Path) -> None:
    """Where a compressed stack breaks off, the images before are given and each one lost has a reason."""
    images = np.random.default_rng(0).integers(0, 256, (20, 30, 30), np.uint8)
    Path("a-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images, 8))[:-9000])
    references = list(iter_images(["a-idx3-ubyte.gz"]))
    assert len(references) == count_images(["a-idx3-ubyte.gz"]) == 20
    lost = [isinstance(reference.payload, ImageError) for reference in references]
    assert lost == sorted(lost)
    assert 5 < sum(lost) < 15
    assert np.array_equal(references[3].payload, images[3])
