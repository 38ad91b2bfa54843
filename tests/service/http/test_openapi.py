"""The OpenAPI document: its content, other tools' opinion of it, and how the server keeps it."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import validate

from service.errors import ServiceError
from service.http.bodies.multipart import IMAGE_FIELDS
from service.http.options import DetectQuery
from support.client import PNG, problem, serving
from support.model_files import model_file
from support.pictures import plain
from support.project import ROOT
from support.servers import Server

KEY = "s3cret"
BIN = Path(sys.executable).parent
PUBLISHED = ROOT / "docs" / "openapi.json"
EVERY_PATH = {"404", "405", "431", "500", "501", "505"}
# The connection refuses these before any path is known.
OF_CONNECTION = {"431", "501", "505"}
# Linters of the npm registry, and the rules that they check.
LINTERS = {
    "redocly": ("@redocly/cli@2.77.0", "lint"),
    "spectral": ("@stoplight/spectral-cli@6.16.3", "lint", "--ruleset"),
}

# A registry that cannot be reached is soon given up.
NPM = {
    "npm_config_fetch_retries": "0",
    "npm_config_fetch_timeout": "60000",
    "REDOCLY_TELEMETRY": "off",
}


def document_of(**settings: Any) -> Any:
    with serving(**settings) as client:
        return client.get("/openapi.json").json()


@pytest.fixture(scope="module")
def document() -> Any:
    return document_of()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real server that asks for a key."""
    model = model_file(tmp_path_factory.mktemp("model"))
    server = Server("--model", str(model), environment={"YOLOX_API_KEY": KEY})
    yield server
    server.close()


def operations(document: Any) -> dict[str, Any]:
    return {
        operation["operationId"]: operation
        for operations in document["paths"].values()
        for operation in operations.values()
    }


def resolved(document: Any, item: Any) -> Any:
    """The target of a reference, or the item itself."""
    while "$ref" in item:
        found = document
        for name in item["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        item = found
    return item


def test_the_document_is_valid_openapi(document: Any) -> None:
    validate(document)


# The calls of the Open Inference Protocol, whose errors have a form of their own.
OF_PROTOCOL = {
    *("get_server_metadata", "get_server_liveness", "get_server_readiness"),
    *("get_model_metadata", "get_model_version_metadata"),
    *("get_model_readiness", "get_model_version_readiness"),
    *("infer", "infer_version", "get_repository_index", "load_model", "unload_model"),
}


def test_every_operation_has_an_id_a_tag_and_the_errors_of_every_path(document: Any) -> None:
    found = operations(document)
    others = {"detect", "get_model", "list_models", "get_liveness", "head_liveness",
              "get_readiness", "head_readiness", "get_metrics"}  # fmt: skip
    assert set(found) - OF_PROTOCOL == others
    assert set(found) >= OF_PROTOCOL
    tags = {tag["name"] for tag in document["tags"]}
    for operation in found.values():
        assert set(operation["tags"]) <= tags
        assert set(operation["responses"]) >= EVERY_PATH
    assert document["servers"] == [{"url": "/", "description": "This server"}]
    assert document["info"]["license"]["identifier"] == "Apache-2.0"


def test_every_answer_has_its_headers_and_every_error_is_a_problem(document: Any) -> None:
    named = {
        "401": "WWW-Authenticate",
        "405": "Allow",
        "415": "Accept-Encoding",
        "503": "Retry-After",
    }
    for operation in operations(document).values():
        for status, reference in operation["responses"].items():
            answer = resolved(document, reference)
            expected = {"X-Request-ID", "Server-Timing"} | {named.get(status, "X-Request-ID")}
            if operation["operationId"].endswith("liveness"):
                # A dead server is started again; to ask it later helps nobody.
                expected -= {"Retry-After"}
            assert expected <= set(answer["headers"])
            if status != "200" and not operation["operationId"].startswith("head"):
                (content,) = answer["content"].items()
                if operation["operationId"] in OF_PROTOCOL and status not in OF_CONNECTION:
                    assert content[0] == "application/json"
                    assert content[1]["schema"] == {"$ref": "#/components/schemas/ProtocolError"}
                    continue
                assert content[0] == "application/problem+json"
                assert content[1]["example"]["status"] == int(status)
                assert content[1]["schema"] == {"$ref": "#/components/schemas/Problem"}


def test_the_errors_of_detection_are_all_there(document: Any) -> None:
    known = {str(kind.status) for kind in subclasses(ServiceError)} | {"500"}
    # Nobody reads the answer to a client that left, 409 is about calls that change models, and 403
    # about what browsers ask before a request.
    others = {"403", "409", "499"}
    assert set(operations(document)["detect"]["responses"]) == (known - others) | {"200"}


def subclasses(kind: type[ServiceError]) -> set[type[ServiceError]]:
    below = set(kind.__subclasses__())
    return below.union(*(subclasses(each) for each in below))


def test_the_form_has_every_option_and_names_its_files(document: Any) -> None:
    form = document["components"]["schemas"]["DetectForm"]
    assert set(form["properties"]) == {"images", *DetectQuery.model_fields}
    assert form["required"] == ["images"]
    assert all(f"`{name}`" in form["description"] for name in IMAGE_FIELDS[1:])
    assert set(operations(document)["detect"]["requestBody"]["content"]) == {
        "multipart/form-data", "image/*", "application/octet-stream", "application/json"
    }  # fmt: skip
    assert set(operations(document)["detect"]["responses"]["200"]["content"]) == {
        "application/json", "text/plain", "image/png", "image/jpeg"
    }  # fmt: skip


def test_the_server_s_own_limits_are_in_the_schemas() -> None:
    document = document_of(max_images_per_request=3, max_detections=7, request_timeout_ms=900)
    schemas = document["components"]["schemas"]
    query = {item["name"]: item["schema"] for item in operations(document)["detect"]["parameters"]}
    for form in ("DetectForm", "DetectJson"):
        images = schemas[form]["properties"]["images"]
        assert (images["minItems"], images["maxItems"]) == (1, 3)
    for options in (query, schemas["DetectForm"]["properties"]):
        assert options["max_detections"]["maximum"] == 7
        assert options["timeout_ms"]["maximum"] == 900
        assert not any("anyOf" in option for option in options.values())
    body = {"images": ["AAAA"], "max_detections": 7, "timeout_ms": None}
    jsonschema.validate(body, schemas["DetectJson"])
    for wrong in ({"max_detections": 8}, {"images": []}, {"images": ["A"] * 4}, {"conf": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(body | wrong, schemas["DetectJson"])


def test_a_key_is_required_where_one_is_set_and_else_optional(
    document: Any, tmp_path: Path
) -> None:
    file = tmp_path / "keys"
    file.write_text(KEY)
    by_setting, by_file = document_of(api_key=KEY), document_of(api_key_file=file)
    for described, anonymous in ((document, [{}]), (by_setting, []), (by_file, [])):
        for name in ("detect", "get_model"):
            schemes = operations(described)[name]["security"]
            assert schemes == [*anonymous, {"APIKeyHeader": []}, {"HTTPBearer": []}]
        assert operations(described)["get_metrics"]["security"] == []


def test_a_form_s_examples_are_the_server_s_defaults() -> None:
    described = document_of(iou=0.3, nms="hard", request_timeout_ms=5000)
    form = described["components"]["schemas"]["DetectForm"]["properties"]
    examples = {name: form[name]["examples"][0] for name in DetectQuery.model_fields}
    for name, example in examples.items():
        jsonschema.validate(example, form[name])
    assert (examples["iou"], examples["nms"], examples["timeout_ms"]) == (0.3, "hard", 5000)
    assert examples["classes"] == []


def test_examples_are_of_their_schemas_and_the_request_s_is_answered(document: Any) -> None:
    schemas = document["components"]["schemas"]
    for name in ("DetectJson", "DetectResponse"):
        (example,) = schemas[name]["examples"]
        root = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        jsonschema.validate(example, root)
    with serving() as client:
        (example,) = schemas["DetectJson"]["examples"]
        assert client.post("/detect", json=example).status_code == 200


def test_an_option_over_its_limit_in_the_body_is_told_though_the_query_s_is_good() -> None:
    with serving(max_detections=7) as client:
        for option in ("max_detections", "timeout_ms"):
            data, files = {option: 99_999}, {"images": ("a", plain())}
            response = client.post(f"/detect?{option}=5", data=data, files=files)
            assert f"{option} may be at most" in problem(response, 422, "invalid-option")
        assert client.post("/detect?max_detections=7", content=plain(), headers=PNG).is_success


def test_the_published_document_is_that_of_a_server_without_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("YOLOX_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("YOLOX_DEVICE", "cpu")
    importlib.import_module("service.http.openapi.__main__").main()
    printed = capsys.readouterr().out
    assert printed == PUBLISHED.read_text(encoding="utf-8"), "`make openapi` writes it anew"


@pytest.mark.heavy
def test_schemathesis_finds_no_request_that_is_not_answered_as_the_document_says(
    running: Server, tmp_path: Path
) -> None:
    environment = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "SCHEMATHESIS_HOOKS": "support.schemathesis_hooks",
    }
    command = [BIN / "schemathesis", "run", f"{running.url}/openapi.json", "--checks", "all"]
    limits = ["--phases", "examples,coverage,fuzzing", "--max-examples", "5", "--seed", "1"]
    done = subprocess.run(
        [*command, *limits, "--header", f"X-API-Key: {KEY}", "--no-color"],
        cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True, check=False,
        timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20 selected" in done.stdout


USE_OF_CLIENT = """
import sys
from pathlib import Path
from generated import AuthenticatedClient
from generated.api.detection import detect
from generated.api.server import get_model
from generated.models import DetectForm, DetectJson
from generated.types import File

url, key, photo = sys.argv[1:]
client = AuthenticatedClient(url, key)
names = get_model.sync(client=client).contract.class_names
form = DetectForm(images=[File(Path(photo).open("rb"), "a.png", "image/png")] * 2, confidence=0.0)
answer = detect.sync(client=client, body=form, max_detections=5)
assert [result.filename for result in answer.results] == ["a.png", "a.png"], answer
found = answer.results[0].detections
assert 0 < len(found) <= 5 and {box.class_name for box in found} <= set(names), found
refused = detect.sync(client=client, body=DetectJson(images=["none"]))
assert refused.status == 415, refused
"""


@pytest.mark.heavy
def test_a_generated_client_detects(running: Server, tmp_path: Path) -> None:
    document = tmp_path / "openapi.json"
    document.write_bytes(running.client.get("/openapi.json").content)
    (tmp_path / "config.yml").write_text("post_hooks: []\n")
    (tmp_path / "photo.png").write_bytes(plain())
    generate = [BIN / "openapi-python-client", "generate", "--path", document, "--meta", "none"]
    places = ["--output-path", tmp_path / "generated", "--config", tmp_path / "config.yml"]
    run([*generate, *places], tmp_path)
    use = [sys.executable, "-c", USE_OF_CLIENT, running.url, KEY, tmp_path / "photo.png"]
    run(use, tmp_path)


def run(command: list[Any], folder: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.heavy
@pytest.mark.parametrize("linter", LINTERS)
def test_linters_find_no_error(linter: str, tmp_path: Path) -> None:
    npx = shutil.which("npx")
    if npx is None:
        pytest.skip("npx, which runs the linters of OpenAPI documents, is not here")
    package, *arguments = LINTERS[linter]
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps({"extends": ["spectral:oas"]}))
    command = [npx, "--yes", package, *arguments, *([rules] if linter == "spectral" else [])]
    done = subprocess.run(
        [*command, PUBLISHED], cwd=tmp_path, capture_output=True, text=True, check=False,
        timeout=240, env=os.environ | NPM,
    )  # fmt: skip
    if "npm err" in done.stderr.lower():
        pytest.skip(f"npx cannot fetch {package} here")
    assert done.returncode == 0, done.stdout + done.stderr
