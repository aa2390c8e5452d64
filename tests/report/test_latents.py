"""The content of the page of single latents: its numbers are those of the tables and files, its text is harmless."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from isaerft import analysis
from isaerft.analysis.known_latents import MIDDLE, known_latents
from isaerft.errors import InputError
from isaerft.io import write_parquet
from isaerft.report.latents import LATENTS_PER_FILE, address, rounded, write_latent_pages
from isaerft.report.text import visible_token
from isaerft.table import CONTROL
from tests.report.latent_world import ROOT, SUBJECT, World, hostile_texts, page_of

N_LATENTS, N_STEERED = 150, 3


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return page_of(tmp_path_factory.mktemp("latents"), N_LATENTS, n_steered=N_STEERED)


def read(world, name):
    """Return the value that a data file hands over; anything around it is refused."""
    text = (world.results.latents / f"{name}.js").read_text(encoding="utf-8")
    assert text.startswith(f'latents("{name}",')
    assert text.endswith(")\n")
    return json.loads(text.removeprefix(f'latents("{name}",').removesuffix(")\n"))


@pytest.fixture(scope="module")
def about(world):
    return read(world, "study")["subjects"][0]


@pytest.fixture(scope="module")
def listed(world):
    return read(world, "0")


@pytest.fixture(scope="module")
def details(world):
    """All files of details, joined; strings are looked up."""
    found = {}
    for part in range(len(list(world.results.latents.glob("0-*.js")))):
        chunk = read(world, f"0-{part}")
        assert len(chunk["latents"]) <= LATENTS_PER_FILE
        for place, latent in enumerate(chunk["latents"]):
            found[latent] = (chunk, place)
    return found


def table(world, name):
    return analysis.table(name).read(world.results.table(name))


def test_every_latent_that_fires_or_is_explained_is_listed_once_and_its_details_are_in_its_file(world, listed, details):
    facts = pd.read_parquet(world.results.subject(SUBJECT).latents)
    assert listed["latents"] == facts.latent_index.tolist(), "all are explained"
    assert list(details) == listed["latents"]
    for position, (latent, (_, place)) in enumerate(details.items()):
        assert listed["latents"][position] == latent
        assert place == position % LATENTS_PER_FILE


def test_a_latent_that_neither_fires_nor_is_explained_is_left_out(tmp_path):
    world = World(tmp_path, 120)
    world.write()
    for source in world.plan.study.sources:
        path = world.results.explanations(SUBJECT, source)
        frame = pd.read_parquet(path)
        write_parquet([frame[frame.latent_index != 50]], path)
        for judge in world.plan.judges_of(source):
            path = world.results.judgements(SUBJECT, source, judge)
            judged = pd.read_parquet(path)
            write_parquet([judged[judged.latent_index != 50]], path)
    write_latent_pages(world.plan, world.results)
    assert set(range(120)) - set(read(world, "0")["latents"]) == {50}
    assert read(world, "study")["subjects"][0]["nListed"] == 119


def test_the_reading_that_tables_of_latents_show_comes_first(world, about):
    source, judge = about["readings"][0]
    primary = world.plan.study.primary
    assert (about["sources"][source]["name"], judge) == (primary.source, primary.judge)


def test_verdicts_scores_and_reasons_are_those_of_the_table(world, about, listed, details):
    letters = read(world, "study")["verdicts"]
    verdicts = table(world, "explanation_verdicts")
    seen = 0
    for reading, (source, judge) in enumerate(about["readings"]):
        name = about["sources"][source]["name"]
        own = verdicts[(verdicts.source == name) & (verdicts.judge == judge)].set_index("latent_index")
        found = listed["readings"][reading]
        for position, latent in enumerate(listed["latents"]):
            row = own.loc[latent]
            assert letters[found["verdicts"][position]] == row.verdict
            assert listed["texts"][source][position] == row.explanation
            for column, shown, digits in (("score", "score", 6), ("qvalue", "q", 3)):
                value = found[shown][position]
                assert (value is None) == pd.isna(row[column])
                assert value is None or value == pytest.approx(row[column], rel=10**-digits * 5)
            chunk, place = details[latent]
            assert chunk["strings"][chunk["reasons"][reading][place]] == row.reason
            seen += 1
    assert seen == len(verdicts)


def test_changes_and_ranks_are_those_of_the_primary_adapter_and_measure(world, listed, details):
    study, results = world.plan.study, world.results
    alive = pd.read_parquet(results.subject(SUBJECT).latents).firing_rate >= study.agreement.min_firing_rate
    assert 10 < alive.sum() < N_LATENTS
    for place_of_behavior, behavior in enumerate(world.plan.tested_behaviors):
        frame = pd.read_parquet(results.changes(SUBJECT, behavior))
        own = frame[(frame.adapter == study.primary.adapter) & (frame.measure == study.primary.measure)]
        wide = own.pivot(index="seed", columns="latent_index", values="change")
        assert len(wide) == study.n_seeds
        living = wide.loc[:, alive.to_numpy()]
        rank = (living.rank(axis=1) - 0.5) / living.shape[1]
        for latent, (chunk, place) in details.items():
            mean = wide[latent].mean()
            assert chunk["change"][place][place_of_behavior] == pytest.approx(mean, rel=1e-3)
            seeds = np.array(chunk["seeds"][place][place_of_behavior]) * chunk["largest"][place] / 1000
            np.testing.assert_allclose(seeds, wide[latent], atol=0.002 * chunk["largest"][place])
            shown = chunk["rank"][place][place_of_behavior]
            if alive[latent]:
                assert shown / 1000 == pytest.approx(rank[latent].mean(), abs=6e-4)
                assert chunk["seedRanks"][place][place_of_behavior] == [round(100 * x) for x in rank[latent]]
            else:
                assert shown is None
    for latent, behavior, rank in zip(listed["latents"], listed["behavior"], listed["rank"], strict=True):
        chunk, place = details[latent]
        assert (behavior >= 0) == alive[latent]
        if behavior >= 0:
            assert chunk["rank"][place][behavior] == max(chunk["rank"][place])
            assert 1000 * rank == pytest.approx(chunk["rank"][place][behavior], abs=0.6)


def test_the_change_is_that_of_most_changed_latents(world, details):
    """The same number by the code that makes the table."""
    changes = analysis.analysis_of(world.plan, world.results).changes(SUBJECT, world.plan.study.primary.adapter)
    for place_of_behavior, behavior in enumerate(world.plan.tested_behaviors):
        mean = changes[behavior, world.plan.study.primary.measure].mean(0)
        for latent, (chunk, place) in details.items():
            assert chunk["change"][place][place_of_behavior] == rounded(mean[[latent]], 4)[0]


def test_expected_effects_are_the_judges(world, about, details):
    for reading, (source, judge) in enumerate(about["readings"]):
        path = world.results.judgements(SUBJECT, about["sources"][source]["name"], judge)
        judged = pd.read_parquet(path).set_index(["latent_index", "behavior"])
        for latent, (chunk, place) in details.items():
            for at, behavior in enumerate(world.plan.tested_behaviors):
                row = judged.loc[latent, behavior]
                assert chunk["effects"][reading][place][at] == round(100 * row.expected_effect)
                assert (at in chunk["expected"][reading][place]) == row.expected


def test_placebos_show_the_middle_of_the_means_over_seeds(world, details, about):
    frame = pd.read_parquet(world.results.placebos(SUBJECT))
    own = frame[frame.measure == world.plan.study.primary.measure]
    means = own.groupby(["placebo", "latent_index"]).change.mean().unstack("latent_index")
    assert about["placebos"] == len(means)
    for latent, (chunk, place) in details.items():
        low, high = np.quantile(means[latent], MIDDLE)
        assert chunk["placebo"][place][:2] == pytest.approx([low, high], rel=1e-3)


def test_contexts_tokens_and_neighbors_are_those_of_the_files(world, details):
    folder = world.results.subject(SUBJECT)
    contexts, tokens, near = (pd.read_parquet(path) for path in (folder.activations, folder.contexts, folder.neighbors))
    assert len(contexts)
    for latent, (chunk, place) in details.items():
        own = contexts[contexts.latent_index == latent]
        assert len(own) == len(chunk["contexts"][place])
        for row, shown in zip(own.itertuples(), chunk["contexts"][place], strict=True):
            assert "".join(part if isinstance(part, str) else part[0] for part in shown) == "".join(row.tokens)
            active = [(token, value) for token, value in zip(row.tokens, row.activations, strict=True) if value]
            marked = [part for part in shown if not isinstance(part, str)]
            assert [part[0] for part in marked] == [token for token, _ in active]
            assert [part[1] for part in marked] == pytest.approx([value for _, value in active], rel=1e-3)
        for side, name in (("output", "promoted"), ("amplified", "amplified")):
            named = tokens[(tokens.latent_index == latent) & (tokens.side == side)]
            shown = chunk[name][place]
            assert (shown or ["", []])[0] == "\n".join(named.token)
            assert (shown or ["", []])[1] == pytest.approx(named.value.tolist(), rel=5e-3)
        pairs = near[near.latent_index == latent].head(6)
        assert chunk["neighbors"][place][::2] == pairs.neighbor.tolist()
        assert chunk["neighbors"][place][1::2] == pytest.approx(pairs.cosine.tolist(), rel=5e-3)


def test_makers_sides_and_addresses_are_the_sources(world, about, details):
    for source, options in enumerate(about["sources"]):
        frame = pd.read_parquet(world.results.explanations(SUBJECT, options["name"])).set_index("latent_index")
        for latent, (chunk, place) in details.items():
            side, maker, start, *whole = chunk["said"][source][place]
            found = chunk["strings"][start] if whole else f"{chunk['strings'][start]}/{latent}"
            assert found == frame.url[latent]
            assert (chunk["strings"][side], chunk["strings"][maker]) == (frame.side[latent], frame.maker[latent])


def test_steered_latents_alone_show_answers_and_effects_of_the_tables(world, details):
    effects, claims = table(world, "steering_check"), table(world, "steering_latents")
    steered = {latent for latent, (chunk, _) in details.items() if str(latent) in chunk["steering"]}
    assert steered == set(claims.latent_index)
    assert len(steered) == N_STEERED
    for latent in steered:
        shown = details[latent][0]["steering"][str(latent)]
        own = effects[effects.latent_index == latent]
        for row, (name, claim, plain, up, down, effect, *_) in zip(own.itertuples(), shown["effects"], strict=True):
            numbers = [row.claim, row.plain, row.amplified, row.suppressed, row.effect]
            assert [claim, plain, up, down, effect] == pytest.approx(numbers, rel=1e-3)
            assert name == row.behavior
        assert shown["strength"] == 1.0
        assert len(shown["answers"]) == 3


def test_a_study_without_verdicts_placebos_or_steering_has_a_page(tmp_path, monkeypatch):
    world = World(tmp_path, 20)
    world.write()
    monkeypatch.setattr("isaerft.report.latents.LATENT_TABLES", ())
    monkeypatch.setattr(type(world.plan), "has_placebos", lambda self, subject: False)
    write_latent_pages(world.plan, world.results)
    assert read(world, "0")["readings"] == [None] * 6
    assert read(world, "0-0")["placebo"] is None
    assert read(world, "0-0")["reasons"] == [[]] * 6


def test_a_missing_file_of_the_facts_says_which_rule_makes_it(tmp_path):
    world = World(tmp_path, 20)
    world.write()
    path = world.results.subject(SUBJECT).activations
    path.unlink()
    with pytest.raises(InputError, match=rf"{re.escape(str(path))} does not exist.*run the rule `facts`"):
        known_latents(world.plan, world.results, SUBJECT)
    with pytest.raises(InputError):
        write_latent_pages(world.plan, world.results)
    assert not world.results.latents.exists(), "nothing half-written"


def test_changes_of_another_measure_are_refused(tmp_path):
    world = World(tmp_path, 20)
    world.write()
    path = world.results.changes(SUBJECT, world.plan.tested_behaviors[0])
    frame = pd.read_parquet(path)
    write_parquet([frame[frame.measure != "contribution"]], path)
    with pytest.raises(InputError, match="lacks changes by adapter 'bias' and measure 'contribution'"):
        known_latents(world.plan, world.results, SUBJECT)


def test_the_same_files_give_the_same_bytes_and_leave_no_old_ones(world, tmp_path):
    first = {path.name: path.read_bytes() for path in world.results.latents.iterdir()}
    (world.results.latents / "0-99.js").write_text("old", encoding="utf-8")
    write_latent_pages(world.plan, world.results)
    assert {path.name: path.read_bytes() for path in world.results.latents.iterdir()} == first


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    return page_of(tmp_path_factory.mktemp("hostile"), N_LATENTS, n_steered=N_STEERED, odd=hostile_texts())


def test_no_text_leaves_the_json_that_a_data_file_hands_over(hostile):
    seen = 0
    for path in hostile.results.latents.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert "<" not in text
        assert not CONTROL.search(text.removesuffix("\n").replace("\\n", ""))
        seen += text.count("\\u003cscript")
        read(hostile, path.stem)
        # A script parses only if what it says is an expression of its own.
        assert text.count("\n") == 1
    assert seen > 30


def test_the_page_itself_holds_no_text_of_others_and_runs_its_own_script_alone(hostile, world):
    page = hostile.results.latent_page.read_text(encoding="utf-8")
    assert page == world.results.latent_page.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1].replace("&#39;", "'")
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/=]{44}' 'strict-dynamic'$", policy)
    assert re.search(r"style-src 'sha256-[A-Za-z0-9+/=]{44}';", policy)
    assert "unsafe" not in policy
    assert page.count("<script>") == page.count("<style>") == 1


def test_the_script_sets_text_as_text_alone():
    script = (ROOT / "isaerft/report/latents.js").read_text(encoding="utf-8")
    for word in (
        "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function(", "DOMParser", "srcdoc",
        "fetch(", "XMLHttpRequest", "import(", "setTimeout(\"", "createContextualFragment", "postMessage",
    ):  # fmt: skip
        assert word not in script, word
    # The only address that it loads, and the only ones that it links to.
    assert re.findall(r"\.src = .*", script) == ['.src = name + ".js";']
    assert set(re.findall(r"href: ([\w()\[\].]+)", script)) == {
        "address(latent)",
        "address(list().latents[to])",
        "address(found[n])",
        "address()",
        "address",
        "to",
    }


def test_addresses_of_latents_survive_odd_names():
    assert address("a b/c#d", 7) == "#a%20b%2Fc%23d/7"


def test_the_verb_imports_neither_torch_nor_transformers(world):
    code = (
        "import sys; from isaerft.cli.app import run_here\n"
        "done = run_here(sys.argv[1:])\n"
        "sys.exit(' '.join({'torch', 'transformers', 'sae_lens', 'matplotlib'} & set(sys.modules)) or done)"
    )
    arguments = ["latent-pages", "--study", str(world.config), "--results", str(world.results.root)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("token", "shown"), [(" the", " the"), ("\n\n", "↵↵"), ("\ta", "⇥a"), ("\u202ea", "\ufffda"), ("\x1b[2J", " [2J")]
)
def test_a_token_keeps_its_spaces_and_shows_what_cannot_be_seen(token, shown):
    assert visible_token(token) == shown


def test_numbers_keep_their_digits():
    assert rounded(np.array([[1.23456, 0.0], [np.nan, 2.0]]), 3) == [[1.23, 0], [None, 2]]
