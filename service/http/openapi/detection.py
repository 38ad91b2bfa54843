"""Bodies and answers of `POST /detect` in the OpenAPI document."""

from typing import Any, Final

from service.http.bodies.multipart import IMAGE_FIELDS
from service.http.openapi.problems import Described, problems, success
from service.http.openapi.schemas import without_null
from service.http.options import DetectJson, DetectQuery

IMAGE_FILE: Final = {"type": "string", "format": "binary"}
PICTURE: Final = {"schema": IMAGE_FILE | {"description": "The image with its boxes drawn"}}
CLASSES_IN_JSON: Final = [
    {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
    {"type": "string"},
    {"type": "integer"},
    {"type": "null"},
]
# A PNG of a QR code, which says "yolox-serve".
EXAMPLE_IMAGE: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAUAAAADwAQAAAABZVoDGAAABH0lEQVR42u2ZMW7EIBREZ6xIptsjmJvkZAGbSLnX3g"
    "QfwR00nhSbKLurLVLz/6+QeM0I/mdGUPhfTXDQQQcddNBBBx00CG4kGQuATpKTDdWU1JCAgkXSauRSdE6AGBOwMZpq"
    "BaoWewOgAMmU6lnn7zKrGlEtkgHosWAnOe4044to3wNPQzdcJMkckLBPQLGhusyVqpQYoGDlrPPxnhnRI7Cc2E8jjv"
    "RSKU3zdQVKt+JScsMHo8Jydkoy4sNvxoxHpMSwG/Hht8wFoPSYj5iGVQ3d1SapLVv7MWm83xs+c11q6vFz5KT59sKu"
    "NUzzNX61ZKOv/4Q/NbWBzKWw50vFyO/1wzRbAWA558oGzDUPO83o36kOOuiggw466KCDj/UNB/yaHSppwdMAAAAASU"
    "VORK5CYII="
)
EXAMPLE_ANSWER: Final = {
    "model": {"name": "yolox-nano", "version": "0.1.1rc0", "provider": "CPUExecutionProvider"},
    "results": [
        {
            "filename": "street.jpg",
            "width": 640,
            "height": 426,
            "detections": [
                {
                    "box": {"x1": 1.0, "y1": 2.0, "x2": 30.5, "y2": 40.0},
                    "score": 0.91,
                    "objectness": 0.95,
                    "class_score": 0.99,
                    "class_id": 0,
                    "class_name": "person",
                }
            ],
            "error": None,
        },
        {
            "filename": "notes.txt",
            "width": None,
            "height": None,
            "detections": [],
            "error": {
                "status": 415,
                "title": "Unsupported type",
                "detail": "this is not an image of an accepted type (JPEG, PNG, WEBP, GIF, BMP, "
                "TIFF, AVIF)",
            },
        },
    ],
    "timing_ms": {
        "decode": 2.1,
        "queue": 0.4,
        "inference": 9.8,
        "postprocess": 0.3,
        "total": 13.0,
    },
}


def detect_answers() -> dict[int | str, Described]:
    """The answers of the operation."""
    found = success(
        "What was found in each image, in the order of the images",
        {
            "text/plain": {"schema": {"type": "string", "description": "YOLO labels"}},
            "image/png": PICTURE,
            "image/jpeg": PICTURE,
        },
        "Retry-After",
    )
    return found | problems(400, 401, 406, 413, 415, 422, 503, 504)


def detect_bodies() -> Described:
    """The bodies of the operation, in each of their forms."""
    return {
        "requestBody": {
            "required": True,
            "description": "Images, and options beside them; options of the query win. The body "
            "may be compressed with `Content-Encoding: gzip` or `deflate`.",
            "content": {
                # First, as Swagger UI would fill it with the fields of a form that stood before it.
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/DetectJson"},
                    "example": {"images": [EXAMPLE_IMAGE], "confidence": 0.3},
                },
                "multipart/form-data": {
                    "schema": {"$ref": "#/components/schemas/DetectForm"},
                    "encoding": {"images": {"contentType": "image/*, application/octet-stream"}},
                },
                "image/*": {"schema": IMAGE_FILE},
                "application/octet-stream": {"schema": IMAGE_FILE},
            },
        }
    }


def body_schemas(max_images: int) -> dict[str, Described]:
    """The schemas that the bodies refer to.

    Args:
        max_images: Maximum images in a request.
    """
    json = DetectJson.model_json_schema()
    images: Described = json["properties"]["images"]
    images |= {"minItems": 1, "maxItems": max_images}
    json["properties"]["classes"]["anyOf"] = CLASSES_IN_JSON
    json["examples"] = [{"images": [EXAMPLE_IMAGE], "confidence": 0.3}]
    return {"DetectForm": _form(max_images), "DetectJson": json}


def _form(max_images: int) -> Described:
    options: dict[str, Any] = DetectQuery.model_json_schema()["properties"]
    others = ", ".join(f"`{name}`" for name in IMAGE_FIELDS[1:])
    return {
        "title": "DetectForm",
        "description": "The multipart form of a request: image files, and options beside them. "
        f"The files may also be called {others}, with or without `[]` or a number.",
        "type": "object",
        "properties": {
            "images": {
                "type": "array",
                "items": IMAGE_FILE,
                "minItems": 1,
                "maxItems": max_images,
                "description": "Image files",
            },
            **{name: without_null(schema) for name, schema in options.items()},
        },
        "required": ["images"],
    }
