"""A real HTTP server that answers like the Hugging Face hub's API when a folder is uploaded.

It keeps repositories in memory, `{type}s/{id}` -> (private, {path: content}), and notes every request.
"""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_" + "aTokenOfTheTest" * 3


class Hub:
    """The server; use it as a context manager. `refuses` answers every request with 403 and the token it was sent."""

    def __init__(self, *, refuses=False):
        self.refuses, self.repos, self.seen = refuses, {}, []

    def __enter__(self):
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answer(b"")

    def do_POST(self):
        self._answer(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

    def _answer(self, body):
        self.hub.seen.append((self.command, self.path))
        sent = self.headers.get("Authorization", "")
        if self.hub.refuses:
            return self._send(403, {"error": f"{sent} may not write"})
        if sent != f"Bearer {TOKEN}":
            return self._send(401, {"error": "no such token"})
        path = self.path.split("?")[0].removeprefix("/api/")
        if path == "repos/create":
            asked = json.loads(body)
            owner = asked.get("organization") or "somebody"
            name = f"{asked.get('type', 'model')}s/{owner}/{asked['name']}"
            private = asked.get("private", asked.get("visibility") == "private")
            self.hub.repos[name] = (bool(private), {})
            return self._send(200, {"url": f"{self.hub.url}/{owner}/{asked['name']}"})
        if path == "validate-yaml":
            return self._send(200, {"errors": [], "warnings": []})
        name, (_, *rest) = "/".join(path.split("/")[:3]), [None, *path.split("/")[3:]]
        if name not in self.hub.repos:
            return self._send(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        private, files = self.hub.repos[name]
        if not rest or rest[0] == "revision":
            identity = name.partition("/")[2]
            return self._send(200, {"id": identity, "private": private, "sha": "0" * 40, "siblings": [], "tags": []})
        if rest[0] == "preupload":
            asked = json.loads(body)["files"]
            regular = [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked]
            return self._send(200, {"files": regular})
        if rest[0] == "commit":
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            url = f"{self.hub.url}/{name.removeprefix('models/')}/commit/{'1' * 40}"
            return self._send(200, {"success": True, "commitOid": "1" * 40, "commitUrl": url})
        return self._send(404, {"error": f"unknown {self.path}"})

    def _send(self, status, value, headers=()):
        content = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", "Content-Length": len(content), **dict(headers)}.items():
            self.send_header(name, str(text))
        self.end_headers()
        self.wfile.write(content)
