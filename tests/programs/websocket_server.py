"""A WebSocket application on the package websockets: echoes, and says how its callers left."""

import asyncio
import sys

import websockets

left = asyncio.Queue()


async def serve(socket):
    path = socket.request.path
    if path == "/leave":
        return await socket.close(4002, "closing time")
    if path == "/left":
        return await socket.send(await asyncio.wait_for(left.get(), 10))
    if path == "/first":
        await socket.send("welcome " + str(socket.request.headers.get("x-forwarded-client-cert")))
    try:
        async for message in socket:
            await socket.send(message)
    except websockets.ConnectionClosed:
        pass
    finally:
        if path == "/":
            await left.put(f"{socket.close_code} {socket.close_reason}")


async def main():
    async with websockets.serve(serve, "127.0.0.1", int(sys.argv[1]), subprotocols=["chat.v1"], max_size=4 << 20):
        await asyncio.Future()


asyncio.run(main())
