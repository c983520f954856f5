"""Writing and reading model files: what goes in comes out, equal models are equal files, a write is whole or none."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import stat
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oddment import load
from oddment.artifact import MEMBERS, OPTIONAL, read_model, write_atomically, write_model
from oddment.calibration import Calibration, ThresholdRule
from oddment.errors import ModelFileError

if TYPE_CHECKING:
    from numpy.typing import NDArray

WRITER = """
import sys
from pathlib import Path
from oddment.artifact import write_atomically
path, number = Path(sys.argv[1]), 0
print("ready", flush=True)
while True:
    number += 1
    write_atomically(path, bytes([number % 256]) * 4_000_000)
"""


def test_read_gives_what_was_written(tiny_model: Path, tmp_path: Path) -> None:
    """Every field of a model file survives writing and reading, and so does the file itself, to the byte."""
    model = read_model(tiny_model)
    copy = tmp_path / "deeper" / "copy.oddment"
    write_model(copy, model)
    again = read_model(copy)
    assert copy.read_bytes() == tiny_model.read_bytes()
    assert len(again.examples) > 0
    for name in ("graph", "weights", "preparation", "scoring_batch", "map_range", "info", "examples"):
        assert getattr(again, name) == getattr(model, name)
    for name in ("scores", "training_scores", "peaks"):
        assert np.array_equal(getattr(again.calibration, name), getattr(model.calibration, name))
    assert again.calibration.rule == model.calibration.rule
    assert again.calibration.threshold == model.calibration.threshold


def test_layout(tiny_model: Path) -> None:
    """The members are those that the format names, in order, stored without compression."""
    with zipfile.ZipFile(tiny_model) as archive:
        entries = archive.infolist()
    assert [entry.filename for entry in entries] == [*MEMBERS, *OPTIONAL]
    assert all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)


def test_new_rule_survives(tiny_model: Path, tmp_path: Path) -> None:
    """A model saved under another rule is read with that rule and its threshold."""
    for number, rule in enumerate(
        [
            ThresholdRule("target_fpr", 0.5),
            ThresholdRule("quantile", 0.9),
            ThresholdRule("max_normal", 0.25, "training"),
            ThresholdRule("fixed", 1),
            ThresholdRule("fixed", float(np.float32(0.3))),
        ]
    ):
        changed = load(tiny_model).with_rule(rule)
        changed.save(tmp_path / f"{number}.oddment")
        again = load(tmp_path / f"{number}.oddment")
        assert again.calibration.rule == rule
        assert again.threshold_ == changed.threshold_


scores = st.lists(st.floats(-(2.0**99), 2.0**99, width=32), max_size=20).map(
    lambda values: np.array(values, np.float32)
)


@settings(max_examples=40, deadline=None)
@given(held=scores, trained=scores, threshold=st.floats(-1e300, 1e300))
def test_any_calibration_survives(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Path,
    held: NDArray[np.float32],
    trained: NDArray[np.float32],
    threshold: float,
) -> None:
    """Calibration scores of any number and size come back bit for bit, p-values with them."""
    calibration = Calibration.of(held, trained, held, ThresholdRule("fixed", threshold))
    path = tmp_path_factory.getbasetemp() / "calibrated.oddment"
    write_model(path, replace(read_model(tiny_model), calibration=calibration))
    again = read_model(path).calibration
    for name in ("scores", "training_scores", "peaks"):
        assert getattr(again, name).tobytes() == getattr(calibration, name).tobytes()
    assert again.threshold == threshold
    assert np.array_equal(again.p_values(trained), calibration.p_values(trained))


@pytest.mark.parametrize(
    "change",
    [
        {"info": {"loss": float("nan")}},
        {"info": {"what": object()}},
        {"scoring_batch": 0},
        {"map_range": (2.0, 1.0)},
        {"graph": b"not a graph"},
        {"weights": b""},
    ],
)
def test_nothing_unreadable_is_written(tiny_model: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    """Contents that could not be read again are refused before a byte is written; the old file stays."""
    path = tmp_path / "m.oddment"
    path.write_bytes(b"old")
    with pytest.raises(ModelFileError, match="was not written"):
        write_model(path, replace(read_model(tiny_model), **change))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_failing_write_leaves_the_old_file(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """A write that fails, on a full disk say, leaves the old file whole and no temporary file behind."""
    path = tmp_path / "m.oddment"
    path.write_bytes(tiny_model.read_bytes())

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if broken == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OSError, match="No space left"):
        load(path).with_rule(ThresholdRule("fixed", 1.0)).save(path)
    monkeypatch.undo()
    assert path.read_bytes() == tiny_model.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_interrupted_write_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl+C while writing removes the temporary file too."""

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "m.oddment", b"new")
    assert list(tmp_path.iterdir()) == []


def test_failing_folder(tiny_model: Path, tmp_path: Path) -> None:
    """A folder in the place of the file, or a file in the place of the folder, is an OSError and changes nothing."""
    (tmp_path / "taken.oddment").mkdir()
    with pytest.raises(OSError, match="taken"):
        load(tiny_model).save(tmp_path / "taken.oddment")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        load(tiny_model).save(tmp_path / "file" / "m.oddment")
    assert sorted(item.name for item in tmp_path.iterdir()) == ["file", "taken.oddment"]


def test_mode_follows_the_umask(tmp_path: Path) -> None:
    """A model file may be read by whoever the user's umask lets read any file, and the umask is left alone."""
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "m.oddment", b"x")
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "m.oddment").stat().st_mode) == 0o640


def test_long_name(tmp_path: Path) -> None:
    """A name as long as the file system allows can be written."""
    path = tmp_path / ("m" * 247 + ".oddment")
    write_atomically(path, b"x")
    assert path.read_bytes() == b"x"


@pytest.mark.parametrize("delay", [0.03, 0.11, 0.17])
def test_kill_leaves_the_old_or_the_new(tmp_path: Path, delay: float) -> None:
    """A process that is killed while it writes leaves a whole file, the old or the new one."""
    path = tmp_path / "m.oddment"
    path.write_bytes(b"\0" * 4_000_000)
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    content = path.read_bytes()
    assert len(content) == 4_000_000
    assert len(set(content)) == 1


def test_hash_of_equal_models(tiny_model: Path, tmp_path: Path) -> None:
    """Equal models are equal files, whenever they are written: no date or order gets in."""
    digests = set()
    for number in range(2):
        load(tiny_model).save(tmp_path / f"{number}.oddment")
        digests.add(hashlib.sha256((tmp_path / f"{number}.oddment").read_bytes()).hexdigest())
    assert len(digests) == 1
