"""Requests as browsers, curl, HTTP libraries and phones send them, unusual but clear."""

import base64
import gzip
import io
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from support.client import PNG, boxes, metric, problem, serving
from support.pictures import plain

BOUNDARY = "WebKitFormBoundary7MA4YWxkTrZu0gW"
IMAGE = plain()
TEXT = base64.b64encode(IMAGE).decode()
UNUSED_INPUT = 'name="images"; filename=""'


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with serving() as client:
        yield client


def part(disposition: str, content: bytes, *headers: str) -> bytes:
    lines = [f"Content-Disposition: form-data; {disposition}", *headers, "", ""]
    return "\r\n".join(lines).encode() + content


def send_form(client: TestClient, *parts: bytes, preamble: bytes = b"") -> Any:
    opened = b"".join(f"--{BOUNDARY}\r\n".encode() + one + b"\r\n" for one in parts)
    body = preamble + opened + f"--{BOUNDARY}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return client.post("/detect", content=body, headers=headers)


def send_raw(client: TestClient, body: bytes, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = client.build_request("POST", "/detect", content=body, headers=named)
    if "Content_Type" not in headers:
        request.headers.pop("content-type", None)
    return client.send(request)


def count(response: Any) -> int:
    """How many images were answered, each with its one box."""
    assert all(len(found) == 1 for found in boxes(response))
    return len(boxes(response))


FIELDS = ["images", "image", "file", "files", "images[]", "files[]", "images[0]", "file[12]",
          "images.1", "Image", "FILES[]"]  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_images_are_found_under_any_usual_name(client: TestClient, field: str) -> None:
    sent = part(f'name="{field}"; filename="a.png"', IMAGE)
    assert count(send_form(client, sent, sent)) == 2


@pytest.mark.parametrize("field", ["imagesx", "images[", "images[a]", "myfile", "images[0][1]"])
def test_a_file_of_another_name_is_refused_with_the_names(client: TestClient, field: str) -> None:
    sent = send_form(client, part(f'name="{field}"; filename="a.png"', IMAGE))
    detail = problem(sent, 400, "malformed-request")
    assert field in detail
    assert "images, image, files, file" in detail


@pytest.mark.parametrize(
    "sent",
    [
        part('name="images"', IMAGE, "Content-Type: image/png"),
        part('name="images"', IMAGE, "Content-Type: IMAGE/*; charset=binary"),
        part('name="images"', IMAGE, "Content-Type: application/octet-stream"),
        part('name="images"', IMAGE),
        part('name="images"', IMAGE, "Content-Transfer-Encoding: binary"),
        part('name="images"; filename="a.png"', base64.encodebytes(IMAGE),
             "Content-Transfer-Encoding: base64"),
        part('name="images"', f"data:image/png;base64,{TEXT}".encode()),
    ],
)  # fmt: skip
def test_an_image_is_known_without_a_filename(client: TestClient, sent: bytes) -> None:
    assert count(send_form(client, sent)) == 1


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("filename*=UTF-8''na%C3%AFve.png", "naïve.png"),
        ("filename*=utf-8'en'a%20b.png", "a b.png"),
        ("filename*=\"UTF-8''a.png\"", "a.png"),
    ],
)
def test_a_filename_may_be_written_in_the_extended_form_alone(
    client: TestClient, written: str, name: str
) -> None:
    response = send_form(client, part(f'name="images"; {written}', IMAGE))
    assert response.json()["results"][0]["filename"] == name


@pytest.mark.parametrize(
    "unused",
    [
        part(UNUSED_INPUT, b"", "Content-Type: application/octet-stream"),
        part('name="mask"; filename=""', b"", "Content-Type: application/octet-stream"),
        part('name="file"', b""),
    ],
)
def test_a_file_input_that_was_left_empty_is_ignored(client: TestClient, unused: bytes) -> None:
    good = part('name="images"; filename="a.png"', IMAGE)
    assert count(send_form(client, unused, good)) == count(send_form(client, good, unused)) == 1
    assert "no image" in problem(send_form(client, unused), 400, "malformed-request")


@pytest.mark.parametrize(
    "field",
    [
        "submit", "upload", "commit", "action", "utf8", "_token", "_method", "csrf_token", "title",
        "csrfmiddlewaretoken", "authenticity_token", "__RequestVerificationToken", "__VIEWSTATE",
        "MAX_FILE_SIZE", "_charset_", "description", "name", "user_id", "g-recaptcha-response",
        "session", "key", "comment", "tags", "x" * 1000, "",
    ],
)  # fmt: skip
def test_a_form_s_own_fields_are_ignored(client: TestClient, field: str) -> None:
    image, own = part('name="images"; filename="a"', IMAGE), part(f'name="{field}"', b"BM" * 5000)
    assert count(send_form(client, image, own)) == 1


@pytest.mark.parametrize(
    ("field", "meant"),
    [
        ("confidense", "confidence"), ("Confidence", "confidence"), ("conf", "confidence"),
        ("score_threshold", "confidence"), ("iou_thres", "iou"), ("iou-threshold", "iou"),
        ("max_detection", "max_detections"), ("maxDetections", "max_detections"),
        ("max_det", "max_detections"), ("timeout", "timeout_ms"),
        ("classAgnostic", "class_agnostic"), ("min_conf", "confidence"), ("iou_thr", "iou"),
        ("score_thresh", "confidence"), ("nms_thresh", "iou"), ("box_format", "boxes"),
        ("bbox", "boxes"), ("fmt", "format"), ("normalised", "normalized"),
        ("clases", "classes"), ("scoreBy", "score_by"), ("nms_method", "nms"), ("sigmaa", "sigma"),
    ],
)  # fmt: skip
def test_a_misspelt_option_is_told_and_what_was_meant(
    client: TestClient, field: str, meant: str
) -> None:
    form = send_form(
        client, part('name="file"; filename="a"', IMAGE), part(f'name="{field}"', b"1")
    )
    query = client.post(f"/detect?{field}=1", content=IMAGE, headers=PNG)
    json = client.post("/detect", json={"images": [TEXT], field: 1})
    for response in (form, query, json):
        detail = problem(response, 422, "invalid-option")
        assert detail == f"unknown option {field}; did you mean {meant}?"


def test_what_resembles_no_option_is_ignored_in_forms_only(client: TestClient) -> None:
    query = client.post("/detect?color=red", content=IMAGE, headers=PNG)
    json = client.post("/detect", json={"images": [TEXT], "color": "red"})
    for response in (query, json):
        assert "unknown option color" in problem(response, 422, "invalid-option")


@pytest.mark.parametrize("field", ["image", "file", "files", "Images"])
def test_json_with_another_name_for_images_is_told_the_right_one(
    client: TestClient, field: str
) -> None:
    detail = problem(client.post("/detect", json={field: [TEXT]}), 422, "invalid-option")
    assert "did you mean images?" in detail


def test_an_option_that_was_left_empty_is_absent(client: TestClient) -> None:
    empty = {"confidence": "", "nms": " ", "classes": "", "max_detections": ""}
    files = {"images": ("a.png", IMAGE)}
    assert count(client.post("/detect", data=empty, files=files)) == 1
    assert count(client.post("/detect", params=empty, content=IMAGE, headers=PNG)) == 1


@pytest.mark.parametrize("name", ["classes", "classes[]", "classes[0]", "classes[1]"])
def test_a_list_of_classes_may_be_marked_as_a_list(client: TestClient, name: str) -> None:
    for value, expected in (("dog", 1), ("cat", 0)):
        options = {name: [value, "owl"]}
        asked = client.post("/detect", params=options, content=IMAGE, headers=PNG)
        filled = client.post("/detect", data=options, files={"images": ("a.png", IMAGE)})
        assert len(boxes(asked)[0]) == len(boxes(filled)[0]) == expected


@pytest.mark.parametrize("preamble", [b"\r\n", b"This is a MIME message.\r\n", b"--\r\n\r\n"])
def test_text_before_the_first_boundary_is_ignored(client: TestClient, preamble: bytes) -> None:
    image = part('name="images"; filename="a"', IMAGE)
    assert count(send_form(client, image, preamble=preamble)) == 1


def test_a_form_without_a_boundary_says_how_to_mend_it(client: TestClient) -> None:
    headers = {"Content-Type": "multipart/form-data"}
    response = client.post("/detect", content=b"--b\r\n", headers=headers)
    assert "leave that header" in problem(response, 400, "malformed-request")


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 9, 9)).save(buffer, kind)
    return buffer.getvalue()


UNSAID = [{}, {"Content_Type": ""}, {"Content_Type": "application/x-www-form-urlencoded"}]


@pytest.mark.parametrize("headers", UNSAID)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_an_image_without_a_type_is_known_by_its_bytes(
    client: TestClient, headers: dict[str, str], kind: str
) -> None:
    assert count(send_raw(client, encoded(kind), **headers)) == 1


@pytest.mark.parametrize("headers", UNSAID)
def test_json_without_a_type_is_known_too_and_other_bytes_are_415(
    client: TestClient, headers: dict[str, str]
) -> None:
    json = f'\ufeff \n{{"images": ["{TEXT}"]}}'.encode()
    assert count(send_raw(client, json, **headers)) == 1
    for body in (b"image=abc&confidence=0.5", b"hello", b"[]"):
        detail = problem(send_raw(client, body, **headers), 415, "unsupported-type")
        assert "send image/*" in detail
    assert "no image" in problem(send_raw(client, b"", **headers), 400, "malformed-request")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json; charset=utf-8",
        "text/json",
        "application/vnd.api+json",
        "Application/JSON",
    ],
)
def test_json_may_have_a_byte_order_mark_and_any_json_type(
    client: TestClient, content_type: str
) -> None:
    body = f'\ufeff{{"images": ["{TEXT}"]}}'.encode()
    assert count(send_raw(client, body, Content_Type=content_type)) == 1


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_json_of_another_encoding_is_told_so(client: TestClient, encoding: str) -> None:
    body = f'{{"images": ["{TEXT}"]}}'.encode(encoding)
    detail = problem(send_raw(client, body, Content_Type="application/json"), 400,
                     "malformed-request")  # fmt: skip
    assert "UTF-8" in detail


URL_SAFE = base64.urlsafe_b64encode(IMAGE).decode()


@pytest.mark.parametrize(
    "text",
    [
        TEXT.rstrip("="),
        URL_SAFE,
        URL_SAFE.rstrip("="),
        TEXT + "==",
        "data:image/png;base64," + TEXT.rstrip("="),
        "data:;base64," + URL_SAFE,
        "data:image/png;base64," + TEXT.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
        "\r\n ".join(TEXT[at : at + 76] for at in range(0, len(TEXT), 76)),
    ],
)
def test_base64_may_be_of_any_common_make(client: TestClient, text: str) -> None:
    assert any(character in TEXT for character in "+/"), "else this proves nothing"
    assert count(client.post("/detect", json={"images": [text]})) == 1


@pytest.mark.parametrize("text", ["A", TEXT[:-3] + "!", "AA=A", TEXT[:40] + "=" + TEXT[40:]])
def test_text_that_is_no_base64_is_an_invalid_image(client: TestClient, text: str) -> None:
    problem(client.post("/detect", json={"images": [text]}), 422, "invalid-image")


COMPRESSED = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "GZIP": gzip.compress,
    "deflate": zlib.compress,
    "identity": bytes,
}


@pytest.mark.parametrize("coding", COMPRESSED)
def test_a_compressed_body_is_decompressed(client: TestClient, coding: str) -> None:
    body = COMPRESSED[coding](IMAGE + b"\0" * 200_000)
    response = send_raw(client, body, Content_Encoding=coding, Content_Type="image/png")
    assert count(response) == 1
    json = COMPRESSED[coding](f'{{"images": ["{TEXT}"]}}'.encode())
    response = send_raw(client, json, Content_Encoding=coding, Content_Type="application/json")
    assert count(response) == 1


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "compress"])
def test_another_coding_is_415_and_says_which_there_are(client: TestClient, coding: str) -> None:
    response = send_raw(client, IMAGE, Content_Encoding=coding)
    assert coding in problem(response, 415, "unsupported-type")
    assert response.headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (gzip.compress(IMAGE)[:-9], "cut short"),
        (b"", "cut short"),
        (IMAGE, "damaged"),
        (gzip.compress(IMAGE) + b"more", "after its end"),
        (gzip.compress(IMAGE) * 2, "after its end"),
        (gzip.compress(IMAGE)[:-5] + b"\xff" * 5, "damaged"),
    ],
)
def test_damaged_compression_is_400(client: TestClient, body: bytes, complaint: str) -> None:
    response = send_raw(client, body, Content_Encoding="gzip")
    assert complaint in problem(response, 400, "malformed-request")


def test_a_bomb_is_unpacked_no_further_than_the_limit() -> None:
    limit = 1_000_000
    with serving(max_body_bytes=limit, max_buffered_bytes=limit) as client:
        bomb = gzip.compress(b"\0" * 50 * limit)
        assert len(bomb) < limit
        for _ in range(3):
            problem(send_raw(client, bomb, Content_Encoding="gzip"), 413, "too-large")
        # The memory is free again, so that a body as long as the limit finds room.
        whole = gzip.compress(IMAGE + b"\0" * (limit - len(IMAGE)))
        assert count(send_raw(client, whole, Content_Encoding="gzip")) == 1
        assert metric(client, 'yolox_rejections_total{reason="too-large"}') == 3
