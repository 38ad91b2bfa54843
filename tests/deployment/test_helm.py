"""The Helm chart installs what Kustomize applies, and refuses values that it does not know."""

import re
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

import service
from support.kubernetes import (
    DEPLOY,
    Manifest,
    composed,
    faults,
    helm,
    helm_program,
    kustomize,
    one,
)
from support.project import ROOT

CHART = ROOT / "deploy" / "helm" / "yolox-serve"
# Helm's own labels, and the checksum that stands for the hash in the name of Kustomize's ConfigMap.
OF_HELM = {"app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "helm.sh/chart"}
OF_HELM |= {"checksum/settings", "app.kubernetes.io/part-of", "app.kubernetes.io/name"}
MONITORED = ("--set", "monitoring.enabled=true", "--set", "autoscaling.by=keda")
IMAGE = "sha256:" + "0123456789abcdef" * 4


def bare(node: Any) -> Any:
    """A manifest without what may differ: labels, and the hash in a ConfigMap's name."""
    if isinstance(node, list):
        return [bare(item) for item in node]
    if isinstance(node, str):
        return re.sub(r"^(yolox-serve-settings)-[a-z0-9]{10}$", r"\1", node)
    if not isinstance(node, dict):
        return node
    kept = {key: bare(value) for key, value in node.items() if key not in OF_HELM}
    return {key: value for key, value in kept.items() if value or key != "labels"}


def by_name(manifests: list[Manifest]) -> dict[tuple[str, str], Manifest]:
    found = [bare(manifest) for manifest in manifests]
    for manifest in found:
        manifest["metadata"].pop("namespace", None)
        if manifest["kind"] == "Deployment":
            containers = manifest["spec"]["template"]["spec"]["containers"]
            containers[0]["image"] = containers[0]["image"].rpartition("/")[2]
    return {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in found}


@pytest.mark.parametrize(
    ("folder", "values"),
    [
        ("base", ()),
        ("overlays/cpu", MONITORED),
        ("overlays/gpu", (*MONITORED, "--set", "gpu.enabled=true")),
    ],
)
def test_the_chart_installs_what_an_overlay_applies(folder: str, values: tuple[str, ...]) -> None:
    assert by_name(helm(CHART, *values)) == by_name(kustomize(DEPLOY / folder))


def test_the_chart_scales_by_cpu_as_the_component_does() -> None:
    installed = by_name(helm(CHART, "--set", "autoscaling.by=cpu"))
    assert installed == by_name(composed(["components/autoscale"]))


def test_models_from_an_image_are_mounted_as_in_the_component() -> None:
    installed = by_name(helm(CHART, "--set", "models.image=yolox-models"))
    assert installed == by_name(composed(["components/models-image"]))


@pytest.mark.parametrize(
    "values",
    [
        (),
        (*MONITORED, "--set", "gpu.enabled=true", "--set", "monitoring.labels.release=prometheus"),
        ("--set", "apiKeysSecret=", "--set", "networkPolicy.enabled=false"),
        ("--set", f"image.digest={IMAGE}", "--set", "imagePullSecrets[0].name=registry"),
        ("--set", "nodeSelector.disk=ssd", "--set", "tolerations[0].operator=Exists"),
        ("--set", "service.type=LoadBalancer", "--set", "settings.YOLOX_PAGE=false"),
    ],
)
def test_an_api_server_would_accept_what_the_chart_installs(values: tuple[str, ...]) -> None:
    found = {manifest["kind"]: faults(manifest) for manifest in helm(CHART, *values)}
    assert {kind: problems for kind, problems in found.items() if problems} == {}


def test_values_reach_the_pods() -> None:
    chosen = ("image.digest=" + IMAGE, "image.repository=registry.example.com/y", "replicas=5")
    manifests = helm(CHART, *(word for value in chosen for word in ("--set", value)))
    deployment = one(manifests, "Deployment")["spec"]
    assert deployment["replicas"] == 5
    (container,) = deployment["template"]["spec"]["containers"]
    assert container["image"] == f"registry.example.com/y@{IMAGE}"
    open_server = helm(CHART, "--set", "apiKeysSecret=", "--set", "settings.YOLOX_PAGE=false")
    settings = one(open_server, "ConfigMap")["data"]
    assert "YOLOX_API_KEY_FILE" not in settings
    assert settings["YOLOX_PAGE"] == "false"
    # Not 5.36870912e+08, as Helm's own numbers would be written.
    assert settings["YOLOX_MAX_BUFFERED_BYTES"] == "536870912"


def test_a_changed_setting_replaces_the_pods() -> None:
    def checksum(*values: str) -> str:
        template = one(helm(CHART, *values), "Deployment")["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/settings"])

    assert checksum() == checksum("--set", "replicas=3")
    assert checksum() != checksum("--set", "settings.YOLOX_NMS=hard")


@pytest.mark.parametrize(
    "value",
    [
        "replica=3",
        "replicas=three",
        "image.tags=1",
        "image.digest=latest",
        "autoscaling.by=hpa",
        "gpu.enabled=cuda",
        "settings.yolox_port=1",
        "monitoring.enable=true",
    ],
)
def test_unknown_and_wrong_values_are_refused(value: str) -> None:
    command = [helm_program(), "template", "x", str(CHART), "--set", value]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr


def test_two_releases_in_a_namespace_have_pods_of_their_own(tmp_path: Path) -> None:
    def selected(release: str) -> dict[str, str]:
        manifests = helm(CHART, release=release)
        selector: dict[str, str] = one(manifests, "Service")["spec"]["selector"]
        pod = one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
        assert selector.items() <= pod.items()
        return selector

    assert selected("blue") != selected("green")


def test_a_package_contains_the_rules_and_the_dashboard(tmp_path: Path) -> None:
    command = [helm_program(), "package", str(CHART), "--destination", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    (package,) = tmp_path.glob("*.tgz")
    assert package.name == f"yolox-serve-{service.__version__}.tgz"
    with tarfile.open(package) as archive:
        files = {member.name: member for member in archive}
    for name in ("prometheusrule.yaml", "dashboard.json"):
        assert files[f"yolox-serve/files/{name}"].isfile()
        assert files[f"yolox-serve/files/{name}"].size > 1000
