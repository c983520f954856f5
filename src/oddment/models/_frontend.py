"""A frozen front end as ONNX Runtime runs it: on processors a good third quicker than torch, and a picture a thread.

One picture leaves little for a second thread to do, so that several are worked on at once, each by one thread.
"""

from __future__ import annotations

import io
import warnings
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import torch

from oddment.models._padding import fold_padding

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

__all__ = ["FrontEnd"]

_OPSET = 17


class FrontEnd:
    """A module without chance or state, exported once.

    Args:
        module: takes tensors and returns a tuple of tensors.
        example: what it takes; everything that it is given later has these shapes.
        threads: pictures that are worked on at once; as many as torch has threads unless given.
    """

    def __init__(self, module: nn.Module, example: tuple[Tensor, ...], threads: int | None = None) -> None:
        import onnxruntime as ort  # needed by fitting alone

        self._names = [f"input{index}" for index in range(len(example))]
        buffer = io.BytesIO()
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                example,
                buffer,  # type: ignore[arg-type]  # it writes to file objects, though its annotation does not say so
                dynamo=False,
                opset_version=_OPSET,
                input_names=self._names,
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self._session = ort.InferenceSession(
            fold_padding(buffer.getvalue()), options, providers=["CPUExecutionProvider"]
        )
        self.threads = threads or torch.get_num_threads()

    def __call__(self, pictures: Iterable[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
        """Yield what the module gives for each of `pictures`, in order; only a few are held at a time."""
        with ThreadPoolExecutor(self.threads, thread_name_prefix="oddment-describe") as pool:
            waiting: deque[Future[tuple[Tensor, ...]]] = deque()
            for inputs in pictures:
                arrays = dict(zip(self._names, (item.numpy() for item in inputs), strict=True))
                waiting.append(pool.submit(self._run, arrays))
                if len(waiting) > 2 * self.threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _run(self, arrays: dict[str, NDArray[np.float32]]) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(found) for found in self._session.run(None, arrays))
