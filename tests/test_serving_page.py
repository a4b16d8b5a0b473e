"""The page of the service in a browser: what it shows, by keyboard alone, and what it does not let in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nertool.tagging.tagger import Tagger

for package in ("fastapi", "uvicorn", "prometheus_client"):
    pytest.importorskip(package, reason="the extra `serve` is not installed")
pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from networks import small_model  # noqa: E402
from servers import serving, until  # noqa: E402

TEXT = "Ada Byron moved from Oslo to New Haven.\n\nNobody came. Lind met Okoye."


@pytest.fixture(scope="module")
def tagger(trained_run):
    return Tagger.load(trained_run)


@pytest.fixture(scope="module")
def server(trained_run, tagger):
    with serving(trained_run, {"tiny": tagger}) as running:
        yield running


def fill(page, text):
    page.fill("#text", text)
    wait(page, "text => shown !== null && shown.text === text", text)


def wait(page, script, argument=None):
    """Wait until a script says so; the page's policy stops Playwright's own way to do it."""
    until(lambda: page.evaluate(script, argument))


def marks(page, what="#result .sentence > mark"):
    """Text and label of what is marked."""
    return page.eval_on_selector_all(
        what, "all => all.map(each => [each.firstChild.data, each.querySelector('small').textContent])"
    )


def shown_percent(score):
    return "> 99.9 %" if 0.9995 < score < 1 else f"{100 * score:.{1 if score < 0.1 or score > 0.99 else 0}f} %"


@pytest.mark.parametrize(
    "text", [TEXT, "😀𝒳 Ada Byron \U0001f468\u200d\U0001f469 Oslo 😀"], ids=["plain", "astral"]
)
def test_entities_are_marked_as_the_tagger_finds_them(visit, server, tagger, text):
    page = visit(server)
    fill(page, text)
    found = tagger.tag(text).entities
    assert found and marks(page) == [[each.text, f"{each.label} {shown_percent(each.score)}"] for each in found]
    shown = page.eval_on_selector(
        "#result",
        """result => {
            const copy = result.cloneNode(true);
            copy.querySelectorAll('small, .more').forEach(each => each.remove());
            return copy.textContent;
        }""",
    )
    assert shown == text, "the text is shown whole"
    assert page.inner_text("#status").startswith(f"{len(found)} entities; ")


def test_the_keyboard_is_enough(visit, server, tagger):
    page = visit(server)
    wait(page, "models.length === 1")
    page.keyboard.type("Lind moved from Oslo to Babbage. Okoye met Otto Byron.")  # the text has the focus
    page.keyboard.press("Control+Enter")
    wait(page, "shown !== null && shown.sentences.length === 2")
    scores = [each.score for each in shown_entities(tagger, page)]
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "least"
    for _ in range(2):
        page.keyboard.press("PageUp")
    least = int(page.input_value("#least")) / 100
    assert least > 0
    page.keyboard.press("End")
    assert page.locator("#result mark.below").count() == sum(score < 1 for score in scores)
    page.keyboard.press("Home")
    assert page.locator("#result mark.below").count() == 0
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.ariaLabel") == "Alternatives for sentence 1"
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.ariaLabel") == "Alternatives for sentence 2"
    page.keyboard.press("Enter")
    page.wait_for_selector(".alternatives li")
    (several,) = tagger.with_options(n_best=5).tag("Okoye met Otto Byron.").alternatives
    rows = page.locator(".alternatives li").all()
    assert [row.locator(".number").inner_text() for row in rows] == [
        shown_percent(each.probability) for each in several
    ]
    assert [row.locator("mark").count() for row in rows] == [len(each.entities) for each in several]
    page.keyboard.press("Escape")
    assert page.locator(".alternatives").count() == 0
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("document.activeElement.id") == "least"


def shown_entities(tagger, page):
    return tagger.tag(page.input_value("#text")).entities


def test_the_slider_hides_what_is_less_probable(visit, server, tagger):
    page = visit(server)
    text = " ".join(
        f"{name} met {other} in Oslo." for name in ("Xu", "Granite", "Rain") for other in ("Bo", "May")
    )
    fill(page, text)
    scores = sorted(each.score for each in tagger.tag(text).entities)
    middle = round(100 * scores[len(scores) // 2])
    page.eval_on_selector(
        "#least", "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }", middle
    )
    below = sum(score < middle / 100 for score in scores)
    assert page.locator("#result mark.below").count() == below
    assert page.inner_text("#shown-least") == f"{middle} %"
    counts = [int(each) for each in page.locator("#legend small").all_inner_texts()]
    assert sum(counts) == len(scores) - below
    assert not below or f"{below} less probable" in page.inner_text("#status")


def test_nothing_that_is_shown_is_markup(visit, trained_run, tagger):
    bad = '<img src=x onerror="alert(1)"><b>'
    labels = [label.replace("PER", bad).replace("LOC", "\u202e</script>") for label in tagger.model.labels]
    hostile = Tagger(replace(tagger.model, labels=labels))
    text = f"{bad} Ada Byron moved to Oslo. <script>alert(2)</script> &lt;i&gt; \u202e Lind met Okoye."
    with serving(trained_run, {bad: hostile}) as server:
        page = visit(server)
        fill(page, text)
        assert bad in {each.label for each in hostile.tag(text).entities}
        page.locator(".more").first.click()
        page.wait_for_selector(".alternatives li")
        assert page.locator("img, b, i").count() == 0
        assert page.locator("script").count() == 1
        assert page.locator("#model option").all_inner_texts() == [bad]
        shown = [label for _, label in marks(page)]
        assert any(label.startswith(bad) for label in shown)
        assert any(label.startswith("\\u202e</script>") for label in shown), "shown, not obeyed"


def test_the_policy_stops_scripts_and_requests_to_others(visit, server):
    policy = ("Content Security Policy", "Fetch API cannot load", "ERR_INVALID_URL")
    page = visit(server, expected=(*policy, "http://127.0.0.1:9/", "data:"))
    assert page.evaluate(
        """async () => {
            const hostile = document.createElement('div');
            hostile.innerHTML = '<img src="data:x" onerror="window.hit = 1">';
            const script = Object.assign(document.createElement('script'), {text: 'window.hit = 2'});
            document.body.append(hostile, script);
            const sent = await fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'stopped');
            await new Promise(done => setTimeout(done, 100));
            return [window.hit ?? null, sent];
        }"""
    ) == [None, "stopped"]


def test_it_follows_the_colours_of_the_system(visit, server):
    def brightness(scheme):
        page = visit(server, color_scheme=scheme)
        fill(page, TEXT)
        script = """name => getComputedStyle(document.querySelector(name)).getPropertyValue(
            name === 'body' ? 'background-color' : 'color').match(/[0-9.]+/g).slice(0, 3).map(Number)"""
        return [sum(page.evaluate(script, name)) / 3 for name in ("body", "#result mark")]

    (light, dark_text), (dark, light_text) = brightness("light"), brightness("dark")
    assert light > 200 > 60 > dark_text and dark < 60 < 200 < light_text


@pytest.mark.parametrize("width", [320, 375, 1400])
def test_it_fits_the_width(visit, server, width):
    page = visit(server, width=width)
    fill(page, f"{'x' * 500} Ada Byron moved from {'Oslo' * 50}. " + TEXT)
    page.locator(".more").first.click()
    page.wait_for_selector(".alternatives li")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.goto(f"http://127.0.0.1:{server.port}/docs")
    page.wait_for_selector("h2")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_long_texts(visit, server, tagger):
    page = visit(server, expected=("413",))
    text = (TEXT + "\n") * 400
    fill(page, text)
    assert page.locator("#result mark").count() == len(tagger.tag(text).entities)
    assert page.locator(".more[tabindex='0']").count() == 1, "not a stop for each sentence"
    page.fill("#text", "x" * 100_001)
    page.wait_for_selector("#status.bad")
    assert page.inner_text("#length") == "100,001 of 100,000 characters"
    assert "at most 100,000" in page.inner_text("#status")
    fill(page, TEXT)
    assert page.locator("#status.bad").count() == 0


def test_a_key_is_asked_for(visit, trained_run, tagger):
    with serving(trained_run, {"tiny": tagger}, api_key="secret") as server:
        page = visit(server, expected=("401",))
        page.fill("#text", TEXT)
        page.wait_for_selector("#key:visible")
        page.fill("#key", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("#status.bad")
        page.fill("#key", "secret")
        page.keyboard.press("Enter")
        page.wait_for_selector("#result mark")
        assert not page.is_visible("#key")
        assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]


def test_a_server_that_is_gone_is_no_riddle(visit, trained_run, tagger):
    with serving(trained_run, {"tiny": tagger}) as server:
        page = visit(server, expected=("ERR_",))
        fill(page, TEXT)
    page.fill("#text", TEXT + " More.")
    page.wait_for_selector("#status.bad")
    assert page.inner_text("#status") == "The server does not answer."
    assert page.locator("#result mark").count(), "what was found stays"


def test_models_of_tags_mark_each_token(visit, trained_run):
    tagger = Tagger(small_model())
    with serving(trained_run, {"tags": tagger}) as server:
        page = visit(server)
        text = "eF cab 😀 Fab 7a."
        fill(page, text)
        document = tagger.with_options(marginals=True).tag(text)
        labels = document.labels or ()
        assert marks(page) == [
            [token, f"{label} {shown_percent(shares[label])}"]
            for token, label, shares in zip(document.tokens, labels, document.marginals, strict=True)
        ]
        page.locator(".more").first.click()
        page.wait_for_selector(".alternatives li")
        assert page.locator(".alternatives li").count() == 5


def test_several_models(visit, trained_run, tagger):
    with serving(trained_run, {"entities": tagger, "tags": Tagger(small_model())}) as server:
        page = visit(server)
        fill(page, TEXT)
        page.select_option("#model", "tags")
        wait(page, "shown.model === 'tags'")
        assert page.locator("#result mark").count() == len(tagger.tag(TEXT).tokens)


def test_the_description_is_shown(visit, server):
    page = visit(server, "/docs")
    page.wait_for_selector("h2")
    assert page.locator("h2 code").all_inner_texts() == [
        "POST /tag",
        "GET /models",
        "GET /health",
        "GET /ready",
        "GET /metrics",
    ]
    assert page.locator("th", has_text="min_score").count() == 1
