"""The judge, on events as an API server's watch has them: `python3 -m unittest discover tests/kubernetes`."""

import json
import unittest

from kube import image
from load import kinds
from pods import Pods, events


class Clock:
    seconds = 100.0

    def __call__(self):
        return self.seconds


class Watch(Pods):
    def __init__(self):
        self.clock = Clock()
        super().__init__(kube=None, folder=None, now=self.clock)
        self.names = []

    def follow(self, name, container):
        self.names.append((name, container))

    def say(self, kind, state, at=None, deleted=False, ready=True, restarts=0, last=None):
        self.clock.seconds = at or self.clock.seconds
        meta = {"uid": "1", "name": "web-1", "labels": {"app": "web"}}
        if deleted:
            meta["deletionTimestamp"] = "2026-11-20T10:00:30Z"
        container = {"name": "server", "restartCount": restarts, "state": state, "lastState": last or {}}
        conditions = [{"type": "Ready", "status": str(ready)}]
        status = {"conditions": conditions, "containerStatuses": [container]}
        self.see({"type": kind, "object": {"kind": "Pod", "metadata": meta, "status": status}})

    def life(self, code, message, ended_at, **more):
        running = {"running": {"startedAt": "2026-11-20T09:59:00Z"}}
        end = {"terminated": {"exitCode": code, "reason": "Completed", "message": message}}
        self.say("ADDED", running, at=10)
        self.say("MODIFIED", running, at=20, deleted=True)
        self.say("MODIFIED", end, at=ended_at, deleted=True, ready=False, **more)
        self.say("DELETED", end, at=ended_at + 1, deleted=True, ready=False, **more)
        (pod,) = self.deleted_since("app=web", 15)
        return pod


class Ends(unittest.TestCase):
    def test_a_drain(self):
        watch = Watch()
        pod = watch.life(0, "drained in 3.2 s after SIGTERM: every worker has finished", 23.5)
        self.assertEqual(pod.problems(5), [])
        self.assertEqual((pod.took(), pod.gone, pod.ready), (3.5, 24.5, True))
        self.assertEqual(watch.names, [("web-1", "server")])
        self.assertEqual(watch.deleted_since("app=web", 21), [])

    def test_what_is_wrong_is_said(self):
        for code, message, ended_at, more, said in [
            (124, "a worker had to be killed", 49, {}, "exit code 124"),
            (137, "", 50, {}, "exit code 137"),
            (0, "", 23, {}, "termination message ''"),
            (0, "drained in 9.0 s", 29, {}, "closed 9.0 s after its deletion"),
            (0, "drained in 3.0 s", 23, {"restarts": 1}, "1 restarts"),
        ]:
            problems = Watch().life(code, message, ended_at, **more).problems(5)
            self.assertTrue(any(said in problem for problem in problems), (said, problems))

    def test_an_end_that_nobody_saw(self):
        watch = Watch()
        watch.say("ADDED", {"running": {}}, at=10)
        watch.say("DELETED", {"running": {}}, at=20, deleted=True)
        (pod,) = watch.of("app=web")
        self.assertEqual(pod.problems(5), ["web-1: its end was not seen"])

    def test_a_crash_is_kept_when_the_next_one_runs(self):
        watch = Watch()
        crash = {"terminated": {"exitCode": 75, "message": "workers keep crashing"}}
        watch.say("ADDED", {"waiting": {}}, ready=False, restarts=1, last=crash)
        watch.say("MODIFIED", {"running": {}}, ready=False, restarts=1, last=crash)
        (pod,) = watch.of("app=web")
        self.assertEqual(([end["exitCode"] for end in pod.ends], pod.ready), ([75], False))


class Stream(unittest.TestCase):
    def test_documents_come_in_pieces(self):
        documents = [{"type": "ADDED", "object": {"a": "}{"}}, {"type": "DELETED", "object": {}}]
        text = "\n".join(json.dumps(document, indent=4) for document in documents)
        for size in (1, 7, len(text)):
            pieces = [text[at : at + size] for at in range(0, len(text), size)]
            self.assertEqual(list(events(pieces)), documents)


class Small(unittest.TestCase):
    def test_images(self):
        own = {"name": "load", "newName": "localhost/drainit-test/load", "newTag": "dev"}
        self.assertEqual(image("load", None), own)
        named = {"name": "load", "newName": "registry:5000/load", "newTag": "v1"}
        self.assertEqual(image("load", "registry:5000/load:v1"), named)
        by_digest = {"name": "load", "newName": "registry:5000/load", "digest": "sha256:abc"}
        self.assertEqual(image("load", "registry:5000/load@sha256:abc"), by_digest)

    def test_kinds(self):
        self.assertEqual(kinds([{"failed": {"hang": 1}}, {"failed": {"hang": 2, "reset": 1}}]), {"hang": 3, "reset": 1})


if __name__ == "__main__":
    unittest.main()
