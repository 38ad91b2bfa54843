"""The common part of all gRPC calls: an id, a clock, a count, a log line, the key, errors."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError, Message
from grpc.aio import ServicerContext

from service.errors import ClientLeftError, MalformedRequestError, ServiceError, TooLargeError
from service.grpc.wire import refuse_costly
from service.http.access.keys import ApiKeys
from service.http.access.note import Note
from service.http.exchange import SERVER_ERRORS, request_id_of
from service.http.problems import as_service_error
from service.http.running import Running
from service.observe.tracing.trace import CURRENT, TRACEPARENT, Attributes, Trace, exemplar

CODES: Final = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
OK: Final = 200
# Calls without images are short.
MAX_CONTROL_BYTES: Final = 64 * 1024

Context = ServicerContext[Any, Any]
# The class has no parameters when the program runs.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Receive = Callable[[], Awaitable[bytes]]
Work = Callable[[Receive, Context, Note], Awaitable[Message]]

log = structlog.get_logger("service.access")


class GrpcExchange:
    """Answers every call; a call's own function returns a message or raises.

    Args:
        running: The parts of the server that answer requests.
    """

    def __init__(self, running: Running) -> None:
        self._metrics = running.metrics
        self._tracing = running.tracing
        settings = running.settings
        # A message is whole in memory before its length is known.
        at_once = settings.max_buffered_bytes // 2 // settings.max_body_bytes
        self._turns = asyncio.Semaphore(max(1, at_once))

    def handler(
        self, path: str, work: Work, keys: ApiKeys | None, *, detects: bool = False
    ) -> Handler:
        """A handler of one call.

        To gRPC it is one of a stream, so that the message is received when there is room for it,
        and not before. On the wire there is no difference.

        Args:
            path: The call's path, for the metrics and the log.
            work: Answers it.
            keys: The keys one of which it must bring, if any.
            detects: Whether it sends images.
        """

        async def answer(_: object, context: Context) -> Message:
            return await self._answer(path, work, keys, context, detects)

        return grpc.stream_unary_rpc_method_handler(
            answer, response_serializer=lambda message: message.SerializeToString()
        )

    async def receive(self, context: Context) -> bytes:
        """The message of a call.

        Raises:
            MalformedRequestError: There is none.
        """
        async with self._turns:
            message = await context.read()
        if not isinstance(message, bytes):
            raise MalformedRequestError("the call has no message")
        return message

    async def _answer(
        self, path: str, work: Work, keys: ApiKeys | None, context: Context, detects: bool
    ) -> Message:
        started, note = time.perf_counter(), Note(bytes=0)
        headers = headers_of(context)
        request_id, status = request_id_of(headers), OK
        trace = self._tracing.begin(headers)
        # A call is a task of its own, whose context ends with it.
        CURRENT.set(trace)
        context.set_trailing_metadata(_trailing(request_id))
        self._metrics.requests_in_flight.inc(int(detects))
        try:
            if keys is not None:
                keys.check(headers)
            return await work(lambda: self.receive(context), context, note)
        except asyncio.CancelledError:
            status, note["problem"] = ClientLeftError.status, ClientLeftError.slug
            raise
        except Exception as error:
            problem = as_service_error(error)
            status, note["problem"] = problem.status, problem.slug
            if not isinstance(error, ServiceError):
                log.exception("unexpected error", request_id=request_id)
            await refuse(context, problem, request_id)
            raise  # for abort has raised already
        finally:
            self._metrics.requests_in_flight.dec(int(detects))
            self._count(path, status, time.perf_counter() - started, note, detects)
            _log(path, status, time.perf_counter() - started, note, context, request_id)
            if trace is not None:
                _end(trace, path, status, note)

    def _count(self, path: str, status: int, seconds: float, note: Note, detects: bool) -> None:
        self._metrics.requests.labels(path, str(status)).inc()
        self._metrics.request_duration.labels(path).observe(seconds, exemplar())
        if detects and "problem" in note:
            self._metrics.rejections.labels(note["problem"]).inc()


def parsed(kind: type[Any], content: bytes) -> Any:  # noqa: ANN401 - of that kind
    """A message of this kind.

    Raises:
        MalformedRequestError: The bytes are none.
        TooLargeError: They are too many, or hold more fields than a call may.
    """
    if kind.__name__ == "ModelInferRequest":
        refuse_costly(memoryview(content))
    elif len(content) > MAX_CONTROL_BYTES:
        raise TooLargeError(f"this call may have at most {MAX_CONTROL_BYTES} bytes")
    try:
        return kind.FromString(content)
    except DecodeError as error:
        raise MalformedRequestError("the message is malformed, or compressed") from error


def headers_of(context: Context) -> Sequence[tuple[bytes, bytes]]:
    """The metadata of a call, as HTTP has headers."""
    given = context.invocation_metadata() or ()
    return [(name.encode(), v.encode() if isinstance(v, str) else v) for name, v in given]


async def refuse(context: Context, problem: ServiceError, request_id: str) -> None:
    """End a call with an error; this raises."""
    retry = {} if problem.retry_after_s is None else {"retry-after": str(problem.retry_after_s)}
    trailing = (*_trailing(request_id), *retry.items())
    await context.abort(status_code(problem.status), problem.detail, trailing)


def _trailing(request_id: str) -> list[tuple[str, str]]:
    """The metadata that every answer has."""
    trace = CURRENT.get()
    parent = [] if trace is None else [(TRACEPARENT.decode(), trace.traceparent)]
    return [("x-request-id", request_id), *parent]


def _end(trace: Trace, path: str, status: int, note: Note) -> None:
    """Note in a call's trace how it was answered, by OpenTelemetry's names for RPC."""
    service, _, method = path.strip("/").partition("/")
    attributes: Attributes = {"rpc.system": "grpc", "rpc.service": service, "rpc.method": method}
    attributes["rpc.grpc.status_code"] = status_code(status).value[0]
    if "problem" in note:
        attributes["error.type"] = note["problem"]
    facts = ((name, value) for name, value in note.items() if name != "problem")
    attributes.update({f"yolox.{name}": value for name, value in facts})
    trace.end(f"{service}/{method}", attributes, failed=status >= SERVER_ERRORS)


def status_code(status: int) -> grpc.StatusCode:
    """The code that gRPC has for an HTTP status."""
    if status == OK:
        return grpc.StatusCode.OK
    return CODES.get(status, grpc.StatusCode.INVALID_ARGUMENT)


def _log(
    path: str, status: int, seconds: float, note: Note, context: Context, request_id: str
) -> None:
    log.info(
        "request",
        method="gRPC",
        endpoint=path,
        status=status,
        ms=round(seconds * 1000, 1),
        client=_peer(context),
        **note,
        request_id=request_id,
    )


def _peer(context: Context) -> str:
    """The address at the other end of the connection, from `ipv4:127.0.0.1:50000` or the like."""
    kind, _, address = context.peer().partition(":")
    host = address.rpartition(":")[0].replace("%5B", "").replace("%5D", "")
    return host if kind.startswith("ip") else kind
