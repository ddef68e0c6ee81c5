"""A real HTTP server that serves parts of files and goes wrong as it is told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

Fault = tuple[str, int]


@dataclass
class Server:
    """What is served, what goes wrong with the next requests for a part, and what was asked and sent."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)  # path -> (kind, number), one a request
    etags: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    heads: bool = True  # whether HEAD is answered
    headed: list[str] = field(default_factory=list)  # paths that HEAD asked for
    asked: list[tuple[str, int, int]] = field(default_factory=list)  # (path, start, stop), probes left out
    sent: int = 0  # bytes, probes left out
    requests: int = 0  # all
    release: threading.Event = field(default_factory=threading.Event)  # ends a stall
    lock: threading.Lock = field(default_factory=threading.Lock)  # of what is counted: every request has its thread


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # of 5, a busy machine lets connections fall, which come again after seconds


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)  # a proxy knows no address of this machine

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            with server.lock:
                server.requests += 1
                server.headed.append(self.path)
            if not server.heads or self.path not in server.files:
                self.send_error(404 if server.heads else 501)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(server.files[self.path])))
            if server.ranges:
                self.send_header("Accept-Ranges", "bytes")
            if self.path in server.etags:
                self.send_header("ETag", server.etags[self.path])
            self.end_headers()

        def do_GET(self) -> None:
            with server.lock:
                server.requests += 1
            data = server.files.get(self.path)
            header = self.headers.get("Range")
            is_probe = header == "bytes=0-0"
            if data is None:
                self.send_error(404)
                return
            start, stop = 0, len(data)
            if header and server.ranges:
                first, _, last = header.removeprefix("bytes=").partition("-")
                start, stop = int(first), int(last) + 1
                if start >= len(data):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(data)}")
                    self.end_headers()
                    return
            kind, number = "", 0
            if not is_probe:
                with server.lock:
                    server.asked.append((self.path, start, stop))
                    faults = server.faults.get(self.path, [])
                    kind, number = faults.pop(0) if faults else ("", 0)
            if kind == "status":
                self.send_error(number)
                return
            if kind == "whole":
                start, stop, header = 0, len(data), None
            body = data[start:stop]
            self.send_response(206 if header and server.ranges else 200)
            self.send_header("Content-Length", str(number if kind == "short" else len(body)))
            if header and server.ranges:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
            if self.path in server.etags:
                self.send_header("ETag", server.etags[self.path])
            self.end_headers()
            if kind in ("drop", "short", "stall"):
                body = body[:number]
            if not is_probe:
                with server.lock:
                    server.sent += len(body)
            self.wfile.write(body)
            if kind == "stall":
                self.wfile.flush()
                server.release.wait(600)

    http = _Http(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{http.server_address[1]}")
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.release.set()
        http.shutdown()
        http.server_close()
        thread.join()
