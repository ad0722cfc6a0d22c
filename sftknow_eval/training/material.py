"""What a model is trained on: facts that a strategy draws, or rows of any other task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftknow_eval.artifacts import digest
from sftknow_eval.errors import DataError, TooFewFacts
from sftknow_eval.mastery.dataset import Dataset
from sftknow_eval.mastery.facts import Fact
from sftknow_eval.mastery.table import MasteryTable
from sftknow_eval.training.draw import All, Ask, Pool, load_draw
from sftknow_eval.training.encode import encode_fact, encode_pair
from sftknow_eval.training.strategy import Strategy

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt of another task and what is to follow it.

    Attributes:
        number: its line in the file, from 1.
    """

    number: int
    prompt: str
    target: str


@dataclass(frozen=True, slots=True)
class Material:
    """What is trained on, and what the record says of it."""

    items: Sequence[Fact] | Sequence[Row]
    recorded: Mapping[str, Any]

    def encoded(self, tokenizer: Any) -> list[dict[str, list[int]]]:
        """Return every item as `input_ids` and `labels`.

        Raises:
            ModelError: the tokenizer has no usable end-of-sequence token.
        """
        return [
            encode_fact(tokenizer, item)
            if isinstance(item, Fact)
            else encode_pair(tokenizer, item.prompt, item.target, f"line {item.number}")
            for item in self.items
        ]


def drawn_facts(
    strategy: Strategy,
    dataset: Dataset,
    table: MasteryTable,
    ask: Ask,
) -> Material:
    """Return the facts that the strategy draws.

    Raises:
        TooFewFacts: there are fewer than asked for.
        MasteryError: the table belongs to other facts.
    """
    draw = load_draw(strategy.facts.draw)
    drawn = draw(Pool(dataset, table), ask, **strategy.facts.options)
    facts = drawn.facts
    return Material(
        facts,
        {
            "mastery_digest": _mastery_digest(table),
            "data": dataset.name,
            "data_source": full_path(dataset.source),
            "facts_digest": hashlib.sha256(b"".join(fact.digest() for fact in facts)).hexdigest(),
            "stratum": ask.stratum,
            "fact_ids": tuple(fact.id for fact in facts),
            "drawn": {part: len(chosen) for part, chosen in drawn.parts.items()},
        },
    )


def drawn_rows(path: Path, n: int | All, seed: int) -> Material:
    """Return `n` rows of a file, chosen by a seed: fewer are the beginning of more.

    Raises:
        DataError: the file cannot be read, or lines are no rows; they are listed.
        TooFewFacts: there are fewer than asked for.
    """
    rows = read_rows(path)
    wanted = len(rows) if n == "all" else n
    if wanted > len(rows):
        raise TooFewFacts(f"{wanted} rows were asked for, but {path} holds {len(rows)}.")
    chosen = sorted(rows, key=lambda row: digest([seed, row.number, row.prompt]))[:wanted]
    return Material(
        chosen,
        {
            "prompt": "own",
            "mastery_digest": None,
            "data": path.stem,
            "data_source": full_path(str(path)),
            "facts_digest": digest([[row.prompt, row.target] for row in chosen]),
            "stratum": None,
            "fact_ids": tuple(str(row.number) for row in chosen),
            "drawn": {"rows": len(chosen)},
        },
    )


def read_rows(path: Path) -> list[Row]:
    r"""Read prompts and targets: one JSON object a line, `{"prompt": TEXT, "target": TEXT}`.

    Both are used as they are: what is to stand between them belongs to one of them.

    Raises:
        DataError: the file cannot be read, or lines are no rows; they are listed.
    """
    try:
        # Not splitlines: a JSON text may hold what that takes for the end of a line.
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"The rows in {path} cannot be read: {error}") from error
    rows, faults = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = _row(number, line)
        if isinstance(row, Row):
            rows.append(row)
        else:
            faults.append(f"line {number}: {row}")
    if faults or not rows:
        listed = "\n".join(f"  {fault}" for fault in faults[:_SHOWN]) or "  it is empty"
        more = f"\n  and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise DataError(
            f"{path} does not hold rows to train on:\n{listed}{more}\n"
            'A row is {"prompt": TEXT, "target": TEXT}, one a line.'
        )
    return rows


def _row(number: int, line: str) -> Row | str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"is not JSON ({error})"
    if not isinstance(value, dict):
        return "is not an object"
    for name in ("prompt", "target"):
        if not isinstance(value.get(name), str) or not value[name].strip():
            return f"'{name}' is missing, empty or no text"
    return Row(number, value["prompt"], value["target"])


def full_path(source: str) -> str:
    """Return the full path of a file or folder, as others may run elsewhere; else the name."""
    path = Path(source)
    return str(path.resolve()) if path.exists() else source


def _mastery_digest(table: MasteryTable) -> str:
    columns = (table.rows[name].to_pylist() for name in ("fact_id", "n_correct", "n_samples"))
    return digest([table.meta.fingerprint, sorted(zip(*columns, strict=True))])
