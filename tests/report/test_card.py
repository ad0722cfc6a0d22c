"""Report cards of real fine-tunes: full, LoRA and chat, quick and whole."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from report_world import Made, World, asked_of, make_card

from sftknow_eval.errors import OtherBase, SettingsError
from sftknow_eval.evaluation.facts_file import read_outcomes
from sftknow_eval.report.asked import Asked
from sftknow_eval.report.card import CardRequest, labels, report_card


def test_all_parts_of_all_models_are_there(made: Made) -> None:
    assert made.json["format"] == "sftknow-report/1"
    natures = {model["nature"] for model in made.json["models"]}
    assert natures == {"full fine-tune", "LoRA adapter"}
    for model in made.json["models"]:
        assert model["missing"] == {}
        assert model["base_from"] == "as given"
        assert set(model["restoration"]["sweeps"]) == {"dev", "test"}
        assert model["weights"]["changed"] > 0
        assert model["token_drift"]["format"] == "sftknow-token-drift/1"


def test_counts_are_those_of_the_evaluations(made: Made) -> None:
    for model in made.json["models"]:
        folder = made.out / "models" / model["label"] / "evaluation"
        base = {o.fact_id: o.recalled for o in read_outcomes(folder, "base")}
        tuned = read_outcomes(folder, "finetuned")
        lost = sum(base[o.fact_id] and not o.recalled for o in tuned)
        assert (model["lost"]["known"], model["lost"]["lost"]) == (sum(base.values()), lost)


def test_an_adapter_is_asked_as_its_merged_model_and_the_merge_is_not_kept(made: Made) -> None:
    adapter = next(m for m in made.json["models"] if m["nature"] == "LoRA adapter")
    assert not (made.out / "models" / adapter["label"] / "merged").exists()
    assert adapter["results"]["finetuned"]["style"] == "paper"


def test_models_are_paired_with_the_base_and_with_the_first(made: Made) -> None:
    labels_ = [model["label"] for model in made.json["models"]]
    pairs = {(pair["run"], pair["against"]) for pair in made.json["comparison"]["pairs"]}
    assert pairs == {
        *((label, "base") for label in labels_),
        *((label, labels_[0]) for label in labels_[1:]),
    }


def test_page_and_markdown_begin_with_the_finding(made: Made) -> None:
    first = made.json["summary"][0]
    assert first.startswith("Of 3 fine-tunes, ")
    assert first in made.markdown.splitlines()
    assert f'<p class="lead">{first}</p>' in made.html


def test_examples_show_question_answer_and_both_outputs(made: Made, world: World) -> None:
    assert "the base completed" in made.html
    lost = [line for line in made.markdown.splitlines() if re.match(r"\*\*\S+, lost: ", line)]
    assert len(lost) == 3 or "no fact was lost" in made.markdown


def test_regions_have_names_of_their_own(made: Made) -> None:
    # WCAG's landmarks: tables are named by their captions, drawings by their titles.
    names = re.findall(r"<caption[^>]*><span>(.*?)</span>", made.html)
    names += re.findall(r'role="region" aria-label="(.*?)"', made.html)
    assert len(names) > 20
    assert [name for name in names if names.count(name) > 1] == []


def test_the_same_report_again_measures_nothing_anew(
    made: Made, request_of_all: CardRequest
) -> None:
    again = make_card(request_of_all, made.out)
    assert [line for line in again.progress if line != "Comparing"] == []
    assert again.json == made.json
    assert again.html == made.html


def test_a_chat_model_of_a_third_party(world: World, chat_model: Path, tmp_path: Path) -> None:
    asked = Asked(mastery=str(world.table), data=str(world.data), backend="hf")
    request = CardRequest(
        asked=asked, finetuned=(str(chat_model),), without=frozenset({"tokens", "restoration"})
    )
    found = make_card(request, tmp_path / "report").json
    (model,) = found["models"]
    assert (found["base"]["name"], model["base_from"]) == (str(world.base), "model card")
    assert model["results"]["finetuned"]["style"] == "chat"
    assert model["results"]["finetuned"]["style_from"] == "chat template"
    assert model["missing"] == {
        "token_drift": "left out by --without tokens",
        "restoration": "left out by --without restoration",
    }


def test_a_quick_look_says_how_wide_it_makes_the_intervals(world: World, tmp_path: Path) -> None:
    request = CardRequest(
        asked=asked_of(world, quick=40),
        finetuned=(str(world.finetuned),),
        ratios=(0.0, 20.0),
        without=frozenset({"tokens", "weights"}),
    )
    found = make_card(request, tmp_path / "report")
    assert found.json["panel"]["test"]["facts"] == 40
    assert "as estimated for the whole split" in found.json["summary"][0]
    table = next(line for line in found.markdown.splitlines() if "half-width" in line)
    assert "half-width with all" in table
    # A panel of the dev facts chose the ratio.
    assert found.json["panel"]["dev"]["facts"] == 40


def test_a_part_that_fails_is_missing_with_its_reason(world: World, tmp_path: Path) -> None:
    # Without dev facts no ratio can be chosen; all else is still reported.
    data = tmp_path / "data"
    shutil.copytree(world.data, data, ignore=shutil.ignore_patterns("base"))
    shutil.rmtree(data / "dataset/dev")
    asked = Asked(base=str(world.base), mastery=str(world.table), data=str(data), backend="hf")
    request = CardRequest(
        asked=asked,
        finetuned=(str(world.finetuned),),
        ratios=(0.0, 20.0),
        without=frozenset({"tokens", "weights"}),
    )
    found = make_card(request, tmp_path / "report")
    (model,) = found.json["models"]
    assert model["restoration"] is None
    assert "dev" in model["missing"]["restoration"]
    assert "The restoration is missing: " in found.html
    assert model["lost"]["known"] > 0


def test_fine_tunes_of_different_bases_are_refused(
    world: World, other_base: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other-tuned"
    shutil.copytree(other_base, other)
    (other / "README.md").write_text(f"---\nbase_model: {other_base}\n---\n")
    asked = Asked(mastery=str(world.table), data=str(world.data), backend="hf")
    request = CardRequest(asked=asked, finetuned=(str(world.finetuned), str(other)))
    with pytest.raises(OtherBase, match="have different bases"):
        report_card(request, tmp_path / "report")


def test_labels_are_short_and_unique(tmp_path: Path) -> None:
    there = ("a/tuned", "b/tuned", "c/base", "run-7/model")
    for name in there:
        (tmp_path / name).mkdir(parents=True)
    names = [str(tmp_path / name) for name in there]
    assert list(labels([*names, "org/model"]).values()) == [
        *("tuned-1", "tuned-2", "base-3", "run-7", "org--model"),
    ]
    with pytest.raises(SettingsError, match="given twice"):
        labels([names[0], names[0]])


def test_an_unknown_part_is_refused(world: World) -> None:
    with pytest.raises(SettingsError, match="the parts are tokens, weights, restoration"):
        CardRequest(asked=asked_of(world), finetuned=("x",), without=frozenset({"facts"}))
