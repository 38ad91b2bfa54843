"""Kubernetes manifests: rendered by kubectl, and checked as an API server would check them."""

import json
import os
import re
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import jsonschema
import pytest
import yaml

from support.programs import on_path_or_unpacked
from support.project import ROOT

Manifest = dict[str, Any]

DEPLOY = ROOT / "deploy" / "kubernetes"
CRDS = ROOT / "tests" / "deployment" / "crds"
VERSIONS = ("1.31", "1.33", "1.37")
# Fields of an InferenceService's predictor that are the pod's own.
POD_FIELDS = "x-pod-fields"


def kustomize(folder: Path) -> list[Manifest]:
    """The manifests that `kubectl apply -k` would apply."""
    return _manifests([_program("kubectl"), "kustomize", str(folder)])


def composed(components: list[str], **more: Any) -> list[Manifest]:
    """Render an overlay of somebody's own: the base with components, and more."""
    with TemporaryDirectory() as folder:
        overlay = Path(folder).resolve()
        relative = [os.path.relpath(DEPLOY / name, overlay) for name in ("base", *components)]
        kustomization = {"resources": relative[:1], "components": relative[1:], **more}
        (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        return kustomize(overlay)


def helm_program() -> str:
    """Path of `helm`."""
    return _program("helm")


def helm(chart: Path, *arguments: str, release: str = "yolox-serve") -> list[Manifest]:
    """The manifests that `helm install` would install."""
    return _manifests([helm_program(), "template", release, str(chart), *arguments])


def _program(name: str) -> str:
    return on_path_or_unpacked(name, f"kubernetes/{name}")


def _manifests(command: list[str]) -> list[Manifest]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def one(manifests: list[Manifest], kind: str) -> Manifest:
    """The only manifest of a kind."""
    (found,) = (manifest for manifest in manifests if manifest["kind"] == kind)
    return found


def faults(manifest: Manifest, version: str = VERSIONS[-1]) -> list[str]:
    """The fields and values that an API server of that version would refuse."""
    own_schema = CRDS / f"{manifest['kind']}.json"
    if not own_schema.is_file():
        return _core_faults(manifest, version)
    schema = json.loads(own_schema.read_text())
    found = [
        f"{error.json_path}: {error.message}"
        for error in jsonschema.Draft202012Validator(schema).iter_errors(manifest)
    ]
    if not found and POD_FIELDS in schema:
        predictor = manifest["spec"]["predictor"]
        spec = {name: predictor[name] for name in schema[POD_FIELDS] if name in predictor}
        found += _core_faults(_deployment_of(predictor, spec), version)
    return found


def _deployment_of(predictor: Manifest, pod: Manifest) -> Manifest:
    """The Deployment that KServe makes of a predictor, where it takes the fields as they are."""
    labels = {"app": "x"}
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec: Manifest = {"selector": {"matchLabels": labels}, "template": template}
    if "deploymentStrategy" in predictor:
        spec["strategy"] = predictor["deploymentStrategy"]
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x"}, "spec": spec}


def _core_faults(manifest: Manifest, version: str) -> list[str]:
    library = _kubernetes_validate()
    try:
        library.validate(manifest, version, strict=True)
    except library.ValidationError as error:
        return [error.message]
    except library.SchemaNotFoundError as error:
        return [error.message]
    return []


@cache
def _kubernetes_validate() -> ModuleType:
    """The library, made to read each of its large schemas once."""
    library: ModuleType = pytest.importorskip("kubernetes_validate", reason="it has the schemas")
    library.utils.schema_contents = cache(library.utils.schema_contents)
    return library


def quantity(text: str) -> float:
    """A Kubernetes quantity in its base unit: bytes, or CPUs."""
    number, unit = re.fullmatch(r"([\d.]+)(m|[KMG]i)?", text).groups()  # type: ignore[union-attr]
    return float(number) * {None: 1, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[unit]
