"""Write the schemas of KEDA and the Prometheus Operator: README.md says with which packages."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

MODELS = {
    "cloudcoil.models.keda.v1alpha1": ("ScaledObject",),
    "cloudcoil.models.prometheus_operator.v1": ("PodMonitor", "PrometheusRule"),
}
DROPPED = {"title", "default", "description"}
BEHAVIORS = ("static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower")


def tidy(node: Any) -> Any:
    """Refuse unknown fields and null; leave out what checks nothing."""
    if isinstance(node, list):
        return [tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    # A property may have such a name: then its value is a schema.
    node = {key: value for key, value in node.items() if key not in DROPPED or type(value) is dict}
    options = [option for option in node.pop("anyOf", []) if option != {"type": "null"}]
    node |= options[0] if len(options) == 1 else {"anyOf": options} if options else {}
    node = {key: tidy(value) for key, value in node.items()}
    if "properties" in node:
        node.setdefault("additionalProperties", False)
    return node


if __name__ == "__main__":
    for module, names in MODELS.items():
        for name in names:
            schema = tidy(getattr(import_module(module), name).model_json_schema())
            if name == "ScaledObject":
                schema["$defs"]["Fallback"]["properties"]["behavior"] = {"enum": [*BEHAVIORS]}
            text = json.dumps(schema, indent=1) + "\n"
            Path(__file__).with_name(f"{name}.json").write_text(text, encoding="utf-8")
