from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_list_shows_what_is_here_and_what_is_not(invoke: Callable[..., Any], idx_home: Path, mvtec: Path) -> None:
    """Folders of what is here, the command for what is not, and MVTec folders by the name that finds them."""
    shutil.copytree(mvtec, idx_home / "mvtec" / "bottle")
    shown = invoke("data", "list").stdout
    assert str(idx_home / "mnist") in shown
    assert "oddment data get deepweeds (492 MB)" in shown
    told = json.loads(invoke("data", "list", "--json").stdout)
    assert {row["name"]: row["folder"] for row in told["data_sets"]}["mnist"] == str(idx_home / "mnist")
    assert told["mvtec"] == [{"name": "mvtec/bottle", "folder": str(idx_home / "mvtec" / "bottle")}]


def test_path_prints_the_folder_alone(invoke: Callable[..., Any], alone: Path, idx_home: Path, mvtec: Path) -> None:
    """A script gets one line on standard output: the folder; or exit code 3 and nothing."""
    assert invoke("data", "path", "mnist").stdout == f"{idx_home / 'mnist'}\n"
    assert invoke("data", "path", mvtec).stdout == f"{mvtec}\n"
    assert json.loads(invoke("data", "path", mvtec, "--json").stdout)["name"] == "bottle"
    missing = invoke("data", "path", "deepweeds", code=3)
    assert not missing.stdout
    assert "oddment data get deepweeds" in missing.stderr


def test_path_of_something_else(invoke: Callable[..., Any], alone: Path, mvtec: Path, class_folder: Path) -> None:
    """A name that is nothing is wrong usage; a folder without the layout fails and points to what it holds."""
    assert "neither one of mnist" in invoke("data", "path", "nothing", code=2).stderr
    assert "not in MVTec's layout" in invoke("data", "verify", class_folder, code=3).stderr
    assert "bottle" in invoke("data", "path", mvtec.parent, code=3).stderr


def test_verify_of_mvtec(invoke: Callable[..., Any], mvtec: Path, paint: Callable[..., Path]) -> None:
    """Counts of every kind; a missing mask, one without image and an empty training folder are wrong."""
    told = json.loads(invoke("data", "verify", mvtec, "--json").stdout)
    assert told["ok"]
    assert [check["note"] for check in told["checks"]] == [
        "12 images",
        "3 images, 3 masks",
        "2 images",
        "2 images, 2 masks",
    ]
    (mvtec / "ground_truth" / "crack" / "001_mask.png").unlink()
    paint(mvtec / "ground_truth" / "scratch" / "077_mask.png")
    shown = invoke("data", "verify", mvtec, code=3)
    assert "no mask for" in shown.stdout
    assert "no image for the mask 077_mask.png" in shown.stderr
    shutil.rmtree(mvtec / "test" / "crack")
    shutil.rmtree(mvtec / "test" / "scratch")
    assert "nothing abnormal" in invoke("data", "verify", mvtec, code=3).stderr


def test_verify_of_wrong_files(invoke: Callable[..., Any], idx_home: Path) -> None:
    """Files with another content exit with 3; the JSON is still complete."""
    done = invoke("data", "verify", "mnist", "--json", code=3)
    told = json.loads(done.stdout)
    assert not told["ok"]
    assert len(told["checks"]) == 4


def test_get_refuses_an_unknown_name(invoke: Callable[..., Any], alone: Path) -> None:
    """An unknown data set and a mirror that is no address are wrong usage."""
    assert "Did you mean mnist" in invoke("data", "get", "mnis", code=2).stderr
    assert "http" in invoke("data", "get", "mnist", "--mirror", "elsewhere", code=2).stderr


def test_get_without_a_network(invoke: Callable[..., Any], alone: Path) -> None:
    """With no mirror within reach it exits with 3 and says which files to put where."""
    told = invoke("data", "get", "mnist", "--mirror", "http://127.0.0.1:9", code=3).stderr
    assert "t10k-labels-idx1-ubyte.gz" in told
    assert str(alone / "mnist") in told


@pytest.mark.data
def test_get_path_and_verify_with_the_real_files(
    invoke: Callable[..., Any], serve: Callable[..., Any], real_data: Path, alone: Path
) -> None:
    """The real MNIST comes from a mirror into the cache, is found there, is right, and is not fetched twice."""
    files = {f"/m/{path.name}": path.read_bytes() for path in (real_data / "mnist").iterdir()}
    site = serve(files)
    told = json.loads(invoke("data", "get", "mnist", "--mirror", f"{site.url}/m", "--json").stdout)
    assert told["folder"] == str(alone / "mnist")
    assert sorted(path.name for path in (alone / "mnist").glob("[!.]*")) == sorted(name[3:] for name in files)
    assert invoke("data", "path", "mnist").stdout.strip() == told["folder"]
    assert len(site.requests) == 4
    invoke("data", "get", "mnist", "--mirror", "http://127.0.0.1:9")
    elsewhere = alone / "elsewhere"
    invoke("data", "get", "mnist", "--mirror", f"{site.url}/m", "--to", elsewhere, "--quiet")
    assert len(list((elsewhere / "mnist").glob("*.gz"))) == 4


@pytest.mark.data
def test_the_command_killed_in_the_middle_goes_on(
    command: list[str], invoke: Callable[..., Any], serve: Callable[..., Any], real_data: Path, alone: Path
) -> None:
    """`oddment data get`, killed while the largest file comes, resumes it when it is repeated."""
    site = serve({f"/{path.name}": path.read_bytes() for path in (real_data / "mnist").iterdir()}, pause=0.005)
    partial = alone / "mnist" / "train-images-idx3-ubyte.gz.partial"
    words = [*command, "data", "get", "mnist", "--mirror", site.url]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (partial.exists() and partial.stat().st_size > 100_000) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
    kept = partial.stat().st_size
    assert not partial.with_suffix("").exists()
    site.pause = 0.0
    invoke("data", "get", "mnist", "--mirror", site.url)
    assert ("/train-images-idx3-ubyte.gz", f"bytes={kept}-") in site.requests
    invoke("data", "verify", "mnist")


def test_the_finding_half_stays_free_of_torch() -> None:
    """Nothing here brings torch or scikit-learn."""
    program = (
        "import sys, oddment.cli.data, oddment.data.download, oddment.data.labelled, oddment.data.deepweeds\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
