"""Whether a server can be reached at all, asked before anything that would wait for it a long time."""

from __future__ import annotations

import queue
import socket
import urllib.request
from threading import Thread
from urllib.parse import urlsplit


def unreachable(url: str, seconds: float = 10.0) -> str | None:
    """None if the host of `url`, or the proxy that leads to it, takes a TCP connection; else what failed.

    Answers after `seconds` at most, a name server that is silent included.
    """
    proxy = urllib.request.getproxies().get(urlsplit(url).scheme)
    direct = proxy is None or urllib.request.proxy_bypass(urlsplit(url).netloc)
    parts = urlsplit(url if direct or proxy is None else proxy if "://" in proxy else f"http://{proxy}")
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            socket.create_connection((host, port), timeout=seconds).close()
        except socket.gaierror as error:
            answers.put(f"the name {host} is not known ({error.strerror})")
        except OSError as error:
            answers.put(f"{host}:{port} does not answer ({error.strerror or error})")
        else:
            answers.put(None)

    Thread(target=ask, daemon=True).start()  # the look-up of a name has no time limit of its own
    try:
        return answers.get(timeout=seconds)
    except queue.Empty:
        return f"{host}:{port} did not answer within {seconds:g} s"
