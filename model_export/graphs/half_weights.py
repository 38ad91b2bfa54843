"""Halve an ONNX file by storing its weights in float16; it still computes in float32."""

from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from model_export.errors import ModelExportError
from model_export.graphs.edit import copy_without_shapes
from model_export.model.exported import HALF_SUFFIX

# Smaller tensors stay float32: the added Cast node would take as many bytes as float16 saves.
MIN_VALUES: Final = 256


def compacted(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that stores large float32 weights in float16 and casts each back to float32.

    A runtime folds the casts when it loads the file. It then computes in float32 as before, with
    weights rounded to 11 bits.

    Raises:
        ModelExportError: A weight is too large for float16.
    """
    copy = copy_without_shapes(model)
    casts = []
    for tensor in copy.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.size < MIN_VALUES:
            continue
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise ModelExportError(f"a weight of {tensor.name} is too large for float16")
        name, stored = tensor.name, tensor.name + HALF_SUFFIX
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(helper.make_node("Cast", [stored], [name], name=stored, to=TensorProto.FLOAT))
    nodes = [*casts, *copy.graph.node]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy
