"""What a memory of frozen features is, wherever they come from: experts on them, weighed against each other.

Each expert knows the features of normal pictures at one size and gives a map and a score. What an expert says of normal
pictures that it was not fitted to sets its scale: the logarithm, in standard deviations. The picture's score is the sum
over experts, weighted, and so is the map, less half of its own mean; both are brought above 0 by a softplus; a usual
normal picture has about 0.7.

For people the model redraws a picture as the most similar normal one that it keeps, in the exposure of the given one.
"""

from __future__ import annotations

from collections import deque
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the name that everyone gives it
from torch import Tensor, nn

from oddment.models._base import Autoencoder, Batch, Leftover
from oddment.models._frames import Light, Rectangle, frame_size, light, onto_canvas, rectangle, to_frame
from oddment.models._frontend import FrontEnd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from oddment.models._base import Passes
    from oddment.models._patches import PatchMemory, WindowGaussian
    from oddment.models._registry import Shape
    from oddment.models._whole import WholePicture

    Expert = PatchMemory | WindowGaussian | WholePicture

__all__ = ["Described", "MemoryAutoencoder"]

_DRAWN_SIDE = 64  # pixels along a side of the normal pictures that are kept to be shown
_DRAWN = 200
_MOST_PICTURES = 2000
_FEWEST_HELD = 8  # pictures that set the experts' scales; with fewer, the experts are refitted on parts instead
_FOLDS = 4
_LEAST_SPREAD = 0.03  # of the logarithm of a score
_TINY = 1e-6
_OWN = 0.5  # share of a picture's own mean that is taken off its map
_AT_ONCE = 16  # kept features that an expert looks at together


class Described(NamedTuple):
    """What is known of pictures before any expert is asked.

    Args:
        features: for each group of experts, (N, D, h, w).
        drawn: (N, C, h, w), the pictures at a small size, exposed alike.
    """

    features: tuple[Tensor, ...]
    drawn: Tensor


class _Describer(nn.Module):
    """What is known of pictures, as a module by itself.

    Args:
        model: whose features they are.
    """

    def __init__(self, model: MemoryAutoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Return the pictures at a small size, exposed alike, then the features of each group of experts."""
        where, lit = rectangle(mask), light(images, mask)
        drawn = to_frame(lit.even(images), where, self.model.drawn_size)
        return drawn, *self.model.describe(images, where, lit)


class MemoryAutoencoder(Autoencoder):
    """Base of such memories. A subclass gives `describe` and hands over the experts for each of its features.

    Args:
        shape: channels, height and width of the images.
        experts: for each of the features that `describe` gives, who looks at them.
    """

    scales: Tensor
    map_scales: Tensor
    keys: Tensor
    shown: Tensor

    def __init__(self, shape: Shape, experts: Sequence[Sequence[Expert]]) -> None:
        super().__init__()
        self.shape = shape
        # Drawn from what fixes the start of every model, so that the memory follows the same seed.
        self.seed = int(torch.randint(2**31 - 1, ()))
        self.experts = nn.ModuleList(expert for group in experts for expert in group)
        self.looks_at = [index for index, group in enumerate(experts) for _ in group]
        self._front: list[FrontEnd] = []  # the features' runtime, while it is needed; in a list, so that it is no state
        self.drawn_size = frame_size(shape.height, shape.width, _DRAWN_SIDE, 8)
        self.register_buffer("scales", torch.tensor([[0.0, 1.0]]).repeat(len(self.experts), 1))
        self.register_buffer("map_scales", torch.tensor([[0.0, 1.0]]).repeat(len(self.experts), 1))
        # The first expert is one of features, which has a centre; whole pictures have none.
        self.register_buffer("keys", torch.zeros_like(self.experts[0].centre)[None])  # type: ignore[arg-type]
        self.register_buffer("shown", torch.full((1, shape.channels, *self.drawn_size), 0.5))

    def describe(self, images: Tensor, where: Rectangle, lit: Light) -> tuple[Tensor, ...]:
        """Return the features that the experts look at, each (N, D, h, w), of images (N, C, H, W)."""
        raise NotImplementedError

    # --- fitting

    def settle(self, *normal: Passes) -> None:
        """Fit the experts, weigh them by pictures that they were not fitted to, and fit them again to all.

        Args:
            normal: passes over training and, where there are any, over validation pictures.
        """
        self.eval()
        known = self._look(normal[0])
        held = self._look(normal[1]) if len(normal) > 1 else None
        self._front.clear()
        if held is None or len(held.drawn) < _FEWEST_HELD or _shared(known, held):
            everything = known if held is None or _shared(known, held) else _joined([known, held])
            said = self._cross_fit(everything)
        else:
            everything = _joined([known, held])
            self._fit(known)
            said = self._say(held)
        self._weigh(said)
        self._fit(everything)
        self._keep_drawn(everything)

    def _example(self) -> tuple[Tensor, Tensor]:
        """Return a picture and its mask."""
        height, width = self.shape.height, self.shape.width
        return torch.zeros(1, self.shape.channels, height, width), torch.ones(1, 1, height, width)

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def _described(self, pictures: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, ...]]:
        """Yield what is known of each picture (1, C, H, W) and its mask, some worked on at once."""
        if not self._front:
            self._front.append(FrontEnd(_Describer(self), self._example()))
        return self._front[0](pictures)

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """Return the pictures at a small size, exposed alike, then the features of each group of experts."""
        singles = ((image, mask) for image, mask in _rows((batch.images, batch.mask)))
        return tuple(torch.cat(values) for values in zip(*self._described(singles), strict=True))

    def _numbered(self, pictures: Passes, wanted: Callable[[int], bool]) -> Iterator[tuple[int, tuple[Tensor, ...]]]:
        """Yield the number of each picture that is wanted, and what is known of it."""
        first, batches = _peeked(pictures())
        if first.inputs:
            rows = (row for batch in batches for row in _rows(batch.inputs))
            yield from ((number, row) for number, row in enumerate(rows) if wanted(number))
            return
        taken: deque[int] = deque()

        def singles() -> Iterator[tuple[Tensor, Tensor]]:
            shown = (row for batch in batches for row in _rows((batch.images, batch.mask)))
            for number, (image, mask) in enumerate(shown):
                if wanted(number):
                    taken.append(number)
                    yield image, mask

        for values in self._described(singles()):
            yield taken.popleft(), values

    def _look(self, pictures: Passes) -> Described:
        """Describe all pictures, or evenly chosen ones where they are many; features are kept as float16."""
        kept: list[Described] = []
        step = 1

        def wanted(number: int) -> bool:
            return not number % step

        for number, (drawn, *features) in self._numbered(pictures, wanted):
            if not wanted(number):
                continue  # on its way when others were thinned out
            kept.append(Described(tuple(found.half() for found in features), drawn.half()))
            if len(kept) > _MOST_PICTURES:
                kept, step = kept[::2], 2 * step
                self.notes = (f"It looked at 1 in {step} of the normal pictures, evenly chosen.",)
        return _joined(kept)

    def _fit(self, known: Described) -> None:
        generator = self._generator()
        for expert, index in zip(self.experts, self.looks_at, strict=True):
            expert.fit(known.features[index], generator)  # type: ignore[operator]  # a ModuleList forgets its kind

    def _say(self, pictures: Described) -> list[tuple[Tensor, Tensor]]:
        """Return for each expert the logarithms of scores (n,) and of maps, thinned (m,)."""
        said = []
        for expert, index in zip(self.experts, self.looks_at, strict=True):
            maps = [expert(part.float()) for part in torch.split(pictures.features[index], _AT_ONCE)]
            scores = torch.cat([expert.pool(part) for part in maps])  # type: ignore[operator]
            said.append(((scores + _TINY).log(), (torch.cat(maps).flatten() + _TINY).log()))
        return said

    def _cross_fit(self, pictures: Described) -> list[tuple[Tensor, Tensor]]:
        """Return what the experts say of each part of the pictures, fitted to the others."""
        count = len(pictures.drawn)
        folds = min(_FOLDS, count)
        if folds < 2:
            self._fit(pictures)
            return self._say(pictures)
        said = []
        # Runs, not every fourth: neighbours in order are more often alike.
        for part in torch.arange(count).chunk(folds):
            others = torch.ones(count, dtype=torch.bool)
            others[part] = False
            self._fit(_chosen(pictures, others.nonzero()[:, 0]))
            said.append(self._say(_chosen(pictures, part)))
        return [tuple(torch.cat(values) for values in zip(*each, strict=True)) for each in zip(*said, strict=True)]  # type: ignore[misc]

    def _weigh(self, said: list[tuple[Tensor, Tensor]]) -> None:
        for index, each in enumerate(said):
            for scales, values in zip((self.scales, self.map_scales), each, strict=True):
                scales[index, 0] = values.mean()
                scales[index, 1] = values.std(unbiased=False).clamp_min(_LEAST_SPREAD)

    def _keep_drawn(self, pictures: Described) -> None:
        """Keep some normal pictures, and their mean features to find them by."""
        count = len(pictures.drawn)
        chosen = torch.randperm(count, generator=self._generator())[:_DRAWN].sort().values
        self.register_buffer("keys", self._key(pictures.features[0][chosen].float()))
        self.register_buffer("shown", pictures.drawn[chosen].float())

    # --- scoring

    def leftover(self, batch: Batch) -> Leftover:
        """Return map, reconstruction, latent and score."""
        where, lit = rectangle(batch.mask), light(batch.images, batch.mask)
        features = batch.inputs[1:] or self.describe(batch.images, where, lit)
        height, width = self.shape.height, self.shape.width
        total, score = torch.zeros(()), torch.zeros(())
        shown = [features[index] for expert, index in zip(self.experts, self.looks_at, strict=True) if expert.shows]
        size = [max(int(found.shape[dim]) for found in shown) for dim in (2, 3)]
        for number, (expert, index) in enumerate(zip(self.experts, self.looks_at, strict=True)):
            found = expert(features[index])
            scale, map_scale = self.scales[number], self.map_scales[number]
            if expert.weight:
                said = ((expert.pool(found) + _TINY).log() - scale[0]) / scale[1]  # type: ignore[operator]
                score = score + expert.weight * said
            if not expert.shows:
                continue
            odd = ((found + _TINY).log() - map_scale[0]) / map_scale[1]
            total = total + F.interpolate(odd[:, None], size=size, mode="bilinear", align_corners=False)
        # An object that is unfamiliar all over must not hide where it is oddest.
        total = total - _OWN * total.mean((2, 3), keepdim=True)
        anomaly_map = onto_canvas(F.softplus(total), where, height, width)[:, 0]
        latent = self._latent(features[0], lit)
        picture = onto_canvas(self._redraw(latent), where, height, width)
        return Leftover(anomaly_map, lit.restore(picture), latent, F.softplus(score))

    def encode(self, images: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the latent (N, L): mean features, then the exposure.

        Args:
            images: (N, C, H, W).
            mask: (N, 1, H, W), 1 on real pixels; everything where it is None.
        """
        mask = torch.ones_like(images[:, :1]) if mask is None else mask
        lit = light(images, mask)
        return self._latent(self.describe(images, rectangle(mask), lit)[0], lit)

    def decode(self, latent: Tensor) -> Tensor:
        """Return the most similar normal picture (N, C, H, W), as large as the canvas, for a latent (N, L)."""
        lit = Light(latent[:, -2].view(-1, 1, 1, 1), latent[:, -1].view(-1, 1, 1, 1))
        size = (self.shape.height, self.shape.width)
        return lit.restore(F.interpolate(self._redraw(latent), size=size, mode="bilinear", align_corners=False))

    def _key(self, features: Tensor) -> Tensor:
        """Return the mean feature (N, D) in standard deviations."""
        key: Tensor = self.experts[0].normalise(features).mean((2, 3))  # type: ignore[operator]
        return key

    def _latent(self, features: Tensor, lit: Light) -> Tensor:
        return torch.cat([self._key(features), lit.level.flatten(1), lit.contrast.flatten(1)], 1)

    def _redraw(self, latent: Tensor) -> Tensor:
        """Return the small normal picture (N, C, h, w) nearest to a latent (N, L)."""
        likeness = F.linear(latent[:, :-2], self.keys, -self.keys.square().sum(1) / 2)
        return self.shown[likeness.argmax(1)]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:  # noqa: ANN401
        """Take buffers of whatever length they were kept with."""
        for module, start in [(self, prefix), *((e, f"{prefix}experts.{i}.") for i, e in enumerate(self.experts))]:
            for name, _ in list(module.named_buffers(recurse=False)):
                if start + name in state_dict:
                    module.register_buffer(name, state_dict[start + name].clone())
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _joined(parts: Sequence[Described]) -> Described:
    features = tuple(torch.cat(group) for group in zip(*(part.features for part in parts), strict=True))
    return Described(features, torch.cat([part.drawn for part in parts]))


def _chosen(pictures: Described, chosen: Tensor) -> Described:
    return Described(tuple(group[chosen] for group in pictures.features), pictures.drawn[chosen])


def _peeked(batches: Iterator[Batch]) -> tuple[Batch, Iterator[Batch]]:
    """Return the first batch, and all of them."""
    first = next(batches)
    return first, chain([first], batches)


def _rows(inputs: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, ...]]:
    """Yield what belongs to each picture, with a batch axis of its own."""
    return zip(*(torch.split(values, 1) for values in inputs), strict=True)


def _shared(known: Described, held: Described) -> bool:
    """Whether held pictures are among the known ones: what an expert says of those would set no scale."""
    ours, theirs = (part.drawn.flatten(1).float() for part in (known, held))
    return bool((torch.cdist(theirs, ours).amin(1) == 0).float().mean() > 0.5)
