"""The benchmark of scorers: tables, somebody's own scores, and what they show if the truth is shuffled."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from isaerft import stats
from isaerft.analysis import table, tables_of
from isaerft.analysis.benchmark import TABLES, benchmark_tables, differences_over_worlds, means_over_worlds
from isaerft.analysis.benchmarked import ARM, BEST, _right_elsewhere, benchmark_of, given_scores, read_key
from isaerft.errors import InputError
from isaerft.layout import Results
from tests.analysis.benchmark_world import NAMES, SOURCES, WORLDS, made, study_of, two_worlds
from tests.analysis.small_study import BEHAVIORS, make_study


@pytest.fixture
def parts(tmp_path):
    return two_worlds(tmp_path / "results")


def found(benchmark, **equal):
    rows = means_over_worlds(benchmark.worlds(), 0.95)
    for name, value in equal.items():
        rows = rows[rows[name] == value]
    return rows


def test_every_auroc_is_that_of_its_explanations_by_hand():
    benchmark = made()
    worlds = benchmark.worlds()
    told = benchmark.explanations.merge(benchmark.scores, on=NAMES)
    for row in worlds[worlds["scorer"] != "combined"].sample(40, random_state=0).itertuples():
        own = told[(told[[*ARM, "scorer", "score"]] == list(row[1:6])).all(axis=1)]
        own = own[own["testable"]] if row.among == "testable" else own
        wrong = own["kind"] != "right" if row.kind == "all" else own["kind"] == row.kind
        own = own[wrong | (own["kind"] == "right")]
        value = stats.auroc_of_wrong(own["value"], (own["kind"] != "right").to_numpy())
        assert row.auroc == pytest.approx(value)
        assert (row.n_wrong, row.n_right) == ((own["kind"] != "right").sum(), (own["kind"] == "right").sum())


def test_a_perfect_scorer_reaches_one_on_every_kind_and_with_a_shuffled_key_every_score_is_at_chance():
    benchmark = made(n=400)
    perfect = benchmark.explanations.assign(value=(benchmark.explanations["kind"] == "right").astype(float))
    benchmark = benchmark.scored_by(perfect[[*NAMES, "value"]], "perfect")
    assert (found(benchmark, scorer="perfect")["auroc"] == 1).all()
    rng = np.random.default_rng(0)
    shuffled = benchmark.explanations.copy()
    shuffled["kind"] = shuffled.groupby(ARM)["kind"].transform(lambda kinds: rng.permutation(kinds.to_numpy()))
    rows = found(replace(benchmark, explanations=shuffled), kind="all")
    assert set(rows["scorer"]) == {"training", "lexical", "perfect", "combined"}
    assert (abs(rows["auroc"] - 0.5) < 0.05).all()


def test_the_unit_is_the_world():
    benchmark = made()
    worlds = benchmark.worlds()
    own = worlds[(worlds[["scorer", "side", "kind", "among"]] == ["training", "input", "all", "all"]).all(axis=1)]
    (row,) = found(benchmark, scorer="training", side="input", kind="all", among="all").itertuples()
    assert row.n_worlds == len(WORLDS) == len(own)
    assert row.auroc == pytest.approx(own["auroc"].mean())
    assert (row.ci_low, row.ci_high) == pytest.approx(stats.mean_interval(own["auroc"].to_numpy(), 0.95, (0, 1)))


def test_differences_are_paired_world_by_world():
    worlds = made().worlds()
    rows = differences_over_worlds(worlds, "truth", 0.95)
    row = rows[
        (rows[["scorer", "score", "side", "kind", "among"]] == ["lexical", "detection", "input", "all", "all"]).all(
            axis=1
        )
    ]
    own = worlds[(worlds[["side", "kind", "among"]] == ["input", "all", "all"]).all(axis=1)]
    wide = own.pivot(index="subject", columns=["scorer", "score"], values="auroc")
    difference = wide["training", "truth"] - wide["lexical", "detection"]
    assert row["difference"].item() == pytest.approx(difference.mean())
    assert row["share_ahead"].item() == (difference > 0).mean()
    assert row["pvalue"].item() < 0.01
    assert not (rows["scorer"] == "training").any()


def test_training_is_combined_with_the_score_that_is_best_in_the_other_worlds_and_nothing_of_its_own_world():
    question = [*ARM, "among"]
    benchmark = made(quality={("lexical", "output"): 0.9})
    # The second score is better among testable explanations, and worse among all.
    known = benchmark.scores.merge(benchmark.explanations, "left", on=NAMES)
    misled = (benchmark.scores["score"] == "output") & ~known["testable"]
    better = (benchmark.scores["score"] == "output") & known["testable"] & (known["kind"] == "right")
    values = benchmark.scores["value"] - 9 * (misled & (known["kind"] == "right")) + better
    benchmark = replace(benchmark, scores=benchmark.scores.assign(value=values))
    worlds = benchmark.worlds()
    combined = worlds[worlds["scorer"] == "combined"].drop_duplicates(question).set_index(question)["combined_with"]
    base = worlds[(worlds["scorer"] == "lexical") & (worlds["kind"] == "all")]
    for (world, side, _, among), name in combined.items():
        others = base[(base["subject"] != world) & (base["side"] == side) & (base["among"] == among)]
        assert name == f"lexical, {others.groupby('score')['auroc'].mean().idxmax()}"
        assert name == {"all": "lexical, detection", "testable": "lexical, output"}[among]
    # What the world itself says must not matter.
    own = benchmark.scores["subject"] == WORLDS[0]
    oracle = values.where(~(own & (benchmark.scores["score"] == "output")), 100.0 * known["kind"].eq("right"))
    again = replace(benchmark, scores=benchmark.scores.assign(value=oracle)).worlds()
    again = again[(again["scorer"] == "combined") & (again["subject"] == WORLDS[0])].drop_duplicates(question)
    assert again.set_index(question)["combined_with"].equals(combined[again.set_index(question).index])


def test_two_scores_that_know_different_things_find_more_together():
    rows = found(made(quality={("lexical", "detection"): 2.0}), kind="all", among="all").set_index(
        ["side", "scorer", "score"]
    )
    for side in ("input", "output"):
        assert rows["auroc"][side, "combined", BEST] > rows["auroc"][side, "training", "truth"] + 0.02


def test_with_one_world_nothing_is_combined_and_there_is_no_interval():
    benchmark = made(worlds=WORLDS[:1])
    rows = found(benchmark)
    assert "combined" not in set(rows["scorer"])
    assert rows["ci_low"].isna().all()
    for made_table, frame in benchmark_tables(benchmark, 0.95):
        made_table.conform(frame)


def write_given(folder, frame):
    path = folder / "mine.csv"
    frame.to_csv(path, index=False)
    return path


@pytest.fixture
def mine():
    benchmark = made()
    rng = np.random.default_rng(3)
    return benchmark, benchmark.explanations[[*NAMES, "source"]].assign(
        value=rng.normal(size=len(benchmark.explanations))
    )


@pytest.mark.parametrize("named", [["side", "share"], ["source"]])
def test_somebodys_scores_get_their_rows_beside_ours(tmp_path, mine, named):
    benchmark, table = mine
    path = write_given(tmp_path, table[["subject", *named, "latent_index", "value"]].sample(frac=1, random_state=0))
    placed = benchmark.scored_by(given_scores(benchmark, path), "mine")
    before, after = found(benchmark), found(placed)
    own = after[after["scorer"] == "mine"]
    assert len(own) == len(before[before["score"] == "detection"])
    assert (abs(own[own["kind"] == "all"]["auroc"] - 0.5) < 0.1).all()
    same = after[after["scorer"].isin(["training", "lexical"])].reset_index(drop=True)
    expected = before[before["scorer"].isin(["training", "lexical"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(same, expected)


def test_one_side_alone_can_be_scored(tmp_path, mine):
    benchmark, table = mine
    path = write_given(tmp_path, table.query("side == 'input'")[[*NAMES, "value"]])
    rows = found(benchmark.scored_by(given_scores(benchmark, path), "mine"), scorer="mine")
    assert set(rows["side"]) == {"input"}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda table: table.iloc[1:], "lacks 1 of 1,440 explanations"),
        (lambda table: table.assign(subject="mars"), "unknown subject in .*mine.csv line 2: 'mars'"),
        (lambda table: table.assign(value=1.0), "every explanation the value 1"),
        (lambda table: table.assign(value=np.where(np.arange(len(table)) == 4, np.nan, 1)), "line 6: value"),
        (lambda table: table.assign(value=np.where(np.arange(len(table)) == 4, np.inf, 1)), "line 6: value"),
        (lambda table: table.assign(value=["much"] * len(table)), "line 2: value 'much'"),
        (lambda table: pd.concat([table, table.iloc[:1]]), "line 1442 scores an explanation again"),
        (lambda table: table.assign(latent_index=table["latent_index"] + 1), "has no explanation of latent 120"),
        (lambda table: table.assign(side="left"), "unknown side in"),
        (lambda table: table.drop(columns="side"), "has the columns subject, share"),
        (lambda table: table.assign(note="x"), "unknown column in"),
    ],
)
def test_scores_that_cannot_be_compared_are_refused_with_the_place(tmp_path, mine, edit, message):
    benchmark, table = mine
    path = write_given(tmp_path, edit(table[[*NAMES, "value"]]))
    with pytest.raises(InputError, match=message):
        given_scores(benchmark, path)


def test_a_name_that_is_taken_is_refused(tmp_path, mine):
    benchmark, table = mine
    for name in ("training", "lexical", "combined", "control"):
        with pytest.raises(InputError, match="--name"):
            benchmark.scored_by(table[[*NAMES, "value"]], name)


def test_a_study_with_a_key_has_the_tables_and_others_do_not():
    assert {table.name for table in TABLES} <= set(tables_of(study_of()))
    assert not {table.name for table in TABLES} & set(tables_of(make_study()))


def test_training_finds_the_wrong_explanations_of_a_study_and_a_random_scorer_does_not(parts):
    plan = study_of()
    rows = parts.table(plan, "benchmark").set_index(["among", "kind", "scorer", "score"])["auroc"]
    assert rows["testable", "another", "training", "lexical"] > 0.9
    assert abs(rows["all", "all", "lexical", "detection"] - 0.5) < 0.25
    worlds = parts.table(plan, "benchmark_worlds")
    assert set(worlds["subject"]) == {"toy", "other"}
    tested = worlds[(worlds["among"] == "testable") & (worlds["kind"] == "all") & (worlds["score"] == "length")]
    verdicts = parts.table(plan, "explanation_verdicts")
    n = verdicts[(verdicts["source"] == "bench")].dropna(subset="score").groupby("subject").size()
    assert (tested.set_index("subject")["n_wrong"] + tested.set_index("subject")["n_right"]).to_dict() == n.to_dict()
    differences = parts.table(plan, "benchmark_differences")
    assert set(differences["scorer"]) == {"lexical", "control", "combined"}


def test_scores_that_a_table_does_not_tell_apart_are_equal():
    benchmark = made()
    right = (benchmark.explanations["kind"] == "right").astype(float)
    values = benchmark.explanations[NAMES].assign(value=1 + 1e-9 * right)
    assert (found(benchmark.scored_by(values, "close"), scorer="close")["auroc"] == 0.5).all()


def test_tables_on_disk_give_the_aurocs_of_tables_in_memory(parts):
    plan = study_of()
    parts.agreement(plan)
    in_memory = parts.table(plan, "benchmark_worlds")
    read = []
    for name in ("explanation_verdicts", "explanation_scores"):
        table(name).write(parts.table(plan, name), parts.folder / f"tables/{name}.csv")
        read.append(table(name).read(parts.folder / f"tables/{name}.csv"))
    again = benchmark_of(plan, Results(parts.folder), *read).worlds()
    pd.testing.assert_frame_equal(TABLES[0].conform(again.reindex(columns=TABLES[0].column_names)), in_memory)


def test_seconds_are_those_of_the_jobs_behind_a_score_where_the_study_records_them(parts):
    plan = study_of(record_seconds=True)
    at = Results(parts.folder)
    for subject in ("toy", "other"):
        jobs = [("score", subject, "bench", "lexical"), ("judge", subject, "bench", "lexical")]
        jobs += [("train", subject, name, "bias") for name in BEHAVIORS] + [
            ("changes", subject, name) for name in BEHAVIORS
        ]
        for job in jobs:
            at.benchmark(*job).parent.mkdir(parents=True, exist_ok=True)
            at.benchmark(*job).write_text(f"s\th:m:s\n{2.0 if job[0] == 'score' else 1.0}\t0\n")
    rows = parts.table(plan, "benchmark").query("kind == 'all' and among == 'all'").set_index("scorer")["seconds"]
    assert (rows["lexical"], rows["training"]) == (2, 2 * len(BEHAVIORS) + 1)
    assert rows["control"].isna().all()
    assert parts.table(study_of(), "benchmark")["seconds"].isna().all()


def test_what_is_said_is_judged_by_the_other_worlds_alone():
    rows = [("a", "x", "right"), ("a", "x", "another"), ("a", "y", "another")]
    rows += [("b", "x", "right"), ("b", "x", "right"), ("b", "x&y", "half_true"), ("b", "z", "right")]
    frame = pd.DataFrame(rows, columns=["subject", "said", "kind"]).assign(side="input", share=0.1)
    assert _right_elsewhere(frame).tolist() == pytest.approx([2 / 3, 2 / 3, 0, 0.5, 0.5, 0.25, np.nan], nan_ok=True)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda key: key.iloc[1:], "says nothing of 1 latents that 'bench' explains"),
        (lambda key: key.assign(share=0.5), "side input and share 0.25"),
        (lambda key: pd.concat([key, key.iloc[:1]]), "speaks of a latent again"),
        (lambda key: key.drop(columns="kind"), "lacks kind"),
    ],
)
def test_a_key_that_does_not_fit_its_source_is_refused(parts, edit, message):
    path = parts.path("subjects", "toy", "key.csv")
    edit(pd.read_csv(path)).to_csv(path, index=False)
    with pytest.raises(InputError, match=message):
        parts.table(study_of(), "benchmark")


def test_a_key_is_read_as_it_was_written(tmp_path):
    frame = pd.DataFrame(
        {"latent_index": [3], "side": ["output"], "share": [0.1], "kind": ["right"], "said": ["a:b"], "true": ["a:b"]}
    )
    frame.to_csv(tmp_path / "key.csv", index=False)
    pd.testing.assert_frame_equal(read_key(tmp_path / "key.csv"), frame, check_dtype=False)


def test_worlds_without_features_are_left_out(parts):
    plan = study_of(subjects={"toy": {"testbed": {}}, "other": {"testbed": {"features": False}}})
    assert set(parts.table(plan, "benchmark_worlds")["subject"]) == {"toy"}


def test_two_keys_of_one_side_and_share_are_refused(parts):
    sources = SOURCES | {"again": SOURCES["bench"]}
    subjects = {name: {"testbed": {}} for name in ("toy", "other")}
    plan = make_study(subjects=subjects, sources=sources, controls=[], placebos={"n": 0})
    for subject in ("toy", "other"):
        for kind in ("explanations", "judgements"):
            source = parts.folder / kind / subject / ("bench.parquet" if kind == "explanations" else "bench")
            target = source.with_name(source.name.replace("bench", "again"))
            if source.is_dir():
                target.mkdir()
                source, target = source / "lexical.parquet", target / "lexical.parquet"
            target.write_bytes(source.read_bytes())
    with pytest.raises(InputError, match="keys of one side and share"):
        parts.table(plan, "benchmark")


@pytest.mark.parametrize("changes", [{"wrong_share": 0}, {"wrong_share": None}, {"side": "both"}])
def test_a_key_without_a_share_of_wrong_ones_or_of_both_sides_is_refused(changes):
    with pytest.raises(InputError, match=r"sources\.bench has a key"):
        make_study(sources=SOURCES | {"bench": SOURCES["bench"] | changes})


def test_explanations_of_a_benchmark_are_no_dose():
    sources = SOURCES | {
        "all_right": {"kind": "local", "wrong_share": 0},
        "arm": {"kind": "local", "wrong_share": 0.25},
    }
    assert make_study(sources=sources).dose_arms == {"input": {0: "all_right", 0.25: "arm"}}
