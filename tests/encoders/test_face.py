"""ArcFace through insightface: real ONNX files where the package is, honest notices where not."""

import sys

import numpy as np
import pytest

from joyflash_cli.encoders.face import (
    FACE_DIM,
    MODEL_LICENCE,
    FaceEncoder,
    find_face_models,
    no_face,
)
from joyflash_cli.errors import CheckpointError, UsageError

STRIDES = (8, 16, 32)
ANCHORS = 2
PICTURE = np.full((640, 640, 3), 90, np.uint8)


def write_models(folder, *, score: float, only: str = ""):
    """A detector that sees a face in the middle at every place, and a recogniser of mean colours.

    They have the inputs and outputs of SCRFD with key points and of ArcFace.
    """
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    def constant(name, array):
        return numpy_helper.from_array(array.astype(np.float32), name)

    def save(graph_name, inputs, outputs, nodes, weights):
        graph = helper.make_graph(nodes, graph_name, inputs, outputs, weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
        model.ir_version = 8
        onnx.save(model, folder / f"{graph_name}.onnx")

    folder.mkdir(exist_ok=True)
    picture = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, 640, 640])
    nodes, outputs, weights = [], [], [constant("zero", np.zeros(1))]
    nodes.append(helper.make_node("ReduceMean", ["input.1"], ["mean"], keepdims=0))
    nodes.append(helper.make_node("Mul", ["mean", "zero"], ["nothing"]))
    kinds = {"score": 1, "box": 4, "points": 10}
    for kind, width in kinds.items():
        for stride in STRIDES:
            count = (640 // stride) ** 2 * ANCHORS
            values = np.full((count, width), 60 / stride)
            if kind == "score":
                values[:] = 0.0
                if stride == 32:
                    values[(10 * 20 + 10) * ANCHORS] = score
            elif kind == "points":
                # Eyes, nose and mouth corners around the anchor, as a face has them.
                values[:] = np.array([-20, -20, 20, -20, 0, 0, -15, 20, 15, 20]) / stride
            name = f"{kind}{stride}"
            weights.append(constant(f"w_{name}", values))
            nodes.append(helper.make_node("Add", [f"w_{name}", "nothing"], [name]))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [count, width]))
    if only != "recognition":
        save("det_test", [picture], outputs, nodes, weights)
    if only != "detection":
        crop = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, 112, 112])
        feature = helper.make_tensor_value_info("683", TensorProto.FLOAT, [1, FACE_DIM])
        rng = np.random.default_rng(0)
        save(
            "w600k_test",
            [crop],
            [feature],
            [
                helper.make_node("GlobalAveragePool", ["input.1"], ["pooled"]),
                helper.make_node("Flatten", ["pooled"], ["flat"]),
                helper.make_node("MatMul", ["flat", "weight"], ["683"]),
            ],
            [constant("weight", rng.normal(size=(3, FACE_DIM)))],
        )
    return folder


def test_a_face_becomes_an_embedding_of_unit_length(tmp_path):
    pytest.importorskip("insightface")
    encoder = FaceEncoder(write_models(tmp_path / "pack", score=0.9))
    red, blue = PICTURE.copy(), PICTURE.copy()
    red[..., 0], blue[..., 2] = 250, 250
    first, second = encoder.encode(red), encoder.encode(blue)
    assert first.shape == (FACE_DIM,)
    assert first.dtype == np.float32
    assert np.linalg.norm(first) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(first, encoder.encode(red))
    assert first @ second < 0.99


def test_no_face_gives_zeros(tmp_path):
    pytest.importorskip("insightface")
    encoder = FaceEncoder(write_models(tmp_path / "pack", score=0.0))
    assert np.array_equal(encoder.encode(PICTURE), no_face())


@pytest.mark.parametrize("only", ["detection", "recognition"])
def test_half_a_pack_is_told(tmp_path, only):
    pytest.importorskip("insightface")
    with pytest.raises(CheckpointError):
        FaceEncoder(write_models(tmp_path / "pack", score=0.9, only=only))


def test_files_that_are_no_models_and_folders_that_are_none(tmp_path):
    pytest.importorskip("insightface")
    (tmp_path / "det_10g.onnx").write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match="cannot be used"):
        FaceEncoder(tmp_path)
    with pytest.raises(CheckpointError, match="no folder"):
        FaceEncoder(tmp_path / "buffalo_l")


def test_notices_tell_licence_or_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "insightface", object())
    nothing = find_face_models("buffalo_l", root=tmp_path)
    assert nothing.directory is None
    assert "no models in" in nothing.notice
    assert "non-commercial" in nothing.notice
    (tmp_path / "buffalo_l").mkdir()
    (tmp_path / "buffalo_l" / "det_10g.onnx").touch()
    found = find_face_models("buffalo_l", root=tmp_path)
    assert found.directory == tmp_path / "buffalo_l"
    assert found.notice == MODEL_LICENCE


def test_without_the_package_the_way_without_a_face_is_taken(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "insightface", None)
    models = find_face_models("buffalo_l", root=tmp_path)
    assert models.directory is None
    assert "joyflash[face]" in models.notice
    monkeypatch.setitem(sys.modules, "insightface.app", None)
    with pytest.raises(UsageError, match="insightface"):
        FaceEncoder(tmp_path)
