"""What must hold of audits and of planted poison before anything runs."""

from __future__ import annotations

from isaerft.config.options import Study
from isaerft.errors import InputError, unknown_name


def check_audits(study: Study) -> None:
    """Refuse audits of sets that are not there or that cannot be told apart, and poison that cannot be planted."""
    for name, audit in study.audits.items():
        for kind, behavior in (("clean", audit.clean), ("suspect", audit.suspect)):
            if behavior not in study.behaviors:
                raise unknown_name(f"audits.{name}.{kind}", behavior, study.behaviors)
        if audit.clean == audit.suspect:
            raise InputError(
                f"audit {name!r} compares {audit.clean!r} with itself",
                allowed="two behaviors with data of their own",
                remedy="give the suspect data a behavior of its own",
            )
    suspects = {audit.suspect: name for name, audit in study.audits.items()}
    for name, audit in study.audits.items():
        if audit.clean in suspects:
            raise InputError(
                f"behavior {audit.clean!r} is clean in audit {name!r} and suspect in {suspects[audit.clean]!r}",
                remedy="compare suspect sets with a set that is trusted throughout",
            )
    for name in study.candidates:
        if name in study.behaviors:
            raise InputError(f"candidate {name!r} is a behavior, too", remedy="leave it out of `candidates`")
        if not study.candidates[name].strip():
            raise InputError(f"candidate {name!r} has no description", remedy="say what it is: the judges read this")
    _check_poison(study)


def _check_poison(study: Study) -> None:
    for name, behavior in study.behaviors.items():
        if behavior.poison is None:
            continue
        planted = behavior.poison.behavior
        if planted not in study.behaviors:
            raise unknown_name(f"behaviors.{name}.poison.behavior", planted, study.behaviors)
        if planted == name or study.behaviors[planted].poison is not None:
            raise InputError(
                f"behavior {name!r} is poisoned with {planted!r}",
                allowed="another behavior, itself without poison",
            )
        if behavior.rule:
            raise InputError(
                f"behavior {name!r} is made by a rule of your own and poisoned", remedy="plant the rows in that rule"
            )
