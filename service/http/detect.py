"""`POST /detect`, from the head of a request to its answer."""

from typing import Annotated

from fastapi import Query, Request, Response
from starlette.types import Receive, Scope, Send

from service.errors import MalformedRequestError, NotAcceptableError, ServiceError
from service.http.accept import wanted_picture
from service.http.access.note import NOTE, Note
from service.http.answers import DetectResponse, answer_drawn, answer_found
from service.http.bodies.json_form import read_json
from service.http.bodies.kinds import declared_kind, kind_by_content
from service.http.bodies.memory import BodyLease
from service.http.bodies.multipart import read_multipart, too_many_images
from service.http.bodies.whole import read_whole
from service.http.deadline import Deadline
from service.http.exchange import DETECT, KeyedRoute
from service.http.formats import PLAIN, CocoResponse
from service.http.openapi.detection import detect_answers, detect_bodies
from service.http.options import NO_OPTIONS, DetectQuery, RequestLimits, read_options
from service.http.running import Running
from service.imaging.draw import PictureType
from service.pipeline.stages import DetectedImage, ImageSource


class DetectRoute(KeyedRoute):
    """FastAPI documents it by its endpoint's signature, and does not call it by that.

    To find the arguments by the signature costs half as much again as all else that detection costs
    beside the model (docs/decisions/http-overrides.md); here it is two lines.

    Args:
        running: The parts of the server that answer requests.
    """

    def __init__(self, running: Running) -> None:
        self._endpoint = Endpoint(running)
        self._unread = running.unread
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
        await self._unread.send(response, scope, receive, send)


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

    async def detect(self, request: Request, query: Annotated[DetectQuery, Query()]) -> Response:
        """Find objects in one or several images.

        Send image files as multipart parts named `images`, one image as the raw body, or JSON with
        base64. With `Accept: image/png` or `image/jpeg`, one image comes back with its boxes drawn.
        """
        limit_s = self._settings.request_timeout_ms / 1000
        if query.model_fields_set:
            query.check(self._limits)
        picture = wanted_picture(request.headers.get("accept", ""))
        with BodyLease(self._running.bodies) as lease:
            async with Deadline(limit_s, query.timeout_ms) as deadline:
                with self._running.pipeline.arrive():
                    sources, options = await self._read(request, query, lease)
                if options is not query:
                    deadline.set(options.timeout_ms)
                answer = self._answer(sources, options, deadline, picture, request.scope[NOTE])
                return await deadline.unless_client_leaves(request.receive, answer)

    async def _read(
        self, request: Request, query: DetectQuery, lease: BodyLease
    ) -> tuple[list[ImageSource], DetectQuery]:
        """The images of a request, and its options from query and body; the query's win."""
        content_type = request.headers.get("content-type", "")
        media_type = content_type.partition(";")[0].strip().lower()
        kind = declared_kind(media_type)
        body = await read_whole(request, lease, self._settings.max_body_bytes)
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

    async def _answer(
        self,
        sources: list[ImageSource],
        query: DetectQuery,
        deadline: Deadline,
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


def _boxes(outcome: DetectedImage | ServiceError) -> int:
    return len(outcome.detections.scores) if isinstance(outcome, DetectedImage) else 0
