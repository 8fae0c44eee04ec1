"""Rollouts under load on the cluster that KUBECONFIG names: what was promised holds there, or this says what does not.

    ROLLOUTS=3  CLOSED_WITHIN=5  KEEP=1 (leave the namespace)  IMAGE_DRAINIT, IMAGE_NODE, IMAGE_PYTHON, IMAGE_LOAD

Ends with 0 if every step that could be run held, with 1 if not. What a cluster cannot do is counted as not run.
"""

import json
import os
import random
import shutil
import sys
import time

import steps
from kube import ROOT, Failed, Kube, NotPossible
from load import Load, kinds
from pods import Pods

ROLLOUTS = int(os.environ.get("ROLLOUTS", "3"))
CLOSED_WITHIN = float(os.environ.get("CLOSED_WITHIN", "5"))


class Run:
    def __init__(self):
        self.kube = Kube(os.environ.get("NAMESPACE", f"drainit-test-{random.randrange(16**6):06x}"))
        self.folder = os.path.join(ROOT, "target", "kubernetes", "logs", self.kube.namespace)
        os.makedirs(self.folder, exist_ok=True)
        self.pods = Pods(self.kube, self.folder)
        self.load = None
        self.results = []
        self.took = []

    def step(self, name, act, app=None, drains=True):
        """One thing that is done to a Deployment under load, and everything that has to hold then. `drains`: those that are
        deleted in it have to end as promised."""
        before = self.load.totals() if self.load else (0, 0)
        since = time.monotonic()
        problems, detail = [], ""
        try:
            detail = act() or ""
        except NotPossible as why:
            return self.tell("not run", name, str(why))
        except Failed as why:
            problems.append(str(why))
        # Whatever else a cluster may come up with: the steps that follow are made all the same.
        except Exception as why:
            problems.append(repr(why))
        deleted = []
        if app:
            deleted = self.pods.deleted_since(app, since)
            try:
                steps.gone(self.pods, deleted)
            except Failed as why:
                problems.append(str(why))
        if drains:
            served = [pod for pod in deleted if pod.ready]
            problems += [problem for pod in served for problem in pod.problems(CLOSED_WITHIN)]
            took = sorted(pod.took() for pod in served if pod.took() is not None)
            self.took += took
            if took:
                pods = "1 pod" if len(took) == 1 else f"{len(took)} pods"
                detail += f"; {pods} closed within {took[0]:.1f}..{took[-1]:.1f} s"
            problems += steps.bad_events(self.kube)
        if self.load:
            answered, failed = (now - then for now, then in zip(self.load.settled(), before))
            detail += f"; {answered} requests answered, {failed} failed"
            if failed:
                problems.append(f"{failed} requests failed")
        self.tell("FAILED" if problems else "ok", name, "; ".join([*problems, detail.lstrip("; ")]))

    def tell(self, verdict, name, detail):
        self.results.append({"step": name, "verdict": verdict, "detail": detail})
        print(f"{verdict:8}{name:34}{detail}", flush=True)

    def under_load(self, service, body):
        """The steps of `body`, with requests coming all the time; and then the load generators' own account."""
        try:
            self.load = Load(self.kube, service)
            body()
        except Failed as why:
            self.tell("FAILED", f"load on {service}", str(why))
        finally:
            if self.load:
                self.account(service)
            self.load = None

    def account(self, service):
        try:
            words = self.load.stop(self.folder)
        except Failed as why:
            return self.tell("FAILED", f"all requests to {service}", str(why))
        sent, late = (sum(line[key] for line in words) for key in ("sent", "late"))
        failed = kinds(words)
        what = ", ".join(f"{kind} {count}" for kind, count in sorted(failed.items())) or "none failed"
        slowest = max(line["slowest_seconds"] for line in words)
        verdict = "FAILED" if failed else "ok"
        self.tell(verdict, f"all requests to {service}", f"{sent} sent, {what}; slowest {slowest:.1f} s; {late} sent late")

    def control(self):
        """The harness sees failures where there are some."""
        deployment = steps.Deployment(self.kube, self.pods, "control", "app=control")
        self.kube.apply(self.kube.render("tests/kubernetes/manifests/control.yaml"))
        self.kube.rolled_out("control")
        self.load = Load(self.kube, "control")
        try:
            since = time.monotonic()
            for _ in range(ROLLOUTS):
                deployment.roll_out()
            steps.gone(self.pods, self.pods.deleted_since("app=control", since))
            answered, failed = self.load.settled()
            detail = f"{ROLLOUTS} rollouts without drainit: {answered} requests answered, {failed} failed"
            self.tell("ok" if failed else "FAILED", "control", detail + ("" if failed else ": the harness sees nothing"))
        finally:
            self.load = None
            self.kube.run("delete", "deployment", "load-control", "control", "--wait=false", check=False)

    def everything(self):
        kube = self.kube
        node = steps.Deployment(kube, self.pods, "hello-node", "app.kubernetes.io/name=hello-node")
        self.step("kubectl apply", lambda: steps.apply_node(kube, node))
        self.under_load("hello-node", lambda: self.node(node))

        python = steps.Deployment(kube, self.pods, "hello-python", "app=hello-python")
        self.step("kubectl apply -k, Python", lambda: steps.apply_python(kube, python))
        self.under_load("hello-python", lambda: self.rollouts(python))

        injected = steps.Deployment(kube, self.pods, "injected", "app=injected")
        self.step("injection by label", lambda: steps.inject(kube, injected))
        if self.results[-1]["verdict"] == "ok":
            self.under_load("injected", lambda: self.rollouts(injected, 1))
            self.step("no command, no injection", lambda: steps.refused(kube))

        charted = steps.Deployment(kube, self.pods, "charted", "app.kubernetes.io/instance=charted")
        self.step("helm install", lambda: steps.helm_install(kube, charted))
        if self.results[-1]["verdict"] == "ok":
            self.under_load("charted", lambda: self.rollouts(charted))
            self.step("helm uninstall", lambda: steps.helm_uninstall(kube), charted.app)

        try:
            self.control()
        except Failed as why:
            self.tell("FAILED", "control", str(why))

    def rollouts(self, deployment, number=ROLLOUTS):
        for count in range(1, number + 1):
            self.step(f"{deployment.name}: rollout {count}", deployment.roll_out, deployment.app)

    def node(self, node):
        self.rollouts(node)
        self.step("scale up", lambda: node.scale(4), node.app)
        self.step("scale down", lambda: node.scale(2), node.app)
        self.step("pod deletion", lambda: steps.delete_one(self.kube, node), node.app)
        self.step("eviction", lambda: steps.evict(self.kube, node), node.app)
        self.step("in-place resize", lambda: steps.resize(self.kube, node), node.app)
        self.step("ConfigMap change, in place", lambda: steps.change_config(self.kube, node), node.app)
        self.step("bad release", lambda: steps.bad_release(self.kube, self.pods, node), node.app)
        self.step("preStop hook", lambda: steps.with_hook(self.kube, node), node.app)

    def keep_evidence(self):
        for name, words in {
            "describe": ["describe", "all"],
            "events": ["get", "events", "--sort-by=.lastTimestamp", "--output=wide"],
            "pods": ["get", "pods", "--output=yaml"],
            "endpointslices": ["get", "endpointslices", "--output=yaml"],
        }.items():
            with open(os.path.join(self.folder, f"{name}.txt"), "w") as file:
                file.write(self.kube.run(*words, check=False).stdout)

    def main(self):
        kube = self.kube
        kube.run("create", "namespace", kube.namespace)
        kube.run("label", "namespace", kube.namespace, "pod-security.kubernetes.io/enforce=restricted")
        self.pods.start()
        version = json.loads(kube.out("version", "--output=json")).get("serverVersion", {}).get("gitVersion")
        print(f"Kubernetes {version}, namespace {kube.namespace}", flush=True)
        try:
            self.everything()
        finally:
            failed = [one for one in self.results if one["verdict"] == "FAILED"]
            if failed or sys.exc_info()[0]:
                self.keep_evidence()
            self.pods.stop()
            if not os.environ.get("KEEP"):
                steps.clean_up(kube)
        return self.summary()

    def summary(self):
        counts = {verdict: sum(one["verdict"] == verdict for one in self.results) for verdict in ("ok", "FAILED", "not run")}
        took = sorted(self.took)
        if took:
            median = took[len(took) // 2]
            print(f"{len(took)} pods closed within {took[0]:.1f}..{took[-1]:.1f} s of their deletion, median {median:.1f} s")
        print(f"{counts['ok']} held, {counts['FAILED']} failed, {counts['not run']} not run")
        with open(os.path.join(ROOT, "target", "kubernetes", "result.json"), "w") as file:
            json.dump({"steps": self.results, "closed_seconds": took}, file, indent=1)
        if counts["FAILED"]:
            print(f"the pods' logs: {self.folder}")
            return 1
        shutil.rmtree(self.folder)
        return 0


if __name__ == "__main__":
    try:
        sys.exit(Run().main())
    except Failed as why:
        sys.exit(f"the test could not be run: {why}")
