"""Checks of a study's language models. What could be a key is never repeated in an error."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from isaerft import registry
from isaerft.config.options import Llm, Study
from isaerft.errors import InputError, shown, unknown_name

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")


def check_llms(study: Study) -> None:
    """Check every language model and every reference to one."""
    for name, llm in study.llms.items():
        _check_key(name, llm)
        _check_address(name, llm)
    registered = {"judge": registry.JUDGES, "source": registry.SOURCES, "scorer": registry.SCORERS}
    for kind, parts in (("judge", study.judges), ("source", study.sources), ("scorer", study.scorers)):
        for name, part in parts.items():
            if part.llm is not None and part.llm not in study.llms:
                raise unknown_name(f"{kind}s.{name}.llm", part.llm, study.llms)
            chosen = part.kind or name
            # What another package registers may ask a model too; it is not imported to find out.
            if part.llm is not None and not registered[kind].facts(chosen).asks:
                raise InputError(
                    f"{kind} {name!r} names the model {part.llm!r}, and is of kind {chosen!r}, which asks none",
                    remedy="leave its `llm` out, or give it `kind: llm`",
                )
            if registered[kind].facts(chosen).asks and part.llm is None:
                raise InputError(
                    f"{kind} {name!r} is of kind {chosen!r} and names no model",
                    remedy="add `llm: NAME`, a model described under `llms`",
                )


def _check_key(name: str, llm: Llm) -> None:
    if llm.api_key_env is not None and not _VARIABLE.fullmatch(llm.api_key_env):
        raise InputError(
            f"llms.{name}.api_key_env is not the name of an environment variable",
            allowed="capital letters, digits and _",
            remedy="put the key itself into the environment, never into a file of the study",
        )


def _check_address(name: str, llm: Llm) -> None:
    try:
        parts = urlsplit(llm.base_url)
        parts.port  # noqa: B018 - reading it checks it
    except ValueError:
        raise InputError(f"llms.{name}.base_url is not an address", allowed="http(s)://host[:port]/path") from None
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InputError(
            f"llms.{name}.base_url holds more than an address",
            allowed="http(s)://host[:port]/path",
            remedy="put the key into the environment, under the variable that api_key_env names",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"llms.{name}.base_url {shown(llm.base_url)}", allowed="http(s)://host[:port]/path")
