"""DocBin files: read as corpora, written by `nertool tag`, and both the same as by way of CoNLL."""

from __future__ import annotations

from pathlib import Path

import pytest
import spacy
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin, Span

from nertool.cli.main import main
from nertool.config.schema import CorpusConfig
from nertool.data.corpus import read_corpus, read_split
from nertool.errors import CorpusError
from nertool.evaluation.scores import evaluate
from nertool.formats.docbin import DocBinFormat
from nertool.formats.registry import ReadOptions, Report, WriteOptions
from nertool.tagging.tagger import Tagger
from nertool.text.document import UNKNOWN, Document
from nertool.text.schemes import Scheme
from nertool.text.schemes import Span as Entity

NLP = spacy.blank("en")
CONFIG = CorpusConfig(train="unused")


def save(path: Path, *docs: Doc) -> Path:
    DocBin(docs=docs).to_disk(path)
    return path


def load(path: Path) -> list[Doc]:
    return list(DocBin().from_disk(path).get_docs(NLP.vocab))


def read(path: Path, **options) -> list[Document]:
    return list(DocBinFormat().read(path, ReadOptions(**options), Report()))


def write(path: Path, *documents: Document) -> list[Doc]:
    DocBinFormat().write(path, documents, WriteOptions(), Report())
    return load(path)


def tokens(split) -> list[list[str]]:
    return [list(sentence.tokens) for sentence in split.sentences]


def labelled_doc(sentences, *, boundaries: bool = True) -> Doc:
    """One Doc of sentences labelled in IOB2."""
    words = [token for tokens, _ in sentences for token in tokens]
    starts = [number == 0 for tokens, _ in sentences for number, _ in enumerate(tokens)]
    labels = [label for _, row in sentences for label in row]
    return Doc(NLP.vocab, words=words, sent_starts=starts if boundaries else None, ents=labels)


def test_a_docbin_is_read_as_the_columns_are(tmp_path, tiny_yaml, tiny_train):
    path = save(tmp_path / "a.spacy", labelled_doc(tiny_train[:5]), labelled_doc(tiny_train[5:]))
    for target in (None, Scheme.IOB2, Scheme.IOBES):
        split = read_split(path, CONFIG, target)
        columns = read_split(tiny_yaml.parent / "train.txt", CONFIG, target)
        assert tokens(split) == tokens(columns)
        assert (split.labels, split.label_scheme) == (columns.labels, columns.label_scheme)
        assert [len(document.sentence_starts) for document in split.documents] == [5, 7]
        assert split.document_count == 2 and split.unlabelled == split.strays == 0


def test_a_doc_without_boundaries_is_one_sentence(tmp_path, tiny_train):
    split = read_split(save(tmp_path / "a.spacy", labelled_doc(tiny_train, boundaries=False)), CONFIG)
    assert len(split) == 1 and split.sentences[0].tokens[:2] == ("Ada", "Byron")


def test_tokens_of_whitespace_are_left_out(tmp_path):
    words = ["\n", "New", " ", "Haven", "fell", " ", "\n", "Oslo"]
    doc = Doc(NLP.vocab, words=words, ents=["O", "B-LOC", "I-LOC", "I-LOC", "O", "O", "B-LOC", "I-LOC"])
    empty, blank = Doc(NLP.vocab), Doc(NLP.vocab, words=[" "])
    split = read_split(save(tmp_path / "a.spacy", empty, doc, blank), CONFIG, Scheme.IOBES)
    assert tokens(split) == [["New", "Haven", "fell", "Oslo"]]
    assert split.labels == [["B-LOC", "E-LOC", "O", "S-LOC"]]


def test_no_sentence_ends_inside_an_entity(tmp_path):
    starts = [True, False, True, True]
    labels = ["O", "B-ORG", "I-ORG", "O"]
    doc = Doc(NLP.vocab, words=["I", "Yahoo!", "Inc", "ran"], sent_starts=starts, ents=labels)
    (document,) = read(save(tmp_path / "a.spacy", doc))
    assert document.labels == tuple(labels) and document.sentence_starts == (0, 3)


def test_sentences_without_all_labels_are_left_out_of_corpora_and_counted(tmp_path, tiny_train):
    unknown = NLP("Nobody knows .")
    partial = Doc(
        NLP.vocab, words=["In", "Oslo", ".", "It", "rained"], sent_starts=[True, False, False, True, False]
    )
    partial.set_ents([Span(partial, 1, 2, label="LOC")], outside=[partial[3:5]], default="missing")
    path = save(tmp_path / "a.spacy", unknown, partial, labelled_doc(tiny_train[:1]))
    split = read_split(path, CONFIG)
    assert tokens(split) == [["It", "rained"], tiny_train[0][0]] and split.labels[0] == ["O", "O"]
    assert split.unlabelled == 2 and split.document_count == 2
    assert "2 sentences were left out" in split.notes()[0]
    # Nothing is left out of a conversion.
    documents = read(path)
    assert [document.labels for document in documents[:2]] == [
        (UNKNOWN,) * 3,
        (UNKNOWN, "B-LOC", UNKNOWN, "O", "O"),
    ]
    assert [document.id for document in documents] == ["0", "1", "2"]
    again = write(tmp_path / "b.spacy", *documents)
    assert [[token.ent_iob for token in doc] for doc in again[:2]] == [[0, 0, 0], [0, 3, 0, 2, 2]]


@pytest.mark.parametrize(
    "content", [b"", b"not a DocBin", b"\x78\x9c\x03\x00\x00\x00\x00\x01", b"x\x9cK\x04\x00\x00b\x00b"]
)
def test_what_is_no_docbin_is_refused(tmp_path, content):
    path = tmp_path / "a.spacy"
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=r"a\.spacy: not a DocBin"):
        read(path)
    with pytest.raises(CorpusError, match=r"a\.spacy: "):
        read_split(path, CONFIG)


def test_what_cannot_be_learnt_from_is_refused(tmp_path):
    path = save(tmp_path / "a.spacy", NLP("Nobody knows ."))
    with pytest.raises(CorpusError, match=r"no sentence in it with labels for all of its tokens \(1 lack them\)"):
        read_split(path, CONFIG)
    with pytest.raises(CorpusError, match="no such file"):
        read_split(tmp_path / "b.spacy", CONFIG)


def test_tags_of_tokens_are_columns_or_plain_labels(tmp_path):
    doc = Doc(NLP.vocab, words=["Rain", "fell"], tags=["NN", "VBD"], pos=["NOUN", "VERB"], ents=["O", "O"])
    path = save(tmp_path / "a.spacy", doc)
    assert read(path)[0].columns == {"tag": ("NN", "VBD"), "pos": ("NOUN", "VERB")}
    split = read_split(path, CorpusConfig(train="unused", scheme="plain"))
    assert split.labels == [["NN", "VBD"]] and split.scheme is Scheme.PLAIN


def test_strip_changes_tokens_and_keeps_labels(tmp_path):
    doc = Doc(NLP.vocab, words=["New1", "Haven2", "fell"], ents=["B-LOC", "I-LOC", "O"])
    (document,) = read(save(tmp_path / "a.spacy", doc), strip="[0-9]$")
    assert document.tokens == ("New", "Haven", "fell") and document.text == "New Haven fell"
    assert [entity.text for entity in document.entities] == ["New Haven"]


def test_training_and_evaluation_read_docbins(tmp_path, trained_run, tiny_train, tiny_test):
    train = save(tmp_path / "train.spacy", labelled_doc(tiny_train))
    corpus = read_corpus(CorpusConfig(train=str(train), validation=str(train)))
    assert corpus.train.label_scheme is corpus.validation.label_scheme is Scheme.IOBES
    test = str(save(tmp_path / "test.spacy", labelled_doc(tiny_test)))
    done = CliRunner().invoke(main, ["evaluate", test, "--model", str(trained_run)], catch_exceptions=False)
    assert done.exit_code == 0 and "labels read as IOB2" in done.output
    tagged = Tagger.load(trained_run).tag_tokens(tokens for tokens, _ in tiny_test)
    f1 = evaluate([row for _, row in tiny_test], [list(each.labels) for each in tagged], Scheme.IOB2).micro.f1
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
        assert tuple(token.text for token in doc if not token.is_space) == wanted.tokens
        entities = [(entity.start_char, entity.end_char, entity.label_) for entity in doc.ents]
        assert entities == [(entity.start, entity.end, entity.label) for entity in wanted.entities]
        group = doc.spans["nertool"]
        assert list(group) == list(doc.ents)
        assert group.attrs["scores"] == [entity.score for entity in wanted.entities]
        assert not wanted.tokens or len(list(doc.sents)) == len(wanted.sentence_starts)
    assert sum(len(doc.ents) for doc in docs) >= 3 and len(list(docs[0].sents)) == 2
    # What was written can be read as a corpus.
    split = read_split(path, CONFIG)
    assert [token for row in tokens(split) for token in row] == [token for each in tagged for token in each.tokens]


def test_same_docs_as_by_the_component(tmp_path, trained_run):
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.add_pipe("nertool", config={"model": str(trained_run)})
    (written,) = write(tmp_path / "a.spacy", Tagger.load(trained_run).tag(TEXT))
    doc = nlp(TEXT)
    assert [token.text_with_ws for token in written] == [token.text_with_ws for token in doc]
    assert [(e.start, e.end, e.label_) for e in written.ents] == [(e.start, e.end, e.label_) for e in doc.ents]
    assert written.spans["nertool"].attrs == doc.spans["nertool"].attrs


@given(st.lists(st.tuples(st.sampled_from(["", " ", "  ", "\n", " \t "]), st.sampled_from(["a", "Oslo", "."]))))
def test_the_text_is_kept_whatever_the_whitespace(tmp_path_factory, drawn):
    path = tmp_path_factory.mktemp("docbin") / "a.spacy"
    text, offsets = "", []
    for gap, token in drawn:
        text += gap
        offsets.append((len(text), len(text) + len(token)))
        text += token
    words = tuple(text[start:end] for start, end in offsets)
    endings = ("", " ", "\n ")
    documents = [Document(words, text + ending, tuple(offsets), id=ending) for ending in endings]
    for doc, ending in zip(write(path, *documents), endings, strict=True):
        assert doc.text == text + ending
        assert [(token.idx, token.idx + len(token)) for token in doc if not token.is_space] == offsets


def test_plain_tags_become_tags_and_scores_a_span_group(tmp_path):
    tagged = Document(("Rain", "fell"), labels=("NOUN", "VERB"), scheme=Scheme.PLAIN)
    scored = Document.from_spans(
        ["Ada", "sang", "Oslo"], [Entity(0, 1, "PER"), Entity(2, 3, "LOC")], scores=[0.5, 1]
    )
    first, second = write(tmp_path / "a.spacy", tagged, scored)
    assert [token.tag_ for token in first] == ["NOUN", "VERB"] and not first.has_annotation("ENT_IOB")
    assert [(e.text, e.label_) for e in second.ents] == [("Ada", "PER"), ("Oslo", "LOC")]
    assert second.spans["nertool"].attrs["scores"] == [0.5, 1]
