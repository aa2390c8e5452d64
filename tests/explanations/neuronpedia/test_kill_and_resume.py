"""16,384 explanations through the command line: faults on the way, killed half-way, and taken up again."""

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pandas as pd
import pytest
import yaml

N, RATE, CONCURRENCY = 16_384, 20, 8
MISSING, UNLABELLED = range(16_000, 16_040), range(15_900, 15_950)
KEY = "sk-np-very-secret-0123"
logger = logging.getLogger(__name__)


def world():
    """Return explanations of which every latent has its own, some several, some none."""
    said = {latent: [(f" what {latent} fires on", "gpt-4o-mini", "oai_token-act-pair")] for latent in range(N)}
    for latent in range(0, N, 7):
        said[latent] += [(f"another of {latent}", "gemini-2.0-flash", "oai_token-act-pair")]
    return {latent: [] if latent in UNLABELLED else rows for latent, rows in said.items() if latent not in MISSING}


@pytest.fixture
def plan(subject_dir, tmp_path):
    """Write a study whose only source is the server, and its subject; return the command of its rule `explain`."""

    def write(server):
        options = server.options | {
            "requests_per_second": RATE,
            "concurrency": CONCURRENCY,
            "prefer": ["gpt-4o-mini"],
            "timeout_seconds": 15,
        }
        behavior = tmp_path / "rows.jsonl"
        behavior.write_text('{"prompt": "p", "completion": "c"}\n')
        values = {
            "study": "s",
            "subjects": {"toy": {"model": "m", "release": "r", "sae_id": "i", "corpus": {"sample": True}}},
            "behaviors": {"b": {"description": "d", "path": str(behavior)}},
            "adapters": {"bias": {}},
            "sources": {"np": {"kind": "neuronpedia", "neuronpedia": options | {"attempts": 10}}},
            "judges": {"lexical": {}},
            "primary": {"adapter": "bias", "measure": "contribution", "source": "np", "judge": "lexical"},
            "controls": ["firing_rate_only"],
        }
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(values))
        (subject_dir / "subject.json").write_text(json.dumps([{"d_sae": N}]))
        facts = pd.DataFrame({"latent_index": range(N), "firing_rate": [0.0] + [0.01] * (N - 1)})
        facts.to_parquet(subject_dir / "latents.parquet")
        words = f"explain --study {tmp_path}/s.yaml --subject toy --source np --results {tmp_path}"
        return [sys.executable, "-c", "import sys; from isaerft.cli import main; sys.exit(main())", *words.split()]

    return write


def start(command):
    environment = os.environ | {"NEURONPEDIA_API_KEY": KEY}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_sixteen_thousand_explanations_survive_faults_and_a_kill(serve, plan, subject_dir, tmp_path):
    latents = world()
    exported = [latent for latent in latents if latent % 2]
    with serve(latents, exported=exported, rows_per_batch=512, keys_per_page=7, fault_rate=0.05) as server:
        command = plan(server)
        first = start(command)
        while len(server.asked("features")) < 100 and first.poll() is None:
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        log, _ = first.communicate()
        assert first.returncode == -signal.SIGKILL, log
        n_first = len(server.seen)
        with sqlite3.connect(subject_dir / "neuronpedia.sqlite") as base:
            finished = {row[0] for row in base.execute("SELECT latent FROM said UNION SELECT latent FROM asked")}
            read = {row[0] for row in base.execute("SELECT key FROM batches WHERE n_rows IS NOT NULL")}
        assert N / 2 < len(finished) < N
        second = start(command)
        log += second.communicate(timeout=120)[0]
        assert second.returncode == 0, log
        n_second = len(server.seen)
        third = start(command)
        log += third.communicate(timeout=60)[0]
        assert third.returncode == 0, log

    found = pd.read_parquet(tmp_path / "explanations/toy/np.parquet")
    explained = [latent for latent in range(1, N) if latents.get(latent)]  # latent 0 is dead: nobody asks for it
    assert list(found["latent_index"]) == explained  # none lost, none doubled
    assert list(found["explanation"]) == [f"what {latent} fires on" for latent in explained]
    assert found.attrs["counts"]["failed"] == 0
    assert found.attrs["counts"]["unlabeled"] == len(MISSING) + len(UNLABELLED)

    resumed = server.seen[n_first:n_second]
    asked_again = {latent for one in resumed if one.route == "features" for latent in one.asked}
    assert not asked_again & finished
    assert not {one.asked[0] for one in resumed if one.route == "object"} & read
    assert len(server.seen) == n_second  # the third run had nothing to ask for
    answered = ("", "slow", "shape")  # a 404 is one whatever JSON comes with it
    good = [latent for one in server.asked("feature") if one.fault in answered for latent in one.asked]
    assert sorted(good) == sorted(MISSING)

    assert 0.03 < sum(bool(one.fault) for one in server.seen) / len(server.seen) < 0.07
    for run in (server.seen[:n_first], resumed):
        times = [one.at for one in run]
        assert len(times) - 1 <= RATE * (times[-1] - times[0]) + CONCURRENCY
        for begin, at in enumerate(times):  # what arrives within a second started in it, or was under way before
            assert sum(at <= later < at + 1 for later in times[begin : begin + 2 * RATE]) <= RATE + 1 + CONCURRENCY
    fullest = max(sum(at <= one.at < at + 1 for one in server.seen) for at in (one.at for one in server.seen))
    logger.info("%d latents asked for, %d explained; killed when %d were known", N - 1, len(found), len(finished))
    logger.info(
        "requests: %d before the kill, %d after it, %d when run again; %d met a fault; at most %d in any second of %d",
        n_first,
        n_second - n_first,
        len(server.seen) - n_second,
        sum(bool(one.fault) for one in server.seen),
        fullest,
        RATE,
    )
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY not in log
    assert KEY.encode() not in everything
