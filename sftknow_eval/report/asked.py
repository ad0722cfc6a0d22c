"""What is asked of a report or a gate, and the facts that this means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftknow_eval.artifacts import atomic_path
from sftknow_eval.errors import SettingsError
from sftknow_eval.mastery.backends import Backend
from sftknow_eval.report.panel import Panel, draw_panel

if TYPE_CHECKING:
    from sftknow_eval.evaluation.prompts import Style
    from sftknow_eval.mastery.dataset import Dataset
    from sftknow_eval.mastery.facts import Fact, Split
    from sftknow_eval.mastery.table import MasteryTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How models are to be examined.

    Attributes:
        base: folder or hub id; None to take what the fine-tune states.
        mastery: the base's mastery table; None to look for it by the base's weights.
        data: the facts; None for what the fine-tune's training record says, else EntityQuestions.
        split: of the facts asked.
        quick: how many facts to ask in place of the whole split; None for all.
        style: prompt style; None for what each fine-tune was made for.
    """

    base: str | None = None
    mastery: str | None = None
    data: str | None = None
    split: Split = "test"
    quick: int | None = None
    style: Style | None = None
    backend: Backend = "hf"
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    batch_size: str | None = None


@dataclass(frozen=True, slots=True)
class Material:
    """The facts and the mastery table that go with a base.

    Attributes:
        data: name or path of the data, as the tasks take it; None for EntityQuestions.
    """

    table: MasteryTable
    dataset: Dataset
    data: str | None
    mastery: str | None

    def facts(self, split: Split) -> list[Fact]:
        """Return the facts of a split."""
        return self.dataset.probe_facts(splits=(split,))

    def panel(self, split: Split, n: int) -> Panel:
        """Return a panel of a split."""
        facts = self.facts(split)
        return draw_panel(facts, self.table.strata_of(facts), n)

    def metadata(self) -> dict[str, str]:
        """Return what the tasks need to find the same facts and the same table."""
        named = {"data": self.data, "mastery": self.mastery}
        return {name: value for name, value in named.items() if value is not None}


def material_for(asked: Asked, base: str, fingerprint: str, finetuned: str) -> Material:
    """Return the mastery table of a base, and the facts.

    Raises:
        MasteryError: there is no table, or it is of another base.
        DataError: the facts cannot be read.
    """
    from sftknow_eval.evaluation.settings import read_settings
    from sftknow_eval.mastery.dataset import open_dataset
    from sftknow_eval.mastery.find import find_mastery

    table = find_mastery(explicit=asked.mastery, base=base)
    table.check_base(fingerprint)
    named = {"pretrained": finetuned, **({"data": asked.data} if asked.data else {})}
    data = read_settings(named).data
    return Material(table, open_dataset(data), data, asked.mastery)


def selection(panel: Panel | None, split: Split, folder: Path) -> dict[str, str]:
    """Return what selects the facts in the tasks' metadata: a split, or a file of the panel."""
    if panel is None:
        return {"split": split}
    path = folder / f"panel-{split}.txt"
    with atomic_path(path) as partial:
        partial.write_text("\n".join(panel.ids) + "\n", encoding="utf-8")
    return {"facts": str(path)}


def share_of(text: str, option: str) -> float:
    """Read `2%` or `0.02` as a share.

    Raises:
        SettingsError: it is neither.
    """
    number, sign, rest = text.strip().partition("%")
    try:
        value = float(number) / (100 if sign else 1)
    except ValueError:
        value = -1.0
    if rest or not 0 <= value < 1:
        raise SettingsError(
            f"{option} {text!r}: expected percent such as 2%, or a share below 1 such as 0.02."
        )
    return value
