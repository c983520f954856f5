"""Fitting, piece by piece: what is collected, what a checkpoint keeps, when training stops."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from oddment.calibration import ThresholdRule
from oddment.errors import CheckpointError, ImageError, ParameterError, TrainingError
from oddment.fitting import Settings, fit_images
from oddment.images.files import ImageRef
from oddment.images.fingerprint import join_groups
from oddment.images.prepare import Preparation
from oddment.progress import Progress
from oddment.training.checkpoint import Checkpoint
from oddment.training.collect import collect
from oddment.training.loop import Epoch, TrainingState, pick_device, plan_epochs, stopped_early

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

QUICK = Settings(model="dense", epochs=3, rule=ThresholdRule("quantile", 0.9))


def refs_of(images: NDArray[Any]) -> Any:
    """Fresh references to an array's images each time it is called."""

    def refs() -> Iterator[ImageRef]:
        return (ImageRef(f"[{index}]", image) for index, image in enumerate(images))

    return refs


def epochs(*losses: float) -> tuple[Epoch, ...]:
    """A history with these validation losses."""
    return tuple(Epoch(number, 1.0, loss, 100.0, float(number)) for number, loss in enumerate(losses, start=1))


class TestCollect:
    """One pass over the images."""

    def test_in_order_with_reasons(self, digits: NDArray[Any]) -> None:
        """Usable images keep their order and names; the others come with their reason."""
        refs = [ImageRef("a", digits[0]), ImageRef("b", ImageError("torn")), ImageRef("c", digits[1])]
        made = collect(refs, 3, Preparation(28, 28, 1), max_pixels=10_000, seed=0, progress=Progress())
        assert made.paths == ["a", "c"]
        assert [(item.path, item.reason) for item in made.rejections] == [("b", "torn")]
        np.testing.assert_array_equal(made.store.pixels[:, :, :, 0], digits[:2])

    def test_equal_and_similar_images_share_a_group(self, digits: NDArray[Any]) -> None:
        """Copies, and copies that are a little brighter, share a group; other digits do not."""
        brighter = np.clip(digits[0].astype(int) + 3, 0, 255).astype(np.uint8)
        images = np.stack([digits[0], digits[0], brighter, digits[1], digits[2]])
        made = collect(refs_of(images)(), 5, Preparation(28, 28, 1), max_pixels=10_000, seed=0, progress=Progress())
        groups = made.near_groups()
        assert groups[0] == groups[1] == groups[2]
        assert len({groups[0], groups[3], groups[4]}) == 3
        assert made.duplicates() == [["[0]", "[1]"]]

    def test_merged_groups_join_what_any_joins(self) -> None:
        """If one labelling joins a and b, and another b and c, all three are one group."""
        merged = join_groups(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2]))
        assert merged.tolist() == [0, 0, 0, 1]

    def test_fingerprint_is_of_the_pixels_in_order(self, digits: NDArray[Any]) -> None:
        """Other pixels, or another order, are other data."""

        def fingerprint(images: NDArray[Any]) -> str:
            preparation = Preparation(28, 28, 1)
            refs = refs_of(images)()
            return collect(refs, 3, preparation, max_pixels=10_000, seed=0, progress=Progress()).fingerprint()

        assert fingerprint(digits[:3]) == fingerprint(digits[:3].copy())
        assert fingerprint(digits[:3]) != fingerprint(digits[[0, 2, 1]])


class TestCheckpoint:
    """What a stopped training goes on from."""

    @pytest.fixture
    def state(self) -> TrainingState:
        """A state with a bit of everything."""
        weights = {"layer.weight": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(3)}
        best = {name: tensor + 1 for name, tensor in weights.items()}
        return TrainingState(epochs(0.5, 0.25), weights, best, {"step": torch.tensor(2.0)}, 1.5)

    def test_round_trip(self, state: TrainingState, tmp_path: Path) -> None:
        """A state comes back to the bit."""
        checkpoint = Checkpoint(tmp_path / "c", "abc")
        checkpoint.save(state)
        again = checkpoint.load()
        assert (again.history, again.seconds) == (state.history, state.seconds)
        for part in ("weights", "best", "optimizer"):
            before, after = getattr(state, part), getattr(again, part)
            assert before.keys() == after.keys()
            assert all(torch.equal(before[name], after[name]) for name in before)
        assert [path.name for path in tmp_path.iterdir()] == ["c"]

    def test_of_other_data(self, state: TrainingState, tmp_path: Path) -> None:
        """Another fingerprint is refused with what to do."""
        Checkpoint(tmp_path / "c", "abc").save(state)
        with pytest.raises(CheckpointError, match="belongs to other images or settings"):
            Checkpoint(tmp_path / "c", "abd").load()

    def test_missing(self, tmp_path: Path) -> None:
        """No file is said in so many words."""
        with pytest.raises(CheckpointError, match="no checkpoint to resume from"):
            Checkpoint(tmp_path / "c", "abc").load()

    @pytest.mark.parametrize("damage", [b"", b"PK\3\4", b"\xff" * 64, b"\2\0\0\0\0\0\0\0{}", b"\2\0\0\0\0\0\0\0[]"])
    def test_damaged(self, damage: bytes, tmp_path: Path) -> None:
        """Whatever else is in the file is a CheckpointError that names it."""
        (tmp_path / "c").write_bytes(damage)
        with pytest.raises(CheckpointError, match="damaged"):
            Checkpoint(tmp_path / "c", "abc").load()

    def test_every_truncation(self, state: TrainingState, tmp_path: Path) -> None:
        """A file cut off anywhere is a CheckpointError."""
        checkpoint = Checkpoint(tmp_path / "c", "abc")
        checkpoint.save(state)
        whole = (tmp_path / "c").read_bytes()
        for length in range(0, len(whole), 7):
            (tmp_path / "c").write_bytes(whole[:length])
            with pytest.raises(CheckpointError):
                checkpoint.load()


class TestStopping:
    """When enough is enough."""

    @pytest.mark.parametrize(
        ("losses", "stops"),
        [
            ((), False),
            ((3, 2, 1), False),
            ((1, 2, 3), False),
            ((1, 2, 3, 4), True),
            ((1, 2, 3, 0.5), False),
            ((1,) * 4, True),
        ],
    )
    def test_patience(self, losses: tuple[float, ...], *, stops: bool) -> None:
        """Three epochs without a better validation loss are enough, when three is the patience."""
        assert stopped_early(epochs(*losses), 3) is stops

    def test_number_of_epochs(self) -> None:
        """Epochs make about the asked number of steps, within bounds."""
        assert plan_epochs(1000, 100, 2500, (4, 200)) == 200
        assert plan_epochs(10_000, 100, 2500, (4, 200)) == 25
        assert plan_epochs(10**7, 100, 2500, (4, 200)) == 4

    def test_device(self) -> None:
        """A device by name is taken; auto takes one that is there."""
        assert pick_device("cpu") == torch.device("cpu")
        assert pick_device("auto").type in {"cpu", "cuda", "mps"}


class TestFit:
    """All of it, small."""

    def test_parts_never_overlap(self, digits: NDArray[Any]) -> None:
        """Training, validation and calibration images add up, and the history is kept."""
        fitted = fit_images(refs_of(digits[:100]), 100, QUICK)
        data = fitted.model.info["data"]
        assert data["training"] + data["validation"] + data["calibration"] == data["usable"] == 100
        assert [epoch["number"] for epoch in fitted.model.info["training"]["history"]] == [1, 2, 3]
        assert fitted.model.info["parity"]["max_relative_difference"] < 1e-3
        assert fitted.scores.shape == (100,)

    def test_it_learns(self, digits: NDArray[Any]) -> None:
        """The validation loss falls."""
        history = fit_images(refs_of(digits[:300]), 300, replace(QUICK, epochs=8)).model.info["training"]["history"]
        assert history[-1]["validation_loss"] < 0.8 * history[0]["validation_loss"]

    def test_divergence_is_explained(self, digits: NDArray[Any]) -> None:
        """A loss that is no number ends training with the rate and a smaller one to try."""
        settings = replace(QUICK, model="conv-small", learning_rate=1e30)
        with pytest.raises(TrainingError, match=r"(?i)learning rate"):
            fit_images(refs_of(digits[:60]), 60, settings)

    def test_mistakes_are_collected(self) -> None:
        """All settings that break their rule are named at once."""
        with pytest.raises(ParameterError) as caught:
            replace(QUICK, epochs=0, batch_size=0, seed=-1).check()
        assert all(name in str(caught.value) for name in ("epochs", "batch_size", "seed"))

    def test_tiles(self) -> None:
        """Large textures cut into tiles are fitted and scored, an image once."""
        images = np.random.default_rng(0).integers(90, 110, (24, 40, 56), np.uint8)
        fitted = fit_images(refs_of(images), 24, replace(QUICK, fit="tile", size=(16, 16), find_duplicates=False))
        assert fitted.scores.shape == (24,)
        assert np.isfinite(fitted.scores).all()
