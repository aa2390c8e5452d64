"""Folders go to the hub as they are, private unless said otherwise, and never with a credential in them."""

import gzip

import pandas as pd
import pytest

from isaerft.errors import InputError
from isaerft.hub import check_credentials, check_repo, escaped, upload
from tests.servers.hub import TOKEN


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "out/inside").mkdir(parents=True)
    (tmp_path / "out/README.md").write_text("---\ntags: []\n---\n\n# A card\n")
    (tmp_path / "out/inside/weights.bin").write_bytes(bytes(range(256)))
    return tmp_path / "out"


def send(folder, **options):
    return upload(folder, "me/mine", message="m", **options)


@pytest.mark.parametrize("kind", ["model", "dataset"])
@pytest.mark.parametrize("private", [True, False])
def test_a_folder_is_there_byte_for_byte_and_private_unless_said_otherwise(hub, folder, kind, private):
    options = {} if private else {"private": False}
    where = {"model": "", "dataset": "datasets/"}[kind]
    assert send(folder, kind=kind, **options) == f"{hub.url}/{where}me/mine"
    is_private, files = hub.repos[f"{kind}s/me/mine"]
    assert is_private is private
    assert files == {"README.md": (folder / "README.md").read_bytes(), "inside/weights.bin": bytes(range(256))}
    (folder / "README.md").write_text("# New\n")
    send(folder, kind=kind, **options)  # once more, into the repository that is there
    assert hub.repos[f"{kind}s/me/mine"][1]["README.md"] == b"# New\n"


def test_a_public_repository_gets_nothing_that_should_be_private(hub, folder):
    hub.repos["models/me/mine"] = (False, {})
    with pytest.raises(InputError, match=r"is there and public; .*--public"):
        send(folder)
    assert hub.repos["models/me/mine"] == (False, {})
    send(folder, private=False)
    assert set(hub.repos["models/me/mine"][1]) == {"README.md", "inside/weights.bin"}


def test_without_a_token_nothing_is_asked_and_a_token_can_be_given(hub, folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match="set HF_TOKEN"):
        send(folder)
    assert hub.seen == []
    send(folder, token=TOKEN)
    assert "models/me/mine" in hub.repos


def test_a_hub_that_refuses_is_an_error_without_the_token(hub, folder, monkeypatch, caplog):
    hub.refuses = True
    monkeypatch.delenv("HF_TOKEN")
    for token in (TOKEN, "one-in-no-known-form"):
        with pytest.raises(InputError, match=r"the hub did not take the model me/mine .*403") as caught:
            send(folder, token=token)
        assert token not in str(caught.value) + caplog.text


def test_a_client_that_is_offline_says_so(hub, folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE"):
        send(folder)
    assert hub.seen == []


KEYS = {
    "a Hugging Face token": "hf_" + "x1" * 17,
    "a key of OpenAI": "sk-np-0123456789abcdefghij",
    "a GitHub token": "ghp_" + "a1" * 18,
    "an AWS key": "AKIA0123456789ABCDEF",
    "a private key": "-----BEGIN RSA PRIVATE KEY-----",
    "a password in an address": "https://me:pass-word@example.org/x",
    "the value of MY_TOKEN": "eight letters or more",
}


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("form", ["text", "gz", "parquet", "bytes"])
def test_a_credential_in_any_file_stops_the_upload_and_is_not_repeated(hub, folder, monkeypatch, kind, form):
    monkeypatch.setenv("MY_TOKEN", KEYS["the value of MY_TOKEN"])
    said = f"the reply was {KEYS[kind]} and no more"
    if form == "text":
        (folder / "inside/notes.txt").write_text(said)
    elif form == "gz":
        (folder / "inside/notes.gz").write_bytes(gzip.compress(said.encode()))
    elif form == "parquet":
        pd.DataFrame({"explanation": ["a", said, "z"]}).to_parquet(folder / "inside/notes.parquet", compression="gzip")
    else:
        (folder / "inside/notes.bin").write_bytes(b"\xff\x00 " + said.encode() + b" \xfe")
    with pytest.raises(InputError, match=rf"'inside/notes\.\w+' holds {kind}.*: nothing was sent") as caught:
        send(folder)
    assert KEYS[kind] not in str(caught.value)
    assert hub.seen == []


def test_words_that_only_look_like_keys_do_not(folder):
    words = "a task-oriented-conversation-about-things, risk-averse, hf_short, AKIA, http://example.org/a:b@c"
    (folder / "words.txt").write_text(words)
    check_credentials(folder)


@pytest.mark.parametrize("repo_id", ["mine", "a/b/c", "../up", "me/mi ne", "", "me/mine.git", "-/x"])
def test_a_repository_is_named_owner_and_name(repo_id):
    with pytest.raises(InputError, match="allowed: OWNER/NAME"):
        check_repo(repo_id)


def test_text_from_outside_is_no_markup():
    text = escaped('<script>x</script> [a](b) ![c](d) | `e` **f** _g_ # h\n\n---\n"i"')
    assert not set("<>[]|`*_#!\"'\n") & set(text.replace("&#", ""))
    import html

    assert html.unescape(text) == '<script>x</script> [a](b) ![c](d) | `e` **f** _g_ # h --- "i"'
