"""An OpenAI-compatible chat server on loopback. It checks what it is sent, and fails as it is told to."""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-loopback-0123456789abcdef"


class OpenAIServer:
    """Answers as a judge would: a behavior that shares a word of five letters with the description is promoted.

    Attributes
    ----------
    requests : list of dict
        Bodies that were answered with a completion.
    faults : list
        What befalls the next requests, one each: an HTTP status, or "cut", "html", "malformed", "empty", "slow".
    answer : callable of (body) -> dict, optional
        Makes the message (and "finish_reason") in place of the judge.
    schemas : bool
        Whether it takes a response_format.
    refuses : callable of (body) -> (int, object) or None, optional
        Status and body of the answer to a request that it refuses; it stands in place of the checks of requests.
    problems : list of str
        What was wrong with the requests; a test that gets an answer has checked that this is empty.
    """

    def __init__(self, key=KEY):
        self.key, self.requests, self.faults, self.problems = key, [], [], []
        self.answer, self.schemas, self.delay, self.refuses = None, True, 0.0, None
        self.under_way = self.most_under_way = self.received = 0
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"owner": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()

    def check(self, body, raw):
        wrong = []
        if self.key and self.key.encode() in raw:
            wrong.append("the key is in the body")
        if body.get("temperature") != 0:
            wrong.append(f"temperature {body.get('temperature')}")
        if not isinstance(body.get("seed"), int):
            wrong.append(f"seed {body.get('seed')}")
        if not (body.get("max_tokens") or 0) > 0:
            wrong.append("no max_tokens")
        if self.schemas:
            form = body.get("response_format", {}).get("json_schema", {})
            if form.get("strict") is not True or not _strict(form.get("schema", {})):
                wrong.append(f"no strict schema: {form}")
        elif '"properties"' not in body["messages"][0]["content"]:
            wrong.append("the form is not asked for in words")
        return wrong


def _strict(node):
    """Tell whether every object of a schema forbids unknown fields and requires all of its own."""
    if isinstance(node, list):
        return all(_strict(part) for part in node)
    if not isinstance(node, dict):
        return True
    if "properties" in node and (
        node.get("additionalProperties") is not False or set(node.get("required", [])) != set(node["properties"])
    ):
        return False
    return all(_strict(part) for part in node.values())


def judged(body):
    """Judge as the class says; the answer's form is that of the judge's question."""
    user = body["messages"][-1]["content"]
    marker, text = re.search(r"--- begin (\w+) ---\n(.*?)\n--- end", user, flags=re.DOTALL).groups()
    words = set(re.findall(r"[a-z]{5,}", text.lower()))
    answer = {"explanation_id": marker}
    for name, description in re.findall(r"^(behavior_\d+): (.*)$", user, flags=re.MULTILINE):
        shared = sorted(words & set(re.findall(r"[a-z]{5,}", description.lower())))
        answer[name] = {
            "rationale": f"shares {', '.join(shared)}" if shared else "shares nothing",
            "effect": "promoted" if shared else "unaffected",
            "strength": "strong",
            "confidence": 0.9,
        }
    return {"content": json.dumps(answer)}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        owner = self.owner
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        with owner.lock:
            owner.received += 1
            owner.under_way += 1
            owner.most_under_way = max(owner.most_under_way, owner.under_way)
            fault = owner.faults.pop(0) if owner.faults else None
        try:
            time.sleep(owner.delay)
            self._respond(owner, raw, fault)
        finally:
            with owner.lock:
                owner.under_way -= 1

    def _respond(self, owner, raw, fault):
        if self.path != "/v1/chat/completions":
            return self._send(404, {"error": {"message": f"no route {self.path}"}})
        given = self.headers.get("Authorization", "")
        if owner.key and given != f"Bearer {owner.key}":
            return self._send(401, {"error": {"message": f"Incorrect API key provided: {given}"}})
        if fault == "cut":
            self.close_connection = True
            return self.wfile.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{"
            )
        if fault == "html":
            return self._send_text(200, "<html>Log in to the Wi-Fi</html>", "text/html")
        if fault == "malformed":
            return self._send_text(200, '{"choices": [', "application/json")
        if fault == "empty":
            return self._send(200, {"choices": []})
        if fault == "slow":
            time.sleep(3)
        elif isinstance(fault, int):
            # Careless servers repeat the key in their errors.
            return self._send(fault, {"error": {"message": f"told to fail with {fault}; you are {owner.key}"}})
        body = json.loads(raw)
        if not owner.schemas and "response_format" in body:
            return self._send(400, {"error": {"message": "response_format is not supported"}})
        if owner.refuses:
            refused = owner.refuses(body)
            if refused:
                return self._send(*refused)
        wrong = [] if owner.refuses else owner.check(body, raw)
        if wrong:
            owner.problems += wrong
            return self._send(400, {"error": {"message": "; ".join(wrong)}})
        with owner.lock:
            owner.requests.append(body)
        message = dict((owner.answer or judged)(body))
        finish_reason = message.pop("finish_reason", "stop")
        choice = {
            "index": 0,
            "finish_reason": finish_reason,
            "message": {"role": "assistant", "content": None, "refusal": None} | message,
        }
        usage = {"prompt_tokens": len(raw) // 4, "completion_tokens": 50, "total_tokens": len(raw) // 4 + 50}
        completion = {"id": "c", "object": "chat.completion", "created": 0, "model": body["model"]}
        return self._send(200, completion | {"choices": [choice], "usage": usage})

    def _send(self, status, value):
        self._send_text(status, json.dumps(value), "application/json")

    def _send_text(self, status, text, kind):
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
