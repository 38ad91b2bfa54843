"""Fixtures that every test may use."""

from pathlib import Path

import pytest

from service.observe.logs import configure_logs

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _logs() -> None:
    """The form that a server writes."""
    configure_logs("json", "warning")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photos, weights and golden outputs; it is not part of the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real test data (shared/data beside the checkout) is not here")
    return SHARED_DATA
