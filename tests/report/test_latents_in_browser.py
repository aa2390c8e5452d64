"""The page of single latents in a real browser: it sorts, filters, opens, and lets no text of others do anything."""

import os
import re
import shutil

import pytest
from playwright.sync_api import expect, sync_playwright

from isaerft import analysis
from isaerft.report.pages import table_page
from tests.report.latent_world import ROOT, SUBJECT, hostile_texts, page_of

pytestmark = pytest.mark.slow
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
N_LATENTS, N_STEERED = 230, 3
WIDE, NARROW = {"width": 1360, "height": 900}, {"width": 400, "height": 800}
# The elements that the page's script makes.
OURS = set(re.findall(r'make\("(\w+)"', (ROOT / "isaerft/report/latents.js").read_text(encoding="utf-8"))) | {"main"}
# What a browser shows beside the page's own colors: the contrast of text with what lies behind it.
CONTRAST = """() => {
  const rgba = (text) => {
    const [r, g, b, a] = text.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a === undefined ? 1 : a];
  };
  const over = (top, below) => top.slice(0, 3).map((x, n) => x * top[3] + below[n] * (1 - top[3]));
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) { layers.push(rgba(getComputedStyle(at).backgroundColor)); }
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const light = (color) => {
    const [r, g, b] = color.map((x) => x / 255).map((x) => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  for (const element of document.querySelectorAll("main *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.getClientRects().length) { continue; }
    const back = behind(element), text = over(rgba(getComputedStyle(element).color), back);
    const [a, b] = [light(text), light(back)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) { found.push([element.outerHTML.slice(0, 60), ratio.toFixed(2)]); }
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is on the PATH")
    with sync_playwright() as playwright:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return page_of(tmp_path_factory.mktemp("latents"), N_LATENTS, n_steered=N_STEERED)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    return page_of(folder, N_LATENTS, n_steered=N_STEERED, odd=hostile_texts(str(folder / "away")))


@pytest.fixture
def opened(browser):
    """Open a study's page in a new window; whatever it asks of a network, runs or complains of fails the test."""
    contexts, asked, complaints = [], [], []

    def open_page(world, fragment="", *, viewport=WIDE, **options):
        context = browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("dialog", lambda dialog: complaints.append(dialog.message) or dialog.dismiss())
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(world.results.latent_page.as_uri() + fragment)
        page.wait_for_selector("h1")
        return page

    open_page.complaints = complaints
    yield open_page
    for context in contexts:
        context.close()
    assert [url for url in asked if not url.startswith("file://")] == []
    assert complaints == []


@pytest.fixture(scope="module")
def verdicts(world):
    """The rows of the table that the list shows first, by latent."""
    table = analysis.table("explanation_verdicts").read(world.results.table("explanation_verdicts"))
    primary = world.plan.study.primary
    return table[(table.source == primary.source) & (table.judge == primary.judge)].set_index("latent_index")


def shown(page):
    """Return the latents that the list shows, in order."""
    return [int(text) for text in page.locator("table.list tbody td:first-child").all_inner_texts()]


def told(page):
    return page.get_by_role("status").inner_text()


def test_the_list_sorts_by_each_column_and_back(opened, world, verdicts):
    page = opened(world)
    first = verdicts.sort_values(["score", "latent_index"], ascending=[False, True], na_position="last")
    assert shown(page) == first.index[:200].tolist()
    for key, column, ascending in (
        ("latent", None, True),
        ("q", "qvalue", True),
        ("verdict", "verdict", True),
        ("explanation", "explanation", True),
    ):
        for way in (ascending, not ascending):
            page.locator(f'button[data-sort="{key}"]').click()
            ordered = verdicts.assign(latent=verdicts.index)
            ordered = ordered.sort_values([column or "latent", "latent"], ascending=[way, True], na_position="last")
            assert shown(page) == ordered.index[:200].tolist(), (key, way)
            heading = page.locator("th", has=page.locator(f'button[data-sort="{key}"]'))
            expect(heading).to_have_attribute("aria-sort", "ascending" if way else "descending")
            expect(page.locator("th[aria-sort]")).to_have_count(1)
            expect(page.locator(f'button[data-sort="{key}"]')).to_be_focused()


def test_the_list_shows_the_numbers_of_the_table(opened, world, verdicts):
    page = opened(world)
    for cells in page.locator("table.list tbody tr").all()[:40]:
        latent, verdict, said, score = (cells.locator("td").nth(n) for n in range(4))
        row = verdicts.loc[int(latent.inner_text())]
        assert verdict.inner_text() == row.verdict
        assert said.locator("a").inner_text() == row.explanation
        assert score.inner_text().replace("\u2212", "-") == f"{row.score:.2f}"


def test_words_tokens_indices_verdicts_and_behaviors_narrow_the_list(opened, world, verdicts):
    page = opened(world)
    assert told(page) == f"{N_LATENTS} latents"
    page.get_by_label("supported").check()
    expected = verdicts.index[verdicts.verdict == "supported"]
    assert 0 < len(expected) < 40
    assert sorted(shown(page)) == expected.tolist()
    page.get_by_label("contradicted").check()
    both = verdicts.index[verdicts.verdict.isin(["supported", "contradicted"])]
    assert sorted(shown(page)) == both.tolist()
    wanted = verdicts.explanation[both[0]].lower().split()[:2]
    page.get_by_label("Search").fill(" ".join(wanted[::-1]).upper())
    assert both[0] in shown(page)
    assert len(shown(page)) < len(both)
    for text in page.locator("table.list tbody tr").all_inner_texts():
        assert all(word in text.lower() for word in wanted)
    page.get_by_label("Search").fill("")
    assert sorted(shown(page)) == both.tolist()
    page.get_by_label("supported").uncheck()
    page.get_by_label("contradicted").uncheck()
    page.get_by_label("Search").fill("no such words")
    assert told(page) == "No latent is like that."
    page.get_by_label("Search").fill("117")
    assert 117 in shown(page)
    page.get_by_label("Search").fill("")
    page.get_by_label("Raised most by").select_option(label=world.plan.tested_behaviors[2])
    raised = page.locator("table.list td.b").all_inner_texts()
    assert raised
    assert {text.rsplit(" ", 1)[0] for text in raised} == {world.plan.tested_behaviors[2].replace("_", " ")}


def test_another_reading_shows_its_own_verdicts(opened, world):
    page = opened(world)
    page.get_by_label("Explanations of").select_option(label="local output, read by lexical")
    page.locator('button[data-sort="latent"]').click()
    table = analysis.table("explanation_verdicts").read(world.results.table("explanation_verdicts"))
    own = table[(table.source == "local_output") & (table.judge == "lexical")]
    assert page.locator("table.list td.v").all_inner_texts() == own.verdict.tolist()[:200]


def test_more_rows_come_when_asked_for(opened, world):
    page = opened(world)
    assert len(shown(page)) == 200
    page.get_by_role("button", name="Show 200 more").click()
    assert len(shown(page)) == N_LATENTS
    expect(page.get_by_role("button", name="Show 200 more")).to_have_count(0)


def test_a_latent_opens_and_the_list_comes_back_as_it_was(opened, world, verdicts):
    page = opened(world)
    page.get_by_label("inconclusive").check()
    order = shown(page)
    page.get_by_role("link", name=str(order[1]), exact=True).click()
    expect(page.locator("h1")).to_have_text(f"Latent {order[1]}")
    assert page.url.endswith(f"#{SUBJECT}/{order[1]}")
    expect(page.locator(".verdict")).to_contain_text(verdicts.reason[order[1]])
    expect(page.locator("h1")).to_be_focused()
    page.get_by_role("link", name="Next").click()
    expect(page.locator("h1")).to_have_text(f"Latent {order[2]}")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("h1")).to_have_text(f"Latent {order[1]}")
    page.keyboard.press("Escape")
    expect(page.get_by_label("inconclusive")).to_be_checked()
    assert shown(page) == order
    page.go_back()
    expect(page.locator("h1")).to_have_text(f"Latent {order[1]}")


def test_an_address_opens_its_latent_and_an_odd_one_says_what_is_wrong(opened, world, verdicts):
    page = opened(world, f"#{SUBJECT}/217")
    expect(page.locator("h1")).to_have_text("Latent 217")
    expect(page.locator(".says")).to_contain_text(verdicts.explanation[217])
    for fragment, text in ((f"#{SUBJECT}/230", "The dictionary has no such latent: it has 230."), ("#x/-1", "of 230")):
        page.evaluate("to => { location.hash = to; }", fragment)
        expect(page.locator("main")).to_contain_text(text)
    page.evaluate("to => { location.hash = to; }", "#%E0%A4%A/<b>")
    expect(page.get_by_label("Search")).to_be_visible()


def test_the_tables_pages_link_to_latents(opened, world, verdicts):
    table = analysis.table("explanation_verdicts")
    text = table_page(
        table, table.read(world.results.table("explanation_verdicts")), latent_page="../latents/index.html",
        subjects=[SUBJECT],
    )  # fmt: skip
    path = world.results.page("explanation_verdicts")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    page = opened(world)
    page.goto(path.as_uri())
    page.get_by_role("link", name="41", exact=True).first.click()
    expect(page.locator("h1")).to_have_text("Latent 41")


def test_a_latent_shows_what_is_predicted_beside_what_was_measured(opened, world, verdicts):
    page = opened(world, f"#{SUBJECT}/2")
    rows = page.locator("table.behaviors tbody tr")
    expect(rows).to_have_count(len(world.plan.tested_behaviors))
    predicted = [text.split()[-1] for text in page.locator("table.behaviors td.p").all_inner_texts()]
    effects = [float(text.replace("\u2212", "-").replace("nothing", "0")) for text in predicted]
    assert effects == sorted(effects, reverse=True)
    assert len(set(effects)) > 5
    assert page.locator("table.behaviors tr.expected").count() > 0
    seeds = world.plan.study.n_seeds
    expect(rows.first.locator(".dot")).to_have_count(seeds)
    before = rows.first.locator(".mean").evaluate("one => one.style.left")
    page.get_by_label("change", exact=True).check()
    expect(page.get_by_label("change", exact=True)).to_be_focused()
    assert rows.first.locator(".mean").evaluate("one => one.style.left") != before
    expect(page.locator(".explanations > li")).to_have_count(3)
    page.get_by_role("button", name="lexical").first.click()
    expect(page.get_by_role("button", name="lexical").first).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#contexts li")).to_have_count(6)
    heat = page.locator("#contexts mark.strongest").first
    assert float(heat.evaluate("one => one.style.getPropertyValue('--heat')")) > 0
    assert heat.evaluate("one => getComputedStyle(one).backgroundColor") != "rgba(0, 0, 0, 0)"
    expect(page.locator("#promoted .token")).to_have_count(16)
    expect(page.locator("#steering tbody tr")).to_have_count(len(world.plan.tested_behaviors))
    link = page.get_by_role("link", name="Page at its source")
    expect(link).to_have_attribute("href", "https://www.neuronpedia.org/gemma-2-2b/12-gemmascope-res-16k/2")
    expect(link).to_have_attribute("rel", "noopener noreferrer nofollow")
    near = page.locator("#neighbors a").first
    to = near.inner_text()
    near.click()
    expect(page.locator("h1")).to_have_text(f"Latent {to}")


def test_the_page_is_used_by_keyboard_alone(opened, world):
    page = opened(world)
    page.keyboard.press("/")
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.type("a/b")
    expect(page.get_by_label("Search")).to_have_value("a/b")
    page.get_by_label("Search").fill("")
    first = shown(page)[0]
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == str(first):
            break
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text(f"Latent {first}")
    focused = set()
    for _ in range(30):
        page.keyboard.press("Tab")
        focused.add(page.evaluate("document.activeElement.tagName"))
    assert {"A", "INPUT", "BUTTON", "SUMMARY"} <= focused


def test_hostile_text_is_shown_and_does_nothing(opened, hostile):
    page = opened(hostile)
    seen = ""
    for latent in [None, *range(0, N_LATENTS, 7)]:
        page.evaluate("to => { location.hash = to; }", f"#{SUBJECT}" + ("" if latent is None else f"/{latent}"))
        expect(page.locator("h1")).to_have_text(
            "Are the explanations true? gemma2_2b_it" if latent is None else f"Latent {latent}"
        )
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        tags = page.evaluate("[...document.querySelectorAll('body *')].map((one) => one.localName)")
        assert set(tags) - OURS <= {"noscript", "script"}
        assert tags.count("script") == 1
        names = page.evaluate("[...document.querySelectorAll('*')].flatMap((one) => one.getAttributeNames())")
        assert not [name for name in names if name.startswith("on") or name in ("src", "srcdoc", "ping", "data-ran")]
        links = page.evaluate("[...document.querySelectorAll('a')].map((one) => one.protocol)")
        assert set(links) <= {"file:", "https:", "http:"}
        seen += page.evaluate("document.querySelector('main').textContent")
    assert len(set(re.findall(r"q\d{3}z", seen))) > 100
    assert "<script>" in seen
    assert "onerror=" in seen
    assert "\u2028" not in seen
    assert "\u202e" not in seen


@pytest.mark.parametrize("fragment", ["", f"#{SUBJECT}/0", f"#{SUBJECT}/7", f"#{SUBJECT}/14"])
def test_nothing_is_wider_than_a_phone(opened, hostile, fragment):
    page = opened(hostile, fragment, viewport=NARROW)
    page.wait_for_selector("table")
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    wide = (
        "[...document.querySelectorAll('main *')].filter((one) => !one.closest('.scroll') &&"
        " one.getBoundingClientRect().right > 401).map((one) => one.outerHTML.slice(0, 80))"
    )
    assert page.evaluate(wide) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("fragment", ["", f"#{SUBJECT}/1"])
def test_text_stands_out_in_light_and_dark(opened, world, scheme, fragment):
    page = opened(world, fragment, color_scheme=scheme)
    page.wait_for_selector("table")
    back = page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/\\\\d+/g).map(Number)".replace("\\\\", "\\")
    )
    assert (max(back) < 60) == (scheme == "dark")
    assert page.evaluate(CONTRAST) == []


def test_it_prints_what_is_known_without_what_is_clicked(opened, world):
    page = opened(world, f"#{SUBJECT}/1", color_scheme="dark")
    page.emulate_media(media="print")
    page.wait_for_selector("#contexts")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)", "paper is not dark"
    assert page.evaluate(CONTRAST) == []
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    for hidden in ("nav.bar", ".scale"):
        expect(page.locator(hidden)).to_be_hidden()
    for visible in ("h1", ".verdict", "table.behaviors", "#contexts", "#promoted", "#steering .answers dl >> nth=0"):
        expect(page.locator(visible)).to_be_visible()
    assert page.locator("#contexts mark").first.evaluate("one => getComputedStyle(one).printColorAdjust") == "exact"
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.emulate_media(media="screen")
    page.keyboard.press("Escape")
    page.emulate_media(media="print")
    expect(page.locator("form.controls")).to_be_hidden()
    expect(page.locator("table.list")).to_be_visible()


def test_a_missing_data_file_is_named(opened, world, tmp_path):
    copy = shutil.copytree(world.results.latents, tmp_path / "latents")
    (copy / "0-1.js").unlink()
    (copy / "0-0.js").write_text('latents("0-0",', encoding="utf-8")
    page = opened(world)
    for latent, name in ((200, "0-1"), (3, "0-0")):
        page.goto("about:blank")
        page.goto((copy / "index.html").as_uri() + f"#{SUBJECT}/{latent}")
        expect(page.get_by_role("alert")).to_contain_text(f"The file {name}.js beside this page is missing or broken")
    opened.complaints.clear()  # what the browser says of these two files
