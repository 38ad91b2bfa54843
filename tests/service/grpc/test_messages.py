"""The generated messages are those of the description, and the description is the protocol's.

Each comparison runs in a process of its own: the client's messages have the same names.
"""

import subprocess
import sys
from pathlib import Path

from support.project import ROOT

FOLDER = Path("service/grpc/messages")
# Prints every message and call with its fields: name, number, type, and whether it is repeated.
DESCRIBE = """
import sys
from importlib import import_module
file = import_module(sys.argv[1]).DESCRIPTOR
def tell(message):
    for field in message.fields:
        kind = field.message_type or field.type
        print(message.full_name, field.name, field.number, getattr(kind, "full_name", kind),
              field.is_repeated, field.containing_oneof and field.containing_oneof.name)
    for inner in message.nested_types:
        tell(inner)
for message in file.message_types_by_name.values():
    print(message.full_name)
    tell(message)
for call in file.services_by_name["GRPCInferenceService"].methods:
    print(call.name, call.input_type.full_name, call.output_type.full_name)
"""


def described(module: str) -> set[str]:
    command = [sys.executable, "-W", "ignore", "-c", DESCRIBE, module]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.splitlines())


def test_the_messages_are_those_that_nvidia_s_client_sends() -> None:
    own = described("service.grpc.messages.inference_pb2")
    assert "inference.ModelInferRequest raw_input_contents 7 12 True None" in own
    assert own <= described("tritonclient.grpc.service_pb2")


def test_the_modules_are_what_the_description_generates(tmp_path: Path) -> None:
    description = FOLDER / "inference.proto"
    places = [f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", *places, str(description)]
    subprocess.run(command, check=True, cwd=ROOT)
    for name in ("inference_pb2.py", "inference_pb2.pyi"):
        assert (tmp_path / FOLDER / name).read_text() == (ROOT / FOLDER / name).read_text(), (
            "inference.proto says how to generate the modules again"
        )
