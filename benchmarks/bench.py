"""How fast Oddment is beside its peers, in one run on one machine: `make bench`, or one of these.

    python benchmarks/bench.py --quick
    python benchmarks/bench.py --parts train-dense,score --rounds 7

Each peer runs in a virtual environment and a process of its own, taking turns with Oddment; a peer that cannot be
installed is named and left out. Rows of the parts that were run replace those of an earlier run in a CSV file named by
device and version. MNIST is looked for where `oddment data` keeps it (the variable ODDMENT_DATA first); photographs are
generated. Environments and generated files lie in --cache.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import sys
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path

from bench_parts import PARTS, Bench
from bench_tools import Row

import oddment


def processor() -> str:
    """Return the processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def results_path(folder: Path) -> Path:
    """Return the CSV file of this device and version."""
    device = f"{platform.machine()}-{os.cpu_count()}-cores"
    return folder / f"speed-{device}-oddment-{oddment.__version__}.csv"


def keep(path: Path, rows: list[Row], about: dict[str, str]) -> None:
    """Write the rows in place of those that an earlier run left for the same parts."""
    columns = [*(item.name for item in fields(Row)), *about]
    old: list[dict[str, str]] = []
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            old = [row for row in csv.DictReader(file) if row["part"] not in {item.part for item in rows}]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows([*old, *({**asdict(row), **about} for row in rows)])


def show(rows: list[Row]) -> None:
    """Print what has a target, then everything else."""
    for row in sorted(rows, key=lambda item: not item.target):
        spread = f" ({row.low} to {row.high})" if row.low != row.high else ""
        target = f"  target {row.target}: {row.verdict}" if row.target else ""
        print(f"{row.part:12} {row.what:58} {row.value} {row.unit}{spread}{target}  {row.note}".rstrip())


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help="some of: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="of everything that takes turns (default: 5)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work: whether it runs, not how fast")
    parser.add_argument("--no-peers", action="store_true", help="Oddment alone")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "oddment-bench"
    parser.add_argument("--cache", type=Path, default=cache, help="environments and generated files (%(default)s)")
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    asked = parser.parse_args()
    parts = asked.parts.split(",")
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        parser.error(f"--parts {','.join(unknown)}: there are {', '.join(PARTS)}.")
    asked.cache.mkdir(parents=True, exist_ok=True)
    bench = Bench(asked.cache, rounds=asked.rounds, quick=asked.quick, peers=not asked.no_peers)
    about = {
        "quick": str(asked.quick).lower(),
        # Above the number of cores, something else is running, and only ratios are worth reading.
        "load": f"{os.getloadavg()[0]:.1f}",
        "processor": processor(),
        "cores": str(os.cpu_count()),
        "system": platform.platform(),
        "python": platform.python_version(),
        "measured": datetime.now(UTC).isoformat(timespec="minutes"),
    }
    rows: list[Row] = []
    path = results_path(asked.cache if asked.quick else asked.results)
    try:
        for name in ["ceilings", *(part for part in parts if part != "ceilings")]:
            print(f"-- {name}", file=sys.stderr, flush=True)
            rows += PARTS[name](bench)
            about["versions"] = "; ".join(sorted(bench.versions.values()))
            keep(path, rows, about)
    finally:
        bench.close()
    show(rows)
    print(f"written: {path}")


if __name__ == "__main__":
    main()
