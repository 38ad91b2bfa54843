"""`POST /detect`, from the head of a request to its answer."""

import time
from typing import Annotated

from fastapi import Query, Request, Response
from starlette.types import Receive, Scope, Send

from service.errors import NotAcceptableError, ServiceError
from service.http.accept import wanted_picture
from service.http.access.note import NOTE, Note
from service.http.answers import DetectResponse, answer_drawn, answer_found
from service.http.bodies.json_form import read_json
from service.http.bodies.kinds import Kind, declared_kind, kind_by_content, media_type_of
from service.http.bodies.multipart import no_image, read_multipart, too_many_images
from service.http.bounds import Bounds, fields_of
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
        self._limit_s = running.settings.request_timeout_ms / 1000
        self._max_body_bytes = running.settings.max_body_bytes
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
        if query.model_fields_set:
            query.check(self._limits)
        receive, note, fields = request.receive, request.scope[NOTE], fields_of(request.scope)
        content_type = fields.get(b"content-type", b"").decode("latin-1")
        async with Bounds(self._running.bodies, self._limit_s, query.timeout_ms) as bounds:
            with self._running.pipeline.arrive():
                kind = declared_kind(media_type_of(content_type))
                body = await bounds.read(receive, fields, self._max_body_bytes, note)
                sources, options = [ImageSource(body)], query
                if kind != "image" or not body:
                    sources, options = await self._parsed(body, kind, content_type, query)
            if options is not query:
                bounds.set_time(options.timeout_ms)
            picture = wanted_picture(fields.get(b"accept", b""), options.format or "json")
            answer = self._answer(sources, options, bounds, picture, note)
            return await bounds.unless_client_leaves(receive, answer)

    async def _parsed(
        self, body: bytes, kind: Kind | None, content_type: str, query: DetectQuery
    ) -> tuple[list[ImageSource], DetectQuery]:
        """The images of a body, and its options besides those of the query, which win."""
        match kind or kind_by_content(body, media_type_of(content_type)):
            case "multipart":
                sources, query = await read_multipart(body, content_type, query, self._limits)
            case "json":
                sources, query = read_json(body, query, self._limits)
            case _:
                sources = [ImageSource(body)] if body else []
        if not sources:
            raise no_image()
        if len(sources) > self._limits.images:
            raise too_many_images(self._limits.images)
        return sources, query

    async def _answer(
        self,
        sources: list[ImageSource],
        query: DetectQuery,
        bounds: Bounds,
        picture: PictureType | None,
        note: Note,
    ) -> Response:
        """A picture of what is found, if that is wanted, else JSON."""
        if picture is not None and len(sources) > 1:
            raise NotAcceptableError(
                "a picture can show one image; send one, or ask for application/json"
            )
        note["images"] = len(sources)
        models, asked = self._running.models, (query.model, query.version)
        model = models.ready.get(asked) or await models.get(*asked)
        note["model"] = model.label
        detector, options, layout = model.detector, model.defaults, PLAIN
        names = model.class_names
        if query.model_fields_set:
            options, layout = query.resolve(options, names), query.layout()
        if picture is not None:
            found, drawn = await detector.detect_drawn(
                sources[0], options, bounds.deadline, picture
            )
            note["detections"] = len(found.detections.scores)
            return answer_drawn(found, drawn, picture, time.monotonic() - bounds.started)
        if len(sources) > 1:
            bounds.leave_to_images()
        outcomes = await detector.detect_all(sources, options, bounds.deadline)
        total_s = time.monotonic() - bounds.started
        answer = answer_found(model.ref, names, sources, outcomes, total_s, layout, note)
        if len(outcomes) > 1:
            self._count_refused(outcomes)
        return answer

    def _count_refused(self, outcomes: list[DetectedImage | ServiceError]) -> None:
        """Count the images that were refused for the moment, though their request is answered."""
        for outcome in outcomes:
            if isinstance(outcome, ServiceError) and outcome.retry_after_s is not None:
                self._running.metrics.rejections.labels(outcome.slug).inc()
