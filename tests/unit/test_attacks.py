"""The attacks of docs/FORMAT.md, under the same numbers: each file is built for real and refused with its reason."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import struct
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from oddment import load
from oddment.artifact import MEMBERS, OPTIONAL, read_model
from oddment.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

# What a reader can do about it; every message ends with one of these.
REMEDY = re.compile(r"Copy it again|[Ff]it |Make one|upgrade Oddment|Name the")


def members_of(model: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(model) as archive:
        return {name: archive.read(name) for name in (*MEMBERS, *OPTIONAL)}


def pack(path: Path, entries: list[tuple[str, bytes]], *, compression: int = zipfile.ZIP_STORED) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as archive:
        warnings.simplefilter("ignore")  # zipfile warns of the duplicate names of attack 6
        for name, data in entries:
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=compression)
    return path


def forge(
    model: Path,
    target: Path,
    *,
    change: Callable[[dict[str, Any]], object] | None = None,
    text: Callable[[str], str] | None = None,
    **members: bytes,
) -> Path:
    """A copy of a model file with other contents and hashes that fit them, as somebody with intent would make it.

    Args:
        model: the file to start from.
        target: the file to write.
        change: changes the manifest in place.
        text: changes the manifest's JSON.
        members: "graph", "weights", "calibration" or "examples", new bytes of a member.
    """
    contents = members_of(model)
    names = {name.split(".")[0]: name for name in (*MEMBERS[1:], *OPTIONAL)}
    contents.update({names[key]: data for key, data in members.items()})
    manifest = json.loads(contents["manifest.json"])
    manifest["sha256"] = {name: hashlib.sha256(contents[name]).hexdigest() for name in (*MEMBERS[1:], *OPTIONAL)}
    if change:
        change(manifest)
    written = json.dumps(manifest)
    contents["manifest.json"] = (text(written) if text else written).encode()
    return pack(target, list(contents.items()))


def refused(path: Path, reason: str) -> None:
    """Reading fails with a message that names the file, the reason and a remedy."""
    with pytest.raises(ModelFileError, match=reason) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert REMEDY.search(message), message
    assert "\n" not in message


def npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def calibration_of(model: Path) -> NDArray[np.float32]:
    array: NDArray[np.float32] = np.load(io.BytesIO(members_of(model)["calibration.npy"]))
    return array


def test_the_forger_itself_is_sound(tiny_model: Path, tmp_path: Path, tiny_images: NDArray[np.uint8]) -> None:
    """A forged copy without a change is accepted, so that what the attacks change is what is refused."""
    copy = load(forge(tiny_model, tmp_path / "m.oddment"))
    assert np.array_equal(copy.anomaly_score(tiny_images), load(tiny_model).anomaly_score(tiny_images))


@pytest.mark.parametrize("kept", [0, 1, 21, 22, 1000, 0.5, 0.99, -1])
def test_01_truncated(tiny_model: Path, tmp_path: Path, kept: float) -> None:
    """1: a file that was cut anywhere is refused as incomplete."""
    whole = tiny_model.read_bytes()
    cut = tmp_path / "m.oddment"
    cut.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    refused(cut, "damaged, incomplete or not a model file")


@pytest.mark.parametrize("name", MEMBERS)
def test_02_damaged_member(tiny_model: Path, tmp_path: Path, name: str) -> None:
    """2: a flipped bit in any member is found by the zip's own check sum."""
    whole = bytearray(tiny_model.read_bytes())
    inside = members_of(tiny_model)[name]
    whole[whole.index(inside) + len(inside) // 2] ^= 1
    damaged = tmp_path / "m.oddment"
    damaged.write_bytes(whole)
    refused(damaged, rf"damaged, incomplete or not a model file \(Bad CRC-32 for file '{name}'")


@pytest.mark.parametrize("name", MEMBERS[1:])
def test_02_altered_member(tiny_model: Path, tmp_path: Path, name: str) -> None:
    """2: a member that was replaced, with a right check sum, differs from the manifest's SHA-256."""
    contents = members_of(tiny_model)
    contents[name] = contents[name][:-1] + bytes([contents[name][-1] ^ 1])
    refused(pack(tmp_path / "m.oddment", list(contents.items())), f"its {name} was altered or damaged")


def test_02_hashes_left_out(tiny_model: Path, tmp_path: Path) -> None:
    """2: a manifest that gives no hash for a member, or one for a foreign name, is refused."""
    fewer = forge(tiny_model, tmp_path / "a.oddment", change=lambda m: m["sha256"].pop("graph.onnx"))
    refused(fewer, "SHA-256 for .* where it must")
    more = forge(tiny_model, tmp_path / "b.oddment", change=lambda m: m["sha256"].update({"manifest.json": "0"}))
    refused(more, "SHA-256 for .* where it must")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a model file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(500), "not a model file"),
        (b"\x80\x04\x95" + bytes(100), "not a model file"),
    ],
)
def test_03_foreign_file(tmp_path: Path, content: bytes, reason: str) -> None:
    """3: a file of another kind is refused, a pickle without being loaded."""
    path = tmp_path / "m.oddment"
    path.write_bytes(content)
    refused(path, reason)


def test_03_foreign_zip(tmp_path: Path) -> None:
    """3: a zip of something else is refused and its names are shown, shortened."""
    foreign = pack(tmp_path / "m.oddment", [(f"{'photo' * 50}{n}.jpg", b"x") for n in range(9)])
    refused(foreign, r"it holds 'photo.*…\ where a model file holds exactly manifest\.json")


def test_03_foreign_manifest(tiny_model: Path, tmp_path: Path) -> None:
    """3: four members of the right names with another format's manifest are refused."""
    foreign = forge(tiny_model, tmp_path / "m.oddment", change=lambda m: m.update(format="tarball"))
    refused(foreign, "not that of an Oddment model")


def test_03_no_file(tmp_path: Path) -> None:
    """3: a missing file, a folder and a pipe have their own messages, and a pipe does not block."""
    refused(tmp_path / "none.oddment", "there is no such file")
    refused(tmp_path, "it is a folder")
    os.mkfifo(tmp_path / "pipe.oddment")
    refused(tmp_path / "pipe.oddment", "a pipe, socket or device")


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_04_zip_bomb(tiny_model: Path, tmp_path: Path, compression: int) -> None:
    """4: compressed members are refused unread, whatever they would unfold to."""
    contents = members_of(tiny_model)
    contents["weights.safetensors"] = bytes(20_000_000)
    bomb = pack(tmp_path / "m.oddment", list(contents.items()), compression=compression)
    assert bomb.stat().st_size < 1_000_000
    refused(bomb, "is compressed or encrypted, which the format forbids")


@pytest.mark.parametrize("claim", [2**20 + 7, 2**31, 2**32 - 2])
def test_04_claimed_sizes(tiny_model: Path, tmp_path: Path, claim: int) -> None:
    """4: a member that claims more bytes than the file has is refused before room is made for them."""
    whole = bytearray(tiny_model.read_bytes())
    entry = whole.index(b"PK\1\2")  # the first one of the list at the end
    whole[entry + 20 : entry + 28] = struct.pack("<II", claim, claim)
    path = tmp_path / "m.oddment"
    path.write_bytes(whole)
    refused(path, "claims [0-9,]+ bytes, more than there are|damaged")


def test_04_many_members(tmp_path: Path) -> None:
    """4: a list of members too long for a model file is refused before it is read."""
    many = pack(tmp_path / "m.oddment", [(f"{n:05}.json", b"") for n in range(3000)])
    refused(many, "zip of many members")


def test_04_zip64(tiny_model: Path, tmp_path: Path) -> None:
    """4: a 64-bit directory, which could name a longer list than was looked at, is refused."""
    whole = tiny_model.read_bytes()
    path = tmp_path / "m.oddment"
    path.write_bytes(whole[:-22] + b"PK\6\7" + bytes(16) + whole[-22:])
    refused(path, "64-bit kind")


@pytest.mark.parametrize("name", ["../evil.py", "/etc/cron.d/evil", "graph.onnx/", "..\\evil.py", "data.bin", ""])
def test_05_extra_members(tiny_model: Path, tmp_path: Path, name: str) -> None:
    """5: a member of any other name is refused, and nothing is ever extracted."""
    before = sorted(tmp_path.parent.iterdir())
    extra = pack(tmp_path / "m.oddment", [*members_of(tiny_model).items(), (name, b"import os")])
    refused(extra, "where a model file holds exactly")
    assert sorted(tmp_path.iterdir()) == [extra]
    assert sorted(tmp_path.parent.iterdir()) == before


@pytest.mark.parametrize("name", MEMBERS)
def test_05_missing_member(tiny_model: Path, tmp_path: Path, name: str) -> None:
    """5: a file that lacks a member is refused."""
    fewer = [(key, data) for key, data in members_of(tiny_model).items() if key != name]
    refused(pack(tmp_path / "m.oddment", fewer), "where a model file holds exactly")


@pytest.mark.parametrize("name", MEMBERS)
def test_06_duplicate_names(tiny_model: Path, tmp_path: Path, name: str) -> None:
    """6: two members of one name, of which two readers could take different ones, are refused."""
    contents = members_of(tiny_model)
    twice = pack(tmp_path / "m.oddment", [*contents.items(), (name, contents[name])])
    refused(twice, "where a model file holds exactly")
    refused(forge(tiny_model, tmp_path / "n.oddment", text=lambda t: t.replace("{", '{"format": "x", ', 1)), "twice")


def test_06_swapped_header(tiny_model: Path, tmp_path: Path) -> None:
    """6: a member whose own header names it differently than the list does is refused."""
    whole = bytearray(tiny_model.read_bytes())
    header = whole.index(members_of(tiny_model)["graph.onnx"]) - len("graph.onnx")
    whole[header : header + len("graph.onnx")] = b"graph.exec"
    path = tmp_path / "m.oddment"
    path.write_bytes(whole)
    refused(path, "differ")


# --- 7: the graph


def external_graph(model: Path, location: str) -> bytes:
    """The model's graph with its largest weight moved into a file."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load_from_string(members_of(model)["graph.onnx"])
    weight = max(graph.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", location
    data: bytes = graph.SerializeToString()
    return data


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "secret.bin"])
def test_07_external_data(tiny_model: Path, tmp_path: Path, location: str) -> None:
    """7: a graph whose weights lie in a file of the machine is refused."""
    path = forge(tiny_model, tmp_path / "m.oddment", graph=external_graph(tiny_model, location))
    refused(path, "refers to a file outside the model file")


def test_07_disguised_external_data(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """7: the reference is found in whatever way protobuf allows it to be written, also where ONNX Runtime reads it."""
    ort = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    # One tensor, by hand: location's length written in two bytes instead of one, which every reader accepts.
    entry = b"\x0a\x88\x00location\x12\x0a" + b"secret.bin"
    tensor = onnx.TensorProto(dims=[4], data_type=1, name="w", data_location=1).SerializeToString()
    tensor += b"\x6a" + bytes([len(entry)]) + entry
    given, gives = (onnx.helper.make_tensor_value_info(name, 1, [4]) for name in "xy")
    node = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [given], [gives]).SerializeToString()
    graph += b"\x2a" + bytes([len(tensor)]) + tensor
    model = onnx.ModelProto(ir_version=8, opset_import=[onnx.helper.make_opsetid("", 17)]).SerializeToString()
    model += b"\x3a" + struct.pack("BB", len(graph) & 127 | 128, len(graph) >> 7) + graph
    assert b"\x0a\x08location" not in model
    (tmp_path / "secret.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    # The attack is real: ONNX Runtime itself would read the file.
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    assert ort.InferenceSession(model, options).run(None, {"x": np.zeros(4, np.float32)})[0].tolist() == [0, 1, 2, 3]
    refused(forge(tiny_model, tmp_path / "m.oddment", graph=model), "refers to a file outside the model file")


@pytest.mark.parametrize("place", ["attribute", "subgraph", "sparse"])
def test_07_nested_external_data(tiny_model: Path, tmp_path: Path, place: str) -> None:
    """7: the reference is found in constants, subgraphs and sparse tensors too."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load_from_string(members_of(tiny_model)["graph.onnx"])
    tensor = onnx.TensorProto(dims=[1], data_type=1, name="w", data_location=1)
    if place == "sparse":
        graph.graph.sparse_initializer.add().values.CopyFrom(tensor)
    else:
        node = onnx.helper.make_node("Constant", [], ["constant"], value=tensor)
        if place == "subgraph":
            inner = onnx.helper.make_graph([node], "inner", [], [])
            node = onnx.helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
        graph.graph.node.append(node)
    path = forge(tiny_model, tmp_path / "m.oddment", graph=graph.SerializeToString())
    refused(path, "refers to a file outside the model file")


@pytest.mark.parametrize("kind", ["domain", "function", "training"])
def test_07_foreign_operators(tiny_model: Path, tmp_path: Path, kind: str) -> None:
    """7: operators that are not ONNX's own, functions and training parts are refused."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load_from_string(members_of(tiny_model)["graph.onnx"])
    if kind == "domain":
        graph.graph.node[0].domain = "com.microsoft"
    elif kind == "function":
        graph.functions.add().name = "f"
    else:
        graph.training_info.add()
    path = forge(tiny_model, tmp_path / "m.oddment", graph=graph.SerializeToString())
    refused(path, "operators other than|functions of its own|a training part")


@pytest.mark.parametrize("graph", [b"", b"\x00", b"not a graph at all", b"\x3a\xff\xff\xff\xff\x7f", b"\xff" * 64])
def test_07_no_graph(tiny_model: Path, tmp_path: Path, graph: bytes) -> None:
    """7: bytes that are no ONNX graph are refused."""
    refused(forge(tiny_model, tmp_path / "m.oddment", graph=graph), r"graph\.onnx (is no|cannot be loaded)")


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("height", 12, "its manifest says"),
        ("width", 1, "its manifest says"),
        ("channels", 3, "its manifest says"),
        ("channels", 2, "channels must be 1"),
        ("height", 0, "must lie between"),
        ("height", 10**9, "must lie between"),
        ("width", 8.0, "a whole number is needed"),
        ("width", "8", "a whole number is needed"),
        ("channels", True, "a whole number is needed"),
        ("fit", "crop", "fit must be one of"),
        ("fit", ["tile"], "fit must be one of"),
        ("ranges", {}, "ranges"),
        ("ranges", {"object": [0, 1]}, "ranges"),
        ("ranges", {"uint8": [255, 0]}, "finite and rising"),
        ("ranges", {"uint8": [0, 1e-300]}, "finite and rising"),
        ("ranges", {"uint8": [0, 1e300]}, "finite and rising"),
        ("ranges", {"uint8": 255}, "an array is needed"),
        ("ranges", {"uint8": ["0", "255"]}, "2 numbers are needed"),
    ],
)
def test_08_wrong_preparation(tiny_model: Path, tmp_path: Path, key: str, value: object, reason: str) -> None:
    """8: a manifest that prepares images otherwise than the graph takes them, or not at all, is refused."""
    path = forge(tiny_model, tmp_path / "m.oddment", change=lambda m: m["preparation"].update({key: value}))
    refused(path, reason)


def small_graph(outputs: dict[str, tuple[int, list[Any]]], shape: list[Any]) -> bytes:
    """A graph with the names that the format wants, whose outputs are constants of the given types and shapes."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    nodes, infos = [], []
    for name, (kind, declared) in outputs.items():
        numeric = helper.tensor_dtype_to_np_dtype(kind)
        sizes = [side if isinstance(side, int) else 32 for side in declared]
        value = onnx.numpy_helper.from_array(np.zeros(sizes, numeric), name)
        nodes.append(helper.make_node("Constant", [], [name], value=value))
        infos.append(helper.make_tensor_value_info(name, kind, None))
    inputs = [helper.make_tensor_value_info("images", 1, shape), helper.make_tensor_value_info("valid", 7, ["n", 4])]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, infos), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    data: bytes = model.SerializeToString()
    return data


GOOD: dict[str, tuple[int, list[Any]]] = {
    "anomaly_score": (1, [32]),
    "anomaly_map": (1, [32, 8, 8]),
    "reconstruction": (1, [32, 1, 8, 8]),
    "latent": (1, [32, 5]),
}


def test_08_wrong_names(tiny_model: Path, tmp_path: Path) -> None:
    """8: a graph with other inputs or outputs than the format names is refused when it is loaded."""
    graph = small_graph({"anomaly_score": (1, [32])}, ["n", 1, 8, 8])
    refused(forge(tiny_model, tmp_path / "m.oddment", graph=graph), "Oddment needs")


def test_08_wrong_types(tiny_model: Path, tmp_path: Path) -> None:
    """8: a graph whose score is no float32 is refused when it is loaded."""
    graph = small_graph(GOOD | {"anomaly_score": (11, [32])}, ["n", 1, 8, 8])
    refused(forge(tiny_model, tmp_path / "m.oddment", graph=graph), r"anomaly_score is a tensor\(double\)")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("anomaly_score", [1]),
        ("anomaly_score", [32, 1]),
        ("anomaly_map", [32, 64]),
        ("anomaly_map", [32, 16, 16]),
        ("reconstruction", [32, 3, 8, 8]),
        ("latent", [4, 8]),
        ("latent", []),
    ],
)
def test_08_wrong_outputs(tiny_model: Path, tmp_path: Path, name: str, shape: list[int]) -> None:
    """8: a graph that gives another shape than the format names is refused when it first scores."""
    path = forge(tiny_model, tmp_path / "m.oddment", graph=small_graph(GOOD | {name: (1, shape)}, ["n", 1, 8, 8]))
    with pytest.raises(ModelFileError, match=f"its graph gave {name} of shape"):
        load(path).latent(np.zeros((3, 8, 8), np.uint8))


# --- 9 and 10: numbers that are none


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_09_weights_not_finite(tiny_model: Path, tmp_path: Path, bad: float) -> None:
    """9: weights that hold NaN or infinite values are refused."""
    from safetensors.numpy import load as load_weights
    from safetensors.numpy import save

    tensors = load_weights(members_of(tiny_model)["weights.safetensors"])
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
    tensors[name][0, 0, 0, 0] = bad
    refused(forge(tiny_model, tmp_path / "m.oddment", weights=save(tensors)), "holds NaN or infinite values")


@pytest.mark.parametrize("weights", [b"", b"\xff" * 8, b"\xff\xff\xff\x7f\0\0\0\0{}", bytes(100)])
def test_09_no_weights(tiny_model: Path, tmp_path: Path, weights: bytes) -> None:
    """9: bytes that are no safetensors file, or whose header claims to be huge, are refused."""
    refused(forge(tiny_model, tmp_path / "m.oddment", weights=weights), r"weights\.safetensors is damaged")


def test_09_graph_not_finite(tiny_model: Path, tmp_path: Path, tiny_images: NDArray[np.uint8]) -> None:
    """9: a graph whose own weights are NaN gives no verdict: each image is rejected with that reason."""
    onnx = pytest.importorskip("onnx")
    graph = onnx.load_from_string(members_of(tiny_model)["graph.onnx"])
    weight = max(graph.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.raw_data = np.full(len(weight.raw_data) // 4, np.nan, np.float32).tobytes()
    path = forge(tiny_model, tmp_path / "m.oddment", graph=graph.SerializeToString())
    results = load(path).detect(tiny_images[:3])
    assert [item.status for item in results] == ["rejected"] * 3
    assert "no finite score" in results[0].as_row()["reason"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda a: a.__setitem__((0, 3), np.nan),
        lambda a: a.__setitem__((0, -1), np.inf),
        lambda a: a.__setitem__((2, 0), -np.inf),
        lambda a: a.__setitem__(0, a[0, ::-1].copy()),
        lambda a: a.__setitem__((1, slice(0, 2)), [5.0, 4.0]),
    ],
)
def test_10_calibration_spoiled(tiny_model: Path, tmp_path: Path, spoil: Callable[[Any], None]) -> None:
    """10: calibration scores with NaN between them, infinite ones or out of order are refused."""
    array = calibration_of(tiny_model)
    spoil(array)
    refused(forge(tiny_model, tmp_path / "m.oddment", calibration=npy(array)), "are not finite and ascending")


def test_10_believed_threshold(tiny_model: Path, tmp_path: Path) -> None:
    """10: a threshold that its rule and scores do not give is refused: the promise would be false."""
    path = forge(tiny_model, tmp_path / "a.oddment", change=lambda m: m["calibration"].update(threshold=0.5))
    refused(path, "threshold 0.5 is not what its rule and scores give")
    path = forge(tiny_model, tmp_path / "b.oddment", change=lambda m: m["calibration"]["rule"].update(value=0.001))
    refused(path, "needs at least 999 calibration images")
    path = forge(tiny_model, tmp_path / "c.oddment", change=lambda m: m["calibration"].update(n_groups=13))
    refused(path, "n_groups must lie between 0 and 12")


def test_10_peaks_of_other_images(tiny_model: Path, tmp_path: Path) -> None:
    """10: as many peaks as scores, or the file is refused."""
    array = calibration_of(tiny_model)
    array[2, 5:] = np.nan
    refused(forge(tiny_model, tmp_path / "m.oddment", calibration=npy(array)), "12 scores and 5 peaks")


# --- 11: versions


@pytest.mark.parametrize("version", [2, 0, -1, "1", 1.0, True, None, [1], "9" * 1000])
def test_11_unknown_version(tiny_model: Path, tmp_path: Path, version: object) -> None:
    """11: any version but the integer 1 is refused, with the advice to upgrade."""
    path = forge(tiny_model, tmp_path / "m.oddment", change=lambda m: m.update(format_version=version))
    refused(path, "format version .* upgrade Oddment")


# --- 12: npy


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 1000000000000), }", "promises"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4611686018427387904), }", "promises"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 46), }", "promises"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (3, -1), }", "promises"),
        ("{'descr': '<f4', 'fortran_order': True, 'shape': (3, 48), }", "in C order"),
        ("{'descr': '>f4', 'fortran_order': False, 'shape': (3, 48), }", "not float32"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (3, 24), }", "not float32"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (3, 48), }", "not float32"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (144,), }", "not float32"),
        ("{'descr': '<f4', 'fortran_order': False, 'shape': (4, 36), }", "not float32"),
        ("(" * 5000, "do not follow the format"),
        ("{" + " " * 60000 + "}", "do not follow the format"),
        ("__import__('os').abort()", "do not follow the format"),
    ],
)
def test_12_npy_header(tiny_model: Path, tmp_path: Path, header: str, reason: str) -> None:
    """12: an npy header that promises more than there is, another type or order, or code, is refused unread."""
    text = (header + "\n").encode()
    body = bytes(4 * 3 * 48)
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body
    refused(forge(tiny_model, tmp_path / "m.oddment", calibration=data), reason)


def test_12_npy_version(tiny_model: Path, tmp_path: Path) -> None:
    """12: npy versions whose header may be gigabytes long are refused."""
    data = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{}"
    refused(forge(tiny_model, tmp_path / "m.oddment", calibration=data), "npy version")


# --- 13 and 14: JSON


@pytest.mark.parametrize("nested", ["[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000])
def test_13_deep_json(tiny_model: Path, tmp_path: Path, nested: str) -> None:
    """13: a manifest nested deeper than a parser may go is refused."""
    path = forge(tiny_model, tmp_path / "m.oddment", text=lambda text: text[:-1] + ', "x": ' + nested)
    refused(path, "do not follow the format")


def test_13_large_json(tiny_model: Path, tmp_path: Path) -> None:
    """13: a manifest beyond the limit is refused before it is parsed."""
    path = forge(tiny_model, tmp_path / "m.oddment", text=lambda text: text + " " * 8 * 1024**2)
    refused(path, "its manifest is larger than 8,388,608 bytes")


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "1", '"x"', "{", "\\", '{"format": "oddment-model", "info": "\\ud800"}', "\ufeff{}"]
)
def test_13_no_json(tiny_model: Path, tmp_path: Path, text: str) -> None:
    """13: a manifest that is no JSON object of this format is refused."""
    refused(forge(tiny_model, tmp_path / "m.oddment", text=lambda _: text), "do not follow|not that of|format version")


def test_13_half_surrogate(tiny_model: Path, tmp_path: Path) -> None:
    """13: text that no file could be written with again is refused."""
    path = forge(tiny_model, tmp_path / "m.oddment", change=lambda m: m["info"].update(created="\ud800"))
    refused(path, "do not follow the format")


@pytest.mark.parametrize("key", ["scoring_batch", "map_range", "info", "preparation", "calibration", "sha256"])
@pytest.mark.parametrize("value", [None, "text", True, [], 10**400, {"a": 1}, [[1], [2]]])
def test_14_wrong_types(tiny_model: Path, tmp_path: Path, key: str, value: object) -> None:
    """14: a value of the wrong type, or none, is refused for every key of the manifest."""
    if key == "info" and isinstance(value, dict):
        return  # an object is what it must be
    refused(forge(tiny_model, tmp_path / "a.oddment", change=lambda m: m.update({key: value})), r"\w")
    refused(forge(tiny_model, tmp_path / "b.oddment", change=lambda m: m.pop(key)), f"its manifest .*{key}|SHA-256")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", '"0.1"', "true", "null", "[0.1]"])
@pytest.mark.parametrize("key", ['"threshold": ', '"value": ', '"map_range": [', '"uint8": [', '"seed": '])
def test_14_numbers_that_are_none(tiny_model: Path, tmp_path: Path, key: str, value: str) -> None:
    """14: NaN, infinities and numbers in quotes are refused wherever a number stands."""
    if key == '"seed": ' and value[0] in '"tn[':
        return  # info may hold anything that is JSON
    path = forge(
        tiny_model,
        tmp_path / "m.oddment",
        text=lambda text: re.sub(re.escape(key) + r"[-0-9.e]+", lambda _: key + value, text, count=1),
    )
    assert value in members_of(path)["manifest.json"].decode()
    refused(path, "which JSON does not know|out of range|needed")


@pytest.mark.parametrize("rule", [{"kind": "magic"}, {"over": "both"}, {"value": 2}, {"kind": []}, {"value": "0.1"}])
def test_14_unknown_rule(tiny_model: Path, tmp_path: Path, rule: dict[str, Any]) -> None:
    """14: a rule that does not exist, or whose value breaks it, is refused."""
    path = forge(tiny_model, tmp_path / "m.oddment", change=lambda m: m["calibration"]["rule"].update(rule))
    refused(path, r"must|needed")


def test_14_falling_map_range(tiny_model: Path, tmp_path: Path) -> None:
    """14: colours that would run backwards are refused."""
    refused(forge(tiny_model, tmp_path / "m.oddment", change=lambda m: m.update(map_range=[1, 0.5])), "map_range falls")


# --- 15


@pytest.mark.parametrize("batch", [0, -1, 4097, 2**63, 32.0, "32"])
def test_15_scoring_batch(tiny_model: Path, tmp_path: Path, batch: object) -> None:
    """15: a batch outside 1 to 4,096 is refused before room is made for it."""
    path = forge(tiny_model, tmp_path / "m.oddment", change=lambda m: m.update(scoring_batch=batch))
    refused(path, "scoring_batch")


def test_15_huge_batch(tiny_model: Path, tmp_path: Path) -> None:
    """15: a batch that is allowed and pictures that are allowed, but not together, are refused."""

    def change(manifest: dict[str, Any]) -> None:
        manifest["preparation"].update(height=8192, width=8192, channels=3)
        manifest["scoring_batch"] = 4096

    refused(forge(tiny_model, tmp_path / "m.oddment", change=change), "needs more than 2,147,483,648 numbers")


# --- 16: examples


def forge_examples(model: Path, target: Path, data: bytes) -> Path:
    """A copy of a model file with other examples, and the hash that fits them."""
    return forge(model, target, examples=data)


def webp(width: int, height: int, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height)).save(stream, "WEBP", **options)
    return stream.getvalue()


def examples(names: object, pictures: list[bytes], ends: list[int] | None = None, **more: NDArray[Any]) -> bytes:
    from safetensors.numpy import save

    tensors = {
        "names": np.frombuffer(json.dumps(names).encode(), np.uint8),
        "ends": np.array(np.cumsum([len(data) for data in pictures]) if ends is None else ends, np.int64),
        "pictures": np.frombuffer(b"".join(pictures), np.uint8),
    }
    return save(tensors | more)


SMALL = webp(9, 9)


def test_16_the_forged_examples_are_sound(tiny_model: Path, tmp_path: Path) -> None:
    """16: a member made by hand is accepted where nothing is wrong with it."""
    path = forge_examples(
        tiny_model, tmp_path / "m.oddment", examples(["a", "b"], [SMALL, webp(128, 1, lossless=True)])
    )
    assert read_model(path).examples.names == ("a", "b")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "examples.safetensors is damaged"),
        (b"\xff" * 64, "examples.safetensors is damaged"),
        (examples(["a"], [SMALL], more=np.zeros(1, np.uint8)), "holds other tensors"),
        (examples({"a": 1}, [SMALL]), "no list of texts"),
        (examples([1], [SMALL]), "no list of texts"),
        (examples("a", [SMALL]), "no list of texts"),
        (examples(["a", "b"], [SMALL]), "do not lie end to end"),
        (examples(["a"], [SMALL], [len(SMALL) - 1]), "do not lie end to end"),
        (examples(["a"], [SMALL], [2**60]), "do not lie end to end"),
        (examples(["a", "b"], [SMALL], [-5, len(SMALL)]), "do not lie end to end"),
        (examples(["a", "b"], [SMALL], [len(SMALL), 0]), "do not lie end to end"),
        (examples(["a", "b"], [SMALL], [0, len(SMALL)]), "do not lie end to end"),
        (examples(["x"] * 501, [SMALL] * 501), "more than 500"),
        (examples(["a"], [SMALL + bytes(5_000_000)]), "larger than 4,194,304 bytes"),
        (examples(["a"], [webp(129, 9)]), "no plain WebP"),
        (examples(["a"], [webp(16_383, 16_383)]), "no plain WebP"),
        (examples(["a"], [webp(9, 129, lossless=True)]), "no plain WebP"),
        (examples(["a"], [webp(9, 9, exif=b"Exif\0\0x")]), "no plain WebP"),
        (examples(["a"], [webp(9, 9, save_all=True, append_images=[Image.new("RGB", (9, 9), 9)])]), "no plain WebP"),
        (examples(["a"], [b"<svg onload='alert(1)'>" + bytes(30)]), "no plain WebP"),
        (examples(["a"], [SMALL[:-2]]), "no plain WebP"),
    ],
)
def test_16_hostile_examples(tiny_model: Path, tmp_path: Path, data: bytes, reason: str) -> None:
    """16: names that are no texts, pictures that overlap, are too many or too large or no plain WebP, are refused."""
    refused(forge_examples(tiny_model, tmp_path / "m.oddment", data), reason)


def test_16_altered_examples(tiny_model: Path, tmp_path: Path) -> None:
    """16: examples without a hash, or other ones than the manifest's, are refused as any member."""
    whole = members_of(tiny_model)
    other = whole | {"examples.safetensors": examples(["a"], [SMALL])}
    refused(pack(tmp_path / "a.oddment", list(other.items())), "its examples.safetensors was altered or damaged")
    fewer = forge(tiny_model, tmp_path / "b.oddment", change=lambda m: m["sha256"].pop("examples.safetensors"))
    refused(fewer, "SHA-256 for .* where it must")


# --- anything else


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_bytes_raise_only_model_file_errors(tiny_model: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Whatever bytes are flipped or cut, a model file is read as it was or refused with ModelFileError."""
    whole = bytearray(tiny_model.read_bytes())
    # Half of the flips in the structures at either end, which random places would hardly ever hit.
    ends = st.integers(0, 400) | st.integers(len(whole) - 400, len(whole) - 1)
    for at in data.draw(st.lists(ends | st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
        whole[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.just(len(whole)) | st.integers(0, len(whole)))
    path = tmp_path / "m.oddment"
    path.write_bytes(whole[:cut])
    read_or_refused(path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_members_raise_only_model_file_errors(tiny_model: Path, tmp_path: Path, data: st.DataObject) -> None:
    """The same holds where hashes and check sums were made to fit the damaged member."""
    key, name = data.draw(st.sampled_from(list(zip(("graph", "weights", "calibration"), MEMBERS[1:], strict=True))))
    content = bytearray(members_of(tiny_model)[name])
    for at in data.draw(st.lists(st.integers(0, min(600, len(content) - 1)), max_size=4)):
        content[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.just(len(content)) | st.integers(0, len(content)))
    path = tmp_path / "m.oddment"
    path.unlink(missing_ok=True)
    read_or_refused(forge(tiny_model, path, **{key: bytes(content[:cut])}), same=False)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), value=VALUES)
def test_any_json_raises_only_model_file_errors(
    tiny_model: Path, tmp_path: Path, data: st.DataObject, value: object
) -> None:
    """Any JSON value anywhere in the manifest is read or refused with ModelFileError."""

    def change(manifest: dict[str, Any]) -> None:
        place: Any = manifest
        while True:
            key = data.draw(st.sampled_from(list(place) if isinstance(place, dict) else list(range(len(place)))))
            if not place[key] or not isinstance(place[key], dict | list) or data.draw(st.booleans()):
                place[key] = value
                return
            place = place[key]

    read_or_refused(forge(tiny_model, tmp_path / "m.oddment", change=change), same=False)


def read_or_refused(path: Path, *, same: bool = True) -> None:
    try:
        model = read_model(path)
    except ModelFileError as error:
        assert str(error).startswith(f"{path}: ")
        return
    assert model.scoring_batch == 32 or not same
