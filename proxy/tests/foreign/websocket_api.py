"""A client of a WebSocket of the API, made of websockets.

websocket_api.py ADDRESS PORT HOST CA
"""

import asyncio
import ssl
import sys

import websockets.asyncio.client

ADDRESS, PORT, HOST, CA = sys.argv[1:]


async def talk():
    context = ssl.create_default_context(cafile=CA)
    # In one thread: before Python 3.13 two threads that use one TLS connection break it.
    connecting = websockets.asyncio.client.connect(
        f"wss://{HOST}/live", host=ADDRESS, port=int(PORT), ssl=context, proxy=None
    )
    async with asyncio.timeout(30), connecting as client:
        assert await client.recv() == "hello"
        await client.send("over HTTP/1.1")
        assert await client.recv() == "over HTTP/1.1"
        try:
            await client.recv()
            raise AssertionError("it was not closed")
        except websockets.exceptions.ConnectionClosedOK as closed:
            assert closed.rcvd.code == 1000, closed


asyncio.run(talk())
print("done", flush=True)
