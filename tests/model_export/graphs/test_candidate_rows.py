from pathlib import Path

import pytest

from model_export.graphs.candidate_rows import Dtype, candidate_rows
from service.engine.candidates import GRAPHS


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_server_has_the_graphs_that_are_written_here(dtype: Dtype) -> None:
    kept = Path(GRAPHS / f"candidate_rows_{dtype}.onnx").read_bytes()
    assert kept == candidate_rows(dtype).SerializeToString(deterministic=True)
