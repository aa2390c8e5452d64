"""What the summary says of whose labels a study tests."""

import pandas as pd
import pytest

from isaerft.report.cautions import cautions
from isaerft.report.provenance import provenance_cautions, provenance_sentences
from isaerft.report.selection import find_primary


def explained(tables, *rows):
    """Return the tables with rows (subject, source, provenance, n_compared, n_recognized)."""
    columns = ("subject", "source", "provenance", "n_compared", "n_recognized")
    return tables | {"explained_latents": pd.DataFrame(rows, columns=columns).assign(n_explained=120)}


@pytest.fixture
def primary(tables):
    return find_primary(tables["agreement"])


@pytest.mark.parametrize(
    ("provenance", "counts", "said"),
    [
        ("proven", (64, 61), "are proven to be of this SAE: 61 of 64 latents compared promote the tokens that the"),
        ("proven", (0, 0), "are proven to be of this SAE: they were made from the subject's own contexts."),
        ("stated", (0, 0), "are said to be of this SAE, which is not proven: no latents' promoted tokens could be"),
        ("stated", (64, 40), "are said to be of this SAE, which is not proven: 40 of 64 latents compared promote"),
        ("unknown", (64, 40), "it is unknown whether the explanations from"),
        ("unknown", (64, 2), "look like those of another SAE: only 2 of 64 latents compared promote"),
    ],
)
def test_the_sentence_says_what_is_known_and_by_how_many_latents(tables, primary, provenance, counts, said):
    table = explained(tables, ("toy", primary.source, provenance, *counts))
    (sentence,) = provenance_sentences(table, primary)
    assert sentence.startswith("toy: ")
    assert said in sentence
    assert len(list(provenance_cautions(table, primary))) == (provenance != "proven")


def test_it_stands_before_the_result_and_what_is_not_proven_is_the_first_caution(tables, primary, summary):
    table = explained(tables, ("toy", primary.source, "unknown", 0, 0), ("toy", "other <b>", "stated", 0, 0))
    page = summary(table)
    assert page.index("Whose labels are these?") < page.index("t is unknown whether") < page.index('class="verdict')
    assert "stated of other &lt;b&gt;" in page
    assert "it is not proven that the 120 explanations" in cautions(table)[0]


def test_without_the_table_nothing_is_said(tables, primary, summary):
    assert "Whose labels" not in summary({name: frame for name, frame in tables.items() if name != "explained_latents"})
    assert list(provenance_sentences({}, primary)) == list(provenance_cautions({}, primary)) == []
