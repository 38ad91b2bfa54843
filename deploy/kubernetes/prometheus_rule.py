#!/usr/bin/env python3
"""Write the PrometheusRule of the component `monitoring` from the rules in docker/prometheus.

`make kubernetes-rules` runs it after a change of a rule; a test compares the two.
"""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
SOURCES = [ROOT / "docker" / "prometheus" / name for name in ("recording.yml", "alerts.yml")]
TARGET = Path(__file__).parent / "components" / "monitoring" / "prometheusrule.yaml"
HEADER = "# Written by `make kubernetes-rules` from docker/prometheus; change the rules there.\n"


def prometheus_rule(sources: list[Path]) -> dict[str, Any]:
    """The manifest with the groups of all files, in their order."""
    groups = [group for path in sources for group in yaml.safe_load(path.read_text())["groups"]]
    labels = {"app.kubernetes.io/name": "yolox-serve"}
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "yolox-serve", "labels": labels},
        "spec": {"groups": groups},
    }


def render() -> str:
    """The text of the file."""
    rule = prometheus_rule(SOURCES)
    return HEADER + yaml.safe_dump(rule, sort_keys=False, width=100, allow_unicode=True)


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
