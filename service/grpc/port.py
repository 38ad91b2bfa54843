"""The gRPC server: it starts, tells its health, and drains."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import grpc
import structlog

from service.errors import StartupError
from service.grpc.calls import SERVICE, InferenceService
from service.grpc.exchange import GrpcExchange
from service.grpc.health import NAME, Health
from service.grpc.unknown import UnknownCalls
from service.http.running import Running
from service.settings import Settings

# Between two looks at whether the server is ready or draining.
LOOK_S: Final = 0.1
# A message is its images and little else.
MESSAGE_MARGIN: Final = 64 * 1024
STREAMS_A_CONNECTION: Final = 256
IDLE_MS: Final = 5 * 60 * 1000
# Only messages that are not compressed are taken: decompression has no bound in gRPC.
IDENTITY_ONLY: Final = 1

log = structlog.get_logger(__name__)


@asynccontextmanager
async def grpc_port(running: Running) -> AsyncIterator[None]:
    """Answer gRPC calls on a port of its own, with the parts that answer HTTP requests.

    Args:
        running: The parts of the server that answer requests.

    Raises:
        StartupError: The port cannot be used.
    """
    settings = running.settings
    exchange = GrpcExchange(running)
    health, inference = Health(exchange), InferenceService(running, exchange)
    server = grpc.aio.server(
        options=_options(settings), maximum_concurrent_rpcs=2 * settings.max_queue_images
    )
    services = {SERVICE: dict(inference.handlers()), NAME: dict(health.handlers())}
    known = [grpc.method_handlers_generic_handler(name, services[name]) for name in services]
    unknown = UnknownCalls(exchange, {name: [*services[name]] for name in services})
    server.add_generic_rpc_handlers((*known, unknown))
    port = _bind(server, settings)
    await server.start()
    log.info("the gRPC port listens", host=settings.host, port=port)
    watch = asyncio.create_task(_watch(server, running, health))
    try:
        yield
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        health.end_watches()
        await server.stop(settings.shutdown_timeout_s)


def _bind(server: grpc.aio.Server, settings: Settings) -> int:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        return server.add_insecure_port(f"{host}:{settings.grpc_port}")
    except RuntimeError as error:
        raise StartupError(f"cannot listen on {host}:{settings.grpc_port} for gRPC") from error


async def _watch(server: grpc.aio.Server, running: Running, health: Health) -> None:
    """Tell the health, and close the port when the server has drained for its grace."""
    while not running.pipeline.draining:
        await health.tell(ready=running.health.unready_reason() is None)
        await asyncio.sleep(LOOK_S)
    await health.tell(ready=False)
    await asyncio.sleep(running.settings.drain_grace_s)
    health.end_watches()
    await asyncio.shield(server.stop(running.settings.shutdown_timeout_s))


def _options(settings: Settings) -> list[tuple[str, int]]:
    return [
        # Workers share the port; a second server must not.
        ("grpc.so_reuseport", int(settings.workers > 1)),
        ("grpc.max_receive_message_length", settings.max_body_bytes + MESSAGE_MARGIN),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_concurrent_streams", STREAMS_A_CONNECTION),
        ("grpc.max_connection_idle_ms", IDLE_MS),
        # Nothing but the first 64 KiB of a message is received before it is asked for.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.compression_enabled_algorithms_bitset", IDENTITY_ONLY),
        ("grpc.per_message_decompression", 0),
    ]
