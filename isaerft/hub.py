"""The Hugging Face hub: upload a folder, private unless said otherwise, and never with a credential in it."""

from __future__ import annotations

import gzip
import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isaerft.credentials import HIDDEN, found_in, hidden
from isaerft.errors import InputError, one_line, shown

MODEL, DATASET = "model", "dataset"
_PART = "[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_REPOSITORY = re.compile(rf"(?!.*(?:--|\.\.)){_PART}/{_PART}")
_REFERENCES = {ord(mark): f"&#{ord(mark)};" for mark in "\\`*_[]{}<>&|#~!\"'"}
_PLAIN = str.maketrans('|`"\\<>', "/''/()")


def escaped(text: object) -> str:
    """Return text on one line in which nothing is markup to Markdown or HTML, for the sentences of a card."""
    return one_line(" ".join(str(text).split())).translate(_REFERENCES)


def plain(text: object) -> str:
    """Return text on one line without what ends a code span, a cell or a quoted text of YAML."""
    return " ".join(str(text).translate(_PLAIN).split())


def check_repo(repo_id: str) -> str:
    """Return a repository's name; one that is not OWNER/NAME is an `InputError`."""
    if not _REPOSITORY.fullmatch(repo_id) or repo_id.endswith(".git"):
        raise InputError(
            f"repository {shown(repo_id)}", allowed="OWNER/NAME, your user name or an organization's first"
        )
    return repo_id


def check_credentials(folder: Path) -> None:
    """Raise `InputError` if a file of a folder holds a credential; also packed ones are read."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        for content in _contents(path):
            found = found_in(content)
            if found:
                raise InputError(
                    f"{str(path.relative_to(folder))!r} holds {', '.join(found)}: nothing was sent",
                    remedy="take it out of what the file is made from, and make it invalid if others may have seen it",
                )


def _contents(path: Path) -> Iterator[bytes]:
    yield path.read_bytes()
    if path.suffix == ".md":
        yield html.unescape(path.read_text(encoding="utf-8")).encode("utf-8", "replace")
    if path.suffix == ".gz":
        yield gzip.decompress(path.read_bytes())
    if path.suffix == ".parquet":
        import pandas as pd

        frame = pd.read_parquet(path)
        for name in frame.select_dtypes(["object", "str"]):
            yield "\n".join(map(str, frame[name])).encode("utf-8", "replace")


def upload(
    folder: Path, repo_id: str, *, kind: str = MODEL, private: bool = True, token: str | None = None, message: str
) -> str:
    """Upload a folder to the hub in one commit, and return its address.

    Parameters
    ----------
    folder : Path
        Every file in it is sent, after a search for credentials.
    repo_id : str
        OWNER/NAME; made if it is not there.
    kind : str
        `model` or `dataset`.
    private : bool
        Whether only its owner may see it. A repository that is there and public is then an error.
    token : str, optional
        By default that of the environment (HF_TOKEN) or of `hf auth login`.
    message : str
        Title of the commit.

    Raises
    ------
    InputError
        A file holds a credential, there is no token, the repository is public, or the hub refuses. No file is sent in
        the first three cases.
    """
    import huggingface_hub

    check_repo(repo_id)
    check_credentials(folder)
    secret = token or huggingface_hub.get_token()
    if not secret:
        raise InputError(
            "no token for the Hugging Face hub", remedy="set HF_TOKEN, or run `hf auth login`; never put it into a file"
        )
    api = huggingface_hub.HfApi(token=secret)
    try:
        is_public = _is_public(api, repo_id, kind)
        if is_public is None:
            api.create_repo(repo_id, repo_type=kind, private=private)
        elif is_public and private:
            raise InputError(
                f"the {kind} {repo_id} is there and public",
                remedy="name another, or say that anybody may see it (--public)",
            )
        sent = api.upload_folder(repo_id=repo_id, repo_type=kind, folder_path=folder, commit_message=message)
    except InputError:
        raise
    except Exception as error:  # of the network, the hub, or its client's own checks
        reason = hidden(f"{type(error).__name__}: {error}".replace(secret, HIDDEN))
        raise InputError(
            f"the hub did not take the {kind} {repo_id} ({reason})",
            remedy="check that the token may write there and that HF_HUB_OFFLINE is not set, then run it again",
        ) from None
    return str(sent.commit_url).partition("/commit/")[0]


def _is_public(api: Any, repo_id: str, kind: str) -> bool | None:
    """Return whether anybody may see a repository; None if it is not there."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return not api.repo_info(repo_id, repo_type=kind).private
    except RepositoryNotFoundError:
        return None
