"""Measure `nertool serve` under load: what of the speed of `Tagger` is left behind HTTP, and how long one waits.

A server, the clients (in a process of their own) and a `Tagger` in this process run in turn, in short slices. On
a machine that others use too, and where clients take cores from the server, tokens per second say little; tokens
per second of processor time do: the time that the server's process took, beside the time that `Tagger` took.

    python benchmarks/serve.py runs/conll03 --texts test.txt --requests 100000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any
from urllib.request import urlopen

DEMO = Path(__file__).resolve().parents[1] / "corpora" / "demo" / "test.txt"
LONGEST_WAIT = 60.0  # seconds for an answer
OK = b"HTTP/1.1 200"


@dataclass(frozen=True)
class Load:
    """What clients saw in a slice.

    Attributes:
        errors: Answers with a status other than 200, and connections that broke.
        milliseconds: Of each request.
    """

    requests: int
    tokens: int
    errors: int
    seconds: float
    milliseconds: list[float]


def percentile(values: Sequence[float], share: float) -> float:
    """The value that such a share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def read_sentences(path: Path) -> list[str]:
    """Sentences of a file in columns, as text."""
    sentences, words = [], []
    for line in [*path.read_text(encoding="utf-8").splitlines(), ""]:
        if line.strip() and not line.startswith("-DOCSTART-"):
            words.append(line.split()[0])
        elif words:
            sentences.append(" ".join(words))
            words = []
    return sentences


class Lean:
    """A client that does as little as it can: on two cores the clients should not be what is measured."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Lean:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._writer.close()

    async def tag(self, body: bytes) -> bool:
        head = f"POST /tag HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self._writer.write(head + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        await self._reader.readexactly(length)
        return answer.startswith(OK)


class Httpx:
    """The client that many programs use."""

    def __init__(self, port: int) -> None:
        import httpx

        self._url = f"http://127.0.0.1:{port}/tag"
        self._client = httpx.AsyncClient(timeout=LONGEST_WAIT)

    async def __aenter__(self) -> Httpx:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.aclose()

    async def tag(self, body: bytes) -> bool:
        return (await self._client.post(self._url, content=body)).status_code == 200


CLIENTS: dict[str, type[Lean] | type[Httpx]] = {"lean": Lean, "httpx": Httpx}


async def ask(port: int, kind: str, clients: int, bodies: Sequence[bytes]) -> tuple[int, float, list[float]]:
    """Let clients send these requests, each client one after another; returns errors, seconds and milliseconds."""
    left = iter(bodies)
    times: list[float] = []
    errors = 0

    async def work() -> None:
        nonlocal errors
        async with CLIENTS[kind](port) as client:
            for body in left:
                began = time.perf_counter()
                try:
                    fine = await asyncio.wait_for(client.tag(body), LONGEST_WAIT)
                except Exception:
                    errors += 1
                    return
                errors += not fine
                times.append(1000 * (time.perf_counter() - began))

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(clients)))
    return errors, time.perf_counter() - began, times


def be_clients() -> None:
    """Do what each line of standard input says, and answer with a line."""
    texts: list[str] = []
    for line in sys.stdin:
        order = json.loads(line)
        if "texts" in order:
            texts = order["texts"]
            print("[]", flush=True)
            continue
        own = [texts[number % len(texts)] for number in range(order["first"], order["first"] + order["count"])]
        each = order["each"]
        parts = [{"texts": own[at : at + each]} for at in range(0, len(own), each)]
        bodies = [json.dumps(part if each > 1 else {"text": part["texts"][0]}).encode() for part in parts]
        print(json.dumps(asyncio.run(ask(order["port"], order["kind"], order["clients"], bodies))), flush=True)


class Clients:
    """The process of the clients."""

    def __init__(self, port: int, texts: Sequence[str], tokens: Sequence[int]) -> None:
        self._port, self._tokens = port, tokens
        self._first = 0
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--be-clients"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._tell({"texts": list(texts)})

    def load(self, kind: str, clients: int, count: int, each: int = 1) -> Load:
        """Let clients send the sentences that come next, so many in each request."""
        order = {"port": self._port, "kind": kind, "clients": clients, "first": self._first, "count": count}
        order["each"] = each
        errors, seconds, times = self._tell(order)
        numbers = range(self._first, self._first + count)
        self._first += count
        tokens = sum(self._tokens[number % len(self._tokens)] for number in numbers)
        return Load(len(times), tokens, errors, seconds, times)

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _tell(self, order: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


class Server:
    """The process of the server."""

    def __init__(self, model: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nertool", "serve", f"model={model}", "--port", "0"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        line = self._process.stderr.readline()
        found = re.search(r":(\d+);", line)
        if found is None:
            raise SystemExit(line + self._process.stderr.read())
        self.port = int(found[1])

    def counts(self) -> dict[str, float]:
        """Its figures without labels."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=LONGEST_WAIT) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def end(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()


def tag_in_process(tagger: Any, texts: Sequence[str], at_once: int) -> dict[str, float]:
    """Tag texts, so many at a time; returns tokens by second and by second of processor time."""
    began, began_cpu = time.perf_counter(), time.process_time()
    parts = (texts[start : start + at_once] for start in range(0, len(texts), at_once))
    tokens = sum(len(document.tokens) for part in parts for document in tagger.tag_texts(part))
    seconds, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return {"tokens_per_second": tokens / seconds, "tokens_per_cpu_second": tokens / cpu}


def measure(model: Path, sentences: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """Run all slices."""
    from nertool.tagging.tagger import Tagger

    tagger = Tagger.load(model)
    tokens = [len(document.tokens) for document in tagger.tag_texts(sentences)]
    server = Server(model)
    clients = Clients(server.port, sentences, tokens)
    count = max(options.clients, options.requests // (options.rounds + 1))
    alone: list[dict[str, float]] = []
    in_batches: list[dict[str, float]] = []
    served: list[dict[str, float]] = []
    times: list[float] = []
    one = {"Tagger.tag": [0.0], "one client": [0.0], "one client, httpx": [0.0]}
    errors = total = 0
    memory: list[float] = []
    try:
        for number in range(options.rounds + 1):
            texts = (sentences * (1 + count // len(sentences)))[: max(count, 500)]
            inside = tag_in_process(tagger, texts, len(texts))
            small = tag_in_process(tagger, texts[: len(texts) // 2], options.clients)
            before = server.counts()
            load = clients.load(options.client, options.clients, count * options.each, options.each)
            after = server.counts()
            errors, total = errors + load.errors, total + load.requests
            memory.append(after.get("process_resident_memory_bytes", 0.0) / 1e6)
            cpu = after.get("process_cpu_seconds_total", 0.0) - before.get("process_cpu_seconds_total", 0.0)
            if number == 0:  # new words, new connections
                one = {name: [] for name in one}
                continue
            alone.append(inside)
            in_batches.append(small)
            served.append(
                {
                    "tokens_per_second": load.tokens / load.seconds,
                    "tokens_per_cpu_second": load.tokens / cpu if cpu else float("nan"),
                    "requests_per_second": load.requests / load.seconds,
                    "server_cores": cpu / load.seconds,
                    "batch": (after["nertool_batch_requests_sum"] - before["nertool_batch_requests_sum"])
                    / (after["nertool_batch_requests_count"] - before["nertool_batch_requests_count"]),
                }
            )
            times += load.milliseconds
            for text in sentences[:200]:
                began = time.perf_counter()
                tagger.tag(text)
                one["Tagger.tag"].append(1000 * (time.perf_counter() - began))
            one["one client"] += clients.load("lean", 1, 200).milliseconds
            one["one client, httpx"] += clients.load("httpx", 1, 200).milliseconds
    finally:
        clients.end()
        server.end()

    def middle(rows: list[dict[str, float]]) -> dict[str, float]:
        return {name: median(row[name] for row in rows) for name in rows[0]}

    def share(name: str, of: list[dict[str, float]]) -> float:
        return median(a[name] / b[name] for a, b in zip(served, of, strict=True))

    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "requests": total,
        "errors": errors,
        "tokens_per_sentence": sum(tokens) / len(tokens),
        "tagger": middle(alone),
        "tagger_in_batches": middle(in_batches),
        "server": middle(served),
        "share": share("tokens_per_second", alone),
        "share_of_cpu": share("tokens_per_cpu_second", alone),
        "share_of_cpu_in_batches": share("tokens_per_cpu_second", in_batches),
        "milliseconds": {f"p{p}": percentile(times, p / 100) for p in (50, 95, 99)},
        "one": {name: {f"p{p}": percentile(each, p / 100) for p in (50, 95)} for name, each in one.items()},
        "memory_mb": {"after the first slice": memory[0], "at the end": memory[-1]},
    }


def show(found: dict[str, Any], options: argparse.Namespace) -> None:
    """Print the figures."""
    tagger, small, server = found["tagger"], found["tagger_in_batches"], found["server"]
    print(
        f"{found['cores']} cores; {found['requests']:,} requests, each of {options.each} x "
        f"{found['tokens_per_sentence']:.1f} tokens, by {options.clients} clients ({options.client}); "
        f"{found['errors']} errors\n"
        "                              tokens/s  a second of processor time  the server's share of that\n"
        f"Tagger, all texts at once    {tagger['tokens_per_second']:9,.0f}  "
        f"{tagger['tokens_per_cpu_second']:26,.0f}  {found['share_of_cpu']:26.0%}\n"
        f"Tagger, {options.clients:3} texts at a time  {small['tokens_per_second']:9,.0f}  "
        f"{small['tokens_per_cpu_second']:26,.0f}  {found['share_of_cpu_in_batches']:26.0%}\n"
        f"server                       {server['tokens_per_second']:9,.0f}  "
        f"{server['tokens_per_cpu_second']:26,.0f}\n"
        f"server: {server['requests_per_second']:,.0f} requests/s on {server['server_cores']:.2f} cores, "
        f"{server['batch']:.1f} requests in a batch"
    )
    for name, row in {f"{options.clients} clients": found["milliseconds"], **found["one"]}.items():
        print(f"{name:24}", ", ".join(f"{key} {value:.1f} ms" for key, value in row.items()))
    print(", ".join(f"{value:.0f} MB {name}" for name, value in found["memory_mb"].items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", help="run directory")
    parser.add_argument("--texts", type=Path, default=DEMO, help="sentences, in columns")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--client", choices=CLIENTS, default="lean", help="how the many clients ask")
    parser.add_argument("--requests", type=int, default=20_000, help="of the many clients, in all")
    parser.add_argument("--each", type=int, default=1, help="sentences in a request")
    parser.add_argument("--rounds", type=int, default=5, help="slices that count, after one that does not")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--be-clients", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.be_clients:
        be_clients()
        return
    if options.model is None:
        parser.error("name a model")
    found = measure(options.model, read_sentences(options.texts), options)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        show(found, options)


if __name__ == "__main__":
    main()
