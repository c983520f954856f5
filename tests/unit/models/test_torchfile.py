"""Old torch files are read without running the program they begin with."""

from __future__ import annotations

import io
import pickle

import pytest
import torch

from oddment.errors import DataError
from oddment.models._torchfile import read_tensors


def written(tensors: object) -> bytes:
    stream = io.BytesIO()
    torch.save(tensors, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def test_it_reads_what_torch_wrote() -> None:
    """Names, shapes, types and values are those of torch's own reader, of views and other memory orders as well."""
    base = torch.arange(48.0)
    tensors = {
        "plain": torch.rand(3, 4),
        "none": torch.rand(0, 2),
        "turned": torch.rand(2, 3, 5, 7).contiguous(memory_format=torch.channels_last),
        "part": base[6:18].view(3, 4),
        "rest": base[40:],
        "count": torch.tensor(7),
    }
    found = read_tensors(written(tensors))
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
        assert found[name].is_contiguous()


class Trap:
    """Unpickling one would raise SystemExit."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Ask for a call."""
        return SystemExit, ("the file was run",)


@pytest.mark.parametrize("place", range(3))
def test_a_program_is_not_run(place: int) -> None:
    """A file that would run code when unpickled is refused, or read around it; nothing runs."""
    traps = [written({"a": Trap(), "b": torch.zeros(2)}), pickle.dumps(Trap(), 2) + written({"a": torch.zeros(2)})]
    traps.append(pickle.dumps(Trap(), 2) * 5)
    with pytest.raises(DataError):
        read_tensors(traps[place])


@pytest.mark.parametrize("length", [0, 1, 20, 200, 300, -1])
def test_a_cut_file_is_refused(length: int) -> None:
    """Wherever a file ends too early, the error is ours."""
    content = written({"a": torch.rand(4, 4), "b": torch.rand(3)})
    with pytest.raises(DataError):
        read_tensors(content[:length])
