"""`Detector`: the whole way from normal images to verdicts, as a scikit-learn outlier detector."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from oddment.calibration import ThresholdRule
from oddment.errors import ParameterError
from oddment.fitting import Settings, fit_images
from oddment.images.files import ImageRef, count_images, image_names, iter_images
from oddment.images.inputs import Images, as_refs, is_paths
from oddment.pyod import PyodDetector
from oddment.reviewing import leave_out
from oddment.scorer import Scorer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from oddment.calibration import ScoreSet
    from oddment.images.prepare import Fit
    from oddment.progress import Progress
    from oddment.results import Result
    from oddment.reviewing import Exclusion
    from oddment.training.loop import KeepName
    from oddment.training.losses import LossName
    from oddment.training.optimizers import OptimizerName, ScheduleName
    from oddment.training.precision import PrecisionName

__all__ = ["Detector"]


class Detector(OutlierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """Learns what normal images look like and tells which images are not.

    Args:
        model: a registered model or "auto", which chooses by the size of the images.
        options: of the model, such as {"latent_dim": 16}.
        size: side, or (height, width), of the picture that the model sees; chosen from the images when None.
        fit_mode: "letterbox" (keep the aspect ratio, padding is never scored), "stretch" or "tile".
        channels: 1 (gray) or 3 (colour); chosen from the images when None.
        image_shape: (H, W) or (H, W, C) of flat rows; rows without one are lists of features.
        target_fpr: false-alarm rate allowed on new normal images, promised by held-out calibration; 0.01 when no other
            rule is given.
        quantile: instead, the threshold is this quantile of the held-out scores.
        max_normal: instead, the threshold is the largest score of the training images, plus `margin`.
        margin: added to the largest training score.
        threshold: instead, the threshold itself.
        over: the scores that `quantile` ("calibration" unless given) or `max_normal` ("training") is taken over.
        hold_out: False trains on every image and holds none out: the rule must then be over training scores, or
            `threshold`.
        epochs: passes over the images, at most; chosen from their number when None.
        batch_size: images a step.
        learning_rate: peak of the optimizer's schedule; the model's own for Adam and Keras's for the others when None.
        optimizer: "adam", "sgd" or "adagrad", as Keras has them.
        schedule: how the learning rate falls: "cosine", "constant" or "inverse-time".
        decay: of the inverse-time schedule, rate / (1 + decay · step).
        loss: "model" for the model's own, or "mse" or "bce" of its reconstruction.
        score_mode: "model" for the model's own, usually the mean squared error; "mse", "mae", "bce", "ssim" or "msgms"
            of its reconstruction; several with commas between them, standardised on held-out images and summed; or
            "best", whichever does best on synthetic defects, which model="auto" takes as well.
        pool: how the anomaly map becomes the score: "model" for the model's own way, usually the mean; "mean", "max",
            "top=SHARE", the mean of this share of the largest values, or "quantile=Q".
        early_stopping: stop when the validation loss no longer falls.
        keep: the weights that stay: of the "best" epoch, or of the "last".
        precision: "auto" trains in bfloat16 where model and processor gain from it; or "float32" or "bfloat16".
        budget: seconds that training may take.
        device: "auto", "cpu", "cuda" or "mps".
        find_duplicates: keep near duplicates on one side of the split.
        baseline_check: try plain baselines beside the model, on synthetic defects made from held-out images, and say so
            in `caveats_` where they do as well.
        standardise_exposure: show each image to the model at one mean and one contrast, so that a dimmer lamp is no
            anomaly; an image that is odd by its brightness is none either, then.
        thumbnails: keep small pictures of training images, with their names, in the model file: reports show the normal
            ones that an anomaly is most like. False where the images are secret.
        random_state: seed; the same seed on the same images and machine gives the same scores to the bit.

    Attributes:
        scorer_: what scores, without torch; `save` writes its model file.
        threshold_: an image is an anomaly when its anomaly score is strictly above this.
        offset_: -threshold_, as scikit-learn has it.
        scores_: float32 (N,), anomaly scores of the images that were fitted, in order, unusable files left out.
        rejections_: files that could not be used.
        duplicates_: names of images equal to the last pixel.
        caveats_: what weakens the promise, or speaks for a simpler model, in sentences.
        n_features_in_: numbers in one row, where flat rows were fitted.

    Example:
        >>> import numpy as np
        >>> from oddment import Detector
        >>> rng = np.random.default_rng(0)
        >>> normal = (rng.random((60, 8, 8)) * 40).astype(np.uint8)
        >>> detector = Detector(model="conv-small", target_fpr=0.1, epochs=2).fit(normal)
        >>> detector.predict(np.full((1, 8, 8), 255, np.uint8)).tolist()
        [-1]
    """

    def __init__(
        self,
        *,
        model: str = "auto",
        options: dict[str, Any] | None = None,
        size: int | tuple[int, int] | None = None,
        fit_mode: Fit = "letterbox",
        channels: Literal[1, 3] | None = None,
        image_shape: tuple[int, ...] | None = None,
        target_fpr: float | None = None,
        quantile: float | None = None,
        max_normal: bool = False,
        margin: float | None = None,
        threshold: float | None = None,
        over: ScoreSet | None = None,
        hold_out: bool = True,
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        optimizer: OptimizerName = "adam",
        schedule: ScheduleName = "cosine",
        decay: float = 0.0,
        loss: LossName = "model",
        score_mode: str = "model",
        pool: str = "model",
        early_stopping: bool = True,
        keep: KeepName = "best",
        precision: PrecisionName = "auto",
        budget: float | None = None,
        device: str = "auto",
        find_duplicates: bool = True,
        baseline_check: bool = True,
        standardise_exposure: bool = False,
        thumbnails: bool = True,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.model = model
        self.options = options
        self.size = size
        self.fit_mode = fit_mode
        self.channels = channels
        self.image_shape = image_shape
        self.target_fpr = target_fpr
        self.quantile = quantile
        self.max_normal = max_normal
        self.margin = margin
        self.threshold = threshold
        self.over = over
        self.hold_out = hold_out
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.optimizer = optimizer
        self.schedule = schedule
        self.decay = decay
        self.loss = loss
        self.score_mode = score_mode
        self.pool = pool
        self.early_stopping = early_stopping
        self.keep = keep
        self.precision = precision
        self.budget = budget
        self.device = device
        self.find_duplicates = find_duplicates
        self.baseline_check = baseline_check
        self.standardise_exposure = standardise_exposure
        self.thumbnails = thumbnails
        self.random_state = random_state

    def fit(
        self,
        X: Images,
        y: object = None,
        *,
        groups: ArrayLike | None = None,
        exclude: str | Path | Sequence[str | Path] = (),
        progress: Progress | None = None,
    ) -> Self:
        """Fit to normal images.

        Args:
            X: array (N, H, W[, C]) uint8, uint16 or float; flat rows (N, features); or paths.
            y: ignored.
            groups: (N,) which images show the same object; images of one group stay on one side of the split. For
                paths, every file must be usable.
            exclude: of images given as paths, leave out those that these files say, as `oddment fit --exclude` does:
                `review.csv` of a report, `results.csv` of a search, or a list of paths. `groups` names all images.
            progress: told of stages.

        Raises:
            ParameterError: if a parameter or `X` breaks its rule.
            TooFewImagesError: if there are too few images for the threshold rule.
        """
        images = self._images(X, reset=True)
        sources = _sources(images) if is_paths(images) else []
        reviews = _sources(exclude)
        exclusion = _exclusion(sources, reviews) if reviews else None
        gone = exclusion.images if exclusion else frozenset[str]()
        count = count_images(sources) if is_paths(images) else len(images)

        def refs() -> Iterator[ImageRef]:
            found = iter_images(sources, exclude=reviews) if is_paths(images) else as_refs(images)
            return (ref for ref in found if ref.path not in gone)

        labels = None if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)
        if exclusion and labels is not None:
            labels = _check_groups(labels, names := list(image_names(sources, exclude=reviews)))
            labels = labels[[name not in gone for name in names]]
        fitted = fit_images(
            refs,
            exclusion.left if exclusion else count,
            # A perceptual hash sees pictures; rows of features that differ in their low digits would all look alike to
            # it.
            self._settings(find_duplicates=self.find_duplicates and not _is_rows(images)),
            groups=None if labels is None else lambda paths: _check_groups(labels, paths),
            exclusion=exclusion,
            progress=progress,
        )
        self.scorer_ = Scorer(fitted.model)
        self.scores_ = fitted.scores
        self.rejections_ = fitted.rejections
        self.duplicates_ = fitted.duplicates
        self.caveats_ = fitted.caveats
        return self

    def _settings(self, *, find_duplicates: bool) -> Settings:
        size = (self.size, self.size) if isinstance(self.size, int | np.integer) else self.size
        rule = ThresholdRule.choose(
            target_fpr=self.target_fpr,
            quantile=self.quantile,
            max_normal=self.max_normal,
            margin=self.margin,
            threshold=self.threshold,
            over=self.over,
        )
        state = self.random_state
        seed = int(state) if isinstance(state, int | np.integer) else int(check_random_state(state).randint(2**31 - 1))
        return Settings(
            model=self.model,
            options=dict(self.options or {}),
            size=None if size is None else (int(size[0]), int(size[1])),
            fit=self.fit_mode,
            channels=self.channels,
            rule=rule,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            optimizer=self.optimizer,
            schedule=self.schedule,
            decay=self.decay,
            loss=self.loss,
            score=self.score_mode,
            pool=self.pool,
            early_stopping=self.early_stopping,
            keep=self.keep,
            precision=self.precision,
            budget=self.budget,
            seed=seed,
            device=self.device,
            hold_out=self.hold_out,
            find_duplicates=find_duplicates,
            baseline_check=self.baseline_check,
            standardise_exposure=self.standardise_exposure,
            thumbnails=self.thumbnails,
        )

    def _images(self, X: Images, *, reset: bool) -> Images:
        """Paths as they are; arrays checked, flat rows given their shape."""
        if is_paths(X):
            return X
        array = check_array(
            X,
            dtype=None if _is_whole(X) else "numeric",
            allow_nd=True,
            ensure_min_samples=2 if reset else 1,
            estimator=self,
            input_name="X",
        )
        if array.ndim == 2:
            validate_data(self, X, reset=reset, skip_check_array=True)
        elif reset and hasattr(self, "n_features_in_"):
            # Images may come in any size, the preparation brings them to the model's: nothing to compare later ones
            # with.
            del self.n_features_in_
        if array.dtype.kind not in "buif":
            array = array.astype(np.float64)
        return array if array.ndim > 2 else self._shaped(array, reset=reset)

    def _shaped(self, rows: NDArray[Any], *, reset: bool) -> NDArray[Any]:
        """Flat rows (N, features) as images."""
        if not reset and not self.image_shape and not hasattr(self, "n_features_in_"):
            msg = (
                f"X has shape {rows.shape} and this detector was fitted to images: give (N, H, W) or (N, H, W, C), "
                "X[None] for a single image, or set image_shape for flat rows."
            )
            raise ParameterError(msg)
        shape = tuple(self.image_shape) if self.image_shape else (1, rows.shape[1])
        if len(shape) not in (2, 3) or int(np.prod(shape)) != rows.shape[1]:
            msg = f"image_shape={shape} holds {int(np.prod(shape))} numbers and each row has {rows.shape[1]}."
            raise ParameterError(msg)
        return rows.reshape(len(rows), *shape)

    # --- scikit-learn's outlier interface: lower is more anomalous

    @property
    def threshold_(self) -> float:
        """An image is an anomaly when its anomaly score is strictly above this."""
        check_is_fitted(self, "scorer_")
        return self.scorer_.threshold_

    @property
    def offset_(self) -> float:
        """Minus the threshold: `score_samples - offset_` is `decision_function`."""
        return -self.threshold_

    def score_samples(self, X: Images) -> NDArray[np.float64]:
        """Return float64 (N,): minus the anomaly score."""
        return -self.anomaly_score(X).astype(np.float64)

    def decision_function(self, X: Images) -> NDArray[np.float64]:
        """Return float64 (N,): threshold_ - anomaly_score, negative for anomalies."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Images) -> NDArray[np.int64]:
        """Return int64 (N,): -1 where anomaly_score > threshold_, else +1."""
        check_is_fitted(self, "scorer_")
        return np.where(self.decision_function(X) < 0, -1, 1)

    # --- Oddment's own: higher is more anomalous

    def anomaly_score(self, X: Images) -> NDArray[np.float32]:
        """Return float32 (N,) anomaly scores, higher is more anomalous."""
        return self._fitted.anomaly_score(self._images(X, reset=False))

    def anomaly_map(self, X: Images) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        """Return anomaly maps at the images' own resolution, float32 (N, H, W), or a list where sizes differ."""
        return self._fitted.anomaly_map(self._images(X, reset=False))

    def p_value(self, X: Images) -> NDArray[np.float64]:
        """Return conformal p-values, float64 (N,)."""
        return self._fitted.p_value(self._images(X, reset=False))

    def reconstruct(self, X: Images) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        """Return reconstructions at the model's resolution, float32 (N, h, w, C), or a list where sizes differ."""
        return self._fitted.reconstruct(self._images(X, reset=False))

    def latent(self, X: Images) -> NDArray[np.float32]:
        """Return latents, float32 (N, latent_dim)."""
        return self._fitted.latent(self._images(X, reset=False))

    def detect(self, X: Images, *, maps: bool = False, similar: int = 0, fdr: float | None = None) -> list[Result]:
        """Return one `Detection` or `Rejection` an image, in order, ranked; see `Scorer.detect`."""
        return self._fitted.detect(self._images(X, reset=False), maps=maps, similar=similar, fdr=fdr)

    def save(self, path: str | Path) -> None:
        """Write the model file; `oddment.load` and every `oddment` command read it."""
        self._fitted.save(path)

    def as_pyod(self) -> PyodDetector:
        """Return this detector under PyOD's contract: higher is more anomalous, labels 0 and 1."""
        return PyodDetector(self)

    @property
    def _fitted(self) -> Scorer:
        check_is_fitted(self, "scorer_")
        return self.scorer_


def _sources(images: Images) -> list[str | Path]:
    """One path or several, as `iter_images` takes them."""
    several = [images] if isinstance(images, str | PathLike) else images
    return [Path(item) if isinstance(item, PathLike) else item for item in several]


def _exclusion(sources: Sequence[str | Path], reviews: Sequence[str | Path]) -> Exclusion:
    if not sources:
        msg = "exclude leaves out images by their paths, and X is an array: leave its rows out before fitting."
        raise ParameterError(msg)
    return leave_out(reviews, list(image_names(sources, exclude=reviews)))


def _is_whole(images: Images) -> bool:
    """Whether it is an array whose own type must be kept: 8 and 16 bits are images of that depth."""
    return isinstance(images, np.ndarray) and images.dtype in (np.uint8, np.uint16, np.bool_)


def _is_rows(images: Images) -> bool:
    """Whether they were rows of features: images one pixel high, as `_shaped` makes them without an image_shape."""
    return isinstance(images, np.ndarray) and images.ndim == 3 and images.shape[1] == 1


def _check_groups(labels: NDArray[np.int64], paths: Sequence[str]) -> NDArray[np.int64]:
    if len(labels) != len(paths):
        msg = f"groups has {len(labels):,} entries for {len(paths):,} usable images; give one each."
        raise ParameterError(msg)
    return labels
