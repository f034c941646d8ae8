"""An OpenAI-compatible server on 127.0.0.1 that answers by a hash of the prompt, and
that can fail in all the ways in which servers do.

Its language model has a vocabulary of 36 tokens, one character each except for the end
token and, if `merged`, "10". What comes next is a function of the whole text before it.
"""

import contextlib
import hashlib
import json
import math
import random
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

END = "<|end|>"
LETTERS = tuple("0123456789abcdefghijklmnopqrstuvw?.")
AWAY = 0.25  # seconds that a server is away, or another one in its place
FAULTS = (
    "refused", "reset", "429", "500", "hang", "truncated", "no json", "schema", "empty",
    "label", "another model",
)  # fmt: skip


def uniform(*key) -> float:
    """A number in [0, 1) that is a function of `key`."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48


def write(text: str, seed: int | None) -> str:
    """What the model says after `text`, unless it is told otherwise."""
    return "".join(random.Random(f"{text}{seed}").choices("abcdef", k=12))


class TeacherServer:
    """`with TeacherServer() as server:` serves at `server.url` until the block ends.

    `faults` gives the probability of each fault; whether one happens is a function of
    `seed`, the request and how often it was made. `without` names what it cannot do:
    logprobs, constraint, continuing. `strict` refuses unknown fields, as OpenAI does.
    `refuses(body)` gives (status, answer) for a request that it refuses, else None;
    `models` is what /models answers, or the status with which it does not.
    """

    def __init__(
        self, *, model="teacher", faults=None, seed=0, without=(), strict=False,
        constraint="structured_outputs", top=20, merged=False, write=write,
        answers_as=None, busy_above=None, delay=0.0, key=None, info=None, decode=None,
        refuses=lambda body: None, models=None,
    ):  # fmt: skip
        self.model = self.own_model = model
        self.weights = None  # the folder that it names, if not the model's own
        self.vocabulary = (*LETTERS, END, *(["10"] if merged else []))
        self.faults = dict(faults or {})
        self.seed, self.without, self.strict = seed, without, strict
        self.constraint, self.top, self.write = constraint, top, write
        self.answers_as, self.key, self.info = answers_as, key, info
        self.busy_above, self.delay = busy_above, delay
        self.refuses, self.models = refuses, models
        self.decode = decode  # of prompts that are token ids; None: such are refused
        self.bodies: list[dict] = []  # of the requests that were answered well
        self.failed = Counter()  # how often each fault happened
        self.most_at_once = self.asked_who = 0  # the latter: requests of /models
        self.stopped = False  # connections are taken, and nothing is said
        self.raw: tuple[int, bytes] | None = None  # status and body of every answer
        self.endless = False  # bytes come for ever
        self._tries, self._at_once = Counter(), 0
        self._lock, self._over = threading.Lock(), threading.Event()
        self._connections: set = set()
        self._port = 0

    def __enter__(self):
        self._listen()
        self.url = f"http://127.0.0.1:{self._port}/v1"
        return self

    def __exit__(self, *_):
        self._over.set()
        self.go_away()

    def _listen(self) -> None:
        class Server(ThreadingHTTPServer):
            daemon_threads = allow_reuse_address = True
            request_queue_size = 256
            teacher = self

        self._http = Server(("127.0.0.1", self._port), Handler)
        self._port = self._http.server_address[1]
        threading.Thread(
            target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    def go_away(self) -> None:
        """Connections break, and new ones are refused."""
        self._http.shutdown()
        self._http.server_close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def come_back(self) -> None:
        """Listens again where it did."""
        self._listen()

    def bounce(self) -> None:
        """Is away for a while."""
        with self._lock:
            if self._over.is_set():
                return
            self.go_away()
            self._over.wait(AWAY)
            if not self._over.is_set():
                self.come_back()

    def swap(self) -> None:
        """Another model is served for a while."""
        if self.model == self.own_model:
            self.model = "another"
            threading.Timer(AWAY, self.swap_back).start()

    def swap_back(self) -> None:
        self.model = self.own_model

    def draw_fault(self, body: dict) -> str | None:
        text = json.dumps(body, sort_keys=True)
        with self._lock:
            self._tries[text] += 1
            tries = self._tries[text]
        draw = uniform(self.seed, text, tries)
        for fault, rate in self.faults.items():
            draw -= rate
            if fault == "label" and budget(body) >= 64:
                continue  # a free text: there is no label in it to be wrong
            if draw < 0:
                self.failed[fault] += 1
                return fault
        return None

    @contextlib.contextmanager
    def counted(self):
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield self._at_once
        finally:
            with self._lock:
                self._at_once -= 1

    def next_probs(self, text: str) -> dict[str, float]:
        """The distribution of the next token."""
        weights = {
            token: math.exp(7 * uniform(self.own_model, text, token))
            for token in self.vocabulary
        }
        total = sum(weights.values())
        return {token: weight / total for token, weight in weights.items()}

    def label_probs(self, text: str, labels) -> list[float]:
        """The exact probability of each label as an answer, by going through all ways
        to spell it."""

        def spelled(before: str, rest: str) -> float:
            if not rest:
                return 1.0
            probs = self.next_probs(before)
            return sum(
                p * spelled(before + token, rest[len(token) :])
                for token, p in probs.items()
                if rest.startswith(token)
            )

        def goes_on(label: str) -> float:
            longer = [other for other in labels if other.startswith(label)]
            return sum(
                spelled(text + label, other.removeprefix(label))
                for other in longer
                if other != label
            )

        return [spelled(text, label) * (1 - goes_on(label)) for label in labels]

    def answer(self, body: dict, chat: bool) -> dict:
        """The answer to a request that is well and finds the server well."""
        prompt = body.get("prompt")
        if isinstance(prompt, list):
            body = body | {"prompt": self.decode(prompt)}
        text = render(body, chat, "continuing" not in self.without)
        choices = self._choices(body)
        top = body.get("top_logprobs", 0) if chat else body.get("logprobs", 0)
        probs = self.next_probs(text)
        if choices:
            probs = {t: p for t, p in probs.items() if begins_one(t, choices)}
            total = sum(probs.values())
            probs = {token: p / total for token, p in probs.items()}
        if choices:
            rng = random.Random(f"{text}{body.get('seed')}")
            labels = self.label_probs(text, choices)
            likeliest = choices[labels.index(max(labels))]
            cold = body.get("temperature", 1.0) == 0.0
            said = likeliest if cold else rng.choices(choices, labels)[0]
        else:
            said = self.write(text, body.get("seed"))
        most = budget(body)
        stop = None
        if "stop" not in self.without:
            said, stop = until(said, body.get("stop") or ())
            said += stop or "" if body.get("include_stop_str_in_output") else ""
        choice = {
            "index": 0,
            "finish_reason": "stop" if len(said) <= most else "length",
            "logprobs": self._logprobs(probs, top, chat) if top else None,
        }
        if "stop_reason" not in self.without and len(said) <= most:
            choice["stop_reason"] = stop
        said = said[:most]
        choice |= {"message": {"content": said}} if chat else {"text": said}
        read = len(prompt) if isinstance(prompt, list) else len(text)
        tokens = {"prompt_tokens": read, "completion_tokens": len(said)}
        name = self.answers_as or body["model"]  # `model` may change meanwhile
        return {"model": name, "choices": [choice], "usage": tokens}

    def _choices(self, body: dict) -> list[str] | None:
        if "constraint" in self.without or self.constraint not in body:
            return None
        given = body[self.constraint]
        return given["choice"] if self.constraint == "structured_outputs" else given

    def _logprobs(self, probs: dict, top: int, chat: bool) -> dict | None:
        if "logprobs" in self.without:
            return None
        # As vLLM: what a constraint rules out is listed too, at -9999.
        probs = dict.fromkeys(self.vocabulary, 0.0) | probs
        listed = sorted(probs, key=probs.get, reverse=True)[:top]
        logs = {t: math.log(probs[t]) if probs[t] else -9999.0 for t in listed}
        if not chat:
            return {"tokens": listed[:1], "top_logprobs": [logs]}
        rows = [{"token": token, "logprob": log} for token, log in logs.items()]
        return {"content": [rows[0] | {"top_logprobs": rows}]}


def render(body: dict, chat: bool, continuing: bool = True) -> str:
    """The text that the model goes on from."""
    if not chat:
        return body["prompt"]
    turns = [f"<{m['role']}>{m['content']}{END}" for m in body["messages"]]
    if continuing and body.get("continue_final_message"):
        return "".join(turns).removesuffix(END)
    return "".join(turns) + "<assistant>"


def budget(body: dict) -> int:
    """How many tokens a request allows."""
    return body.get("max_tokens", body.get("max_completion_tokens", 16))


def until(text: str, stops) -> tuple[str, str | None]:
    """(the text before the first of `stops`, which one that is)."""
    found = [(text.find(stop), stop) for stop in stops if stop in text]
    return (text[: min(found)[0]], min(found)[1]) if found else (text, None)


def begins_one(token: str, choices) -> bool:
    return any(choice.startswith(token) for choice in choices)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # which delays each answer by 40 ms

    def setup(self):
        super().setup()
        self.teacher: TeacherServer = self.server.teacher
        self.teacher._connections.add(self.connection)

    def finish(self):
        self.teacher._connections.discard(self.connection)
        with contextlib.suppress(OSError):
            super().finish()

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (OSError, json.JSONDecodeError):  # whoever asked is gone
            self.close_connection = True

    def log_message(self, *_):
        pass

    def wait_while_stopped(self):
        while self.teacher.stopped and not self.teacher._over.is_set():
            time.sleep(0.02)

    def do_GET(self):
        self.teacher.asked_who += self.path == "/v1/models"
        self.wait_while_stopped()
        if self.path == "/v1/models" and isinstance(self.teacher.models, int):
            self.send({"detail": "Not here"}, self.teacher.models)
        elif self.path == "/v1/models" and self.teacher.models is not None:
            self.send(self.teacher.models)
        elif self.path == "/v1/models":
            model = self.teacher.model
            card = {"id": model, "root": self.teacher.weights or f"/models/{model}"}
            self.send({"object": "list", "data": [card]})
        elif self.path == "/tokenizer_info" and isinstance(self.teacher.info, int):
            self.send({"detail": "Not here"}, self.teacher.info)
        elif self.path == "/tokenizer_info" and self.teacher.info:
            self.send(self.teacher.info)
        else:
            self.send({"error": {"message": "no such thing"}}, 404)

    def do_POST(self):
        teacher = self.teacher
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with teacher.counted() as at_once:
            time.sleep(teacher.delay)
            self.wait_while_stopped()
            if teacher.busy_above and at_once > teacher.busy_above:
                self.send({"error": {"message": "busy"}}, 429)
                return
            if teacher.endless:
                self.pour()
                return
            if teacher.raw:
                self.send(teacher.raw[1], teacher.raw[0])
                return
            if refusal := teacher.refuses(body):
                self.send(refusal[1], refusal[0])
                return
            problem = self.problem(body)
            fault = None if problem else teacher.draw_fault(body)
            if problem:
                self.send({"error": {"message": problem[1]}}, problem[0])
            elif fault:
                self.fail(fault, body)
            else:
                answer = teacher.answer(body, "chat" in self.path)
                teacher.bodies.append(body)  # before whoever waits for it goes on
                self.send(answer)

    def problem(self, body: dict) -> tuple[int, str] | None:
        """(status, message) for a request that is refused."""
        teacher = self.teacher
        known = {
            "model", "messages", "prompt", "max_tokens", "temperature", "seed",
            "logprobs", "top_logprobs", "top_p", "stop", "max_completion_tokens",
        }  # fmt: skip
        if teacher.key and self.headers["Authorization"] != f"Bearer {teacher.key}":
            return 401, f"wrong key: {self.headers['Authorization']}"
        if body["model"] != teacher.model:
            return 404, f"The model {body['model']} does not exist."
        if teacher.strict and set(body) - known:
            return 400, f"unknown: {sorted(set(body) - known)}"
        shown = body.get("top_logprobs", 0), int(body.get("logprobs", 0))
        if max(shown) > teacher.top:
            return 400, f"at most {teacher.top} log-probabilities"
        if isinstance(body.get("prompt"), list) and not teacher.decode:
            return 400, "a prompt is a text"
        if "too long" in json.dumps(body):
            return 400, "the prompt is too long"
        return None

    def send(self, body, status: int = 200, headers=None):
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def fail(self, fault: str, body: dict):
        teacher = self.teacher
        good = teacher.answer(body, "chat" in self.path)
        raw = json.dumps(good).encode()
        if fault == "refused":
            self.close_connection = True
            teacher.bounce()
        elif fault == "another model":
            teacher.swap()
            self.hang_up()
        elif fault == "reset":
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw[: len(raw) // 2])
            self.wfile.flush()
            self.hang_up()
        elif fault == "429":
            self.send({"error": {"message": "slow down"}}, 429, {"Retry-After": "0.05"})
        elif fault == "500":
            self.send({"error": {"message": "out of memory"}}, 500)
        elif fault == "hang":
            teacher._over.wait(3)
            self.hang_up()
        elif fault == "truncated":
            self.send(raw[: len(raw) // 2])
        elif fault == "no json":
            self.send(
                b"<html>502 Bad Gateway</html>", headers={"Content-Type": "text/html"}
            )
        elif fault == "schema":
            self.send({"object": "list", "data": []})
        elif fault == "empty":
            self.send(good | {"choices": []})
        elif fault == "drip":
            self.drip(raw)
        elif fault == "label":
            self.send(off_the_scale(good))

    def drip(self, raw: bytes):
        """Sends a byte now and then."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        for byte in raw:
            self.wfile.write(bytes([byte]))
            self.teacher._over.wait(0.3)

    def pour(self):
        """Sends bytes until the other side has enough."""
        self.close_connection = True
        self.send_response(200)
        self.end_headers()
        while not self.teacher._over.is_set():
            self.wfile.write(bytes(2**20))

    def hang_up(self):
        """Closes with a reset rather than a farewell."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()
        self.close_connection = True


def off_the_scale(good: dict) -> dict:
    """The answer with nothing in it but "Z"."""
    (choice,) = good["choices"]
    choice = dict(choice)
    if "message" in choice:
        row = {"token": "Z", "logprob": 0.0}
        choice["message"] = {"content": "Z"}
        shown = {"content": [row | {"top_logprobs": [row]}]}
    else:
        choice["text"] = "Z"
        shown = {"tokens": ["Z"], "top_logprobs": [{"Z": 0.0}]}
    if choice["logprobs"]:
        choice["logprobs"] = shown
    return good | {"choices": [choice]}
