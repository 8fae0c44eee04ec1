"""Calls at a steady rate, by a client that retries: `client.py TARGET POLICY CODES RATE MILLISECONDS`.

Says `answered N` from time to time; when its standard input ends it sends no more, waits for its answers, and says as JSON
what has become of all calls.
"""
import collections
import json
import sys
import threading
import time

import grpc

target, policy, codes, rate, milliseconds = sys.argv[1:]

config = {
    "loadBalancingConfig": [{policy: {}}],
    "methodConfig": [
        {
            "name": [{"service": "test.Echo"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": codes.split(","),
            },
        }
    ],
}
options = [("grpc.service_config", json.dumps(config))]
channel = grpc.insecure_channel(target, options=options)
say = channel.unary_unary("/test.Echo/Say")

lock = threading.Lock()
sent = 0
answers = collections.Counter()
retried = 0
errors = []
slowest = 0.0


def done(call, began):
    global retried, slowest
    with lock:
        slowest = max(slowest, time.monotonic() - began)
        if call.code() is grpc.StatusCode.OK:
            server, attempts = call.result().decode().split()
            answers[server] += 1
            retried += attempts != "0"
        else:
            errors.append(f"{call.code().name}: {call.details()}")


over = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
start = time.monotonic()
while not over.is_set():
    due = start + sent / float(rate)
    if over.wait(max(0, due - time.monotonic())):
        break
    began = time.monotonic()
    call = say.future(milliseconds.encode(), timeout=15)
    call.add_done_callback(lambda call, began=began: done(call, began))
    sent += 1
    if sent % 20 == 0:
        with lock:
            print("answered", sum(answers.values()), "failed", len(errors), flush=True)
while True:
    with lock:
        if sum(answers.values()) + len(errors) == sent:
            break
    time.sleep(0.01)
print(
    json.dumps(
        {
            "sent": sent,
            "answers": answers,
            "retried": retried,
            "errors": len(errors),
            "first": errors[:10],
            "slowest_seconds": round(slowest, 3),
            "seconds": round(time.monotonic() - start, 1),
        }
    ),
    flush=True,
)
channel.close()
