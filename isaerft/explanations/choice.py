"""Which of a latent's several explanations goes first, by who made it.

>>> ranks_of_makers(["gpt-4o-mini/oai_token-act-pair", "human", ""], ["human", "gpt-4o-mini"])
[1, 0, 2]
"""

from __future__ import annotations

from collections.abc import Sequence

from isaerft.behaviors.rows import printable
from isaerft.errors import unknown_name


def ranks_of_makers(makers: Sequence[str], prefer: Sequence[str]) -> list[int]:
    """Return each maker's place in the preferred order; those not listed come last, alike.

    Parameters
    ----------
    makers : sequence of str
        `explanationModelName/typeName`, or what is known of it.
    prefer : sequence of str
        Makers in full, or one of the two parts, the best first.

    Raises
    ------
    InputError
        None of the makers is listed.
    """
    rank_of = {}
    for maker in set(makers):
        names = {maker, *maker.split("/")} - {""}
        rank_of[maker] = next((rank for rank, name in enumerate(prefer) if name in names), len(prefer))
    if prefer and min(rank_of.values(), default=len(prefer)) == len(prefer):
        listed = ", ".join(prefer)
        raise unknown_name("maker of explanations in `prefer`:", listed, map(printable, set(makers) - {""}))
    return [rank_of[maker] for maker in makers]
