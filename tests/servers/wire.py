"""A proxy on loopback that spoils the answers of the server behind it as a bad network or a hostile server would.

It takes one request per connection, passes it on, and sends the answer back as it is or with one of `FAULTS`.
"""

import gzip
import http.client
import random
import re
import socket
import socketserver
import threading
import time
from urllib.parse import urlsplit

FAULTS = {
    "loris": "a byte at a time",
    "endless": "a body without end",
    "bomb": "a small gzip body that unpacks to 256 MiB",
    "loop": "a redirect to itself",
    "elsewhere": "a redirect to another host",
    "long": "a Content-Length larger than the body",
    "short": "a Content-Length smaller than the body",
    "gzip": "a damaged gzip body",
    "closed": "the connection closed at once",
    "tls": "a TLS server on a plain port",
}
# What OpenSSL answers to a plain request: the fatal alert "unexpected message".
TLS_ALERT = bytes.fromhex("1503010002020a")
BLOCK = b" " * 2**16


class Wire:
    """The proxy; use it as a context manager.

    Parameters
    ----------
    behind : str
        Address of the server behind it; "" for none, so that every request meets a fault.
    fault, rate
        The fault, and the share of requests that meet it.
    pause : float
        Seconds between the bytes of "loris".

    Attributes
    ----------
    seen : list of (str, str)
        Path and fault ("" for none) of every request.
    sink : Wire
        The other host of "elsewhere".
    """

    def __init__(self, behind="", fault="", rate=1.0, *, pause=1.0, seed=0):
        self.behind, self.fault, self.rate, self.pause = urlsplit(behind), fault, rate, pause
        self.seen, self.sink, self.headers = [], None, []
        self._random, self._lock, self._over = random.Random(seed), threading.Lock(), threading.Event()
        self._bomb = gzip.compress(b" " * 2**24) * 16 if fault == "bomb" else b""

    def __enter__(self):
        handler = type("Handler", (_Handler,), {"wire": self})
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler, bind_and_activate=False)
        self._server.daemon_threads, self._server.request_queue_size = True, 128
        self._server.server_bind()
        self._server.server_activate()
        self._server.handle_error = lambda *_: None  # clients that hang up are part of the tests
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        if self.fault == "elsewhere":
            self.sink = Wire(fault="closed").__enter__()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        if self.sink:
            self.sink.__exit__()

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_address[1]}{self.behind.path}"

    def draw(self, path, headers):
        """Note a request and return the fault it meets."""
        with self._lock:
            fault = self.fault if self.fault and self._random.random() < self.rate else ""
            self.seen.append((path, fault))
            self.headers.append(headers)
        return fault


class _Handler(socketserver.StreamRequestHandler):
    timeout = 30

    def handle(self):
        wire = self.wire
        line = self.rfile.readline().decode("latin-1").split()
        headers = http.client.parse_headers(self.rfile)
        body = self.rfile.read(int(headers.get("Content-Length", 0)))
        method, path = line[:2]
        fault = wire.draw(path, dict(headers))
        if fault == "closed":
            return
        if fault == "tls":
            self.wfile.write(TLS_ALERT)
            return
        if fault in ("loop", "elsewhere"):
            port = (wire.sink._server if wire.sink else wire._server).server_address[1]
            host = "localhost" if wire.sink else "127.0.0.1"
            self._send(307, "text/plain", b"", {"Location": f"http://{host}:{port}{path}"})
            return
        status, kind, answer = self._ask(method, path, headers, body) if wire.behind.netloc else (200, "", b"{}" * 9)
        if fault == "loris":
            self._send(status, kind, b"", {"Content-Length": str(len(answer))})
            for place in range(len(answer)):
                if wire._over.wait(wire.pause):
                    return
                self.wfile.write(answer[place : place + 1])
        elif fault == "endless":
            self._send(status, kind, b"", {"Content-Length": str(2**40)})
            while not wire._over.is_set():
                self.wfile.write(BLOCK)
        elif fault == "bomb":
            self._send(status, kind, wire._bomb, {"Content-Encoding": "gzip"})
        elif fault == "gzip":
            spoiled = bytearray(gzip.compress(answer))
            spoiled[-8] ^= 0xFF  # the checksum
            self._send(status, kind, bytes(spoiled), {"Content-Encoding": "gzip"})
        elif fault in ("long", "short"):
            length = len(answer) + 9 if fault == "long" else len(answer) // 2
            self._send(status, kind, answer, {"Content-Length": str(length)})
        else:
            self._send(status, kind, answer)

    def _ask(self, method, path, headers, body):
        """Return status, type and body of the answer of the server behind."""
        connection = http.client.HTTPConnection(self.wire.behind.hostname, self.wire.behind.port, timeout=20)
        passed = {name: value for name, value in headers.items() if not re.match("(?i)host|connection", name)}
        connection.request(method, path, body or None, passed | {"Connection": "close"})
        answer = connection.getresponse()
        found = answer.status, answer.getheader("Content-Type", ""), answer.read()
        connection.close()
        return found

    def _send(self, status, kind, body, more=None):
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close"} | (more or {})
        head = f"HTTP/1.1 {status} Status\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.wfile.write(head.encode("latin-1") + b"\r\n" + body)
        self.wfile.flush()
        if self.wire.fault == "long":
            self.connection.shutdown(socket.SHUT_WR)
            time.sleep(0.01)
