"""`POST /detect`, from the head of a request to its answer."""

import asyncio
import time
from collections.abc import Coroutine
from functools import lru_cache
from types import TracebackType
from typing import Annotated, Any, Final, Self, TypeVar

from fastapi import Query, Request, Response
from starlette.types import Receive, Scope, Send

from service.errors import (
    BusyError,
    ClientLeftError,
    DeadlineError,
    InvalidOptionError,
    MalformedRequestError,
    NotAcceptableError,
    ServiceError,
    TooLargeError,
    UnsupportedTypeError,
)
from service.http.answers import DetectResponse, answer_drawn, answer_found
from service.http.exchange import DETECT, KeyedRoute
from service.http.forms import read_json, read_multipart, too_many_images
from service.http.openapi import PICTURES, PROBLEMS, REQUEST_BODIES
from service.http.options import NO_OPTIONS, DetectQuery, read_options
from service.http.running import Running
from service.imaging.draw import wanted_picture
from service.pipeline.stages import DetectedImage, ImageSource

T = TypeVar("T")

OTHER_TYPES: Final = ("application/octet-stream", "multipart/form-data", "application/json")

# Clients send the same few headers all the time.
_wanted_picture = lru_cache(maxsize=128)(wanted_picture)


class DetectRoute(KeyedRoute):
    """FastAPI documents it by its endpoint's signature, and does not call it by that.

    To find the arguments by the signature costs half as much again as all else that detection costs
    beside the model (docs/decisions/http-overrides.md); here it is two lines.

    Args:
        running: The parts of the server that answer requests.
    """

    def __init__(self, running: Running) -> None:
        self._endpoint = Endpoint(running)
        super().__init__(
            DETECT,
            self._endpoint.detect,
            running.settings.api_key,
            methods=["POST"],
            response_model=DetectResponse,
            responses=PICTURES | PROBLEMS,
            openapi_extra=REQUEST_BODIES,
        )

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the endpoint with the request and its options."""
        request = Request(scope, receive, send)
        options = read_options(request.query_params) if scope["query_string"] else NO_OPTIONS
        response = await self._endpoint.detect(request, options)
        await response(scope, receive, send)


class Endpoint:
    """Answers detection requests.

    Args:
        running: The parts of the server that answer requests.
    """

    def __init__(self, running: Running) -> None:
        self._running = running
        self._detector = running.detector
        self._settings = running.settings
        self._memory = BodyMemory(running.settings.max_buffered_bytes)

    async def detect(self, request: Request, query: Annotated[DetectQuery, Query()]) -> Response:
        """Find objects in one or several images.

        Send image files as multipart parts named `images`, one image as the raw body, or JSON with
        base64. With `Accept: image/png` or `image/jpeg`, one image comes back with its boxes drawn.
        """
        limit_s = self._settings.request_timeout_ms / 1000
        with BodyLease(self._memory) as lease:
            async with Deadline(limit_s, query.timeout_ms) as deadline:
                with self._detector.arrive():
                    sources, options = await self._read(request, query, lease)
                if options is not query:
                    deadline.set(options.timeout_ms)
                answer = self._answer(request, sources, options, deadline)
                return await deadline.unless_client_leaves(request.receive, answer)

    async def _read(
        self, request: Request, query: DetectQuery, lease: "BodyLease"
    ) -> tuple[list[ImageSource], DetectQuery]:
        """The images of a request, and its options from query and body; the query's win."""
        content_type = request.headers.get("content-type", "")
        media_type = content_type.partition(";")[0].strip().lower()
        if not media_type.startswith("image/") and media_type not in OTHER_TYPES:
            raise UnsupportedTypeError(
                f"Content-Type is {media_type or 'missing'}; send image/*, "
                "application/octet-stream, multipart/form-data or application/json"
            )
        body = await self._read_body(request, lease)
        max_images = self._settings.max_images_per_request
        if media_type == "multipart/form-data":
            sources, query = await read_multipart(body, content_type, query, max_images)
        elif media_type == "application/json":
            sources, query = read_json(body, query, max_images)
        else:
            sources = [ImageSource(body)] if body else []
        if not sources:
            raise MalformedRequestError("the request holds no image")
        if len(sources) > max_images:
            raise too_many_images(max_images)
        return sources, query

    async def _read_body(self, request: Request, lease: "BodyLease") -> bytes:
        """The whole body; a declared length over the limit is refused before anything is read."""
        max_bytes = self._settings.max_body_bytes
        # The HTTP parser takes nothing but a number.
        if int(request.headers.get("content-length", "0")) > max_bytes:
            raise _too_many_bytes(max_bytes)
        chunks = []
        async for chunk in request.stream():
            lease.grow(len(chunk))
            if lease.held > max_bytes:
                raise _too_many_bytes(max_bytes)
            chunks.append(chunk)
        return b"".join(chunks)

    async def _answer(
        self, request: Request, sources: list[ImageSource], query: DetectQuery, deadline: "Deadline"
    ) -> Response:
        """A picture of what is found, if that is wanted, else JSON."""
        picture = _wanted_picture(request.headers.get("accept", ""))
        if picture is not None and len(sources) > 1:
            raise NotAcceptableError("a picture can show one image; ask for application/json")
        detector, options = self._detector, self._running.defaults
        names = detector.contract.class_names
        if query.model_fields_set:
            options = query.resolve(options, names)
        if picture is not None:
            found, drawn = await detector.detect_drawn(sources[0], options, deadline.at, picture)
            return answer_drawn(found, drawn, picture, deadline.elapsed_s())
        outcomes = await detector.detect_all(sources, options, deadline.at)
        answer = answer_found(self._running.model, names, sources, outcomes, deadline.elapsed_s())
        if len(outcomes) > 1:
            self._count_refused(outcomes)
        return answer

    def _count_refused(self, outcomes: list[DetectedImage | ServiceError]) -> None:
        """Count the images that were refused for the moment, though their request is answered."""
        for outcome in outcomes:
            if isinstance(outcome, ServiceError) and outcome.retry_after_s is not None:
                self._running.metrics.rejections.labels(outcome.slug).inc()


class Deadline:
    """Ends the work on a request when its time is over or its client has left; nothing else does.

    The time runs from the construction on; the context is the work.

    Args:
        limit_s: The time that the server allows, in seconds.
        asked_ms: The time that the request asks for, in milliseconds, if it does.

    Attributes:
        at: `time.monotonic()` when the time is over.

    Raises:
        InvalidOptionError: More is asked for than is allowed.
        DeadlineError: The time was over before the context was left.
    """

    def __init__(self, limit_s: float, asked_ms: int | None) -> None:
        self._limit_s = limit_s
        self._started = time.monotonic()
        seconds = self._seconds(asked_ms)
        self.at = self._started + seconds
        self._clock = asyncio.timeout(seconds)

    async def __aenter__(self) -> Self:
        await self._clock.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._clock.__aexit__(kind, error, traceback)
        except TimeoutError:
            raise DeadlineError("the deadline passed before the answer was ready") from error

    def set(self, asked_ms: int | None) -> None:
        """Take another time from the start on: a body may ask for one as well as a query.

        Raises:
            InvalidOptionError: More is asked for than is allowed.
        """
        self.at = self._started + self._seconds(asked_ms)
        self._clock.reschedule(asyncio.get_running_loop().time() + self.at - time.monotonic())

    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    async def unless_client_leaves(self, receive: Receive, work: Coroutine[Any, Any, T]) -> T:
        """Finish the work, unless the client leaves first.

        Raises:
            ClientLeftError: The client left.
        """
        watch = asyncio.create_task(self._watch_client(receive))
        try:
            return await work
        except asyncio.CancelledError:
            if watch.done():
                raise ClientLeftError("the client closed the connection") from None
            raise
        finally:
            watch.cancel()

    async def _watch_client(self, receive: Receive) -> None:
        """Let the time be over at once when the client leaves."""
        while (await receive())["type"] != "http.disconnect":
            pass
        if not self._clock.expired():
            self._clock.reschedule(asyncio.get_running_loop().time())

    def _seconds(self, asked_ms: int | None) -> float:
        if asked_ms is None:
            return self._limit_s
        if asked_ms > self._limit_s * 1000:
            raise InvalidOptionError(f"timeout_ms may be at most {self._limit_s * 1000:g}")
        return asked_ms / 1000


class BodyMemory:
    """A bound on the bytes of all request bodies that are held at once.

    Args:
        max_bytes: The bound.

    Attributes:
        free: How many bytes are left of it.
    """

    def __init__(self, max_bytes: int) -> None:
        self.free = max_bytes


class BodyLease:
    """The share that one request holds of a `BodyMemory` until the context is left.

    Args:
        memory: The bound.

    Attributes:
        held: The bytes.
    """

    def __init__(self, memory: BodyMemory) -> None:
        self._memory = memory
        self.held = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.free += self.held

    def grow(self, count: int) -> None:
        """Hold this number of bytes more.

        Raises:
            BusyError: They are not free.
        """
        if count > self._memory.free:
            raise BusyError("too many bytes of requests are held at once", retry_after_s=1)
        self._memory.free -= count
        self.held += count


def _too_many_bytes(limit: int) -> TooLargeError:
    return TooLargeError(f"a request's body may have at most {limit} bytes")
