# What server.js answers, for servers that speak ASGI.
import asyncio
import os


async def app(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"] == "/1ms":
        await asyncio.sleep(0.001)
    body = b"%d" % os.getpid()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
