"""What the classical baselines share: fitted in one pass, scored by the same graph as every autoencoder.

A baseline looks at *features*: the pixels of an image, or the latent of a registered autoencoder, with the mean of the
normal images taken off; where it works in a smaller space, projected on their principal components. Scikit-learn fits
once, and what it found becomes buffers, so that torch and ONNX Runtime score without it.

Padding is filled with the mean image: it takes part in no distance with its content, and its map is not scored.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from oddment.errors import ParameterError
from oddment.models._base import AnyLength, Autoencoder, Batch, Leftover
from oddment.models._registry import Shape, build, get_spec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from oddment.models._base import Passes

__all__ = ["PIXELS", "SIDE", "Baseline", "check_options", "fit_pca"]

PIXELS = "pixels"
# Pixels on the longer side that photographs are brought to: distances between pixels say little beyond.
SIDE = 64
# What the features of all images kept may take; also bounds the model file, which holds them twice.
_MOST_BYTES = 256 * 1024**2
# Principal directions weaker than this share of the strongest are rounding.
_LEAST_VARIANCE = 1e-7
# Rows, or features, up to which principal components are computed exactly.
_MOST_EXACT = 1500
_NULL = 1e-9  # of the longest direction: rounding


class Baseline(AnyLength, Autoencoder):
    """Base of all baselines. A subclass gives `learn`, `judge` and, where it can, `redraw`.

    Args:
        shape: channels, height and width of the images.
        on: "pixels", or the name of an autoencoder whose latent is looked at; it is trained first, as on its own.
        references: most images that are kept to fit, drawn at random with the seed of the fit.
        n_components: principal components that the features are projected on; 0 leaves them as they are.

    Attributes:
        notes: what `settle` left out, in sentences.
    """

    centre: Tensor
    variance: Tensor
    basis: Tensor

    def __init__(self, shape: Shape, *, on: str = PIXELS, references: int, n_components: int = 0) -> None:
        super().__init__()
        check_options(references=(references, 2), n_components=(n_components, 0))
        self.shape, self.references, self.n_components = shape, references, n_components
        # Drawn from what fixes the start of every model, so that a baseline follows the same seed.
        self.seed = int(torch.randint(2**31 - 1, ()))
        self.inner = None if on == PIXELS else _autoencoder(on, shape)
        width = shape.pixels if self.inner is None else _latent_width(self.inner, shape)
        self.register_buffer("centre", torch.full((1, width), 0.5))
        self.register_buffer("variance", torch.ones(1, width))
        self.register_buffer("basis", torch.full((min(n_components, width), width), width**-0.5))

    @property
    def width(self) -> int:
        """Features of one image."""
        return len(self.basis) or self.centre.shape[1]

    # --- what a subclass gives

    def learn(self, rows: NDArray[np.float32]) -> None:
        """Fit to features (n, width) of normal images and put what was found into buffers."""
        raise NotImplementedError

    def judge(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is odd about features (N, width), and the latent (N, L).

        The first is (N, width), a non-negative number for each feature, or (N, 1); its mean is the anomaly score.
        """
        raise NotImplementedError

    def redraw(self, latent: Tensor) -> Tensor:
        """Return the features (N, width) of a normal image for a latent (N, L); of the mean image unless overridden."""
        return torch.zeros_like(self.centre[:, : self.width]).expand(latent.shape[0], -1)

    # --- from images to features and back

    def features(self, batch: Batch) -> Tensor:
        """Return (N, width), centred."""
        flat = self._flat(batch)[0]
        return F.linear(flat, self.basis) if len(self.basis) else flat

    def _flat(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Centred pixels or latents (N, F), 0 on padding, and 1 where they are real."""
        if self.inner is None:
            mask = batch.mask.expand_as(batch.images).flatten(1)
            return (batch.images.flatten(1) - self.centre) * mask, mask
        latent = self.inner.leftover(batch).latent.flatten(1)
        return latent - self.centre, torch.ones_like(latent)

    def encode(self, images: Tensor) -> Tensor:
        """Return the latent (N, L) of images without padding."""
        return self.judge(self.features(Batch(images, torch.ones_like(images[:, :1]))))[1]

    def decode(self, latent: Tensor) -> Tensor:
        """Return the reconstruction (N, C, H, W): the redrawn features as an image."""
        features = self.redraw(latent)
        flat = (features @ self.basis if len(self.basis) else features) + self.centre
        if self.inner is not None:
            return self.inner.decode(flat)
        return flat.view(-1, self.shape.channels, self.shape.height, self.shape.width)

    def leftover(self, batch: Batch) -> Leftover:
        """Return map, reconstruction and latent; the score is spread evenly where it belongs to no pixel."""
        odd, latent = self.judge(self.features(batch))
        height, width = self.shape.height, self.shape.width
        if self.inner is None and odd.shape[1] == self.shape.pixels and not len(self.basis):
            anomaly_map = odd.view(-1, self.shape.channels, height, width).mean(1)
        else:
            anomaly_map = odd.mean(1).view(-1, 1, 1).expand(-1, height, width)
        return Leftover(anomaly_map, self.decode(latent), latent)

    # --- the autoencoder underneath, where there is one

    def inputs(self, batch: Batch) -> tuple[Tensor, ...]:
        """Return what the autoencoder underneath keeps of a batch."""
        return self.inner.inputs(batch) if self.inner is not None else ()

    def begin(self, training: Passes) -> None:
        """Let the autoencoder underneath measure what its first step needs."""
        if self.inner is not None:
            self.inner.begin(training)

    def loss(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the loss of the autoencoder underneath; without one, how far images are from what is redrawn."""
        return super().loss(batch, generator) if self.inner is None else self.inner.loss(batch, generator)

    def validation_loss(self, batch: Batch) -> Tensor:
        """Return the loss that early stopping watches, likewise."""
        return super().validation_loss(batch) if self.inner is None else self.inner.validation_loss(batch)

    # --- fitting

    def settle(self, *normal: Passes) -> None:
        """Fit to the pictures of all passes, or to as many as are kept."""
        if self.inner is not None:
            self.inner.settle(*normal)
        self.eval()

        def pictures() -> Iterator[Batch]:
            return chain.from_iterable(each() for each in normal)

        self._measure(pictures)
        rows = self._gather(pictures)
        if self.n_components:
            self.basis = _principal(rows, self.n_components, self.seed)
            rows = rows @ self.basis.numpy().T
        self.learn(rows)

    def _measure(self, pictures: Passes) -> None:
        """Set mean and variance of each feature over the pictures in which it is real."""
        self.centre = torch.zeros_like(self.centre)
        moments = torch.zeros(3, self.centre.shape[1], dtype=torch.float64)
        for batch in pictures():
            values, real = (part.double() for part in self._flat(batch))
            moments += torch.stack([real.sum(0), values.sum(0), values.square().sum(0)])
        # What is padding in every picture gets the mean of all others.
        count, first, second = torch.where(moments[0] > 0, moments, moments.sum(1, keepdim=True))
        mean = first / count
        self.centre = mean.float()[None]
        self.variance = (second / count - mean.square()).clamp_min(0).float()[None]

    def _gather(self, pictures: Passes) -> NDArray[np.float32]:
        """Return centred features (n, F) of all pictures, or of `references` of them, equally likely each.

        Source:
            Vitter, "Random sampling with a reservoir" (1985), algorithm R.
        """
        limit = max(2, min(self.references, _MOST_BYTES // (4 * self.centre.shape[1])))
        rng = np.random.default_rng(self.seed)
        rows = np.empty((limit, self.centre.shape[1]), np.float32)  # a page is taken when it is written
        seen = 0
        for batch in pictures():
            flat = self._flat(batch)[0].numpy()
            number = seen + np.arange(len(flat))
            place = np.where(number < limit, number, (rng.random(len(flat)) * (number + 1)).astype(np.int64))
            rows[place[place < limit]] = flat[place < limit]
            seen += len(flat)
        if seen > limit:
            self.notes = (f"It knows {limit:,} of the {seen:,} normal pictures, drawn at random (references={limit}).",)
        return rows[:seen]


def check_options(**given: tuple[Any, float]) -> None:
    """Refuse options below the least that they may be; whole numbers where that least is an int.

    Raises:
        ParameterError: one message that names all mistakes.
    """
    problems = []
    for name, (value, least) in given.items():
        whole = isinstance(least, int)
        if not isinstance(value, int if whole else int | float) or not least <= value < float("inf"):
            kind = "a whole number" if whole else "a number"
            problems.append(f"{name} must be {kind} of at least {least}; got {value!r}.")
    if problems:
        raise ParameterError(" ".join(problems))


def _autoencoder(name: str, shape: Shape) -> Autoencoder:
    if not get_spec(name).trains:
        msg = (
            f"on={name!r} is itself fitted in one pass and has no latent to learn from. Use {PIXELS} or an autoencoder."
        )
        raise ParameterError(msg)
    return build(name, shape)


def _latent_width(inner: Autoencoder, shape: Shape) -> int:
    with torch.no_grad():
        width = inner.eval().encode(torch.zeros(1, shape.channels, shape.height, shape.width)).shape[1]
    inner.train()
    return width


class Pca(NamedTuple):
    """Principal components.

    Args:
        mean: (F,).
        components: (k, F), of unit length, the strongest first.
        variance: (k,), of rows along each.
    """

    mean: NDArray[np.floating[Any]]
    components: NDArray[np.floating[Any]]
    variance: NDArray[np.floating[Any]]


def fit_pca(rows: NDArray[np.float32], n_components: int, seed: int) -> Pca:
    """Return the principal components of rows (n, F), as many as they allow."""
    count = max(1, min(n_components, len(rows) - 1, rows.shape[1]))
    if min(rows.shape) <= _MOST_EXACT:
        return _exact_pca(rows, count)
    from sklearn.decomposition import PCA  # a second, paid only where there is much

    # Rows that are all equal have no variance to divide by.
    with np.errstate(divide="ignore", invalid="ignore"):
        found = PCA(count, random_state=seed).fit(rows)
    return Pca(found.mean_, found.components_, found.explained_variance_)


def _exact_pca(rows: NDArray[np.float32], count: int) -> Pca:
    """The same by the eigenvectors of the smaller of the two matrices of inner products."""
    values = torch.from_numpy(np.ascontiguousarray(rows, np.float64))
    mean = values.mean(0)
    values -= mean
    wide = values.shape[1] > len(values)
    strengths, vectors = torch.linalg.eigh(values @ values.T if wide else values.T @ values)
    strengths, vectors = strengths.flip(0)[:count].clamp_min(0), vectors.flip(1)[:, :count]
    if wide:
        vectors = values.T @ vectors
        lengths = torch.linalg.vector_norm(vectors, dim=0)
        # Along directions without variance lies nothing: they become null.
        vectors = torch.where(lengths > _NULL * lengths.max(), vectors / lengths, 0.0)
    # Either sign is right; the largest coefficient is made positive, so that it is always the same.
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    vectors = torch.where(largest < 0, -vectors, vectors)
    variance = strengths / max(1, len(values) - 1)
    return Pca(mean.numpy(), vectors.T.contiguous().numpy(), variance.numpy())


def _principal(rows: NDArray[np.float32], n_components: int, seed: int) -> Tensor:
    """The principal directions (k, F) of centred rows, at most `n_components`, none that is rounding."""
    pca = fit_pca(rows, n_components, seed)
    strong = pca.variance > _LEAST_VARIANCE * max(pca.variance[0], 1e-12)
    strong[0] = True
    return torch.from_numpy(np.ascontiguousarray(pca.components[strong], np.float32))
