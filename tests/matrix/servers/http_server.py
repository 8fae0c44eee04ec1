import http.server
import os
import sys


class Handler(http.server.SimpleHTTPRequestHandler):
    def end_headers(self):
        self.send_header("Served-By", f"pid {os.getpid()}")
        super().end_headers()


os.chdir(os.path.dirname(__file__))
http.server.ThreadingHTTPServer(("", int(sys.argv[1])), Handler).serve_forever()
