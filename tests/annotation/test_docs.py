"""docs/annotate.md: its config is part of a study, and it is the guide of the protocol that sheets name."""

import re
from pathlib import Path

import yaml

from isaerft.annotation.answers import DONE, EFFECTS
from isaerft.annotation.sheet import PROTOCOL
from isaerft.config import plan_from_dict
from tests.annotation.small_study import config

PAGE = (Path(__file__).parents[2] / "docs/annotate.md").read_text(encoding="utf-8")


def test_the_config_on_the_page_is_part_of_a_study(tmp_path):
    text = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1].replace("data/mine", str(tmp_path))
    for name in re.findall(r"\w+\.csv", text):
        (tmp_path / name).touch()
    primary = config()["primary"] | {"source": "written", "judge": "ann"}
    plan = plan_from_dict(config(**yaml.safe_load(text), primary=primary))
    assert plan.judges_of("written") == ["ann", "bob"]


def test_the_page_states_the_protocol_the_effects_and_the_marks():
    assert f"This is protocol {PROTOCOL};" in PAGE
    table = PAGE[PAGE.index("| `expected` |") :].split("\n\n")[0]
    assert {float(value) for value in re.findall(r"-?\d(?:\.\d)?", table)} == set(EFFECTS)
    assert f"(`done`: {', '.join(DONE[:-1])} or {DONE[-1]})" in PAGE
