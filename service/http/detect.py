"""`POST /detect`, from the head of a request to its answer."""

import asyncio
import time
from collections.abc import AsyncIterable, Coroutine
from types import TracebackType
from typing import Annotated, Any, Self, TypeVar

from fastapi import Query, Request, Response
from starlette.types import Receive, Scope, Send

from service.errors import (
    BusyError,
    ClientLeftError,
    DeadlineError,
    MalformedRequestError,
    NotAcceptableError,
    ServiceError,
    TooLargeError,
)
from service.http.accept import wanted_picture
from service.http.access.note import NOTE, Note
from service.http.answers import DetectResponse, answer_drawn, answer_found
from service.http.bodies.coding import decompressed, is_compressed
from service.http.bodies.json_form import read_json
from service.http.bodies.kinds import declared_kind, kind_by_content
from service.http.bodies.multipart import read_multipart, too_many_images
from service.http.exchange import DETECT, KeyedRoute
from service.http.formats import PLAIN, CocoResponse
from service.http.openapi.detection import detect_answers, detect_bodies
from service.http.options import NO_OPTIONS, DetectQuery, RequestLimits, read_options
from service.http.running import Running
from service.http.sending import AnswerMemory
from service.imaging.draw import PictureType
from service.pipeline.stages import DetectedImage, ImageSource

T = TypeVar("T")


class DetectRoute(KeyedRoute):
    """FastAPI documents it by its endpoint's signature, and does not call it by that.

    To find the arguments by the signature costs half as much again as all else that detection costs
    beside the model (docs/decisions/http-overrides.md); here it is two lines.

    Args:
        running: The parts of the server that answer requests.
    """

    def __init__(self, running: Running) -> None:
        self._endpoint = Endpoint(running)
        self._answers = AnswerMemory(running.settings.max_buffered_bytes // 4)
        super().__init__(
            DETECT,
            self._endpoint.detect,
            running.keys,
            methods=["POST"],
            response_model=DetectResponse | CocoResponse,
            responses=detect_answers(),
            openapi_extra=detect_bodies(),
            operation_id="detect",
            tags=["detection"],
        )

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the endpoint with the request and its options."""
        request = Request(scope, receive, send)
        options = read_options(request.query_params) if scope["query_string"] else NO_OPTIONS
        response = await self._endpoint.detect(request, options)
        await self._answers.send(response, scope, receive, send)


class Endpoint:
    """Answers detection requests.

    Args:
        running: The parts of the server that answer requests.
    """

    def __init__(self, running: Running) -> None:
        self._running = running
        self._settings = running.settings
        self._limits = RequestLimits(
            images=running.settings.max_images_per_request,
            detections=running.settings.max_detections,
            timeout_ms=running.settings.request_timeout_ms,
        )
        self._memory = BodyMemory(running.settings.max_buffered_bytes)

    async def detect(self, request: Request, query: Annotated[DetectQuery, Query()]) -> Response:
        """Find objects in one or several images.

        Send image files as multipart parts named `images`, one image as the raw body, or JSON with
        base64. With `Accept: image/png` or `image/jpeg`, one image comes back with its boxes drawn.
        """
        limit_s = self._settings.request_timeout_ms / 1000
        if query.model_fields_set:
            query.check(self._limits)
        picture = wanted_picture(request.headers.get("accept", ""))
        with BodyLease(self._memory) as lease:
            async with Deadline(limit_s, query.timeout_ms) as deadline:
                with self._running.pipeline.arrive():
                    sources, options = await self._read(request, query, lease)
                if options is not query:
                    deadline.set(options.timeout_ms)
                answer = self._answer(sources, options, deadline, picture, request.scope[NOTE])
                return await deadline.unless_client_leaves(request.receive, answer)

    async def _read(
        self, request: Request, query: DetectQuery, lease: "BodyLease"
    ) -> tuple[list[ImageSource], DetectQuery]:
        """The images of a request, and its options from query and body; the query's win."""
        content_type = request.headers.get("content-type", "")
        media_type = content_type.partition(";")[0].strip().lower()
        kind = declared_kind(media_type)
        body = await self._read_whole(request, lease)
        match kind or kind_by_content(body, media_type):
            case "multipart":
                sources, query = await read_multipart(body, content_type, query, self._limits)
            case "json":
                sources, query = read_json(body, query, self._limits)
            case _:
                sources = [ImageSource(body)] if body else []
        if not sources:
            raise MalformedRequestError("the request holds no image")
        if len(sources) > self._limits.images:
            raise too_many_images(self._limits.images)
        return sources, query

    async def _read_whole(self, request: Request, lease: "BodyLease") -> bytes:
        """The whole body; a declared length over the limit is refused before anything is read."""
        max_bytes = self._settings.max_body_bytes
        # The HTTP parser takes nothing but a number.
        if int(request.headers.get("content-length", "0")) > max_bytes:
            raise _too_many_bytes(max_bytes)
        note: Note = request.scope[NOTE]
        stream: AsyncIterable[bytes] = request.stream()
        coding = request.headers.get("content-encoding")
        if coding is not None and is_compressed(coding):
            stream = decompressed(stream)
        chunks = []
        async for chunk in stream:
            if lease.held + len(chunk) > max_bytes:
                raise _too_many_bytes(max_bytes)
            lease.grow(len(chunk))
            note["bytes"] = lease.held
            chunks.append(chunk)
        return b"".join(chunks)

    async def _answer(
        self,
        sources: list[ImageSource],
        query: DetectQuery,
        deadline: "Deadline",
        picture: PictureType | None,
        note: Note,
    ) -> Response:
        """A picture of what is found, if that is wanted, else JSON."""
        if picture is not None and len(sources) > 1:
            raise NotAcceptableError("a picture can show one image; ask for application/json")
        note["images"] = len(sources)
        model = await self._running.models.get(query.model, query.version)
        note["model"] = model.label
        detector, options, layout = model.detector, model.defaults, PLAIN
        names = model.class_names
        if query.model_fields_set:
            options, layout = query.resolve(options, names), query.layout()
        if picture is not None:
            found, drawn = await detector.detect_drawn(sources[0], options, deadline.at, picture)
            note["detections"] = len(found.detections.scores)
            return answer_drawn(found, drawn, picture, deadline.elapsed_s())
        if len(sources) > 1:
            deadline.leave_to_images()
        outcomes = await detector.detect_all(sources, options, deadline.at)
        note["detections"] = sum(map(_boxes, outcomes))
        answer = answer_found(model.ref, names, sources, outcomes, deadline.elapsed_s(), layout)
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
        limit_s: The time of a request that asks for none, in seconds.
        asked_ms: The time that the request asks for, in milliseconds, if it does.

    Attributes:
        at: `time.monotonic()` when the time is over.

    Raises:
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
        """Take another time from the start on: a body may ask for one as well as a query."""
        self.at = self._started + self._seconds(asked_ms)
        self._clock.reschedule(asyncio.get_running_loop().time() + self.at - time.monotonic())

    def leave_to_images(self) -> None:
        """Cut the work short no more: each of several images is given up by itself at `at`."""
        if not self._clock.expired():
            self._clock.reschedule(None)

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
        return self._limit_s if asked_ms is None else asked_ms / 1000


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


def _boxes(outcome: DetectedImage | ServiceError) -> int:
    return len(outcome.detections.scores) if isinstance(outcome, DetectedImage) else 0


def _too_many_bytes(limit: int) -> TooLargeError:
    return TooLargeError(f"a request's body may have at most {limit} bytes")
