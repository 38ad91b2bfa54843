"""Binding ports and unix sockets: what is in the way is told, and nothing is left behind."""

import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.errors import StartupError
from service.process.listening.ports import Ports, bind_host, bind_path, bind_ports
from service.settings import Settings

Resolve = Callable[[list[tuple[Any, ...]]], None]


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """Let every host name stand for these (family, address)."""

    def use(found: list[tuple[Any, ...]]) -> None:
        def getaddrinfo(_: Any, port: int, **__: Any) -> list[tuple[Any, ...]]:
            return [
                (family, socket.SOCK_STREAM, 6, "", (address, port, *((0, 0) * (family == V6))))
                for family, address in found
            ]

        monkeypatch.setattr("service.process.listening.ports.socket.getaddrinfo", getaddrinfo)

    return use


V4, V6 = socket.AF_INET, socket.AF_INET6


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def test_a_port_in_use_is_told_with_what_to_do(taken: int) -> None:
    message = f"cannot listen on http://127.0.0.1:{taken}: Address already in use; stop the server"
    with pytest.raises(StartupError, match=message):
        bind_host("127.0.0.1", taken)


def test_a_name_that_nobody_knows_is_told() -> None:
    with pytest.raises(StartupError, match=r"cannot listen on http://no\.invalid:0: .*--host"):
        bind_host("no.invalid", 0)


def test_an_address_of_another_machine_is_told() -> None:
    with pytest.raises(StartupError, match="this machine has no such address"):
        bind_host("198.51.100.1", 0)


def test_an_address_that_this_machine_lacks_is_left_out_if_the_name_has_others(
    resolve: Resolve,
) -> None:
    resolve([(V4, "198.51.100.1"), (V6, "2001:db8::1"), (V4, "127.0.0.1")])
    (listener,) = bind_host("name", 0)
    with listener:
        assert listener.getsockname()[0] == "127.0.0.1"
    resolve([(V4, "198.51.100.1"), (V4, "198.51.100.2")])
    with pytest.raises(StartupError, match="no such address"):
        bind_host("name", 0)


def test_every_address_of_a_name_is_bound_to_one_port(resolve: Resolve) -> None:
    resolve([(V4, "127.0.0.1"), (V4, "127.0.0.1"), (V4, "127.0.0.2")])
    with Ports(bind_host("name", 0)) as ports:
        first, second = (listener.getsockname() for listener in ports.main)
        assert (first[0], second[0]) == ("127.0.0.1", "127.0.0.2")
        assert first[1] == second[1] > 0
        ports.listen()
        for name in (first, second):
            with socket.socket() as client:
                client.connect(name)


def test_a_port_that_is_taken_at_any_address_of_a_name_is_told_and_none_is_kept(
    resolve: Resolve, taken: int
) -> None:
    resolve([(V4, "127.0.0.2"), (V4, "127.0.0.1")])
    with pytest.raises(StartupError, match="already in use"):
        bind_host("name", taken)
    with socket.create_server(("127.0.0.2", taken)):
        """It is free again."""


def test_clients_are_refused_until_it_listens() -> None:
    with bind_ports(Settings(port=0)) as ports:
        (listener,) = ports.main
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(listener.getsockname(), timeout=5)
        ports.listen()
        socket.create_connection(listener.getsockname(), timeout=5).close()


def test_of_two_servers_that_start_together_the_later_is_told() -> None:
    with bind_ports(Settings(port=0)) as first:
        port = first.main[0].getsockname()[1]
        with bind_ports(Settings(port=port)) as second:
            first.listen()
            with pytest.raises(StartupError, match=f"127.0.0.1:{port}: Address already in use"):
                second.listen()


def test_a_metrics_port_in_use_leaves_nothing_bound(taken: int, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with pytest.raises(StartupError, match=f":{taken}: Address already in use"):
        bind_ports(Settings(unix_socket=path, metrics_port=taken))
    assert not path.exists()


@pytest.mark.parametrize("mode", ["660", "600", "666"])
def test_a_unix_socket_has_its_mode_and_goes_with_the_server(tmp_path: Path, mode: str) -> None:
    path, before = tmp_path / "s", os.umask(0o22)
    os.umask(before)
    with bind_ports(Settings(unix_socket=path, unix_socket_mode=mode)) as ports:
        assert ports.shown == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == int(mode, 8)
        assert os.umask(before) == before
    assert list(tmp_path.iterdir()) == []


def test_a_socket_that_a_dead_server_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    bind_path(path, 0o600).close()
    assert path.exists()
    with bind_path(path, 0o600), closing(socket.socket(socket.AF_UNIX)) as client:
        client.connect(str(path))


def test_a_socket_on_which_somebody_listens_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with bind_path(path, 0o600):
        with pytest.raises(StartupError, match=f"unix:{path}: Address already in use"):
            bind_path(path, 0o600)
        with closing(socket.socket(socket.AF_UNIX)) as client:
            client.connect(str(path))


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(StartupError, match="a file that is no socket is there"):
        bind_path(path, 0o600)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("name", ["missing/s", "s" * 200])
def test_a_path_that_cannot_be_a_socket_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(StartupError, match=f"cannot listen on unix:{tmp_path}"):
        bind_path(tmp_path / name, 0o600)


def test_the_socket_of_a_successor_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = bind_ports(Settings(unix_socket=path))
    first.stop_listening()
    with bind_ports(Settings(unix_socket=path)):
        first.close()
        assert path.exists()
