"""A load balancer of DeepSpeed-MII over a scripted engine, in one process.

It listens for gRPC and for questions about itself, prints "ready GRPC_PORT STATE_PORT"
and runs until its input ends. The messages are built here from the numbers of the
published protocol, on purpose not from a file that the gateway shares. What it does
wrong is what the real one does wrong:

- an error of a stream is never told: it ends well, without a reason, when nothing has
  come for a while (here STALL seconds instead of ten minutes)
- nobody is told that a caller has gone: generation goes on to its bound
- one thread serves each call; the engine's own dies for good when calls with and
  without some parameter meet, and from then on nobody is answered

A prompt's last word can be a script: "@delay=0.01,tokens=100,fail=3,silent=2".
"""

import collections
import http.server
import json
import queue
import sys
import threading
import time
from concurrent import futures

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

STALL = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
MAX_LENGTH = 512  # tokens of prompt and answer together
EOS = "</s>"
STRING, INT64, FLOAT, BOOL, MESSAGE = 9, 3, 2, 8, 11


def build_messages():
    f = descriptor_pb2.FileDescriptorProto(name="published.proto", package="modelresponse", syntax="proto3")

    def message(name, *fields):
        m = f.message_type.add(name=name)
        for number, (field, kind, repeated, of) in enumerate(fields, 1):
            m.field.add(name=field, number=number, type=kind, label=3 if repeated else 1, type_name=of or None)
        return m

    def map_of_values(m, field, number):
        entry = m.nested_type.add(name="Entry" + str(number))
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=STRING, label=1)
        entry.field.add(name="value", number=2, type=MESSAGE, label=1, type_name=".modelresponse.Value")
        m.field.add(name=field, number=number, type=MESSAGE, label=3, type_name=f".modelresponse.{m.name}.{entry.name}")

    map_of_values(message("Dictionary"), "values", 1)
    value = message("Value", ("svalue", STRING, 0, ""), ("ivalue", INT64, 0, ""), ("fvalue", FLOAT, 0, ""), ("bvalue", BOOL, 0, ""),
                    ("mvalue", MESSAGE, 0, ".modelresponse.Dictionary"))
    value.oneof_decl.add(name="oneof_values")
    for field in value.field:
        field.oneof_index = 0
    map_of_values(message("MultiStringRequest", ("request", STRING, 1, "")), "query_kwargs", 2)
    message("SingleGenerationReply", ("response", STRING, 0, ""), ("finish_reason", STRING, 0, ""), ("prompt_tokens", INT64, 0, ""),
            ("generated_tokens", INT64, 0, ""), ("time_taken", FLOAT, 0, ""), ("model_time_taken", FLOAT, 0, ""))
    message("MultiGenerationReply", ("response", MESSAGE, 1, ".modelresponse.SingleGenerationReply"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(f)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName("modelresponse." + name))
            for name in ("MultiStringRequest", "SingleGenerationReply", "MultiGenerationReply")}


MESSAGES = build_messages()
state = collections.Counter()
last = {}
guard = threading.Lock()
DEFAULTS = {"max_new_tokens": None, "max_length": MAX_LENGTH, "min_new_tokens": 0, "stream": False, "ignore_eos": False,
            "return_full_text": False, "do_sample": True, "top_p": 0.9, "top_k": None, "temperature": None, "stop": None}


def reply(text, reason, prompt, generated):
    one = MESSAGES["SingleGenerationReply"](response=text, finish_reason=reason, prompt_tokens=prompt, generated_tokens=generated,
                                            time_taken=-1, model_time_taken=-1)
    return MESSAGES["MultiGenerationReply"](response=[one])


def unpack(request):
    kwargs = {key: getattr(v, v.WhichOneof("oneof_values")) for key, v in request.query_kwargs.items()}
    with guard:
        last.clear()
        last.update(prompts=list(request.request), kwargs=kwargs)
        state["calls"] += 1
        state["kwargs " + " ".join(sorted(k for k in kwargs if k != "stream"))] += 1
    unknown = set(kwargs) - set(DEFAULTS)
    if unknown:
        raise ValueError(f"Extra inputs are not permitted: {sorted(unknown)}")
    full = {**DEFAULTS, **kwargs}
    if full["temperature"] is not None and full["temperature"] <= 0:
        raise ValueError("temperature: Input should be greater than 0")
    if not 0 < full["top_p"] <= 1:
        raise ValueError("top_p: Input should be less than or equal to 1")
    return list(request.request), full


class Engine:
    """What generates; dead for good once calls of two kinds were under way together."""

    def __init__(self):
        self.running = collections.Counter()
        self.dead = False

    def generate(self, prompt, kwargs):
        """Yields (text, reason, prompt_tokens, generated_tokens); blocks for ever when dead."""
        words = prompt.replace("<|im_end|>", " ").split()
        tokens = len(words)
        if kwargs["max_length"] <= tokens:
            raise AssertionError(f"max_length ({kwargs['max_length']}) must be greater than prompt_length ({tokens})")
        script = next((w[1:] for w in reversed(words) if w.startswith("@")), "")
        plan = dict(part.split("=") for part in script.split(",") if part)
        text = [" " + w for w in ("Tokens flow, one by one. Ünïcödé 日本 🙂" .split())]
        if "tokens" in plan:
            text = [f" {i}" for i in range(int(plan["tokens"]))]
        bound = min(kwargs["max_new_tokens"] or MAX_LENGTH, kwargs["max_length"] - tokens)
        shape = tuple(kwargs[k] is None for k in ("temperature", "top_k"))
        with guard:
            self.running[shape] += 1
            if len(+self.running) > 1:
                self.dead = True
        try:
            for n, token in enumerate(text[:bound], 1):
                if self.dead or n == int(plan.get("silent", -1)):
                    threading.Event().wait()
                if n == int(plan.get("fail", -1)):
                    raise RuntimeError("CUDA error: device-side assert triggered")
                time.sleep(float(plan.get("delay", 0)))
                yield token, "none", tokens, n
            if len(text) < bound:
                yield EOS, "none", tokens, len(text) + 1
                yield "", "stop", tokens, len(text) + 1
            else:
                yield "", "length", tokens, bound
        finally:
            with guard:
                self.running[shape] -= 1


engine = Engine()


def generator_reply(request, context):
    prompts, kwargs = unpack(request)
    if kwargs["stream"]:
        with guard:
            state["poisoned"] += 1
    replies = MESSAGES["MultiGenerationReply"]()
    for prompt in prompts:
        text = ""
        for token, reason, tokens, n in engine.generate(prompt, kwargs):
            text += "" if token == EOS else token
            if not context.is_active():
                with guard:
                    state["after_cancel"] += 1
        replies.response.extend(reply(text, reason, tokens, n).response)
    return replies


def generator_reply_stream(request, context):
    """The load balancer's part: it hands on what a thread of its own gets."""
    left = threading.Event()

    def gone():
        with guard:
            state["streams_ended"] += 1
        left.set()

    context.add_callback(gone)
    results = queue.Queue()

    def replica():
        try:
            prompts, kwargs = unpack(request)
            for token, reason, tokens, n in engine.generate(prompts[0], kwargs):
                results.put(reply(token, reason, tokens, n))
                if left.is_set():
                    with guard:
                        state["after_cancel"] += 1
        except Exception:  # as there: raised in a thread that nobody looks at
            with guard:
                state["hidden_errors"] += 1

    threading.Thread(target=replica, daemon=True).start()
    while True:
        try:
            r = results.get(timeout=STALL)
        except queue.Empty:
            return
        yield r
        if r.response[0].finish_reason != "none":
            return


class Service(grpc.GenericRpcHandler):
    def service(self, call):
        handlers = {
            "/modelresponse.ModelResponse/GeneratorReply": (grpc.unary_unary_rpc_method_handler, generator_reply),
            "/modelresponse.ModelResponse/GeneratorReplyStream": (grpc.unary_stream_rpc_method_handler, generator_reply_stream),
        }
        if call.method == "/modelresponse.ModelResponse/Terminate":
            with guard:
                state["terminated"] += 1
        if call.method not in handlers:
            raise RuntimeError("an unknown method meets the interceptor")
        kind, do = handlers[call.method]
        return kind(do, request_deserializer=MESSAGES["MultiStringRequest"].FromString,
                    response_serializer=MESSAGES["MultiGenerationReply"].SerializeToString)


class State(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with guard:
            body = json.dumps({"counts": dict(state), "last": last, "dead": engine.dead}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def main():
    limits = [("grpc.max_send_message_length", 1 << 27), ("grpc.max_receive_message_length", 1 << 27)]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=256), handlers=[Service()], options=limits)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), State)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    print("ready", port, web.server_address[1], flush=True)
    sys.stdin.read()
    server.stop(0)


main()
