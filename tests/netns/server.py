#!/usr/bin/env python3
"""The web server of the laboratory. It answers, and writes a line of JSON for each request: who asked, seen from here.

GET /file?bytes=N the file given on the command line, or its first N bytes
GET /meet?n=N     answers when N clients are waiting in this request at the same time (503 after 20 s)
POST /upload      answers with the SHA-256 of what was sent
GET /who          the client's address and port
"""

import hashlib
import json
import os
import socket
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MEETING = threading.Condition()
WAITING: dict[str, int] = {}


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:  # noqa: N802 (the base class' name)
        """Answers a GET."""
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/file":
            wanted = urllib.parse.parse_qs(url.query).get("bytes")
            self.answer(Path(sys.argv[1]).read_bytes()[: int(wanted[0]) if wanted else None])
        elif url.path == "/meet":
            everyone = int(urllib.parse.parse_qs(url.query)["n"][0])
            with MEETING:
                WAITING[url.query] = WAITING.get(url.query, 0) + 1
                MEETING.notify_all()
                met = MEETING.wait_for(lambda: WAITING[url.query] >= everyone, timeout=20)
            self.answer(b"met\n" if met else b"not all came\n", 200 if met else 503)
        elif url.path == "/who":
            address, port = self.client_address[:2]
            self.answer(f"{address.removeprefix('::ffff:')} {port}\n".encode())
        else:
            self.answer(b"no such page\n", 404)

    def do_POST(self) -> None:  # noqa: N802 (the base class' name)
        """Answers a POST."""
        digest, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left:
            part = self.rfile.read(min(left, 1 << 16))
            if not part:
                return
            digest.update(part)
            left -= len(part)
        self.answer(digest.hexdigest().encode() + b"\n")

    def answer(self, body: bytes, status: int = 200) -> None:
        """Sends the answer and logs the request."""
        address, port = self.client_address[:2]
        line = {"peer": address.removeprefix("::ffff:"), "port": port, "request": self.path, "status": status}
        os.write(1, (json.dumps(line) + "\n").encode())  # at once: other connections have threads of their own
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class' name)
        """Says nothing: `answer` has."""


class Server(ThreadingHTTPServer):
    """Listens on both families."""

    address_family = socket.AF_INET6
    request_queue_size = 512
    daemon_threads = True


if __name__ == "__main__":
    Server(("::", 80), Handler).serve_forever()
