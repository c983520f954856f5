"""Scoring with ONNX Runtime and NumPy alone.

Pictures are always scored in full batches of the size that the model file fixes, the last one filled up with blanks:
the kernels that a matrix product takes depend on its shape, so that a score must not depend on how many images came
with it.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from oddment.errors import ModelFileError, ParameterError
from oddment.processors import cores

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["OUTPUTS", "PARTS", "Runtime"]

OUTPUTS = ("anomaly_score", "anomaly_map", "reconstruction", "latent")
# Of a combined score, what each part adds; other graphs have no such output.
PARTS = "score_parts"
INPUTS = ("images", "valid")
TYPES = {"valid": "tensor(int64)"}
_SMALL_SIDE = 96  # pixels
_MOST_BATCHES, _NUMBERS_AT_ONCE = 8, 2**20  # in one call, where there are many pictures
# Of graphs up to so many bytes the path to the score is loaded as well where scores alone are asked for: in larger ones
# the products take so long that nothing else shows.
_SMALL_GRAPH = 2**22


class Runtime:
    """One scoring graph, loaded.

    Args:
        graph: ONNX bytes with inputs `images` float32 (N, C, H, W) and `valid` int64 (N, 4), outputs `OUTPUTS`.
        shape: (C, H, W) that the graph must take.
        batch: pictures in every call of the graph.
        threads: that score, on a batch each, or within one operator where a batch is one picture; 0 for all cores.

    Attributes:
        at_once: how many threads may usefully call `run` at the same time.
        piece: pictures that one call of `run` or `scores` should be handed where there are many.
        pieces: how many such calls at the same time.
        outputs: what the graph gives: `OUTPUTS`, and `score_parts` where its score is combined.

    Raises:
        ModelFileError: if the bytes are no such graph.
    """

    def __init__(self, graph: bytes, *, shape: tuple[int, int, int], batch: int, threads: int | None = None) -> None:
        options = _options()
        asked = _threads() if threads is None else threads
        self.at_once = asked or cores()
        # A batch a thread is quicker than a batch for all, by a tenth and more; a picture by itself should not wait so.
        options.intra_op_num_threads = asked if batch == 1 else 1
        self._options = options
        self._session = _load(graph, options)
        self._small = graph if max(shape[1:]) <= _SMALL_SIDE and len(graph) <= _SMALL_GRAPH else None
        self._lock = Lock()
        self.shape = shape
        self.batch = batch
        # Of photographs, scored one by one, `run` itself takes several at once; of others a thread takes a few batches,
        # if these are not large themselves.
        alone, numbers = batch == 1, batch * shape[0] * shape[1] * shape[2]
        self.piece = _MOST_BATCHES if alone else batch * min(_MOST_BATCHES, max(1, _NUMBERS_AT_ONCE // numbers))
        self.pieces = 1 if alone else self.at_once
        self.outputs: tuple[str, ...] = OUTPUTS
        self._check()

    def _check(self) -> None:
        inputs = {item.name: item.shape for item in self._session.get_inputs()}
        types = {item.name: item.type for item in (*self._session.get_inputs(), *self._session.get_outputs())}
        outputs = {item.name for item in self._session.get_outputs()}
        if set(inputs) != set(INPUTS) or not set(OUTPUTS) <= outputs:
            names = f"{sorted(inputs)} and outputs {sorted(outputs)}"
            msg = f"its graph has inputs {names}; Oddment needs {INPUTS} and {OUTPUTS}"
            raise ModelFileError(msg)
        if tuple(inputs["images"][1:]) != self.shape:
            msg = f"its graph takes images of shape {tuple(inputs['images'][1:])}, its manifest says {self.shape}"
            raise ModelFileError(msg)
        if PARTS in outputs:
            self.outputs = (*OUTPUTS, PARTS)
        wrong = [name for name in (*INPUTS, *self.outputs) if types[name] != TYPES.get(name, "tensor(float)")]
        if wrong:
            msg = f"its graph's {wrong[0]} is a {types[wrong[0]]}, not a {TYPES.get(wrong[0], 'tensor(float)')}"
            raise ModelFileError(msg)

    def run(
        self, images: NDArray[np.float32], valid: NDArray[np.int64], outputs: Sequence[str] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Return the named outputs for any number of pictures.

        Args:
            images: float32 (P, C, H, W).
            valid: int64 (P, 4), (top, left, bottom, right) of real pixels.
            outputs: some of `Runtime.outputs`; all of them when None.

        Returns:
            For each name an array with P rows. Row i depends on picture i alone, to the last bit.
        """
        outputs = self.outputs if outputs is None else outputs
        parts = self._run_all(list(self._chunks(images, valid)), outputs)
        joined = [np.concatenate(columns) if len(columns) > 1 else columns[0] for columns in zip(*parts, strict=True)]
        return {name: array[: len(images)] for name, array in zip(outputs, joined, strict=True)}

    def scores(self, images: NDArray[np.float32], valid: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return anomaly scores alone, float32 (P,), the same to the bit as `run` gives; sooner where models are small.

        Args:
            images: float32 (P, C, H, W).
            valid: int64 (P, 4), (top, left, bottom, right) of real pixels.
        """
        if self._small is None:
            return self.run(images, valid, ("anomaly_score",))["anomaly_score"]
        with self._lock:
            session = self._path_to_score
        parts = [self._run_full(*chunk, ("anomaly_score",), session)[0] for chunk in self._chunks(images, valid)]
        return (np.concatenate(parts) if len(parts) > 1 else parts[0])[: len(images)]

    @cached_property
    def _path_to_score(self) -> Any:  # noqa: ANN401 - ONNX Runtime has no types
        """A session of what leads to the score, if that gives the same bits; else the session of all outputs."""
        from oddment.scorepath import score_path

        if self._small is None:
            return self._session
        try:
            path = _load(score_path(self._small), self._options)
            return path if self._gives_the_same(path) else self._session
        except ModelFileError:  # the whole graph was loaded, and will do
            return self._session

    def _gives_the_same(self, path: Any) -> bool:  # noqa: ANN401
        """Whether another session gives noise the same scores, with padding and without."""
        _, height, width = self.shape
        images = np.random.default_rng(0).random((self.batch, *self.shape), np.float32)
        for lowest in (0, min(2, height - 1, width - 1)):
            valid = np.repeat(np.array([[lowest, lowest, height, width]], np.int64), self.batch, axis=0)
            one, other = (self._run_full(images, valid, ("anomaly_score",), each)[0] for each in (path, self._session))
            if not np.array_equal(one, other, equal_nan=True):
                return False
        return True

    def _run_all(
        self, chunks: list[tuple[NDArray[np.float32], NDArray[np.int64]]], outputs: Sequence[str]
    ) -> list[list[NDArray[np.float32]]]:
        """Run each chunk; photographs, one a chunk, several at once: a second thread finds little to do in one."""
        workers = min(self.at_once, len(chunks)) if self.batch == 1 else 1
        if workers < 2:
            return [self._run_full(*chunk, outputs) for chunk in chunks]
        with ThreadPoolExecutor(workers, thread_name_prefix="oddment-score") as pool:
            return list(pool.map(lambda chunk: self._run_full(chunk[0], chunk[1], outputs), chunks))

    def _run_full(
        self,
        images: NDArray[np.float32],
        valid: NDArray[np.int64],
        outputs: Sequence[str],
        session: Any = None,  # noqa: ANN401
    ) -> list[NDArray[np.float32]]:
        session = session or self._session
        try:
            arrays: list[NDArray[np.float32]] = session.run(list(outputs), {"images": images, "valid": valid})
        except Exception as error:
            msg = f"its graph failed while scoring: {_first_line(error)}"
            raise ModelFileError(msg) from error
        for name, array in zip(outputs, arrays, strict=True):
            self._check_output(name, array.shape)
        return arrays

    def _check_output(self, name: str, shape: tuple[int, ...]) -> None:
        """A graph may declare any output; what it gives is believed only in the shape that the format names."""
        channels, height, width = self.shape
        rest = {"anomaly_score": (), "anomaly_map": (height, width), "reconstruction": (channels, height, width)}
        expected = (self.batch, *rest.get(name, shape[1:2]))
        if shape != expected:
            msg = f"its graph gave {name} of shape {shape} where the format needs {expected}"
            raise ModelFileError(msg)

    def _chunks(
        self, images: NDArray[np.float32], valid: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        for start in range(0, max(1, len(images)), self.batch):
            part, where = images[start : start + self.batch], valid[start : start + self.batch]
            missing = self.batch - len(part)
            if missing:
                part = np.concatenate([part, np.zeros((missing, *self.shape), np.float32)])
                full = np.array([[0, 0, self.shape[1], self.shape[2]]], np.int64)
                where = np.concatenate([where, np.repeat(full, missing, axis=0)])
            yield part, where


def _options() -> Any:  # noqa: ANN401
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    # Threads that spin while they wait take the cores from the threads that decode: 1.6 × slower on a busy machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _load(graph: bytes, options: Any) -> Any:  # noqa: ANN401
    import onnxruntime as ort

    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises classes of its own, none of them public
        msg = f"its graph.onnx cannot be loaded by ONNX Runtime {ort.__version__}: {_first_line(error)}"
        raise ModelFileError(msg) from error


def _threads() -> int:
    text = os.environ.get("ODDMENT_THREADS", "0")
    if not text.isdecimal():
        msg = f"ODDMENT_THREADS must be a whole number of threads, 0 for all cores; got {text!r}."
        raise ParameterError(msg)
    return int(text)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
