"""A probe from its command line's words: model, data and templates found, settings made."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftknow_eval.errors import OutOfSpace, SettingsError
from sftknow_eval.mastery import backends
from sftknow_eval.mastery.dataset import Dataset, open_dataset
from sftknow_eval.mastery.facts import Split
from sftknow_eval.mastery.find import register
from sftknow_eval.mastery.probe import ProbeOutcome, ProbeProgress, probe
from sftknow_eval.mastery.probe_settings import SPLITS, ProbeSettings, check_relations
from sftknow_eval.mastery.sampling import Sampler
from sftknow_eval.mastery.templates import Templates, load_templates
from sftknow_eval.models import locate_model, weight_fingerprint

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ProbeJob:
    """All that a probe needs, checked; no engine has been started yet.

    Attributes:
        backend_reason: why this backend, where none was asked for.
    """

    dataset: Dataset
    templates: Templates
    settings: ProbeSettings
    backend: backends.Backend
    backend_reason: str
    model_folder: Path

    @contextlib.contextmanager
    def sampler(
        self, on_start: Callable[[], None] | None = None
    ) -> Iterator[Callable[[], Sampler]]:
        """Yield a function that starts the engine; it is closed with the block."""
        settings = self.settings
        with contextlib.ExitStack() as stack:

            def start() -> Sampler:
                if on_start is not None:
                    on_start()
                sampler = backends.make_sampler(
                    self.backend,
                    str(self.model_folder),
                    settings.engine_args,
                    n_samples=settings.n_samples,
                    temperature=settings.temperature,
                    max_tokens=settings.max_tokens,
                    window=settings.chunk_facts * self.templates.count,
                )
                stack.callback(sampler.close)
                return sampler

            yield start

    def run(
        self,
        out: Path,
        *,
        on_start: Callable[[], None] | None = None,
        on_progress: Callable[[ProbeProgress], None] | None = None,
    ) -> ProbeOutcome:
        """Probe into `out` and register the finished table in the cache (see `probe`).

        `on_start` is called before the engine starts, which a finished probe does not need.
        """
        with self.sampler(on_start) as start:
            outcome = probe(
                self.dataset, self.templates, start, out, self.settings, on_progress=on_progress
            )
        try:
            register(outcome.table)
        except (OutOfSpace, OSError) as error:  # the table itself is safe in `out`
            log.warning("The table could not be copied into the cache: %s", error)
        return outcome


def prepare_probe(
    model: str,
    *,
    data: str | Path | None = None,
    templates: Path | None = None,
    backend: str | None = None,
    revision: str | None = None,
    splits: tuple[Split, ...] = SPLITS,
    relations: tuple[str, ...] | None = None,
    answer_stop: bool | None = None,
    keep_completions: bool = False,
    engine_args: dict[str, Any] | None = None,
    **sampling: Any,
) -> ProbeJob:
    """Find model, data and templates, and check every setting.

    Args:
        model: local folder or hub id of the base.
        data: see `open_dataset`.
        templates: a template file in place of the data's own.
        backend: `vllm` or `hf`; chosen by what is installed when None.
        revision: branch, tag or commit of a hub id.
        splits: which splits to probe.
        relations: which relations, or None for all.
        answer_stop: None takes what pays on the backend.
        keep_completions: store every text.
        engine_args: by lm-eval's names.
        sampling: further fields of `ProbeSettings`.

    Raises:
        SftknowError: the first thing found that cannot be used, with the remedy.
    """
    chosen, reason = (
        backends.default_backend()
        if backend is None
        else (backends.check_backend(backend), "as asked")
    )
    args = backends.check_engine_args(chosen, engine_args or {})
    if answer_stop is None:
        answer_stop = not keep_completions and backends.answer_stop_pays(chosen)
    settings = {
        "base": model,
        "revision": revision,
        "backend": chosen,
        "splits": splits,
        "relations": relations,
        "answer_stop": answer_stop,
        "keep_completions": keep_completions,
        "engine_args": args,
        "versions": backends.engine_versions(chosen),
        **sampling,
    }
    ProbeSettings(fingerprint="", **settings)  # faults show before anything slow is done
    dataset, loaded = _facts_and_templates(data, templates, relations)
    folder = locate_model(model, revision)
    return ProbeJob(
        dataset,
        loaded,
        ProbeSettings(
            fingerprint=weight_fingerprint(folder),
            tokenizer="given" if "tokenizer" in args else backends.tokenizer_digest(folder, model),
            **settings,
        ),
        chosen,
        reason,
        folder,
    )


def _facts_and_templates(
    data: str | Path | None, templates: Path | None, relations: tuple[str, ...] | None
) -> tuple[Dataset, Templates]:
    dataset = open_dataset(data)
    if relations is not None:
        check_relations(relations, list(dataset.relations))
    wanted = [r for name, r in dataset.relations.items() if not relations or name in relations]
    if templates is not None and not templates.is_file():
        raise SettingsError(f"The template file {templates} does not exist.")
    source = templates or dataset.templates_file
    return dataset, load_templates(source, wanted, known=dataset.relations)
