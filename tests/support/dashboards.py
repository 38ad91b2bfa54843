"""Grafana's dashboards: their panels, and the queries that these send to Prometheus."""

import json
from pathlib import Path
from typing import Any

from support.project import ROOT

DOCKER = ROOT / "docker"
DASHBOARDS = sorted((DOCKER / "grafana" / "dashboards").glob("*.json"))
# A panel without data is a fault, unless its description says when it may be empty.
MAY_BE_EMPTY = "May be empty: "


def panels(dashboard: Path) -> list[dict[str, Any]]:
    """The panels of a dashboard, rows included."""
    loaded: list[dict[str, Any]] = json.loads(dashboard.read_text())["panels"]
    return loaded


def shown(dashboard: Path) -> list[dict[str, Any]]:
    """The panels of a dashboard, without the rows."""
    return [panel for panel in panels(dashboard) if panel["type"] != "row"]


def queries(panel: dict[str, Any]) -> list[str]:
    """The queries of a panel, with the initial values of Grafana's variables."""
    filled = {"$__rate_interval": "1m", "$endpoint": "/detect"}
    asked = []
    for target in panel["targets"]:
        query = target["expr"]
        for variable, value in filled.items():
            query = query.replace(variable, value)
        asked.append(query)
    return asked
