"""Servers and workers that are killed behind the edge, and started again; no request fails."""

import time
from typing import Final

from benchmarks.qa.rig.balancers import up
from benchmarks.qa.rig.edge import edge
from benchmarks.qa.rig.names import telling
from benchmarks.qa.rig.neighbours import asking
from benchmarks.qa.rig.programs import find_recent_nginx
from benchmarks.qa.rig.service import Service, fleet
from benchmarks.qa.trial import Findings, Plan, Row

SERVERS: Final = 2
CLIENTS: Final = 4
# For the edge to find a server again; it leaves one that failed alone for two seconds.
PAUSE_S: Final = 4.0


def kills(plan: Plan) -> Row:
    """Kill a server or one of its workers, again and again.

    Raises:
        MissingProgramError: There is no nginx for the edge.
    """
    find_recent_nginx()
    findings, rng = Findings(), plan.rng("kills")
    with (
        fleet(plan.folder, SERVERS, "--workers", "2") as services,
        telling([each.host for each in services]) as names,
        up(edge(plan.folder, services[0].port, names.port)) as front,
    ):
        time.sleep(PAUSE_S)
        with asking(front.port, CLIENTS, pause_s=0.05) as heard:
            for number in range(plan.amount(long=8, short=2)):
                time.sleep(rng.random())
                _kill(services[number % SERVERS], is_worker=number % (2 * SERVERS) < SERVERS)
                time.sleep(PAUSE_S)
        findings.tried = heard.asked
        return _without_deaths(findings.row("kills", heard, *services))


def _kill(service: Service, *, is_worker: bool) -> None:
    if is_worker:
        service.kill_worker()
        return
    service.kill()
    # Workers finish what they have, and notice only then that nobody needs them.
    service.wait_until_down()
    service.start()
    service.wait_until_up()


def _without_deaths(row: Row) -> Row:
    """The row without the log lines on deaths that the trial caused."""
    failed = tuple(each for each in row.failed if '"worker died' not in each)
    return Row(row.trial, row.tried, failed, row.lost, row.peak_mib, row.heard, row.notes)
