"""docs/explanations.md: its configuration loads, and it names every source."""

import re
from pathlib import Path

import pytest
import yaml

from isaerft import config
from isaerft.registry import SOURCES

PAGE = (Path(__file__).parents[2] / "docs/explanations.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_every_piece_of_config_on_the_page_is_part_of_a_study(block):
    values = {
        "study": "s",
        "subjects": {"toy": {"model": "m", "release": "r", "sae_id": "i", "corpus": {"sample": True}}},
        "behaviors": {name: {"description": name, "rule": True} for name in "ab"},
        "adapters": {"bias": {}},
        "judges": {"lexical": {}},
        "controls": ["firing_rate_only"],
        "primary": {"adapter": "bias", "measure": "contribution", "source": "neuronpedia", "judge": "lexical"},
    }
    plan = config.plan_from_dict(values | yaml.safe_load(block))
    assert "neuronpedia" in plan.study.sources


def test_the_page_says_what_every_source_is():
    listed = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert listed - {"kind"} == set(SOURCES)
