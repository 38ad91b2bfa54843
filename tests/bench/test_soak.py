"""The soak benchmark: what it sends, and that a wrong answer ends it."""

import random

import pytest

from support.scripts import benchmark
from support.servers import Server

soak = benchmark("soak")


def test_it_sends_all_forms_and_awaits_each_answer() -> None:
    running = Server()
    try:
        url = str(running.client.base_url.join("/detect"))
        statuses = soak.send(url, 300, seed=1)
        nowhere = str(running.client.base_url.join("/nowhere"))
        with pytest.raises(SystemExit, match="404 instead of"):
            soak.send(nowhere, 6, seed=1)
    finally:
        running.close()
    assert 280 <= statuses.total() <= 300
    assert statuses[200] > 250
    assert {200, 422} <= set(statuses) <= {200, 415, 422}


def test_requests_are_of_every_form() -> None:
    rng = random.Random(3)  # noqa: S311 - no secret
    requests = [soak.random_request(rng) for _ in range(300)]
    types = {request.content_type.partition(";")[0] for request in requests}
    assert types == {"image/jpeg", "multipart/form-data", "application/json", "text/plain"}
    assert {request.query for request in requests} == {"", "confidence=0.01", "confidence=7"}
