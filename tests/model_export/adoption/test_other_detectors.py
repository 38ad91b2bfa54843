"""A detector that is no YOLOX is refused by its name."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model_export.adoption.adopt import AdoptRequest, adopt
from model_export.errors import ModelExportError

RNG = np.random.default_rng(0)
Shape = tuple[int, ...]


def graph_of(outputs: dict[str, NDArray[np.float32]], side: int) -> onnx.ModelProto:
    """A graph whose outputs are these values and hardly depend on the image."""
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "little"], ["added"]),
    ]
    tensors = [numpy_helper.from_array(np.float32(1e-6), "little")]
    for name, value in outputs.items():
        tensors.append(numpy_helper.from_array(value, f"{name}_value"))
        nodes.append(helper.make_node("Add", [f"{name}_value", "added"], [name]))
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, side, side])
    told = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape)
        for name, value in outputs.items()
    ]
    graph = helper.make_graph(nodes, "other", [given], told, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def refusal(outputs: dict[str, NDArray[np.float32]], side: int, folder: Path) -> str:
    onnx.save(graph_of(outputs, side), folder / "other.onnx")
    with pytest.raises(ModelExportError) as refused:
        adopt(folder / "other.onnx", folder / "out.onnx", AdoptRequest())
    assert not (folder / "out.onnx").exists()
    return str(refused.value)


def maps(*channels: int, side: int, strides: tuple[int, ...] = (8, 16, 32)) -> dict[str, Shape]:
    return {
        f"o{count}_{stride}": (1, count, side // stride, side // stride)
        for count in channels
        for stride in strides
    }


RETINA_STRIDES = (8, 16, 32, 64, 128)
PRIORS = 9 * sum((512 // stride) ** 2 for stride in RETINA_STRIDES)
# Outputs as each project's own exporter, or the usual one, gives them.
FORMS: dict[str, tuple[int, dict[str, Shape], str]] = {
    "YOLOv3": (416, maps(255, side=416), "YOLOv5 .or v3"),
    "YOLOv4": (416, {"boxes": (1, 10647, 1, 4), "confs": (1, 10647, 80)}, "YOLOv5 .or v3, v4"),
    "YOLOv5": (640, {"output0": (1, 25200, 85)}, "YOLOv5"),
    "YOLOv5, its levels": (416, {f"o{n}": (1, 3, n, n, 85) for n in (52, 26, 13)}, "YOLOv5"),
    "YOLOv5, large": (1280, {"output0": (1, 102000, 85)}, "YOLOv5"),
    "YOLOv7": (640, {"output": (1, 25200, 85)}, "v7"),
    "YOLOv8": (640, {"output0": (1, 84, 8400)}, "YOLOv8 .or v9, v11"),
    "YOLOv8 of 1 class": (640, {"output0": (1, 5, 8400)}, "1 class; this looks like YOLOv8"),
    "YOLOv8 of 3 classes": (640, {"output0": (1, 7, 8400)}, "3 classes.*YOLOv8"),
    "YOLOv8, raw": (640, maps(144, side=640), "YOLOv8"),
    "YOLOv10": (640, {"output0": (1, 300, 6)}, "YOLOv10"),
    "YOLO-NAS": (640, {"boxes": (1, 8400, 4), "scores": (1, 8400, 80)}, "YOLO-NAS"),
    "PP-YOLOE": (640, {"boxes": (1, 8400, 4), "scores": (1, 80, 8400)}, "PP-YOLOE"),
    "RTMDet": (640, maps(80, 4, side=640), "RTMDet"),
    "NanoDet": (320, {"output": (1, 2125, 112)}, "NanoDet"),
    "NanoDet, 64 not dividing": (416, {"output": (1, 3598, 112)}, "NanoDet"),
    "DETR": (800, {"logits": (1, 100, 92), "pred_boxes": (1, 100, 4)}, "DETR"),
    "RT-DETR": (640, {"logits": (1, 300, 80), "pred_boxes": (1, 300, 4)}, "RT-DETR"),
    "RT-DETR, joined": (640, {"output0": (1, 300, 84)}, "RT-DETR"),
    "RetinaNet": (512, maps(720, 36, side=512, strides=RETINA_STRIDES), "RetinaNet"),
    "EfficientDet": (512, {"box": (1, PRIORS, 4), "cls": (1, PRIORS, 90)}, "EfficientDet"),
    "SSD": (320, {"loc": (1, 8732, 4), "conf": (1, 8732, 81)}, "SSD"),
    "SSD, MobileNet": (320, {"boxes": (1, 3000, 4), "scores": (1, 3000, 21)}, "SSD"),
    "CenterNet": (
        512,
        {"hm": (1, 80, 128, 128), "wh": (1, 2, 128, 128), "reg": (1, 2, 128, 128)},
        "CenterNet",
    ),
    "Mask R-CNN": (320, {"0": (50, 4), "1": (50,), "2": (50,), "3": (50, 1, 28, 28)}, "R-CNN"),
    "classifier": (224, {"logits": (1, 1000)}, "classifier"),
    "segmentation": (256, {"out": (1, 21, 256, 256)}, "segmentation"),
    "suppressed": (
        320,
        {"detection_boxes": (1, 100, 4), "detection_scores": (1, 100)},
        "finished boxes, after suppression",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_other_detector_is_named(form: str, tmp_path: Path) -> None:
    side, shapes, words = FORMS[form]
    outputs = {name: (RNG.random(shape) / 100).astype(np.float32) for name, shape in shapes.items()}

    assert re.search(words, refusal(outputs, side, tmp_path))


def test_yolov6_is_known_by_its_objectness(tmp_path: Path) -> None:
    rows = RNG.random((1, 8400, 85)).astype(np.float32) / 100
    rows[..., 4] = 1

    assert "YOLOv6" in refusal({"outputs": rows}, 640, tmp_path)


def test_fcos_is_known_by_its_distances(tmp_path: Path) -> None:
    shapes = maps(80, 4, 1, side=416)
    outputs = {
        name: (RNG.random(shape) * (100 if shape[1] == 4 else 0.01)).astype(np.float32)
        for name, shape in shapes.items()
    }
    assert "FCOS" in refusal(outputs, 416, tmp_path)
