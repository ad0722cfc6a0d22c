"""How large a study's parts are: facts by stratum, weights of the base; for the estimates."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sftknow_eval.artifacts import read_json
from sftknow_eval.errors import SftknowError
from sftknow_eval.models import locate_model, safetensors_header
from sftknow_eval.study.config import Base
from sftknow_eval.study.step import INSIDE

if TYPE_CHECKING:
    from sftknow_eval.study.plan import Plan

# EntityQuestions after the paper's filter (its appendix; `sftknow facts` counts them again).
_ENTITY_QUESTIONS = {"train": 75_944, "dev": 9_580, "test": 9_555 + 11_613}
_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}


@dataclass(frozen=True, slots=True)
class Size:
    """Of one base and its facts.

    Attributes:
        facts: number by split.
        train: in-domain training facts by stratum; None where only a probe will tell.
        parameters: of the base; None where nothing says it.
        source: where the numbers come from, in words.
    """

    facts: dict[str, int]
    train: tuple[int, ...] | None
    parameters: float | None
    source: str

    def trained(self, stratum: object, n: object) -> int | None:
        """Return how many facts a run trains on; None where its stratum is too small."""
        if self.train is None:
            there = self.facts["train"] if stratum == "all" else self.facts["train"] // 5
            return there if n == "all" else int(str(n))
        there = sum(self.train) if stratum == "all" else self.train[int(str(stratum))]
        wanted = there if n == "all" else int(str(n))
        return wanted if 0 < wanted <= there else None


def size_of(plan: Plan, root: Path | None, base: Base) -> Size:
    """Return the size of a base and its facts, by the best source there is."""
    places = plan.places[base.id]
    parameters = base.parameters or _parameters(root, places.base)
    table = _table(root, places.mastery)
    if table is not None:
        facts, train = table
        return Size(facts, train, parameters, "the mastery table")
    if base.world:
        from sftknow_eval.world.settings import world_settings

        made = world_settings(base.world.size, base.world.seed)
        counts = zip(("train", "dev", "test"), made.id_facts, made.ood_facts, strict=True)
        facts = {
            split: known * made.id_relations
            + (other * made.ood_relations if split == "test" else 0)
            for split, known, other in counts
        }
        width = made.vocabulary * made.hidden * 2
        layers = made.layers * (4 * made.hidden**2 + 3 * made.hidden * made.mlp)
        return Size(facts, None, parameters or float(width + layers), "the world's settings")
    if base.like:
        return Size(dict(_ENTITY_QUESTIONS), _paper(base.like), parameters, "the paper's counts")
    return Size(dict(_ENTITY_QUESTIONS), None, parameters, "EntityQuestions, strata not known")


def _paper(name: str) -> tuple[int, ...] | None:
    """Return a model's counts of training facts by stratum, as the paper's Table 8 has them."""
    tables = read_json(Path(__file__).resolve().parents[1] / "data" / "paper_tables.json")
    counts = tables["strata_counts"].get(name)
    return tuple(counts["train"]) if counts else None


def _table(root: Path | None, mastery: str) -> tuple[dict[str, int], tuple[int, ...]] | None:
    path = Path(mastery)
    if mastery.startswith(INSIDE):
        if root is None:
            return None
        path = root / mastery.removeprefix(INSIDE)
    if not path.exists():
        return None
    from sftknow_eval.mastery.table import MasteryTable

    rows = MasteryTable.read(path).rows
    columns = (rows[name].to_pylist() for name in ("split", "domain", "stratum"))
    facts: Counter[str] = Counter()
    train: Counter[int] = Counter()
    for split, domain, stratum in zip(*columns, strict=True):
        facts[split] += 1
        train[stratum] += split == "train" and domain == "id"
    return dict.fromkeys(("train", "dev", "test"), 0) | facts, tuple(train[i] for i in range(5))


def _parameters(root: Path | None, model: str) -> float | None:
    if model.startswith(INSIDE):
        if root is None:
            return None
        model = str(root / model.removeprefix(INSIDE))
    if not Path(model).is_dir():
        return None  # estimates download nothing
    try:
        files = sorted(locate_model(model).glob("*.safetensors"))
        headers = [safetensors_header(file)[0] for file in files]
    except SftknowError:
        return None
    total = 0.0
    for header in headers:
        for entry in header.values():
            begin, end = entry["data_offsets"]
            total += (end - begin) / _BYTES.get(entry["dtype"], 2)
    return total or None
