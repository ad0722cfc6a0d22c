"""`sftknow gate` on real models: exit codes 0, 1 and 2, and what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_calls import Sftknow
from report_world import World

from sftknow_eval.errors import SettingsError
from sftknow_eval.report.asked import share_of


@pytest.fixture
def sftknow(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Sftknow:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    return Sftknow(monkeypatch, capsys)


def _gate(world: World, *more: object) -> tuple[object, ...]:
    fixed = ("--mastery", world.table, "--data", world.data, "--backend", "hf")
    return ("gate", world.base, *more, *fixed)


def test_more_lost_than_allowed_is_exit_code_1(world: World, sftknow: Sftknow) -> None:
    done = sftknow(*_gate(world, world.finetuned, "--max-lost", "0%", "--json"))
    found = json.loads(done.out)
    # The tiny world's fine-tune loses some of what its base knows; the numbers are its own.
    assert found["lost"]["lost"] > 0
    assert found["lost"]["low"] > 0
    assert (done.code, found["verdict"], found["exit_code"]) == (1, "failed", 1)


def test_no_more_lost_than_allowed_is_exit_code_0(world: World, sftknow: Sftknow) -> None:
    done = sftknow(*_gate(world, world.finetuned, "--max-lost", "95%"))
    assert done.code == 0
    assert "Gate passed." in done.out


def test_too_few_facts_to_tell_passes_and_says_so(world: World, sftknow: Sftknow) -> None:
    # Of stratum 4 the base knows few facts, so that 10% cannot be told from less or more.
    done = sftknow(
        *_gate(world, world.finetuned, "--max-lost", "3%", "--stratum", "4", "--quick", "30")
    )
    assert done.code == 0
    assert "too few facts to tell" in done.out
    assert "Ask more facts" in done.out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--max-lost", "2"), "expected percent such as 2%"),
        (("--max-lost", "2%", "--stratum", "7"), "the strata of mastery are 0 to 4"),
        (("--max-lost", "2%", "--quick", "2"), "at least 10 facts"),
    ],
)
def test_what_cannot_be_done_is_exit_code_2(
    world: World, sftknow: Sftknow, more: tuple[str, ...], said: str
) -> None:
    done = sftknow(*_gate(world, world.finetuned, *more))
    assert done.code == 2
    assert said in done.err


def test_a_fine_tune_of_another_base_is_exit_code_2(
    world: World, other_base: Path, sftknow: Sftknow
) -> None:
    done = sftknow(
        "gate", other_base, world.finetuned, "--max-lost", "2%", "--mastery", world.table
    )
    assert done.code == 2
    assert "was made from another base" in done.err


def test_an_adapter_and_its_own_base(world: World, sftknow: Sftknow) -> None:
    done = sftknow(
        *_gate(world, world.adapter, "--max-lost", "99%", "--json")[:1],
        world.adapter,
        "--max-lost",
        "99%",
        "--json",
        "--mastery",
        world.table,
        "--backend",
        "hf",
    )
    assert done.code == 0
    assert json.loads(done.out)["base"]["from"] == "training record"


def test_ci_prints_plain_lines_and_an_annotation_on_github(
    world: World, sftknow: Sftknow, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = _gate(world, world.finetuned, "--max-lost", "0%", "--ci")
    plain = sftknow(*call)
    assert plain.out.startswith("gate: failed\n")
    assert "\x1b" not in plain.out
    assert "::" not in plain.out
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    lines = sftknow(*call).out.splitlines()
    annotation = next(line for line in lines if line.startswith("::"))
    assert annotation.startswith("::error title=sftknow gate: failed::")
    # Percent signs are escaped, as workflow commands want it.
    assert "%" not in annotation.replace("%25", "")


@pytest.mark.parametrize(
    ("text", "value"), [("2%", 0.02), ("0.02", 0.02), ("0", 0.0), (" 5 %", 0.05)]
)
def test_shares_are_read(text: str, value: float) -> None:
    assert share_of(text, "--max-lost") == pytest.approx(value)


@pytest.mark.parametrize("text", ["2", "-1%", "100%", "two", "2%%", "nan", ""])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="--max-lost"):
        share_of(text, "--max-lost")
