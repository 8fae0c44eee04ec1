"""What is done to the Deployments, and what has to come of it. A step returns what there is to tell, or raises."""

import json
import os
import shutil
import subprocess
import time

from kube import ROOT, Failed, NotPossible, image, until

# Reasons of events that say a pod was not let go as it should. An `Unhealthy` of readiness is as it should be: 503 in a drain, and
# a probe that meets the container's end. So is a `FailedMount` of a pod that goes as it comes.
BAD_EVENTS = {"FailedPreStopHook", "ExceededGracePeriod"}


class Deployment:
    def __init__(self, kube, pods, name, app):
        self.kube, self.pods, self.name, self.app = kube, pods, name, app

    def roll_out(self):
        self.kube.run("rollout", "restart", f"deployment/{self.name}")
        self.kube.rolled_out(self.name)

    def scale(self, replicas):
        self.kube.run("scale", f"deployment/{self.name}", f"--replicas={replicas}")
        self.kube.rolled_out(self.name)
        until(f"{replicas} pods", lambda: len(self.kube.pods(self.app)) == replicas)

    def patch(self, *operations):
        self.kube.run("patch", "deployment", self.name, "--type=json", f"--patch={json.dumps(operations)}")

    def one(self):
        return self.kube.pods(self.app)[0]

    def all_say(self, what, holds, patience=180):
        """Every pod's /status, until `holds` of each."""

        def look():
            statuses = [self.kube.status(pod) for pod in self.kube.pods(self.app)]
            return statuses and all(holds(status) for status in statuses)

        return until(what, look, patience=patience, pause=1)

    def identities(self):
        """Which pods there are, and how often their containers were started again."""
        return {
            (pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"])
            for pod in self.kube.pods(self.app)
        }


def gone(pods, deleted):
    until("those that were deleted are gone", lambda: all(pod.gone for pod in deleted))


def bad_events(kube):
    found = []
    for event in kube.json("get", "events")["items"]:
        message = event.get("message", "")
        if event.get("reason") in BAD_EVENTS or message.startswith("Liveness probe failed"):
            found.append(f"event of {event['involvedObject']['name']}: {event['reason']}: {message[:200]}")
    return sorted(set(found))


def serves(kube, deployment):
    """Every pod is ready by its own word, and drainit is its PID 1."""
    for pod in kube.pods(deployment.app):
        status = kube.status(pod)
        if status["phase"] != "serving":
            raise Failed(f"{pod['metadata']['name']} is {status['phase']}")


def apply_node(kube, node):
    kube.apply(kube.render("deploy/node.yaml"))
    kube.rolled_out(node.name)
    serves(kube, node)
    return "deploy/node.yaml"


def apply_python(kube, python):
    kube.apply(kube.render("tests/kubernetes/manifests/python.yaml", components=["deploy/kustomize/drainit"]))
    kube.rolled_out(python.name)
    serves(kube, python)
    return "wrapped by the component"


def delete_one(kube, node):
    kube.run("delete", "pod", node.one()["metadata"]["name"], "--wait=false")
    until("its successor is ready", lambda: all_ready(kube, node))


def all_ready(kube, node):
    status = kube.json("get", "deployment", node.name)["status"]
    return status.get("readyReplicas", 0) >= status["replicas"] and not status.get("unavailableReplicas")


def evict(kube, node):
    """One may go; the next is protected until there is somebody else."""
    first, second = (pod["metadata"]["name"] for pod in kube.pods(node.app)[:2])

    def ask(name):
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": kube.namespace}}
        path = f"/api/v1/namespaces/{kube.namespace}/pods/{name}/eviction"
        return kube.run("create", "--raw", path, "--filename=-", text=json.dumps(eviction), check=False)

    if ask(first).returncode != 0:
        raise Failed(f"{first} may not be evicted")
    refusal = ask(second)
    if refusal.returncode == 0:
        raise Failed("the PodDisruptionBudget let both go")
    until("its successor is ready", lambda: all_ready(kube, node))
    return "the second was refused meanwhile"


def resize(kube, node):
    """The pool follows the limit, in the pod that there is."""
    pod = node.one()["metadata"]["name"]
    before = node.identities()

    def limit(cpu):
        patch = {"spec": {"containers": [{"name": "server", "resources": {"limits": {"cpu": cpu}}}]}}
        ended = kube.run("patch", "pod", pod, "--subresource=resize", f"--patch={json.dumps(patch)}", check=False)
        if ended.returncode != 0:
            raise NotPossible(f"this cluster, or kubectl, resizes no pods: {ended.stderr.strip()[-160:]}")

    def workers(number):
        def look():
            conditions = kube.json("get", "pod", pod)["status"].get("conditions", [])
            for condition in conditions:
                if condition["type"] == "PodResizePending" and condition["status"] == "True":
                    raise NotPossible(f"the node does not grant it: {condition.get('reason')} {condition.get('message', '')}")
            ready = [one for one in kube.status({"metadata": {"name": pod}})["workers"] if one["state"] == "ready"]
            return len(ready) == number

        until(f"{number} workers", look, patience=90)

    limit("2")
    workers(2)
    limit("1")
    workers(1)
    if node.identities() != before:
        raise Failed("a pod was replaced, or a container started again")
    return "1 worker, 2, and 1 again"


def change_config(kube, node):
    """New workers with what the ConfigMap says now, in the pods that there are."""
    before = node.identities()
    kube.run("patch", "configmap", "hello-node", '--patch={"data": {"greeting": "good day"}}')
    # The kubelet brings it with its next look at the pod, a minute later by default; an annotation has it look.
    kube.run("annotate", "pods", "--selector", node.app, "drainit-test/look=now", "--overwrite")
    began = time.monotonic()
    node.all_say("generation 2 everywhere", lambda status: status["generation"] == 2 and status["rolls"]["rolled"] == 1)
    took = time.monotonic() - began
    if node.identities() != before:
        raise Failed("a pod was replaced, or a container started again")
    address = f"/api/v1/namespaces/{kube.namespace}/services/hello-node:http/proxy/"
    if "good day" not in kube.get(address):
        raise Failed("they do not say what the ConfigMap says")
    return f"rolled in place within {took:.0f} s"


def bad_release(kube, pods, node):
    """It does not come up, says why, and nobody who serves is touched."""
    before = {uid for uid, _ in node.identities()}
    path = "/spec/template/spec/containers/0/args/1"
    node.patch({"op": "replace", "path": path, "value": "/etc/hello/no-such-server.js"})

    def end():
        ends = [end for pod in pods.of(node.app) if not pod.ready for end in pod.ends]
        return next((end for end in ends if end.get("exitCode") == 75), None)

    said = until("exit code 75", end).get("message", "").strip()
    if "keep crashing" not in said:
        raise Failed(f"its termination message: {said!r}")
    after = {uid for uid, _ in node.identities()}
    if not before <= after:
        raise Failed("somebody who served was let go for it")
    kube.run("rollout", "undo", f"deployment/{node.name}")
    kube.rolled_out(node.name)
    return f"exit code 75, {said!r}"


def with_hook(kube, node):
    """The wait in an exec hook: once without it on the way there, once with it."""
    hook = {"preStop": {"exec": {"command": ["/opt/drainit/drainit", "prestop"]}}}
    path = "/spec/template/spec/containers/0/lifecycle"
    node.patch({"op": "add", "path": path, "value": hook})
    kube.rolled_out(node.name)
    node.roll_out()
    node.patch({"op": "remove", "path": path})
    kube.rolled_out(node.name)


def inject(kube, injected):
    policies = kube.run("get", "mutatingadmissionpolicies.v1.admissionregistration.k8s.io", check=False)
    if policies.returncode != 0:
        raise NotPossible("this API server has no MutatingAdmissionPolicy v1 (Kubernetes 1.36)")
    wanted = image("drainit", os.environ.get("IMAGE_DRAINIT"))
    name = wanted["newName"] + (f"@{wanted['digest']}" if "digest" in wanted else f":{wanted['newTag']}")
    with open(os.path.join(ROOT, "deploy/admission/policy.yaml")) as file:
        policy = file.read().replace("drainit:dev", name)
    kube.run("apply", "--filename=-", text=policy)
    manifest = kube.render("tests/kubernetes/manifests/injected.yaml")
    kube.apply(manifest)

    # The API server compiles a policy some seconds after it has taken it.
    def wrapped():
        command = [kube_pod["spec"]["containers"][0]["command"] for kube_pod in kube.pods(injected.app)]
        if command and all(words[:2] == ["/opt/drainit/drainit", "--"] for words in command):
            return True
        kube.run("delete", "pods", "--selector", injected.app, "--wait=false", "--grace-period=1")
        return False

    until("the policy takes hold", wrapped, patience=60, pause=5)
    kube.rolled_out(injected.name)
    serves(kube, injected)
    return "deploy/admission/policy.yaml"


def refused(kube):
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "no-command", "labels": {"drainit/inject": "true"}},
        "spec": {"containers": [{"name": "server", "image": "localhost/drainit-test/python:dev"}]},
    }
    ended = kube.run("create", "--dry-run=server", "--filename=-", text=json.dumps(pod), check=False)
    if ended.returncode == 0 or "takes a first container with a command" not in ended.stderr:
        raise Failed(f"a pod without a command: {ended.returncode} {ended.stderr.strip()}")


def helm_install(kube, charted):
    if not shutil.which("helm"):
        raise NotPossible("no helm here")
    chart = os.path.join(ROOT, "helm", "drainit")
    if not os.path.isdir(chart):
        raise NotPossible("no helm/drainit")
    server = kube.json("get", "configmap", "hello-node")["data"]
    images = {name: image(name, os.environ.get(variable)) for name, variable in [
        ("drainit", "IMAGE_DRAINIT"), ("docker.io/library/node", "IMAGE_NODE")]}

    def value(name):
        entry = images[name]
        return {"repository": entry["newName"], "tag": entry.get("newTag", ""), "digest": entry.get("digest", "")}

    values = {
        "fullnameOverride": "charted",
        "replicaCount": 2,
        "minReadySeconds": 0,
        "image": value("docker.io/library/node"),
        "command": ["node", "/etc/hello/server.js"],
        "config": {"files": server, "mountPath": "/etc/hello"},
        "drainit": {"image": value("drainit")},
    }
    path = os.path.join(kube.folder, "values.json")
    with open(path, "w") as file:
        json.dump(values, file)
    helm("install", "charted", chart, "--namespace", kube.namespace, "--values", path, "--wait", "--timeout", "3m")
    serves(kube, charted)
    return "helm/drainit"


def helm_uninstall(kube):
    helm("uninstall", "charted", "--namespace", kube.namespace)


def helm(*words):
    ended = subprocess.run(["helm", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ended.returncode != 0:
        raise Failed(f"helm {words[0]}: {ended.stdout.strip()[-500:]}")


def clean_up(kube):
    policy = os.path.join(ROOT, "deploy/admission/policy.yaml")
    kube.run("delete", "--filename", policy, "--ignore-not-found", "--wait=false", check=False)
    kube.run("delete", "namespace", kube.namespace, "--wait=false", check=False)
    shutil.rmtree(kube.folder, ignore_errors=True)
