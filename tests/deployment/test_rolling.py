"""Rolling restarts behind a real nginx and a real haproxy: no request fails."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.qa.rig.balancers import haproxy, nginx, up
from benchmarks.qa.rig.neighbours import Heard, asking
from benchmarks.qa.rig.programs import MissingProgramError, Program
from benchmarks.qa.rig.service import fleet, restart_one_after_another

# Shorter than the defaults, which `make qa` tries. Both make a server count as failed, and as well
# again, within a second.
QUICK_NGINX = "fail_timeout=1s"
QUICK_HAPROXY = "inter 200ms"
GRACE = ("--drain-grace-s", "1.5")


@contextlib.contextmanager
def balanced(
    folder: Path, balancer: Callable[..., Program], options: str, *flags: str
) -> Iterator[Heard]:
    """Three servers behind a balancer, with clients that ask meanwhile; restarts them all."""
    with fleet(folder, 3, *GRACE, *flags) as services:
        try:
            front = balancer(folder, [service.port for service in services], options)
        except MissingProgramError as error:
            pytest.skip(str(error))
        with up(front), asking(front.port, clients=4, pause_s=0.02) as heard:
            time.sleep(1)
            assert restart_one_after_another(services, pause_s=1) == [0, 0, 0]
            yield heard
        assert [service.errors() for service in services] == [[], [], []]


@pytest.mark.parametrize(
    ("balancer", "options", "flags"),
    [(nginx, QUICK_NGINX, ()), (haproxy, QUICK_HAPROXY, ("--workers", "2"))],
    ids=["nginx", "haproxy, two workers"],
)
def test_a_rolling_restart_under_load_fails_no_request(
    tmp_path: Path, balancer: Callable[..., Program], options: str, flags: tuple[str, ...]
) -> None:
    with balanced(tmp_path, balancer, options, *flags) as heard:
        asked = heard.asked
    assert (heard.wrong, heard.lost) == ([], [])
    assert asked > 100
