import subprocess
import sys


def loaded_by(statement: str) -> set[str]:
    """Top-level names of every module that a fresh interpreter loads for this statement."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_server_loads_neither_torch_nor_the_training_package() -> None:
    names = loaded_by("import service.http.app, service.__main__, service.command.serve")
    assert "service" in names
    assert names.isdisjoint({"torch", "onnx", "model_export"})


def test_the_core_loads_nothing_but_numpy_and_opencv() -> None:
    modules = ("contract", "decode", "input_tensor", "letterbox", "postprocess", "suppress")
    names = loaded_by(f"from service.core import {', '.join(modules)}")
    assert names.isdisjoint({"pydantic", "fastapi", "starlette", "onnxruntime", "PIL", "structlog"})


def test_fetching_and_adopting_never_need_torch() -> None:
    assert "torch" not in loaded_by("import model_export.__main__, model_export.adoption.fetch")
