"""DeepSpeed-MII's own load balancer and server of a replica, over a scripted engine.

What needs a GPU is left out: the engine, and with it torch and deepspeed, whose names
are only imported. All between the gateway's call and the engine is the package's own
code: messages, interceptor, queues, the check of parameters. Prints
"ready GRPC_PORT STATE_PORT" and runs until its input ends.
"""

import http.server
import importlib.abc
import importlib.machinery
import importlib.util
import itertools
import json
import os
import queue
import socket
import sys
import threading
import time
import types

import pydantic

ABSENT = ("torch", "deepspeed", "transformers", "huggingface_hub", "ujson", "zmq", "safetensors", "requests", "tqdm")


class ConfigModel(pydantic.BaseModel):
    """As deepspeed's base class does: unknown parameters are refused."""

    model_config = pydantic.ConfigDict(extra="forbid", validate_default=True, arbitrary_types_allowed=True, protected_namespaces=())


class Names(types.ModuleType):
    """A module of which only names are needed."""

    def __getattr__(self, name):
        if name == "DeepSpeedConfigModel":
            return ConfigModel
        if name == "__version__":
            return "0"
        if name.startswith("__"):
            raise AttributeError(name)
        return ConfigModel if name.endswith("Config") else type(name, (), {"dtype": None})


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ABSENT:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return Names(spec.name)

    def exec_module(self, module):
        module.__path__ = []


sys.meta_path.append(Finder())
ROOT = importlib.util.find_spec("mii").submodule_search_locations[0]
for package in ("", "backend", "batching", "batching/generation", "modeling", "grpc_related"):
    name = ".".join(["mii"] + [p for p in package.split("/") if p])
    module = types.ModuleType(name)  # the package itself, without what its __init__ would import
    module.__path__ = [os.path.join(ROOT, package)]
    sys.modules[name] = module

from mii.batching.data_classes import Response  # noqa: E402
from mii.config import GenerateParamsConfig  # noqa: E402
from mii.constants import GenerationFinishReason, TaskType  # noqa: E402
from mii.grpc_related import modelresponse_server as server  # noqa: E402

TEXT = [" Tokens", " flow,", " one", " by", " one.", " Ünïcödé", " 日本", " 🙂"]
state = {"calls": 0, "generated": 0, "keys": []}


class Pipeline:
    """In place of the asynchronous pipeline: a thread's requests are answered in turn."""

    def __init__(self):
        self.results = {}  # by thread, as there
        self.uids = itertools.count(1)
        self.running = set()

    def put_request(self, prompt, kwargs):
        state["calls"] += 1
        state["keys"].append(" ".join(sorted(k for k in kwargs if k != "stream")))
        kwargs = {"max_length": 512, **kwargs, "prompt_length": len(prompt.split())}
        params = GenerateParamsConfig(**kwargs)
        uid, tid = next(self.uids), threading.get_ident()
        self.running.add(uid)
        threading.Thread(target=self.generate, args=(uid, self.results.setdefault(tid, queue.Queue()), prompt, params), daemon=True).start()
        return uid

    def generate(self, uid, out, prompt, params):
        count = int(prompt.split("tokens=")[1].split()[0]) if "tokens=" in prompt else len(TEXT)
        tokens = [TEXT[i % len(TEXT)] for i in range(count)] + ["</s>"]
        ended = len(tokens) <= params.max_new_tokens
        tokens = tokens[:params.max_new_tokens]
        for n, token in enumerate(tokens, 1):
            if "slowly" in prompt:
                time.sleep(0.02)
            state["generated"] += 1
            if params.stream:
                out.put((uid, Response(token, params.prompt_length, n, GenerationFinishReason.NONE)))
        reason = GenerationFinishReason.STOP if ended else GenerationFinishReason.LENGTH
        text = "" if params.stream else "".join(t for t in tokens if t != "</s>")
        out.put((uid, Response(text, params.prompt_length, len(tokens), reason)))

    def get_response(self):
        return self.results[threading.get_ident()].get()

    def flush_uid(self, uid):
        self.running.discard(uid)


class State(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"counts": {"calls": state["calls"], "generated": state["generated"], "key_sets": len(set(state["keys"]))}}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def await_port(port):
    for _ in range(1200):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    sys.exit("a server does not listen")


def main():
    replica, balancer = free_port(), free_port()
    out, sys.stdout = sys.stdout, sys.stderr  # the servers print
    threading.Thread(target=server._do_serve, args=(server.ModelResponse(Pipeline()), replica), daemon=True).start()
    await_port(replica)
    config = types.SimpleNamespace(task=TaskType.TEXT_GENERATION, replica_configs=[types.SimpleNamespace(hostname="localhost", tensor_parallel_ports=[replica])])

    def balance():
        import asyncio

        asyncio.set_event_loop(asyncio.new_event_loop())
        server.serve_load_balancing(config, balancer)

    threading.Thread(target=balance, daemon=True).start()
    await_port(balancer)
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), State)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    print("ready", balancer, web.server_address[1], file=out, flush=True)
    sys.stdin.read()
    os._exit(0)


main()
