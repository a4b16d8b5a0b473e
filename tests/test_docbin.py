"""DocBin files: read as corpora, written by `nertool tag`, and both the same as by way of CoNLL."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import spacy
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin, Span

from nertool import Tagger
from nertool.cli.main import main
from nertool.config.schema import CorpusConfig
from nertool.data.corpus import read_corpus, read_split
from nertool.errors import CorpusError
from nertool.evaluation.scores import evaluate
from nertool.formats.docbin import TaggedText, write_docbin
from nertool.text.schemes import Scheme

NLP = spacy.blank("en")
CONFIG = CorpusConfig(train="unused")


def save(path: Path, *docs: Doc) -> Path:
    DocBin(docs=docs).to_disk(path)
    return path


def load(path: Path) -> list[Doc]:
    return list(DocBin().from_disk(path).get_docs(NLP.vocab))


def labelled_doc(sentences, *, borders: bool = True) -> Doc:
    """One Doc of sentences labelled in IOB2."""
    words = [token for tokens, _ in sentences for token in tokens]
    starts = [number == 0 for tokens, _ in sentences for number, _ in enumerate(tokens)]
    labels = [label for _, row in sentences for label in row]
    return Doc(NLP.vocab, words=words, sent_starts=starts if borders else None, ents=labels)


def test_a_docbin_is_read_as_the_columns_are(tmp_path, tiny_yaml, tiny_train):
    path = save(tmp_path / "a.spacy", labelled_doc(tiny_train[:5]), labelled_doc(tiny_train[5:]))
    for target in (None, Scheme.IOB2, Scheme.IOBES):
        found = read_split(path, CONFIG, target)
        columns = read_split(tiny_yaml.parent / "train.txt", CONFIG, target)
        assert (found.tokens, found.labels, found.label_scheme) == (
            columns.tokens,
            columns.labels,
            columns.label_scheme,
        )
        assert found.documents == [0] * 5 + [1] * 7 and found.unlabelled == found.strays == 0


def test_a_doc_without_borders_is_one_sentence(tmp_path, tiny_train):
    found = read_split(save(tmp_path / "a.spacy", labelled_doc(tiny_train, borders=False)), CONFIG)
    assert len(found) == 1 and found.tokens[0][:2] == ["Ada", "Byron"]


def test_white_space_tokens_are_left_out(tmp_path):
    doc = Doc(
        NLP.vocab, words=["\n", "New", " ", "Haven", "fell", " "], ents=["O", "B-LOC", "I-LOC", "I-LOC", "O", "O"]
    )
    empty, blank = Doc(NLP.vocab), Doc(NLP.vocab, words=[" "])
    found = read_split(save(tmp_path / "a.spacy", empty, doc, blank), CONFIG, Scheme.IOBES)
    assert found.tokens == [["New", "Haven", "fell"]] and found.labels == [["B-LOC", "E-LOC", "O"]]


def test_sentences_without_whole_labels_are_left_out_and_counted(tmp_path, tiny_train):
    unknown = NLP("Nobody knows .")
    partial = Doc(
        NLP.vocab, words=["In", "Oslo", ".", "It", "rained"], sent_starts=[True, False, False, True, False]
    )
    partial.set_ents([Span(partial, 1, 2, label="LOC")], outside=[partial[3:5]], default="missing")
    path = save(tmp_path / "a.spacy", unknown, partial, labelled_doc(tiny_train[:1]))
    found = read_split(path, CONFIG)
    assert found.tokens == [["It", "rained"], tiny_train[0][0]] and found.labels[0] == ["O", "O"]
    assert found.unlabelled == 2 and found.documents == [0, 1]
    assert "2 sentences were left out" in found.notes()[0]


@pytest.mark.parametrize(
    "content", [b"", b"not a DocBin", b"\x78\x9c\x03\x00\x00\x00\x00\x01", b"x\x9cK\x04\x00\x00b\x00b"]
)
def test_what_is_no_docbin_is_refused(tmp_path, content):
    path = tmp_path / "a.spacy"
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=r"a\.spacy: not a DocBin"):
        read_split(path, CONFIG)


def test_what_cannot_be_learnt_from_is_refused(tmp_path):
    path = save(tmp_path / "a.spacy", NLP("Nobody knows ."))
    with pytest.raises(CorpusError, match=r"no sentence in it with labels for all of its tokens \(1 have not\)"):
        read_split(path, CONFIG)
    with pytest.raises(CorpusError, match="read for its entities"):
        read_split(path, CONFIG, Scheme.PLAIN)
    with pytest.raises(CorpusError, match="no such file"):
        read_split(tmp_path / "b.spacy", CONFIG)


def test_training_and_evaluation_read_docbins(tmp_path, trained_run, tiny_train, tiny_test):
    train = save(tmp_path / "train.spacy", labelled_doc(tiny_train))
    corpus = read_corpus(CorpusConfig(train=str(train), validation=str(train)))
    assert corpus.train.label_scheme is corpus.validation.label_scheme is Scheme.IOBES
    command = [
        "evaluate",
        str(save(tmp_path / "test.spacy", labelled_doc(tiny_test))),
        "--model",
        str(trained_run),
    ]
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    assert done.exit_code == 0 and "labels read as IOB2" in done.output
    labels = [tagged.labels for tagged in Tagger.load(trained_run).tag_tokens(tokens for tokens, _ in tiny_test)]
    f1 = evaluate([row for _, row in tiny_test], labels, Scheme.IOB2).micro.f1
    assert f"{100 * f1:.2f}" in done.output


TEXT = "Ada Byron  wrote to Babbage.  She met\tMina Okoye . \n\n  \nRain fell on Malmö ."


def test_tag_writes_a_docbin(tmp_path, trained_run):
    source, path = tmp_path / "a.txt", tmp_path / "out.spacy"
    source.write_text(TEXT)
    command = ["tag", str(source), "--model", str(trained_run), "--format", "spacy"]
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 1 and "name a file for it with --output" in refused.output
    done = CliRunner().invoke(main, [*command, "--output", str(path)], catch_exceptions=False)
    assert done.exit_code == 0 and done.output == ""
    docs, tagged = load(path), list(Tagger.load(trained_run).tag_texts(TEXT.split("\n")))
    assert [doc.text for doc in docs] == TEXT.split("\n")
    for doc, wanted in zip(docs, tagged, strict=True):
        assert [token.text for token in doc if not token.is_space] == wanted.tokens
        entities = [(entity.start_char, entity.end_char, entity.label_) for entity in doc.ents]
        assert entities == [(entity.start, entity.end, entity.label) for entity in wanted.entities]
        group = doc.spans["nertool"]
        assert list(group) == list(doc.ents)
        assert group.attrs["scores"] == [entity.score for entity in wanted.entities]
        assert not wanted.tokens or len(list(doc.sents)) == len(wanted.sentences)
    assert sum(len(doc.ents) for doc in docs) >= 3 and len(list(docs[0].sents)) == 2
    # What was written can be read as a corpus.
    assert [token for row in read_split(path, CONFIG).tokens for token in row] == [
        token for each in tagged for token in each.tokens
    ]


def test_same_docs_as_by_the_component(tmp_path, trained_run):
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.add_pipe("nertool", config={"model": str(trained_run)})
    tagged = Tagger.load(trained_run).tag(TEXT)
    (written,) = write([text_of(tagged)])
    doc = nlp(TEXT)
    assert [token.text_with_ws for token in written] == [token.text_with_ws for token in doc]
    assert [(e.start, e.end, e.label_) for e in written.ents] == [(e.start, e.end, e.label_) for e in doc.ents]
    assert written.spans["nertool"].attrs == doc.spans["nertool"].attrs


def text_of(tagged) -> TaggedText:
    entities = [(e.start, e.end, e.label, e.score) for e in tagged.entities]
    return TaggedText(tagged.text, tagged.offsets, tagged.sentences, entities, None)


def write(texts: list[TaggedText]) -> list[Doc]:
    target = io.BytesIO()
    write_docbin(target, texts)
    return list(DocBin().from_bytes(target.getvalue()).get_docs(NLP.vocab))


@given(st.lists(st.tuples(st.sampled_from(["", " ", "  ", "\n", " \t "]), st.sampled_from(["a", "Oslo", "."]))))
def test_the_text_is_kept_whatever_the_white_space(drawn):
    text, offsets = "", []
    for gap, token in drawn:
        text += gap
        offsets.append((len(text), len(text) + len(token)))
        text += token
    for trailing in ("", " ", "\n "):
        (doc,) = write([TaggedText(text + trailing, offsets, [len(offsets)] if offsets else [], [], None)])
        assert doc.text == text + trailing
        assert [(token.idx, token.idx + len(token)) for token in doc if not token.is_space] == offsets


def test_plain_tags_become_tags():
    (doc,) = write([TaggedText("Rain fell", [(0, 4), (5, 9)], [2], [], ["NOUN", "VERB"])])
    assert [token.tag_ for token in doc] == ["NOUN", "VERB"] and not doc.has_annotation("ENT_IOB")
