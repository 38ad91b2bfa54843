"""The server under Ray Serve: the same application in each replica, and what Ray does around it.

Ray's proxies speak HTTP and choose the replica; a replica is one server process without a port.
docs/ray.md says which settings that replaces.
"""

from collections.abc import Callable
from typing import Any, Final

import structlog
from pydantic import BaseModel, ConfigDict, Field

from service.build import load_first
from service.command.sources import read_settings
from service.cpus import let_threads_finish
from service.errors import StartupError
from service.heap import give_back_large_blocks
from service.http.access.keys import ApiKeys
from service.http.app import Application, create_app
from service.observe.logs import configure_logs
from service.observe.metrics import Metrics
from service.settings import Settings
from yolox_serve.cluster.targets import announced_metrics

# Requests that are no images: pages, probes.
OTHER_REQUESTS: Final = 64
HEALTH_PERIOD_S: Final = 5.0
HEALTH_TIMEOUT_S: Final = 30.0
# Ray has chosen another replica for new requests before it looks for the first time.
DRAIN_LOOP_S: Final = 0.5
# Settings that Ray replaces, each with the name of the replacement.
REPLACED: Final = {
    "host": "http_options.host",
    "port": "http_options.port",
    "unix_socket": "http_options",
    "unix_socket_mode": "http_options",
    "workers": "max_replicas",
    "max_connections": "a proxy in front of Ray's",
    "grpc_port": "nothing: Ray passes on HTTP only",
    "metrics_port": "GET /metrics-targets, which lists a port of each replica",
    "drain_grace_s": "nothing: Ray chooses other replicas at once",
}

log = structlog.get_logger(__name__)


class ServeOptions(BaseModel):
    """The `args` of the application in Serve's configuration."""

    model_config = ConfigDict(extra="forbid")

    min_replicas: int = Field(1, ge=0, description="Replicas that run in any case")
    max_replicas: int = Field(4, ge=1, description="Replicas that run at most")
    target_ongoing_requests: float = Field(
        4, gt=0, description="Requests in each replica, waiting ones included, that Ray aims at"
    )
    upscale_delay_s: float = Field(
        10, ge=0, description="How long more are needed before they come"
    )
    downscale_delay_s: float = Field(300, ge=0, description="How long fewer do before they go")
    cpus: float = Field(1, gt=0, description="CPUs of a replica")
    gpus: float = Field(0, ge=0, description="GPUs of a replica, such as 0.25")
    settings: dict[str, Any] = Field(
        default_factory=dict, description="Settings of the server, as in its TOML file"
    )


def replica_settings(options: ServeOptions) -> Settings:
    """The server's settings in a replica: those of the options, then those of its environment.

    Ray counts CPUs and does not confine a process to its own, so the engine gets as many threads.

    Raises:
        StartupError: Ray does something else instead of a setting.
        WrongSettingError: A setting has a wrong value.
    """
    wrong = next((name for name in options.settings if name in REPLACED), None)
    if wrong is not None:
        raise StartupError(f"the setting {wrong} has no effect under Ray; use {REPLACED[wrong]}")
    settings = read_settings(options.settings)
    fixed: dict[str, object] = {"workers": 1, "metrics_port": 0, "grpc_port": None}
    if not options.gpus and settings.engine_instances is None and settings.engine_threads is None:
        fixed |= {"engine_instances": max(1, round(options.cpus)), "engine_threads": 1}
    return settings.model_copy(update=fixed)


def deployment_options(options: ServeOptions, settings: Settings) -> dict[str, Any]:
    """The replicas, as Ray is told of them.

    Ray passes more requests to a replica than the queue takes, so that the server itself refuses
    what is too much, with its own answer; behind that bound Ray keeps none waiting for long.
    """
    most = settings.max_queue_images + OTHER_REQUESTS
    return {
        "name": "yolox",
        "autoscaling_config": {
            "min_replicas": options.min_replicas,
            "max_replicas": max(options.min_replicas, options.max_replicas),
            "target_ongoing_requests": options.target_ongoing_requests,
            "upscale_delay_s": options.upscale_delay_s,
            "downscale_delay_s": options.downscale_delay_s,
        },
        "max_ongoing_requests": most,
        "max_queued_requests": most,
        "ray_actor_options": {"num_cpus": options.cpus, "num_gpus": options.gpus},
        "graceful_shutdown_wait_loop_s": DRAIN_LOOP_S,
        "graceful_shutdown_timeout_s": settings.shutdown_timeout_s,
        "health_check_period_s": HEALTH_PERIOD_S,
        "health_check_timeout_s": HEALTH_TIMEOUT_S,
    }


def application_builder(options: ServeOptions) -> Callable[[], Application]:
    """Give the function that builds the application in a replica; its lifespan is Ray's to run."""

    def build() -> Application:
        settings = replica_settings(options)
        configure_logs(settings.log_format, settings.log_level)
        let_threads_finish()
        give_back_large_blocks()
        if 0 < options.gpus < 1 and settings.gpu_memory_limit_mb is None:
            log.warning("replicas share a GPU without a limit: set gpu_memory_limit_mb")
        keys = ApiKeys.of(settings)
        file, engine = load_first(settings)
        app = create_app(settings, engine, Metrics(), keys=keys, file=file)
        announced_metrics(app)
        return app

    return build


class Replica:
    """A replica's sign of life; Ray adds the application, as `app`."""

    app: Application

    def check_health(self) -> None:
        """Called by Ray, which replaces the replica if this raises.

        Raises:
            StartupError: The engine does not come back.
        """
        reason = self.app.running.dead_reason()
        if reason is not None:
            raise StartupError(reason)


def serve_application(options: ServeOptions) -> Any:  # noqa: ANN401 - Ray's
    """The application as Ray Serve runs it: `serve run deploy/ray/serve.yaml`.

    Raises:
        StartupError: Ray does something else instead of a setting.
        WrongSettingError: A setting has a wrong value.
    """
    from ray import serve  # noqa: PLC0415 - an extra

    settings = replica_settings(options)
    ingress = serve.ingress(application_builder(options))(Replica)
    return serve.deployment(**deployment_options(options, settings))(ingress).bind()
