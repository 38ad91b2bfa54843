"""The Kubernetes manifests: valid for an API server, and in step with the server and its rules."""

import copy
import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml

from deploy.kubernetes.prometheus_rule import TARGET, render
from service.settings import Settings
from support.kubernetes import (
    DEPLOY,
    VERSIONS,
    Manifest,
    composed,
    faults,
    kustomize,
    one,
    quantity,
)
from support.project import ROOT

COMPONENTS = sorted(path.name for path in (DEPLOY / "components").iterdir())
OVERLAYS = sorted(path.name for path in (DEPLOY / "overlays").iterdir())
FOLDERS = ["base", "kserve", *(f"overlays/{name}" for name in OVERLAYS)]
RENDERED = [*FOLDERS, *(f"components/{name}" for name in COMPONENTS)]
PODS = [name for name in RENDERED if name != "kserve"]
NAME = "yolox-serve"
# For the server itself and a model, beside the bodies and images that its settings bound.
OWN_MEMORY = 640 * 2**20
# Maps whose keys are their user's own words; other tests compare what matters in them.
FREE_MAPS = {"labels", "annotations", "matchLabels", "data", "requests", "limits", "metadata"}


@cache
def rendered(name: str) -> tuple[Manifest, ...]:
    """The manifests of a folder; those of a component on top of the base."""
    if not name.startswith("components/"):
        return tuple(kustomize(DEPLOY / name))
    return tuple(composed(components=[name]))


def pod_of(name: str) -> dict[str, Any]:
    """The pod's specification in a rendered folder."""
    if name == "kserve":
        predictor: dict[str, Any] = one([*rendered(name)], "InferenceService")["spec"]["predictor"]
        return predictor
    spec: dict[str, Any] = one([*rendered(name)], "Deployment")["spec"]["template"]["spec"]
    return spec


def settings_of(name: str) -> dict[str, str]:
    """The environment of the server in a rendered folder."""
    if name == "kserve":
        return {entry["name"]: entry["value"] for entry in pod_of(name)["containers"][0]["env"]}
    (given,) = (
        manifest["data"]
        for manifest in rendered(name)
        if manifest["kind"] == "ConfigMap" and "YOLOX_METRICS_PORT" in manifest["data"]
    )
    return dict(given)


def setting(name: str, field: str) -> float:
    given = settings_of(name).get(f"YOLOX_{field.upper()}")
    return float(Settings.model_fields[field].default if given is None else given)


# Schemas of an API server


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", RENDERED)
def test_an_api_server_would_accept_every_manifest(name: str, version: str) -> None:
    found = {m["kind"]: faults(m, version) for m in rendered(name)}
    assert {kind: problems for kind, problems in found.items() if problems} == {}


def keys(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every key that a schema must know."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in pairs:
        if isinstance(node, dict):
            yield (*path, key)
        if isinstance(value, (dict, list)) and (key not in FREE_MAPS or path == ()):
            yield from keys(value, (*path, key))


def misspelt(manifest: Manifest, path: tuple[Any, ...]) -> Manifest:
    """A copy in which the key at `path` has one letter too many."""
    planted = copy.deepcopy(manifest)
    parent: Any = planted
    for key in path[:-1]:
        parent = parent[key]
    parent[f"{path[-1]}s"] = parent.pop(path[-1])
    return planted


def test_a_typo_in_any_key_is_caught() -> None:
    # Once for all items of a list, by the last of them.
    planted = {
        (manifest["kind"], *("*" if isinstance(key, int) else key for key in path)): (
            manifest,
            path,
        )
        for name in ("overlays/gpu", "components/autoscale", "components/models-image", "kserve")
        for manifest in rendered(name)
        for path in keys(manifest)
        if path[0] == "spec" and len(path) > 1
    }
    assert len(planted) > 150
    missed = [
        name for name, (manifest, path) in planted.items() if not faults(misspelt(manifest, path))
    ]
    # A Service's selector has labels for keys; another test compares them with the pods'.
    assert missed == [("Service", "spec", "selector", "app.kubernetes.io/name")]


@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        ("Deployment", ("spec", "replicas"), "two"),
        ("Deployment", ("spec", "template", "spec", "terminationGracePeriodSeconds"), "35s"),
        ("Deployment", ("spec", "template", "spec", "securityContext", "runAsNonRoot"), "true"),
        ("PrometheusRule", ("spec", "groups", 0, "rules", 0, "expr"), ["up"]),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0, "interval"), 10),
        ("ScaledObject", ("spec", "triggers", 0, "metadata", "threshold"), 0.7),
        ("ScaledObject", ("spec", "maxReplicaCount"), "20"),
    ],
)
def test_a_value_of_a_wrong_type_is_caught(kind: str, path: tuple[Any, ...], value: object) -> None:
    planted = copy.deepcopy(one([*rendered("overlays/gpu")], kind))
    parent: Any = planted
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    assert faults(planted)


# Names that must agree


@pytest.mark.parametrize("name", RENDERED)
def test_volumes_ports_and_maps_that_a_pod_names_exist(name: str) -> None:
    pod = pod_of(name)
    volumes = {volume["name"] for volume in pod["volumes"]}
    containers = [*pod["containers"], *pod.get("initContainers", [])]
    mounts = {mount["name"] for each in containers for mount in each["volumeMounts"]}
    assert mounts == volumes
    server = pod["containers"][0]
    ports = {port.get("name", port["containerPort"]) for port in server["ports"]}
    probes = [server[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
    assert {probe["port"] for probe in probes} <= ports
    maps = {m["metadata"]["name"] for m in rendered(name) if m["kind"] == "ConfigMap"}
    assert {source["configMapRef"]["name"] for source in server.get("envFrom", [])} <= maps


@pytest.mark.parametrize("name", PODS)
def test_everything_selects_the_pods_of_the_deployment(name: str) -> None:
    deployment = one([*rendered(name)], "Deployment")
    pod_labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    spread = pod_of(name)["topologySpreadConstraints"]
    selectors = [deployment["spec"]["selector"], *(each["labelSelector"] for each in spread)]
    for manifest in rendered(name):
        spec = manifest.get("spec", {})
        if manifest["kind"] == "Service":
            selectors.append({"matchLabels": spec["selector"]})
        elif manifest["kind"] in {"PodDisruptionBudget", "PodMonitor"}:
            selectors.append(spec["selector"])
        elif manifest["kind"] == "NetworkPolicy":
            selectors.append(spec["podSelector"])
    assert len(selectors) >= 6
    for selector in selectors:
        assert selector["matchLabels"].items() <= pod_labels
    assert (
        pod_of(name)["serviceAccountName"]
        == one([*rendered(name)], "ServiceAccount")["metadata"]["name"]
    )


@pytest.mark.parametrize("component", ["autoscale", "autoscale-keda"])
def test_an_autoscaler_scales_the_deployment_and_alone_counts_its_replicas(component: str) -> None:
    manifests = composed(components=[f"components/{component}"], namePrefix="blue-")
    kind = "ScaledObject" if component.endswith("keda") else "HorizontalPodAutoscaler"
    deployment = one(manifests, "Deployment")
    target = one(manifests, kind)["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", f"blue-{NAME}")
    assert deployment["metadata"]["name"] == target["name"]
    assert "replicas" not in deployment["spec"]
    assert one([*rendered("base")], "Deployment")["spec"]["replicas"] >= 2


@pytest.mark.parametrize("name", FOLDERS)
def test_no_overlay_has_two_autoscalers(name: str) -> None:
    kinds = [manifest["kind"] for manifest in rendered(name)]
    assert kinds.count("ScaledObject") + kinds.count("HorizontalPodAutoscaler") <= 1


# What the server needs


@pytest.mark.parametrize("name", RENDERED)
def test_settings_exist_and_have_valid_values(name: str) -> None:
    given = {key.removeprefix("YOLOX_").lower(): text for key, text in settings_of(name).items()}
    assert set(given) <= set(Settings.model_fields)
    read = Settings(**given)  # type: ignore[arg-type]
    ports = {port["containerPort"] for port in pod_of(name)["containers"][0]["ports"]}
    assert read.port in ports
    assert read.metrics_port in ports or name == "kserve"


@pytest.mark.parametrize("name", RENDERED)
def test_probes_ask_routes_that_the_server_has(name: str) -> None:
    server = pod_of(name)["containers"][0]
    routes = json.loads((ROOT / "docs" / "openapi.json").read_text())["paths"]
    asked = {
        k: server[f"{k}Probe"]["httpGet"]["path"] for k in ("startup", "readiness", "liveness")
    }
    assert asked == {
        "startup": "/health/live",
        "readiness": "/health/ready",
        "liveness": "/health/live",
    }
    assert all("get" in routes[path] for path in asked.values())


@pytest.mark.parametrize("name", RENDERED)
def test_a_pod_may_drain_before_it_is_killed(name: str) -> None:
    drain = setting(name, "drain_grace_s") + setting(name, "shutdown_timeout_s")
    assert pod_of(name)["terminationGracePeriodSeconds"] >= drain + 5
    # The server itself serves on after SIGTERM; a hook would only come on top.
    assert "lifecycle" not in pod_of(name)["containers"][0]
    assert setting(name, "drain_grace_s") >= 5


@pytest.mark.parametrize("name", RENDERED)
def test_liveness_is_more_patient_than_the_server_with_itself(name: str) -> None:
    liveness = pod_of(name)["containers"][0]["livenessProbe"]
    patience = liveness["periodSeconds"] * liveness["failureThreshold"]
    assert patience > setting(name, "ready_window_s")


@pytest.mark.parametrize("name", RENDERED)
def test_memory_holds_what_the_settings_allow(name: str) -> None:
    pod = pod_of(name)
    limits = pod["containers"][0]["resources"]["limits"]
    in_memory = [volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume]
    shared = sum(quantity(each["sizeLimit"]) for each in in_memory if each.get("medium"))
    bounded = setting(name, "max_buffered_bytes") + setting(name, "max_decode_bytes")
    assert quantity(limits["memory"]) >= bounded + OWN_MEMORY + shared
    on_disk = sum(quantity(each["sizeLimit"]) for each in in_memory if not each.get("medium"))
    assert quantity(limits["ephemeral-storage"]) >= on_disk


@pytest.mark.parametrize("name", RENDERED)
def test_requests_are_limits_in_whole_cpus(name: str) -> None:
    pod = pod_of(name)
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        resources = container["resources"]
        assert resources["requests"] == resources["limits"]
        known = {"cpu", "memory", "ephemeral-storage", "nvidia.com/gpu"}
        assert {"cpu", "memory"} <= set(resources["limits"]) <= known
        assert quantity(resources["limits"]["cpu"]).is_integer()


def test_variables_of_services_cannot_be_taken_for_settings() -> None:
    for name in RENDERED:
        assert pod_of(name)["enableServiceLinks"] is False


def test_a_rollout_never_takes_a_server_away_first() -> None:
    strategies = [one([*rendered(name)], "Deployment")["spec"]["strategy"] for name in PODS]
    strategies.append(pod_of("kserve")["deploymentStrategy"])
    for strategy in strategies:
        assert strategy["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    budget = one([*rendered("base")], "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert "minAvailable" not in budget


def test_no_pod_starts_without_the_secret_with_its_keys() -> None:
    pod = pod_of("base")
    (secret,) = (volume["secret"] for volume in pod["volumes"] if "secret" in volume)
    assert not secret.get("optional")
    (mount,) = (m for m in pod["containers"][0]["volumeMounts"] if m["name"] == "api-keys")
    folder, _, key = settings_of("base")["YOLOX_API_KEY_FILE"].rpartition("/")
    assert mount["mountPath"] == folder
    # Group 10001, which the volume belongs to by fsGroup, reads it; nobody else does.
    assert secret["defaultMode"] == 0o440
    assert f"--from-file={key}" in (ROOT / "docs" / "kubernetes.md").read_text()


# Confinement: Kubernetes' Pod Security Standard `restricted`, a read-only root, and the network.


@pytest.mark.parametrize("name", RENDERED)
def test_pods_meet_the_restricted_standard_and_write_only_to_tmp(name: str) -> None:
    pod = pod_of(name)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    kinds = {key for volume in pod["volumes"] for key in volume if key != "name"}
    assert kinds <= {"emptyDir", "secret", "configMap", "image"}
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    writable = {
        m["mountPath"] for m in pod["containers"][0]["volumeMounts"] if not m.get("readOnly")
    }
    assert writable <= {"/tmp", "/dev/shm"}  # noqa: S108 - folders of the container


def test_the_network_lets_clients_to_http_and_prometheus_to_metrics() -> None:
    def opened(name: str) -> dict[str, list[Any]]:
        policy = one([*rendered(name)], "NetworkPolicy")["spec"]
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        assert policy.get("egress") == []
        return {rule["ports"][0]["port"]: rule["from"] for rule in policy["ingress"]}

    assert set(opened("base")) == {"http"}
    watched = opened("components/monitoring")
    assert set(watched) == {"http", "metrics"}
    (prometheus,) = watched["metrics"]
    assert prometheus["namespaceSelector"]["matchLabels"]


def test_only_a_pod_that_fetches_may_open_connections() -> None:
    for name in PODS:
        policy = one([*rendered(name)], "NetworkPolicy")["spec"]
        assert bool(policy["egress"]) is (name == "components/models")


def test_no_image_of_an_overlay_lacks_a_tag_or_a_digest() -> None:
    for name in RENDERED:
        pod = pod_of(name)
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            assert re.search(r":(?!latest)[\w.-]+$|@sha256:[0-9a-f]{64}$", container["image"])
    assert pod_of("overlays/gpu")["containers"][0]["image"].endswith(":gpu")


# Monitoring


def test_the_prometheus_rule_is_the_one_of_docker_prometheus() -> None:
    assert TARGET.read_text() == render(), "run `make kubernetes-rules`"
    rule = one([*rendered("components/monitoring")], "PrometheusRule")
    groups = [
        group
        for name in ("recording.yml", "alerts.yml")
        for group in yaml.safe_load((ROOT / "docker" / "prometheus" / name).read_text())["groups"]
    ]
    assert rule["spec"]["groups"] == groups


def test_pods_are_scraped_as_the_job_of_the_rules() -> None:
    monitor = one([*rendered("components/monitoring")], "PodMonitor")["spec"]
    (endpoint,) = monitor["podMetricsEndpoints"]
    ports = {p["name"]: p["containerPort"] for p in pod_of("base")["containers"][0]["ports"]}
    assert str(ports[endpoint["port"]]) == settings_of("base")["YOLOX_METRICS_PORT"]
    relabelled = {rule["targetLabel"]: rule for rule in endpoint["relabelings"]}
    job = relabelled["job"]["replacement"]
    config = yaml.safe_load((ROOT / "docker" / "prometheus" / "prometheus.yml").read_text())
    assert job == config["scrape_configs"][0]["job_name"]
    assert set(re.findall(r'job="(\w+)"', TARGET.read_text())) == {job}
    assert relabelled["instance"]["sourceLabels"] == ["__meta_kubernetes_pod_name"]
    # The shortest rates are over a minute, and need at least two samples in it.
    assert int(endpoint["interval"].removesuffix("s")) <= 15


def test_the_dashboard_is_the_one_of_docker_grafana() -> None:
    (found,) = (
        manifest
        for manifest in rendered("components/monitoring")
        if manifest["metadata"].get("labels", {}).get("grafana_dashboard") == "1"
    )
    (text,) = found["data"].values()
    assert text == (ROOT / "docker/grafana/dashboards/yolox-latency.json").read_text()


def test_keda_asks_for_series_that_the_rules_record() -> None:
    triggers = one([*rendered("components/autoscale-keda")], "ScaledObject")["spec"]["triggers"]
    assert [trigger["name"] for trigger in triggers] == ["engine-busy", "queue-wait", "queue-fill"]
    known = {"serverAddress", "query", "threshold", "ignoreNullValues"}
    recorded = re.findall(r"record: (\S+)", TARGET.read_text())
    for trigger in triggers:
        asked = trigger["metadata"]
        assert set(asked) == known
        # A sum, which KEDA divides by the threshold; `fallback` needs this type of metric.
        assert trigger["metricType"] == "AverageValue"
        (name,) = re.findall(r"sum\(([\w:]+)\{job=\"yolox\"\}", asked["query"])
        assert name in recorded
        assert float(asked["threshold"]) > 0
