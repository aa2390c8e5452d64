"""All that look-ups found: listed by maker with side and scores, and makers compared on the same latents."""

import yaml

from isaerft.cli.app import run_here
from isaerft.explanations.neuronpedia.labels import LABELS
from tests.analysis.small_study import BEHAVIORS, EXPECTED, N, Parts, make_study, options_of

TOPICS = dict(zip(BEHAVIORS, ("apples", "bridges", "candles", "dragons", "engines", "feathers"), strict=True))
RIGHT, ROTATED, CODE = ("right", "np_max-act"), ("rotated", "np_max-act"), ("gpt-4o", "python-code")


def world():
    """Return latents that two makers explain: one rightly, and one by another behavior's topic."""
    topic = {latent: name for name, latents in EXPECTED.items() for latent in latents}
    behaviors = list(BEHAVIORS)
    said = {}
    for latent in range(N):
        name = topic.get(latent)
        wrong = behaviors[(behaviors.index(name) + 1) % 5] if name else None
        said[latent] = [
            (f"text about {TOPICS[name] if name else f'thing{latent}'}", *RIGHT),
            (f"text about {TOPICS[wrong] if wrong else f'thing{latent}'}", *ROTATED),
        ]
    return said | {50: [*said[50], ("lambda token: token == 'a'", *CODE)]}


def test_makers_are_listed_with_side_and_scores_and_compared_on_the_same_latents(serve, tmp_path, capsys, subject_dir):
    parts = Parts(tmp_path / "results")
    score = {"explanationScoreTypeName": "eleuther_fuzz", "explanationScoreModelName": "gpt", "value": 0.75}
    scores = {"text about apples": [score, score | {"explanationScoreTypeName": "recall_alt", "value": -0.5}]}
    with serve(world(), scores=scores) as server:
        ask = {**server.options, "source_id": "gemma-2-2b/20-gemmascope-res-16k", "scores": True}
        makers = {"right": "right", "rotated": "rotated/np_max-act"}
        sources = {
            name: {"kind": "neuronpedia", "neuronpedia": ask | {"maker": maker}} for name, maker in makers.items()
        }
        options = options_of(
            sources=sources,
            behaviors={name: {"description": f"Speaks of {topic}.", "rule": True} for name, topic in TOPICS.items()},
            controls=["firing_rate_only"],
            random_dictionary_adapters=[],
        )
        options["primary"]["source"] = "right"
        study = tmp_path / "study.yaml"
        study.write_text(yaml.safe_dump(options))
        same = ["--study", str(study), "--results", str(parts.folder), "--subject", "toy"]
        for source in sources:
            assert run_here(["explain", *same, "--source", source]) == 0
            assert run_here(["judge", *same, "--source", source, "--judge", "lexical"]) == 0
    capsys.readouterr()
    out = tmp_path / "labels.csv"
    assert run_here(["labels", *same, "--source", "right", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "right/np_max-act: 58 of 58 latents, side input; eleuther_fuzz 0.75 on" in told
    assert "recall_alt -0.50" in told
    assert "gpt-4o/python-code: 1 of 1 latents, side input" in told
    frame = LABELS.read(out)
    assert len(frame.drop_duplicates(["latent_index", "maker"])) == 2 * 58 + 1
    assert frame[frame.score == "eleuther_fuzz"].value.unique().tolist() == [0.75]
    # The lines that it prints are config that a study takes.
    printed = yaml.safe_load("\n".join(line for line in told.splitlines() if line.startswith("  maker_")))
    assert [one["neuronpedia"]["maker"] for one in printed.values()] == sorted(
        "/".join(x) for x in (CODE, RIGHT, ROTATED)
    )
    make_study(sources=printed, primary=options["primary"] | {"source": "maker_1"})

    plan = make_study(**{key: value for key, value in options.items() if key != "study"})
    compared = parts.tables(plan)["source_comparison"].query("adapter == 'bias' and measure == 'contribution'")
    agreement = compared[compared.quantity == "agreement"].set_index("source")
    assert (agreement.n_latents == agreement.n_latents.iloc[0]).all()
    assert agreement["rank"].to_dict() == {"right": 1, "rotated": 2}
    assert agreement.difference_ci_low["right"] > 0
    counted = parts.table(plan, "explained_latents").set_index("source")
    assert counted.makers["right"] == f"right/np_max-act ({58})"
