"""The demo: a study like any other, and plain words about what it shows."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sftknow_eval.artifacts import read_json, write_json
from sftknow_eval.demo import demo_config, next_commands, summary


def test_every_size_of_the_demo_has_its_configuration() -> None:
    names = [demo_config(size).name for size in ("demo", "quick", "full")]
    assert names == ["demo.yaml", "demo-quick.yaml", "demo-full.yaml"]


def seeds(strategy: str, stratum: object, n: int, mean: float, spread: float = 0.02) -> Any:
    """A strategy's mean over draws on one stratum and n, with an interval of +- `spread`."""
    entry = {"mean": mean, "low": mean - spread, "high": mean + spread}
    return {
        "base": "base",
        "strategy": strategy,
        "stratum": stratum,
        "n": n,
        "summary": {"domains": {"id": {"mean": entry}, "ood": {"mean": entry}}},
    }


def run(stratum: int, n: int, **places: Any) -> dict[str, Any]:
    found = {"strategy": "sft_divided", "base": "base", "stratum": stratum, "n": n}
    return {**found, "kind": "training", "token_drift": None, "sweep": None, **places}


def study(
    root: Path, found: list[Any], runs: list[dict[str, Any]], report: str | None = None
) -> Path:
    """The files of a study from which the words are made."""
    write_json(root / "comparison.json", {"seeds": found})
    base = {"id": "base", "data": "world", "mastery": "probe/mastery.parquet", "path": "world/base"}
    index = {"bases": [base], "runs": runs, "comparison": "comparison.json", "report": report}
    write_json(root / "study.json", index)
    return root


def words(root: Path) -> str:
    return "\n".join(summary(root))


def test_the_summary_gives_the_course_over_the_number_of_facts(tmp_path: Path) -> None:
    found = [seeds("sft_divided", 0, 60, 0.40), seeds("sft_divided", 0, 240, 0.35)]
    text = words(study(tmp_path, found, []))
    assert "for 60 and 240 facts; stratum 0: 40.0%, 35.0%" in text


def test_the_summary_takes_the_verdicts_from_the_report(tmp_path: Path) -> None:
    effects = [{"verdict": verdict} for verdict in ("shown", "cannot tell", "shown")]
    finding = {"claim": "Restoring helps", "effects": effects}
    write_json(tmp_path / "report" / "report.json", {"findings": [finding]})
    text = words(study(tmp_path, [], [], report="report/index.html"))
    assert "- Restoring helps: cannot tell 1, shown 2" in text.splitlines()


def test_the_summary_names_the_best_and_the_worst_stratum(tmp_path: Path) -> None:
    found = [seeds("sft_divided", s, 240, mean) for s, mean in ((0, 0.3), (2, 0.41), (4, 0.4))]
    text = words(study(tmp_path, found, []))
    assert "at 240 facts, it moves by 11.0 points; stratum 0 is worst, stratum 2 best" in text


def test_the_summary_gives_the_course_of_the_token_drift(tmp_path: Path) -> None:
    runs = []
    for n, drift in ((60, 0.5), (240, 0.25)):
        write_json(
            tmp_path / str(n) / "token_drift.json", {"overall": {"kl_top10": {"mean": drift}}}
        )
        runs.append(run(0, n, token_drift=str(n)))
    assert "it only falls: 0.500 at 60, 0.250 at 240 facts, in nats" in words(
        study(tmp_path, [], runs)
    )


def test_the_summary_says_what_restoring_brought_back(tmp_path: Path) -> None:
    def point(ratio: float, value: float) -> dict[str, Any]:
        scores = {"id": {"alias_acc": {"mean": {"value": value}}}}
        return {"ratio": ratio, "same_as": None, "scores": scores}

    # 60% gave the same model as 20%: every changed weight was back.
    points = [point(0.0, 0.3), point(20.0, 0.35), {"ratio": 60.0, "same_as": 20.0}]
    write_json(tmp_path / "sweep" / "test" / "sweep.json", {"points": points})
    text = words(study(tmp_path, [], [run(0, 240, sweep="sweep", chosen_ratio=20.0)]))
    assert "stratum 0: 30.0%, 35.0%, 35.0% (chosen on dev: 20%)" in text


def test_the_summary_orders_the_strategies_each_on_its_best_stratum(tmp_path: Path) -> None:
    found = [
        seeds("sft_divided", 0, 240, 0.30),
        seeds("sft_divided", 2, 240, 0.44),
        seeds("lora", 2, 240, 0.41),
        seeds("restoration", 2, 240, 0.46),
        seeds("format_only", 4, 60, 0.99),
    ]
    text = words(study(tmp_path, found, []))
    assert "restoration 46.0% and 46.0%; sft_divided 44.0% and 44.0%; lora 41.0% and 41.0%" in text
    assert "99.0%" not in text
    assert "no evidence about large models" in text


def test_commands_are_what_a_shell_would_take(tmp_path: Path) -> None:
    root = study(tmp_path / "an out", [], [run(0, 240, model="runs/one/model")])
    typed = [command for _, command in next_commands(root)]
    assert str(root / "world" / "base") in shlex.split(typed[2])
    assert any(
        command.startswith("lm_eval --model hf --model_args pretrained=") for command in typed
    )


@pytest.fixture
def small_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The quick demo on the tiny world, in a checkout of its own."""
    config = demo_config("quick").read_text()
    for size, tiny in (("size: demo", "size: tiny"), ("n: [240]", "n: [24]")):
        assert size in config
        config = config.replace(size, tiny)
    path = tmp_path / "quick.yaml"
    path.write_text(config)
    return path


@pytest.mark.timeout(900)
def test_a_quick_look_ends_with_a_report_a_board_and_words(
    small_demo: Path, tmp_path: Path
) -> None:
    call = (
        "import sys; from pathlib import Path; import sftknow_eval.demo as demo\n"
        f"demo.demo_config = lambda size: Path({str(small_demo)!r})\n"
        "sys.argv = ['sftknow', 'demo', '--quick', '--out', 'look']\n"
        "from sftknow_eval.cli.app import main; main()"
    )
    command = [sys.executable, "-c", call]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "$ sftknow study quick.yaml --out look" in first.stdout
    assert first.stdout.rstrip().endswith("Board: look/board/site/index.html")
    index = read_json(tmp_path / "look" / "study.json")
    assert index["finished"]
    for page in (index["report"], index["board"]):
        assert (tmp_path / "look" / page).is_file()
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "steps were finished before" in second.stdout
    # The same words from the same results.
    assert second.stdout.partition("What is seen")[2] == first.stdout.partition("What is seen")[2]
