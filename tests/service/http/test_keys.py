"""Several API keys, and a file of them that is read again while the server runs."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.errors import StartupError, UnauthorizedError
from service.http.access.keys import ApiKeys
from service.http.app import Application
from support.client import serving


def lets_through(keys: ApiKeys, offered: str) -> bool:
    try:
        keys.check([(b"x-api-key", offered.encode())])
    except UnauthorizedError:
        return False
    return True


def status(client: TestClient, key: str) -> int:
    return client.get("/model", headers={"X-API-Key": key}).status_code


@pytest.mark.parametrize("text", ["a-key\nb-key\n", "a-key,b-key", "\ufeffa-key\r\n\r\n b-key, \n"])
def test_every_key_of_a_file_is_valid_and_nothing_else(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys"
    file.write_bytes(text.encode())
    keys = ApiKeys(("given",), file)
    assert [lets_through(keys, key) for key in ("a-key", "b-key", "given")] == [True] * 3
    for wrong in ("", "a-ke", "a-key,b-key", "a-key\nb-key", "c-key", "\u00e9"):
        assert not lets_through(keys, wrong)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"", "holds no API key"),
        (b" \n,\n", "holds no API key"),
        (b"two words\n", "no white space"),
        (b"bell\a", "no control characters"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_file_without_usable_keys_is_told_and_never_opens_the_server(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StartupError, match=reason) as told:
        ApiKeys((), file)
    assert str(file) in str(told.value)


def test_several_keys_of_the_setting_are_valid() -> None:
    with serving(api_key="first,second") as client:
        assert [status(client, key) for key in ("first", "second", "first,second", "")] == [
            200,
            200,
            401,
            401,
        ]


def test_keys_change_while_the_server_runs(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("old")
    with serving(api_key_file=file) as client:
        app = client.app
        assert isinstance(app, Application)
        assert client.portal is not None
        file.write_text("old\nnew")
        assert [status(client, key) for key in ("old", "new")] == [200, 401]
        client.portal.call(app.reload)
        assert [status(client, key) for key in ("old", "new")] == [200, 200]
        file.write_text("new")
        client.portal.call(app.reload)
        assert [status(client, key) for key in ("old", "new")] == [401, 200]
        file.unlink()
        client.portal.call(app.reload)
        assert [status(client, key) for key in ("old", "new")] == [401, 200]
