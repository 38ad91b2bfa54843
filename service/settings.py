"""The server's settings; each field defines a flag, an environment variable and a help line."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.core.contract import LEAST_SIGMA, MOST_SIGMA, NmsMethod, ScoreBy
from service.core.letterbox import LetterboxMode

Device = Literal["auto", "cpu", "openvino", "cuda", "tensorrt"]
Fraction = Annotated[float, Field(ge=0, le=1)]
# An empty path would mean the current folder; compose files and make pass "" for "unset".
ModelFile = Annotated[Path | None, BeforeValidator(lambda value: value or None)]

# Pillow warns about images above this many pixels, and refuses those of twice as many.
MOST_IMAGE_PIXELS = 89_478_485


class Settings(BaseSettings):
    """Every setting; `--max-body-bytes` is `YOLOX_MAX_BODY_BYTES` in the environment."""

    model_config = SettingsConfigDict(
        env_prefix="YOLOX_",
        frozen=True,
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_prog_name="python -m service",
        # Docker's secrets: a file named YOLOX_API_KEY in this folder holds the key.
        secrets_dir="/run/secrets" if Path("/run/secrets").is_dir() else None,
    )

    # The model and where it runs
    model: ModelFile = Field(
        None,
        description="ONNX file with a model contract (unset or empty: built-in barcode detector)",
    )
    device: Device = Field(
        "auto",
        description="Where to run; `auto` takes a GPU, else whichever CPU engine measures faster",
    )
    engine_instances: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Batches that run at once (unset: one per CPU, or two on a GPU)",
    )
    engine_threads: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Threads per running batch (unset: the CPUs, divided among waiting requests)",
    )
    engine_sizes: int = Field(
        3,
        ge=0,
        le=64,
        description="Maximum number of input sizes with an OpenVINO model each, of 20 to 80 MB",
    )
    engine_cache: Path | None = Field(
        None,
        description="Folder that caches which engine is faster (unset: measured at every start)",
    )
    gpu_memory_limit_mb: int | None = Field(
        None, ge=256, description="Limit of the GPU memory arenas, in MiB (unset: none)"
    )
    tensorrt_cache: Path | None = Field(
        None,
        description="Folder that caches built TensorRT engines (unset: built at every start)",
    )
    max_batch_size: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Maximum batch width (unset: 16; 1 on a CPU, where wider gains nothing)",
    )
    max_batch_delay_ms: float = Field(
        0, ge=0, le=1000, description="Longest wait of an image for others to join its batch, in ms"
    )
    letterbox: LetterboxMode | None = Field(
        None,
        description="Pad to the model's whole size, or to the next rectangle "
        "(unset: rectangle on a CPU, for models of dynamic size)",
    )

    # How it listens
    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on (0: any free one)")
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Server processes; each has its own model, queue and limits, and shares CPUs",
    )
    api_key: SecretStr | None = Field(
        None, min_length=1, description="Key that /detect and /model then require"
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto",
        description="Log lines for people or machines (`auto`: console on a terminal, else JSON)",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Minimum severity of log lines"
    )

    # What a client may ask for
    max_body_bytes: int = Field(32 * 2**20, ge=1, description="Largest request body, in bytes")
    max_buffered_bytes: int = Field(
        512 * 2**20,
        ge=1,
        description="Maximum bytes of request bodies in memory, over all requests",
    )
    max_images_per_request: int = Field(
        32, ge=1, description="Maximum number of images in one request"
    )
    max_image_pixels: int = Field(
        50_000_000, ge=1, le=MOST_IMAGE_PIXELS, description="Largest image, in pixels"
    )
    max_queue_images: int = Field(
        256, ge=1, description="Maximum number of images waiting for the model, over all requests"
    )
    request_timeout_ms: int = Field(
        10_000,
        ge=1,
        description="Deadline of a request, and the maximum of its `timeout_ms`, in ms",
    )
    decode_threads: int | None = Field(
        None,
        ge=1,
        le=256,
        description="Threads that only decode "
        "(unset: one per CPU; none where a CPU runs each image on one thread)",
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
        ge=LEAST_SIGMA,
        le=MOST_SIGMA,
        description="Default `sigma` (unset: the model's recommendation, else 0.5)",
    )
    class_agnostic: bool | None = Field(
        None, description="Default `class_agnostic` (unset: the model's recommendation, else true)"
    )
    max_candidates: int = Field(
        1000,
        ge=1,
        le=10_000,
        description="Maximum number of boxes of an image that enter suppression",
    )
    max_detections: int = Field(
        300, ge=1, le=10_000, description="Default and maximum of `max_detections`"
    )

    # Life cycle
    ready_window_s: float = Field(
        30, gt=0, description="The server is ready if an inference succeeded within this time, in s"
    )
    drain_grace_s: float = Field(
        2,
        ge=0,
        description="Time between SIGTERM and closing the port, for load balancers to react, in s",
    )
    shutdown_timeout_s: float = Field(
        25, gt=0, description="Maximum wait for accepted requests at shutdown, in s"
    )

    @model_validator(mode="after")
    def _a_request_fits(self) -> Self:
        if self.max_queue_images < self.max_images_per_request:
            raise ValueError("max_queue_images must be at least max_images_per_request")
        if self.max_buffered_bytes < self.max_body_bytes:
            raise ValueError("max_buffered_bytes must be at least max_body_bytes")
        return self
