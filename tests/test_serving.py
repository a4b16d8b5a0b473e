"""The service: what it answers, how it ends, and what it makes of whatever is sent to it."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nertool.cli.main import main
from nertool.errors import NertoolError
from nertool.tagging.tagger import Tagger

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from servers import WAIT, Held, Running, post, received, run, serving, until

from nertool.serving import gate, protocol
from nertool.serving.batching import Batcher, document_json
from nertool.serving.requests import MOST_TEXTS, Options, to_json
from nertool.serving.settings import Settings, named_models

TEXT = "Ada Byron moved from Oslo to New Haven. Nobody came."
HEALTHY = (200, {"status": "ok"})
DEFAULT = Options(0.0, 0, False)


@pytest.fixture(scope="module")
def tagger(trained_run):
    tagger = Tagger.load(trained_run)
    tagger.tag("The first text takes longer.")
    return tagger


@pytest.fixture(scope="module")
def server(trained_run, tagger):
    with serving(trained_run, {"tiny": tagger}, max_chars=2000) as running:
        yield running


def plain(document):
    """A document as it comes back from JSON."""
    return json.loads(json.dumps(document_json(document)))


# What is answered


def test_a_text_is_tagged_as_by_a_tagger(server, tagger):
    reply = server.tag({"text": TEXT})
    assert reply.status == 200
    assert reply.json == {"model": "tiny", "documents": [plain(tagger.tag(TEXT))]}
    (document,) = reply.json["documents"]
    assert [(each["text"], each["label"]) for each in document["entities"]] == [
        ("Ada Byron", "PER"),
        ("Oslo", "LOC"),
        ("New Haven", "LOC"),
    ]
    assert [document["text"][a:b] for a, b in document["sentences"]] == [
        "Ada Byron moved from Oslo to New Haven.",
        "Nobody came.",
    ]


def test_texts_are_answered_in_order(server, tagger):
    texts = [TEXT, "", "  \n ", "Lind met Okoye.", "日本語 𝒳 e\u0301 \0 \x1b[1m"]
    documents = server.tag({"texts": texts}).json["documents"]
    assert documents == [plain(each) for each in tagger.tag_texts(texts)]
    assert server.tag({"texts": []}).json["documents"] == []


@pytest.mark.parametrize("options", [{"min_score": 0.99}, {"n_best": 3}, {"marginals": True}], ids=str)
def test_options_are_those_of_a_tagger(server, trained_run, options):
    (document,) = server.tag({"text": TEXT, **options}).json["documents"]
    assert document == plain(Tagger.load(trained_run, **options).tag(TEXT))


def test_models_are_asked_by_name(trained_run, tagger):
    with serving(trained_run, {"one": tagger, "two": tagger.with_options()}) as server:
        assert [each["name"] for each in server.get("/models").json["models"]] == ["one", "two"]
        assert server.tag({"text": TEXT}).json["model"] == "one"
        assert server.tag({"text": TEXT, "model": "two"}).json["model"] == "two"
        reply = server.tag({"text": TEXT, "model": "three"})
        assert (reply.status, reply.json["detail"][0]["loc"]) == (422, ["body", "model"])
        assert "one, two" in reply.json["detail"][0]["msg"]


def test_what_there_is_to_know_of_the_service(server):
    (model,) = server.get("/models").json["models"]
    assert model == {"name": "tiny", "language": "en", "scheme": "IOB2", "labels": ["LOC", "ORG", "PER"]}
    assert (server.get("/health").status, server.get("/health").json) == HEALTHY
    assert server.ask("HEAD", "/").status == 200
    assert server.get("/ready").json == {"status": "ready"}
    assert server.get("/nothing").status == 404
    assert server.get("/tag").status == 405


def test_counts_are_in_the_format_of_prometheus(trained_run, tagger):
    from prometheus_client.parser import text_string_to_metric_families

    with serving(trained_run, {"tiny": tagger}) as server:
        server.tag({"texts": [TEXT, "Oslo"]})
        server.tag({"text": 5})
        server.get("/some/where")
        families = text_string_to_metric_families(server.get("/metrics").body.decode())
    samples = {(each.name, *sorted(each.labels.values())): each.value for f in families for each in f.samples}
    assert samples["nertool_requests_total", "/tag", "200"] == 1
    assert samples["nertool_requests_total", "/tag", "422"] == 1
    assert samples["nertool_requests_total", "404", "other"] == 1
    assert samples["nertool_texts_total", "tiny"] == 2
    assert samples["nertool_tokens_total", "tiny"] == 13
    assert samples["nertool_entities_total", "tiny"] == 4
    assert samples["nertool_requests_active",] == 0


def test_the_description_names_every_path(server):
    tree = server.get("/openapi.json").json
    assert set(tree["paths"]) == {"/tag", "/models", "/health", "/ready", "/metrics"}
    tag = tree["paths"]["/tag"]["post"]
    fields = tag["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert set(fields) == {"text", "texts", "model", "min_score", "n_best", "marginals"}
    assert {"200", "401", "408", "413", "422", "503"} == set(tag["responses"])
    answer = tree["components"]["schemas"]["Tagged"]["properties"]
    for options in ({}, {"n_best": 1, "marginals": True}):
        (document,) = server.tag({"text": TEXT, **options}).json["documents"]
        assert set(document) <= set(answer)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_need_nothing_from_elsewhere(server, path):
    page = server.get(path)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    text = page.body.decode()
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#|/)""", text)
    assert "://" not in text and "innerHTML" not in text and " style=" not in text
    assert not re.findall(r"\son[a-z]+=", text), "the policy forbids handlers in attributes"


# Batches


def test_requests_that_wait_at_the_same_time_are_one_batch(tagger):
    async def ask():
        held, batches = Held(tagger), []
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(held, executor, batches.append)
            batcher.start()
            texts = [f"Lind met Okoye {number} times." for number in range(6)]
            first = asyncio.create_task(batcher.tag(["Oslo"], DEFAULT))
            while not held.calls:
                await asyncio.sleep(0.001)
            others = [asyncio.create_task(batcher.tag([text], DEFAULT)) for text in texts]
            given_up = asyncio.create_task(batcher.tag(["nobody waits for this"], DEFAULT))
            await asyncio.sleep(0.01)
            given_up.cancel()
            held.may_go.set()
            answers = await asyncio.gather(first, *others)
            lone = await batcher.tag(["London"], DEFAULT)
            await batcher.stop()
        assert batches == held.calls == [1, 6, 1]
        assert [each.documents for each in [*answers, lone]] == [
            [to_json(document_json(document))] for document in tagger.tag_texts(["Oslo", *texts, "London"])
        ]

    run(ask())


def test_requests_that_arrive_together_are_one_batch(tagger):
    async def ask():
        batches = []
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(tagger, executor, batches.append)
            batcher.start()
            await asyncio.gather(*(batcher.tag([TEXT], DEFAULT) for _ in range(9)))
            # A batch is not too large, and a request that is larger is alone in one.
            await asyncio.gather(*(batcher.tag(["Oslo. " * 2000], DEFAULT) for _ in range(3)))
            await batcher.stop()
        assert batches == [9, 1, 1, 1]

    run(ask())


def test_a_request_that_fails_leaves_its_batch_alone(tagger):
    class Picky(Tagger):
        def __init__(self):
            self.__dict__.update(tagger.__dict__)

        def tag_texts(self, texts):
            own = list(texts)
            if "bad" in own:
                raise NertoolError("it is bad")
            return tagger.tag_texts(own)

        def with_options(self, **options):
            return self

    async def ask():
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(Picky(), executor, lambda count: None)
            batcher.start()
            texts = ["Oslo", "bad", "London"]
            answers = await asyncio.gather(
                *(batcher.tag([text], DEFAULT) for text in texts), return_exceptions=True
            )
            await batcher.stop()
        assert [getattr(each, "tokens", str(each)) for each in answers] == [1, "it is bad", 1]

    run(ask())


def test_many_clients_get_what_they_asked_for(server, tagger):
    texts = [f"{name} moved to {place}." for name in ("Ada", "Lind", "Okoye") for place in ("Oslo", "London", "X")]
    options = [{}, {"n_best": 2}, {"min_score": 0.9}]
    expected = {
        (text, number): plain(tagger.with_options(**each).tag(text))
        for text in texts
        for number, each in enumerate(options)
    }

    def ask(key):
        text, number = key
        reply = server.tag({"text": text, **options[number]})
        return reply.status, reply.json["documents"][0]

    keys = [*expected, *expected]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, keys)) == [(200, expected[key]) for key in keys]


# Keys and limits


def test_a_key_is_asked_for(trained_run, tagger, monkeypatch):
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(gate.hmac, "compare_digest", lambda a, b: compared.append(a) or real(a, b))
    with serving(trained_run, {"tiny": tagger}, api_key="käse") as server:
        for path in ("/", "/docs", "/openapi.json", "/health", "/ready"):
            assert server.get(path).status == 200
        right, wrong = "käse".encode(), "kase"
        for path in ("/models", "/metrics", "/nothing"):
            assert server.get(path).status == 401
        assert server.tag({"text": TEXT}).status == 401
        for name, value, status in (
            ("Authorization", b"Bearer " + right, 200),
            ("Authorization", b"bearer   " + right, 200),
            ("X-API-Key", right, 200),
            ("Authorization", b"Bearer " + wrong.encode(), 401),
            ("Authorization", b"Basic " + right, 401),
            ("Authorization", b"Bearer", 401),
            ("X-API-Key", b"", 401),
            ("X-API-Key", b"\xff\xfe", 401),
        ):
            reply = server.tag({"text": TEXT}, **{name: value})
            assert reply.status == status, (name, value)
            assert status == 200 or reply.headers["www-authenticate"] == "Bearer"
        assert len(compared) == 12, "in constant time"


def test_too_much_is_refused(server):
    assert server.tag({"text": "x" * 2000}).status == 200
    reply = server.tag({"texts": ["x" * 1000, "y" * 1001]})
    assert (reply.status, reply.json["detail"].split(";")[0]) == (413, "2,001 characters")
    assert server.tag({"text": "x" * 10_000_000}).status == 413
    assert server.tag(b"[" * 10_000_000).status == 413
    assert server.tag({"text": "\U0001f600" * 2000}).status == 200, "12 bytes each"
    reply = server.tag({"texts": [""] * (MOST_TEXTS + 1)})
    assert (reply.status, reply.json["detail"][0]["loc"]) == (422, ["body", "texts"])
    head = b"POST /tag HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    assert server.raw(head, *[chunk] * 4, b"0\r\n\r\n").startswith(b"HTTP/1.1 413")
    assert server.get("/health").status == 200


WRONG = {
    "nothing": (b"", []),
    "no JSON": (b"text=Ada", []),
    "half": (b'{"text": "Ada', []),
    "a list": (b"[]", []),
    "null": (b"null", []),
    "no text": (b"{}", []),
    "null text": (b'{"text": null}', []),
    "both": (b'{"text": "a", "texts": []}', []),
    "a number": (b'{"text": 5}', ["text"]),
    "numbers": (b'{"texts": ["a", 5]}', ["texts", 1]),
    "a text for texts": (b'{"texts": "Ada"}', ["texts"]),
    "unknown field": (b'{"text": "a", "nbest": 5}', ["nbest"]),
    "score as text": (b'{"text": "a", "min_score": "0.5"}', ["min_score"]),
    "score above 1": (b'{"text": "a", "min_score": 1.5}', ["min_score"]),
    "NaN": (b'{"text": "a", "min_score": NaN}', ["min_score"]),
    "infinity": (b'{"text": "a", "min_score": 1e999}', ["min_score"]),
    "negative": (b'{"text": "a", "n_best": -1}', ["n_best"]),
    "many": (b'{"text": "a", "n_best": 21}', ["n_best"]),
    "huge": (b'{"text": "a", "n_best": ' + b"9" * 5000 + b"}", None),
    "a half": (b'{"text": "a", "n_best": 1.5}', ["n_best"]),
    "a word for yes": (b'{"text": "a", "marginals": "yes"}', ["marginals"]),
    "no such model": (b'{"text": "a", "model": ""}', ["model"]),
    "Latin-1": (b'{"text": "M\xe4lmo"}', []),
    "cut UTF-8": (b'{"text": "\xf0\x9f\x98"}', []),
    "surrogate in UTF-8": (b'{"text": "\xed\xa0\x80"}', []),
    "lone surrogate": (b'{"text": "\\ud800"}', []),
    "UTF-16": ('{"text": "a"}'.encode("utf-16"), []),
    "UTF-8 with a mark": (b'\xef\xbb\xbf{"text": "a"}', []),
    "zeros": (b"\0" * 100, []),
    "deep": (b"[" * 50_000, []),
    "deep in a field": (b'{"text": "a", "x": ' + b'{"a":' * 10_000, []),
    "many unknown": (json.dumps({"x" * 1000 + str(n): 0 for n in range(50)}).encode(), None),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_bodies_are_explained(server, name):
    body, where = WRONG[name]
    reply = server.tag(body)
    assert reply.status == 422
    problems = reply.json["detail"]
    assert all(each["msg"] for each in problems)
    assert where is None or problems[0]["loc"] == ["body", *where]
    assert len(reply.body) < 5000


@pytest.mark.parametrize(
    "text", ["\0", "a\0b", "\x1b]0;x\x07", "\u202eabc", "\ufeff", "\r\n\r\n", "𝒳" * 50], ids=ascii
)
def test_strange_texts_are_tagged(server, tagger, text):
    reply = server.tag({"text": text})
    assert (reply.status, reply.json["documents"]) == (200, [plain(tagger.tag(text))])


def test_labels_that_utf8_cannot_spell_are_answered_as_json():
    assert to_json({"label": 'a"\ud800\n<é'}) == '{"label":"a\\"\\ud800\\n<é"}'.encode()
    assert json.loads(to_json("\ud83d\ude00")) == "\U0001f600"


def test_a_full_service_says_when_to_come_back(trained_run, tagger):
    held = Held(tagger)
    with serving(trained_run, {"tiny": held}, max_concurrency=2) as server, ThreadPoolExecutor(2) as pool:
        try:
            first = [pool.submit(server.tag, {"text": TEXT}) for _ in range(2)]
            until(lambda: b"nertool_requests_active 2.0" in server.get("/metrics").body)
            reply = server.tag({"text": TEXT})
            assert (reply.status, reply.headers["retry-after"]) == (503, "1")
            assert server.get("/health").status == server.get("/ready").status == 200
        finally:
            held.may_go.set()
        assert [each.result().status for each in first] == [200, 200]
        assert server.tag({"text": TEXT}).status == 200


def test_an_answer_that_takes_too_long_is_given_up(trained_run, tagger):
    held = Held(tagger)
    with serving(trained_run, {"tiny": held}, timeout=0.2) as server:
        reply = server.tag({"text": TEXT})
        assert (reply.status, "retry-after" in reply.headers) == (503, True)
        held.may_go.set()
        assert server.tag({"text": TEXT}).status == 200


def test_errors_of_the_service_are_no_secret_to_its_log_alone(trained_run, tagger, capfd):
    class Broken(Held):
        def tag_texts(self, texts):
            raise self.problem

    broken = Broken(tagger)
    with serving(trained_run, {"tiny": broken}) as server:
        broken.problem = RuntimeError("a secret")
        reply = server.tag({"text": TEXT})
        assert reply.status == 500 and b"secret" not in reply.body
        broken.problem = MemoryError()
        assert server.tag({"text": TEXT}).status == 503
        broken.problem = NertoolError("the text is bad")
        assert server.tag({"text": TEXT}).json == {"detail": "the text is bad"}
    assert "a secret" in capfd.readouterr().err


# Connections


def test_slow_bodies_are_given_up(trained_run, tagger):
    with serving(trained_run, {"tiny": tagger}, timeout=0.2) as server:
        assert server.raw(post(b'{"text"', length=100)).startswith(b"HTTP/1.1 408")
        assert '"status": 408' in server.log[-1]
        assert server.tag({"text": TEXT}).status == 200


@pytest.mark.parametrize("sent", [b"", b"POST /tag HT", b"GET / HTTP/1.1\r\nHost: x\r\nX: "], ids=["no", "a", "b"])
def test_slow_heads_are_given_up(trained_run, tagger, sent):
    with serving(trained_run, {"tiny": tagger}, idle=0.2) as server:
        answer = server.raw(sent)
        assert answer == (protocol._TOO_SLOW if sent else b"")
        assert server.get("/health").status == 200


def test_a_client_that_does_not_read_is_given_up(trained_run, tagger):
    with serving(trained_run, {"tiny": tagger}, idle=0.2) as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.settimeout(WAIT)
        client.connect(("127.0.0.1", server.port))
        client.sendall(post(json.dumps({"text": "Oslo. " * 5000}).encode()))
        until(lambda: server.log and not server.connections)
        assert len(received(client)) < json.loads(server.log[0])["sent"]
        assert server.get("/health").status == 200


def test_requests_sent_ahead_are_limited(server):
    one = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    assert server.raw(one * 49, one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")).count(b" 200 OK") == 50
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=WAIT)
    with connection as client, pytest.raises(ConnectionError):
        for _ in range(1000):
            client.sendall(one * 1000)
    assert server.get("/health").status == 200


def test_heads_without_end_are_refused(server):
    start = b"GET /health HTTP/1.1\r\nHost: x\r\n"
    answer = server.raw(start, *[b"X-Long: " + b"x" * 1000 + b"\r\n"] * 100)
    assert answer == protocol._TOO_LONG or not answer  # reset before it could be read
    assert server.raw(start + b"Connection: close\r\n" + b"X: y\r\n" * 100, b"\r\n").startswith(b"HTTP/1.1 200")
    # The limit is for each head of a connection.
    one = b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 30_000 + b"\r\n"
    answer = server.raw(*[one + b"\r\n"] * 4, one + b"Connection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200") == 5


def test_requests_cut_in_the_middle_are_forgotten(trained_run, tagger):
    with serving(trained_run, {"tiny": tagger}) as server:
        whole = post(json.dumps({"text": TEXT}).encode())
        for end in (1, 10, 40, len(whole) - 1):
            server.raw(whole[:end], close=True)
        server.raw(whole, close=True)
        assert server.tag({"text": TEXT}).status == 200
        assert b"nertool_requests_active 0.0" in server.get("/metrics").body
        assert '"status": 499' in server.log[0]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_bytes_on_a_connection_hang_or_break_the_server(server, data):
    whole = post(json.dumps({"text": TEXT}).encode(), "Connection: close")
    mutated = st.tuples(st.integers(0, len(whole)), st.integers(0, 30), st.binary(max_size=30)).map(
        lambda cut: whole[: cut[0]] + cut[2] + whole[cut[0] + cut[1] :]
    )
    sent = data.draw(st.one_of(st.binary(max_size=200), mutated))
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
        answer = received(client)
    statuses = re.findall(rb"HTTP/1\.1 (\d+)", answer)
    assert all(int(each) < 500 for each in statuses), answer


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "text": st.text(max_size=60) | VALUES,
        "texts": st.lists(st.text(max_size=20), max_size=4) | VALUES,
        "min_score": st.floats(0, 1) | VALUES,
        "n_best": st.integers(0, 20) | VALUES,
        "marginals": st.booleans() | VALUES,
        "model": st.just("tiny") | VALUES,
        "more": VALUES,
    },
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FIELDS | VALUES)
@example({"text": "\ud800"})
def test_no_body_breaks_the_server(server, tree):
    reply = server.tag(tree)
    assert reply.status in (200, 422)
    if reply.status == 200:
        texts = [tree["text"]] if tree.get("text") is not None else tree["texts"]
        assert [each["text"] for each in reply.json["documents"]] == texts
        for document in reply.json["documents"]:
            for entity in document["entities"]:
                assert document["text"][entity["start"] : entity["end"]] == entity["text"]
            assert all(a < b for a, b in document["sentences"])
            assert all(b <= c for (_, b), (c, _) in pairwise(document["sentences"]))
    else:
        assert reply.json["detail"]


# The log


def test_the_log_has_a_line_for_each_request_without_texts(trained_run, tagger):
    with serving(trained_run, {"tiny": tagger}) as server:
        server.tag({"text": TEXT})
        server.tag({"text": 5, "Oslo": TEXT})
        server.get("/no%0Awhere?text=Oslo")
        lines = [json.loads(line) for line in server.log]
        assert not any("\n" in line or "Oslo" in line for line in server.log)
    assert [(each["method"], each["path"], each["status"]) for each in lines] == [
        ("POST", "/tag", 200),
        ("POST", "/tag", 422),
        ("GET", "/no\nwhere", 404),
    ]
    known = {"model": "tiny", "texts": 1, "characters": len(TEXT), "tokens": 12, "entities": 3}
    assert known.items() <= lines[0].items()
    assert lines[0]["received"] == len(json.dumps({"text": TEXT})) and lines[0]["sent"] > 100
    assert {"time", "client", "milliseconds"} <= lines[0].keys()


# The command


@contextlib.contextmanager
def command(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], Running]]:
    """Run the command for the time of a block."""
    with subprocess.Popen(
        [sys.executable, "-m", "nertool", "serve", *arguments, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    ) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            match = re.search(r":(\d+);", line)
            assert match, line + process.stderr.read()
            yield process, Running(int(match[1]))
        finally:
            process.kill()


def requests_in_flight(port: int, count: int) -> list[socket.socket]:
    body = json.dumps({"text": "Ada Byron moved from Oslo to London. " * 500, "n_best": 5}).encode()
    clients = []
    for _ in range(count):
        client = socket.create_connection(("127.0.0.1", port), timeout=60)
        client.sendall(post(body))
        clients.append(client)
    return clients


def test_the_command_ends_when_all_is_answered(trained_run):
    with command(str(trained_run)) as (process, server):
        clients = requests_in_flight(server.port, 3)
        until(lambda: b"nertool_requests_active 0.0" not in server.get("/metrics").body)
        process.send_signal(signal.SIGTERM)
        answers = [received(client) for client in clients]
        output, errors = process.communicate(timeout=WAIT)
    assert (process.returncode, errors) == (0, "")
    assert all(answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"}]}") for answer in answers)
    lines = [json.loads(line) for line in output.splitlines()]
    assert [each["status"] for each in lines if each["path"] == "/tag"] == [200, 200, 200]


@pytest.mark.slow
def test_workers_share_the_port_and_end_with_the_command(trained_run):
    with command(str(trained_run), "--workers", "2", NERTOOL_API_KEY="k") as (process, server):
        until(lambda: server.get("/models").status == 401)
        key = {"Authorization": "Bearer k"}
        with ThreadPoolExecutor(8) as pool:
            replies = list(pool.map(lambda _: server.tag({"text": TEXT}, **key), range(200)))
        assert all(each.status == 200 for each in replies)
        found = re.search(rb'nertool_texts_total{model="run"} (\S+)', server.get("/metrics", **key).body)
        assert found and float(found[1]) == 200, "counts of all workers"
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=WAIT)
        assert (process.returncode, errors) == (0, "")


@pytest.mark.slow
def test_workers_do_not_outlive_the_command(trained_run):
    def closed() -> bool:
        try:
            socket.create_connection(("127.0.0.1", server.port), timeout=1).close()
        except OSError:
            return True
        return False

    with command(str(trained_run), "--workers", "2") as (process, server):
        until(lambda: server.get("/health").status == 200)
        process.kill()
        until(closed)


def test_mistakes_are_explained_before_anything_is_served(trained_run, tmp_path, monkeypatch):
    def error(*arguments, **environment):
        result = CliRunner().invoke(main, ["serve", *arguments], env=environment)
        assert result.exit_code == 1, result.output
        return " ".join(result.output.split())

    monkeypatch.chdir(tmp_path)
    run_folder = str(trained_run)
    assert "there is no model folder nowhere" in error("nowhere")
    assert "no runs/latest here" in error(NERTOOL_MODEL="")
    assert "config.yaml" in error(str(tmp_path))
    assert "both called 'run'" in error(run_folder, run_folder)
    assert "both called 'a'" in error(f"a={run_folder}", f"a={run_folder}")
    assert "the API key is empty" in error(run_folder, NERTOOL_API_KEY=" ")
    assert "cannot listen on no.such.host.invalid" in error(run_folder, "--host", "no.such.host.invalid")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert f"cannot listen on 127.0.0.1, port {port}: Address already in use" in error(
            run_folder, "--port", port
        )
    import nertool.cli.common as common

    monkeypatch.setattr(common, "find_spec", lambda name: None if name == "uvicorn" else True)
    assert "pip install 'nertool[serve]'" in error(run_folder)


def test_models_have_names(trained_run, tmp_path):
    (tmp_path / "a=b").mkdir()
    link = tmp_path / "latest"
    link.symlink_to(trained_run)
    assert named_models([f"x={trained_run}", str(tmp_path / "a=b"), str(link)]) == {
        "x": trained_run,
        "a=b": tmp_path / "a=b",
        "run": link,
    }
    with pytest.raises(NertoolError, match="not UTF-8"):
        named_models([f"\udcff={trained_run}"])
    assert Settings({}, max_chars=10).max_body > 120


def test_threads_end_with_the_server(trained_run, tagger):
    before = set(threading.enumerate())
    with serving(trained_run, {"tiny": tagger}) as server:
        server.tag({"text": TEXT})
    assert set(threading.enumerate()) <= before
