"""`token_drift.json` and `token_drift.parquet` of a fine-tune and its base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sftknow_eval.artifacts import atomic_path, write_json
from sftknow_eval.drift.token_kl import TOP
from sftknow_eval.errors import SettingsError
from sftknow_eval.evaluation.tokens.measures import MEASURES, FactDrift, Measured, summaries
from sftknow_eval.evaluation.tokens.request import Comparison, TokenDriftRequest, prepare
from sftknow_eval.mastery.backends import engine_versions

FORMAT = "sftknow-token-drift/1"
JSON_NAME, FACTS_NAME = "token_drift.json", "token_drift.parquet"
_HF_ARGUMENTS = ("dtype", "device", "trust_remote_code")

_SCHEMA = {
    **dict.fromkeys(("fact_id", "relation", "domain"), pa.string()),
    "stratum": pa.int8(),
    **dict.fromkeys(MEASURES, pa.float64()),
    "answer_first": pa.bool_(),
}


def token_drift(
    request: TokenDriftRequest,
    out: Path | None = None,
    advance: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, Any]:
    """Measure the drift of every selected fact; return what `token_drift.json` holds.

    Args:
        request: models and facts.
        out: folder for both files; None to write nothing.
        advance: told (what, done, total).

    Raises:
        ModelError: a model cannot be found or loaded.
        OtherBase: the fine-tune is of another base.
        DataError, TemplateError, MasteryError, SettingsError: no prompts can be made.
    """
    comparison = prepare(request)
    drifts, engine = _measured(request, comparison, advance)
    measured = [
        (fact.document, drift) for fact, drift in zip(comparison.facts, drifts, strict=True)
    ]
    found = {
        "format": FORMAT,
        "base": comparison.base.describe(),
        "finetuned": comparison.finetuned.describe(),
        "task": comparison.record,
        "measures": {
            "kl_top10": f"KL(fine-tune || base), the fine-tune's {TOP} likeliest tokens, nats",
            "kl_full_finetuned_base": "KL(fine-tune || base), shared vocabulary, nats",
            "kl_full_base_finetuned": "KL(base || fine-tune), shared vocabulary, nats",
        },
        "backend": request.backend,
        **engine,
        "versions": engine_versions(request.backend),
        **summaries(measured),
    }
    if out is not None:
        _write_facts(out / FACTS_NAME, measured)
        write_json(out / JSON_NAME, found)
    return found


def _measured(
    request: TokenDriftRequest, comparison: Comparison, advance: Callable[[str, int, int], None]
) -> tuple[list[FactDrift], dict[str, Any]]:
    """Return the drift of each fact, and what is to be said of the engine."""
    if request.backend == "vllm":
        from sftknow_eval.evaluation.tokens.served import ServedModels

        served = ServedModels(comparison, dict(request.engine_args))
        drifts = served.measure()
        return drifts, {"dtype": served.dtypes, "vocabulary": served.shared.describe()}
    if unknown := sorted(set(request.engine_args) - set(_HF_ARGUMENTS)):
        raise SettingsError(
            f"Token drift with transformers takes no argument '{unknown[0]}'; known are "
            f"{', '.join(_HF_ARGUMENTS)}."
        )
    from sftknow_eval.evaluation.tokens.exact import ExactModels

    exact = ExactModels(
        comparison,
        batch_size=request.batch_size,
        full=request.full,
        advance=advance,
        **request.engine_args,
    )
    drifts = exact.measure()
    return drifts, {"dtype": exact.dtypes, "vocabulary": exact.shared.describe()}


def _write_facts(path: Path, measured: Sequence[Measured]) -> None:
    rows = [
        {
            "fact_id": document["id"],
            **{name: document[name] for name in ("relation", "domain", "stratum")},
            **{name: getattr(drift, name) for name in (*MEASURES, "answer_first")},
        }
        for document, drift in sorted(measured, key=lambda entry: entry[0]["id"])
    ]
    table = pa.Table.from_pylist(rows, schema=pa.schema(list(_SCHEMA.items())))
    with atomic_path(path) as partial:
        pq.write_table(table, partial, compression="zstd")
