"""Rolling restarts of three servers behind nginx and haproxy; no request fails."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.qa.rig.balancers import haproxy, nginx, up
from benchmarks.qa.rig.edge import edge
from benchmarks.qa.rig.names import telling
from benchmarks.qa.rig.neighbours import asking
from benchmarks.qa.rig.programs import Program, find_program, find_recent_nginx
from benchmarks.qa.rig.service import Service, fleet, restart_one_after_another
from benchmarks.qa.trial import Findings, Plan, Row, together

SERVERS: Final = 3
CLIENTS: Final = 4


@dataclass(frozen=True)
class Setup:
    """A balancer, and how servers behind it are restarted, as the runbook says.

    Attributes:
        balancer: `nginx`, `haproxy` or `edge`.
        pause_s: Time between two servers.
        flags: The flags of each server.
        options: Parameters of each server in the balancer's configuration, beside its defaults.
    """

    balancer: str
    pause_s: float
    flags: tuple[str, ...] = ()
    options: str = ""


LONG: Final = (
    Setup("nginx", pause_s=10),
    Setup("haproxy", pause_s=4, flags=("--drain-grace-s", "8", "--workers", "2")),
    Setup("edge", pause_s=3, flags=("--workers", "2")),
)
SHORT: Final = (
    Setup("nginx", pause_s=1, flags=("--drain-grace-s", "1"), options="fail_timeout=1s"),
)


def rolling(plan: Plan) -> Row:
    """Restart all servers, one after another.

    Raises:
        MissingProgramError: There is no nginx, or no haproxy.
    """
    setups = SHORT if plan.is_short else LONG
    for name in {setup.balancer for setup in setups}:
        _ = find_recent_nginx() if name == "edge" else find_program(name)
    return together("rolling", [_restart_all(plan, setup) for setup in setups])


def _restart_all(plan: Plan, setup: Setup) -> Row:
    findings, folder = Findings(), plan.folder / setup.balancer
    folder.mkdir()
    with (
        fleet(folder, SERVERS, *setup.flags) as services,
        _front(folder, setup, services) as front,
    ):
        with asking(front.port, CLIENTS, pause_s=0.05) as heard:
            time.sleep(1)
            codes = restart_one_after_another(services, setup.pause_s)
            time.sleep(1)
        findings.failed += [f"exit code {code}" for code in codes if code != 0]
        findings.tried = heard.asked
        return findings.row(setup.balancer, heard, *services)


@contextmanager
def _front(folder: Path, setup: Setup, services: Sequence[Service]) -> Iterator[Program]:
    with telling([each.host for each in services]) as names:
        if setup.balancer == "edge":
            balancer = edge(folder, services[0].port, names.port)
        else:
            make = {"nginx": nginx, "haproxy": haproxy}[setup.balancer]
            balancer = make(folder, services, setup.options)
        with up(balancer) as front:
            # The edge asks for the names once it runs.
            time.sleep(1)
            yield front
