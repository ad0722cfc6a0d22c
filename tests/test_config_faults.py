"""Faults of a configuration: all at once, each with its line and the nearest valid name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from sftknow_eval.config_faults import Fault, parse_config, read_config, validated
from sftknow_eval.errors import SettingsError


class Adapter(BaseModel):
    model_config = ConfigDict(extra="forbid")
    rank: int = Field(default=8, ge=1)
    alpha: float = 16


class Training(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["sft", "lora"]
    rate: float = 1e-5
    adapter: Adapter | None = None
    grid: list[Adapter] = []
    n: Literal["all"] | Annotated[int, Field(ge=1)] = 1


# Written by hand; the line numbers below are counted in it.
FAULTY = """\
kind: loar
adapter:
  rnk: 4
  alpha: big
grid:
- {rank: 1}
- rank: 0
  aplha: 3
rate: 1e-5
rate: 2
n: 0
"""


def test_all_faults_are_listed_with_line_and_nearest_name() -> None:
    with pytest.raises(SettingsError) as caught:
        validated(Training, parse_config(FAULTY, "x.yaml"), lambda _: [Fault(("grid",), "odd")])
    lines = str(caught.value).splitlines()
    assert lines[0] == "x.yaml has 8 faults:"
    for number, texts in enumerate(
        (
            ("line 1: kind: is 'loar'", "sft, lora", "did you mean 'lora'?"),
            ("line 3: adapter.rnk: is no setting", "did you mean 'rank'?"),
            ("line 4: adapter.alpha: is 'big'", "valid number"),
            ("line 5: grid: odd",),
            ("line 7: grid.1.rank: is 0", "greater than or equal to 1"),
            ("line 8: grid.1.aplha: is no setting", "did you mean 'alpha'?"),
            ("line 9: rate: stands twice (again on line 10)",),
            ("line 11: n: is 0", "all was expected; or is 0: input should be greater"),
        ),
        start=1,
    ):
        for text in texts:
            assert text in lines[number]


def test_a_missing_setting_is_placed_where_it_belongs() -> None:
    with pytest.raises(SettingsError, match=r"has a fault:\n  line 2: kind: is missing"):
        validated(Training, parse_config("# nothing\nrate: 1\n", "x.yaml"))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("1e-5", 1e-5),
        ("1.5E3", 1500.0),
        (".5", 0.5),
        ("-7", -7),
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2026-01-02", "2026-01-02"),
        ("true", True),
        ("~", None),
        ("", None),
    ],
)
def test_scalars_are_what_they_look_like(written: str, expected: object) -> None:
    # Expected: YAML 1.2's core schema.
    value = parse_config(f"a: {written}", "x").value["a"]
    assert value == expected
    assert type(value) is type(expected)


def test_anchors_and_merges_may_override() -> None:
    text = "kind: lora\ngrid:\n- &one {rank: 4, alpha: 2}\n- {<<: *one, rank: 5}\n"
    made = validated(Training, parse_config(text, "x"))
    assert [(entry.rank, entry.alpha) for entry in made.grid] == [(4, 2), (5, 2)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "line 1, column 5"),
        ("a: 1\n b: 2\n", "line 2"),
        ("a: &a [*a]", "not readable as YAML"),
        ("", "holds nothing"),
        ("- 1", "holds list"),
    ],
)
def test_what_is_no_mapping_is_refused(text: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        validated(Training, parse_config(text, "x.yaml"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none.yaml cannot be read: No such file"):
        read_config(tmp_path / "none.yaml", Training)
