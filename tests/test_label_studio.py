"""Label Studio's ML backend: what is proposed for a labelling interface, and what becomes of anything else."""

from __future__ import annotations

import base64
import json
import math
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nertool.tagging.tagger import Tagger

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip("uvicorn", reason="the extra `serve` is not installed")

from servers import serving

from nertool.serving.label_studio import MOST_PROJECTS, Interface, LabelStudio, read_interface
from nertool.serving.requests import BadRequestError, ModelInfo

TEXT = "Ada Byron moved from Oslo to New Haven. Nobody came."
CONFIG = """
<View>
  <Header value="&quot;Who&quot; &amp; where"/>
  <Labels name="ner" toName="passage">
    <Label value="Per" background="red"/>
    <Label value="LOC"/><Label value="Date"/>
  </Labels>
  <Choices name="kind" toName="passage"><Choice value="PER"/></Choices>
  <Text name="passage" value="$body"/>
</View>
"""


@pytest.fixture(scope="module")
def tagger(trained_run):
    return Tagger.load(trained_run)


@pytest.fixture(scope="module")
def server(trained_run, tagger):
    with serving(trained_run, {"tiny": tagger}, max_chars=2000, label_studio=True) as running:
        yield running


def predict(server, **body):
    return server.ask("POST", "/predict", {"tasks": [{"id": 1, "data": {"body": TEXT}}], **body})


def refused(reply):
    assert reply.status == 422, reply.body
    (problem,) = reply.json["detail"]
    return problem["loc"], problem["msg"]


def test_it_is_there(server):
    reply = server.get("/health")
    assert (reply.status, reply.json) == (200, {"status": "UP", "model_class": "tiny"})
    assert server.get("/versions").json == {"versions": ["tiny"]}
    assert server.tag({"text": TEXT}).status == 200, "everything else stays"


def test_a_service_without_it_has_none_of_it(trained_run, tagger):
    with serving(trained_run, {"tiny": tagger}) as server:
        assert [server.ask("POST", path, {}).status for path in ("/setup", "/predict", "/webhook")] == [404] * 3
        assert server.get("/health").json == {"status": "ok"}


def test_predictions_are_what_a_tagger_finds_in_the_words_of_the_project(server, tagger):
    reply = predict(server, label_config=CONFIG, project="1.17", params={"context": None, "login": None})
    assert reply.status == 200
    assert reply.json["model_version"] == "tiny"
    (prediction,) = reply.json["results"]
    document = tagger.tag(TEXT)
    names = {"PER": "Per", "LOC": "LOC"}
    wanted = [(each.start, each.end, each.text, [names[each.label]]) for each in document.entities]
    assert wanted[0] == (0, 9, "Ada Byron", ["Per"])
    assert [tuple(region["value"].values()) for region in prediction["result"]] == wanted
    for region, entity in zip(prediction["result"], document.entities, strict=True):
        assert (region["from_name"], region["to_name"], region["type"]) == ("ner", "passage", "labels")
        assert region["score"] == pytest.approx(entity.score, abs=1e-6)
    best = [each[0].probability for each in tagger.with_options(n_best=1).tag(TEXT).alternatives]
    assert prediction["score"] == pytest.approx(math.prod(best) ** (1 / len(document)), abs=1e-5)


def test_the_least_certain_text_has_the_lowest_score(server):
    texts = ["Nobody came.", "Zyx Qwv of Abc sold Def to Ghi Jkl."]
    reply = predict(server, label_config=CONFIG, tasks=[{"data": {"body": text}} for text in texts])
    sure, unsure = (each["score"] for each in reply.json["results"])
    assert unsure < sure


def test_types_without_a_label_are_left_out_and_counted(server):
    config = CONFIG.replace('<Label value="LOC"/>', "")
    (prediction,) = predict(server, label_config=config).json["results"]
    assert [region["value"]["labels"] for region in prediction["result"]] == [["Per"]]
    assert json.loads(server.log[-1])["left_out"] == 2


def test_many_and_no_tasks(server):
    texts = ["", "  ", TEXT, "Oslo \N{BALLOON} e\u0301"]
    results = predict(server, label_config=CONFIG, tasks=[{"data": {"body": each}} for each in texts]).json[
        "results"
    ]
    assert len(results) == 4 and [each["result"] for each in results[:2]] == [[], []]
    for text, each in zip(texts, results, strict=True):
        assert 0 <= each["score"] <= 1
        for region in each["result"]:
            value = region["value"]
            assert text[value["start"] : value["end"]] == value["text"]
    assert predict(server, label_config=CONFIG, tasks=[]).json["results"] == []


def test_a_setup_is_remembered_for_its_project(server):
    body = {"project": "7.1", "schema": CONFIG, "hostname": "http://x", "access_token": "t", "extra_params": "{}"}
    reply = server.ask("POST", "/setup", body)
    assert (reply.status, reply.json) == (200, {"model_version": "tiny"})
    assert predict(server, project="7.1").status == 200
    assert refused(predict(server, project="8.1"))[0] == ["body", "label_config"]


def test_reports_of_label_studio_are_taken_without_effect(server):
    for path in ("/webhook", "/train"):
        reply = server.ask("POST", path, {"action": "ANNOTATION_CREATED", "annotation": {"result": []}})
        assert (reply.status, reply.json) == (200, {})


WRONG = {
    "no XML": ("<View", "not XML"),
    "empty": ("", "not XML"),
    "another tag": ('<View><Text name="t" value="$t"/></View>', "<Labels"),
    "of an image": (
        '<View><Labels name="l" toName="i"><Label value="PER"/></Labels><Image name="i"/></View>',
        "<Labels",
    ),
    "no key": (CONFIG.replace("$body", "some text"), "$key"),
    "a link": (CONFIG.replace('value="$body"', 'value="$body" valueType="url"'), "text itself"),
    "other labels": (CONFIG.replace("Per", "Gene").replace("LOC", "Cell"), "LOC, ORG, PER"),
    "no labels": (CONFIG.replace("<Label ", "<Lab "), "there are none"),
    "entities": (f'<!DOCTYPE x [<!ENTITY a "PER">]>{CONFIG}', "document type"),
    "a file": (f'<!DOCTYPE x SYSTEM "file:///etc/passwd">{CONFIG}', "document type"),
    "undefined entity": (CONFIG.replace("Per", "&a;"), "not XML"),
    "another encoding": (f'<?xml version="1.0" encoding="nonsense"?>{CONFIG.strip()}', None),
    "long": (CONFIG + " " * 300_000, "too many"),
    "deep": ("<a>" * 40_000, "not XML"),
    "control": (CONFIG.replace("Per", "\0"), "not XML"),
}


@pytest.mark.parametrize("name", WRONG)
def test_interfaces_that_cannot_be_used_are_explained(server, name):
    config, message = WRONG[name]
    for path, field, reply in (
        ("/setup", "schema", server.ask("POST", "/setup", {"project": "1", "schema": config})),
        ("/predict", "label_config", predict(server, label_config=config)),
    ):
        if message is None:
            assert reply.status in (200, 422)
        elif len(config) > 80_000 and reply.status == 413:
            continue
        else:
            where, said = refused(reply)
            assert where == ["body", field], path
            assert message in said and len(said) < 1000


def test_laughs_without_end_are_never_expanded():
    levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 30))
    with pytest.raises(BadRequestError) as caught:
        read_interface(f'<!DOCTYPE x [<!ENTITY l0 "ha">{levels}]><View>&l29;</View>', "schema")
    assert "document type" in str(caught.value.detail)


def test_names_are_those_of_the_project():
    interface = Interface("a", "b", "c", ("per", "PER", "Loc", "x"))
    assert interface.names(["PER", "LOC", "ORG", "X"]) == {"PER": "PER", "LOC": "Loc", "X": "x"}
    nested = '<View><Labels name="a" toName="t"/><Label value="PER"/><Text name="t" value="$t"/></View>'
    assert read_interface(nested, "schema") == Interface("a", "t", "t", ())


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"tasks": [{"data": {"text": "x"}}]}, ["tasks", 0, "data", "body"]),
        ({"tasks": [{"data": {"body": 5}}]}, ["tasks", 0, "data", "body"]),
        ({"tasks": [{"id": 1}]}, ["tasks", 0, "data"]),
        ({"tasks": "x"}, ["tasks"]),
        ({"label_config": 5}, ["label_config"]),
        ({"tasks": [{"data": {"body": ""}}] * 1001}, ["tasks"]),
    ],
    ids=["another key", "a number", "no data", "no tasks", "no interface", "too many"],
)
def test_wrong_requests_are_explained(server, body, where):
    assert refused(predict(server, **{"label_config": CONFIG, **body}))[0] == ["body", *where]


def test_too_much_is_refused(server):
    assert predict(server, label_config=CONFIG, tasks=[{"data": {"body": "x" * 2001}}]).status == 413


def test_the_key_may_come_as_a_password(trained_run, tagger):
    with serving(trained_run, {"tiny": tagger}, api_key="käse", label_studio=True) as server:
        body = {"tasks": [], "label_config": CONFIG}
        for text, status in (("anyone:käse", 200), (":käse", 200), ("käse:", 401), ("käse", 401), ("x:y", 401)):
            shown = b"Basic " + base64.b64encode(text.encode())
            assert server.ask("POST", "/predict", body, {"Authorization": shown}).status == status
        assert server.ask("POST", "/predict", body, {"Authorization": "Basic !!"}).status == 401
        assert server.get("/health").status == 200, "Label Studio asks without"


def test_a_model_of_plain_tags_proposes_nothing():
    service = SimpleNamespace(models=[ModelInfo(name="m", language="en", scheme="PLAIN", labels=["N"])])
    with pytest.raises(BadRequestError) as caught:
        LabelStudio(service)._names(Interface("a", "b", "c", ("N",)), "schema")
    assert "finds no entities" in str(caught.value.detail)


def test_no_more_projects_are_remembered_than_there_is_room_for(server):
    for number in range(MOST_PROJECTS + 1):
        assert server.ask("POST", "/setup", {"project": f"many.{number}", "schema": CONFIG}).status == 200
    assert refused(predict(server, project="many.0"))[0] == ["body", "label_config"]
    assert predict(server, project=f"many.{MOST_PROJECTS}").status == 200


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("1" * 5000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
TASKS = st.lists(
    st.fixed_dictionaries({"data": st.fixed_dictionaries({"body": st.text(max_size=20) | VALUES})}) | VALUES
)
CONFIGS = st.just(CONFIG) | st.builds(
    lambda at, count, new: CONFIG[:at] + new + CONFIG[at + count :],
    st.integers(0, len(CONFIG)),
    st.integers(0, 20),
    st.sampled_from(
        ["", "<", ">", '"', "&", "<!DOCTYPE x>", "]]>", "<![CDATA[", "<?x", "é", "\0", "<Text/>", "$", "ner"]
    ),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["/setup", "/predict", "/webhook"]),
    st.fixed_dictionaries(
        {},
        optional={
            "tasks": TASKS | VALUES,
            "label_config": CONFIGS | VALUES,
            "schema": CONFIGS | VALUES,
            "project": VALUES,
            "params": VALUES,
        },
    )
    | VALUES,
)
def test_nothing_breaks_it(server, path, body):
    reply = server.ask("POST", path, body)
    assert reply.status in (200, 413, 422), reply.body
    if path == "/predict" and reply.status == 200:
        assert len(reply.json["results"]) == len(body["tasks"])
