"""A server as gRPC's own examples have it: on SIGTERM it takes no call more and finishes those that it has."""
import os
import signal
import sys
import threading
import time
from concurrent import futures

import grpc

port = sys.argv[1]


def answer(request, context):
    """After as many milliseconds as the request says; who has answered, and after how many attempts."""
    metadata = dict(context.invocation_metadata())
    time.sleep(int(request) / 1000)
    return f"{port} {metadata.get('grpc-previous-rpc-attempts', 0)}".encode()


told = threading.Event()
# It listens before it has started, and a server that is stopped before that never ends.
signal.signal(signal.SIGTERM, lambda *_: told.set())

handler = grpc.method_handlers_generic_handler(
    "test.Echo", {"Say": grpc.unary_unary_rpc_method_handler(answer)}
)
server = grpc.server(futures.ThreadPoolExecutor(32), handlers=[handler])
if server.add_insecure_port(f"0.0.0.0:{port}") != int(port):
    sys.exit(f"no port {port}")
server.start()
told.wait()
stopped = server.stop(20)
# In one piece: other threads write too.
os.write(1, b"stopping\n")
stopped.wait()
