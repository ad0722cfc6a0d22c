"""Hostile submissions, texts and names: each is refused with its reason.

Expected reasons are written down here from the rules in docs/leaderboard.md.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from board_making import OTHER, RANDOM, RESTORED, ROW
from forging import (
    edit,
    reasons_for,
    row_folder,
    set_in,
)

from sftknow_eval.leaderboard.site.build import build
from sftknow_eval.leaderboard.verify import verify

TEXTS = ("title", "summary", "training_data.declaration", "sftknow", "seeds.0.weights.name")
MARKUP = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "&#60;b&#62;",
    "</td></tr>",
)


@pytest.mark.parametrize("place", TEXTS)
@pytest.mark.parametrize("text", MARKUP)
def test_markup_is_refused_in_every_text(board_copy: Path, place: str, text: str) -> None:
    set_in(row_folder(board_copy), place, text)

    assert "holds markup" in reasons_for(board_copy)


@pytest.mark.parametrize("place", ["strategy", "run", "base.id", "asking.backend", "asking.dtype"])
@pytest.mark.parametrize("name", ["<b>", "a b", "../../etc", "a/b", "..", "a\x00b", "A", "", "é"])
def test_names_are_plain(board_copy: Path, place: str, name: str) -> None:
    set_in(row_folder(board_copy), place, name)

    assert place in reasons_for(board_copy)


@pytest.mark.parametrize(
    "text",
    [
        "javascript:alert(1)",
        "http://example.org",
        "https://example.org/<script>",
        "mail me",
        "a@b@c",
        "",
    ],
)
def test_a_contact_is_an_address(board_copy: Path, text: str) -> None:
    set_in(row_folder(board_copy), "contact", text)

    assert "contact" in reasons_for(board_copy)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("best \u202egnp.exe", "invisible character U\\+202E"),
        ("zero\u200bwidth", "invisible character U\\+200B"),
        ("bell\x07", "invisible character U\\+0007"),
        ("l\u043er\u0430 tuning", "mixes cyrillic and latin"),
        ("\u03b1lpha run", "mixes greek and latin"),
        ("\uff4c\uff4f\uff52\uff41", "stand for others"),
        ("\ufb01ne-tune", "stand for others"),
        ("line\u2028break", "line separator"),
    ],
)
def test_lookalike_and_invisible_characters_are_refused(
    board_copy: Path, text: str, why: str
) -> None:
    import re

    set_in(row_folder(board_copy), "title", text)

    assert re.search(why, reasons_for(board_copy))


def test_texts_in_one_script_are_welcome(board_copy: Path) -> None:
    for text in ("Тонкая настройка", "微調整 LoRA", "Réglage fin, β = 0.98"):
        set_in(row_folder(board_copy), "title", text)
        assert {v.path: v.status for v in verify(board_copy)}[ROW] == "recomputed", text


@pytest.mark.parametrize("name", ["bett-er", "be_tter", "b.etter"])
def test_a_name_that_looks_like_another_is_refused(board_copy: Path, name: str) -> None:
    folder = row_folder(board_copy).with_name(name)
    row_folder(board_copy).rename(folder)
    edit(folder, lambda m: m.update(run=name, created="2199-01-01"))
    for restored in (RESTORED, RANDOM):  # their recipes were made for this row's weights
        shutil.rmtree(row_folder(board_copy, restored))

    reasons = reasons_for(board_copy, f"1/the-base/sft_divided/{name}")

    assert "looks like 'better'" in reasons


@pytest.mark.parametrize("name", ["sft_dlvlded", "sft-divided", "sft_d1v1ded"])
def test_a_strategy_that_looks_like_another_is_refused(board_copy: Path, name: str) -> None:
    folder = board_copy / "submissions/1/the-base" / name / "better"
    folder.parent.mkdir()
    row_folder(board_copy, OTHER).rename(folder)

    def rename(manifest: dict[str, Any]) -> None:
        manifest |= {"strategy": name, "created": "2199-01-01"}
        manifest |= {"track": "checkpoint", "config": None}

    edit(folder, rename)

    reasons = reasons_for(board_copy, f"1/the-base/{name}/better")

    assert f"its name '{name}' looks like 'sft_divided'" in reasons


NO_UNICODE = os.fsdecode(b"caf\xe9")


# Git holds any bytes in a name but a slash and zero.
@pytest.mark.parametrize("place", ["row", "file", "title", "base"])
def test_names_that_are_no_unicode_keep_no_other_row_from_the_site(
    board_copy: Path, tmp_path: Path, place: str
) -> None:
    folder = row_folder(board_copy)
    if place == "row":
        shutil.copytree(folder, folder.with_name(NO_UNICODE))
    elif place == "file":
        (folder / NO_UNICODE).write_bytes(b"")
    elif place == "title":
        set_in(folder, "title", "half a pair")
        manifest = folder / "manifest.json"
        manifest.write_text(manifest.read_text().replace("half a pair", r"\ud800"))
    else:
        shutil.copytree(board_copy / "mastery/the-base", board_copy / "mastery" / NO_UNICODE)

    built = [build(board_copy, tmp_path / "site").board for _ in range(2)]
    verdicts = [verdict for verdict in verify(board_copy) if verdict.reasons]

    assert {row.id for row in built[0].rows().values()} >= {OTHER, RESTORED, RANDOM}
    assert built[0].refused == built[1].refused
    assert len(verdicts) == 1
    for text in (verdicts[0].path, *verdicts[0].reasons):
        text.encode()
