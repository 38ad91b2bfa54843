"""Multipart bodies as clients write them, and as nobody should."""

import base64
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.http.bodies.multipart import SLICE_BYTES
from support.client import PNG, boxes, problem, serving
from support.pictures import plain

BOUNDARY = b"----f1c0"
HEAD = b'Content-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with serving() as client:
        yield client


def form(*parts: bytes, boundary: bytes = BOUNDARY) -> bytes:
    """A form of parts, each with its headers."""
    opened = b"".join(b"--" + boundary + b"\r\n" + part + b"\r\n" for part in parts)
    return opened + b"--" + boundary + b"--\r\n"


def send(client: TestClient, body: bytes, boundary: bytes = BOUNDARY) -> Any:
    headers = {"Content-Type": b"multipart/form-data; boundary=" + boundary}
    return client.post("/detect", content=body, headers=headers)


IMAGE = HEAD + plain()


@pytest.mark.parametrize(
    "body",
    [
        form(IMAGE),
        form(IMAGE) + b"an epilogue\r\n--" + BOUNDARY + b"\r\n",
        form(IMAGE).removesuffix(b"\r\n"),
        form(b"CONTENT-DISPOSITION:form-data;name=images;filename=a.png\r\n\r\n" + plain()),
        form(b"Content-Type: image/png\r\n" + IMAGE),
        form(IMAGE.replace(b"form-data;", b"form-data; filename*=UTF-8''b.png;")),
    ],
)
def test_a_form_may_be_written_in_many_ways(client: TestClient, body: bytes) -> None:
    response = send(client, body)
    assert len(boxes(response)[0]) == 1
    assert response.json()["results"][0]["filename"] == "a.png"


def test_an_image_may_hold_what_looks_like_lines_and_dashes(client: TestClient) -> None:
    tail = b"\r\n--" + BOUNDARY[:-1] + b"\r\n--\r\n\r\n" + BOUNDARY
    assert len(boxes(send(client, form(IMAGE + tail, IMAGE)))) == 2


def test_a_boundary_may_be_quoted(client: TestClient) -> None:
    boundary = b"with blank:"
    response = send(client, form(IMAGE, boundary=boundary), b'"' + boundary + b'"')
    assert len(boxes(response)[0]) == 1


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("naïve.png".encode(), "naïve.png"),
        ("naïve.png".encode("latin-1"), "naïve.png"),
        (b'a\\"b.png', 'a"b.png'),
        (b"C:\\photos\\a.png", "a.png"),
        (b"", ""),
    ],
)
def test_a_filename_is_the_client_s(client: TestClient, written: bytes, read: str) -> None:
    response = send(client, form(IMAGE.replace(b"a.png", written)))
    assert response.json()["results"][0]["filename"] == read


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "final boundary"),
        (b"--", "final boundary"),
        (b"--" + BOUNDARY, "final boundary"),
        (b"--" + BOUNDARY + b"\r\n" + IMAGE, "final boundary"),
        (form(IMAGE).replace(b"\r\n--" + BOUNDARY + b"--", b""), "final boundary"),
        (form(b"just text"), "header"),
        (form(b""), "final boundary"),
        (form(b"X: " + b"x" * 5000 + b"\r\n" + IMAGE), "header size"),
        (form(IMAGE).replace(BOUNDARY + b"\r\n", BOUNDARY + b"0\r\n"), "boundary"),
        (form(b"Content-Type: image/png\r\n\r\n" + plain()), "name"),
        (form(b"Content-Disposition\r\n\r\n" + plain()), "header"),
        (form(IMAGE, *[b'Content-Disposition: form-data; name="iou"\r\n\r\n0'] * 33), "fields"),
        (form(IMAGE, b'Content-Disposition: form-data; name="iou"\r\n\r\n' + b"0" * 5000), "iou"),
        (form(b'Content-Disposition: form-data; name="images"\r\n\r\na.png'), "filename"),
        (form(HEAD.replace(b"images", b"photo") + plain()), "images, image, files, file"),
        (form(b"Content-Transfer-Encoding: quoted-printable\r\n" + IMAGE), "quoted-printable"),
        (b"x" * 5000 + b"\r\n" + form(IMAGE), "boundary"),
    ],
)
def test_a_malformed_form_is_400_and_says_why(
    client: TestClient, body: bytes, complaint: str
) -> None:
    assert complaint in problem(send(client, body), 400, "malformed-request")


def test_a_form_cut_anywhere_is_400(client: TestClient) -> None:
    whole = form(b'Content-Disposition: form-data; name="iou"\r\n\r\n0.5', IMAGE)
    # Only what follows the final boundary may be missing.
    ends = itertools.chain(range(0, 200, 7), range(len(whole) - 12, len(whole) - 2))
    for end in ends:
        problem(send(client, whole[:end]), 400, "malformed-request")
    assert len(boxes(send(client, whole[:-2]))[0]) == 1


def test_a_form_of_very_many_parts_is_given_up_early(client: TestClient) -> None:
    problem(send(client, form(*[HEAD] * 1000)), 413, "too-large")


def test_a_form_longer_than_a_slice_is_read_whole(client: TestClient) -> None:
    for at in range(3):
        image = IMAGE + b"\0" * (SLICE_BYTES - len(IMAGE) - at)
        assert len(boxes(send(client, form(image, image, image)))) == 3


def test_an_empty_file_is_an_empty_image(client: TestClient) -> None:
    assert "empty" in problem(send(client, form(HEAD)), 400, "malformed-request")


def test_a_type_that_only_begins_like_an_accepted_one_is_415(client: TestClient) -> None:
    response = client.post("/detect", content=b"x", headers={"Content-Type": "application/jsonp"})
    problem(response, 415, "unsupported-type")


def test_escapes_in_json_are_few(client: TestClient) -> None:
    image = base64.b64encode(plain()).decode()
    for written in (image, image.replace("/", "\\/"), image.replace("=", "\\u003d")):
        body = f'{{"images": ["{written}"]}}'
        response = client.post(
            "/detect", content=body, headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 200
    body = '{"images": ["' + "\\u0041" * 2000 + '"]}'
    response = client.post("/detect", content=body, headers={"Content-Type": "application/json"})
    assert "escapes" in problem(response, 413, "too-large")


def test_a_class_may_be_named_very_often(client: TestClient) -> None:
    found = client.post("/detect", content=plain(), headers=PNG).json()["results"][0]["detections"]
    name, number = found[0]["class_name"], found[0]["class_id"]
    often = ",".join([name, str(number)] * 5000)
    response = client.post(f"/detect?classes={often}", content=plain(), headers=PNG)
    assert response.json()["results"][0]["detections"] == [
        box for box in found if box["class_name"] == name
    ]
