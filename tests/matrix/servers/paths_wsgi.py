import time


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return parts()
    if path == "/slow":
        time.sleep(0.1)
    body = b"hello\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def parts():
    for left in range(30):
        time.sleep(0.1)
        yield b"part %d\n" % left
    yield b"whole\n"
