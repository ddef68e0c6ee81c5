"""Parts of files over HTTP: a request, its answer checked, its errors sorted into passing ones and lasting ones."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pretrain_exp.errors import UserError

BLOCK = 1 << 18  # bytes handed on at a time; a connection that breaks costs no more
PASSING = {408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524}  # worth another request
CHANGED = "was changed on the server while it was being downloaded"


@dataclass(frozen=True)
class Remote:
    """What the server says about a file."""

    url: str
    size: int  # bytes
    etag: str | None
    ranges: bool  # whether it serves parts

    def is_same(self, other: Remote) -> bool:
        return (self.size, self.etag) == (other.size, other.etag)


class Transient(Exception):
    """The network, or the server for a moment: the same request may work later."""


def probe(url: str, timeout: float) -> Remote:
    """Size, etag and whether parts are served, from a request for the first byte. Raises UserError or Transient."""
    try:
        with _open(url, {"Range": "bytes=0-0"}, timeout) as response:
            etag = response.headers.get("ETag")
            if response.status == 206:
                return Remote(url, _content_range(response, url)[1], etag, ranges=True)
            length = response.headers.get("Content-Length")
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range", "").strip() == "bytes */0":
            return Remote(url, 0, error.headers.get("ETag"), ranges=True)
        raise _sorted(error, url) from None
    if length is None:
        raise UserError("the server does not say how long the file is", value=url, fix="download it by other means")
    return Remote(url, int(length), etag, ranges=False)


def head(url: str, timeout: float) -> Remote:
    """As `probe`, from a HEAD request; from one for the first byte where the server answers HEAD with less."""
    try:
        with _open(url, {}, timeout, method="HEAD") as response:
            length = response.headers.get("Content-Length")
            if length is not None and response.headers.get("Accept-Ranges") == "bytes":
                return Remote(url, int(length), response.headers.get("ETag"), ranges=True)
    except urllib.error.HTTPError as error:
        if error.code not in (403, 405, 501):  # 403: a link signed for GET
            raise _sorted(error, url) from None
    return probe(url, timeout)


def read_span(remote: Remote, start: int, stop: int, timeout: float) -> Iterator[bytes]:
    """The bytes [start, stop) of a file, block by block. Raises UserError, or Transient where the answer breaks off."""
    headers = {"Range": f"bytes={start}-{stop - 1}"} if remote.ranges else {}
    try:
        with _open(remote.url, headers, timeout) as response:
            _check(response, remote, start)
            at = start
            while at < stop:
                block = _read(response, min(BLOCK, stop - at))
                if not block:
                    raise Transient(f"the answer ended after {at - start:,} of {stop - start:,} bytes")
                at += len(block)
                yield block
    except urllib.error.HTTPError as error:
        if error.code == 416:
            raise UserError(CHANGED, value=remote.url, fix="run again to begin anew") from None
        raise _sorted(error, remote.url) from None


def _open(url: str, headers: dict[str, str], timeout: float, method: str = "GET") -> http.client.HTTPResponse:
    request = urllib.request.Request(
        url, headers={"Accept-Encoding": "identity", "User-Agent": "pretrain-exp", **headers}, method=method
    )
    try:
        return urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        raise Transient(_story(error)) from error


def _read(response: http.client.HTTPResponse, size: int) -> bytes:
    try:
        return response.read(size)
    except (OSError, http.client.HTTPException) as error:
        raise Transient(_story(error)) from error


def _check(response: http.client.HTTPResponse, remote: Remote, start: int) -> None:
    """That the answer is about the file that was probed, and begins where it should."""
    etag = response.headers.get("ETag")
    if response.status == 206:
        begins, size = _content_range(response, remote.url)
        if begins != start:
            raise Transient(f"the server sent bytes from {begins:,} where {start:,} was asked")
    elif remote.ranges:
        raise Transient("the server sent the whole file where a part was asked")
    else:
        size = int(response.headers.get("Content-Length") or remote.size)
    if not remote.is_same(replace(remote, size=size, etag=etag)):
        problem = f"{CHANGED} (was {remote.size:,} bytes, etag {remote.etag}; is {size:,} bytes, etag {etag})"
        raise UserError(problem, value=remote.url, fix="run again to begin anew")


def _content_range(response: http.client.HTTPResponse, url: str) -> tuple[int, int]:
    """(first byte, size of the file) of `Content-Range: bytes 0-9/100`."""
    text = response.headers.get("Content-Range", "")
    span, _, size = text.removeprefix("bytes ").partition("/")
    first = span.partition("-")[0]
    if not (first.isdigit() and size.isdigit()):
        raise UserError(f"the server answers with Content-Range {text!r}, which gives no size", value=url)
    return int(first), int(size)


def _sorted(error: urllib.error.HTTPError, url: str) -> Exception:
    if error.code in PASSING:
        return Transient(f"HTTP {error.code} {error.reason}")
    fixes = {
        401: "the server asks for a login; download the file by hand",
        403: "the server refuses this address; a signed link may have expired",
        404: "check the name; for a checkpoint, that this step was published",
    }
    return UserError(f"the server answers HTTP {error.code} {error.reason}", value=url, fix=fixes.get(error.code))


def _story(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return f"{type(reason).__name__}: {reason}" if isinstance(reason, Exception) else str(reason)
