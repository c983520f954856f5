"""The embedded sample."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from oddment.data.idx import pack_idx, parse_idx
from oddment.data.sample import load_sample, write_demo
from oddment.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from oddment.data.sample import SampleName


@pytest.mark.parametrize(("name", "count"), [("mnist-train", 4000), ("mnist-test", 1000), ("fashion-test", 1000)])
def test_parts(name: SampleName, count: int) -> None:
    """Each part has its images and labels, all ten classes in about equal shares, no image blank."""
    sample = load_sample(name)
    assert sample.images.shape == (count, 28, 28)
    assert sample.labels.shape == (count,)
    assert sample.images.dtype == sample.labels.dtype == np.uint8
    assert np.bincount(sample.labels, minlength=10).min() > 0.07 * count
    assert sample.images.reshape(count, -1).max(axis=1).min() > 100


def test_no_image_is_in_two_parts() -> None:
    """What is found is never what was trained on."""
    seen = [{image.tobytes() for image in load_sample(name).images} for name in ("mnist-train", "mnist-test")]
    assert not seen[0] & seen[1]


def test_it_is_small_and_names_its_licences() -> None:
    """The sample stays under 3 MB in the package, and authors and licences are named beside it."""
    folder = files("oddment.data") / "files"
    assert sum(len(item.read_bytes()) for item in folder.iterdir()) < 3_000_000
    text = (folder / "LICENSES.md").read_text(encoding="utf-8")
    for part in ("MNIST", "Fashion-MNIST", "CC BY-SA 3.0", "MIT", "LeCun", "Zalando"):
        assert part in text


def test_demo_files(tmp_path: Path) -> None:
    """The demonstration's folders hold 3,000 normal digits, and 950 digits with 50 articles among them."""
    normal, new = write_demo(tmp_path)
    assert len(list(normal.iterdir())) == 3000
    names = sorted(path.name for path in new.iterdir())
    assert (len(names), sum(name.startswith("article") for name in names)) == (1000, 50)
    with Image.open(new / "digit-0000.png") as image:
        np.testing.assert_array_equal(np.asarray(image), load_sample("mnist-test").images[0])


@pytest.mark.parametrize("shape", [(0, 28, 28), (3, 4, 5), (7,)])
def test_idx_round_trip(shape: tuple[int, ...]) -> None:
    """What is packed comes back equal, and equal arrays pack to equal bytes."""
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.testing.assert_array_equal(parse_idx(pack_idx(array)), array)
    assert pack_idx(array) == pack_idx(array.copy())


@pytest.mark.parametrize(
    "damage",
    [b"", b"\0\0", b"PK\3\4 not idx", b"\0\0\x08\x01\0\0\0\x05abc", b"\x1f\x8b\x08 cut", b"\0\0\x0d\x01\0\0\0\0"],
)
def test_idx_of_other_bytes(damage: bytes) -> None:
    """Bytes that are no such array are a DataError."""
    with pytest.raises(DataError):
        parse_idx(damage, "x")
