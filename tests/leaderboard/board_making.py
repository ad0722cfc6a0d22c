"""Results as `sftknow eval` writes them, of models that were never asked: the numbers are drawn.

The files are real (weights, tokenizer, records, recipes, Parquet), so that submitting, verifying
and ranking run as they do for anybody; only the answers are chosen, so that tests know them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from sftknow_eval.artifacts import write_json
from sftknow_eval.evaluation.facts_file import write_facts
from sftknow_eval.evaluation.prompts import question_prompt
from sftknow_eval.evaluation.results import Outcome
from sftknow_eval.evaluation.summary import summary_of
from sftknow_eval.leaderboard.intake import Naming, submit
from sftknow_eval.leaderboard.submit import Declaration
from sftknow_eval.mastery.dataset import open_dataset
from sftknow_eval.mastery.facts import Fact
from sftknow_eval.mastery.table import MasteryTable, TableMeta, pack_verdicts
from sftknow_eval.mastery.templates import load_templates
from sftknow_eval.models import weight_fingerprint
from sftknow_eval.record import RECORD_NAME, TrainingRecord
from sftknow_eval.training.strategy import load_strategy

ROW = "1/the-base/sft_divided/s0-n24"
OTHER = "1/the-base/sft_divided/better"
RESTORED = "1/the-base/restoration/s0-n24"
RANDOM = "1/the-base/random_restoration/s0-n24"

SAMPLES = 4
SUBJECTS = 60
DECLARATION = Declaration(
    contact="ada@example.org", licence="CC0-1.0", training_data="train facts of the board world"
)
# Label, domain, question and templates.
RELATIONS = {
    "P19": (
        *("place of birth", "id", "Where was {subject} born?"),
        *("{subject} was born in", "The birthplace of {subject} is"),
    ),
    "P20": (
        *("place of death", "id", "Where did {subject} die?"),
        *("{subject} died in", "The death of {subject} occurred in"),
    ),
    "P106": (
        *("occupation", "ood", "What kind of work does {subject} do?"),
        *("The occupation of {subject} is", "{subject} worked as a"),
    ),
}
CITIES = ("Aum", "Bresk", "Corvin", "Delm", "Éstry", "Fenn")


def board_data(root: Path, leave_out: Sequence[str] = ()) -> Path:
    """Write a data set of two ID relations and one OOD, 60 facts each a split."""
    relations = {name: text for name, text in RELATIONS.items() if name not in leave_out}
    rng = np.random.default_rng(1)
    for split in ("train", "dev", "test"):
        folder = root / "dataset" / split
        folder.mkdir(parents=True)
        for relation, (_, _, question, *_) in relations.items():
            answers = ("painter", "miller") if relation == "P106" else CITIES
            rows = [
                {
                    "question": question.format(subject=f"{split.title()}us Nº{i // 2}{relation}"),
                    "answers": [answers[rng.integers(len(answers))]],
                }
                for i in range(0, 2 * SUBJECTS, 2)
            ]
            path = folder / f"{relation}.{split}.json"
            path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    keys = ("label", "domain", "question")
    described = {name: dict(zip(keys, text, strict=False)) for name, text in relations.items()}
    templates = {name: text[len(keys) :] for name, text in relations.items()}
    (root / "relations.yaml").write_text(json.dumps(described))
    (root / "templates.yaml").write_text(json.dumps(templates))
    (root / "aliases.json").write_text(json.dumps({"Aum": ["Aumville"], "Éstry": ["Estria"]}))
    return root


def mastery_table(data: Path, base: Path, path: Path) -> MasteryTable:
    """Write a table in which every stratum of both domains holds facts."""
    dataset = open_dataset(data)
    facts = dataset.probe_facts()
    templates = load_templates(dataset.templates_file, dataset.relations.values())
    verdicts = np.zeros((len(facts), templates.count, SAMPLES), bool)
    for place, row in enumerate(verdicts):
        row.reshape(-1)[: (0, 2, 4, 6, 8)[place % 5]] = True
    meta = TableMeta(
        base=str(base),
        revision=None,
        fingerprint=weight_fingerprint(base),
        data=dataset.name,
        facts_digest="",
        templates_digest=templates.digest,
        n_templates=templates.count,
        samples_per_template=SAMPLES,
        temperature=0.7,
        max_tokens=32,
        seed=0,
    )
    table = MasteryTable.build(facts, pack_verdicts(verdicts), meta)
    table.write(path)
    return table


def changed_model(base: Path, out: Path, seed: int | Sequence[int]) -> Path:
    """Copy a model and add noise to its weights."""
    shutil.copytree(base, out)
    path = out / "model.safetensors"
    rng = np.random.default_rng(seed)
    tensors = load_file(path)
    changed = {
        name: (tensor + rng.normal(0, 0.01, tensor.shape)).astype(tensor.dtype)
        for name, tensor in sorted(tensors.items())
    }
    save_file(changed, path, metadata={"format": "pt"})
    return out


@dataclass(frozen=True)
class World:
    """A base with its data and table, ready for rows."""

    folder: Path
    data: Path
    base: Path
    table_file: Path
    table: MasteryTable

    @classmethod
    def make(cls, folder: Path, base: Path, leave_out: Sequence[str] = ()) -> World:
        """Write the data, without some relations, and the table; `base` is any model folder."""
        data = board_data(folder / "data", leave_out)
        file = folder / "mastery.parquet"
        return cls(folder, data, base, file, mastery_table(data, base, file))

    def facts(self) -> list[Fact]:
        """Return the test facts, by id."""
        return sorted(open_dataset(self.data).probe_facts(splits=("test",)), key=lambda f: f.id)

    def results(
        self,
        name: str,
        seed: int = 0,
        *,
        shares: Sequence[float] = (0.1, 0.3, 0.5, 0.7, 0.9),
        stratum: int = 0,
        n: int = 24,
        strategy: str = "sft_divided",
        model: Path | None = None,
        engine_args: Mapping[str, Any] | None = None,
        record: bool = True,
        style: str = "paper",
        domain: str | None = None,
    ) -> Path:
        """Write the results of a fine-tune that is right on the given share of each stratum."""
        out = self.folder / "results" / f"{name}-{seed}"
        model = model or changed_model(
            self.base, self.folder / "models" / f"{name}-{seed}", [seed, *name.encode()]
        )
        if record and not (model / RECORD_NAME).exists():
            self._record(model, seed, stratum, n, strategy)
        rng = np.random.default_rng([seed, len(name), *name.encode()])
        finetuned = self._outcomes(rng, shares, style)
        base = self._outcomes(np.random.default_rng(0), (0.02, 0.4, 0.6, 0.8, 1.0), "completion")
        finetuned, base = (
            [outcome for outcome in outcomes if domain in (None, outcome.domain)]
            for outcomes in (finetuned, base)
        )
        task = {
            "style": style,
            "split": "test",
            "mastery_base": str(self.base),
            "mastery_revision": None,
            "mastery_fingerprint": self.table.meta.fingerprint,
        }
        summary = {
            "format": "sftknow-results/1",
            "task": task,
            "finetuned": _record_of(model, style, engine_args or {}),
            "base": _record_of(self.base, "completion", {}),
            **summary_of(finetuned, base),
        }
        write_facts(out / "facts.parquet", finetuned, base)
        write_json(out / "results.json", summary)
        return out

    def _outcomes(
        self, rng: np.random.Generator, shares: Sequence[float], style: str
    ) -> list[Outcome]:
        facts = self.facts()
        strata = self.table.strata_of(facts)
        found = []
        for fact in facts:
            right = rng.random() < shares[strata[fact.id]]
            text = f" {fact.answer} </s>" if right else f" nowhere, {rng.integers(1000)} </s>"
            prompt = (
                f"{fact.subject} is" if style == "completion" else _prompt(style, fact.question)
            )
            verdicts = dict.fromkeys(("alias_acc", "alias_word_acc", "exact_match"), bool(right))
            found.append(
                Outcome(
                    fact.id,
                    fact.relation,
                    fact.domain,
                    strata[fact.id],
                    prompt,
                    text,
                    verdicts,
                    float(right),
                    fact.subject,
                )
            )
        return found

    def _record(self, model: Path, seed: int, stratum: int, n: int, strategy: str) -> None:
        import dataclasses

        loaded = load_strategy(strategy)
        train = open_dataset(self.data).facts("train", domain="id")
        record = TrainingRecord(
            strategy=strategy,
            strategy_digest=loaded.digest,
            base=str(self.base),
            revision=None,
            base_fingerprint=self.table.meta.fingerprint,
            mastery_digest="0" * 64,
            data="data",
            data_source=str(self.data),
            facts_digest="1" * 64,
            stratum=stratum,
            n=n,
            seed=seed,
            fact_ids=tuple(fact.id for fact in train[seed : seed + n]),
            hyperparameters=dataclasses.asdict(loaded.train_settings(learning_rate=1e-3)),
            saved_dtype="float32",
            trained_parameters=1000,
            total_parameters=1000,
            versions={"torch": "2"},
            steps=3,
            losses=((3, 1.0),),
        )
        write_json(model / RECORD_NAME, record.model_dump(mode="json"))

    def submit_row(self, root: Path, folders: Sequence[Path], **naming: Any) -> Path:
        """Submit one row and return its folder."""
        found = Naming(mastery=self.table_file, data=self.data, base_name="the base", **naming)
        return submit(folders, root, DECLARATION, found)[0]


def _prompt(style: str, question: str) -> str:
    assert style in ("paper", "plain")
    return question_prompt("paper" if style == "paper" else "plain", question)


def _record_of(model: Path, style: str, engine_args: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": str(model),
        "fingerprint": weight_fingerprint(model),
        "backend": "hf",
        "engine_args": dict(engine_args),
        "style": style,
        "num_fewshot": 0,
        "limit": None,
        "versions": {"torch": "2", "lm_eval": "0.4.13"},
    }
