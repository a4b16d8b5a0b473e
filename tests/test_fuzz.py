"""A short run of `tests/fuzz.py`: whatever is read, only errors of nertool's own are raised."""

from __future__ import annotations

from pathlib import Path

import fuzz
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nertool.errors import CorpusError
from nertool.formats import registry
from nertool.formats.registry import Report, WriteOptions, find_format
from nertool.text.document import Document

NAMES = list(registry._BUILT_IN)
NAMES += ["any format as any other", "any format, tagged", "tagged text", "columns", "spellings"]
NAMES += ["split: parquet", "split: arrow", "split: spacy", "JSON Lines: to tables"]
NAMES += ["vectors", "gazetteer", "config", "strip", "results", "results of a comparison", "checkpoint"]
NAMES += ["bundle: config", "bundle: vocabulary", "bundle: weights", "bundle: weights with a new digest"]

edits = st.lists(
    st.builds(
        fuzz.Edit,
        st.floats(0, 1),
        st.integers(0, 30) | st.integers(0, 5000),
        st.sampled_from(fuzz.PARTS) | st.binary(max_size=6),
    ),
    min_size=1,
    max_size=5,
)


@pytest.fixture(scope="module")
def targets(trained_run: Path) -> dict[str, fuzz.Target]:
    return fuzz.targets(trained_run)


def test_every_reader_has_its_tests(targets):
    assert sorted(targets) == sorted(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("any format")])
def test_seeds_are_understood(targets, name):
    assert all(fuzz.throw(targets[name], seed) for seed in targets[name].seeds)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_corrupt_content_is_understood_or_refused(targets, name, data):
    target = targets[name]
    seed = data.draw(st.sampled_from(range(len(target.seeds))))
    fuzz.throw(target, fuzz.edited(target.seeds[seed], data.draw(edits)))


@pytest.mark.parametrize("name", NAMES)
@given(content=st.binary(max_size=300))
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_are_understood_or_refused(targets, name, content):
    fuzz.throw(targets[name], content)


@pytest.mark.parametrize("kind", ["conll", "jsonl", "brat", "spacy", "parquet"])
def test_half_a_character_cannot_be_written(tmp_path, kind):
    document = Document.from_spans(["a\ud800"], [])
    with pytest.raises(CorpusError, match="cannot be written"):
        find_format(kind).write(tmp_path / "out", [document], WriteOptions(), Report())
    assert not (tmp_path / "out").is_file()
