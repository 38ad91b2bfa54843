"""A server that ends behind a real nginx and a real haproxy: no request fails."""

import time
from pathlib import Path

import pytest

from benchmarks.qa.rig.balancers import haproxy, nginx, up
from benchmarks.qa.rig.neighbours import Heard, asking
from benchmarks.qa.rig.programs import find_program
from benchmarks.qa.rig.service import fleet
from support.programs import needed

pytestmark = pytest.mark.heavy

# The default of 2 s takes a server out after 6 s; `make qa` tries it, and rolling restarts.
OFTEN = "inter 200ms"


def answers_come(*all_heard: Heard) -> None:
    """Wait for ten more answers to each group of clients."""
    wanted = [heard.asked + 10 for heard in all_heard]
    end = time.monotonic() + 60
    while any(heard.asked < count for heard, count in zip(all_heard, wanted, strict=True)):
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("flags", [(), ("--workers", "2")], ids=["one process", "two workers"])
def test_a_server_that_ends_under_load_fails_no_request(
    tmp_path: Path, flags: tuple[str, ...]
) -> None:
    for program in ("nginx", "haproxy"):
        needed(find_program, program)
    with fleet(tmp_path, 3, *flags) as services:
        with (
            up(nginx(tmp_path, services)) as first,
            up(haproxy(tmp_path, services, OFTEN)) as second,
            asking(first.port, clients=3, pause_s=0.05) as by_nginx,
            asking(second.port, clients=3, pause_s=0.05) as by_haproxy,
        ):
            answers_come(by_nginx, by_haproxy)
            assert services[1].terminate() == 0
            answers_come(by_nginx, by_haproxy)
        assert [service.errors() for service in services] == [[], [], []]
    for heard in (by_nginx, by_haproxy):
        assert (heard.wrong, heard.lost) == ([], [])
