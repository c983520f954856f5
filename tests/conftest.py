"""What the tests share: the embedded sample as files, one small fitted model, and ways to run the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

# One thread each: tests share their cores with each other. Set before NumPy, torch or ONNX Runtime start any.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ODDMENT_THREADS", "1")

# A job in the background of a plain shell ignores Ctrl-C, and so would all processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from click.testing import Result
    from numpy.typing import NDArray

DIGITS, NEW_DIGITS, ARTICLES = 600, 40, 8


def _write(folder: Path, name: str, images: NDArray[np.uint8]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{name}-{index:04d}.png")
    return folder


@pytest.fixture(scope="session")
def digits() -> NDArray[np.uint8]:
    """Six hundred training digits, uint8 (600, 28, 28)."""
    from oddment.data.sample import load_sample

    return load_sample("mnist-train").images[:DIGITS]


@pytest.fixture(scope="session")
def new_digits() -> NDArray[np.uint8]:
    """Forty digits that no model has seen."""
    from oddment.data.sample import load_sample

    return load_sample("mnist-test").images[:NEW_DIGITS]


@pytest.fixture(scope="session")
def articles() -> NDArray[np.uint8]:
    """Eight pieces of clothing."""
    from oddment.data.sample import load_sample

    return load_sample("fashion-test").images[:ARTICLES]


@pytest.fixture(scope="session")
def normal_folder(digits: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training digits as PNG files; not to be written to."""
    return _write(tmp_path_factory.mktemp("sample") / "normal", "digit", digits)


@pytest.fixture(scope="session")
def new_folder(
    new_digits: NDArray[np.uint8], articles: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """New digits and, among them, pieces of clothing, as PNG files; not to be written to."""
    folder = _write(tmp_path_factory.mktemp("sample") / "new", "digit", new_digits)
    return _write(folder, "article", articles)


@pytest.fixture(scope="session")
def detector(digits: NDArray[np.uint8]) -> Any:
    """A detector fitted to the training digits in a few seconds; not to be changed."""
    from oddment import Detector

    return Detector(model="dense", epochs=10, target_fpr=0.05).fit(digits)


@pytest.fixture(scope="session")
def model_file(detector: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its model file; not to be written to."""
    path: Path = tmp_path_factory.mktemp("model") / "digits.oddment"
    detector.save(path)
    return path


@pytest.fixture(scope="session")
def invoke() -> Callable[..., Result]:
    """Runs the command line inside this process: `invoke("find", folder, …)`, checking the exit code."""
    from typer.testing import CliRunner

    from oddment.cli.app import app

    def call(*arguments: object, code: int | None = 0) -> Result:
        # A width of its own: Rich wraps at 80 columns where there is no terminal, and cuts what tests look for.
        result = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, [str(item) for item in arguments])
        assert code is None or result.exit_code == code, f"exit {result.exit_code}\n{result.stdout}\n{result.stderr}"
        return result

    return call


@pytest.fixture(scope="session")
def command() -> list[str]:
    """The command line as a process of its own starts with this."""
    return [sys.executable, "-m", "oddment"]


@pytest.fixture(scope="session")
def spawn(command: list[str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line as a process of its own, for what only a process shows."""

    def call(
        *arguments: object, code: int | None = 0, cwd: Path | None = None, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        words: list[Any] = [item if isinstance(item, bytes) else str(item) for item in arguments]
        done = subprocess.run(
            [*command, *words],
            cwd=cwd,
            env=os.environ | (env or {}),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=240,
            check=False,
        )
        assert code is None or done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return call
