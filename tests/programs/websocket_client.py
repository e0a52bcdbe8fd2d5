"""Talks to the application of websocket_server.py at the address given, by the proxy given, if any; prints what it saw
as one JSON object."""

import asyncio
import json
import sys

import websockets

seen = {}


proxy = sys.argv[2] if len(sys.argv) > 2 else None


def connect(path):
    return websockets.connect("ws://" + sys.argv[1] + path, subprotocols=["chat.v1"], max_size=4 << 20, proxy=proxy)


async def echoes():
    async with connect("/") as socket:
        seen["subprotocol"] = socket.subprotocol
        good = 0
        for number in range(200):
            message = f"message {number} \u00e4" if number % 2 else bytes([number % 256]) * (number * 37)
            await socket.send(message)
            good += await socket.recv() == message
        seen["echoed"] = good
        large = b"y" * (2 << 20)
        await socket.send(large)
        seen["large"] = await socket.recv() == large
        seen["pong"] = (await asyncio.wait_for(await socket.ping(), 10)) >= 0
        await socket.close(4001, "enough")
    async with connect("/left") as socket:
        seen["left"] = await socket.recv()


async def others():
    async with connect("/first") as socket:
        seen["first"] = await asyncio.wait_for(socket.recv(), 10)
    async with connect("/leave") as socket:
        try:
            await socket.recv()
        except websockets.ConnectionClosed as closed:
            seen["leave"] = [closed.rcvd.code, closed.rcvd.reason]


async def main():
    await echoes()
    await others()
    print(json.dumps(seen))


asyncio.run(main())
