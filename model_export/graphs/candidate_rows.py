"""The graph by which a GPU chooses the rows that are worth copying to the host.

    python -m model_export.graphs.candidate_rows FOLDER

The server runs it behind any model, on the device that holds the model's output. It is written once
for each type of output, and its files are part of the server's package.
"""

import sys
from pathlib import Path
from typing import Final, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET: Final = 17
IR_VERSION: Final = 8
OBJECTNESS: Final = 4
Dtype = Literal["float32", "float16"]


def candidate_rows(dtype: Dtype) -> onnx.ModelProto:
    """A graph that gives the K rows of each image whose objectness is highest.

    Its inputs are `rows`, (N, A, 4 + 1 + C) of `dtype`, and `count`, (1,) int64, which is K. Its
    outputs are `raw`, (N, K, 4 + 1 + C) of `dtype`, and `cells`, (N, K) int64, the numbers of these
    rows, ascending. An objectness that is NaN counts as the highest, so that the server sees it.

    Args:
        dtype: The element type of the rows.
    """
    kind = TensorProto.FLOAT16 if dtype == "float16" else TensorProto.FLOAT
    nodes = [
        helper.make_node("Gather", ["rows", "objectness_column"], ["objectness"], axis=2),
        # Exact, and needed because ONNX Runtime's TopK takes no float16 on the CPU.
        helper.make_node("Cast", ["objectness"], ["objectness32"], to=TensorProto.FLOAT),
        helper.make_node("IsNaN", ["objectness32"], ["is_nan"]),
        helper.make_node("Where", ["is_nan", "highest", "objectness32"], ["rank"]),
        helper.make_node("TopK", ["rank", "count"], ["best_ranks", "best"], axis=1, sorted=0),
        helper.make_node(
            "TopK", ["best", "count"], ["cells", "places"], axis=1, largest=0, sorted=1
        ),
        helper.make_node("Unsqueeze", ["cells", "last_axis"], ["index"]),
        helper.make_node("GatherND", ["rows", "index"], ["raw"], batch_dims=1),
    ]
    graph = helper.make_graph(
        nodes,
        "candidate_rows",
        [
            helper.make_tensor_value_info("rows", kind, ["N", "A", "channels"]),
            helper.make_tensor_value_info("count", TensorProto.INT64, [1]),
        ],
        [
            helper.make_tensor_value_info("raw", kind, ["N", "K", "channels"]),
            helper.make_tensor_value_info("cells", TensorProto.INT64, ["N", "K"]),
        ],
        [
            numpy_helper.from_array(np.array(OBJECTNESS, np.int64), "objectness_column"),
            numpy_helper.from_array(np.array(np.inf, np.float32), "highest"),
            numpy_helper.from_array(np.array([2], np.int64), "last_axis"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version, model.producer_name = IR_VERSION, "yolox-serve"
    onnx.checker.check_model(model)
    return model


def main() -> None:
    """Write both files."""
    folder = Path(sys.argv[1])
    for dtype in ("float32", "float16"):
        path = folder / f"candidate_rows_{dtype}.onnx"
        path.write_bytes(candidate_rows(dtype).SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
