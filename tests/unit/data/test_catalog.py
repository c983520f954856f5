from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from oddment.data.catalog import (
    CATALOG,
    cache_folder,
    data_set,
    find_folder,
    folder_of,
    load_arrays,
    missing_files,
    places,
)
from oddment.data.idx import pack_idx
from oddment.data.verify import verify
from oddment.errors import DataError, ParameterError

MNIST = CATALOG["mnist"]


def test_data_sets_are_found_in_any_case_and_guessed() -> None:
    """A name may be written in any case; a wrong one names what there is and the nearest."""
    assert data_set("Fashion-MNIST").name == "fashion-mnist"
    with pytest.raises(ParameterError, match="Did you mean deepweeds"):
        data_set("deepweed")


def test_the_catalog_is_consistent() -> None:
    """Every file has a sum, a size, several addresses on the web; class counts agree with the number of images."""
    from oddment.data.deepweeds import COUNTS

    for item in CATALOG.values():
        for file in item.files:
            assert all(len(digest) == 64 and int(digest, 16) for digest in file.sha256)
            assert len(file.urls) >= 2
            assert all(url.startswith(("https://", "http://")) for url in file.urls)
    assert sum(COUNTS) == CATALOG["deepweeds"].n_images
    assert MNIST.files[0].n_bytes == 47_040_016


def test_the_cache_is_where_the_platform_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XDG_CACHE_HOME wins everywhere unless it is relative; else each platform has its own place."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "oddment"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(sys, "platform", "linux")
    assert cache_folder() == Path.home() / ".cache" / "oddment"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "oddment"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert cache_folder() == tmp_path / "oddment" / "Cache"


def test_places_are_searched_in_order(alone: Path, idx_home: Path) -> None:
    """ODDMENT_DATA comes before the cache, and a place that lacks a file is passed over."""
    shutil.copytree(idx_home / "mnist", alone / "mnist")
    assert places(MNIST) == (idx_home / "mnist", alone / "mnist")
    assert find_folder(MNIST) == idx_home / "mnist"
    (idx_home / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    assert find_folder(MNIST) == alone / "mnist"


def test_debian_is_a_place_for_fashion_mnist(alone: Path, idx_home: Path, tmp_path: Path) -> None:
    """Where Debian installs a data set it is found when nothing else has it, uncompressed files included."""
    assert Path("/usr/share/datasets/fashion-mnist") in places(CATALOG["fashion-mnist"])
    moved = (idx_home / "fashion-mnist").rename(tmp_path / "debian")
    (moved / "t10k-labels-idx1-ubyte.gz").rename(moved / "t10k-labels-idx1-ubyte")
    assert find_folder(replace(CATALOG["fashion-mnist"], elsewhere=(moved,))) == moved


def test_what_is_not_here_says_where_was_looked(alone: Path, idx_home: Path) -> None:
    """The error names each place with what it lacks, and the command that helps."""
    (idx_home / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError) as caught:
        folder_of(MNIST)
    message = str(caught.value)
    assert f"{idx_home / 'mnist'} (lacks t10k-labels-idx1-ubyte.gz)" in message
    assert f"{alone / 'mnist'} (does not exist)" in message
    assert "oddment data get mnist" in message


def test_a_folder_of_images_stands_for_the_archive(tmp_path: Path) -> None:
    """DeepWeeds is complete with labels.csv and either images.zip or images/."""
    weeds = CATALOG["deepweeds"]
    (tmp_path / "labels.csv").touch()
    assert missing_files(weeds, tmp_path) == ("images.zip",)
    (tmp_path / "images").mkdir()
    assert not missing_files(weeds, tmp_path)


def test_arrays_are_loaded_by_half(idx_home: Path) -> None:
    """Images and labels of one half come together; halves that do not fit, and photographs, are refused."""
    images, labels = load_arrays("mnist", "test")
    assert images.shape == (60, 28, 28)
    assert labels.tolist() == [index % 10 for index in range(60)]
    (idx_home / "mnist" / "t10k-labels-idx1-ubyte.gz").write_bytes(pack_idx(np.zeros(59, dtype=np.uint8)))
    with pytest.raises(DataError, match="do not belong together"):
        load_arrays("mnist", "test")
    with pytest.raises(ParameterError, match="photographs"):
        load_arrays("deepweeds", "test")


def test_verify_names_what_is_wrong(idx_home: Path) -> None:
    """Another content than the published one, a damaged container and a missing file are each told."""
    folder = idx_home / "mnist"
    (folder / "train-images-idx3-ubyte.gz").unlink()
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(b"\x1f\x8bdamaged")
    missing, damaged, other, _ = verify(MNIST, folder)
    assert not any((missing.ok, damaged.ok, other.ok))
    assert missing.note == "missing"
    assert "damaged gzip" in damaged.note
    assert MNIST.files[2].sha256[0] in other.note


@pytest.mark.data
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_the_real_files_are_right(name: str, real_data: Path) -> None:
    """The published sums and shapes are those of the real files."""
    checks = verify(CATALOG[name], real_data / name)
    assert len(checks) == 4
    assert all(check.ok for check in checks), checks
