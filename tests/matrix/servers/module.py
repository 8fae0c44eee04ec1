"""What `python3 -m http.server` runs, but that its answers take 50 ms and that it does not write a line about each."""
import http.server
import os
import sys
import time


class Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        time.sleep(0.05)
        super().do_GET()

    def log_request(self, *_):
        pass


os.chdir(os.path.dirname(__file__))
http.server.test(Handler, http.server.ThreadingHTTPServer, port=int(sys.argv[1]))
