"""The load: pods that send requests to a Service all the time, and count."""

import json
import os
import time

from kube import until

# Longer than the load generator waits for a connection or an answer: what was sent before has been decided after it.
SETTLED = 9


class Load:
    def __init__(self, kube, service):
        self.kube, self.service, self.name = kube, service, f"load-{service}"
        address = kube.json("get", "service", service)["spec"]["clusterIP"]
        address = f"[{address}]" if ":" in address else address
        kube.apply(kube.render("tests/kubernetes/manifests/load.yaml", replace=[("TARGET", service), ("ADDRESS", address)]))
        kube.rolled_out(self.name)
        self.flows()

    def lines(self, tail):
        said = self.kube.out("logs", "--selector", f"app={self.name}", f"--tail={tail}").splitlines()
        return [json.loads(line) for line in said if line.startswith("{")]

    def totals(self):
        """Answered and failed so far, by all of them."""
        lines = self.lines(1)
        return sum(line["answered"] for line in lines), sum(line["failed"] for line in lines)

    def flows(self):
        before = self.totals()[0]
        until(f"{self.name} gets answers", lambda: self.totals()[0] > before + 50, patience=60)

    def settled(self):
        time.sleep(SETTLED)
        return self.totals()

    def stop(self, folder):
        """Each pod's last words, by shape. They come after SIGTERM, to whoever follows its log."""
        names = [pod["metadata"]["name"] for pod in self.kube.pods(f"app={self.name}")]
        self.kube.run("delete", "deployment", self.name, "--wait=false")

        def last_words():
            words = [line for name in names for line in shapes(os.path.join(folder, f"{name}.log"))]
            return words if len(words) >= len(names) else None

        return until(f"the last words of {self.name}", last_words, patience=60)


def shapes(path):
    with open(path) as log:
        lines = [line for line in log if line.startswith("{") and line.endswith("}\n")]
    return [line for line in map(json.loads, lines) if "shape" in line]


def kinds(words):
    """How many failed, by kind."""
    found = {}
    for line in words:
        for kind, count in line["failed"].items():
            found[kind] = found.get(kind, 0) + count
    return found
