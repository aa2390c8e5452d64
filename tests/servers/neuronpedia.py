"""A real HTTP server that answers like Neuronpedia's API and its S3 bucket, and fails on demand.

Lists are made and read as the API's own description says: POST list/new-with-features checks its body, wants a key,
silently skips latents that it does not have, and answers with the list and its address; list/list gives a user's own
lists, list/get one list with its latents, whose indices are text, at most 300 of them.

It holds latents with their explanations, of which a part stands in gzipped batches of the bulk export (sorted by the
index as text, rows twice, index as text or number). It notes every request. Faults are drawn by the number of the
request, so a run's faults depend on nothing but their order.
"""

import gzip
import json
import random
import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

FAULTS = ("429", "500", "502", "slow", "cut", "html", "malformed", "shape")
KEY = "sk-np-a-key-of-the-test"
NO_KEY = "This endpoint requires authorization. Specify your API key in the header x-api-key."
SHOWN = 300
NO_SUCH = "The model, source, or feature you specified is not available."


class Seen(NamedTuple):
    """A request: when it came, its route, the latents or the key it asked for, the fault it met, and its headers."""

    at: float
    route: str
    asked: tuple
    fault: str
    headers: dict


class Neuronpedia:
    """The server; use it as a context manager.

    `latents` maps a latent to its explanations, (description, explanationModelName, typeName) each; an empty list is a
    latent without explanation, and one that is not there does not exist. `exported` are those in the bulk export, None
    for no export at all; `newer` are explanations that it does not have yet. `scores` maps a text to its scores. Only
    `limit` requests to the API are answered in any `window` seconds. `fault_rate` of the requests meet a fault of
    `faults`; `always` maps a route to its fault.
    """

    def __init__(
        self,
        latents,
        *,
        exported=None,
        rows_per_batch=1024,
        keys_per_page=1000,
        fault_rate=0.0,
        faults=FAULTS,
        seed=0,
        always=None,
        delay=0.0,
        echo_headers=False,
        newer=None,
        scores=None,
        limit=None,
        window=3600.0,
    ):
        self.latents, self.model, self.layer = latents, "gemma-2-2b", "20-gemmascope-res-16k"
        self.newer, self.scores, self.limit, self.window, self.lists = newer or {}, scores or {}, limit, window, {}
        self._times, self.numbers = [], count()
        self.fault_rate, self.faults, self.always = fault_rate, faults, always or {}
        self.delay, self.keys_per_page, self.echo_headers = delay, keys_per_page, echo_headers
        self.seen, self.sent = [], Counter()
        # What rows say beside explanations, by latent, and what a single row says of its source.
        self.shown, self.source = {}, None
        self._random, self._lock = random.Random(seed), threading.Lock()
        self.objects = self._export(exported, rows_per_batch) if exported is not None else {}

    def __enter__(self):
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def options(self):
        """The options of a source that asks this server, quickly."""
        quick = {"requests_per_second": 1000, "concurrency": 8, "backoff_seconds": 0.01, "timeout_seconds": 2}
        return {"base_url": f"{self.url}/api", "export_url": f"{self.url}/s3", **quick}

    def asked(self, *routes):
        """Return what was asked for, in order, on these routes (all when none is named)."""
        return [one for one in self.seen if not routes or one.route in routes]

    def note(self, route, asked, headers):
        """Note a request and return the fault it meets, "" for none."""
        with self._lock:
            fault = self._random.choice(self.faults) if self._random.random() < self.fault_rate else ""
            fault = self.always.get(route, fault)
            self.seen.append(Seen(time.monotonic(), route, asked, fault, headers))
        return fault

    def left(self):
        """Count a request to the API; return how many are left of the limit, below 0 beyond it, None without limit."""
        if self.limit is None:
            return None
        with self._lock:
            now = time.monotonic()
            self._times = [at for at in self._times if at > now - self.window]
            if len(self._times) >= self.limit:
                return -1
            self._times.append(now)
            return self.limit - len(self._times)

    def row(self, latent, *, alone=False, **extra):
        """Return a latent as the API gives it, with fields that nobody reads; only `alone` with scores."""
        said = [
            {"description": text, "explanationModelName": model, "typeName": kind}
            | ({"id": f"e{latent}", "scores": self.scores.get(text, [])} if alone else {})
            for text, model, kind in [*self.latents[latent], *self.newer.get(latent, [])]
        ]
        row = {"modelId": self.model, "layer": self.layer, "index": str(latent), "maxActApprox": 1.5}
        row |= {"activations": [], "vector": [], "pos_str": ["▁a\u0000"], "explanations": said}
        return row | self.shown.get(latent, {}) | extra

    def _export(self, exported, rows_per_batch):
        """Return the objects of the bucket: key -> bytes."""
        rows = []
        for latent in sorted(exported, key=str):
            for place, (text, model, kind) in enumerate(self.latents[latent]):
                row = {"id": f"c{latent}", "modelId": self.model, "layer": self.layer, "authorId": "bot"}
                row |= {"index": latent if latent % 3 == 0 else str(latent), "description": text}
                row |= {"embedding": "[0.01,-0.02]", "typeName": kind, "explanationModelName": model}
                rows += [row, row] if place == 0 and latent % 50 == 0 else [row]
        folder = f"v1/{self.model}/{self.layer}/explanations/"
        objects = {folder + "sub/batch-0.jsonl.gz": b"not for us", folder + "readme.txt": b"nor this"}
        for number, start in enumerate(range(0, len(rows), rows_per_batch)):
            lines = "".join(json.dumps(row) + "\n" for row in rows[start : start + rows_per_batch])
            objects[f"{folder}batch-{number}.jsonl.gz"] = gzip.compress(lines.encode(), mtime=0)
        return objects

    def page(self, prefix, token):
        """Return one page of the bucket's listing."""
        keys = sorted(key for key in self.objects if key.startswith(prefix))
        start = int(token or 0)
        here, more = keys[start : start + self.keys_per_page], start + self.keys_per_page < len(keys)
        contents = "".join(f"<Contents><Key>{escape(key)}</Key><Size>1</Size></Contents>" for key in here)
        following = f"<NextContinuationToken>{start + self.keys_per_page}</NextContinuationToken>" if more else ""
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>neuronpedia-datasets</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(here)}</KeyCount>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{following}{contents}</ListBucketResult>"
        )


def list_problem(body):
    """Return what is wrong with the body of list/new-with-features, by the API's own schema; "" if nothing is."""
    if not (isinstance(body, dict) and isinstance(body.get("name"), str) and body["name"].strip()):
        return "List name is required"
    for one in body.get("features", []):
        if not all(isinstance(one.get(name), str) and one[name] for name in ("modelId", "layer")):
            return "modelId and layer are required"
        if type(one.get("index")) is not int:
            return "index must be an integer"
        if not isinstance(one.get("description", ""), str):
            return "description must be a string"
    return ""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        """Say nothing: clients that hang up or are killed are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def do_GET(self):
        owner, parts = self.server.owner, urlsplit(self.path)
        steps = parts.path.strip("/").split("/")
        if steps[:2] == ["api", "feature"] and len(steps) == 5:
            latent = int(steps[4]) if steps[4].isdigit() else -1
            known = (steps[2], steps[3]) == (owner.model, owner.layer) and latent in owner.latents
            found = {"error": NO_SUCH, "message": NO_SUCH}
            body = json.dumps(owner.row(latent, alone=True, source=owner.source) if known else found)
            self.answer("feature", (latent,), 200 if known else 404, body)
        elif steps[0] == "s3" and parts.query:
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            token = query.get("continuation-token", "")
            body = owner.page(query["prefix"], token)
            self.answer("listing", (token,), 200, body, "application/xml")
        elif steps[0] == "s3":
            key = "/".join(steps[1:])
            body = owner.objects.get(key)
            missing = "<Error><Code>NoSuchKey</Code></Error>"
            self.answer("object", (key,), 404 if body is None else 200, body or missing, "application/gzip")
        else:
            self.answer("other", (self.path,), 404, json.dumps({"error": "no such route"}))

    def do_POST(self):
        owner = self.server.owner
        rows = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
        if self.path.startswith("/api/list/"):
            self.answer(self.path.removeprefix("/api/"), (), *self.list_route(rows))
            return
        asked = tuple(row["index"] for row in rows)
        if self.path != "/api/features" or not all(isinstance(index, int) for index in asked):
            self.answer("features", asked, 400, json.dumps({"message": "bad body"}))
            return
        theirs = [row for row in rows if (row["modelId"], row["layer"]) == (owner.model, owner.layer)]
        found = [owner.row(row["index"]) for row in theirs if row["index"] in owner.latents]
        self.answer("features", asked, 200, json.dumps(found))

    def list_route(self, body):
        """Return status and body of an answer about lists."""
        owner, route = self.server.owner, self.path.removeprefix("/api/list/")
        if route == "get":
            found = owner.lists.get(body["listId"])
            return (200, json.dumps(found | {"neurons": found["neurons"][:SHOWN]})) if found else (500, "Server Error")
        if self.headers.get("x-api-key") != KEY:
            return 401, json.dumps({"error": NO_KEY})
        if route == "list":
            return 200, json.dumps([{"id": one["id"], "name": one["name"]} for one in owner.lists.values()])
        wrong = list_problem(body)
        if wrong:
            return 400, json.dumps({"message": wrong})
        here = [one for one in body["features"] if (one["modelId"], one["layer"]) == (owner.model, owner.layer)]
        number = f"l{next(owner.numbers)}"
        made = {"id": number, "name": body["name"], "description": body.get("description", "")}
        neurons = [
            one | {"index": str(one["index"]), "listId": number} for one in here if one["index"] in owner.latents
        ]
        owner.lists[number] = made | {"neurons": neurons}
        return 200, json.dumps(made | {"url": f"{owner.url}/list/{number}"})

    def answer(self, route, asked, status, body, kind="application/json"):
        owner = self.server.owner
        left = owner.left() if self.path.startswith("/api/") else None
        fault = owner.note(route, asked, dict(self.headers)) if left != -1 else "hour"
        body = body.encode() if isinstance(body, str) else body
        if owner.echo_headers:
            body = body.replace(b"{headers}", json.dumps(str(self.headers)).encode()[1:-1])
        if owner.delay:
            time.sleep(owner.delay)
        if fault == "slow":
            time.sleep(0.3)
        elif fault == "hang":
            time.sleep(2.5)
        elif fault == "hour":
            said = {"endpoint": "/api", "limitPerWindow": owner.limit, "requestWindow": "60 m", "remainingRequests": 0}
            status, body = 429, json.dumps(said | {"error": "Rate limit exceeded for this endpoint."}).encode()
            owner.sent["beyond the limit"] += 1
        elif fault == "429":
            status, body = 429, json.dumps({"endpoint": "/api", "error": "Rate limit exceeded"}).encode()
        elif fault.isdigit():
            status, kind = int(fault), "text/plain"
            body = b"Internal Server Error"
        elif fault == "html":
            body, kind = b"<!DOCTYPE html><html><body>One moment</body></html>", "text/html"
        elif fault == "malformed":
            body = body[: len(body) // 2]
        elif fault == "shape":
            body = b'{"unexpected": 1}' if route != "object" else gzip.compress(b'["a"]\n')
        elif fault == "bomb":
            body = gzip.compress(b" " * 2**24)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if left is not None and left >= 0:
            self.send_header("x-limit-remaining", str(left))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == "cut":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.wfile.write(body)
