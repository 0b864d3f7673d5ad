"""The Helm chart, rendered by Helm's own code, and checked by the schemas of Kubernetes."""

import helm_python
import kubernetes_validate
import yaml

from .paths import CONF

CHART = CONF / "helm" / "llm-dispatch"
OLDEST, NEWEST = kubernetes_validate.utils.all_versions()[0], kubernetes_validate.latest_version()
OPERATOR = "monitoring.coreos.com/v1"  # Prometheus's operator, which Kubernetes has no schemas of


class Refused(Exception):
    """Helm took neither the values nor the chart; it says why."""


def check(manifest):
    """Raises what the oldest or the newest Kubernetes that there are schemas of has against it."""
    for version in (OLDEST, NEWEST):
        kubernetes_validate.validate(manifest, version, strict=True)


def render(values, release="gw"):
    """{(kind, name): manifest}, each of which Kubernetes takes; NOTES.txt is ("", "NOTES.txt")."""
    with helm_python.Chart.load(CHART) as chart:
        try:
            files = chart.render(values, name=release, namespace="ai")
        except helm_python.HelmError as error:
            raise Refused(str(error)) from None
    found = {("", "NOTES.txt"): files.pop("llm-dispatch/templates/NOTES.txt")}
    for text in files.values():
        for manifest in filter(None, yaml.safe_load_all(text)):
            if manifest["apiVersion"] != OPERATOR:
                check(manifest)
            key = (manifest["kind"], manifest["metadata"]["name"])
            assert key not in found, key
            found[key] = manifest
    return found


def lint(values):
    """What `helm lint --strict` finds wrong."""
    report = helm_python.lint(CHART, values, strict=True)
    return [entry["error"] for entry in report["messages"] if entry["severity"] > 1] + report["errors"]


def package(directory):
    """The archive that `helm package` makes."""
    return helm_python.package(CHART, destination=directory)
