"""A server as `python3 -m http.server` is one: it knows nothing of signals. Says what it has been asked."""
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        # In one piece: other threads write too.
        os.write(1, b"got " + self.path.encode() + b"\n")
        if self.path == "/stream":
            return self.stream()
        time.sleep({"/slow": 1, "/for-ever": 1000}.get(self.path, 0.1))
        # Two parts, as http.server itself sends them.
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"hello\n")

    def stream(self):
        self.send_response(200)
        self.send_header("Content-Length", "20")
        self.end_headers()
        for _ in range(20):
            self.wfile.write(b".")
            time.sleep(0.1)

    def log_message(self, *_):
        pass


ThreadingHTTPServer.request_queue_size = 128
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
