"""What a benchmark needs: peers in processes of their own, alternating rounds, medians, verdicts."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

SCRIPTS = Path(__file__).parent / "peers"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the results: a figure, its spread over the rounds, and the target where it has one."""

    part: str
    what: str
    value: str
    unit: str
    low: str = ""
    high: str = ""
    rounds: int = 1
    target: str = ""
    verdict: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure should reach.

    Args:
        bound: the number.
        least: whether the figure should be at least that; at most otherwise.
    """

    bound: float
    least: bool = True

    def __str__(self) -> str:
        """Return it as the table shows it."""
        return f"{'≥' if self.least else '≤'} {self.bound:g}"

    def verdict(self, value: float, *, worse: bool = False) -> str:
        """Return "met" or "missed"; `worse` says that the loss came out higher, which counts as slower."""
        met = value >= self.bound if self.least else value <= self.bound
        return "missed: its loss is higher" if worse else "met" if met else "missed"


def row(
    part: str,
    what: str,
    values: Sequence[float],
    unit: str,
    target: Target | None = None,
    *,
    note: str = "",
    worse: bool = False,
) -> Row:
    """Return the median of values with their spread, and the verdict on the median."""
    middle = statistics.median(values)
    return Row(
        part,
        what,
        _number(middle),
        unit,
        _number(min(values)),
        _number(max(values)),
        len(values),
        str(target) if target else "",
        target.verdict(middle, worse=worse) if target else "",
        note,
    )


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


class Peer(NamedTuple):
    """A library with an environment of its own.

    Args:
        name: of the environment's folder.
        requirements: what pip installs.
        imports: the module that must then be there.
    """

    name: str
    requirements: tuple[str, ...]
    imports: str


# CPU builds: on Linux, plain tensorflow and torch may bring gigabytes of CUDA; see constraints.txt for torch.
KERAS = Peer("keras", ("keras==3.15.1", "tensorflow-cpu==2.21.0", "pillow"), "tensorflow")
ANOMALIB = Peer("anomalib", ("torch==2.13.0", "anomalib==2.7.0"), "anomalib")
PYOD = Peer("pyod", ("torch==2.13.0", "pyod==3.6.7", "joblib", "pillow", "tqdm"), "tqdm")


def python_of(peer: Peer, cache: Path) -> str | None:
    """Return the interpreter of a peer's environment, made on first use; None, with a message, where that fails."""
    folder = cache / peer.name
    python = str(folder / "bin" / "python")
    seen = [python, "-c", f"import importlib.util as u, sys; sys.exit(u.find_spec({peer.imports!r}) is None)"]
    if Path(python).exists() and subprocess.run(seen, check=False).returncode == 0:
        return python
    print(f"making the environment of {peer.name} in {folder} …", file=sys.stderr, flush=True)
    venv.create(folder, with_pip=True)
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.requirements]
    if subprocess.run(install, check=False).returncode == 0:
        return python
    print(f"!! {peer.name} CANNOT BE INSTALLED and is left out: no row compares with it", file=sys.stderr, flush=True)
    return None


# What the command line sets where nothing else runs.
OWN = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000", "THP_MEM_ALLOC_ENABLE": "1"}


class Worker:
    """A process that answers requests; see peers/_worker.py.

    Args:
        python: its interpreter.
        script: a file in `peers`.
    """

    def __init__(self, python: str, script: str) -> None:
        environment = os.environ | OWN if script.startswith("oddment") else os.environ
        self._process = subprocess.Popen(
            [python, "-W", "ignore", str(SCRIPTS / script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if os.environ.get("BENCH_DEBUG") else subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self._read()

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401 - anything that JSON takes
        """Return the answer to a request."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            msg = f"{self._process.args} ended with code {self._process.wait()}; BENCH_DEBUG=1 shows why."
            raise RuntimeError(msg)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


class Ended(NamedTuple):
    """How a whole process went: seconds on the clock and of the processors, and MiB of memory at its peak."""

    seconds: float
    cpu: float
    peak: float


def whole(*command: str | Path) -> Ended:
    """Run a command to its end, as a user would, and return what it took.

    Raises:
        RuntimeError: if it fails.
    """
    with tempfile.NamedTemporaryFile("r", suffix=".json") as result:
        words = [str(word) for word in command]
        subprocess.run(
            [sys.executable, "-I", "-S", SCRIPTS / "measured.py", result.name, *words],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=None if os.environ.get("BENCH_DEBUG") else subprocess.DEVNULL,
        )
        code, seconds, cpu, peak = json.load(result)
    if code:
        msg = f"{' '.join(words)} failed with code {code}; BENCH_DEBUG=1 shows why."
        raise RuntimeError(msg)
    # Linux counts in KiB, macOS in bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return Ended(seconds, cpu, peak / unit)
