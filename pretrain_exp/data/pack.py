"""Packing: texts become one token file, each document closed by the end-of-text id.

    input files --write_part--> <key>.parts/ (a shard of files each) --merge--> <key>/
        tokens.bin       the stream
        documents.npy    int64 (documents,): where each document begins
        about.npy        ABOUT_DTYPE (documents,): file and domain (indices into meta.json), record in the file
        heldout.jsonl    {text, domain} of what never enters the stream
        skipped.jsonl    {file, record, reason} of what is no document
        meta.json        counts, and what it was made of

The key is a hash of the inputs' bytes, the tokenizer and the options, so the same content is packed once. Parts are
moved into place whole: a killed run goes on behind the last finished shard. The stream is the same for any number of
processes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pretrain_exp.data.progress import progress_bar
from pretrain_exp.data.readers import Document, TextReader
from pretrain_exp.data.shards import Input, PackOptions, is_held_out, write_part
from pretrain_exp.data.token_files import TokenFile, TokenFiles
from pretrain_exp.data.tokenizer import Tokenizer
from pretrain_exp.errors import UserError
from pretrain_exp.store.publish import beside, publish

SCHEMA = 1
SHARD_BYTES = 32 << 20  # small files share a shard; it is what a killed run loses at most, for each process
_log = logging.getLogger(__name__)


def texts_of(inputs: list[Input], reader: TextReader, options: PackOptions) -> Iterator[str]:
    """The texts that may enter the stream, to train a tokenizer on."""
    for file in inputs:
        for document in reader.read(file.path, lambda n: None):
            if isinstance(document, Document) and not is_held_out(document.text, options.holdout, options.holdout_seed):
                yield document.text


def pack(
    inputs: list[Input],
    reader: TextReader,
    tokenizer: Tokenizer,
    options: PackOptions,
    cache: Path,
    name: str,
    processes: int | None = None,
    show: bool = False,
) -> TokenFiles:
    """The packed stream of these files, from `cache` if it is there. `name`: what results call the token file.

    UserError for a bad document (on_bad="error"), an unreadable file, or where no document remains.
    """
    content = [[file.digest, file.name] for file in inputs]
    recipe = ["pack", SCHEMA, content, asdict(reader), asdict(options), tokenizer.fingerprint]
    key = hashlib.blake2b(json.dumps(recipe).encode(), digest_size=16).hexdigest()
    target = cache / "tokens" / key
    if not (target / "meta.json").is_file():
        started = time.perf_counter()
        parts = target.with_name(f"{key}.parts")
        parts.mkdir(parents=True, exist_ok=True)
        shards = _shards(inputs)
        try:
            _write_parts(shards, inputs, reader, tokenizer, options, parts, processes, show)
            _merge(shards, inputs, tokenizer, options, parts, target, started)
        except FileNotFoundError:
            if not (target / "meta.json").is_file():  # else another process finished, and cleared the parts away
                raise
        shutil.rmtree(parts, ignore_errors=True)
    meta = _meta(target)
    if meta["skipped"]:
        _log.warning("%d records skipped (%s), see %s", meta["skipped"], meta["reasons"], target / "skipped.jsonl")
    file = TokenFile(str(target / "tokens.bin"), meta["dtype"], 0, meta["num_tokens"], meta["digest"], name)
    return TokenFiles((file,), tokenizer.eos_token_id, str(target / "documents.npy"))


def report(files: TokenFiles) -> dict[str, Any] | None:
    """What packing counted (documents and tokens by domain, held out, skipped); None for files not packed here."""
    folder = Path(files.files[0].path).parent
    return _meta(folder) if files.documents == str(folder / "documents.npy") else None


def origin(files: TokenFiles, document: int) -> tuple[str, int, str] | None:
    """Input file, record in it (from 0) and domain of a document; None for a stream that was not packed here."""
    folder = Path(files.files[0].path).parent
    if report(files) is None or not (folder / "about.npy").is_file():
        return None
    meta = _meta(folder)
    about = np.load(folder / "about.npy", mmap_mode="r", allow_pickle=False)[document]
    return meta["files"][about["file"]], int(about["record"]), meta["domains"][about["domain"]]["domain"]


def heldout(files: TokenFiles) -> Path | None:
    """JSON Lines of {text, domain} that never enter the stream; None where nothing was held out."""
    path = Path(files.files[0].path).parent / "heldout.jsonl"
    return path if report(files) and path.is_file() else None


def _meta(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "meta.json").read_text(encoding="utf-8"))


def _shards(inputs: list[Input]) -> list[range]:
    """Ranges of consecutive inputs, each of at least SHARD_BYTES (but the last) or a single file."""
    shards, first, size = [], 0, 0
    for i, file in enumerate(inputs):
        size += os.path.getsize(file.path)
        if size >= SHARD_BYTES or i == len(inputs) - 1:
            shards.append(range(first, i + 1))
            first, size = i + 1, 0
    return shards


def _part(parts: Path, shard: range) -> Path:
    return parts / f"{shard.start:07d}-{shard.stop:07d}"


def _write_parts(
    shards: list[range],
    inputs: list[Input],
    reader: TextReader,
    tokenizer: Tokenizer,
    options: PackOptions,
    parts: Path,
    processes: int | None,
    show: bool,
) -> None:
    waiting = [shard for shard in shards if not _part(parts, shard).is_dir()]
    sizes = {shard: sum(os.path.getsize(inputs[i].path) for i in shard) for shard in waiting}
    count = min(processes or len(os.sched_getaffinity(0)), len(waiting))
    with progress_bar("tokenizing", sum(sizes.values()), "bytes", show) as advance:
        jobs = [([(i, inputs[i]) for i in shard], reader, tokenizer, options, _part(parts, shard)) for shard in waiting]
        if count <= 1:
            for job in jobs:
                write_part(*job, advance)
            return
        context = multiprocessing.get_context("spawn")
        counter = context.Value("q", 0)
        pool = ProcessPoolExecutor(count, context, initializer=_share, initargs=(counter,))
        try:
            pending = {pool.submit(_write_part_counted, *job) for job in jobs}
            seen = 0
            while pending:
                done, pending = wait(pending, timeout=0.2, return_when=FIRST_COMPLETED)
                advance(counter.value - seen)
                seen = counter.value
                for future in done:
                    future.result()
        except BrokenProcessPool as error:
            raise UserError(
                f"one of {count} tokenizing processes was killed, most likely for lack of memory",
                key="processes",
                value=processes,
                fix="use fewer processes and run again; files that are finished are kept",
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


_counter: Any = None


def _share(counter: Any) -> None:
    global _counter
    _counter = counter


def _count(n: int) -> None:
    with _counter.get_lock():
        _counter.value += n


def _write_part_counted(
    files: list[tuple[int, Input]], reader: TextReader, tokenizer: Tokenizer, options: PackOptions, part: Path
) -> None:
    write_part(files, reader, tokenizer, options, part, _count)


def _merge(
    shards: list[range],
    inputs: list[Input],
    tokenizer: Tokenizer,
    options: PackOptions,
    parts: Path,
    target: Path,
    started: float,
) -> None:
    """Joins the parts, in the order of the inputs, up to the last whole document within limit_tokens."""
    staging = beside(parts / "merged")  # removed with the parts, should this process be killed
    staging.mkdir()
    dtype = np.dtype(tokenizer.token_dtype)
    domains: dict[str, int] = {}
    reasons: Counter[str] = Counter()
    starts, abouts, num_tokens, num_heldout, cut = [], [], 0, 0, False
    hasher = hashlib.blake2b(digest_size=16)
    with (
        open(staging / "tokens.bin", "wb") as tokens,
        open(staging / "heldout.jsonl", "wb") as held,
        open(staging / "skipped.jsonl", "wb") as skipped,
    ):
        for shard in shards:
            part = _part(parts, shard)
            counts = json.loads((part / "part.json").read_text(encoding="utf-8"))
            ends = num_tokens + np.cumsum(np.load(part / "lengths.npy"))
            about = np.load(part / "about.npy")
            keep = len(ends)
            if options.limit_tokens is not None:
                keep = int(np.searchsorted(ends, options.limit_tokens, side="right"))
                cut = keep < len(ends)
            ends, about = ends[:keep], about[:keep]
            starts.append(np.concatenate([[num_tokens], ends])[:-1].astype("<i8"))
            order = np.array([domains.setdefault(domain, len(domains)) for domain in counts["domains"]], dtype="<i4")
            about["domain"] = order[about["domain"]]
            abouts.append(about)
            remaining = (int(ends[-1]) - num_tokens if keep else 0) * dtype.itemsize
            with open(part / "tokens.bin", "rb") as source:
                while block := source.read(min(remaining, 1 << 22)):
                    hasher.update(block)
                    tokens.write(block)
                    remaining -= len(block)
            num_tokens = int(ends[-1]) if keep else num_tokens
            for stream, file_name in ((held, "heldout.jsonl"), (skipped, "skipped.jsonl")):
                with open(part / file_name, "rb") as source:
                    shutil.copyfileobj(source, stream)
            reasons.update(counts["reasons"])
            num_heldout += counts["heldout"]
            if cut:
                break
    about = np.concatenate(abouts)
    start = np.concatenate(starts)
    if not len(start):
        shutil.rmtree(staging)
        raise UserError(
            f"no document remains: {num_heldout} held out, {sum(reasons.values())} skipped",
            key="paths",
            value=[file.path for file in inputs][:3],
            fix="give more text, or a larger limit_tokens",
        )
    np.save(staging / "documents.npy", start)
    np.save(staging / "about.npy", about)
    if not num_heldout:
        (staging / "heldout.jsonl").unlink()
    if not reasons:
        (staging / "skipped.jsonl").unlink()
    lengths = np.diff(np.append(start, num_tokens))
    by_domain = [
        {"domain": domain, "documents": int(documents), "tokens": int(count)}
        for domain, documents, count in zip(
            domains,
            np.bincount(about["domain"], minlength=len(domains)),
            np.bincount(about["domain"], weights=lengths, minlength=len(domains)),
            strict=True,
        )
    ]
    meta = {
        "schema": SCHEMA,
        "dtype": dtype.name,
        "eos_token_id": tokenizer.eos_token_id,
        "tokenizer": tokenizer.fingerprint,
        "num_tokens": num_tokens,
        "num_documents": len(start),
        "digest": hasher.hexdigest(),
        "domains": by_domain,
        "heldout": num_heldout,
        "skipped": sum(reasons.values()),
        "reasons": dict(reasons),
        "cut_at_limit": cut,
        "files": [file.name for file in inputs],
        "seconds": round(time.perf_counter() - started, 2),
    }
    (staging / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
    publish(staging, target)
