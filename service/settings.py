"""The server's settings: one documented line each, for flag, environment variable and help."""

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.core.contract import MAX_SIGMA, MIN_SIGMA, NmsMethod, ScoreBy
from service.core.letterbox import LetterboxMode
from service.lists import split_keys, split_list

Device = Literal["auto", "cpu", "openvino", "cuda", "tensorrt"]
Fraction = Annotated[float, Field(ge=0, le=1)]
# An empty path would otherwise be the current folder; compose files and make pass "" for "unset".
GivenPath = Annotated[Path | None, BeforeValidator(lambda value: value or None)]

# Pillow warns about images with more pixels than this, and refuses those with twice as many.
MAX_IMAGE_PIXELS = 89_478_485

# An engine that fails this many probes in a row will not come back.
MAX_FAILED_PROBES = 6
# Proxies on this machine that connect to the unix socket have no address.
UNIX_PEER = "unix"
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@*]+")


class Settings(BaseSettings):
    """Every setting; `--max-body-bytes` is `YOLOX_MAX_BODY_BYTES` in the environment."""

    model_config = SettingsConfigDict(
        env_prefix="YOLOX_",
        frozen=True,
        # Containers mount secrets there: the file YOLOX_API_KEY holds the key.
        secrets_dir="/run/secrets" if Path("/run/secrets").is_dir() else None,
    )

    # The model and where it runs
    model: GivenPath = Field(
        None,
        description="ONNX file with a contract (unset or empty: the built-in barcode detector)",
    )
    models: GivenPath = Field(
        None,
        description="Folder of models, `NAME/VERSION/model.onnx`; beside `model` if both are set",
    )
    default_model: str | None = Field(
        None,
        description="Model that answers requests which name none "
        "(unset: that of `model`, else the first by name)",
    )
    max_loaded_models: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Maximum models in memory; what was used least recently is unloaded, and "
        "loaded again on demand (unset: no limit)",
    )
    model_poll_s: float = Field(
        0,
        ge=0,
        le=86_400,
        description="Time between two looks for new model files, in s (0: only at SIGHUP)",
    )
    device: Device = Field(
        "auto",
        description="Where to run; `auto` takes a GPU, else the engine that it measures as quicker",
    )
    engine_instances: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Batches that run at the same time (unset: one per CPU, or two on a GPU)",
    )
    engine_threads: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Threads of a running batch (unset: its share of the CPUs, and idle ones)",
    )
    engine_sizes: int = Field(
        3,
        ge=0,
        le=64,
        description="Maximum input sizes that OpenVINO compiles for themselves, 15 to 30 MB a copy",
    )
    engine_cache: Path | None = Field(
        None,
        description="Folder that keeps which engine was quicker (unset: measured at every start)",
    )
    gpu_memory_limit_mb: int | None = Field(
        None, ge=256, description="Limit of the GPU memory arenas, in MiB (unset: no limit)"
    )
    tensorrt_cache: Path | None = Field(
        None,
        description="Folder where TensorRT keeps its engines (unset: builds them at every start)",
    )
    max_batch_size: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Maximum images in one batch (unset: 1 on a CPU, where more gain nothing, "
        "else 16)",
    )
    max_batch_delay_ms: float = Field(
        0, ge=0, le=1000, description="How long the oldest image waits for its batch to fill, in ms"
    )
    letterbox: LetterboxMode | None = Field(
        None,
        description="Pad to the model's whole size, or to the next rectangle that it takes "
        "(unset: rectangle on a CPU, if the model takes any size)",
    )

    # Network and processes
    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on (0: any free one)")
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Server processes; they share the CPUs, and each has its own model, queue and "
        "limits",
    )
    unix_socket: GivenPath = Field(
        None, description="Unix socket to listen on, instead of `host` and `port`"
    )
    unix_socket_mode: str = Field(
        "660", pattern="^[0-7]{3}$", description="Permissions of the unix socket, in octal"
    )
    metrics_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port of `host` that alone answers /metrics (unset: the server's own port)",
    )
    grpc_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port of `host` for the Open Inference Protocol over gRPC, with the extra "
        "`grpc` (unset: none)",
    )
    api_key: SecretStr | None = Field(
        None,
        min_length=1,
        description="API keys, separated by commas; /detect and /model require one of them "
        "(unset: none)",
    )
    api_key_file: GivenPath = Field(
        None,
        description="File with API keys, one a line or separated by commas; SIGHUP reads it again",
    )
    repository_key: SecretStr | None = Field(
        None,
        min_length=1,
        description="Keys, separated by commas, one of which the calls below /v2/repository "
        "require (unset: these calls are refused)",
    )
    cors_origins: str | None = Field(
        None,
        description="Origins whose pages may call the server, separated by commas, or `*` "
        "(unset: none)",
    )
    trusted_proxies: str | None = Field(
        None,
        description="Addresses or networks of proxies whose X-Forwarded-For the access log "
        "believes, separated by commas; `unix`: peers on the unix socket",
    )
    page: bool = Field(
        True, description="Serve a page at `/` where people try the model (off: `/` leads to /docs)"
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="Form of log lines (`auto`: console on a terminal, else json)"
    )
    capture: GivenPath = Field(
        None, description="Folder that keeps a sample of the images, to label (unset: none)"
    )
    capture_keep: Literal["picture", "blurred", "boxes"] = Field(
        "picture", description="What of an image is kept: it, a blurred one, or its boxes alone"
    )
    capture_per_hour: int = Field(
        60, ge=1, le=100_000, description="Maximum images that are kept in an hour, on average"
    )
    capture_share: Fraction = Field(
        0.01, description="Part of all images that is kept by chance, besides the uncertain ones"
    )
    capture_max_mb: int = Field(
        1024, ge=1, description="Size of the folder, in MiB, from which on the oldest are deleted"
    )
    capture_max_days: float = Field(
        30, gt=0, description="Age of an image, in days, at which it is deleted"
    )
    tracing: bool = Field(
        False,
        description="Send OpenTelemetry spans (extra `tracing`); OTEL_EXPORTER_OTLP_ENDPOINT says "
        "where to",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Minimum severity of the log lines to write"
    )

    # Limits on requests
    max_connections: int = Field(
        4096, ge=1, description="Maximum open connections (fewer where fewer files may be open)"
    )
    max_body_bytes: int = Field(
        32 * 2**20, ge=1, description="Maximum size of a request body, in bytes"
    )
    max_buffered_bytes: int = Field(
        512 * 2**20,
        ge=1,
        description="Maximum size of all request bodies in memory together, in bytes",
    )
    max_images_per_request: int = Field(32, ge=1, description="Maximum images in one request")
    max_image_pixels: int = Field(
        50_000_000, ge=1, le=MAX_IMAGE_PIXELS, description="Maximum size of an image, in pixels"
    )
    max_decode_bytes: int = Field(
        640 * 2**20,
        ge=2**20,
        description="Maximum memory for decoding and drawing images, over all workers, in bytes",
    )
    max_queue_images: int = Field(
        256, ge=1, description="Maximum images that wait for the model, over all requests"
    )
    request_timeout_ms: int = Field(
        10_000, ge=1, description="Deadline of a request, and maximum of `timeout_ms`, in ms"
    )
    decode_threads: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Threads that only decode images "
        "(unset: one per CPU, but none if CPUs run each image on one thread)",
    )

    # Defaults of the request's options
    confidence: Fraction | None = Field(
        None, description="Default `confidence` (unset: the model's recommendation, else 0.5)"
    )
    score_by: ScoreBy | None = Field(
        None, description="Default `score_by` (unset: the model's recommendation, else objectness)"
    )
    nms: NmsMethod | None = Field(
        None, description="Default `nms` (unset: the model's recommendation, else soft-mean)"
    )
    iou: Fraction | None = Field(
        None, description="Default `iou` (unset: the model's recommendation, else 0.45)"
    )
    sigma: float | None = Field(
        None,
        ge=MIN_SIGMA,
        le=MAX_SIGMA,
        description="Default `sigma` (unset: the model's recommendation, else 0.5)",
    )
    class_agnostic: bool | None = Field(
        None, description="Default `class_agnostic` (unset: the model's recommendation, else true)"
    )
    max_candidates: int = Field(
        1000,
        ge=1,
        le=10_000,
        description="Maximum boxes of an image that enter suppression; rows copied from a GPU",
    )
    max_detections: int = Field(
        300, ge=1, le=10_000, description="Default and maximum of `max_detections`"
    )

    # Life cycle
    max_failed_probes: int = Field(
        MAX_FAILED_PROBES,
        ge=0,
        description="Failed probes of the model in a row after which the server ends (0: never)",
    )
    ready_window_s: float = Field(
        30, gt=0, description="The server is ready if an inference succeeded within this time, in s"
    )
    drain_grace_s: float = Field(
        2, ge=0, description="Time from SIGTERM to closing the port, for balancers to notice, in s"
    )
    shutdown_timeout_s: float = Field(
        25, gt=0, description="Maximum wait for accepted requests at shutdown, in s"
    )

    @field_validator("api_key", "repository_key")
    @classmethod
    def _a_header_can_carry_them(cls, keys: SecretStr | None) -> SecretStr | None:
        if keys is not None:
            split_keys(keys.get_secret_value())
        return keys

    @field_validator("cors_origins")
    @classmethod
    def _browsers_send_such_origins(cls, origins: str | None) -> str | None:
        for origin in split_list(origins):
            if origin != "*" and not ORIGIN.fullmatch(origin.lower()):
                raise ValueError(
                    f"{origin!r} is no origin; write it like https://example.org, without a path"
                )
        return None if origins is None else origins.lower()

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_have_addresses(cls, proxies: str | None) -> str | None:
        for proxy in split_list(proxies):
            if proxy != UNIX_PEER:
                ip_network(proxy)
        return proxies

    @model_validator(mode="after")
    def _a_request_fits(self) -> Self:
        if self.max_queue_images < self.max_images_per_request:
            raise ValueError("max_queue_images must be at least max_images_per_request")
        if self.max_buffered_bytes < self.max_body_bytes:
            raise ValueError("max_buffered_bytes must be at least max_body_bytes")
        return self

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        if self.metrics_port and self.metrics_port == self.port and self.unix_socket is None:
            raise ValueError("metrics_port must not be the port; unset it to have both on one")
        if self.grpc_port and self.grpc_port in (self.port, self.metrics_port):
            raise ValueError("grpc_port must be a port of its own")
        if self.grpc_port == 0 and self.workers > 1:
            raise ValueError("grpc_port must be a number, as workers share the port")
        return self
