"""The overload benchmark: what it makes of hey's table."""

import pytest

from scripts import benchmark

overload = benchmark("overload")

HEAD = "response-time,DNS+dialup,DNS,Request-write,Response-delay,Response-read,status-code,offset"
TABLE = f"""{HEAD}
0.5000,0,0,0,0,0,200,0.1000
2.5000,0,0,0,0,0,200,4.0000
0.0100,0,0,0,0,0,503,5.2000
3.0000,0,0,0,0,0,200,6.0000
4.0000,0,0,0,0,0,200,9.0000
"""


def test_only_answers_that_come_in_the_second_half_count() -> None:
    answers = overload.read_answers(TABLE, 10, 0.5)
    assert answers.statuses == {200: 2, 503: 1}
    assert answers.latencies_s == [2.5, 3.0]
    assert answers.useful_per_s == pytest.approx(0.4)
