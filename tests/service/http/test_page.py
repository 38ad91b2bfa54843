"""The page at `/` and the documentation: what the server answers, without a browser."""

import re
import subprocess
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.http.openapi.detection import EXAMPLE_IMAGE
from support.client import PNG, metric, problem, serving
from support.pictures import plain
from support.project import ROOT
from yolox_client.drawing.colors import class_color

ASSETS = ROOT / "service" / "http" / "page" / "assets"
FILES = sorted(path.name for path in ASSETS.iterdir())
DOCS_FILES = ["docs.js", "swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"]
ELSEWHERE = re.compile(r"""(?:src|href|url|import|from|fetch)\s*[=(]?\s*["'(](?:https?:)?//""")


@pytest.fixture(name="client", scope="module")
def _client() -> TestClient:
    with serving() as client:
        yield client


@pytest.mark.parametrize("name", FILES)
def test_each_file_of_the_page_is_answered(client: TestClient, name: str) -> None:
    answer = client.get(f"/page/{name}")
    assert answer.content == (ASSETS / name).read_bytes()
    kinds = {"js": "javascript", "css": "text/css", "html": "text/html", "svg": "image/svg+xml"}
    assert kinds[name.rpartition(".")[2]] in answer.headers["content-type"]


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_every_file_that_a_page_names_is_there(client: TestClient, path: str) -> None:
    named = re.findall(r'(?:src|href)="([^"#]+)"', client.get(path).text)
    assert len(named) > 3
    for name in named:
        assert client.get(f"/{name}").status_code == 200, name


@pytest.mark.parametrize(
    "path", ["/", "/docs", *(f"/page/{name}" for name in FILES), "/docs/docs.js"]
)
def test_nothing_is_loaded_from_elsewhere(client: TestClient, path: str) -> None:
    text = client.get(path).text.replace("http://www.w3.org/2000/svg", "")
    assert not ELSEWHERE.search(text)


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/docs", "/docs/swagger-ui-bundle.js"])
def test_a_browser_may_run_the_servers_own_scripts_only(client: TestClient, path: str) -> None:
    policy = client.get(path).headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["script-src"] == "'self'"
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'self'"


@pytest.mark.parametrize(
    "path", ["/", "/page/style.css", "/page/colors.json", "/docs", "/docs/swagger-ui.css"]
)
def test_a_copy_that_is_the_newest_is_not_sent_again(client: TestClient, path: str) -> None:
    first = client.get(path)
    assert first.headers["cache-control"] == "no-cache"
    again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert client.get(path, headers={"If-None-Match": '"older"'}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/docs"])
def test_head_tells_the_length_alone(client: TestClient, path: str) -> None:
    answer = client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) == len(client.get(path).content)


@pytest.mark.parametrize(
    "path",
    ["/page/absent.js", "/page/..%2Fstatic.py", "/page/", "/docs/absent", "/docs/..%2Fstatic.py"],
)
def test_nothing_but_the_files_is_answered(client: TestClient, path: str) -> None:
    problem(client.get(path), 404, "not-found")


def test_files_are_counted_under_one_label_for_all() -> None:
    with serving() as client:
        for name in ("main.js", "style.css", "absent-1.js", "absent-2.js"):
            client.get(f"/page/{name}")
        pattern = 'yolox_requests_total{endpoint="/page/{name}",status="%s"}'
        assert metric(client, pattern % 200) == 2
        assert metric(client, pattern % 404) == 2
        client.get("/")
        assert metric(client, 'yolox_requests_total{endpoint="/",status="200"}') == 1
        client.get("/docs/docs.js")
        assert metric(client, 'yolox_requests_total{endpoint="/docs/{name}",status="200"}') == 1


def test_every_answer_has_an_id_and_its_time(client: TestClient) -> None:
    for path in ("/", "/page/main.js", "/docs", "/docs/swagger-ui.css"):
        assert {"x-request-id", "server-timing"} <= client.get(path).headers.keys()


def test_the_page_can_be_switched_off() -> None:
    with serving(page=False) as client:
        root = client.get("/", follow_redirects=False)
        assert root.headers["location"] == "docs"
        assert client.get("/").url.path == "/docs"
        for name in (*FILES, "colors.json"):
            problem(client.get(f"/page/{name}"), 404, "not-found")
        assert client.get("/docs/parcel.jpg").status_code == 200


def test_the_page_and_the_documentation_themselves_ask_for_no_key() -> None:
    with serving(api_key="secret") as client:
        for path in ("/", "/page/main.js", "/page/colors.json", "/docs", "/docs/docs.js"):
            assert client.get(path).status_code == 200, path
        problem(client.get("/model"), 401, "unauthorized")


def test_the_page_has_the_colours_that_the_server_draws_with(client: TestClient) -> None:
    colors = client.get("/page/colors.json").json()
    red, green, blue = class_color(11)
    assert colors[11] == f"#{red:02x}{green:02x}{blue:02x}"


@pytest.mark.parametrize("name", DOCS_FILES)
def test_the_documentation_brings_its_own_files(client: TestClient, name: str) -> None:
    assert client.get(f"/docs/{name}").status_code == 200


def test_the_description_has_a_body_that_works_and_the_picture_answers(client: TestClient) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/detect"]["post"]
    body = operation["requestBody"]["content"]["application/json"]["example"]
    assert body["images"] == [EXAMPLE_IMAGE]
    assert client.post("/detect", json=body).status_code == 200
    kinds = set(operation["responses"]["200"]["content"])
    assert kinds == {"application/json", "text/plain", "image/png", "image/jpeg"}


def commands() -> list[str]:
    """The commands in the description of the API."""
    with serving() as client:
        text = client.get("/openapi.json").json()["info"]["description"]
    (block,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = block.replace("\\\n", " ").splitlines()
    assert len(lines) == 4
    return lines


def test_the_commands_of_the_description_name_paths_and_a_photo_that_exist(
    client: TestClient,
) -> None:
    assert client.get("/docs/parcel.jpg").headers["content-type"] == "image/jpeg"
    for command in commands():
        assert "http://127.0.0.1:8000/detect" in command
        assert "parcel.jpg" in command


def test_a_wrong_path_is_told_where_images_go_and_all_paths_are_listed(client: TestClient) -> None:
    detail = problem(client.get("/predict"), 404, "not-found")
    for method, path in re.findall(r"(GET|POST) (/\w+)", detail):
        answer = client.request(method, path, content=plain(), headers=PNG)
        assert answer.status_code == 200, path
    assert "POST /detect" in detail
    assert "GET /docs" in detail


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/detect", "POST"),
        ("PUT", "/detect", "POST"),
        ("POST", "/model", "GET"),
        ("DELETE", "/", "GET"),
        ("POST", "/docs", "GET"),
        ("POST", "/page/main.js", "GET"),
    ],
)
def test_a_wrong_method_is_told_the_right_one(
    client: TestClient, method: str, path: str, allowed: str
) -> None:
    answer = client.request(method, path)
    detail = problem(answer, 405, "method-not-allowed")
    assert f"takes {answer.headers['allow']}" in detail
    assert allowed in answer.headers["allow"]
    assert "/docs" in detail


def test_behind_a_prefix_every_address_still_leads_to_the_server() -> None:
    """Addresses are relative to the page, so that a proxy may serve it under any path."""
    for path in (*ASSETS.iterdir(), *(ASSETS.parent / "docs").glob("docs.*")):
        absolute = re.findall(r"""(?:src|href)="/|(?:fetch|send)\([`"']/""", path.read_text())
        assert absolute == [], path.name


def test_the_scripts_have_no_errors_of_syntax(tmp_path: Path) -> None:
    for path in ASSETS.glob("*.js"):
        module = tmp_path / path.with_suffix(".mjs").name
        module.write_text(path.read_text())
        try:
            done = subprocess.run(["node", "--check", module], capture_output=True, check=False)
        except OSError:
            pytest.skip("node, which reads the scripts, is not installed")
        assert done.returncode == 0, done.stderr.decode()


def test_the_page_holds_no_script_or_style_in_line() -> None:
    for path in (ASSETS / "index.html", ASSETS.parent / "docs" / "docs.html"):
        text = path.read_text()
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", text), path.name


def test_every_field_of_the_page_has_a_name_that_is_read_aloud() -> None:
    text = (ASSETS / "index.html").read_text()
    fields = re.findall(r"<(?:input|select)\b[^>]*>", text)
    assert len(fields) >= 8
    for field in fields:
        number = re.search(r'id="([\w-]+)"', field)
        assert number is not None, field
        is_hidden = 'type="file"' in field
        is_wrapped = re.search(
            rf"<label[^>]*>(?:(?!</label>).)*{re.escape(field)}", text, re.DOTALL
        )
        is_named = f'for="{number[1]}"' in text or "aria-label=" in field or is_wrapped
        assert is_hidden or is_named, field


def test_the_answer_of_the_model_has_what_the_page_reads(client: TestClient) -> None:
    model = client.get("/model").json()
    assert {"name", "version", "class_names"} <= model["contract"].keys()
    read = {"confidence", "iou", "sigma", "nms", "score_by", "class_agnostic", "max_detections"}
    assert read <= model["defaults"].keys()
