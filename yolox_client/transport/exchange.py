"""The conversation with a server as steps that both clients take, each in its own way.

A generator gives the steps, and is sent what came of each; so the retries, the deadline and the
reading of answers exist once, and neither block nor await.
"""

import json
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from yolox_client.errors import (
    ClientDeadlineError,
    InvalidImageError,
    MalformedRequestError,
    ProblemError,
    ServerUnreachableError,
    TooLargeError,
    UnexpectedAnswerError,
    UnsupportedTypeError,
    UnusableImageError,
    problem_of,
)
from yolox_client.images import ImageFile, ImageInput, PixelForm, as_file
from yolox_client.options import as_query
from yolox_client.results import ImageResult, ModelRef, image_result, is_temporary
from yolox_client.transport.retry import REPEATED_STATUSES, Attempts, retry_after_s

T = TypeVar("T")

# Faults of one image, or of all images of a request together.
OF_IMAGES: Final = (
    MalformedRequestError,
    TooLargeError,
    UnsupportedTypeError,
    InvalidImageError,
)

PROBLEM_TYPE: Final = "urn:problem-type:yolox-serve:"
# Proxies refuse a request in place of the service: for its key, its length, or want of a server.
OF_PROXIES: Final = frozenset({401, 403, 413, 429, 431, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Call:
    """A request.

    Attributes:
        method: The HTTP method.
        path: The path on the server.
        query: The query parameters.
        files: The images of a body; one is sent as it is, several as a form.
        accept: The type of the answer.
    """

    method: str
    path: str
    query: Sequence[tuple[str, str]] = ()
    files: Sequence[ImageFile] = ()
    accept: str = "application/json"


@dataclass(frozen=True, slots=True)
class Send:
    """A step: send the request, and give up after some seconds."""

    call: Call
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    """A step: wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class Failure:
    """No answer came.

    Attributes:
        reason: Why.
        late: Whether the time of the step was over.
    """

    reason: str
    late: bool = False


Steps: TypeAlias = Generator[Send | Pause, Reply | Failure | None, T]


def reply_to(call: Call, attempts: Attempts) -> Steps[Reply]:
    """The answer to a request, which is repeated while that may help.

    Raises:
        ServerUnreachableError: No server answered.
        ClientDeadlineError: The time was over before an answer came.
        ProblemError: The answer is a problem.
        UnexpectedAnswerError: Another server answered.
    """
    while True:
        outcome = yield Send(call, max(attempts.left_s(), 0.001))
        if isinstance(outcome, Reply) and outcome.status not in REPEATED_STATUSES:
            return _good(outcome)
        wait_s = retry_after_s(outcome.headers) if isinstance(outcome, Reply) else None
        pause = attempts.pause_s(wait_s)
        if pause is None:
            raise _given_up(outcome)
        yield Pause(pause)


def detections_in(
    files: Sequence[ImageFile], query: Sequence[tuple[str, str]], attempts: Attempts
) -> Steps[list[ImageResult]]:
    """The result of each image; those that were refused for the moment are sent once more.

    Raises:
        YoloxClientError: The server cannot be reached, or refuses the request as such.
    """
    reply = yield from reply_to(Call("POST", "/detect", query, files), attempts)
    results = _results(reply, files)
    refused = [at for at, result in enumerate(results) if is_temporary(result)]
    pause = attempts.pause_s(retry_after_s(reply.headers)) if refused else None
    if pause is None:
        return results
    yield Pause(pause)
    again = yield from each_detected([files[at] for at in refused], query, attempts)
    for at, result in zip(refused, again, strict=True):
        results[at] = result
    return results


def each_detected(
    files: Sequence[ImageFile], query: Sequence[tuple[str, str]], attempts: Attempts
) -> Steps[list[ImageResult]]:
    """The result of each image; an image that could not be used has its own error in its result.

    Raises:
        YoloxClientError: The server cannot be reached, or refuses any image.
    """
    try:
        return (yield from detections_in(files, query, attempts))
    except ProblemError as problem:
        if not _concerns_images(problem):
            raise
        if len(files) == 1:
            return [ImageResult(files[0].filename, 0, 0, error=problem)]
    # The answer says what is wrong with one of them only, or that they are too large together.
    results: list[ImageResult] = []
    for file in files:
        results += yield from each_detected([file], query, attempts)
    return results


def file_or_result(image: ImageInput, form: PixelForm) -> ImageFile | ImageResult:
    """The file of an image, or the result that says why there is none."""
    try:
        return as_file(image, form)
    except UnusableImageError as error:
        return ImageResult(Path(str(image)).name, 0, 0, error=error)


def merged(
    read: Sequence[ImageFile | ImageResult], found: Sequence[ImageResult]
) -> list[ImageResult]:
    """The results of the files in place of each, among those that there were already."""
    remaining = iter(found)
    return [next(remaining) if isinstance(each, ImageFile) else each for each in read]


def picture_of(file: ImageFile, query: Sequence[tuple[str, str]], accept: str) -> Call:
    """The request for an image with its boxes drawn."""
    return Call("POST", "/detect", query, [file], accept)


def model_of(model: str | None, version: str | None) -> Call:
    """The request for what is known of a model; None stands for the server's default."""
    named = {"model": model, "version": version}
    return Call("GET", "/model", as_query(named))


def parsed(reply: Reply, read: Callable[[Any], T]) -> T:
    """A part of the JSON of an answer.

    Raises:
        UnexpectedAnswerError: It is not there.
    """
    try:
        return read(json.loads(reply.content))
    except (ValueError, LookupError, TypeError) as error:
        raise UnexpectedAnswerError(
            f"the server does not answer as this service does: {error!r}"
        ) from error


def results_in(body: Mapping[str, Any]) -> list[ImageResult]:
    """The results in the JSON of an answer of `POST /detect`.

    Raises:
        LookupError, TypeError, ValueError: It is not one.
    """
    fields = body["model"]
    model = ModelRef(str(fields["name"]), str(fields["version"]), str(fields["provider"]))
    return [image_result(item, model, body["timing_ms"]) for item in body["results"]]


def _results(reply: Reply, files: Sequence[ImageFile]) -> list[ImageResult]:
    results = parsed(reply, results_in)
    if len(results) != len(files):
        raise UnexpectedAnswerError(
            f"the server gave {len(results)} results for {len(files)} images"
        )
    # The name as it is here: one image travels without it.
    return [
        replace(result, filename=file.filename) for result, file in zip(results, files, strict=True)
    ]


def _concerns_images(problem: ProblemError) -> bool:
    """Whether other images may fare better than these."""
    return isinstance(problem, OF_IMAGES) or problem.status in (503, 504)


def _good(reply: Reply) -> Reply:
    if not 200 <= reply.status < 300:
        raise _problem(reply)
    return reply


def _given_up(outcome: Reply | Failure | None) -> Exception:
    """The error for a request that is not repeated any more."""
    if isinstance(outcome, Reply):
        return _problem(outcome)
    if outcome is None or outcome.late:
        return ClientDeadlineError("the time was over before the server answered")
    return ServerUnreachableError(outcome.reason)


def _problem(reply: Reply) -> ProblemError | UnexpectedAnswerError:
    """The problem that an answer describes.

    A proxy before the service may refuse a request with a page of its own, which is a problem as
    well. Any other answer is another server's.
    """
    try:
        document = json.loads(reply.content)
    except ValueError:
        document = None
    if isinstance(document, dict) and str(document.get("type")).startswith(PROBLEM_TYPE):
        return problem_of(document, reply.status, retry_after_s(reply.headers))
    text = reply.content[:200].decode(errors="replace").strip() or "the answer is empty"
    if reply.status in OF_PROXIES:
        page = {"title": "Answer of a proxy", "detail": text}
        return problem_of(page, reply.status, retry_after_s(reply.headers))
    return UnexpectedAnswerError(
        f"the answer, with status {reply.status}, is not this service's; is another server at this "
        f"address? It begins: {text}"
    )
