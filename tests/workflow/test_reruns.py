"""What an edit makes run again. The small study has run; each test edits one thing, plans, and takes the edit back."""

import contextlib

import pytest
import yaml

BEHAVIOR_CHECK = {"behavior_check": 1, "answers_page": 1}
TABLES_AND_ON = {"tables": 1, "figures": 1, "latent_pages": 1, "pages": 1, "summary": 1, "all": 1}
AGREEMENT_AND_ON = {"agreement": 2} | TABLES_AND_ON
# One of the three kinds of adapter, on two subjects (the second is the random-dictionary twin) and two behaviors.
BIAS = {"train": 4, "changes": 4, "placebos": 1, "causal_check": 2} | BEHAVIOR_CHECK | AGREEMENT_AND_ON


@contextlib.contextmanager
def edited(workspace, path, old="", new=""):
    """Replace text in a file (or add a line to it) for the length of the block."""
    file = workspace.folder / path
    before = file.read_text(encoding="utf-8")
    assert old in before
    file.write_text(before.replace(old, new, 1) if old else before + "# edited\n", encoding="utf-8")
    yield
    file.write_text(before, encoding="utf-8")


def reruns(workspace, *edit):
    with edited(workspace, *edit):
        return workspace.planned()


@pytest.mark.slow
def test_without_an_edit_that_matters_nothing_runs_again(finished):
    (finished.folder / "data/limericks.jsonl").touch()
    assert reruns(finished, "config/small.yaml", "device: cpu", "device: cpu\nthreads: 2") == {}
    tracked = "device: cpu\ntracking: {trackers: [wandb, tensorboard]}"
    assert reruns(finished, "config/small.yaml", "device: cpu", tracked) == {}


@pytest.mark.slow
def test_a_study_file_that_is_moved_reruns_nothing(finished):
    finished.write("archive/moved.yaml", (finished.folder / "config/small.yaml").read_text(encoding="utf-8"))
    assert finished.planned("--configfile", "archive/moved.yaml", study=None) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("changes/metrics.py", BEHAVIOR_CHECK | TABLES_AND_ON),
        ("judges/lexical.py", {"judge": 1, "score": 1} | AGREEMENT_AND_ON),  # of the four judgements
        ("analysis/explained_latents.py", TABLES_AND_ON),
    ],
)
def test_editing_a_module_reruns_the_jobs_that_use_it_and_what_follows(finished, module, expected):
    assert reruns(finished, f"isaerft/{module}") == expected


@pytest.mark.slow
def test_behaviors_that_move_to_an_included_file_rerun_nothing_and_an_edit_there_reruns_what_it_changes(finished):
    text = (finished.folder / "config/small.yaml").read_text(encoding="utf-8")
    values = yaml.safe_load(text)
    finished.write("shared.yaml", yaml.safe_dump({"behaviors": values.pop("behaviors")}, sort_keys=False))
    own = yaml.safe_dump(values | {"include": "shared.yaml"}, sort_keys=False)
    with edited(finished, "config/small.yaml", text, own):
        assert finished.planned() == {}
        with edited(finished, "shared.yaml", "The assistant refuses.", "It says no."):
            assert finished.planned() == {"judge": 4} | AGREEMENT_AND_ON


def test_editing_an_adapter_trains_it_again_and_no_other(finished):
    jobs = reruns(finished, "isaerft/adapters/elementwise.py")
    assert jobs["train"] == 6  # bias and scale, not the reference
    assert not {"dictionary", "capture", "behavior"} & set(jobs)


@pytest.mark.slow
def test_editing_what_seeds_a_training_trains_everything_again(finished):
    jobs = reruns(finished, "isaerft/config/plan.py", "1000 * (self.study.seed + 1) + seed", "seed")
    assert jobs["train"] == 2 * 3 + 2 * 1


@pytest.mark.slow
def test_editing_a_figure_reruns_no_table(finished):
    jobs = reruns(finished, "isaerft/report/__init__.py")
    assert jobs["figures"] == 1
    assert "tables" not in jobs


@pytest.mark.slow
def test_describing_a_behavior_anew_reruns_the_judges_and_trains_nothing(finished):
    jobs = reruns(finished, "config/small.yaml", "The assistant refuses.", "It says no.")
    assert jobs == {"judge": 4} | AGREEMENT_AND_ON


@pytest.mark.slow
def test_an_option_of_one_adapter_trains_that_one_again(finished):
    jobs = reruns(finished, "config/small.yaml", "scale: {}", "scale: {steps: 5}")
    # The twins with random dictionaries train the primary adapter, bias, alone.
    assert jobs == {"train": 2, "changes": 2, "causal_check": 2} | AGREEMENT_AND_ON


@pytest.mark.slow
def test_new_data_of_one_behavior_trains_for_that_one_again(finished):
    row = '{"prompt": "p", "completion": "c"}\n{"prompt"'
    jobs = reruns(finished, "data/limericks.jsonl", '{"prompt"', row)
    assert (jobs["behavior"], jobs["capture"], jobs["train"]) == (1, 1, 4)


@pytest.mark.slow
def test_editing_a_part_of_another_package_reruns_what_uses_it_and_nothing_else(workspace):
    workspace.write("theirs.py", "class Theirs:\n    pass\n")
    workspace.write("theirs-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    workspace.write("theirs-1.dist-info/entry_points.txt", "[isaerft.adapters]\ntheirs = theirs:Theirs\n")
    values = workspace.study()
    workspace.study(adapters=values["adapters"] | {"theirs": {}})
    assert workspace.snakemake("--cores", "2").returncode == 0
    assert workspace.planned() == {}
    jobs = reruns(workspace, "theirs.py", "pass", "x = 1")
    assert jobs["train"] == 2  # theirs on both behaviors
    assert jobs["changes"] == 4
    assert not {"capture", "judge", "explain"} & set(jobs)
