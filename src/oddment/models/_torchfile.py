"""Reads the tensors of an old torch file without running it.

Before torch 1.6, `torch.save` wrote five pickles and then the numbers. A pickle is a program; here it is only listed
(`pickletools.genops` decodes and executes nothing) and followed as far as names, shapes and places go. Whatever else it
asks for is left undone.

Source: torch/serialization.py, `_legacy_save`; Lib/pickletools.py for what each operation means.
"""

from __future__ import annotations

import io
import pickletools
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from oddment.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["read_tensors"]

_PROGRAMS: Final = 5  # magic number, version, machine, the object, the order of the storages
_TYPES: Final = {"torch FloatStorage": "<f4", "torch LongStorage": "<i8"}
_MARK: Final = object()


def read_tensors(content: bytes) -> dict[str, torch.Tensor]:
    """Return the named tensors of a state dict that an old `torch.save` wrote.

    Args:
        content: the whole file.

    Raises:
        DataError: if it is not such a file, or holds anything but float32 and int64 tensors.
    """
    stream = io.BytesIO(content)
    try:
        programs = [list(pickletools.genops(stream)) for _ in range(_PROGRAMS)]
        order = [str(text) for operation, text, _ in programs[4] if operation.name == "BINUNICODE"]
        named = dict(_pairs(programs[3]))
        kinds = {storage[2]: _TYPES[storage[1]] for storage, *_ in named.values()}
        places = {key: _numbers(stream, kinds[key]) for key in order}
        return {name: _tensor(places, *found) for name, found in named.items()}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, StopIteration, RuntimeError) as error:
        msg = f"this is not a file of tensors as torch wrote them before 1.6: {error}."
        raise DataError(msg) from error


def _pairs(program: list[Any]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Name and arguments (storage, offset, shape, strides, …) of each tensor in the first dictionary."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for operation, argument, _ in program:
        name = operation.name
        if name == "SETITEMS":
            found = _since_mark(stack)
            yield from zip(found[::2], found[1::2], strict=True)
            return
        if name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "TUPLE":
            stack.append(tuple(_since_mark(stack)))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "REDUCE":  # a call, which is not made: its arguments stand for its result
            arguments = stack.pop()
            stack[-1] = arguments
        elif name != "BINPERSID":  # a storage's description stands for the storage
            stack.append(() if name.startswith("EMPTY") else argument)
    msg = "it holds no dictionary"
    raise ValueError(msg)


def _since_mark(stack: list[Any]) -> list[Any]:
    """Pop everything above the last mark, and the mark."""
    start = len(stack) - 1 - next(place for place, item in enumerate(reversed(stack)) if item is _MARK)
    found = stack[start + 1 :]
    del stack[start:]
    return found


def _numbers(stream: io.BytesIO, kind: str) -> np.ndarray[Any, Any]:
    """The next storage: its length as 8 bytes, then its numbers."""
    count = int.from_bytes(stream.read(8), "little")
    return np.frombuffer(stream.read(count * np.dtype(kind).itemsize), kind, count)


def _tensor(
    places: dict[str, np.ndarray[Any, Any]],
    storage: tuple[Any, ...],
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *_: Any,  # noqa: ANN401 - whether it learns, and hooks
) -> torch.Tensor:
    # torch checks that the tensor lies within its storage.
    whole = torch.from_numpy(places[storage[2]].copy())
    return whole.as_strided(shape, strides, offset).clone(memory_format=torch.contiguous_format)
