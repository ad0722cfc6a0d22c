"""A study's folder, read: its runs, their scores and what was measured of them.

Suffixes: S seeds, F facts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sftknow_eval.artifacts import read_json
from sftknow_eval.errors import DataError

if TYPE_CHECKING:
    from sftknow_eval.evaluation.statistics import Difference, Panel

FORMAT = "sftknow-study/1"
PAPER = Path(__file__).parents[1] / "data" / "paper_tables.json"
Run = Mapping[str, Any]
PLAIN = "sft_divided"


@functools.lru_cache
def paper() -> dict[str, Any]:
    """Return the figures that the paper reports."""
    return dict(read_json(PAPER))


class Study:
    """A study's folder.

    Args:
        root: the folder that holds `study.json`.

    Raises:
        DataError: it holds no study of this format.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.record: dict[str, Any] = read_json(root / "study.json")
        if self.record.get("format") != FORMAT:
            raise DataError(
                f"{root / 'study.json'} has the format {self.record.get('format')!r}; expected "
                f"'{FORMAT}'. Run the study again with this version of sftknow."
            )
        self._verdicts: dict[str, np.ndarray] = {}
        self._panels: dict[str, Panel] = {}

    @property
    def bases(self) -> list[Mapping[str, Any]]:
        """The bases, the first being the main one."""
        return list(self.record["bases"])

    @property
    def main(self) -> str:
        """Id of the main base."""
        return str(self.bases[0]["id"])

    def runs(
        self, strategy: str | None = None, base: str | None = None, **wanted: Any
    ) -> list[Run]:
        """Return the finished runs of a strategy, by default on the main base."""
        wanted |= {"base": base or self.main, "status": "done"}
        wanted |= {"strategy": strategy} if strategy else {}
        return [r for r in self.record["runs"] if all(r[k] == v for k, v in wanted.items())]

    def not_done(self) -> list[Run]:
        """Return the runs that failed or were left out."""
        return [run for run in self.record["runs"] if run["status"] != "done"]

    @functools.cached_property
    def sizes(self) -> list[int]:
        """Numbers of facts that plain SFT of one stratum was trained on."""
        return sorted({r["n"] for r in self.runs(PLAIN) if isinstance(r["n"], int)})

    @property
    def strata(self) -> list[int]:
        """The strata that plain SFT was trained on."""
        return sorted({r["stratum"] for r in self.runs(PLAIN) if isinstance(r["stratum"], int)})

    @property
    def small(self) -> int | None:
        """The number of facts that stands for the paper's 240: there the peak lies."""
        if 240 in self.sizes[:-1]:
            return 240
        return (
            self.sizes[len(self.sizes) // 2 if len(self.sizes) > 2 else 0] if self.sizes else None
        )

    @property
    def large(self) -> int | None:
        """The number of facts that stands for the paper's 1,920: the most that were drawn."""
        if 1920 in self.sizes:
            return 1920
        return self.sizes[-1] if len(self.sizes) > 1 else None

    def file(self, run: Run, name: str, *parts: str) -> Any:
        """Return a JSON file of a run; None where it has none."""
        folder = run.get(name)
        if not folder:
            return None
        path = self.root.joinpath(folder, *parts)
        return read_json(path) if path.is_file() else None

    def scores(self, run: Run, split: str = "test") -> dict[str, Any] | None:
        """Return the scores of a run's evaluation, by domain."""
        folder = run["evaluation"].get(split)
        if not folder:
            return None
        return dict(read_json(self.root / folder / "results.json")["scores"]["finetuned"])

    @functools.cached_property
    def comparison(self) -> dict[str, Any]:
        """What the study's statistics hold; empty where they were not made."""
        name = self.record.get("comparison")
        return dict(read_json(self.root / name)) if name else {}

    def of(self, base: str) -> str:
        """Return a title's words for a base; none where there is only one."""
        (name,) = (entry["name"] for entry in self.bases if entry["id"] == base)
        return f", {name}" if len(self.bases) > 1 else ""

    def over_seeds(
        self, strategy: str, stratum: Any, n: Any, base: str | None = None
    ) -> Mapping[str, Any] | None:
        """Return the summary of a strategy's runs of one cell, by domain."""
        key = (strategy, base or self.main, stratum, n)
        for entry in self.comparison.get("seeds", ()):
            if (entry["strategy"], entry["base"], entry["stratum"], entry["n"]) == key:
                domains: Mapping[str, Any] = entry["summary"]["domains"]
                return domains
        return None

    def verdicts(self, folder: str, base: str) -> np.ndarray:
        """Return bool (F): the facts that a run got right, in the order of its base's panel."""
        import pyarrow.parquet as pq

        if folder not in self._verdicts:
            columns = ["fact_id", "finetuned_alias_acc"]
            table = pq.read_table(self.root / folder / "facts.parquet", columns=columns)
            ids = np.array(table["fact_id"].to_pylist())
            order = np.argsort(ids)
            if list(ids[order]) != list(self.panel(base).fact_ids):
                raise DataError(f"{self.root / folder} is not of the facts of the other runs.")
            right = np.array(table["finetuned_alias_acc"].to_pylist(), bool)
            self._verdicts[folder] = right[order]
        return self._verdicts[folder]

    def panel(self, base: str) -> Panel:
        """Return the test facts of a base."""
        from sftknow_eval.evaluation.facts_file import read_outcomes
        from sftknow_eval.evaluation.statistics import Panel

        if base not in self._panels:
            runs = [r for r in self.runs(base=base) if r["strategy"] != "base_again"]
            asked = next((r for r in runs if r["evaluation"].get("test")), None)
            if asked is None:
                raise DataError(f"{self.root} holds no evaluation on test facts of base '{base}'.")
            outcomes = read_outcomes(self.root / asked["evaluation"]["test"], "finetuned")
            self._panels[base] = Panel.of(outcomes)
        return self._panels[base]

    def difference(
        self,
        ones: Sequence[str],
        others: Sequence[str],
        domain: str = "id",
        base: str | None = None,
    ) -> Difference | None:
        """Return how far the runs in some folders differ from those in others.

        Args:
            ones: evaluation folders, a seed each.
            others: of what they are compared with.
            domain: of the facts.
            base: of both.
        """
        from sftknow_eval.evaluation.statistics import difference_over_seeds

        if not ones or not others:
            return None
        name = base or self.main
        panel = self.panel(name)
        inside = panel.domain_F == domain
        if not inside.any():
            return None
        one_SF, other_SF = (
            np.stack([self.verdicts(folder, name) for folder in folders])[:, inside]
            for folders in (ones, others)
        )
        groups = [panel.stratum_F[inside] == s for s in range(5)]
        return difference_over_seeds(one_SF, other_SF, groups, panel.cluster_F["subject"][inside])

    def folders(self, strategy: str, stratum: Any, n: Any) -> list[str]:
        """Return the test evaluations of a strategy's runs of one cell, a draw each."""
        runs = self.runs(strategy, stratum=stratum, n=n)
        return [r["evaluation"]["test"] for r in runs if r["evaluation"].get("test")]

    def swept(self, stratum: Any, n: Any, ratio: float) -> list[str]:
        """Return where the sweeps of a cell have a ratio's test answers, a draw each."""
        found = []
        for run in self.runs(PLAIN, stratum=stratum, n=n):
            sweep = self.file(run, "sweep", "test", "sweep.json")
            point = None if sweep is None else point_at(sweep, ratio)
            if point is not None:
                found.append(f"{run['sweep']}/test/ratio-{point['ratio']:g}")
        return found

    def first(self, stratum: Any, n: Any, read: Callable[[Run], Any]) -> Any:
        """Return what the first run of a cell that has it gives."""
        for run in self.runs(PLAIN, stratum=stratum, n=n):
            if (found := read(run)) is not None:
                return found
        return None


def point_at(sweep: Mapping[str, Any], ratio: float) -> Mapping[str, Any] | None:
    """Return a sweep's point, or the one that it is the same model as."""
    points = {point["ratio"]: point for point in sweep["points"]}
    point = points.get(ratio)
    if point is not None and point["same_as"] is not None:
        point = points.get(point["same_as"])
    return point
