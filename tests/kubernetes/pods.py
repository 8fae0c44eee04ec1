"""What becomes of pods, by a watch: who is deleted is soon nowhere to be asked for."""

import json
import os
import subprocess
import threading
import time


class Pod:
    def __init__(self, name, labels):
        self.name = name
        self.labels = labels
        self.ready = False
        self.deleted = self.ended = self.gone = None
        self.restarts = 0
        # What the container's ends were: exitCode, reason, message.
        self.ends = []

    def took(self):
        """From the deletion to the container's end, as the API server's watchers see both."""
        return None if self.deleted is None or self.ended is None else self.ended - self.deleted

    def problems(self, within):
        """What is wrong with the end of one that has served; nothing, if it drained."""
        if not self.ends:
            return [f"{self.name}: its end was not seen"]
        end = self.ends[-1]
        said = (end.get("message") or "").strip()
        found = []
        if end.get("exitCode") != 0:
            found.append(f"{self.name}: exit code {end.get('exitCode')} ({end.get('reason')}): {said}")
        elif not said.startswith("drained in "):
            found.append(f"{self.name}: termination message {said!r}")
        if self.restarts:
            found.append(f"{self.name}: {self.restarts} restarts")
        if self.took() is not None and self.took() > within:
            found.append(f"{self.name}: closed {self.took():.1f} s after its deletion, {within:g} at most")
        return found


class Pods(threading.Thread):
    """All pods of the namespace, and the log of each container in a folder."""

    def __init__(self, kube, folder, now=time.monotonic):
        super().__init__(daemon=True)
        self.kube, self.folder, self.now = kube, folder, now
        self.lock = threading.Lock()
        self.by_uid = {}
        self.followed = []
        self.stopped = False
        self.watch = None

    def run(self):
        while not self.stopped:
            words = self.kube.words("get", "pods", "--watch", "--output-watch-events", "--output=json")
            self.watch = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            for event in events(iter(lambda: os.read(self.watch.stdout.fileno(), 65536).decode(errors="replace"), "")):
                self.see(event)
            self.watch.wait()
            time.sleep(0 if self.stopped else 0.2)

    def stop(self):
        self.stopped = True
        for process in [self.watch, *self.followed]:
            if process:
                process.terminate()

    def see(self, event):
        now, pod = self.now(), event["object"]
        if pod.get("kind") != "Pod":
            return
        meta, status = pod["metadata"], pod.get("status", {})
        with self.lock:
            known = self.by_uid.get(meta["uid"])
            if known is None:
                known = self.by_uid[meta["uid"]] = Pod(meta["name"], meta.get("labels", {}))
                known.log = False
            if "deletionTimestamp" in meta and known.deleted is None:
                known.deleted = now
            for condition in status.get("conditions", []):
                if condition["type"] == "Ready" and condition["status"] == "True":
                    known.ready = True
            for container in status.get("containerStatuses", [])[:1]:
                self.see_container(known, container, now)
            if event["type"] == "DELETED":
                known.gone = now
                known.ended = known.ended or now

    def see_container(self, known, container, now):
        known.restarts = container.get("restartCount", 0)
        for state in (container.get("lastState", {}), container.get("state", {})):
            end = state.get("terminated")
            if end and end not in known.ends:
                known.ends.append(end)
        if container.get("state", {}).get("terminated"):
            known.ended = known.ended or now
        if "running" in container.get("state", {}) and not known.log:
            known.log = True
            self.follow(known.name, container["name"])

    def follow(self, name, container):
        with open(os.path.join(self.folder, f"{name}.log"), "w") as file:
            words = self.kube.words("logs", "--follow", name, "--container", container)
            self.followed.append(subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT))

    def of(self, app):
        key, value = app.split("=", 1)
        with self.lock:
            return [pod for pod in self.by_uid.values() if pod.labels.get(key) == value]

    def deleted_since(self, app, since):
        return [pod for pod in self.of(app) if pod.deleted is not None and pod.deleted >= since]


def events(chunks):
    """The documents of a stream that has them one after the other."""
    decoder, rest = json.JSONDecoder(), ""
    for chunk in chunks:
        rest += chunk
        while True:
            rest = rest.lstrip()
            try:
                event, end = decoder.raw_decode(rest)
            except ValueError:
                break
            rest = rest[end:]
            yield event
