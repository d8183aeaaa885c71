"""A container's program: a WebSocket server that returns every message.

websocket_origin.py ADDRESS PORT
"""

import asyncio
import http
import logging
import sys

import websockets.asyncio.server


async def echo(connection):
    async for message in connection:
        await connection.send(message)


def judge(connection, request):
    if request.path == "/refused":
        return connection.respond(http.HTTPStatus.FORBIDDEN, "not for you\n")
    if request.path == "/page":
        return connection.respond(http.HTTPStatus.OK, "a page\n")
    return None


def choose(_connection, offered):
    return "chat" if "chat" in offered else None


async def main(address, port):
    # Errors of clients are what the tests make.
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    serve = websockets.asyncio.server.serve
    # It says nothing by itself, however long a test takes.
    how = {"max_size": None, "ping_interval": None}
    async with serve(
        echo, address, port, process_request=judge, select_subprotocol=choose, **how
    ):
        print("ready", flush=True)
        await asyncio.Future()


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
