import os
import sys

from aiohttp import web


async def answer(request):
    return web.Response(text=f"pid {os.getpid()}\n")


app = web.Application()
app.router.add_get("/", answer)
web.run_app(app, port=int(sys.argv[1]))
