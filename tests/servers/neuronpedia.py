"""A real HTTP server that answers like Neuronpedia's API and its S3 bucket, and fails on demand.

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
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

FAULTS = ("429", "500", "502", "slow", "cut", "html", "malformed", "shape")
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
    for no export at all. `fault_rate` of the requests meet a fault of `faults`; `always` maps a route to its fault.
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
    ):
        self.latents, self.model, self.layer = latents, "gemma-2-2b", "20-gemmascope-res-16k"
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

    def row(self, latent, **extra):
        """Return a latent as the API gives it, with fields that nobody reads."""
        said = [
            {"description": text, "explanationModelName": model, "typeName": kind}
            for text, model, kind in self.latents[latent]
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
            body = json.dumps(
                owner.row(latent, source=owner.source) if known else {"error": NO_SUCH, "message": NO_SUCH}
            )
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
        rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = tuple(row["index"] for row in rows)
        if self.path != "/api/features" or not all(isinstance(index, int) for index in asked):
            self.answer("features", asked, 400, json.dumps({"message": "bad body"}))
            return
        theirs = [row for row in rows if (row["modelId"], row["layer"]) == (owner.model, owner.layer)]
        found = [owner.row(row["index"]) for row in theirs if row["index"] in owner.latents]
        self.answer("features", asked, 200, json.dumps(found))

    def answer(self, route, asked, status, body, kind="application/json"):
        owner = self.server.owner
        fault = owner.note(route, asked, dict(self.headers))
        body = body.encode() if isinstance(body, str) else body
        if owner.echo_headers:
            body = body.replace(b"{headers}", json.dumps(str(self.headers)).encode()[1:-1])
        if owner.delay:
            time.sleep(owner.delay)
        if fault == "slow":
            time.sleep(0.3)
        elif fault == "hang":
            time.sleep(2.5)
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
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == "cut":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.wfile.write(body)
