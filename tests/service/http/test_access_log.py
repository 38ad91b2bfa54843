"""The access log: what a line says, and that no client writes in it."""

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from service.http.access.clients import MAX_HOPS, Clients
from service.models.served import model_label
from service.observe.logs import configure_logs
from support.client import PNG, as_raw, serving
from support.engines import FakeEngine
from support.pictures import plain

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    """Every line of the access log so far."""
    configure_logs("json", "info")
    logging.getLogger().setLevel("WARNING")
    # The module's own may have been made for another level.
    monkeypatch.setattr("service.http.exchange.log", structlog.get_logger("service.access"))

    def read() -> list[dict[str, Any]]:
        written = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        return [line for line in written if line["logger"] == "service.access"]

    yield read
    configure_logs("json", "warning")


def test_a_line_says_who_asked_what_came_and_what_was_found(lines: Lines) -> None:
    with serving(FakeEngine()) as client:
        picture = plain(255)
        files = [("images", ("a.png", picture)), ("images", ("b.png", b"no image"))]
        found = [
            len(result["detections"])
            for result in client.post("/detect", files=files).json()["results"]
        ]
        as_raw(client, picture)
        drawn = client.post("/detect", content=picture, headers=PNG | {"Accept": "image/png"})
        assert drawn.headers["content-type"] == "image/png"
        model = client.get("/model").json()["contract"]
        form, raw, picture_line, page = lines()
    label = f"{model['name']}@{model['version']}"
    assert sum(found) > 0
    for line, images in ((form, 2), (raw, 1), (picture_line, 1)):
        told = {name: line[name] for name in ("client", "images", "detections", "model", "status")}
        assert told == {
            "client": "testclient",
            "images": images,
            "detections": sum(found),
            "model": label,
            "status": 200,
        }
        assert "problem" not in line
    assert form["bytes"] > 2 * 8
    assert raw["bytes"] == len(picture)
    assert page["bytes"] == 0
    assert not {"images", "detections", "model"} & page.keys()


def test_a_line_of_a_refusal_says_which_problem(lines: Lines) -> None:
    with serving(api_key="secret") as client:
        as_raw(client, plain())
        client.get("/nowhere%0a%1b[31m")
        key = {"X-API-Key": "secret"}
        client.post("/detect", content=b"not an image", headers=PNG | key)
        unauthorized, missing, invalid = lines()
    assert (unauthorized["problem"], unauthorized["bytes"]) == ("unauthorized", 0)
    assert (missing["problem"], missing["endpoint"]) == ("not-found", "unmatched")
    assert (invalid["problem"], invalid["images"], invalid["bytes"]) == ("unsupported-type", 1, 12)


def test_a_model_s_name_is_bounded_and_writes_no_line_of_its_own() -> None:
    assert model_label("nano", "1.2") == "nano@1.2"
    assert model_label("a\nb\x1b[31m", "\u2028") == "a?b?[31m@?"
    assert len(model_label("a" * 1000, "b" * 1000)) == 100


def scope(peer: str | None, *forwarded: str) -> dict[str, Any]:
    headers = [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded]
    return {"client": None if peer is None else (peer, 1234), "headers": headers}


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("::ffff:10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("fd00::1", ["[2001:db8::1]:443"], "2001:db8::1"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6", "198.51.100.1,10.0.0.2"], "198.51.100.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["nobody\x1b[31m, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["fe80::1%\x1b[31m"], "fe80::1"),
        ("10.0.0.1", ['"injected": 1'], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        (None, ["198.51.100.1"], "198.51.100.1"),
        (None, [], "unix"),
    ],
)
def test_the_last_address_that_no_trusted_proxy_vouches_for_is_the_client(
    peer: str | None, forwarded: list[str], client: str
) -> None:
    clients = Clients("10.0.0.0/8, fd00::/8,unix")
    assert clients.address(scope(peer, *forwarded)) == client


def test_without_trusted_proxies_the_peer_is_the_client() -> None:
    assert Clients().address(scope("10.0.0.1", "198.51.100.1")) == "10.0.0.1"
    assert Clients().address(scope(None, "198.51.100.1")) == "unix"
    assert Clients("10.0.0.0/8").address(scope(None, "198.51.100.1")) == "unix"


def test_only_so_many_hops_are_looked_at_however_many_a_client_names() -> None:
    named = ", ".join(f"10.0.{index // 256}.{index % 256}" for index in range(4000))
    told = Clients("10.0.0.0/8").address(scope("10.0.0.1", named))
    index = 4000 - MAX_HOPS
    assert told == f"10.0.{index // 256}.{index % 256}"
