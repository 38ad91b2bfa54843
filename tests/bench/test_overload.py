"""The overload benchmark: what its sender sends, and what it makes of the answers."""

import pytest

from support.project import ROOT
from support.scripts import benchmark
from support.servers import Server

overload = benchmark("overload")

HEAD = "offset,response-time,status-code"
PHOTO = ROOT / "examples" / "parcel.jpg"
TABLE = f"""{HEAD}
0.1000,0.5000,200
4.0000,2.5000,200
5.2000,0.0100,503
6.0000,3.0000,200
9.0000,4.0000,200
"""


def test_only_answers_that_come_in_the_second_half_count() -> None:
    answers = overload.read_answers(TABLE, 10, 0.5)
    assert answers.statuses == {200: 2, 503: 1}
    assert answers.latencies_s == [2.5, 3.0]
    assert answers.useful_per_s == pytest.approx(0.4)


def test_rounds_count_together() -> None:
    answers = overload.read_answers(TABLE, 10, 0.5)
    both = overload.together([answers, overload.read_answers(TABLE, 10, 0.25)])
    assert both.statuses == {200: 4, 503: 2}
    assert both.latencies_s == [2.5, 3.0] * 2
    assert both.useful_per_s == pytest.approx(0.4)
    assert both.sender_cpus == pytest.approx(0.375)


def test_the_sender_keeps_its_pace_and_tells_every_answer() -> None:
    running = Server()
    try:
        url = str(running.client.base_url.join("/detect"))
        closed = overload.load(url, PHOTO, 2, 2)
        paced = overload.load(url, PHOTO, 2, 4, 0.5)
    finally:
        running.close()
    assert set(closed.statuses) == set(paced.statuses) == {200}
    # Eight a second, of which a busy machine may delay some over the end.
    assert 4 <= paced.statuses[200] <= 9
    assert closed.useful_per_s > 0
