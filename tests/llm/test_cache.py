"""The cache under parallel jobs: nothing lost, nothing asked twice that is known, no cap passed together."""

import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from functools import partial

import pandas as pd
import pytest

from isaerft.cli import main
from isaerft.config import Llm
from isaerft.errors import InputError
from isaerft.explanations.contexts import COLUMNS
from isaerft.llm import Reply, ResponseCache
from isaerft.llm.prompts import digest

N_JOBS, N_ROWS = 6, 60
D_SAE = 6
OUTPUTS = ("explanations/toy/writer.parquet", "judgements/toy/writer/reader.parquet")
FORK = multiprocessing.get_context("fork")


def request(number):
    return {"model": "m", "messages": [], "max_tokens": 10, "number": number}


def fill(path, job, start):
    start.wait()
    cache = ResponseCache(path)
    for number in range(N_ROWS):
        cache.put(request(number), Reply(f"{job}"))
        cache.put(request((job + 1) * 1000 + number), Reply(f"{job} {number}"))
    cache.close()


def take(path, start, taken):
    start.wait()
    cache, count = ResponseCache(path), 0
    try:
        while True:
            cache.take("s", "llm", Llm(model="m", max_calls=100), 5)
            count += 1
    except InputError as error:
        taken.put((count, "max_calls: 100" in str(error)))
    cache.close()


def together(target, *arguments):
    jobs = [FORK.Process(target=target, args=(*arguments[:1], *extra)) for extra in arguments[1]]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
    assert [job.exitcode for job in jobs] == [0] * len(jobs)


def test_jobs_that_begin_together_lose_no_answer_and_agree_on_every_shared_one(tmp_path):
    path, start = tmp_path / "new" / "cache.sqlite", FORK.Barrier(N_JOBS)
    together(fill, path, [(job, start) for job in range(N_JOBS)])
    cache = ResponseCache(path)
    for job in range(N_JOBS):
        for number in range(N_ROWS):
            assert cache.get(request((job + 1) * 1000 + number)) == Reply(f"{job} {number}")
    first = cache.get(request(0))
    assert cache.put(request(0), Reply("later")) == first
    assert cache.get(request(0)) == first
    cache.close()
    assert [file.name for file in path.parent.iterdir()] == ["cache.sqlite"]


def test_parallel_jobs_do_not_pass_the_cap_together(tmp_path):
    start, taken = FORK.Barrier(N_JOBS), FORK.Queue()
    together(take, tmp_path / "cache.sqlite", [(start, taken)] * N_JOBS)
    counts = [taken.get(timeout=10) for _ in range(N_JOBS)]
    assert sum(count for count, _ in counts) == 100
    assert all(stopped for _, stopped in counts)
    assert ResponseCache(tmp_path / "cache.sqlite").used("s", "llm") == (100, 500)


def test_a_job_that_meets_another_while_it_changes_the_mode_tries_again(tmp_path, monkeypatch):
    met = []

    class Met(sqlite3.Connection):
        def execute(self, sql, *values):
            if "journal_mode" in sql and len(met) < 2:
                met.append(sql)
                error = sqlite3.OperationalError("database is locked")
                error.sqlite_errorcode = sqlite3.SQLITE_BUSY
                raise error
            return super().execute(sql, *values)

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Met))
    cache = ResponseCache(tmp_path / "cache.sqlite")
    assert cache.take("s", "llm", Llm(model="m", max_calls=1), 5) == 1
    assert len(met) == 2
    cache.close()
    met.clear()
    monkeypatch.setattr("isaerft.llm.cache.BUSY_SECONDS", 0)
    with pytest.raises(InputError, match=r"database is locked.*local disk"):
        ResponseCache(tmp_path / "other.sqlite").take("s", "llm", Llm(model="m", max_calls=1), 5)


ASK = """
import sys
from pydantic import BaseModel
from isaerft.config import Llm
from isaerft.llm import LanguageModel, Prompt
class Word(BaseModel):
    word: str
path, url, study, first = sys.argv[1:]
llm = LanguageModel("m", Llm(model="m", base_url=url, api_key_env=None, structured="text"), cache=path, study=study)
prompts = [Prompt("Say a word.", f"number {i}", Word, 20, 7) for i in range(int(first), int(first) + 40)]
texts = [reply.content for reply in llm.ask(prompts)]
print(texts[20:] if first == "0" else texts[:20])
"""


def test_two_studies_that_write_one_cache_agree_on_what_both_ask_and_keep_accounts_of_their_own(
    openai_server, tmp_path
):
    openai_server.key, openai_server.schemas = "", False
    openai_server.answer = lambda body: {"content": json.dumps({"word": f"answer {openai_server.received}"})}
    path = tmp_path / "cache.sqlite"
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", ASK, str(path), openai_server.url, study, first], stdout=subprocess.PIPE, text=True
        )
        for study, first in (("one", "0"), ("two", "20"))
    ]
    shared = [job.communicate(timeout=300)[0] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0]
    assert shared[0] == shared[1] != ""
    cache = ResponseCache(path)
    used = [cache.used(study, "m")[0] for study in ("one", "two")]
    cache.close()
    assert sum(used) == openai_server.received
    assert max(used) <= 40
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT COUNT(*) FROM responses").fetchone() == (60,)


def test_a_killed_job_loses_no_answer_that_it_had_kept(tmp_path):
    path = tmp_path / "cache.sqlite"
    code = (
        "import sys; from isaerft.llm import Reply, ResponseCache\n"
        "cache = ResponseCache(sys.argv[1])\n"
        "for i in range(10**6):\n"
        "    cache.put({'model': 'm', 'number': i}, Reply(str(i)))\n"
        "    sys.stdout.write(f'{i}\\n'); sys.stdout.flush()\n"
    )
    job = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    for _ in range(50):
        last = int(job.stdout.readline())
    os.kill(job.pid, signal.SIGKILL)
    job.wait()
    cache = ResponseCache(path)
    assert [cache.get({"model": "m", "number": i}).content for i in range(last + 1)] == list(map(str, range(last + 1)))


def test_reading_where_no_cache_is_finds_nothing_and_makes_none(tmp_path):
    cache = ResponseCache(tmp_path / "none" / "cache.sqlite")
    assert cache.get(request(1)) is None
    assert cache.used("s", "llm") == (0, 0)
    assert cache.mean_completion_tokens("m") is None
    assert list(tmp_path.iterdir()) == []


def test_a_shipped_cache_that_cannot_be_written_is_read_and_a_new_answer_says_why_not(tmp_path, monkeypatch):
    path = tmp_path / "cache.sqlite"
    cache = ResponseCache(path)
    cache.put(request(1), Reply("known"))
    cache.close()
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root, whom no file mode stops
    cache = ResponseCache(path)
    assert cache.get(request(1)) == Reply("known")
    with pytest.raises(InputError, match=r"cannot be used .*readonly"):
        cache.put(request(2), Reply("new"))
    cache.close()
    assert [file.name for file in tmp_path.iterdir()] == ["cache.sqlite"]


def kept(folder):
    """Return the path of a cache with one answer, its file closed."""
    cache = ResponseCache(folder / "cache.sqlite")
    cache.put(request(1), Reply("known"))
    cache.close()
    return cache.path


def test_an_answer_of_which_one_bit_has_changed_is_not_taken(tmp_path):
    path = kept(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"known", b"knowl"))
    with pytest.raises(InputError, match=r"differs from its checksum\); put back a copy of it, or move it away"):
        ResponseCache(path).get(request(1))


def test_an_answer_under_another_requests_digest_is_not_taken(tmp_path):
    path = kept(tmp_path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE responses SET digest = ?", (digest(request(2)),))
    with pytest.raises(InputError, match="differs from its checksum"):
        ResponseCache(path).get(request(2))


@pytest.mark.parametrize("left", [None, b""])
def test_a_log_without_its_file_is_not_deleted(tmp_path, left):
    path, log = tmp_path / "cache.sqlite", tmp_path / "cache.sqlite-wal"
    cache = ResponseCache(path)
    cache.put(request(1), Reply("known"))
    content = log.read_bytes()
    cache.close()
    path.unlink()
    log.write_bytes(content)
    if left is not None:
        path.write_bytes(left)
    for use in (lambda cache: cache.get(request(1)), lambda cache: cache.take("s", "m", Llm(model="m"), 1)):
        with pytest.raises(InputError, match=r"its -wal file is not\); put back a copy"):
            use(ResponseCache(path))
    assert log.read_bytes() == content != b""


@pytest.mark.parametrize("writable", [True, False])
def test_a_cache_of_a_release_without_checksums_is_read(tmp_path, monkeypatch, writable):
    path = kept(tmp_path)
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE responses DROP COLUMN checksum")
    connection.close()
    monkeypatch.setattr(os, "access", lambda *_: writable)
    cache = ResponseCache(path)
    assert cache.get(request(1)) == Reply("known")
    if writable:
        cache.put(request(2), Reply("new"))
        assert cache.get(request(2)) == Reply("new")


def test_a_column_that_a_later_release_added_hinders_nothing_and_one_that_is_missing_is_told(tmp_path):
    path = kept(tmp_path)
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE responses ADD COLUMN more TEXT")
    cache = ResponseCache(path)
    assert cache.put(request(2), Reply("new")) == cache.get(request(2))
    cache.close()
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE responses DROP COLUMN refusal")
    with pytest.raises(InputError, match=r"no such column: refusal.*another release or another program wrote it"):
        ResponseCache(path).get(request(1))


def test_a_locked_file_is_waited_for(tmp_path):
    path = tmp_path / "cache.sqlite"
    cache = ResponseCache(path)
    cache.put(request(1), Reply("a"))
    code = (
        "import sqlite3, sys, time; c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN IMMEDIATE')\n"
        "sys.stdout.write('locked\\n'); sys.stdout.flush(); time.sleep(1); c.rollback()\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    holder.stdout.readline()
    started = time.monotonic()
    cache.put(request(2), Reply("b"))
    assert time.monotonic() - started > 0.5
    holder.wait()
    assert cache.get(request(2)) == Reply("b")


def test_accounts_are_kept_by_study_and_model_and_settled_by_what_was_used(tmp_path):
    cache = ResponseCache(tmp_path / "cache.sqlite")
    llm = Llm(model="m", max_tokens=100)
    first = cache.take("s", "a", llm, 60)
    cache.take("s", "b", llm, 60)
    cache.take("t", "a", llm, 60)
    with pytest.raises(InputError, match="max_tokens: 100"):
        cache.take("s", "a", llm, 60)
    cache.settle(first, 30)
    second = cache.take("s", "a", llm, 60)
    assert cache.used("s", "a") == (2, 90)
    cache.settle(second, None)
    assert cache.used("s", "a") == (1, 30)


def test_what_was_asked_stands_beside_each_answer(tmp_path):
    cache = ResponseCache(tmp_path / "cache.sqlite")
    cache.put(request(1), Reply("a"))
    cache.close()
    with sqlite3.connect(tmp_path / "cache.sqlite") as connection:
        ((text,),) = connection.execute("SELECT request FROM responses")
    assert text == '{"max_tokens":10,"messages":[],"model":"m","number":1}'


def answer(body):
    """Explain a latent by its evidence, or judge an explanation promoted."""
    system, user = (message["content"] for message in body["messages"])
    marker, text = user.split("--- begin ")[1].split(" ---\n", 1)
    if "latent_id" in system:
        return {"content": json.dumps({"latent_id": marker, "explanation": f"tells jokes {text[:60]}"})}
    effect = {"rationale": "jokes", "effect": "promoted", "strength": "strong", "confidence": 0.5}
    names = [name for name in ("behavior_1", "behavior_2") if name in user]
    return {"content": json.dumps({"explanation_id": marker} | dict.fromkeys(names, effect))}


@pytest.fixture
def study(openai_server, tmp_path):
    """A folder with a study and what is known of its subject's latents."""
    openai_server.answer = answer
    folder = tmp_path / "authors"
    (folder / "subjects/toy").mkdir(parents=True)
    values = {
        "study": "small",
        "subjects": {"toy": {"testbed": {}, "train_sae": {"d_sae": D_SAE}}},
        "behaviors": {
            name: {"description": f"The assistant has {name}.", "testbed": name} for name in ("humor", "alarm")
        },
        "adapters": {"bias": {}},
        "controls": [],
        "sources": {"writer": {"kind": "llm", "llm": "m", "side": "both"}},
        "judges": {"reader": {"kind": "llm", "llm": "m"}},
        "primary": {"adapter": "bias", "measure": "attribution", "source": "writer", "judge": "reader"},
        "llms": {"m": {"model": "m", "base_url": openai_server.url, "retries": 0}},
        "llm_cache": "answers.sqlite",
    }
    (folder / "study.yaml").write_text(json.dumps(values))
    (folder / "subjects/toy/subject.json").write_text(json.dumps([{"d_sae": D_SAE}]))
    pd.DataFrame({"latent_index": range(D_SAE), "firing_rate": 0.1}).to_parquet(folder / "subjects/toy/latents.parquet")
    rows = [
        (latent, side, 0, f"word{latent}", "a", "b", 1.0) for latent in range(D_SAE) for side in ("input", "output")
    ]
    pd.DataFrame(rows, columns=list(COLUMNS)).to_parquet(folder / "subjects/toy/contexts.parquet")
    return folder


def run(folder, monkeypatch):
    """Explain and judge in a folder; return the bytes of what came out."""
    monkeypatch.chdir(folder)
    same = ["--study", "study.yaml", "--subject", "toy", "--source", "writer", "--results", "."]
    assert main(["explain", *same]) == 0
    assert main(["judge", *same, "--judge", "reader"]) == 0
    return [(folder / name).read_bytes() for name in OUTPUTS]


def test_with_the_cache_shipped_no_key_and_no_server_is_needed(study, openai_server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", openai_server.key)
    first = run(study, monkeypatch)
    assert openai_server.problems == []
    assert openai_server.received == 2 * D_SAE
    judged = pd.read_parquet(study / OUTPUTS[1])
    assert len(judged) == 2 * D_SAE
    assert (judged["expected_effect"] > 0).all()

    assert run(study, monkeypatch) == first
    assert openai_server.received == 2 * D_SAE

    monkeypatch.delenv("OPENAI_API_KEY")
    openai_server.close()
    readers = tmp_path / "readers"
    readers.mkdir()
    for name in ("study.yaml", "answers.sqlite", "subjects"):
        copy = shutil.copytree if (study / name).is_dir() else shutil.copy
        copy(study / name, readers / name)
    assert run(readers, monkeypatch) == first

    (readers / "answers.sqlite").unlink()
    for name in OUTPUTS:
        (readers / name).unlink()
    monkeypatch.chdir(readers)
    same = ["--study", "study.yaml", "--subject", "toy", "--source", "writer", "--results", "."]
    assert main(["explain", *same]) != 0, "without the cache nothing can be explained"
