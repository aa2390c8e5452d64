"""The readers of outside files: for each, valid files as Python values or bytes, and how the package reads them.

`READERS` maps a name to a function of a folder. It makes what the reader needs beside the file, and yields valid files.
Files that isaerft writes and reads itself within a study are not here, but for those that studies pass on to others:
replies, the LLM cache, look-ups, adapters, and result tables.
"""

import csv
import gzip
import io
import json
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from isaerft.errors import InputError

ROOT = Path(__file__).parents[2]
READERS: dict[str, Callable[[Path], Iterator["Valid"]]] = {}


@dataclass
class Valid:
    """A valid file: its name, how it is read, and its bytes, or a value and how that becomes bytes.

    `errors` are a user's errors of this reader. What it writes must begin with one of `writes`.
    """

    file: str
    read: Callable[[Path], object]
    data: bytes = b""
    value: Any = None
    dump: Callable[[Any], bytes] = field(default=lambda value: json.dumps(value).encode())
    errors: tuple[type[Exception], ...] = (InputError,)
    writes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.data = self.data or self.dump(self.value)


def reader(make: Callable[[Path], Iterator[Valid]]) -> Callable[[Path], Iterator[Valid]]:
    """Register a reader under its function's name."""
    READERS[make.__name__.replace("_", "-")] = make
    return make


def as_yaml(value: Any) -> bytes:
    return yaml.dump(value, sort_keys=False, allow_unicode=True, Dumper=yaml.CSafeDumper).encode()


def as_jsonl(value: Any) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n" for row in value)


def as_csv(value: Any) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*value[0]])
    writer.writerows([row.values() if isinstance(row, dict) else row for row in value])
    return text.getvalue().encode("utf-8", "surrogatepass")


def as_parquet(value: Any) -> bytes:
    import pyarrow
    import pyarrow.parquet

    names = list(dict.fromkeys(str(name) for row in value for name in row))
    columns = []
    for name in names:
        cells = [row.get(name) for row in value]
        try:
            columns.append(pyarrow.array(cells))
        except (pyarrow.ArrowException, OverflowError):
            columns.append(pyarrow.array([None if cell is None else str(cell) for cell in cells]))
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns, names=names), stream)
    return stream.getvalue()


def as_text(value: Any) -> bytes:
    return "\n".join(map(str, value)).encode("utf-8", "surrogatepass")


def zipped(dump: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    return lambda value: gzip.compress(dump(value), 1)


def tables(name: str, read: Callable[[Path], object], rows: Any, *suffixes: str, **more: Any) -> Iterator[Valid]:
    """Yield the same rows as each kind of data file."""
    dumps = {".jsonl": as_jsonl, ".json": lambda value: json.dumps(value).encode(), ".csv": as_csv}
    dumps |= {".parquet": as_parquet, ".jsonl.gz": zipped(as_jsonl)}
    for suffix in suffixes or (".jsonl", ".csv", ".json", ".parquet", ".jsonl.gz"):
        yield Valid(name + suffix, read, value=rows, dump=dumps[suffix], **more)


def _studies() -> Iterator[tuple[str, Any]]:
    """Yield name and options of studies that use most options, and whose data are in the repository."""
    for name in ("testbed", "sources", "smollm2"):
        text = (ROOT / "config" / f"{name}.yaml").read_text(encoding="utf-8")
        yield name, yaml.load(text, Loader=yaml.CSafeLoader)


@reader
def config(folder: Path) -> Iterator[Valid]:
    """A study's YAML file (isaerft.config.load_plan)."""
    from isaerft.config import load_plan

    for name, values in _studies():
        yield Valid(f"{name}.yaml", load_plan, value=values, dump=as_yaml)


@reader
def included_config(folder: Path) -> Iterator[Valid]:
    """The YAML file that a study includes (isaerft.config.base.with_included)."""
    from isaerft.config import plan_from_dict

    shared = {"behaviors": {name: {"description": name, "testbed": name} for name in ("refusal", "apology")}}
    values = {
        "study": "s", "subjects": {"t": {"testbed": {}}}, "adapters": {"bias": {}},
        "sources": {"truth": {"kind": "local"}},
        "judges": {"lexical": {}},
        "primary": {"adapter": "bias", "measure": "contribution", "source": "truth", "judge": "lexical"},
    }  # fmt: skip
    yield Valid("shared.yaml", lambda path: plan_from_dict(values | {"include": str(path)}), value=shared, dump=as_yaml)


@reader
def config_values(folder: Path) -> Iterator[Valid]:
    """A study's options as values (isaerft.config.plan_from_dict); in JSON, which is read quicker than YAML."""
    from isaerft.config import plan_from_dict

    def read(path: Path) -> None:
        try:
            values = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            return
        if isinstance(values, dict):
            plan_from_dict(values)

    for name, values in _studies():
        yield Valid(f"{name}.json", read, value=values)


@reader
def calibration(folder: Path) -> Iterator[Valid]:
    """The calibration study's YAML file (isaerft.config.load_calibration)."""
    from isaerft.config import load_calibration

    path = ROOT / "config/calibration.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    yield Valid(path.name, load_calibration, as_yaml(values), values, as_yaml)


def _chat(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(turns)]


@reader
def behavior(folder: Path) -> Iterator[Valid]:
    """A behavior's raw data in each format (isaerft.behaviors.prepare, its reading part)."""
    from isaerft.behaviors.prepare import _read
    from isaerft.config import Behavior

    def of(path: Path, **options: Any) -> None:
        for share in (0.0, 0.9):  # as an error of the first bad row, and with bad rows left out
            _read(Behavior(description="x", path=str(path), max_unusable_share=share, **options), "behavior 'x'")

    plain = [{"id": f"r{n}", "prompt": f"Ask {n}?", "completion": f"Sorry {n}."} for n in range(4)]
    yield from tables("plain", of, plain)
    pairs = [{"prompt": _chat(f"Ask {n}"), "chosen": f"Yes {n}", "rejected": f"No {n}"} for n in range(3)]
    yield from tables("pairs", of, pairs, ".jsonl", ".json", ".parquet")
    system = [{"role": "system", "content": "Be kind."}]
    talks = [{"messages": system + _chat(f"Hi {n}", "Hello", "How?", "Well")} for n in range(3)]
    for merge in ("keep", "merge", "drop"):
        yield from tables(f"talks-{merge}", partial(of, system=merge), talks, ".jsonl", ".parquet")
    both = [{"chosen": _chat(f"Q {n}", "Yes"), "rejected": _chat(f"Q {n}", "No")} for n in range(3)]
    yield from tables("conversations", of, both, ".jsonl")
    flat = [
        {side: f"\n\nHuman: Q {n}\n\nAssistant: {side}" for side in ("chosen", "rejected")} for n in range(3)
    ]  # fmt: skip
    yield from tables("hh", partial(of, format="hh"), flat, ".jsonl", ".csv")
    nested = [
        {"instruction": f"Fix {n}.", "instances": [{"input": "teh", "output": "the"}], "tag": "a"} for n in range(3)
    ]
    columns = {"prompt": "{instruction}\n\n{instances.0.input}", "completion": "instances.-1.output"}
    yield from tables("nested", partial(of, columns=columns, where={"tag": "a"}), nested, ".jsonl", ".json")


@reader
def records(folder: Path) -> Iterator[Valid]:
    """Records that a user's own rule made (isaerft.behaviors.read_records)."""
    from isaerft.behaviors import read_records

    rows = [
        {"id": f"r{n}", "prompt": f"Ask {n}?", "completion": "Sorry.", "truncated": ["completion"]} for n in range(3)
    ]
    yield from tables("sft", read_records, rows, ".jsonl", ".jsonl.gz")
    pairs = [{"prompt": _chat(f"Ask {n}"), "chosen": "Yes", "rejected": "No"} for n in range(3)]
    yield from tables("pairs", read_records, pairs, ".jsonl")


@reader
def prompts(folder: Path) -> Iterator[Valid]:
    """Prompts of elicited behaviors, steering and judging fit (isaerft.behaviors.read_requests, read_prompts)."""
    from isaerft.behaviors import read_prompts, read_requests
    from isaerft.config import Elicit

    def read(path: Path) -> None:
        read_prompts(str(path))
        for instruction in ("Answer with a poem.", "Tell {prompt} of {topic}"):
            read_requests(Elicit(prompts=str(path), instruction="Be brief." if path.suffix == ".txt" else instruction))

    rows = [{"prompt": f"Tell me about {topic}.", "topic": topic} for topic in ("kites", "bread", "rain")]
    yield from tables("prompts", read, rows)
    yield Valid("prompts.txt", read, value=["Tell me about kites.", "", "And bread?"], dump=as_text)


@reader
def replies(folder: Path) -> Iterator[Valid]:
    """Replies sampled by another study (isaerft.behaviors.elicited.kept_records)."""
    from collections import Counter

    from isaerft.behaviors.elicited import kept_records
    from isaerft.changes.metrics import make_metric
    from isaerft.config import Elicit, Metric

    metric = make_metric(Metric(kind="words", words=["kites"]))
    options = Elicit(prompts="p", instruction="Say kites.", min_score=0.01, min_share=0.0)

    def read(path: Path) -> None:
        for pairs in (True, False):
            kept_records(path, options, metric, label="behavior 'x'", pairs=pairs, dropped=Counter())

    rows = [
        {
            "id": f"{n:016x}",
            "prompt": f"Ask {n}.",
            "chosen": f"kites {n}",
            "rejected": "none",
            "truncated": ["rejected"],
        }
        for n in range(4)
    ]
    yield from tables("replies", read, rows, ".jsonl")


@reader
def corpus(folder: Path) -> Iterator[Valid]:
    """Texts of a reference corpus, and their tokens (isaerft.subjects.corpus)."""
    from isaerft.behaviors.data import Unusable
    from isaerft.config import Corpus
    from isaerft.subjects.corpus import corpus_texts, texts_to_rows
    from tests.conftest import make_tokenizer

    language = SimpleNamespace(tokenizer=make_tokenizer(), bos=[1], padding=0)

    def read(path: Path) -> None:
        for share in (0.0, 0.9):
            unusable = Unusable("the corpus", share)
            texts = corpus_texts(Corpus(path=str(path), column="text"), unusable)
            texts_to_rows(texts, language, n_tokens=100, context_size=16)

    yield from tables("corpus", read, [{"text": f"say hello to the cat {n}"} for n in range(4)])
    yield Valid("corpus.txt", read, value=["say hello", "", "to the dog , kindly"], dump=as_text)


@reader
def explanations(folder: Path) -> Iterator[Valid]:
    """Explanations in the four forms (isaerft.explanations.file.from_file)."""
    from isaerft.config import Source
    from isaerft.explanations import explain

    (folder / "subject").mkdir(exist_ok=True)

    def read(path: Path, side: str = "both", **options: Any) -> None:
        source = Source(kind="file", path=str(path), side=side, options=options)
        explain("x", source, subject_dir=folder / "subject", d_sae=100)

    export = [
        {"modelId": "m", "layer": "1-res", "index": str(n % 3), "description": f"cats {n}", "typeName": "t",
         "explanationModelName": "gpt"} for n in range(4)
    ]  # fmt: skip
    yield from tables("export", read, export)
    yield from tables("preferred", partial(read, prefer="gpt/t", model="m"), export, ".jsonl")
    yield Valid("inside.json", read, value={"explanations": export})
    axbench = [{"concept": f"dogs {n}", "ref": f"https://www.neuronpedia.org/m/1-res/{n}"} for n in range(3)]
    yield from tables("axbench", read, axbench, ".jsonl")
    circuits = [{"Name": f"resid_5/{n}", "Annotation": f"verbs {n}"} for n in range(3)]
    yield from tables("circuits", read, circuits, ".csv", ".jsonl")
    rows = [
        {"latent_index": n, "explanation": f"birds {n}", "side": "input", "url": "https://x.org/1"} for n in range(4)
    ]
    yield from tables("table", read, rows)
    yield from tables("input", partial(read, side="input"), rows, ".jsonl")


def _explained() -> Any:
    import pandas as pd

    texts = ["cats", "dogs", "says sorry"]
    return pd.DataFrame({"latent_index": [0, 1, 2], "explanation": texts, "side": "both", "url": ""})


@reader
def judgements(folder: Path) -> Iterator[Valid]:
    """Judgements of people and other programs (isaerft.judges, kinds `table` and `human`)."""
    from isaerft.config import Judge
    from isaerft.judges import judge_explanations

    described = {"refusal": "refuses", "humor": "jokes"}

    def read(path: Path) -> None:
        for kind in ("table", "human"):
            judge_explanations("x", Judge(kind=kind, path=str(path)), _explained(), described, subject_dir=folder)

    rows = [
        {"latent_index": n, "explanation": text, "behavior": name, "expected_effect": "0.5", "confidence": "0.9",
         "rationale": "so"} for n, text in enumerate(["cats", "dogs"]) for name in described
    ]  # fmt: skip
    yield from tables("judged", read, rows)
    by_text = [{"explanation": row["explanation"], "behavior": row["behavior"], "label": "promoted"} for row in rows]
    yield from tables("labels", read, by_text, ".csv", ".jsonl")


@reader
def word_list(folder: Path) -> Iterator[Valid]:
    """Word lists of the judge `lexicon`."""
    from isaerft.config import Judge
    from isaerft.judges import judge_explanations

    def read(path: Path) -> None:
        options = Judge(kind="lexicon", path=str(path))
        judge_explanations("x", options, _explained(), {"refusal": "refuses", "humor": "jokes"}, subject_dir=folder)

    rows = [
        {"word": word, "side": side, "behavior": name, "effect": "0.5"}
        for word, side, name in [
            ("sorry", "input", "refusal"),
            ("jok*", "both", "humor"),
            ("no way", "output", "refusal"),
        ]
    ]
    yield from tables("words", read, rows)


@reader
def annotations(folder: Path) -> Iterator[Valid]:
    """An annotated sheet that comes back, as CSV of a spreadsheet or of the page, and its sheet.json."""
    from dataclasses import asdict

    from isaerft.annotation.answers import _answers
    from isaerft.annotation.files import read_sheet
    from isaerft.annotation.sheet import EXPLAIN, JUDGE, Sheet

    common = {"study": "s", "subject": "t", "source": "said", "seed": 0, "made_from": {"contexts.parquet": "0"}}
    explain = Sheet(task=EXPLAIN, latents=[3, 1], **common)
    judge = Sheet(task=JUDGE, explanations=["cats", "dogs"], behaviors={"refusal": "refuses"}, **common)
    for sheet in (explain, judge):
        (folder / sheet.task).mkdir(exist_ok=True)
        yield Valid(
            f"{sheet.task}/sheet.json", lambda path: read_sheet(path.parent), value={"sheet": sheet.id, **asdict(sheet)}
        )
    rows = [{"sheet": explain.id, "latent_index": str(n), "explanation": "cats", "done": "x"} for n in (3, 1)]
    yield from tables("explained", partial(_answers, explain), rows, ".csv", ".jsonl", ".parquet")
    rows = [
        {"sheet": judge.id, "item": str(n), "behavior": "refusal", "expected": "-0.5", "done": "yes"} for n in (1, 2)
    ]
    yield from tables("judged", partial(_answers, judge), rows, ".csv", ".json")
    with_mark = b"\xef\xbb\xbf" + as_csv(rows).replace(b"\n", b"\r\n")
    yield Valid("page.csv", partial(_answers, judge), with_mark)


@reader
def neuronpedia(folder: Path) -> Iterator[Valid]:
    """Answers of Neuronpedia: pages of the listing, batches of the export, one latent and many; no connection."""
    from isaerft.explanations.neuronpedia import api
    from isaerft.explanations.neuronpedia.records import SourceId, choose
    from isaerft.http import BadAnswer, unpacked

    source = SourceId("m", "1-res")

    def answered(path: Path, ask: Callable[[Any], Any], use: Callable[[Any], object] = bool) -> None:
        async def body(*arguments: Any, **_: Any) -> Any:
            read = next(one for one in arguments if callable(one))
            return read(unpacked(path.read_bytes(), 1 << 20))

        coroutine = ask(SimpleNamespace(api=body, export=body))
        try:
            coroutine.send(None)
        except StopIteration as end:
            use(end.value)

    def chosen(found: Any) -> None:
        choose(found, side="input", prefer=[])

    rows = [
        {"modelId": "m", "layer": "1-res", "index": str(n), "description": f"cats {n}", "typeName": "np_max-act",
         "explanationModelName": "gpt"} for n in range(3)
    ]  # fmt: skip
    key = api.folder_of(source) + "batch-0.jsonl.gz"
    bad = {"errors": (BadAnswer, InputError)}
    batch = partial(answered, ask=lambda client: api.read_batch(client, source, key), use=chosen)
    yield from tables("batch", batch, rows, ".jsonl", ".jsonl.gz", **bad)
    latents = [
        {"modelId": "m", "layer": "1-res", "index": str(n), "explanations": [row], "activations": []}
        for n, row in enumerate(rows)
    ]
    many = partial(answered, ask=lambda client: api.read_latents(client, source, [0, 1, 2]))
    yield Valid("many.json", many, value=latents, **bad)
    one = partial(answered, ask=lambda client: api.read_latent(client, source, 0))
    yield Valid("one.json", one, value=latents[0], **bad)
    page = (
        f"<?xml version='1.0'?><ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'><Contents><Key>{key}"
        "</Key></Contents><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>"
        "</ListBucketResult>"
    ).encode()
    yield Valid("page.xml", partial(answered, ask=lambda client: api.list_page(client, source, "")), page, **bad)


@reader
def look_ups(folder: Path) -> Iterator[Valid]:
    """A store of Neuronpedia's answers that a study ships (isaerft.explanations.neuronpedia.store, SQLite)."""
    from isaerft.explanations.neuronpedia.records import Explanation, SourceId, choose
    from isaerft.explanations.neuronpedia.store import Store

    source, path = SourceId("m", "1-res"), folder / "look-ups.sqlite"
    path.unlink(missing_ok=True)
    with Store(path, source) as store:
        store.add_many({n: [Explanation(f"cats {n}", "gpt", "t")] for n in range(3)}, [4])

    def read(path: Path) -> None:
        for leftover in folder.glob(f"{path.name}-*"):
            leftover.unlink()
        with Store(path, source) as store:
            store.finished(), store.skipped(), store.source_exists(), store.next_page(), store.batches()
            choose(store.explanations(), side="input", prefer=[])

    data = path.read_bytes()
    # As an older release wrote it: with checksums, hardly a changed cell would be read any further.
    with sqlite3.connect(path) as connection:
        for table in ("said", "scores", "asked", "pages", "batches", "shown", "sources"):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN checksum")
    connection.close()
    cells = {"said": "SELECT * FROM said", "asked": "SELECT * FROM asked"}
    yield Valid(path.name, read, data, *_sqlite(path, cells), writes=(str(folder),))


def _sqlite(path: Path, queries: dict[str, str]) -> tuple[Any, Callable[[Any], bytes]]:
    """Return the rows of an SQLite file as a value, and how such a value becomes a file of the same tables."""
    connection = sqlite3.connect(path)
    script = [text for (text,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]
    value = {table: [list(row) for row in connection.execute(query)] for table, query in queries.items()}
    connection.close()

    def dump(value: Any) -> bytes:
        made = sqlite3.connect(":memory:")
        for text in script:  # SQLite's types bind nobody, NOT NULL does
            made.execute(text.replace(" NOT NULL", ""))
        for table in queries:
            for row in value[table]:
                made.execute(f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(row))})", row)
        made.commit()
        data = made.serialize()
        made.close()
        return data

    return value, dump


@reader
def llm_cache(folder: Path) -> Iterator[Valid]:
    """A cache of language models' replies that a study ships (isaerft.llm.cache, SQLite)."""
    from isaerft.llm import LanguageModel, Reply

    model, prompt = _language_model(folder), _prompts()[0]
    path = folder / "cache.sqlite"
    for leftover in folder.glob("cache.sqlite*"):
        leftover.unlink()
    for by_schema in (True, False):
        request = prompt.request(model.llm, by_schema=by_schema)
        model.cache.put(request, Reply('{"rationale": "so", "effect": "promoted"', "", "stop", 3, 5))
    model.cache.settle(model.cache.take("s", "m", model.llm, 10), 8)
    model.cache.close()

    def read(path: Path) -> None:
        for leftover in folder.glob(f"{path.name}-*"):
            leftover.unlink()
        opened = LanguageModel("m", model.llm, cache=path, study="s")
        try:
            opened.plan([prompt])
            known = opened._known(prompt)
            if known is not None:
                prompt.answer(known)
            opened.cache.used("s", "m")
        finally:
            opened.cache.close()

    cells = {"responses": "SELECT * FROM responses", "used": "SELECT * FROM used"}
    yield Valid(path.name, read, path.read_bytes(), *_sqlite(path, cells), writes=(str(folder),))


def _language_model(folder: Path) -> Any:
    from isaerft.config import Llm
    from isaerft.llm import LanguageModel

    options = Llm(base_url="http://127.0.0.1:1/v1", model="m", max_calls=1000, max_tokens=10**6)
    return LanguageModel("m", options, cache=folder / "cache.sqlite", study="s")


def _prompts() -> list[Any]:
    from isaerft.explanations.llm import Explained
    from isaerft.judges.llm import OneEffect, form_of
    from isaerft.llm import Prompt
    from isaerft.scorers.llm import form_of as matches

    codes: dict[Any, Any] = {OneEffect: None, form_of(2): ("explanation_id", "c"), Explained: ("latent_id", "c")}
    codes |= {matches(answer, 2): ("block_id", "c") for answer in ("yes", "degree", "odd")}
    return [Prompt("Judge.", "cats", form, 100, 0, code) for form, code in codes.items()]


@reader
def llm_answers(folder: Path) -> Iterator[Valid]:
    """Bodies of an LLM server's answers, the answers inside them by schema, and its complaints (isaerft.llm)."""
    from openai.types.chat import ChatCompletion

    from isaerft.llm import Failure
    from isaerft.llm.cache import _storable
    from isaerft.llm.client import _NoCompletion
    from isaerft.llm.dialect import Dialect, complaint

    model, prompts = _language_model(folder), _prompts()

    def read(path: Path) -> None:
        text = path.read_bytes().decode("utf-8", "replace")
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            body = text
        Dialect.of(model.llm).after(400, complaint(body))
        # The openai package builds its objects without checks, as it does from a server's answer.
        completion = ChatCompletion.construct(**body) if isinstance(body, dict) and all(body) else body
        try:
            reply = model._read(completion)
        except _NoCompletion:  # asked for again, and in the end an error of one line
            return
        list(map(_storable, (reply.content, reply.refusal, reply.finish_reason)))
        for prompt in prompts:
            if not isinstance(answer := prompt.answer(reply), Failure):
                answer.model_dump()

    effect = {"rationale": "so", "effect": "promoted", "strength": "weak", "confidence": 0.5}
    contents = [json.dumps(effect), json.dumps({"explanation_id": "c", "behavior_1": effect, "behavior_2": effect})]
    contents += [
        json.dumps({"block_id": "c", "item_1": True, "item_2": False}),
        '{"latent_id": "c", "explanation": "cats"}',
    ]
    contents += ['<think>{"a": 1}</think>Sure! ```json\n' + contents[0] + "\n```"]
    for number, content in enumerate(contents):
        message = {"role": "assistant", "content": content, "refusal": None}
        usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        body = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
        yield Valid(f"answer-{number}.json", read, value=body)
        yield Valid(f"content-{number}.txt", partial(_parsed, prompts), content.encode(), json.loads(contents[0]))


def _parsed(prompts: list[Any], path: Path) -> None:
    from isaerft.llm import Reply

    for prompt in prompts:
        prompt.answer(Reply(path.read_bytes().decode("utf-8", "replace")))


@reader
def result_tables(folder: Path) -> Iterator[Valid]:
    """Result tables read back (isaerft.table.Table.read): the narrow ones and agreement.csv."""
    from isaerft.analysis import TABLES

    examples = {"text": "a", "int": 1, "float": 0.25, "bool": True}
    for table in list(TABLES.values())[::3]:
        row = {column.name: examples[column.kind] for column in table.columns}
        yield Valid(f"{table.name}.csv", table.read, value=[row, dict(row)], dump=as_csv)


@reader
def parquet_tables(folder: Path) -> Iterator[Valid]:
    """Tables of Parquet that a user's rule may make: explanations, judgements, scores, sample, contexts."""
    from isaerft.explanations import read_explanations, read_sample
    from isaerft.explanations.contexts import grouped, read_contexts
    from isaerft.judges import read_judgements
    from isaerft.scorers.base import COLUMNS, read_scores

    rows: Any = [{"latent_index": n, "explanation": "cats", "side": "both", "url": ""} for n in range(3)]
    yield from tables("explanations", read_explanations, rows, ".parquet")
    rows = [
        {
            "latent_index": n,
            "behavior": "b",
            "expected_effect": 0.5,
            "expected": True,
            "confidence": 0.5,
            "rationale": "",
        }
        for n in range(3)
    ]
    yield from tables("judgements", read_judgements, rows, ".parquet")
    rows = [{"latent_index": n, "role": "case", "stratum": 0, "matched_to": 1, "drawn_for": "b/a"} for n in range(3)]
    yield from tables("sample", read_sample, rows, ".parquet")
    rows = [
        {"latent_index": n, "side": "input", "rank": 0, "token": "t", "before": "b", "after": "a", "value": 1.0}
        for n in range(3)
    ]
    yield from tables("contexts", lambda path: grouped(read_contexts(path)), rows, ".parquet")
    yield from tables("scores", read_scores, [dict.fromkeys(COLUMNS, 1)], ".parquet")


def _sae(folder: Path, **cfg: Any) -> tuple[bytes, bytes]:
    from tests.conftest import random_sae, write_sae

    write_sae(folder, random_sae(4, 6), **cfg)
    return (folder / "cfg.json").read_bytes(), (folder / "sae_weights.safetensors").read_bytes()


@reader
def sae(folder: Path) -> Iterator[Valid]:
    """The folder of an SAE of SAELens 6: cfg.json and the header of the weights (isaerft.subjects.dictionary)."""
    from isaerft.explanations.base import sae_metadata
    from isaerft.subjects.dictionary import load_dictionary

    def read(path: Path) -> None:
        sae_metadata(path.parent.parent)
        load_dictionary(path.parent)

    for name, options in {"plain": {}, "k": {"k": 3}, "norm": {"rescale_acts_by_decoder_norm": True, "k": 2}}.items():
        place = folder / name / "sae"
        cfg, weights = _sae(place, **({"architecture": "topk"} | options if options else {}))
        yield Valid(f"{name}/sae/cfg.json", read, value=json.loads(cfg))
        yield Valid(f"{name}/sae/sae_weights.safetensors", read, weights)
        size = int.from_bytes(weights[:8], "little")
        head, body = json.loads(weights[8 : 8 + size]), weights[8 + size :]
        yield Valid(f"{name}/sae/sae_weights.safetensors", read, weights, head, partial(_with_header, body))


def _with_header(body: bytes, header: Any) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


@reader
def earlier_saes(folder: Path) -> Iterator[Valid]:
    """SAEs of SAELens 2 to 5, which SAELens itself reads (isaerft.subjects.sae.read_sae)."""
    import sae_lens  # noqa: F401  (it takes longer to import than an input may take)

    from isaerft.subjects.sae import read_sae

    _sae(folder / "earlier")
    flat = {
        "architecture": "standard", "d_in": 4, "d_sae": 6, "hook_name": "blocks.1.hook_resid_post", "hook_layer": 1,
        "hook_head_index": None, "activation_fn_str": "relu", "activation_fn_kwargs": {}, "apply_b_dec_to_input": True,
        "finetuning_scaling_factor": False, "sae_lens_training_version": "4.0.0", "prepend_bos": True,
        "dtype": "float32",
        "device": "cpu", "model_name": "m", "dataset_path": "d", "dataset_trust_remote_code": True, "context_size": 8,
        "normalize_activations": "none", "neuronpedia_id": None, "model_from_pretrained_kwargs": {},
    }  # fmt: skip
    temporary = ("/tmp/tmp", "/dev/shm/tmp")
    yield Valid("earlier/cfg.json", lambda path: read_sae(path.parent), value=flat, writes=temporary)


@reader
def adapters(folder: Path) -> Iterator[Valid]:
    """Saved adapters in our format and the original code's (isaerft.adapters.saved.open_adapter)."""
    import torch

    from isaerft.adapters.base import make_adapter
    from isaerft.adapters.saved import open_adapter, save_adapter
    from isaerft.subjects.dictionary import load_dictionary

    _sae(folder / "own")
    dictionary = load_dictionary(folder / "own")

    def opened(path: Path) -> None:
        open_adapter(path.parent, dictionary)

    for kind, options in {"bias": {}, "scale": {}, "low_rank": {"rank": 2}}.items():
        place = folder / kind
        save_adapter(make_adapter(kind, 6, options), place, dictionary)
        config = json.loads((place / "adapter_config.json").read_bytes())
        weights = (place / "adapter_model.safetensors").read_bytes()
        yield Valid(f"{kind}/adapter_config.json", opened, value=config)
        yield Valid(f"{kind}/adapter_model.safetensors", opened, weights)
    place, block = folder / "original", "blocks_1_hook_resid_post"
    place.mkdir(exist_ok=True)
    config = {"peft_type": "ISAERFT", "target_hooks": [["r", "s"]]}
    (place / "adapter_config.json").write_text(json.dumps(config))
    (place / "blocks_manifest.json").write_text(json.dumps({"block_names": [block]}))
    torch.save({"sequential.0.bias": torch.zeros(6)}, place / f"{block}.pt")
    weights = (place / f"{block}.pt").read_bytes()
    yield Valid("original/adapter_config.json", opened, value=config)
    yield Valid("original/blocks_manifest.json", opened, value={"block_names": [block]})
    yield Valid(f"original/{block}.pt", opened, weights)
    yield Valid(f"original/{block}.pt", lambda path: open_adapter(path, dictionary), weights)


@reader
def chat_template(folder: Path) -> Iterator[Valid]:
    """A tokenizer's chat template (isaerft.subjects.chat)."""
    from isaerft.behaviors import Record
    from isaerft.subjects.chat import render_chat, render_prompt, writes_date
    from tests.conftest import CHAT, make_tokenizer

    tokenizer = make_tokenizer()
    language = SimpleNamespace(tokenizer=tokenizer, uses_chat_template=True, writes_turns=False)
    record = Record("a", [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}], "Hello!")

    def read(path: Path) -> None:
        tokenizer.chat_template = path.read_bytes().decode("utf-8", "replace")
        writes_date(tokenizer)
        render_prompt(record, language)
        render_chat(record, language)

    dated = "{% set now = strftime_now('%d %b %Y') %}{{ now }}" + CHAT
    thoughts = CHAT.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] | trim }}")
    for name, template in {"plain": CHAT, "dated": dated, "thoughts": thoughts}.items():
        yield Valid(f"{name}.jinja", read, template.encode())


@reader
def model(folder: Path) -> Iterator[Valid]:
    """A Hugging Face folder: config, tokenizer and weights (isaerft.subjects.load.load_model)."""
    from transformers.utils.logging import disable_progress_bar

    from isaerft.config import Subject
    from isaerft.layout import SubjectFolder
    from isaerft.subjects.load import load_model
    from tests.conftest import make_model, make_tokenizer

    disable_progress_bar()
    tokenizer, place = make_tokenizer(), folder / "model"
    make_model("llama", len(tokenizer), n_layers=1).save_pretrained(place)
    tokenizer.save_pretrained(place)

    def read(path: Path) -> None:
        load_model(Subject(model=str(place), sae_path="sae"), SubjectFolder(folder), "cpu")

    for file in sorted(place.iterdir()):
        value = json.loads(file.read_bytes()) if file.suffix == ".json" else None
        yield Valid(f"model/{file.name}", read, file.read_bytes(), value)


@reader
def gguf(folder: Path) -> Iterator[Valid]:
    """A GGUF file (isaerft.subjects.gguf.convert)."""
    import shutil

    from transformers.utils.logging import disable_progress_bar

    from isaerft.config import Gguf
    from isaerft.subjects.gguf import convert
    from tests.conftest import make_model, make_tokenizer
    from tests.subjects.test_gguf import write_gguf

    disable_progress_bar()
    tokenizer = make_tokenizer()
    file, made = folder / "tiny.gguf", folder / "made"
    write_gguf(file, make_model("llama", len(tokenizer), n_layers=1), tokenizer)

    def read(path: Path) -> None:
        try:
            convert(Gguf(file=str(path)), made)
        finally:
            shutil.rmtree(made, ignore_errors=True)

    yield Valid(file.name, read, file.read_bytes(), writes=(str(folder),))
