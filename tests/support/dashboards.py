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
    """The panels of a dashboard that show series: no rows, and no list of Grafana's own alerts."""
    return [panel for panel in panels(dashboard) if panel["type"] not in {"row", "alertlist"}]


# The initial values of Grafana's variables, as it puts them into a query.
VARIABLES = {
    "$__rate_interval": "1m",
    "$endpoint": "/detect",
    "$job": "yolox",
    "$instance": ".*",
    "$model": ".*",
    "$version": ".*",
}


def queries(panel: dict[str, Any], variables: dict[str, str] = VARIABLES) -> list[str]:
    """The queries of a panel, with the initial values of Grafana's variables."""
    return [filled(target["expr"], variables) for target in panel["targets"]]


def filled(query: str, variables: dict[str, str] = VARIABLES) -> str:
    """A query with the values of variables in it."""
    for variable, value in variables.items():
        query = query.replace(variable, value)
    return query


def annotations(dashboard: Path) -> list[dict[str, Any]]:
    """The events that a dashboard marks on its panels."""
    loaded: list[dict[str, Any]] = json.loads(dashboard.read_text())["annotations"]["list"]
    return loaded
