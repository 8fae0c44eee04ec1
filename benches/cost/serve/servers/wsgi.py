# What server.js answers, for servers that speak WSGI.
import os
import time


def app(environ, start_response):
    if environ["PATH_INFO"] == "/1ms":
        time.sleep(0.001)
    body = b"%d" % os.getpid()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
