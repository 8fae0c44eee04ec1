"""Charts, rendered and linted by Helm's own engine; no cluster, no helm."""

import json
from pathlib import Path

import helm_python
import yaml
from helm_python import _native

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "helm/drainit"
LIBRARY = REPOSITORY / "helm/drainit-lib"

# What a cluster of that version would be told. The first is the oldest that the chart takes.
CLUSTERS = ["1.27", "1.30", "1.33", "1.36"]


class Refused(Exception):
    """Helm's whole error message."""


class Chart:
    def __init__(self, path=CHART):
        self.chart = helm_python.Chart.load(path)

    def render(self, values=None, cluster=CLUSTERS[-1], release="web", namespace="shop"):
        """The manifests, and the notes."""
        # The class' own method does not know kube_version.
        options = {"name": release, "namespace": namespace, "kube_version": f"v{cluster}.0"}
        try:
            text = _native.call_string(
                "helm_render", self.chart._raw(), json.dumps(values or {}), json.dumps(options)
            )
        except helm_python.HelmError as error:
            raise Refused(str(error)) from None
        files = json.loads(text)
        notes = next((text for path, text in files.items() if path.endswith("NOTES.txt")), "")
        texts = {path: text for path, text in files.items() if path.endswith(".yaml") and text.strip()}
        return Rendering(texts, notes)


class Rendering:
    def __init__(self, texts, notes):
        self.texts = texts
        self.notes = notes
        self.manifests = [
            manifest for text in texts.values() for manifest in yaml.safe_load_all(text) if manifest is not None
        ]

    def of(self, kind):
        return [manifest for manifest in self.manifests if manifest["kind"] == kind]

    @property
    def deployment(self):
        (deployment,) = self.of("Deployment")
        return deployment

    @property
    def pod(self):
        return self.deployment["spec"]["template"]["spec"]

    @property
    def container(self):
        """The server's."""
        return self.pod["containers"][0]

    @property
    def env(self):
        return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in self.container["env"]}

    def as_text(self):
        """As `helm template` shows it, in the order of names."""
        parts = [f"# {path.split('/', 1)[1]}\n{text.strip()}\n" for path, text in sorted(self.texts.items())]
        if self.notes.strip():
            commented = "\n".join(f"# {line}".rstrip() for line in self.notes.strip().splitlines())
            parts.append(f"# NOTES.txt\n#\n{commented}\n")
        return "---\n".join(parts)


def lint(path, values=None, cluster=CLUSTERS[-1]):
    """What `helm lint --strict` has to say. An icon is for catalogues of charts."""
    report = helm_python.lint(path, values or {}, strict=True, kube_version=f"v{cluster}.0")
    said = [message["error"] for message in report["messages"] if "icon is recommended" not in message["error"]]
    return said + [error for error in report["errors"] if error not in said]


def read_cases(name):
    """The cases of a file here. `file` in one of them names values to begin with."""
    cases = yaml.safe_load((Path(__file__).parent / name).read_text())
    for case in cases:
        if "file" in case:
            base = yaml.safe_load((REPOSITORY / case["file"]).read_text())
            case["values"] = merged(base, case.get("values") or {})
    names = [case["name"] for case in cases]
    twice = {name for name in names if names.count(name) > 1}
    assert not twice, f"{name} has two cases named {twice}"
    return cases


def merged(below, above):
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return {key: merged(below.get(key), above[key]) if key in above else below[key] for key in {**below, **above}}
