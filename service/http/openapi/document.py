"""The finishing touches to the OpenAPI document that FastAPI makes."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from service.core.suppress import DetectionOptions
from service.http.inference_protocol.schemas import protocol_schemas
from service.http.openapi.detection import EXAMPLE_ANSWER, body_schemas
from service.http.openapi.problems import HEADERS, Described, shared_problems
from service.http.openapi.schemas import without_null
from service.http.problems import Problem
from service.settings import Settings

DESCRIPTION: Final = (
    "Send one image or several to `POST /detect`, and get the objects in them. Every error is an "
    "RFC 9457 problem document. `GET /model` shows the model, the limits and the default options."
)
LICENSE: Final = {"name": "Apache 2.0", "identifier": "Apache-2.0"}
SERVERS: Final = [{"url": "/", "description": "This server"}]
# FastAPI describes them wherever a path has a parameter.
UNUSED: Final = ("HTTPValidationError", "ValidationError")
TAGS: Final = [
    {"name": "detection", "description": "Objects in images"},
    {"name": "server", "description": "The model, its limits and defaults"},
    {"name": "inference protocol", "description": "The Open Inference Protocol, KServe's V2"},
    {"name": "operation", "description": "For orchestrators and monitoring"},
]


def finish(document: Described, settings: Settings, defaults: DetectionOptions) -> Described:
    """Complete a document with all that depends on the settings, and what FastAPI leaves out.

    Args:
        document: FastAPI's, which is changed.
        settings: The server's.
        defaults: The options of a request that has none.

    Returns:
        The same document.
    """
    components = document["components"]
    components["headers"] = HEADERS
    components["responses"] = shared_problems()
    components["schemas"] |= body_schemas(settings.max_images_per_request)
    components["schemas"] |= protocol_schemas()
    components["schemas"]["Problem"] = Problem.model_json_schema()
    # FastAPI would leave out what is null in an example.
    components["schemas"]["DetectResponse"]["examples"] = [EXAMPLE_ANSWER]
    _close_tuples(components["schemas"])
    form = components["schemas"]["DetectForm"]["properties"]
    _limit_options(form, settings)
    _show_defaults(form, settings, defaults)
    _limit_options(components["schemas"]["DetectJson"]["properties"], settings)
    for name in UNUSED:
        components["schemas"].pop(name, None)
    for method, operation in _operations(document):
        _drop_validation(operation)
        _finish_parameters(operation, settings)
        _finish_security(operation, settings)
        _share_problems(operation, components["responses"])
        if method == "head":
            for answer in operation["responses"].values():
                answer.pop("content", None)
    return document


def _operations(document: Described) -> Iterator[tuple[str, Described]]:
    for operations in document["paths"].values():
        yield from operations.items()


def _drop_validation(operation: Described) -> None:
    """Leave out FastAPI's answer to a malformed parameter of a path: any text is well formed."""
    answer = operation["responses"].get("422", {})
    if answer.get("description") == "Validation Error":
        del operation["responses"]["422"]


def _share_problems(operation: Described, shared: Described) -> None:
    """Refer to the errors that operations have in common, and leave an operation's own."""
    names = {problem["description"]: name for name, problem in shared.items()}
    answers = operation["responses"]
    for status, answer in answers.items():
        if name := names.get(answer["description"]):
            answers[status] = {"$ref": f"#/components/responses/{name}"}


def _finish_security(operation: Described, settings: Settings) -> None:
    schemes = operation.setdefault("security", [])
    if schemes and settings.api_key is None and settings.api_key_file is None:
        # A key does no harm, but none is needed.
        schemes.insert(0, {})


def _finish_parameters(operation: Described, settings: Settings) -> None:
    parameters = operation.get("parameters", [])
    for parameter in parameters:
        parameter["schema"] = without_null(parameter["schema"])
    _limit_options({item["name"]: item["schema"] for item in parameters}, settings)


def _close_tuples(schemas: dict[str, Described]) -> None:
    """Say of tuples, which have a fixed length anyway, what further items would be.

    Tools expect that of every array.
    """
    for schema in schemas.values():
        for field in schema.get("properties", {}).values():
            if "prefixItems" in field:
                field.setdefault("items", {})


def _show_defaults(
    schemas: dict[str, Described], settings: Settings, defaults: DetectionOptions
) -> None:
    """Give each option of the form the value that it has anyway, as an example.

    Swagger UI fills a form with examples, and would make up the values of options without one.
    """
    examples: Described = {
        **asdict(defaults),
        "timeout_ms": settings.request_timeout_ms,
        "classes": [],
        # An option without a value counts as absent.
        "preset": "",
        "model": "",
        "version": "",
        "format": "json",
        "boxes": "xyxy",
        "normalized": False,
    }
    schemas["preset"]["enum"].append("")
    for name in examples.keys() & schemas.keys():
        schemas[name]["examples"] = [examples[name]]


def _limit_options(schemas: dict[str, Any], settings: Settings) -> None:
    """Write the server's own limits into the schemas of options."""
    limits = {
        "max_detections": settings.max_detections,
        "timeout_ms": settings.request_timeout_ms,
    }
    for name in limits.keys() & schemas.keys():
        schema = schemas[name]
        # In JSON an option may be null as well.
        kinds = [kind for kind in schema.get("anyOf", [schema]) if kind["type"] == "integer"]
        for kind in kinds:
            kind["maximum"] = limits[name]
