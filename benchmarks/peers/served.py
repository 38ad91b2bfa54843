"""The engine of our server, as the server itself states it in the answer to `GET /model`."""

import http.client
import json
from dataclasses import dataclass
from typing import Final

from benchmarks.peers.host.processes import RunningServer
from model_export.errors import ModelExportError
from service.settings import Device

# The suffix of ONNX Runtime's names for its own providers.
EXECUTION_PROVIDER: Final = "ExecutionProvider"


@dataclass(frozen=True, slots=True)
class Engine:
    """The engine that runs the model in our server.

    Attributes:
        provider: The execution provider.
        name: The runtime; None where the server does not state it.
        precision: The arithmetic, such as float32 or bfloat16; None where it is not stated.
        threads: Threads of a call; None where it is not stated.
    """

    provider: str
    name: str | None = None
    precision: str | None = None
    threads: str | None = None

    @property
    def device(self) -> Device:
        """The setting that asks for this engine, and for no other."""
        known = f"{self.name} {self.provider}".lower()
        devices: tuple[Device, ...] = ("openvino", "tensorrt", "cuda")
        return next((device for device in devices if device in known), "cpu")

    def __str__(self) -> str:
        is_onnx = self.provider.endswith(EXECUTION_PROVIDER)
        name = self.name or ("ONNX Runtime" if is_onnx else None)
        runtime = f"{name} ({self.provider})" if name else self.provider
        threads = f", threads: {self.threads}" if self.threads else ""
        return f"{runtime}, {self.precision or 'precision not stated'}{threads}"

    def differs_from(self, other: "Engine") -> bool:
        """Whether the two differ in anything that both state, the number of threads aside."""
        pairs = (
            (self.provider, other.provider),
            (self.name, other.name),
            (self.precision, other.precision),
        )
        return any(a is not None and b is not None and a != b for a, b in pairs)


def ask_engine(server: RunningServer) -> Engine:
    """The engine of a running server of ours.

    Raises:
        ModelExportError: The request fails, or the answer names no provider.
    """
    try:
        status, body = server.get("/model")
    except (OSError, http.client.HTTPException) as error:
        raise ModelExportError(f"GET /model failed: {error!r}") from error
    if status != http.client.OK:
        raise ModelExportError(f"GET /model was answered with {status}: {body[:200]!r}")
    return read_engine(body)


def read_engine(body: bytes) -> Engine:
    """The engine in an answer to `GET /model`.

    Its facts are fields of the answer, or of an object `engine` in it.

    Raises:
        ModelExportError: The answer names no provider.
    """
    try:
        content = json.loads(body)
        engine = content.get("engine")
        facts = engine if isinstance(engine, dict) else content
        return Engine(
            str(facts.get("provider") or content["provider"]),
            name=engine if isinstance(engine, str) else None,
            precision=_text(facts.get("precision")),
            threads=_text(facts.get("threads")),
        )
    except (ValueError, LookupError, AttributeError) as error:
        raise ModelExportError(f"GET /model names no provider: {body[:200]!r}") from error


def _text(value: object) -> str | None:
    return None if value is None else str(value)
