"""A fine-tuned model beside its base: scores by stratum, and what was kept, lost and gained.

The base answers by completing its relation's best template, the fine-tuned model in the prompt
style it was made for; both on the same facts, stratified by the base's mastery.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftknow_eval.artifacts import write_json
from sftknow_eval.errors import ModelError, SettingsError
from sftknow_eval.evaluation.adapters import Adapter, find_adapter
from sftknow_eval.evaluation.compare import Transitions, transitions
from sftknow_eval.evaluation.facts_file import FACTS_NAME, write_facts
from sftknow_eval.evaluation.prompts import Style, check_style
from sftknow_eval.evaluation.run import ModelResult, ModelRun, evaluate_model
from sftknow_eval.evaluation.settings import read_settings
from sftknow_eval.evaluation.summary import RESULTS_FORMAT, RESULTS_NAME, summary_of
from sftknow_eval.mastery.backends import Backend
from sftknow_eval.mastery.facts import Domain
from sftknow_eval.models import locate_model, weight_fingerprint

# Arguments that say which model it is, and so are not the base's too.
_OF_ONE_MODEL = (
    *("revision", "subfolder", "tokenizer", "tokenizer_revision", "peft", "delta"),
    *("lora_local_path", "max_lora_rank"),
    *("base", "base_revision", "ratio", "recipe", "mask"),
    *("region", "layers", "order", "order_seed", "arithmetic"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRequest:
    """What to evaluate, on which facts and how.

    Attributes:
        finetuned: local folder or hub id of the fine-tuned model, or of a PEFT adapter.
        base: its base; None to take the one that the training record, an adapter's configuration
            or the mastery table states.
        metadata: what selects the facts, as for the tasks' `--metadata`.
        style: prompt style of the fine-tuned model; None to take the training record's, else
            `chat` where its tokenizer has a chat template, else `plain`.
    """

    finetuned: str
    base: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    style: Style | None = None
    backend: Backend = "hf"
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    batch_size: str | None = None
    num_fewshot: int = 0
    limit: int | None = None

    def __post_init__(self) -> None:
        faults = []
        if self.num_fewshot < 0:
            faults.append(f"num-fewshot is {self.num_fewshot}; it must be at least 0")
        if self.limit is not None and self.limit < 1:
            faults.append(f"limit is {self.limit}; it must be at least 1")
        size = str(self.batch_size or "auto").partition(":")[0]
        if size != "auto" and not (size.isdecimal() and int(size) >= 1):
            faults.append(f"batch-size is '{size}'; give 'auto' or a number of at least 1")
        if faults:
            raise SettingsError("; ".join(faults) + ".")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The results: of the fine-tune, of its base where it is known, and both compared."""

    finetuned: ModelResult
    base: ModelResult | None
    transitions: dict[Domain, list[Transitions]] | None
    summary: dict[str, Any]


def evaluate(request: EvaluationRequest, out: Path) -> Evaluation:
    """Evaluate a fine-tune and its base and write `results.json` and `facts.parquet`.

    Raises:
        ModelError: a model cannot be found or started, or has no tokenizer.
        DataError, TemplateError, MasteryError, SettingsError: no documents can be made.
    """
    adapter = find_adapter(
        request.finetuned, revision=request.engine_args.get("revision"), base=request.base
    )
    style, style_from = _style(request, adapter)
    run = _finetuned_run(request, style, adapter)
    task = run.task_data().record
    base_name, base_from = _base(request, adapter, task)
    base_run = _base_run(run, base_name, task) if base_name else None
    # All is prepared before either model is loaded: faults show at once.
    for prepared in (run, *([base_run] if base_run else [])):
        prepared.task_data()
        prepared.describe()
    _check_writable(out)
    base = evaluate_model(base_run) if base_run else None
    finetuned = evaluate_model(run)
    compared = transitions(base.outcomes, finetuned.outcomes) if base else None
    summary = {
        "format": RESULTS_FORMAT,
        "task": task,
        "finetuned": finetuned.record | {"style_from": style_from},
        "base": base.record | {"base_from": base_from} if base else None,
        "base_missing": None if base else base_from,
        **summary_of(finetuned.outcomes, base.outcomes if base else None),
    }
    write_facts(out / FACTS_NAME, finetuned.outcomes, base.outcomes if base else None)
    write_json(out / RESULTS_NAME, summary)
    return Evaluation(finetuned, base, compared, summary)


def _check_writable(out: Path) -> None:
    # Found out now rather than after both models were asked.
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"The results cannot be written into {out}: {error.strerror or error}. Name another "
            "folder with --out."
        ) from error


def _finetuned_run(request: EvaluationRequest, style: Style, adapter: Adapter | None) -> ModelRun:
    base = adapter.base if adapter else request.base
    metadata = {**request.metadata, **({"base": base} if base else {})}
    # Named for the base too, which has no record of the data.
    data = read_settings({"pretrained": request.finetuned, **metadata}).data
    return ModelRun(
        model=request.finetuned,
        metadata={**metadata, **({"data": data} if data else {}), "style": style},
        backend=request.backend,
        engine_args=request.engine_args,
        batch_size=request.batch_size,
        num_fewshot=request.num_fewshot,
        limit=request.limit,
        adapter=adapter,
    )


def _base_run(run: ModelRun, base: str, task: Mapping[str, Any]) -> ModelRun:
    """Return the run of the base: completions, no shots, on the same engine settings."""
    engine_args = {k: v for k, v in run.engine_args.items() if k not in _OF_ONE_MODEL}
    if base == task["mastery_base"] and task["mastery_revision"]:
        engine_args["revision"] = task["mastery_revision"]
    return dataclasses.replace(
        run,
        model=base,
        metadata={**run.metadata, "base": base, "style": "completion"},
        engine_args=engine_args,
        num_fewshot=0,
        adapter=None,
    )


def _style(request: EvaluationRequest, adapter: Adapter | None) -> tuple[Style, str]:
    """Return the prompt style of the fine-tuned model, and where it comes from."""
    if request.style == "chat" and not _has_chat_template(request, adapter):
        raise SettingsError(
            f"The tokenizer of '{request.finetuned}' has no chat template, which the style 'chat' "
            "needs. Ask with --style plain, or paper for a model trained on that prompt."
        )
    if request.style:
        return request.style, "asked for"
    if recorded := read_settings({"pretrained": request.finetuned}).style:
        return check_style(recorded), "training record"
    if _has_chat_template(request, adapter):
        return "chat", "chat template"
    return "plain", "no training record, no chat template"


def _has_chat_template(request: EvaluationRequest, adapter: Adapter | None) -> bool:
    from sftknow_eval.mastery.hf_model import load_tokenizer

    trust = bool(request.engine_args.get("trust_remote_code", False))
    revision = request.engine_args.get("revision")
    folder = adapter.tokenizer if adapter else locate_model(request.finetuned, revision)
    return bool(load_tokenizer(folder, request.finetuned, trust).chat_template)


def _base(
    request: EvaluationRequest, adapter: Adapter | None, task: Mapping[str, Any]
) -> tuple[str | None, str]:
    """Return the base and where its name comes from; None and why, when there is none."""
    if adapter:
        return adapter.base, adapter.base_from
    if request.base:
        return request.base, "asked for"
    recorded = read_settings({"pretrained": request.finetuned}).base
    for name, source in ((recorded, "training record"), (task["mastery_base"], "mastery table")):
        if not name:
            continue
        try:
            known = name == task["mastery_base"]
            folder = locate_model(name, task["mastery_revision"] if known else None)
        except ModelError:
            continue
        if weight_fingerprint(folder) == task["mastery_fingerprint"]:
            return name, source
    return None, (
        f"the base '{task['mastery_base']}' is not here, or its weights are not those that were "
        "probed; name it with --base"
    )
