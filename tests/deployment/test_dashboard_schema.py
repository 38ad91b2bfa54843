"""The dashboards as Grafana's own types read them: a key that they lose is one Grafana ignores."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.dashboards import DASHBOARDS

# Left to a data source by the types, or newer than they are (Grafana 10.1).
BEYOND = {"step", "titleFormat", "textFormat", "options.tooltip.mode"}


def lost(given: Any, read: Any, path: str = "") -> Iterator[str]:
    """The paths of what is missing, or different, after Grafana's types have read it."""
    if isinstance(given, dict) and isinstance(read, dict):
        for key, value in given.items():
            where = f"{path}.{key}"
            yield from lost(value, read[key], where) if key in read else [where]
    elif isinstance(given, list) and isinstance(read, list) and len(given) == len(read):
        for index, (value, again) in enumerate(zip(given, read, strict=True)):
            yield from lost(value, again, f"{path}[{index}]")
    elif given != read:
        yield path


def ignored(dashboard: dict[str, Any]) -> list[str]:
    """The paths in a dashboard that Grafana's types do not know."""
    reason = "it has the types"
    models = pytest.importorskip("grafana_foundation_sdk.models.dashboard", reason=reason)
    encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder", reason=reason)
    plugins = pytest.importorskip("grafana_foundation_sdk.cog.plugins", reason=reason)
    plugins.register_default_plugins()
    read = models.Dashboard.from_json(copy.deepcopy(dashboard))
    paths = lost(dashboard, json.loads(encoder.JSONEncoder().encode(read)))
    return [path for path in paths if not any(path.endswith(f".{name}") for name in BEYOND)]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_grafana_knows_every_key_of_a_dashboard(path: Path) -> None:
    assert ignored(json.loads(path.read_text())) == []


@pytest.mark.parametrize(
    ("kind", "part", "key"),
    [
        ("timeseries", (), "fieldConfig"),
        ("timeseries", ("fieldConfig", "defaults"), "unit"),
        ("timeseries", ("fieldConfig", "defaults", "custom"), "lineWidth"),
        ("timeseries", ("options", "legend"), "calcs"),
        ("timeseries", ("targets", 0), "legendFormat"),
        ("stat", ("options",), "textMode"),
        ("heatmap", ("options", "color"), "scheme"),
    ],
)
def test_a_misspelt_key_is_noticed(kind: str, part: tuple[Any, ...], key: str) -> None:
    dashboard = json.loads(DASHBOARDS[0].read_text())
    panel = next(panel for panel in dashboard["panels"] if panel["type"] == kind)
    for step in part:
        panel = panel[step]
    panel[f"{key}s"] = panel.pop(key)
    assert ignored(dashboard)
