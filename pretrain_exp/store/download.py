"""Downloads files, whole or in spans: in parallel, continued where an earlier call was stopped, checked at the end.

    [Download(url, path, size, sha256, etag, spans)] --probe--> sizes, space --transfer.py--> .part --check--> path

Nothing that has come is asked for again: part_file.py keeps a journal of it. A file appears under its name when it is
complete. One process downloads a path at a time. Standard library only, but for the progress bar.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from urllib.parse import quote, urlsplit

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from pretrain_exp.errors import Problems, UserError
from pretrain_exp.store.network import unreachable
from pretrain_exp.store.part_file import free_bytes, spans_held
from pretrain_exp.store.remote import Remote, probe
from pretrain_exp.store.spans import Span, subtract, total
from pretrain_exp.store.transfer import Download, Options, fetch_all, retrying, sha256, wanted_spans


def download(files: Sequence[Download], options: Options | None = None, console: Console | None = None) -> list[Path]:
    """Fetches what is not there yet; the paths, in order. No server is asked where all is there as it should be.

    Raises UserError (Problems where several files have one): no such file, another size, etag or hash than expected, no
    space, a host that does not answer, retries used up. What has come by then is kept for the next call.
    """
    options = options or Options()
    _check_arguments(files)
    missing = [file for file in files if not _in_place(file)]
    if not missing:
        return [file.path for file in files]
    check_hosts([file.url for file in missing])
    stop = Event()
    with ThreadPoolExecutor(options.connections) as pool:
        try:
            remotes = _probe_all(missing, options, pool, stop)
            wanted = [wanted_spans(file, remote) for file, remote in zip(missing, remotes, strict=True)]
            _check_space(missing, wanted)
            with _progress(missing, sum(map(total, wanted)), console) as advance:
                fetch_all(missing, remotes, wanted, options, pool, stop, advance)
        finally:
            stop.set()  # an error or an interrupt: threads end after the block they are at
            pool.shutdown(cancel_futures=True)
    return [file.path for file in files]


def checkpoint_downloads(pattern: str, step: int, names: Sequence[str], folder: Path) -> list[Download]:
    """The files of a published checkpoint: `pattern` is the URL of its folder, with {step} where the step stands.

    Raises UserError for a pattern without {step}, or a name that leads out of the folder.
    """
    fix = "write it like https://host/run/step{step}-unsharded/"
    if "{step}" not in pattern or set("{}") & set(pattern.replace("{step}", "")):
        raise UserError("a checkpoint URL holds {step}, where the step stands", value=pattern, fix=fix)
    if not names:
        raise UserError(
            "no file of the checkpoint is named", value=pattern, fix="list them, as in [model.pt, train.pt]"
        )
    for name in names:
        if name.startswith("/") or ".." in name.split("/"):
            raise UserError("a file of a checkpoint is named from its folder on", value=name)
    base = pattern.replace("{step}", str(step)).rstrip("/")
    return [Download(f"{base}/{quote(name)}", folder / name) for name in names]


def download_checkpoint(
    pattern: str,
    step: int,
    names: Sequence[str],
    folder: Path,
    options: Options | None = None,
    console: Console | None = None,
    named_within: Callable[[Path], Sequence[str]] = lambda folder: (),
) -> Path:
    """Fetches a checkpoint's files into `folder`, which appears when all are there; continues what was begun.

    named_within: what files that have come name beside themselves, such as the shards that an index lists.
    Raises UserError as `checkpoint_downloads` and `download` do, and where `folder` is there without some of the files.
    """
    partial = folder.with_name(f"{folder.name}.part")
    files = checkpoint_downloads(pattern, step, names, partial)
    if folder.exists():
        absent = [name for name in (*names, *named_within(folder)) if not (folder / name).is_file()]
        if absent:
            fix = "remove the folder, or name another"
            raise UserError(f"is there, but lacks {', '.join(absent)} of the checkpoint", value=str(folder), fix=fix)
        return folder
    download(files, options, console)
    further = [name for name in named_within(partial) if name not in names]
    if further:
        download(checkpoint_downloads(pattern, step, further, partial), options, console)
    partial.rename(folder)
    return folder


def _check_arguments(files: Sequence[Download]) -> None:
    problems = [
        UserError("is no http or https address", value=file.url)
        for file in files
        if urlsplit(file.url).scheme not in ("http", "https")
    ]
    paths = [file.path for file in files]
    problems += [
        UserError("two downloads have the same path", value=str(path))
        for path in sorted(set(paths))
        if paths.count(path) > 1
    ]
    raise_all(problems)


def _in_place(file: Download) -> bool:
    """Whether the file is there with all that is wanted of it. UserError where another one is there."""
    if not file.path.is_file():
        return False
    held = spans_held(file.path)
    if held is not None:
        return file.spans is not None and not subtract(file.spans, held)
    size = file.path.stat().st_size
    fix = "remove it, or choose another path"
    if file.size is not None and size != file.size:
        raise UserError(f"is there with {size:,} bytes, expected {file.size:,}", value=str(file.path), fix=fix)
    found = sha256(file.path) if file.sha256 else None
    if found is not None and found != file.sha256:
        raise UserError(f"is there with sha256 {found}, expected {file.sha256}", value=str(file.path), fix=fix)
    return True


def check_hosts(urls: Sequence[str]) -> None:
    """UserError within seconds where a host does not answer, before any retry."""
    hosts = {urlsplit(url)[:2]: url for url in urls}
    found = [(url, unreachable(url)) for url in hosts.values()]
    fix = "check the network; on a cluster, download on a node that has one, then run again"
    raise_all([UserError(f"cannot download: {problem}", value=url, fix=fix) for url, problem in found if problem])


def _probe_all(files: Sequence[Download], options: Options, pool: ThreadPoolExecutor, stop: Event) -> list[Remote]:
    """What the server says of each file; all that is wrong, at once."""

    def ask(file: Download) -> Remote | UserError:
        if file.spans == () and file.size is not None:  # a place of its size: nothing is asked of the server
            return Remote(file.url, file.size, file.etag, ranges=True)
        try:
            remote = retrying(lambda: probe(file.url, options.timeout_seconds), file.url, options, stop)
            _check_remote(file, remote)
        except UserError as error:
            return error
        return remote

    answers = list(pool.map(ask, files))
    raise_all([answer for answer in answers if isinstance(answer, UserError)])
    return [answer for answer in answers if isinstance(answer, Remote)]


def _check_remote(file: Download, remote: Remote) -> None:
    if file.size is not None and remote.size != file.size:
        raise UserError(f"has {remote.size:,} bytes on the server, expected {file.size:,}", value=file.url)
    if file.etag is not None and remote.etag != file.etag:
        raise UserError(f"has the etag {remote.etag} on the server, expected {file.etag}", value=file.url)
    outside = [span for span in file.spans or () if not 0 <= span[0] <= span[1] <= remote.size]
    if outside:
        raise UserError(f"has {remote.size:,} bytes; asked for {list(outside[0])}", value=file.url)
    if file.spans and not remote.ranges:
        raise UserError("the server serves whole files only", value=file.url, fix="download the whole file")


def _check_space(files: Sequence[Download], wanted: Sequence[list[Span]]) -> None:
    """One sum a file system: bytes still to be written against bytes free."""
    needed: dict[int, int] = {}
    places: dict[int, tuple[Path, int]] = {}
    for file, spans in zip(files, wanted, strict=True):
        folder, free = free_bytes(file.path.parent)
        device = folder.stat().st_dev
        part = file.path.with_name(f"{file.path.name}.part")
        begun = [path.stat().st_blocks * 512 for path in (part, file.path) if path.is_file()]  # blocks of a sparse file
        needed[device] = needed.get(device, 0) + max(0, total(spans) - sum(begun))
        places[device] = folder, free
    raise_all(
        [
            UserError(
                f"needs {needed[device]:,} bytes, {free:,} are free",
                value=str(folder),
                fix="make space, or choose another folder",
            )
            for device, (folder, free) in places.items()
            if needed[device] > free
        ]
    )


def raise_all(problems: list[UserError]) -> None:
    """All that keeps a download from starting, at once, the first twenty in full; nothing for an empty list."""
    if len(problems) > 20:
        problems = [*problems[:20], UserError(f"{len(problems) - 20:,} more files have a problem")]
    if len(problems) > 1:
        raise Problems(problems, title="the download cannot start")
    if problems:
        raise problems[0]


@contextmanager
def _progress(files: Sequence[Download], size: int, console: Console | None) -> Iterator[Callable[[int], None]]:
    """A bar with rate and time left on a terminal; elsewhere a sentence before and after."""
    console = console or Console(stderr=True)
    what = files[0].path.name if len(files) == 1 else f"{len(files)} files"
    if not console.is_terminal:
        console.print(f"downloading {what}, {size:,} bytes, to {files[0].path.parent}", highlight=False, soft_wrap=True)
        yield lambda amount: None
        console.print(f"downloaded {what}", highlight=False, soft_wrap=True)
        return
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    with bar:
        task = bar.add_task(what, total=size)
        yield lambda amount: bar.advance(task, amount)
