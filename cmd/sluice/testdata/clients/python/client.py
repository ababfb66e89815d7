"""The tasks by means of the package openai, with OpenAI or AsyncOpenAI.

Tasks come as JSON on standard input, run side by side, and each is answered
by one line of JSON. The argument is "sync" or "async".
"""

import asyncio
import base64
import json
import struct
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import openai

PARAMETERS = {
    "type": "object",
    "properties": {"chain": {"type": "string"}},
    "required": ["chain"],
    "additionalProperties": False,
}


def chat_body(task):
    body = {"model": task["model"], "messages": [{"role": "user", "content": task["prompt"]}]}
    if "n" in task:
        body["n"] = task["n"]
    if "tools" in task:
        body["tools"] = [
            {"type": "function", "function": {"name": name, "parameters": PARAMETERS, "strict": True}}
            for name in task["tools"]
        ]
    return body


ASK_USAGE = {"stream_options": {"include_usage": True}}


def completion_body(task):
    return {"model": task["model"], "prompt": task["prompt"]}


def embeddings_body(task):
    body = {"model": task["model"], "input": task["input"]}
    if "encoding" in task:
        body["encoding_format"] = task["encoding"]
    return body


def put(report, key, index, value):
    """Set report[key][index], lengthening the list."""
    values = report.setdefault(key, [])
    values.extend([""] * (index + 1 - len(values)))
    values[index] = value


def read_usage(report, usage):
    if usage is not None:
        report["usage"] = {
            "prompt": usage.prompt_tokens,
            "completion": usage.completion_tokens,
            "total": usage.total_tokens,
        }


def read_whole(report, answer):
    for choice in answer.choices:
        message = getattr(choice, "message", None)
        put(report, "text", choice.index, (message.content or "") if message else choice.text)
        put(report, "finish", choice.index, choice.finish_reason)
        for call in (message.tool_calls if message else None) or []:
            report.setdefault("tools", []).append(
                {"id": call.id, "name": call.function.name, "arguments": call.function.arguments}
            )
    read_usage(report, answer.usage)


def read_tool(report, delta):
    tools = report.setdefault("tools", [])
    while len(tools) <= delta.index:
        tools.append({"id": "", "name": "", "arguments": ""})
    tools[delta.index]["id"] += delta.id or ""
    if delta.function:
        tools[delta.index]["name"] += delta.function.name or ""
        tools[delta.index]["arguments"] += delta.function.arguments or ""


def read_chunk(report, chunk):
    """Return whether the chunk holds text."""
    piece = False
    for choice in chunk.choices:
        delta = getattr(choice, "delta", None)
        text = (delta.content if delta else getattr(choice, "text", "")) or ""
        before = report.get("text", [])
        put(report, "text", choice.index, (before[choice.index] if choice.index < len(before) else "") + text)
        if choice.finish_reason:
            put(report, "finish", choice.index, choice.finish_reason)
        for call in (delta.tool_calls if delta else None) or []:
            read_tool(report, call)
        piece = piece or text != ""
    read_usage(report, chunk.usage)
    return piece


def read_vectors(report, answer):
    report["vectors"] = [
        d.embedding if isinstance(d.embedding, list) else decode(d.embedding) for d in answer.data
    ]


def decode(text):
    data = base64.b64decode(text)
    return list(struct.unpack(f"<{len(data) // 4}f", data))


def describe(error):
    """Tell what a caller can know of an error."""
    body = error.body if isinstance(getattr(error, "body", None), dict) else {}
    headers = getattr(getattr(error, "response", None), "headers", {})
    return {
        "kind": type(error).__name__,
        "message": body.get("message") or str(error),
        "status": getattr(error, "status_code", 0),
        "code": str(getattr(error, "code", None) or ""),
        "type": str(getattr(error, "type", None) or ""),
        "left": headers.get("x-ratelimit-remaining-requests", ""),
        "full": headers.get("x-ratelimit-limit-requests", ""),
    }


def now():
    return round(time.time() * 1000)


def settings(task):
    return {"base_url": task["base_url"], "api_key": task["api_key"], "max_retries": 0}


class Sync:
    """Every task has a thread; clients are shared, since each has a pool of its own."""

    def __init__(self, tasks):
        self.clients = {}
        for task in tasks:
            where = (task["base_url"], task["api_key"])
            if where not in self.clients:
                self.clients[where] = openai.OpenAI(**settings(task))
        self.output = threading.Lock()
        with ThreadPoolExecutor(len(tasks)) as pool:
            list(pool.map(self.perform, tasks))

    def perform(self, task):
        report = {"name": task["name"]}
        try:
            getattr(self, task["op"])(self.clients[task["base_url"], task["api_key"]], task, report)
        except Exception as error:  # whatever the caller would meet
            report["error"] = describe(error)
        with self.output:
            print(json.dumps(report), flush=True)

    def models(self, client, task, report):
        report["models"] = [m.id for m in client.models.list()]

    def model(self, client, task, report):
        report["models"] = [client.models.retrieve(task["model"]).id]

    def chat(self, client, task, report):
        read_whole(report, client.chat.completions.create(**chat_body(task)))

    def stream(self, client, task, report):
        self.read(task, report, client.chat.completions.create(**chat_body(task), stream=True, **ASK_USAGE))

    def read(self, task, report, stream):
        pieces = 0
        with stream:
            for chunk in stream:
                pieces += read_chunk(report, chunk)
                if "leave" in task and pieces == task["leave_after"]:
                    report["left_at"] = now()
                    break

    def assemble(self, client, task, report):
        with client.chat.completions.stream(**chat_body(task), **ASK_USAGE) as stream:
            read_whole(report, stream.get_final_completion())

    def completion(self, client, task, report):
        read_whole(report, client.completions.create(**completion_body(task)))

    def completion_stream(self, client, task, report):
        self.read(task, report, client.completions.create(**completion_body(task), stream=True, **ASK_USAGE))

    def embeddings(self, client, task, report):
        read_vectors(report, client.embeddings.create(**embeddings_body(task)))


class Async:
    """Every task is one of asyncio's; leaving by signal is its cancellation."""

    def __init__(self, tasks):
        self.clients = {}
        asyncio.run(self.perform_all(tasks))

    async def perform_all(self, tasks):
        for task in tasks:
            where = (task["base_url"], task["api_key"])
            if where not in self.clients:
                self.clients[where] = openai.AsyncOpenAI(**settings(task))
        await asyncio.gather(*(self.perform(task) for task in tasks))

    async def perform(self, task):
        report = {"name": task["name"]}
        client = self.clients[task["base_url"], task["api_key"]]
        work = asyncio.ensure_future(getattr(self, task["op"])(client, task, report))
        if "leave_when" in task:
            # The answer there comes when the upstream has been asked.
            await asyncio.to_thread(lambda: urllib.request.urlopen(task["leave_when"]).read())
            self.leave_soon(task, report, work)
        try:
            await work
        except (Exception, asyncio.CancelledError) as error:  # whatever the caller would meet
            report["error"] = describe(error)
        print(json.dumps(report), flush=True)

    def leave_soon(self, task, report, work):
        def leave():
            report["left_at"] = now()
            work.cancel()

        asyncio.get_running_loop().call_later(task.get("leave_pause_ms", 0) / 1000, leave)

    async def models(self, client, task, report):
        report["models"] = [m.id async for m in client.models.list()]

    async def model(self, client, task, report):
        report["models"] = [(await client.models.retrieve(task["model"])).id]

    async def chat(self, client, task, report):
        read_whole(report, await client.chat.completions.create(**chat_body(task)))

    async def stream(self, client, task, report):
        await self.read(task, report, await client.chat.completions.create(**chat_body(task), stream=True, **ASK_USAGE))

    async def read(self, task, report, stream):
        pieces = 0
        async with stream:
            async for chunk in stream:
                piece = read_chunk(report, chunk)
                pieces += piece
                if not piece or "leave" not in task or pieces != task["leave_after"]:
                    continue
                if task["leave"] == "break":
                    report["left_at"] = now()
                    break
                self.leave_soon(task, report, asyncio.current_task())

    async def assemble(self, client, task, report):
        async with client.chat.completions.stream(**chat_body(task), **ASK_USAGE) as stream:
            read_whole(report, await stream.get_final_completion())

    async def completion(self, client, task, report):
        read_whole(report, await client.completions.create(**completion_body(task)))

    async def completion_stream(self, client, task, report):
        stream = await client.completions.create(**completion_body(task), stream=True, **ASK_USAGE)
        await self.read(task, report, stream)

    async def embeddings(self, client, task, report):
        read_vectors(report, await client.embeddings.create(**embeddings_body(task)))


{"sync": Sync, "async": Async}[sys.argv[1]](json.load(sys.stdin))
