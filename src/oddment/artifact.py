"""The `.oddment` model file: a zip of JSON, ONNX, safetensors and npy. Nothing in it can run code.

`docs/FORMAT.md` is the specification. Everything is checked before a byte of it is used.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import secrets
import stat
import zipfile
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from oddment.calibration import Calibration
from oddment.errors import ModelFileError
from oddment.examples import Examples, pack, unpack
from oddment.graphcheck import check_graph
from oddment.images.prepare import Preparation

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["FORMAT_VERSION", "MAX_BYTES", "ModelFile", "read_model", "write_atomically", "write_model"]

FORMAT = "oddment-model"
FORMAT_VERSION = 1
MAX_BYTES = 2 * 1024**3
MANIFEST_BYTES = 8 * 1024**2
# Numbers in one call of the graph, scoring_batch × C × H × W: the largest gray picture in the usual batch of 32.
MAX_BATCH_NUMBERS = 2**31
MEMBERS = ("manifest.json", "graph.onnx", "weights.safetensors", "calibration.npy")
OPTIONAL = ("examples.safetensors",)
ARRAYS = ("scores", "training_scores", "peaks")
# Zip entries carry a date; a fixed one keeps equal models equal files.
ZIP_DATE = (1980, 1, 1, 0, 0, 0)
# The end of a zip without a comment, and what stands before it in the 64-bit kind, which a model file never needs.
ZIP_END, ZIP_END_BYTES = b"PK\5\6", 22
ZIP64_LOCATOR, ZIP64_LOCATOR_BYTES = b"PK\6\7", 20
DIRECTORY_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """The contents of a model file.

    Args:
        graph: the scoring graph, ONNX bytes.
        weights: the autoencoder's weights, safetensors bytes; for retraining, not needed to score.
        preparation: how images are prepared.
        calibration: scores, rule and threshold.
        scoring_batch: pictures in each call of the graph.
        map_range: anomaly-map values that the heat maps' colours start and end at.
        info: everything else, JSON-ready: model, training, data, versions, parity, created.
        examples: small pictures of training images, for people to compare with; none where they are secret.
    """

    graph: bytes
    weights: bytes
    preparation: Preparation
    calibration: Calibration
    scoring_batch: int
    map_range: tuple[float, float]
    info: dict[str, Any]
    examples: Examples = field(default_factory=Examples)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of a prepared picture."""
        return self.preparation.channels, self.preparation.height, self.preparation.width


def write_model(path: Path, model: ModelFile) -> None:
    """Write a model file, whole or not at all.

    Args:
        path: where to; replaced atomically if it exists.
        model: the contents.

    Raises:
        ModelFileError: if the contents break the format; nothing is written that could not be read again.
        OSError: if the folder cannot be written to.
    """
    calibration = _pack_arrays(model.calibration)
    members = {"graph.onnx": model.graph, "weights.safetensors": model.weights, "calibration.npy": calibration}
    if len(model.examples):
        members["examples.safetensors"] = pack(model.examples)
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
        "preparation": model.preparation.as_dict(),
        "calibration": model.calibration.as_dict(),
        "scoring_batch": model.scoring_batch,
        "map_range": list(model.map_range),
        "info": model.info,
    }
    try:
        members["manifest.json"] = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False).encode()
        _assemble(members)
    except Exception as error:
        msg = f"{path} was not written, since it could not be read again: {_reason(error)}."
        raise ModelFileError(msg) from error
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in _present(members):
            archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), members[name])
    write_atomically(path, buffer.getvalue())


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to a temporary file beside `path`, flush it to the disk, and move it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not by tempfile: its files are private, and a model is as public as the user's umask makes any file.
    temporary = path.with_name(f".oddment-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_model(path: Path) -> ModelFile:
    """Return the verified contents of a model file.

    Args:
        path: the file.

    Raises:
        ModelFileError: if the file is missing, truncated, altered, foreign, hostile or of an unknown version.
    """
    try:
        return _assemble(_read_members(path))
    except FileNotFoundError:
        reason = "there is no such file. Make one with `oddment fit`."
    except IsADirectoryError:
        reason = "it is a folder. Name the .oddment file itself."
    except PermissionError:
        reason = "permission denied. Ask for the right to read it."
    except _VersionError as error:
        reason = f"{error}."
    except OSError as error:
        reason = f"it cannot be read ({error.strerror or error}). Copy it again."
    except zipfile.BadZipFile as error:
        reason = f"it is damaged, incomplete or not a model file ({error}). Copy it again, or fit the model anew."
    except Exception as error:  # noqa: BLE001 - parsers of zip, JSON and npy raise whatever they stumble over
        reason = f"{_reason(error)}. Copy it again, or fit the model anew."
    msg = f"{path}: {reason}"
    raise ModelFileError(msg)


class _VersionError(ModelFileError):
    """A format version that this release does not know: a copy of the file would not help."""


def _reason(error: Exception) -> str:
    if isinstance(error, ModelFileError):
        return str(error)
    text = " ".join(str(error).split())[:200].rstrip(".")
    return f"its contents do not follow the format ({type(error).__name__}: {text})"


# --- the zip


def _read_members(path: Path) -> dict[str, bytes]:
    # Looked at before it is opened: opening a pipe would wait for its other end for ever.
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError
    if not stat.S_ISREG(status.st_mode):
        msg = "it is a pipe, socket or device, not a file"
        raise ModelFileError(msg)
    if status.st_size > MAX_BYTES:
        msg = f"it is larger than {MAX_BYTES:,} bytes"
        raise ModelFileError(msg)
    with path.open("rb") as file:
        _check_end(file, status.st_size)
        with zipfile.ZipFile(file) as archive:
            _check_entries(archive.infolist(), status.st_size)
            return {name: archive.read(name) for name in _present(archive.namelist())}


def _check_end(file: IO[bytes], size: int) -> None:
    """Check the last bytes of a zip, which say how large the list of members is that zipfile reads whole."""
    start = max(0, size - ZIP_END_BYTES - ZIP64_LOCATOR_BYTES)
    file.seek(start)
    tail = file.read(ZIP_END_BYTES + ZIP64_LOCATOR_BYTES)
    end = tail[-ZIP_END_BYTES:]
    if len(end) < ZIP_END_BYTES or not end.startswith(ZIP_END) or end[20:22] != b"\0\0":
        msg = "File is not a zip file, or does not end as one"
        raise zipfile.BadZipFile(msg)
    if tail.startswith(ZIP64_LOCATOR) or int.from_bytes(end[12:16], "little") > DIRECTORY_BYTES:
        msg = "it is a zip of many members or of the 64-bit kind, which the format forbids"
        raise ModelFileError(msg)


def _check_entries(entries: list[zipfile.ZipInfo], size: int) -> None:
    names = [entry.filename for entry in entries]
    if sorted(names) != sorted(_present(names)):
        msg = f"it holds {_shorten(names)} where a model file holds exactly {', '.join(MEMBERS)}"
        raise ModelFileError(msg)
    for entry in entries:
        # Stored, never compressed: a small file cannot unfold into a large one.
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            msg = f"its {entry.filename} is compressed or encrypted, which the format forbids"
            raise ModelFileError(msg)
        if entry.file_size != entry.compress_size or entry.file_size > size:
            msg = f"its {entry.filename} claims {entry.file_size:,} bytes, more than there are"
            raise ModelFileError(msg)
    if sum(entry.file_size for entry in entries) > size:
        msg = "its members claim more bytes than there are"
        raise ModelFileError(msg)


def _present(names: Container[str]) -> tuple[str, ...]:
    """The members of a model file, in order, that has these names: the optional ones only where they are there."""
    return (*MEMBERS, *(name for name in OPTIONAL if name in names))


# --- the members


def _assemble(members: dict[str, bytes]) -> ModelFile:
    manifest = _parse_manifest(members["manifest.json"])
    _check_hashes(_part(manifest, "sha256", dict), members)
    check_graph(members["graph.onnx"])
    _check_weights(members["weights.safetensors"])
    preparation = _preparation(_part(manifest, "preparation", dict))
    arrays = _unpack_arrays(members["calibration.npy"])
    batch = _whole(manifest, "scoring_batch", 1, 4096)
    if batch * preparation.channels * preparation.height * preparation.width > MAX_BATCH_NUMBERS:
        msg = f"its scoring_batch of {batch:,} needs more than {MAX_BATCH_NUMBERS:,} numbers at once"
        raise ModelFileError(msg)
    low, high = _numbers(manifest, "map_range", 2)
    if low > high:
        msg = f"its map_range falls, from {low:g} to {high:g}"
        raise ModelFileError(msg)
    return ModelFile(
        graph=members["graph.onnx"],
        weights=members["weights.safetensors"],
        preparation=preparation,
        calibration=_calibration(_part(manifest, "calibration", dict), arrays),
        scoring_batch=batch,
        map_range=(low, high),
        info=_part(manifest, "info", dict),
        examples=unpack(members["examples.safetensors"]) if "examples.safetensors" in members else Examples(),
    )


def _parse_manifest(data: bytes) -> dict[str, Any]:
    if len(data) > MANIFEST_BYTES:
        msg = f"its manifest is larger than {MANIFEST_BYTES:,} bytes"
        raise ModelFileError(msg)
    manifest = json.loads(
        data.decode("utf-8"), parse_constant=_refuse, parse_float=_finite, object_pairs_hook=_without_repeats
    )
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        msg = "its manifest is not that of an Oddment model"
        raise ModelFileError(msg)
    version = manifest.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:
        msg = (
            f"it has format version {version!r:.40} and this release reads version {FORMAT_VERSION}; "
            "upgrade Oddment, or fit the model again"
        )
        raise _VersionError(msg)
    # What cannot be written again (half a surrogate pair) would fail later, in a report or a copy.
    json.dumps(manifest, ensure_ascii=False).encode()
    return manifest


def _check_hashes(hashes: dict[str, Any], members: dict[str, bytes]) -> None:
    hashed = _present(members)[1:]
    if sorted(hashes) != sorted(hashed):
        msg = f"its manifest gives SHA-256 for {_shorten(list(hashes))} where it must for {', '.join(hashed)}"
        raise ModelFileError(msg)
    for name in hashed:
        if hashlib.sha256(members[name]).hexdigest() != hashes[name]:
            msg = f"its {name} was altered or damaged (SHA-256 differs from the manifest's)"
            raise ModelFileError(msg)


def _preparation(data: dict[str, Any]) -> Preparation:
    for key in ("height", "width", "channels"):
        _whole(data, key, 1, 8192)
    ranges = _part(data, "ranges", dict)
    unknown = sorted(set(ranges) - {"uint8", "uint16", "float32"})
    if unknown or not ranges:
        msg = f"its ranges are given for {_shorten(unknown) or 'nothing'}, not for uint8, uint16 or float32"
        raise ModelFileError(msg)
    for name in ranges:
        _numbers(ranges, name, 2)
    return Preparation.from_dict(data)


def _calibration(data: dict[str, Any], arrays: dict[str, NDArray[np.float32]]) -> Calibration:
    _number(_part(data, "rule", dict), "value")
    _number(data, "threshold")
    _whole(data, "n_groups", 0, arrays["scores"].size)
    if arrays["peaks"].size != arrays["scores"].size:
        msg = f"its calibration has {arrays['scores'].size:,} scores and {arrays['peaks'].size:,} peaks"
        raise ModelFileError(msg)
    calibration = Calibration.from_dict(data, arrays)
    # The manifest has no hash of its own: a promise is believed only where the scores bear it out.
    expected = calibration.with_rule(calibration.rule).threshold
    if not math.isclose(calibration.threshold, expected, rel_tol=1e-6, abs_tol=1e-12):
        msg = f"its threshold {calibration.threshold:g} is not what its rule and scores give, {expected:g}"
        raise ModelFileError(msg)
    return calibration


def _check_weights(data: bytes) -> None:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(data)
    except SafetensorError as error:
        msg = f"its weights.safetensors is damaged ({error})"
        raise ModelFileError(msg) from error
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            msg = f"its weight {name[:60]} holds NaN or infinite values"
            raise ModelFileError(msg)


# --- values of the manifest: of the right type, or refused


def _part(data: dict[str, Any], key: str, kind: type) -> Any:  # noqa: ANN401 - of that kind
    if key not in data:
        msg = f"its manifest has no {key}"
        raise ModelFileError(msg)
    # Not isinstance: true is an int to Python and none to anybody else.
    if type(data[key]) is not kind:
        msg = f"its manifest's {key} is {data[key]!r:.40}, where {_KINDS[kind]} is needed"
        raise ModelFileError(msg)
    return data[key]


_KINDS = {dict: "an object", list: "an array", int: "a whole number", float: "a number"}


def _number(data: dict[str, Any], key: str) -> float:
    kind = int if type(data.get(key)) is int else float
    return float(_part(data, key, kind))


def _whole(data: dict[str, Any], key: str, least: int, most: int) -> int:
    value: int = _part(data, key, int)
    if not least <= value <= most:
        msg = f"its {key} must lie between {least:,} and {most:,}; got {value!r:.40}"
        raise ModelFileError(msg)
    return value


def _numbers(data: dict[str, Any], key: str, count: int) -> list[float]:
    values = _part(data, key, list)
    if len(values) != count or any(type(value) not in (int, float) for value in values):
        msg = f"its manifest's {key} is {values!r:.40}, where {count} numbers are needed"
        raise ModelFileError(msg)
    return [float(value) for value in values]


def _refuse(name: str) -> float:
    msg = f"its manifest holds {name}, which JSON does not know"
    raise ModelFileError(msg)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        msg = f"its manifest holds the number {text[:40]}, which is out of range"
        raise ModelFileError(msg)
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; two readers could take two different ones of a key that comes twice."""
    data = dict(pairs)
    if len(data) != len(pairs):
        msg = "its manifest names a key twice"
        raise ModelFileError(msg)
    return data


# --- the calibration array


def _pack_arrays(calibration: Calibration) -> bytes:
    """One float32 (3, n) array, rows padded with NaN to the longest, as npy."""
    rows = [np.asarray(getattr(calibration, name), dtype=np.float32) for name in ARRAYS]
    packed = np.full((len(rows), max(1, *(row.size for row in rows))), np.nan, dtype=np.float32)
    for target, row in zip(packed, rows, strict=True):
        target[: row.size] = row
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, packed, allow_pickle=False)
    return buffer.getvalue()


def _unpack_arrays(data: bytes) -> dict[str, NDArray[np.float32]]:
    packed = _read_npy(data)
    rows = {}
    for name, row in zip(ARRAYS, packed, strict=True):
        used = row[~np.isnan(row)]
        if np.isnan(row[: used.size]).any() or not np.isfinite(used).all() or (np.diff(used) < 0).any():
            msg = f"its calibration {name} are not finite and ascending"
            raise ModelFileError(msg)
        rows[name] = used
    return rows


def _read_npy(data: bytes) -> NDArray[np.float32]:
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        msg = "its calibration.npy is not of npy version 1.0"
        raise ModelFileError(msg)
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype != np.dtype("<f4") or fortran_order or len(shape) != 2 or shape[0] != len(ARRAYS):
        msg = f"its calibration.npy is {dtype} of shape {shape}, not float32 (3, n) in C order"
        raise ModelFileError(msg)
    # NumPy would make room for whatever the header promises.
    room = len(data) - stream.tell()
    if math.prod(shape) * dtype.itemsize != room:
        msg = f"its calibration.npy promises {shape[1]:,} columns and has {room:,} bytes"
        raise ModelFileError(msg)
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape).astype(np.float32)


def _shorten(names: list[str]) -> str:
    return ", ".join(repr(name[:60]) for name in names[:4]) + (" …" if len(names) > 4 else "")
