"""A client of the protocol by means of the package websockets.

Tasks come as JSON on standard input, run side by side, and each is answered
by one line of JSON: every frame that came.
"""

import asyncio
import json
import sys
import time

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

OVER = {"done", "cancelled", "error"}


async def perform(task):
    report = {"name": task["name"], "frames": []}
    try:
        await exchange(task, report)
    except InvalidStatus as error:
        body = (error.response.body or b"").decode()
        report["error"] = {"kind": "InvalidStatus", "status": error.response.status_code, "message": body}
    except Exception as error:  # whatever the caller would meet
        report["error"] = {"kind": type(error).__name__, "message": str(error)}
    print(json.dumps(report), flush=True)


async def exchange(task, report):
    settings = {
        "additional_headers": task.get("headers"),
        "subprotocols": task.get("protocols"),
        "proxy": None,
        "max_size": None,
    }
    async with connect(task["url"], **settings) as socket:
        report["protocol"] = socket.subprotocol or ""
        report["extensions"] = ", ".join(e.name for e in socket.protocol.extensions)
        if task.get("ping"):
            await asyncio.wait_for(await socket.ping("are you there?"), 10)
            report["pong"] = "are you there?"  # the library compares
        for text in task["send"]:
            await socket.send(text)
        for _ in range(task.get("binary", 0)):
            await socket.send(b"{}")
        await read(task, report, socket)
    report["close_code"] = socket.close_code
    report["close_reason"] = socket.close_reason


async def read(task, report, socket):
    left, chunks = task["until"], 0
    try:
        async for text in socket:
            report["frames"].append(text if isinstance(text, str) else "binary!")
            frame = json.loads(text)
            chunks += frame["type"] == "chunk"
            if frame["type"] == "chunk" and chunks == task.get("cancel_after"):
                report["left_at"] = round(time.time() * 1000)
                await socket.send(json.dumps({"type": "cancel", "stream_id": frame["stream_id"]}))
            left -= frame["type"] in OVER
            if left == 0 and frame["type"] in OVER:
                await socket.close(1000, "thank you")
    except ConnectionClosed:
        pass  # its code is told


async def main():
    await asyncio.gather(*(perform(task) for task in json.load(sys.stdin)))


asyncio.run(main())
