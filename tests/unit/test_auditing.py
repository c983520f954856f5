"""`oddment audit`: scores by models that never saw the image, what is selected, and whatever else is found."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import spearmanr

from oddment.auditing import AuditOptions, Rule, audit_images
from oddment.auditing.checks import find_oddities
from oddment.auditing.classes import classes_of, find_suspects
from oddment.auditing.core import Looks, far_distances
from oddment.auditing.crossfit import assign_parts, usual_trim
from oddment.auditing.judge import choose_images
from oddment.auditing.null import fit_null, p_of
from oddment.errors import DataError, ParameterError, TooFewImagesError
from oddment.fitting import Settings
from oddment.images.decode import decode
from oddment.images.measure import measure
from oddment.images.prepare import Preparation
from oddment.models import get_spec
from oddment.progress import Progress
from oddment.training.choosing import Choice

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Run = Callable[..., Any]


def digits(which: int, count: int) -> NDArray[np.uint8]:
    from oddment.data.sample import load_sample

    sample = load_sample("mnist-train")
    return sample.images[np.asarray(sample.labels) == which][:count]


def save(folder: Path, images: Any, name: str = "i") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{name}{index:03d}.png")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ninety ones; three eights, a copy, an inverted one and a file that is no image among them."""
    place = save(tmp_path_factory.mktemp("dirty") / "photos", digits(1, 90))
    save(place, digits(8, 3), "odd")
    shutil.copy(place / "i000.png", place / "twin.png")
    Image.fromarray(255 - digits(1, 1)[0]).save(place / "negative.png")
    (place / "broken.png").write_bytes(b"\x89PNG nothing")
    return place


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


class TestNull:
    """What normal scores look like, from the bulk of a mixture."""

    @pytest.mark.parametrize("share", [0.0, 0.1, 0.2])
    @pytest.mark.parametrize("shape", ["gaussian", "log-normal", "gamma"])
    def test_p_values_of_normal_scores_are_near_uniform(self, shape: str, share: float) -> None:
        """With up to a fifth of anomalies above, at most about twice as many normal scores are called odd as should be.

        4,000 normal scores: 1 % of them are 40 ± 6.3, so that twice as many are six deviations more than chance makes;
        the rest is for the family not being the true one. Where anomalies stretch the bulk, too few are called odd.
        """
        rng = np.random.default_rng(5)
        draw: dict[str, Any] = {
            "gaussian": lambda n: rng.normal(5, 1, n),
            "log-normal": lambda n: rng.lognormal(0, 0.5, n),
            "gamma": lambda n: rng.gamma(6, 1, n),
        }
        normal = draw[shape](4_000)
        odd = normal.max() + rng.random(round(share * 4_000 / (1 - share))) * normal.std() * 5
        found = fit_null(np.concatenate([normal, odd]))
        for level in (0.01, 0.05, 0.2):
            assert level / 8 < (found.p_values(normal) <= level).mean() < level * 2.2
        assert found.normal == pytest.approx(1 - share, abs=0.03)

    @settings(deadline=None)
    @given(st.lists(st.floats(0, 1e6), min_size=20, max_size=60), st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
    def test_it_moves_with_the_unit(self, scores: list[float], scale: float, shift: float) -> None:
        """P-values fall as scores rise, lie in (0, 1], and do not depend on the unit or the zero of the scores."""
        values = np.round(np.array(scores), 3)
        p = fit_null(values).p_values(values)
        assert ((p > 0) & (p <= 1)).all()
        order = np.argsort(values)
        assert (np.diff(p[order]) <= 1e-12).all()
        if np.quantile(values, 0.8) - np.quantile(values, 0.1) > 1:
            moved = values * scale + shift
            assert fit_null(moved).p_values(moved) == pytest.approx(p, rel=1e-3, abs=1e-9)

    def test_too_few(self) -> None:
        """Below twenty scores it refuses and says what to do."""
        with pytest.raises(TooFewImagesError, match=r"19 images are too few.*--top"):
            fit_null(np.arange(19.0))


class TestParts:
    """Who scores whom."""

    @given(st.lists(st.integers(0, 30), min_size=1, max_size=80), st.integers(2, 6), st.integers(0, 5))
    def test_groups_stay_together(self, labels: list[int], parts: int, seed: int) -> None:
        """A group is in one part, every image in some part, and no part is larger than needed by more than a group."""
        groups = np.array(labels, dtype=np.int64)
        assigned = assign_parts(groups, parts, seed=seed)
        assert set(assigned.tolist()) <= set(range(parts))
        for name in np.unique(groups):
            assert len(set(assigned[groups == name].tolist())) == 1
        sizes = np.bincount(assigned, minlength=parts)
        assert sizes.max() - sizes.min() <= np.bincount(groups).max()


class TestLooks:
    """How far an image is from others that have company."""

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 2**32 - 1), count=st.integers(8, 60), parts=st.integers(2, 4))
    def test_it_is_what_it_says(self, seed: int, count: int, parts: int) -> None:
        """The mean of the five least of max(distance, company), over images of other parts."""
        rng = np.random.default_rng(seed)
        points = rng.normal(size=(count, 3)).astype(np.float32)
        [company] = far_distances(points, seed=0, shares=(0.2,))
        assigned = np.arange(count) % parts
        found = Looks(points, company, assigned, 0).of_members()
        squares = np.square(points[:, None] - points[None]).sum(axis=2)
        for index in range(count):
            others = assigned != assigned[index]
            reached = np.sort(np.maximum(squares[index, others], company[others]))[:5]
            assert found[index] == pytest.approx(reached.mean(), rel=1e-3, abs=1e-4)

    def test_a_few_of_a_kind_do_not_vouch_for_each_other(self) -> None:
        """Ten equal images far from a hundred others are odder than any of those."""
        rng = np.random.default_rng(0)
        points = np.concatenate([rng.normal(size=(600, 4)), np.full((10, 4), 6.0)]).astype(np.float32)
        [company] = far_distances(points, seed=0, shares=(0.02,))
        found = Looks(points, company, np.arange(610) % 5, 0).of_members()
        assert found[600:].min() > found[:600].max()
        near = np.sort(np.square(points[600:, None] - points[None]).sum(axis=2), axis=1)[:, 1:6].mean(axis=1)
        assert near.max() == 0  # what the nearest alone would say


class TestRules:
    """Which images are selected."""

    @given(st.lists(st.floats(-8, 40), min_size=1, max_size=60), st.data())
    def test_the_threshold_separates(self, values: list[float], data: Any) -> None:
        """Selected is what scores above the threshold, nothing else, whatever the rule; equal scores share a fate."""
        scores = np.array(values)
        rule = data.draw(
            st.one_of(
                st.builds(Rule, st.just("fdr"), st.floats(0.01, 0.5)),
                st.builds(Rule, st.just("quantile"), st.floats(0.01, 0.99)),
                st.builds(Rule, st.just("top"), st.integers(1, 70)),
                st.builds(Rule, st.just("threshold"), st.floats(-8, 40)),
            )
        )
        chosen = choose_images(scores, p_of(scores), rule)
        assert (chosen.selected == (scores > chosen.threshold)).all()
        if rule.kind == "top":
            assert chosen.count >= min(rule.value, len(scores))

    @pytest.mark.parametrize(("kind", "value"), [("fdr", 0), ("fdr", 1), ("quantile", 1.5), ("top", 0)])
    def test_wrong_values(self, kind: Any, value: float) -> None:
        """The message names the rule."""
        with pytest.raises(ParameterError, match=kind):
            Rule(kind, value)


class TestClasses:
    """Folders that are classes."""

    def test_the_first_folder_that_differs(self) -> None:
        """Whatever lies above it, and inside an archive too."""
        paths = [
            f"data/train/{name}/{deep}{i}.png" for name in ("cat", "dog") for i in range(30) for deep in ("", "a/")
        ]
        assert set(classes_of(paths, ["data"]) or ()) == {"cat", "dog"}
        packed = [path.replace("data/", "x.zip!/") for path in paths]
        assert set(classes_of(packed, ["x.zip"]) or ()) == {"cat", "dog"}

    def test_no_classes(self) -> None:
        """Images at the top, one folder only, or too few in one: no classes."""
        many = [f"d/a/{i}.png" for i in range(40)]
        assert classes_of([*many, "d/top.png"], ["d"]) is None
        assert classes_of(many, ["d"]) is None
        assert classes_of([*many, *(f"d/b/{i}.png" for i in range(29))], ["d"]) is None
        assert classes_of([], ["d"]) is None

    def test_suspects(self) -> None:
        """Odd at home and at home elsewhere; the clearest first."""
        found = find_suspects(
            ["a", "b", "c"], ["x", "x", "x"], [0.001, 0.001, 0.5], {0: {"y": 0.2}, 1: {"y": 0.9, "z": 0.1}, 2: {"y": 1}}
        )
        assert [(item.path, item.fits) for item in found] == [("b", "y"), ("a", "y")]


class TestChecks:
    """Plain facts."""

    def test_measures(self) -> None:
        """Brightness and contrast are what they say; blur lowers the sharpness, contrast and brightness leave it."""
        rng = np.random.default_rng(0)
        sharp = rng.integers(0, 128, (64, 64), dtype=np.uint8)
        from PIL import ImageFilter

        blurred = np.asarray(Image.fromarray(sharp).filter(ImageFilter.GaussianBlur(2)))
        first, second = measure(decode(sharp)), measure(decode(blurred))
        assert first.brightness == pytest.approx(sharp.mean() / 255)
        assert first.contrast == pytest.approx(sharp.std() / 255)
        assert second.sharpness < first.sharpness - 0.5
        assert measure(decode(sharp // 2 + 100)).sharpness == pytest.approx(first.sharpness, abs=0.02)
        assert measure(decode(np.full((9, 9), 7, np.uint8))).sharpness == -6
        assert not measure(decode(np.stack([sharp] * 3, axis=2))).colour
        assert measure(decode(np.stack([sharp, sharp // 2, sharp // 3], axis=2))).colour

    def test_oddities(self) -> None:
        """One image of another size, one dark, one blank, one in colour, one deep: each is named, and only they."""
        rng = np.random.default_rng(1)
        images: list[Any] = [rng.integers(90, 160, (32, 32), dtype=np.uint8) for _ in range(40)]
        images[3] = rng.integers(90, 160, (40, 32), dtype=np.uint8)
        images[7] = images[7] // 8
        images[11] = np.full((32, 32), 125, np.uint8)
        images[13] = np.stack([images[13], images[13] // 2, images[13] // 3], axis=2)
        images[17] = images[17].astype(np.uint16) * 257
        found = find_oddities([str(index) for index in range(40)], [measure(decode(image)) for image in images])
        named = {(item.path, item.check) for item in found}
        assert {("3", "size"), ("7", "brightness"), ("11", "blank"), ("13", "colour"), ("17", "depth")} <= named
        assert {item.path for item in found} == {"3", "7", "11", "13", "17"}
        assert find_oddities([], []) == []


SETTINGS = Settings(model="pca", device="cpu")


class TestAudit:
    """The whole way on a small dirty folder."""

    def test_it_finds_what_is_odd(self, folder: Path) -> None:
        """Eights and the negative lead the ranking; copies and the broken file are named."""
        done = audit_images([folder], SETTINGS, AuditOptions())
        order = [Path(done.collection.paths[index]).name for index in np.argsort(-done.scores)]
        assert order[0] == "negative.png"
        assert {"odd000.png", "odd001.png", "odd002.png"} <= set(order[:10])
        selected = np.array(order[: done.chosen.count])
        assert "negative.png" in selected
        assert [item.path.rsplit("/", 1)[-1] for item in done.collection.rejections] == ["broken.png"]
        exact = [item for item in done.duplicates if item.exact]
        assert [{Path(path).name for path in item.paths} for item in exact] == [{"i000.png", "twin.png"}]
        assert "negative.png" in {Path(item.path).name for item in done.oddities}

    def test_no_image_is_scored_by_a_model_that_saw_it_or_its_copy(self, folder: Path) -> None:
        """A nearest neighbour would be at distance 0; and the copy is in the same part."""
        done = audit_images([folder], Settings(model="knn", options={"k": 1}, device="cpu"), AuditOptions(trim=0))
        names = [Path(path).name for path in done.collection.paths]
        crossed = done.judged[0].crossed
        assert crossed.parts[names.index("i000.png")] == crossed.parts[names.index("twin.png")]
        assert crossed.scores.min() > 0

    def test_an_image_from_elsewhere_is_judged_as_one_of_a_part(self, folder: Path) -> None:
        """What the judge of a part says of the part's own images is what they scored."""
        done = audit_images([folder], Settings(device="cpu"), AuditOptions())
        judged = done.judged[0]
        assert judged.crossed.looks is not None
        for part, scores in judged.judge(done.choice, done.collection, judged.members):
            own = judged.crossed.parts == part
            np.testing.assert_allclose(scores[own], judged.scores[own], atol=0.02)  # inputs are kept in half precision

    def test_a_model_that_is_asked_for_decides_alone(self, folder: Path) -> None:
        """Looks are a second opinion where the model was chosen, and where something is left out of training."""
        for asked, trim in (("knn", 0.2), ("auto", 0.0)):
            done = audit_images([folder], Settings(model=asked, device="cpu"), AuditOptions(trim=trim))
            assert done.judged[0].crossed.looks is None

    def test_nothing_is_forgiven_unless_it_is_asked_for(self, folder: Path) -> None:
        """What trains is a choice of usual images: how those are framed says too little about the rest."""
        given: tuple[dict[str, float], ...] = ({}, {"forgive": 0.0}, {"forgive": 8.0})
        asked = [Settings(model="gradient-memory", options=options, device="cpu") for options in given]
        plain, none, some = (audit_images([folder], settings, AuditOptions()).scores for settings in asked)
        assert (plain == none).all()
        assert np.abs(plain - some).max() > 0.1

    def test_exposure_counts_no_more_where_it_is_standardised(self, tmp_path: Path) -> None:
        """Pictures that were dimmed by chance keep their order with the setting, and lose it without."""
        rng = np.random.default_rng(0)
        base = rng.integers(0, 256, (60, 16, 16)) * 0.3 + 120 * np.eye(16)
        dimmed = base * rng.uniform(0.3, 1.0, (60, 1, 1))
        scores = {}
        for name, images in (("even", base), ("dimmed", dimmed)):
            (tmp_path / name).mkdir()
            for number, image in enumerate(images):
                Image.fromarray(image.round().astype(np.uint8)).save(tmp_path / name / f"{number:02}.png")
            for standardised in (True, False):
                asked = Settings(model="pca", device="cpu", standardise_exposure=standardised)
                scores[name, standardised] = audit_images([tmp_path / name], asked, AuditOptions(trim=0)).scores

        def agreement(standardised: bool) -> float:
            found: float = spearmanr(scores["even", standardised], scores["dimmed", standardised]).statistic
            return found

        assert agreement(True) > 0.95
        assert agreement(False) < 0.8

    def test_the_rounds_are_told_apart(self, folder: Path) -> None:
        """Whoever waits sees which of two rounds it is; one that is alone has no name."""
        for asked, named in (("auto", True), ("pca", False)):
            told: list[str] = []

            class Heard(Progress):
                def update(self, done: float, note: str = "", told: list[str] = told) -> None:  # noqa: ARG002
                    told.append(note)

            audit_images([folder], Settings(model=asked, device="cpu"), AuditOptions(parts=2), progress=Heard())
            rounds = {note.partition(",")[0] for note in told if "model 1 of 2" in note}
            assert rounds == ({"first round", "second round"} if named else {"model 1 of 2"})

    def test_same_seed_same_scores(self, folder: Path) -> None:
        """To the last bit."""
        first, second = (audit_images([folder], SETTINGS, AuditOptions()) for _ in range(2))
        assert (first.scores == second.scores).all()

    def test_what_looked_odd_does_not_train(self, folder: Path) -> None:
        """It is left out, and scored all the same; nothing is with trim=0."""
        done = audit_images([folder], SETTINGS, AuditOptions(trim=0.1))
        trimmed = {Path(done.collection.paths[index]).name for index in np.flatnonzero(done.judged[0].crossed.trimmed)}
        assert "negative.png" in trimmed
        assert np.isfinite(done.scores).all()
        assert not audit_images([folder], SETTINGS, AuditOptions(trim=0)).judged[0].crossed.trimmed.any()

    @pytest.mark.parametrize(
        ("model", "side", "share"),
        [("gradient-memory", 28, 0.2), ("photograph-memory", 128, 0.0), ("conv-large", 128, 0.2)],
    )
    def test_photographs_in_a_memory_all_train(self, model: str, side: int, share: float) -> None:
        """Of small pictures, and where a network trains, a fifth is left out; it can be asked for otherwise."""
        assert usual_trim(Choice(get_spec(model), Preparation(side, side, 1), "")) == share

    @pytest.mark.parametrize(("trim", "forgives"), [(None, True), (0.2, False)])
    def test_forgives_where_all_train(
        self, trim: float | None, forgives: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What framing changes among the usual ones alone says too little; among all photographs it does not."""
        seen: list[Any] = []

        def caught(*args: Any, **kwargs: Any) -> Any:
            seen.append(args[4].options.get("forgive", 8.0))
            raise KeyboardInterrupt

        monkeypatch.setattr("oddment.auditing.run.cross_fit", caught)
        photographs = save(tmp_path, np.random.default_rng(0).integers(0, 256, (24, 100, 120), np.uint8))
        with pytest.raises(KeyboardInterrupt):
            audit_images([photographs], Settings(model="photograph-memory", device="cpu"), AuditOptions(trim=trim))
        assert seen == [8.0 if forgives else 0.0]

    def test_a_reference_makes_the_p_values_conformal(self, folder: Path, tmp_path: Path) -> None:
        """Whole multiples of 1 / (n + 1), never smaller; and the rule then promises."""
        known = save(tmp_path / "known", digits(1, 200)[90:])
        done = audit_images([folder], SETTINGS, AuditOptions(), reference=[known])
        n = len(list(known.iterdir()))
        counts = done.p_values * (n + 1)
        assert counts == pytest.approx(np.round(counts))
        assert counts.min() >= 1
        assert done.chosen.reference == n
        assert "at most 0.1 are normal" in done.chosen.describe()

    def test_a_reference_that_cannot_help_is_named(self, folder: Path, tmp_path: Path) -> None:
        """Too few for any selection, too few for a single image, and images that were audited themselves."""
        few = save(tmp_path / "few", digits(1, 200)[90:95])
        (note,) = audit_images([folder], SETTINGS, AuditOptions(trim=0), reference=[few]).notes[-1:]
        assert "5 reference images are too few for fdr=0.1: nothing can be selected" in note
        more = save(tmp_path / "more", digits(1, 200)[90:])
        shutil.copy(folder / "i003.png", more / "seen.png")
        coarse, shared = audit_images([folder], SETTINGS, AuditOptions(trim=0), reference=[more]).notes[-2:]
        n, batch = len(list(more.iterdir())), 95
        assert f"none is selected, or at least {int(np.ceil(batch / (0.1 * (n + 1))))} together" in coarse
        assert shared.startswith(f"1 of the {n} reference images lie in the audited folder")

    def test_classes_and_wrong_labels(self, tmp_path: Path) -> None:
        """An eight among the ones is a suspect for the eights; each class is judged by itself."""
        save(tmp_path / "d" / "one", digits(1, 45))
        save(tmp_path / "d" / "eight", digits(8, 41)[1:])
        save(tmp_path / "d" / "one", digits(8, 1), "lost")
        done = audit_images([tmp_path / "d"], SETTINGS, AuditOptions())
        assert [item.name for item in done.judged] == ["eight", "one"]
        assert ("lost000.png", "one", "eight") in {(Path(s.path).name, s.given, s.fits) for s in done.suspects}
        together = audit_images([tmp_path / "d"], SETTINGS, AuditOptions(classes=False))
        assert [item.name for item in together.judged] == [""]
        assert together.suspects == ()
        with pytest.raises(ParameterError, match="--no-classes"):
            audit_images([tmp_path / "d"], SETTINGS, AuditOptions(), reference=[tmp_path / "d" / "one"])

    def test_leaks(self, tmp_path: Path) -> None:
        """A copy is an exact leak, a slightly brighter one a near leak, another picture none; and so are duplicates."""
        rng = np.random.default_rng(3)
        large = [np.kron(rng.integers(0, 200, (8, 8)), np.ones((10, 10))).astype(np.uint8) for _ in range(34)]
        here, test = save(tmp_path / "here", large[:30]), save(tmp_path / "test", large[30:], "t")
        shutil.copy(here / "i004.png", test / "copy.png")
        Image.fromarray(large[7] + 3).save(test / "brighter.png")
        Image.fromarray(large[9] + 3).save(here / "alike.png")
        done = audit_images([here], SETTINGS, AuditOptions(trim=0), against=[test])
        found = {(Path(item.path).name, Path(item.other).name, item.exact) for item in done.leaks}
        assert found == {("i004.png", "copy.png", True), ("i007.png", "brighter.png", False)}
        (alike,) = done.duplicates
        assert ({Path(path).name for path in alike.paths}, alike.exact) == ({"i009.png", "alike.png"}, False)

    def test_refusals(self, folder: Path, tmp_path: Path) -> None:
        """No images, too few, tiles, classes that are none: each in words."""
        few = save(tmp_path / "few", digits(1, 5))
        with pytest.raises(TooFewImagesError, match="5 usable images are too few"):
            audit_images([few], SETTINGS, AuditOptions())
        (tmp_path / "none").mkdir()
        with pytest.raises(DataError, match=r"there are no images in .*none"):
            audit_images([tmp_path / "none"], SETTINGS, AuditOptions())
        with pytest.raises(ParameterError, match="tile"):
            audit_images([folder], Settings(fit="tile", device="cpu"), AuditOptions())
        with pytest.raises(ParameterError, match="--classes needs"):
            audit_images([folder], SETTINGS, AuditOptions(classes=True))
        with pytest.raises(ParameterError, match=r"parts.*trim"):
            AuditOptions(parts=1, trim=0.7)


class TestCommand:
    """`oddment audit` on the command line."""

    def test_files(self, folder: Path, tmp_path: Path, invoke: Run) -> None:
        """Tables of a search's columns, lists of the rest, and JSON that agrees with them."""
        out = tmp_path / "out"
        told = json.loads(invoke("audit", folder, "-o", out, "--model", "pca", "--json").stdout)
        rows = rows_of(out / "results.csv")
        from oddment.results import COLUMNS

        assert tuple(rows[0]) == COLUMNS
        assert len(rows) == 96
        selected = {row["path"] for row in rows if row["is_anomaly"] == "true"}
        assert told["selected"] == len(selected)
        clean = set((out / "clean.txt").read_text(encoding="utf-8").splitlines())
        assert clean == {row["path"] for row in rows if row["is_anomaly"] == "false"}
        lines = [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]
        assert [line["path"] for line in lines] == [row["path"] for row in rows]
        assert {row["kind"] for row in rows_of(out / "duplicates.csv")} >= {"exact"}
        assert any(row["path"].endswith("negative.png") for row in rows_of(out / "checks.csv"))
        assert not (out / "audit.partial").exists()
        page = (out / "report.html").read_text(encoding="utf-8")
        assert "Plain facts that stand out" in page
        assert "What ordinary images should have" in page
        assert "the higher of the two" not in page

    def test_a_report_says_when_looks_counted(self, folder: Path, tmp_path: Path, invoke: Run) -> None:
        """A model that was chosen is not the only one that scores; the report says so, and what its heat maps show."""
        invoke("audit", folder, "-o", tmp_path)
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert "its score is the higher of the two, and its heat map shows what the model alone says" in page

    def test_a_copy_of_the_clean_ones(self, folder: Path, tmp_path: Path, invoke: Run) -> None:
        """--apply-to copies what was not selected, changes nothing at the source and overwrites nothing."""
        before = sorted(path.name for path in folder.iterdir())
        words = (
            "audit",
            folder,
            "-o",
            tmp_path / "out",
            "--model",
            "pca",
            "--top",
            4,
            "--apply-to",
            tmp_path / "clean",
        )
        invoke(*words)
        clean = {path.name for path in (tmp_path / "clean").iterdir()}
        odd = {
            Path(row["path"]).name for row in rows_of(tmp_path / "out" / "results.csv") if row["is_anomaly"] == "true"
        }
        assert len(odd) == 4
        assert clean == set(before) - odd - {"broken.png"}
        assert sorted(path.name for path in folder.iterdir()) == before
        assert (tmp_path / "clean" / "i007.png").read_bytes() == (folder / "i007.png").read_bytes()
        assert "not empty" in invoke(*words, code=3).stderr

    def test_an_interrupted_audit_goes_on(
        self, folder: Path, tmp_path: Path, invoke: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What was fitted is not fitted again, and the result is that of an audit without interruption."""
        import oddment.auditing.crossfit as module

        real, fits = module.fit_graph, []

        def counted(*given: Any, **named: Any) -> bytes:
            if len(fits) == 3:
                raise KeyboardInterrupt
            fits.append(1)
            return real(*given, **named)

        words = ("audit", folder, "-o", tmp_path / "out", "--model", "pca")
        monkeypatch.setattr(module, "fit_graph", counted)
        assert "--resume" in invoke(*words, code=130).stderr
        assert "--resume" in invoke(*words, code=3).stderr
        fits.clear()
        monkeypatch.setattr(module, "fit_graph", lambda *given, **named: (fits.append(1), real(*given, **named))[1])
        assert "other options" in invoke(*words, "--resume", "--seed", 1, code=3).stderr
        invoke(*words, "--resume")
        invoke("audit", folder, "-o", tmp_path / "whole", "--model", "pca")
        assert len(fits) == 7
        assert (tmp_path / "out" / "results.csv").read_bytes() == (tmp_path / "whole" / "results.csv").read_bytes()

    def test_what_is_wrong_is_said_before_the_work(self, folder: Path, tmp_path: Path, invoke: Run) -> None:
        """An empty folder, one without images that can be used, a target that is taken: nothing is fitted or left."""
        out, empty = tmp_path / "out", tmp_path / "empty"
        empty.mkdir()
        words = ("audit", folder, "-o", out, "--model", "pca")
        for option in ("--reference", "--against"):
            assert f"there are no images in {empty}" in invoke(*words, option, empty, code=3).stderr
            told = invoke(*words, option, folder / "broken.png", code=3).stderr
            assert "none of the images can be used" in told
            assert "broken.png: " in told
        assert "is not empty" in invoke(*words, "--apply-to", folder, code=3).stderr
        told = invoke("audit", folder / "broken.png", "-o", out, code=3).stderr
        assert "1 × not an image" in told
        assert not out.exists()

    def test_wrong_usage(self, folder: Path, tmp_path: Path, invoke: Run) -> None:
        """Two rules, a file for a folder, a folder that is not there."""
        words = ("audit", folder, "-o", tmp_path / "out")
        assert "give one of them" in invoke(*words, "--top", 3, "--fdr", 0.1, code=2).stderr
        (tmp_path / "file").touch()
        assert "is a file" in invoke("audit", folder, "-o", tmp_path / "file", code=2).stderr
        assert "nowhere" in invoke("audit", tmp_path / "nowhere", "-o", tmp_path / "out", code=2).stderr
