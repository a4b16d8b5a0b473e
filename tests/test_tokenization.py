"""Text of any kind and length in tokens and sentences: those of spaCy, in bounded time and memory."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import spacy
from hypothesis import given
from hypothesis import strategies as st

from nertool.text import tokenization
from nertool.text.tokenization import SpacyTokenizer, split_whitespace, tokenize

PIECES = [
    "Oslo",
    "don't",
    "U.S.",
    ".",
    "!",
    "?!",
    "...",
    ")",
    '."',
    "\n",
    "\n\n",
    "  ",
    " ",
    "\t",
    "。",
    "…",
    "3.5",
    "a/b",
]
PIECES += [
    "🎈",
    "👩\u200d🚀",
    "e\u0301",
    "שלום",
    "\u202eabc",
    "\u2028",
    "\x85",
    "\0",
    "\ud800",
    "https://a.b/c?d=(e)",
    "-",
    "'",
]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=30).map(" ".join)
TOKENIZERS = {language: SpacyTokenizer(language) for language in ("en", "xx", "zh")}


def as_spacy_does(text: str, pipeline: spacy.Language) -> tuple[list[tuple[int, int]], list[int]]:
    """A whole text as one Doc, with spaCy's own sentencizer."""
    doc = pipeline("".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in text))
    offsets: list[tuple[int, int]] = []
    starts: list[int] = []
    begins = False
    for token in doc:
        begins = begins or bool(token.is_sent_start)
        if not token.is_space:
            if begins or not offsets:
                starts.append(len(offsets))
            begins = False
            offsets.append((token.idx, token.idx + len(token)))
    return offsets, starts


@pytest.fixture(scope="module")
def pipelines() -> dict[str, spacy.Language]:
    found = {language: spacy.blank(language) for language in TOKENIZERS}
    for pipeline in found.values():
        pipeline.add_pipe("sentencizer")
    return found


@given(texts, st.sampled_from(sorted(TOKENIZERS)), st.sampled_from([60, 200, 20_000]))
def test_tokens_and_sentences_are_spacys_however_the_text_is_cut(pipelines, text, language, at_once):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenization, "_AT_ONCE", at_once)
        assert TOKENIZERS[language](text) == as_spacy_does(text, pipelines[language])


@pytest.mark.parametrize("language", sorted(TOKENIZERS))
@pytest.mark.parametrize(
    "piece", ["(", "🎈", "'s", "US$", "http://", "a.", "e\u0301", "-a", ".", "שָ", "\ud800", "\0", "長"]
)
def test_a_word_without_end(language, piece):
    text = f"In Oslo . {piece * (100_000 // len(piece))} in Oslo ."
    TOKENIZERS[language]("Oslo")
    began = time.perf_counter()
    offsets, starts = TOKENIZERS[language](text)
    assert time.perf_counter() - began < 20  # spaCy by itself takes the square of it
    covered = "".join(text[start:end] for start, end in offsets)
    assert covered == "".join(text.split(" "))
    assert all(a[1] <= b[0] for a, b in pairwise(offsets))
    assert [text[start:end] for start, end in offsets[-2:]] in (["Oslo", "."], ["o", "."])
    assert starts == [0] or (starts == sorted({0, *starts}) and starts[-1] < len(offsets))


def test_words_of_three_hundred_characters_are_whole_and_so_are_letters_beyond(pipelines):
    address = "https://example.org/" + "path-" * 55
    for text in (f"see {address} now", "Oslo " + "y" * 15_000 + " Oslo", "(" * 300):
        assert TOKENIZERS["en"](text) == as_spacy_does(text, pipelines["en"])
    offsets, _ = TOKENIZERS["en"]("Oslo " + "y" * 50_000 + " Oslo")
    assert [end - start for start, end in offsets] == [4, 19_995, 20_000, 10_005, 4]


def test_words_that_all_differ_take_time_by_their_number():
    draw = random.Random(1)
    text = "".join(chr(draw.randrange(0x1F300, 0x1F5FF)) for _ in range(20_000))
    TOKENIZERS["en"]("Oslo")
    began = time.perf_counter()
    offsets, starts = TOKENIZERS["en"](text)
    assert time.perf_counter() - began < 10
    assert "".join(text[start:end] for start, end in offsets) == text and starts == [0]


def test_whitespace():
    text = "Ada  lives\there .\n\n \nShe\u00a0left\n"
    offsets, starts = split_whitespace(text)
    assert [text[start:end] for start, end in offsets] == ["Ada", "lives", "here", ".", "She", "left"]
    assert starts == [0, 4]
    assert split_whitespace("") == split_whitespace(" \n") == ([], [])


def test_a_tokenized_text_is_a_document():
    document = tokenize("Ada left. She came back.", TOKENIZERS["en"])
    assert [sentence.text for sentence in document.sentences()] == ["Ada left.", "She came back."]
    assert document.tokens[:3] == ("Ada", "left", ".") and document.labels is None
    assert tokenize(" ", TOKENIZERS["en"]).tokens == ()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["words", "new words", "emoji"])
def test_a_line_of_ten_megabytes(trained_run: Path, kind: str):
    texts = {
        "words": "' '.join(f'w{n % 50_000}' for n in range(1_600_000))[:10_000_000]",
        "new words": "' '.join(f'Q{n}' for n in range(1_250_000))[:10_000_000]",
        "emoji": "'🎈👩\\u200d🚀😀' * 550_000",
    }
    program = (
        "import resource, sys; from nertool.tagging.tagger import Tagger\n"
        f"tagger, text = Tagger.load(sys.argv[1]), {texts[kind]}\n"
        "tagger.tag('Oslo'); found = tagger.tag(text)\n"
        "assert all(text[a:b] == t for (a, b), t in zip(found.offsets, found.tokens, strict=True))\n"
        "assert ''.join(found.tokens) == ''.join(text.split()) and found.cut_sentences == 1\n"
        "print(len(text.encode()), len(found.tokens), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(trained_run)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    size, _, peak = map(int, done.stdout.split())
    assert size > 9_000_000
    assert peak * (1 if sys.platform == "darwin" else 1024) < 2e9
