"""Grafana's dashboards, as far as Prometheus is asked."""

import json
from pathlib import Path
from typing import Any

from support.project import ROOT

DOCKER = ROOT / "docker"
DASHBOARDS = sorted((DOCKER / "grafana" / "dashboards").glob("*.json"))
# A panel without data is a fault, unless its description says when there is none.
MAY_BE_EMPTY = "May be empty: "


def panels(dashboard: Path) -> list[dict[str, Any]]:
    """Its panels, rows among them."""
    loaded: list[dict[str, Any]] = json.loads(dashboard.read_text())["panels"]
    return loaded


def shown(dashboard: Path) -> list[dict[str, Any]]:
    """Its panels that show something."""
    return [panel for panel in panels(dashboard) if panel["type"] != "row"]


def queries(panel: dict[str, Any]) -> list[str]:
    """Its queries, with Grafana's variables filled in as at first sight."""
    filled = {"$__rate_interval": "1m", "$endpoint": "/detect"}
    asked = []
    for target in panel["targets"]:
        query = target["expr"]
        for variable, value in filled.items():
            query = query.replace(variable, value)
        asked.append(query)
    return asked
