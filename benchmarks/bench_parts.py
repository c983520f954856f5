"""The parts of the speed benchmark: what is measured, how, and the target."""

from __future__ import annotations

import os
import shutil
import statistics
import sys
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from bench_tools import ANOMALIB, KERAS, PYOD, SCRIPTS, Ended, Peer, Row, Target, Worker, python_of, row, whole
from PIL import Image, ImageFilter

from oddment.data.catalog import load_arrays

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

# Where `oddment` lies: beside the interpreter that runs this.
ODDMENT = Path(sys.executable).with_name("oddment")
DISTINCT = 200  # pictures among the generated files; the others are further names of the same bytes


class Bench:
    """What the parts share: the peers' processes, the data, the size of the work.

    Args:
        cache: where environments and generated files lie.
        rounds: of everything that takes turns.
        quick: a tenth of the work.
        peers: whether peers run at all.
    """

    def __init__(self, cache: Path, *, rounds: int, quick: bool, peers: bool) -> None:
        self.cache, self.rounds, self.quick, self.with_peers = cache, rounds, quick, peers
        self.versions: dict[str, str] = {}
        self.ceiling: dict[str, float] = {}
        self._workers: dict[str, Worker | None] = {}
        self.grown: Grown | None = None

    def size(self, full: int, quick: int | None = None) -> int:
        """Return how much work a part does."""
        return (quick or max(1, full // 10)) if self.quick else full

    def worker(self, script: str, peer: Peer | None = None) -> Worker | None:
        """Return the process of a script, started on first use; None where the peer is not to be had."""
        if script not in self._workers:
            python = sys.executable if peer is None else self.python(peer)
            try:
                self._workers[script] = Worker(python, script) if python else None
            except RuntimeError as error:
                if peer is None:
                    raise
                print(f"!! {peer.name} DOES NOT START and is left out: {error}", file=sys.stderr, flush=True)
                self._workers[script] = None
            if worker := self._workers[script]:
                self.versions[script] = worker.ask("versions")["versions"]
        return self._workers[script]

    @property
    def own(self) -> Worker:
        """Oddment's process."""
        worker = self.worker("oddment_worker.py")
        assert worker is not None
        return worker

    def python(self, peer: Peer) -> str | None:
        """Return the interpreter of a peer's environment; None where there is none."""
        return python_of(peer, self.cache) if self.with_peers else None

    def rest(self) -> None:
        """End all processes, so that a whole program is timed alone."""
        for worker in self._workers.values():
            if worker:
                worker.close()
        self._workers.clear()

    close = rest

    # --- data

    @cached_property
    def digits(self) -> dict[str, Path]:
        """MNIST as arrays on disk, "train" and "test"."""
        found = {}
        for part in ("train", "test"):
            found[part] = self.cache / f"mnist-{part}.npy"
            if not found[part].exists():
                np.save(found[part], load_arrays("mnist", part).images)
        return found

    @cached_property
    def photographs(self) -> Path:
        """Photograph-like arrays uint8 (DISTINCT, 256, 256, 3)."""
        path = self.cache / "photographs.npy"
        if not path.exists():
            np.save(path, np.stack([picture(256, 3, seed) for seed in range(DISTINCT)]))
        return path

    def folder(self, count: int, side: int, channels: int, suffix: str) -> Path:
        """Return a folder of that many images: DISTINCT different ones, under as many names as it takes."""
        folder = self.cache / f"{suffix[1:]}-{side}-{channels}-{count}"
        if (folder / ".done").exists():
            return folder
        shutil.rmtree(folder, ignore_errors=True)
        sources = self.sources(side, channels, suffix)
        for index in range(count):
            target = folder / f"{index // 1000:03}"
            target.mkdir(parents=True, exist_ok=True)
            os.link(sources / f"{index % DISTINCT:05}{suffix}", target / f"{index:06}{suffix}")
        (folder / ".done").touch()
        return folder

    def sources(self, side: int, channels: int, suffix: str) -> Path:
        """Return a folder of DISTINCT different images."""
        sources = self.cache / f"{suffix[1:]}-{side}-{channels}-sources"
        sources.mkdir(exist_ok=True)
        for seed in range(DISTINCT):
            path = sources / f"{seed:05}{suffix}"
            if not path.exists():
                Image.fromarray(picture(side, channels, seed).squeeze()).save(path, quality=90)
        return sources

    def model(self, name: str, images: Path, *, size: int | None = None) -> Path:
        """Return a model file, fitted for a few epochs: how fast it scores does not depend on how well."""
        path = self.cache / f"{name}-{size or 'own'}-{images.stem}.oddment"
        self.own.ask("make_model", name=name, images=str(images), path=str(path), size=size)
        return path


def picture(side: int, channels: int, seed: int) -> NDArray[np.uint8]:
    """Return a smooth texture with some noise, which a JPEG file takes about as many bytes for as for a photograph."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (side // 8, side // 8, channels), np.uint8)
    image = Image.fromarray(coarse.squeeze()).resize((side, side), Image.Resampling.BICUBIC)
    smooth = np.asarray(image.filter(ImageFilter.GaussianBlur(1))).reshape(side, side, channels)
    return np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)


# --- in processes that take turns


def ceilings(bench: Bench) -> list[Row]:
    """Matrix products, memory, decoding: what this machine gives in this hour."""
    seen = [bench.own.ask("ceilings") for _ in range(3)]
    bench.ceiling = {name: max(item[name] for item in seen) for name in seen[0]}
    return [
        row("ceilings", "matrix product, float32", [item["float32"] for item in seen], "GFLOP/s"),
        row("ceilings", "matrix product, bfloat16", [item["bfloat16"] for item in seen], "GFLOP/s"),
        row("ceilings", "memory, read and written", [item["bandwidth"] for item in seen], "GB/s"),
    ]


def take_turns(turns: dict[str, Callable[[], dict[str, Any]]], rounds: int) -> dict[str, list[Any]]:
    """Return the answers of each, round by round, in an order that alternates."""
    seen: dict[str, list[Any]] = {name: [] for name in turns}
    for number in range(rounds):
        for name in list(turns)[:: 1 if number % 2 else -1]:
            seen[name].append(turns[name]())
    return seen


def rates(answers: list[Any]) -> list[float]:
    """Return images per second of each round."""
    return [item["images"] / item["seconds"] for item in answers]


def ratios(answers: list[Any], others: list[Any]) -> list[float]:
    """Return how many times as fast as the others, of each round."""
    return [mine / theirs for mine, theirs in zip(rates(answers), rates(others), strict=True)]


def by_processor(answers: list[Any], others: list[Any]) -> str:
    """Return how much less processor time it took than the others, which other work on the machine hardly disturbs."""
    found = [other["cpu"] / mine["cpu"] for mine, other in zip(answers, others, strict=True)]
    return f"by processor time {statistics.median(found):.3g} ×"


def training(
    bench: Bench,
    part: str,
    name: str,
    images: Path,
    held: Path,
    count: int,
    target: Target | None,
    *,
    epochs: int = 10,
    own_epochs: int | None = None,
) -> list[Row]:
    """Train the same network in turns, an epoch each; rates with validation, losses after the last epoch.

    With `own_epochs`, Oddment takes so many, at its own rate and schedule, and what is compared is the time to the end:
    it counts where the loss there is no higher. Without, both take the same steps at Keras's rate.
    """
    asked = {"name": name, "images": str(images), "held": str(held), "count": count}
    asked["batch"] = 32 if name == "conv-strided-deep" else 64
    keras = bench.worker("keras_worker.py", KERAS)
    bench.own.ask("train", **asked, epochs=own_epochs or epochs, own_rate=own_epochs is not None)
    if keras:
        keras.ask("train", **asked, epochs=epochs)
    own: list[Any] = []
    theirs: list[Any] = []
    for number in range(epochs):
        if number < (own_epochs or epochs):
            own.append(bench.own.ask("epoch"))
        if keras:
            theirs.append(keras.ask("epoch"))
    rows = [row(part, f"{name}: oddment trains", rates(own), "images/s")]
    if keras:
        losses = own[-1]["loss"], theirs[-1]["loss"]
        note = f"validation loss oddment {losses[0]:.5f} in {len(own)} epochs, keras {losses[1]:.5f} in {len(theirs)}"
        each = ratios(own, theirs[: len(own)])
        whole = sum(item["seconds"] for item in theirs) / sum(item["seconds"] for item in own)
        processor = sum(item["cpu"] for item in theirs) / sum(item["cpu"] for item in own)
        text = f"{note}; by processor time {processor:.3g} ×"
        rows += [
            row(part, f"{name}: keras trains", rates(theirs), "images/s"),
            row(part, f"{name}: an epoch, × Keras", each, "×"),
            row(
                part, f"{name}: to Keras's loss, × Keras", [whole], "×", target, note=text, worse=losses[0] > losses[1]
            ),
        ]
    if bench.ceiling and name.startswith("conv"):
        # Forward and twice that back, and forward once for what is watched, whose time counts as well.
        passes = 3 + own[0]["watched"] / own[0]["images"]
        rows.append(of_ceiling(bench, part, name, own, passes=passes, colour=images == bench.photographs))
    return rows


def of_ceiling(
    bench: Bench, part: str, name: str, answers: list[Any], *, passes: float, colour: bool, target: Target | None = None
) -> Row:
    """Return the share of the float32 matrix product that the network's operations, as written down, were done at.

    Args:
        bench: with its ceilings.
        part: of the benchmark.
        name: of the model.
        answers: of each round.
        passes: how often each image goes through the network; back counts twice.
        colour: 256×256 in colour, else digits.
        target: for the row.
    """
    side, channels = (256, 3) if colour else (28, 1)
    one = bench.own.ask("flops", name=name, side=side, channels=channels)["flops"] * passes
    shares = [100 * rate * one / (bench.ceiling["float32"] * 1e9) for rate in rates(answers)]
    training = passes >= 3
    target = target or (Target(60) if name == "conv-pooling" and training else None)
    what = "training" if training else "scoring"
    return row(part, f"{name}: {what}, of the float32 matrix product", shares, "%", target)


def train_dense(bench: Bench) -> list[Row]:
    """System 1's dense models; PyOD's beside the first."""
    rows: list[Row] = []
    data = (bench.digits["train"], bench.digits["test"], bench.size(60_000))
    for name, least, epochs in (("dense", 8, 4), ("dense-deep", 6, 6)):
        rows += training(bench, "train-dense", name, *data, Target(least), own_epochs=epochs)
    pyod = bench.worker("pyod_worker.py", PYOD)
    if pyod:
        asked = {"images": str(bench.digits["train"]), "count": bench.size(6000, 1000), "batch": 64}
        seen = [pyod.ask("epoch", **asked) for _ in range(min(3, bench.rounds))]
        rows.append(row("train-dense", "dense: PyOD's AutoEncoder trains", rates(seen), "images/s"))
    return rows


def train_conv(bench: Bench) -> list[Row]:
    """System 1's convolutional model, whose original ends at black pictures: Keras's loss is that of those."""
    return training(
        bench,
        "train-conv",
        "conv-pooling",
        bench.digits["train"],
        bench.digits["test"],
        bench.size(20_000, 2000),
        Target(4),
        own_epochs=2,
    )


def large(bench: Bench) -> list[Row]:
    """System 4's network at 256×256 in colour: the large network that both can build."""
    name, images = "conv-strided-deep", bench.photographs
    count = bench.size(96, 32)
    rows = training(bench, "large", name, images, images, count, Target(2), epochs=bench.size(5, 2))
    return rows + scoring(bench, "large", name, images, bench.size(64, 32), Target(2), colour=True)


def scoring(
    bench: Bench, part: str, name: str, images: Path, count: int, target: Target, *, colour: bool = False
) -> list[Row]:
    """Score the same arrays in turns."""
    path = bench.model(name, images)
    asked = {"images": str(images), "count": count}
    batch = bench.own.ask("make_model", name=name, images=str(images), path=str(path))["batch"]
    turns: dict[str, Callable[[], dict[str, Any]]] = {
        "oddment": lambda: bench.own.ask("score", path=str(path), **asked)
    }
    keras = bench.worker("keras_worker.py", KERAS)
    if keras:
        turns["keras"] = lambda: keras.ask("score", name=name, batch=batch, **asked)
    pyod = bench.worker("pyod_worker.py", PYOD) if name == "dense" else None
    if pyod:
        turns["pyod"] = lambda: pyod.ask("score", **asked)
    # Its networks are others; what is compared is how fast it says what is odd in such a picture at all.
    anomalib = bench.worker("anomalib_worker.py", ANOMALIB) if colour else None
    if anomalib:
        turns["anomalib's PaDiM with ResNet-18"] = lambda: anomalib.ask("score", **asked)
    for turn in turns.values():
        turn()  # the first traces and allocates
    seen = take_turns(turns, bench.rounds)
    rows = [row(part, f"{name}: {who} scores {count:,} arrays", rates(a), "images/s") for who, a in seen.items()]
    if keras:
        found, note = ratios(seen["oddment"], seen["keras"]), by_processor(seen["oddment"], seen["keras"])
        rows.append(row(part, f"{name}: scoring, × Keras", found, "×", target, note=note))
    if name.startswith("conv"):
        least = Target(75) if name == "conv-pooling" else None
        rows.append(of_ceiling(bench, part, name, seen["oddment"], passes=1, colour=colour, target=least))
    return rows


def score(bench: Bench) -> list[Row]:
    """System 1's models on the 10,000 digits of the test set."""
    rows: list[Row] = []
    for name, least in (("dense", 10), ("dense-deep", 10), ("conv-pooling", 4)):
        rows += scoring(bench, "score", name, bench.digits["test"], bench.size(10_000), Target(least))
    return rows


def overhead(bench: Bench) -> list[Row]:
    """The training loop beside the same steps by hand."""
    rows: list[Row] = []
    for name in ("dense", "conv-pooling"):
        asked: dict[str, Any] = {
            "name": name,
            "images": str(bench.digits["train"]),
            "held": str(bench.digits["test"]),
            "count": bench.size(20_000 if name == "dense" else 6000),
            "epochs": bench.rounds,
            "batch": 64,
            "precision": "float32",
        }
        other = Worker(sys.executable, "oddment_worker.py")
        try:
            bench.own.ask("train", **asked)
            other.ask("by_hand", **asked)
            turns = {"oddment": partial(bench.own.ask, "epoch"), "hand": partial(other.ask, "epoch")}
            seen = take_turns(turns, bench.rounds)
        finally:
            other.close()
        more = [100 / value - 100 for value in ratios(seen["oddment"], seen["hand"])]
        rows += [
            row("overhead", f"{name}: by hand", rates(seen["hand"]), "images/s"),
            row("overhead", f"{name}: the loop", rates(seen["oddment"]), "images/s"),
            row("overhead", f"{name}: time of the loop over the same by hand", more, "%", Target(10, least=False)),
        ]
    return rows


# --- whole programs


def find_once(bench: Bench, model: Path, folder: Path, *more: str) -> Ended:
    """Run `oddment find` over a folder."""
    out = bench.cache / "out"
    shutil.rmtree(out, ignore_errors=True)
    return whole(ODDMENT, "find", folder, "-m", model, "-o", out, "--quiet", *more)


def find(bench: Bench) -> list[Row]:
    """A search over JPEG files of 256×256, against what decoding and scoring alone allow."""
    rows: list[Row] = []
    cores = os.cpu_count() or 1
    for name, size, count in (("conv-small", 64, bench.size(20_000)), ("conv-large", 128, bench.size(20_000, 300))):
        folder = bench.folder(count, 256, 3, ".jpg")
        model = bench.model(name, bench.sources(256, 3, ".jpg"), size=size)
        asked = {"path": str(model), "folder": str(folder)}
        shares, busy, speeds, decoding, graph = [], [], [], [], []
        for _ in range(bench.rounds):
            alone = bench.own.ask("decode_only", count=min(count, 4000), **asked)
            scored = bench.own.ask("score_only", count=min(count, 4000), **asked)
            ended = find_once(bench, model, folder)
            needed = alone["cpu"] / alone["images"] + scored["cpu"] / scored["images"]
            allowed = cores / needed
            decoding.append(alone["images"] / alone["seconds"])
            graph.append(scored["images"] / scored["seconds"])
            speeds.append(count / ended.seconds)
            shares.append(100 * speeds[-1] / allowed)
            busy.append(100 * needed * count / ended.cpu)
        rows += [
            row("find", f"{name} at {size}: decoding alone, {cores} threads", decoding, "images/s"),
            row("find", f"{name} at {size}: scoring alone", graph, "images/s"),
            row("find", f"{name} at {size}: oddment find, {count:,} JPEGs of 256×256", speeds, "images/s"),
            row("find", f"{name} at {size}: of what both allow", shares, "%", Target(85)),
            row("find", f"{name} at {size}: decoding and scoring, of all its processor time", busy, "%"),
        ]
    return rows


def one_image(bench: Bench, image: Path) -> dict[str, tuple[str | Path, ...]]:
    """Return each peer's program that says whether one image is an anomaly, with a model that it can load."""
    commands: dict[str, tuple[str | Path, ...]] = {}
    some = small_folder(bench, np.load(bench.digits["test"])[:100])
    for peer, script, model, making in (
        (ANOMALIB, "anomalib_one.py", "cold.pt", lambda target: ("anomalib_one.py", image, target, "make")),
        (KERAS, "keras_one.py", "cold.keras", lambda target: ("keras_fit.py", some, target, "1")),
        (PYOD, "pyod_one.py", "cold.joblib", lambda target: ("pyod_one.py", image, target, "make")),
    ):
        python, target = bench.python(peer), bench.cache / model
        if python and not target.exists():
            first, *rest = making(target)
            whole(python, SCRIPTS / first, *rest)
        if python:
            commands[peer.name] = (python, SCRIPTS / script, image, target)
    return commands


def cold(bench: Bench) -> list[Row]:
    """One image, from nothing to the verdict."""
    image = bench.cache / "one.png"
    Image.fromarray(np.load(bench.digits["test"])[0]).save(image)
    model = bench.model("conv-pooling", bench.digits["train"])
    commands = one_image(bench, image)
    bench.rest()
    seen: dict[str, list[Ended]] = {"oddment": [], **{name: [] for name in commands}}
    for number in range(bench.rounds + 1):
        for name, command in [("oddment", ()), *commands.items()][:: 1 if number % 2 else -1]:
            ended = whole(*command) if command else find_once(bench, model, image)
            if number:  # the first reads from disk
                seen[name].append(ended)
    own = [item.seconds for item in seen["oddment"]]
    rows = [
        row("cold", "oddment find one.png, report and all", own, "s", Target(0.8, least=False)),
        row("cold", "oddment find one.png, processor", [item.cpu for item in seen["oddment"]], "s"),
        row("cold", "oddment find one.png, memory", [item.peak for item in seen["oddment"]], "MiB"),
    ]
    for name in commands:
        theirs = [item.seconds for item in seen[name]]
        shares = [mine / other for mine, other in zip(own, theirs, strict=True)]
        rows += [
            row("cold", f"{name}: one image", theirs, "s"),
            row("cold", f"oddment, of {name}", shares, "×", Target(0.2, least=False)),
        ]
    return rows


def small_folder(bench: Bench, images: NDArray[np.uint8], name: str = "small") -> Path:
    """Return a flat folder of PNG files of these images."""
    folder = bench.cache / f"{name}-{len(images)}"
    folder.mkdir(exist_ok=True)
    for index, image in enumerate(images):
        path = folder / f"{index:05}.png"
        if not path.exists():
            Image.fromarray(image).save(path)
    return folder


def fit(bench: Bench) -> list[Row]:
    """Fitting as a whole program, beside the program that does the same in Keras."""
    count, epochs = bench.size(2000), "10"
    digits = np.load(bench.digits["train"])[:count]
    large_digits = np.stack([np.asarray(Image.fromarray(image).resize((64, 64))) for image in digits])
    folder = small_folder(bench, large_digits, "fit")
    target = bench.cache / "fit.oddment"
    keras = bench.python(KERAS)
    bench.rest()
    seen: dict[str, list[Ended]] = {"oddment": [], "keras": []}
    words = ("--model", "conv-pooling", "--epochs", epochs, "--batch-size", "64", "--overwrite", "--quiet")
    for _ in range(bench.rounds):
        target.unlink(missing_ok=True)
        seen["oddment"].append(whole(ODDMENT, "fit", folder, "-o", target, *words))
        if keras:
            seen["keras"].append(whole(keras, SCRIPTS / "keras_fit.py", folder, bench.cache / "fit.keras", epochs))
    own = [item.seconds for item in seen["oddment"]]
    rows = [row("fit", f"oddment fit, {count:,} images of 64×64, conv-pooling, {epochs} epochs", own, "s")]
    if keras:
        theirs = [item.seconds for item in seen["keras"]]
        shares = [mine / other for mine, other in zip(own, theirs, strict=True)]
        rows += [
            row("fit", "the same in Keras", theirs, "s"),
            row("fit", "oddment, of Keras", shares, "×", Target(1 / 3, least=False)),
        ]
    return rows


class Grown(NamedTuple):
    """Whole programs on work of several sizes, round by round."""

    searches: dict[int, list[Ended]]
    fits: dict[int, list[Ended]]
    imports: float


def grow(bench: Bench) -> Grown:
    """Run `find` and `fit` on ten and on a hundred times the work, for memory and time alike."""
    if bench.grown is not None:
        return bench.grown
    few, many = bench.size(10_000), bench.size(100_000)
    model = bench.model("conv-small", bench.sources(64, 1, ".png"), size=64)
    folders = {count: bench.folder(count, 64, 1, ".png") for count in (few // 10, few, many)}
    bench.rest()
    searches: dict[int, list[Ended]] = {count: [] for count in folders}
    fits: dict[int, list[Ended]] = {few: [], many: []}
    target = bench.cache / "grown.oddment"
    # The files are a few pictures under many names: as near duplicates they would all be one.
    words = ("--model", "dense", "--epochs", "4", "--quiet", "--no-baseline-check", "--no-duplicates")
    for _ in range(bench.rounds):
        for count, folder in folders.items():
            searches[count].append(find_once(bench, model, folder))
        for count, ends in fits.items():
            target.unlink(missing_ok=True)
            ends.append(whole(ODDMENT, "fit", folders[count], "-o", target, *words))
    imports = whole(sys.executable, "-c", "import oddment.fitting").peak
    bench.grown = Grown(searches, fits, imports)
    return bench.grown


def memory(bench: Bench) -> list[Row]:
    """Peak memory of `find` and `fit` as the work grows."""
    grown = grow(bench)
    few, _, many = grown.searches
    data = many * 64 * 64 / 2**20
    over = [last.peak / first.peak for first, last in zip(grown.searches[few], grown.searches[many], strict=True)]
    peaks = [end.peak for end in grown.fits[many]]
    return [
        *(
            row("memory", f"find, peak with {count:,} files", [end.peak for end in ends], "MiB")
            for count, ends in grown.searches.items()
        ),
        row("memory", f"find, peak of {many:,} files over {few:,}", over, "×", Target(1.1, least=False)),
        row("memory", f"fit, peak on {many:,} images of 64×64", peaks, "MiB"),
        row(
            "memory",
            "fit, what it needs beyond its imports, of the uint8 data",
            [(peak - grown.imports) / data for peak in peaks],
            "×",
            Target(1.5, least=False),
            note=f"imports {grown.imports:.0f} MiB, data {data:.0f} MiB",
        ),
    ]


def scale(bench: Bench) -> list[Row]:
    """Time of `find` and `fit` on ten times the work."""
    grown = grow(bench)
    rows = []
    for name, ends in (("find", grown.searches), ("fit", grown.fits)):
        few, many = list(ends)[-2:]
        seconds = [end.seconds for end in ends[many]]
        grew = [last.seconds / first.seconds for first, last in zip(ends[few], ends[many], strict=True)]
        rows += [
            row("scale", f"{name}, {many:,} images", seconds, "s"),
            row("scale", f"{name}, time of {many:,} over {few:,}", grew, "×", Target(10.5, least=False)),
        ]
    return rows


PARTS: dict[str, Callable[[Bench], list[Row]]] = {
    "ceilings": ceilings,
    "train-dense": train_dense,
    "train-conv": train_conv,
    "large": large,
    "score": score,
    "overhead": overhead,
    "find": find,
    "cold": cold,
    "fit": fit,
    "memory": memory,
    "scale": scale,
}
