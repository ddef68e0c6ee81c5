"""How large files on servers are: asked of all at once, each once, and kept.

[url] --HEAD, in parallel--> size, etag, whether parts are served --> <cache>/sizes.json
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from threading import Event

from pretrain_exp.errors import UserError
from pretrain_exp.store.download import check_hosts, raise_all
from pretrain_exp.store.remote import Remote, head
from pretrain_exp.store.states import write_json
from pretrain_exp.store.transfer import Options, retrying


def remote_sizes(urls: Sequence[str], cache: Path, options: Options | None = None) -> list[Remote]:
    """What the servers say of each file, in order; what `cache` holds is not asked for again.

    Raises UserError (Problems where several files have one): no such file, a host that does not answer. What was
    answered by then is kept.
    """
    options = options or Options()
    path = cache / "sizes.json"
    known = {row["url"]: Remote(**row) for row in json.loads(path.read_text())} if path.is_file() else {}
    unknown = [url for url in dict.fromkeys(urls) if url not in known]
    if unknown:
        check_hosts(unknown)
        found = _ask(unknown, options)
        known |= {answer.url: answer for answer in found if isinstance(answer, Remote)}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, [asdict(remote) for remote in known.values()])
        raise_all([answer for answer in found if isinstance(answer, UserError)])
    return [known[url] for url in urls]


def forget_sizes(urls: Sequence[str], cache: Path) -> None:
    """These are asked for again the next time."""
    path = cache / "sizes.json"
    if path.is_file():
        write_json(path, [row for row in json.loads(path.read_text()) if row["url"] not in set(urls)])


def _ask(urls: Sequence[str], options: Options) -> list[Remote | UserError]:
    stop = Event()

    def ask(url: str) -> Remote | UserError:
        try:
            return retrying(lambda: head(url, options.timeout_seconds), url, options, stop)
        except UserError as error:
            return error

    with ThreadPoolExecutor(options.connections) as pool:
        try:
            return list(pool.map(ask, urls))
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
