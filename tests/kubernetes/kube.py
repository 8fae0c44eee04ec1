"""kubectl, in one namespace."""

import json
import os
import shutil
import subprocess
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
IMAGES = {"drainit": "drainit", "docker.io/library/node": "node", "python": "python", "load": "load"}
PATIENCE = 180


class Failed(Exception):
    """Something that was promised did not hold."""


class NotPossible(Exception):
    """The cluster, or what is installed here, cannot do it."""


class Kube:
    def __init__(self, namespace):
        self.namespace = namespace
        self.folder = tempfile.mkdtemp(prefix="drainit-kubernetes-")

    def run(self, *words, text=None, check=True):
        """A call that ended, for its code and what it said."""
        ended = subprocess.run(
            self.words(*words), input=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=PATIENCE + 60
        )
        if check and ended.returncode != 0:
            raise Failed(f"kubectl {' '.join(words)}: {ended.stderr.strip()[-500:]}")
        return ended

    def words(self, *words):
        return ["kubectl", "--namespace", self.namespace, *words]

    def out(self, *words, text=None):
        return self.run(*words, text=text).stdout

    def json(self, *words):
        return json.loads(self.out(*words, "--output=json"))

    def get(self, path):
        return self.out("get", "--raw", path)

    def pods(self, app):
        """Those of a Deployment that are not on their way out."""
        listed = self.json("get", "pods", "--selector", app)["items"]
        return [pod for pod in listed if "deletionTimestamp" not in pod["metadata"]]

    def status(self, pod):
        """What drainit says of itself, by way of the API server."""
        name = pod["metadata"]["name"]
        return json.loads(self.get(f"/api/v1/namespaces/{self.namespace}/pods/{name}:9180/proxy/status"))

    def render(self, *files, components=(), replace=()):
        """Manifests with this run's images, as an overlay renders them."""
        overlay = tempfile.mkdtemp(dir=self.folder)
        for file in files:
            with open(os.path.join(ROOT, file)) as source:
                content = source.read()
            for old, new in replace:
                content = content.replace(old, new)
            with open(os.path.join(overlay, os.path.basename(file)), "w") as copy:
                copy.write(content)
        for component in components:
            shutil.copytree(os.path.join(ROOT, component), os.path.join(overlay, os.path.basename(component)))
        images = [image(name, os.environ.get(f"IMAGE_{key.upper()}")) for name, key in IMAGES.items()]
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": self.namespace,
            "resources": [os.path.basename(file) for file in files],
            "components": [os.path.basename(component) for component in components],
            "images": images,
        }
        with open(os.path.join(overlay, "kustomization.yaml"), "w") as file:
            json.dump(kustomization, file)
        return subprocess.run(["kubectl", "kustomize", overlay], check=True, stdout=subprocess.PIPE, text=True).stdout

    def apply(self, manifest):
        self.run("apply", "--filename=-", text=manifest)

    def rolled_out(self, deployment, patience=PATIENCE):
        self.run("rollout", "status", f"deployment/{deployment}", f"--timeout={patience}s")


def image(name, wanted):
    """An entry of `images` in a kustomization; what is not named by the environment is what ./images makes."""
    wanted = wanted or f"localhost/drainit-test/{IMAGES[name]}:dev"
    if "@" in wanted:
        new, digest = wanted.split("@", 1)
        return {"name": name, "newName": new, "digest": digest}
    new, tag = wanted.rsplit(":", 1)
    return {"name": name, "newName": new, "newTag": tag}


def until(what, condition, patience=PATIENCE, pause=0.5):
    """Looks until it finds something, and fails when that takes too long."""
    deadline = time.monotonic() + patience
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise Failed(f"not within {patience} s: {what}")
        time.sleep(pause)
