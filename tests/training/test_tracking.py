"""Trackers get the losses of every training, and nothing that they do reaches one."""

import json
import os
import struct
import sys
from importlib.util import find_spec

import pytest

from isaerft import config
from isaerft.errors import InputError
from isaerft.subjects.cache import write_cache
from isaerft.training import trackers, tracking
from isaerft.training.replicates import train_adapter
from isaerft.training.trackers import log_runs
from isaerft.training.tracking import tracked

STEPS = 6
NAMES = [f"small.toy.a.bias.seed_{seed}" for seed in range(2)]
SECRET = "0123456789-a-key-of-a-tracker"


@pytest.fixture(scope="module")
def cache(cached, tmp_path_factory):
    path = tmp_path_factory.mktemp("tracking") / "a.safetensors"
    write_cache({"train": cached[0], "heldout": cached[1]}, path)
    return path


def plan_of(**options):
    short = {"steps": STEPS, "learning_rate": 0.1, "evaluate_every": 2, "batch_size": 4, "seeds_together": 2}
    return config.plan_from_dict(
        {
            "study": "small",
            "subjects": {"toy": {"testbed": {}}},
            "behaviors": {name: {"description": name, "rule": True} for name in ("a", "b")},
            "adapters": {"bias": short},
            "sources": {"local": {}},
            "judges": {"lexical": {}},
            "primary": {"adapter": "bias", "measure": "attribution", "source": "local", "judge": "lexical"},
            "n_seeds": 2,
            **options,
        }
    )


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def train(subject, cache, tmp_path, monkeypatch):
    """Train a bias with trackers; return what was written, and the trackers' folder."""
    monkeypatch.setattr(tracking, "PATIENCE", 300.0)  # on a busy machine

    def run(*trackers, name="job"):
        plan = plan_of(**({"tracking": {"trackers": list(trackers), "project": "losses"}} if trackers else {}))
        folder, out = tmp_path / f"{name}-tracking", tmp_path / name
        with tracked(plan, "toy", folder) as job:
            train_adapter(plan, subject, "bias", cache, out, behavior="a", permuted=False, tracking=job)
        return files_of(out), folder

    return run


@pytest.fixture
def plain(train):
    return train(name="plain")[0]


def expected_of(plain):
    """The losses that training.json has, by seed."""
    return json.loads(plain["training.json"])


def check_history(history, row):
    """Check one run's losses, {name: {step: value}}, against its row of training.json."""
    assert sorted(history["train/loss"]) == list(range(1, STEPS + 1))
    heldout = history["heldout/loss"]
    assert sorted(heldout) == [0, 2, 4, 6]
    assert heldout[0] == pytest.approx(row["heldout_loss_base"], rel=1e-6)
    assert heldout[row["best_step"]] == pytest.approx(row["heldout_loss_adapted"], rel=1e-6)
    assert heldout[row["best_step"]] == pytest.approx(min(heldout.values()), rel=1e-6)
    assert history["final/heldout_loss_adapted"][STEPS] == pytest.approx(row["heldout_loss_adapted"], rel=1e-6)


def log_records(content):
    """Yield the records of a file in LevelDB's log format, after the seven bytes that wandb puts before it."""
    at, record = 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        size, kind = struct.unpack_from("<HB", content, at + 4)
        record += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def of_wandb(folder):
    from wandb.proto import wandb_internal_pb2

    found = {}
    for path in (folder / "wandb").rglob("*.wandb"):
        history, settings, name = {}, {}, ""
        for data in log_records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            name = record.run.display_name or name
            assert not name or record.run.project in ("", "losses")
            for item in record.run.config.update if record.HasField("run") else record.config.update:
                settings[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
            values = {item.key or ".".join(item.nested_key): item.value_json for item in record.history.item}
            for key in values.keys() - {"_step", "_runtime", "_timestamp"}:
                history.setdefault(key, {})[int(values["_step"])] = json.loads(values[key])
        found[name] = history, settings
    return found


def of_tensorboard(folder):
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for path in (folder / "tensorboard/losses").iterdir():
        events = EventAccumulator(str(path)).Reload()
        history = {tag: {one.step: one.value for one in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
        (settings,) = path.rglob("hparams.yml")
        import yaml

        found[path.name] = history, yaml.safe_load(settings.read_text())
    return found


def of_mlflow(folder):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    client = mlflow.MlflowClient(f"sqlite:///{folder.absolute()}/mlflow/mlflow.db")
    (experiment,) = client.search_experiments(filter_string="name = 'losses'")
    found = {}
    for run in client.search_runs([experiment.experiment_id]):
        history = {
            key: {one.step: one.value for one in client.get_metric_history(run.info.run_id, key)}
            for key in run.data.metrics
        }
        assert run.info.status == "FINISHED"
        found[run.info.run_name] = history, run.data.params
    return found


def of_trackio(folder):
    pytest.importorskip("trackio", reason="trackio is not installed")
    from trackio.sqlite_storage import SQLiteStorage

    found = {}
    for run in SQLiteStorage.get_runs("losses"):
        history = {}
        for row in SQLiteStorage.get_logs("losses", run):
            for key in row.keys() - {"step", "timestamp"}:
                history.setdefault(key, {})[row["step"]] = row[key]
        found[run] = history, SQLiteStorage.get_run_config("losses", run)
    return found


READERS = {"wandb": of_wandb, "tensorboard": of_tensorboard, "mlflow": of_mlflow, "trackio": of_trackio}


@pytest.mark.slow
@pytest.mark.parametrize("tracker", READERS)
def test_a_tracker_gets_every_loss_and_the_job_makes_the_same_bytes(train, plain, tracker, tmp_path, monkeypatch):
    pytest.importorskip(tracker, reason=f"{tracker} is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    if tracker == "trackio":
        from trackio import sqlite_storage

        monkeypatch.setattr(sqlite_storage, "TRACKIO_DIR", tmp_path / "trackio")
    written, folder = train(tracker)
    assert written == plain
    runs = READERS[tracker](folder)
    assert sorted(runs) == NAMES
    for seed, name in enumerate(NAMES):
        history, settings = runs[name]
        check_history(history, expected_of(plain)[seed])
        assert str(settings["seed"]) == str(seed)
        assert str(settings["learning_rate"]) == "0.1"
        assert [settings[key] for key in ("study", "subject", "behavior", "adapter")] == ["small", "toy", "a", "bias"]


FAULTS = {
    "init": "import os\n\ndef init(**_): raise RuntimeError('refused ' + os.environ['TRACKIO_API_KEY'])",
    "log": "class Run:\n    def log(self, *_, **__): raise OSError('no route')\n    def finish(self): pass\n"
    "config = {}\ndef init(**_): return Run()",
    "exit": "import os\n\ndef init(**_): os._exit(7)",
    "hang": "import time\n\ndef init(**_): time.sleep(600)",
}
SAID = {
    "init": "tracker trackio failed and gets no more of this job (RuntimeError: refused ***)",
    "log": "tracker trackio failed and gets no more of this job (OSError: no route)",
    "exit": "trackers ended with status 7; results are complete",
    "hang": "trackers did not finish within 12 s and were stopped; results are complete",
}


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    """Install a package `trackio` that does what a text says, for processes that the test starts."""

    def install(source):
        (tmp_path / "fake/trackio").mkdir(parents=True)
        (tmp_path / "fake/trackio/__init__.py").write_text(source)
        (tmp_path / "fake/trackio-9.dist-info").mkdir()
        (tmp_path / "fake/trackio-9.dist-info/METADATA").write_text(
            "Metadata-Version: 2.1\nName: trackio\nVersion: 9\n"
        )
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'fake'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
        monkeypatch.setenv("TRACKIO_API_KEY", SECRET)

    return install


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_tracker_that_fails_changes_no_byte_and_shows_no_key(
    train, plain, faulty, fault, tmp_path, monkeypatch, capfd, caplog
):
    faulty(FAULTS[fault])
    if fault == "hang":
        monkeypatch.setattr(tracking, "PATIENCE", 12.0)
        monkeypatch.setattr(tracking, "PER_MESSAGE", 0.0)
    monkeypatch.setenv("WANDB_MODE", "offline")
    others = ["wandb"] if fault in ("init", "log") and find_spec("wandb") else []
    written, folder = train("trackio", *others)
    assert written == plain
    told = capfd.readouterr().err + caplog.text
    assert SAID[fault] in told
    assert told.count("training goes on") + told.count("results are complete") == 1  # once, not once for every seed
    assert SECRET not in told
    if others:
        runs = of_wandb(folder)
        assert sorted(runs) == NAMES
        check_history(runs[NAMES[1]][0], expected_of(plain)[1])


@pytest.mark.slow
def test_a_tracker_that_is_not_installed_is_named_with_the_command_that_installs_it(train, plain, capfd):
    missing = [name for name in READERS if name != "wandb" and not find_spec(name)]
    if not missing:
        pytest.skip("every tracker is installed here")
    assert train(missing[0])[0] == plain
    assert f"not installed: pip install 'isaerft[{missing[0]}]'); training goes on" in capfd.readouterr().err


def test_a_process_that_cannot_be_started_is_a_warning(train, plain, monkeypatch, caplog):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert train("wandb")[0] == plain
    assert "no tracker could be started" in caplog.text


def test_nothing_is_started_where_no_tracker_is_asked_for_nor_in_a_second_process(train, plain, monkeypatch):
    monkeypatch.setattr(tracking, "_started", None)  # calling it would raise
    assert train(name="silent")[0] == plain
    monkeypatch.setattr(tracking, "rank", lambda: 1)
    assert train("wandb")[0] == plain


def test_the_process_is_told_nothing_of_a_launcher(monkeypatch):
    seen = {}
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    monkeypatch.setattr(tracking.subprocess, "Popen", lambda command, **options: seen.update(options, command=command))
    tracking._started(["folder", "project", "wandb"], 0)
    assert not {"RANK", "WORLD_SIZE"} & set(seen["env"])
    assert seen["env"]["WANDB_API_KEY"] == SECRET
    assert not any(SECRET in part for part in seen["command"])


class Recorder:
    """What reaches the trackers, in order."""

    def __init__(self):
        self.seen = []

    def begin(self, run, config):
        self.seen.append(("begin", run))

    def log(self, values, step):
        self.seen.append((step, *values.values()))

    def finish(self):
        self.seen.append("finish")


def test_runs_that_report_at_the_same_time_are_logged_one_after_the_other():
    messages = [
        *({"run": run, "config": {}} for run in "ab"),
        *({"run": run, "step": step, "values": {"loss": run}} for step in (1, 2) for run in "ab"),
        {"run": "b", "end": True},
        {"run": "a", "end": True},
        {"run": "c", "config": {}},
        {"run": "c", "step": 1, "values": {"loss": "c"}},
    ]
    recorder, seen_after = Recorder(), []

    def live():
        for message in messages:
            yield message
            seen_after.append(len(recorder.seen))

    log_runs(live(), recorder)
    a, b, c = (
        [("begin", run), *((step, run) for step in range(1, n + 1)), "finish"]
        for run, n in (("a", 2), ("b", 2), ("c", 1))
    )
    assert recorder.seen == a + b + c  # the last one was cut off, and is ended all the same
    assert seen_after[2] == 2  # the first run is logged as it goes


def test_a_file_is_followed_while_it_is_written_and_left_when_its_job_is_gone(tmp_path, monkeypatch):
    path = tmp_path / "messages.jsonl"
    with open(path, "w", encoding="utf-8") as file, open(path, "rb") as stream:
        file.write('{"run": "a"}\n{"run"')
        file.flush()
        messages = trackers.followed(stream, os.getppid())
        assert next(messages) == {"run": "a"}
        monkeypatch.setattr(trackers.time, "sleep", lambda _: (file.write(': "b"}\n'), file.flush()))
        assert next(messages) == {"run": "b"}
        monkeypatch.setattr(trackers.os, "getppid", lambda: 1)
        assert list(messages) == []
    done = tmp_path / "done.jsonl"
    done.write_text('{"run": "a"}\n{"done": true}\n{"run": "b"}\n')
    with open(done, "rb") as stream:
        assert list(trackers.followed(stream, os.getppid())) == [{"run": "a"}]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"trackers": ["wandbb"]}, "tracking.trackers"),
        ({"trackers": []}, "trackers"),
        ({"trackers": ["wandb"], "project": "../up"}, "tracking.project"),
    ],
)
def test_options_that_mean_nothing_are_refused(options, said):
    with pytest.raises(InputError, match=said):
        plan_of(tracking=options)
