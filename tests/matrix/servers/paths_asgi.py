import asyncio


async def app(scope, receive, send):
    assert scope["type"] == "http"
    body, headers = b"hello\n", [(b"content-type", b"text/plain")]
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for left in range(30):
            await asyncio.sleep(0.1)
            await send({"type": "http.response.body", "body": b"part %d\n" % left, "more_body": True})
        await send({"type": "http.response.body", "body": b"whole\n"})
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(0.1)
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
