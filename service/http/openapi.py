"""Bodies and errors in the OpenAPI document, which FastAPI cannot find in a signature."""

from typing import Any, Final

from service.http.options import DetectJson
from service.http.problems import Problem

# A PNG of a QR code, which says "yolox-serve".
EXAMPLE_IMAGE: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAUAAAADwAQAAAABZVoDGAAABH0lEQVR42u2ZMW7EIBREZ6xIptsjmJvkZAGbSLnX3g"
    "QfwR00nhSbKLurLVLz/6+QeM0I/mdGUPhfTXDQQQcddNBBBx00CG4kGQuATpKTDdWU1JCAgkXSauRSdE6AGBOwMZpq"
    "BaoWewOgAMmU6lnn7zKrGlEtkgHosWAnOe4044to3wNPQzdcJMkckLBPQLGhusyVqpQYoGDlrPPxnhnRI7Cc2E8jjv"
    "RSKU3zdQVKt+JScsMHo8Jydkoy4sNvxoxHpMSwG/Hht8wFoPSYj5iGVQ3d1SapLVv7MWm83xs+c11q6vFz5KT59sKu"
    "NUzzNX61ZKOv/4Q/NbWBzKWw50vFyO/1wzRbAWA558oGzDUPO83o36kOOuiggw466KCDj/UNB/yaHSppwdMAAAAASU"
    "VORK5CYII="
)
IMAGE_FILE: Final = {"type": "string", "format": "binary"}
IMAGE_FORM: Final = {
    "type": "object",
    "properties": {"images": {"type": "array", "items": IMAGE_FILE}},
}
REQUEST_BODIES: Final = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": IMAGE_FORM},
            "image/*": {"schema": IMAGE_FILE},
            "application/octet-stream": {"schema": IMAGE_FILE},
            "application/json": {
                "schema": DetectJson.model_json_schema(),
                "example": {"images": [EXAMPLE_IMAGE]},
            },
        },
    }
}
# Beside the JSON, which FastAPI finds by itself.
PICTURES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "What was found, or a picture of it where `Accept` wants one",
        "content": {kind: {"schema": IMAGE_FILE} for kind in ("image/png", "image/jpeg")},
    }
}
PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"description": meaning, "model": Problem}
    for status, meaning in {
        400: "Malformed body, or no image",
        401: "API key missing or wrong",
        406: "A picture of several images",
        413: "Body, image count or pixel count over the limit",
        415: "Not a type that is accepted",
        422: "An option out of range, or an image that cannot be decoded",
        500: "A bug",
        503: "Queue full, shutting down, or the model failed; see Retry-After",
        504: "The deadline passed",
    }.items()
}
KEY_PROBLEM: Final[dict[int | str, dict[str, Any]]] = {401: PROBLEMS[401]}
NOT_READY: Final[dict[int | str, dict[str, Any]]] = {
    503: {"description": "Why not", "model": Problem}
}
