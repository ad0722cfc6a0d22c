"""lm-eval's vLLM model, restored while it loads, and again in the live engine.

`--model sftknow-vllm --model_args pretrained=FT,base=BASE,ratio=20` takes all arguments of
lm-eval's `vllm`.
"""

from __future__ import annotations

from typing import Any

from lm_eval.api.registry import register_model

from sftknow_eval.errors import CheckpointError, SettingsError
from sftknow_eval.models import locate_model
from sftknow_eval.restoration.ended import EndedEngine
from sftknow_eval.restoration.on_load import Choice, LoadReport
from sftknow_eval.vllm_support import (
    answering_for_vllm,
    keeping_set_num_threads,
    prepare_environment,
)

with answering_for_vllm():
    from lm_eval.models.vllm_causallms import VLLM

NAME = "sftknow-vllm"
_EXTENSION = "sftknow_eval.restoration.vllm_worker.RestorationWorker"
_TAKEN = ("load_format", "worker_extension_cls", "lora_local_path", "quantization")


@register_model(NAME)
class RestoredVLLM(VLLM):  # type: ignore[misc]
    """A fine-tune with weights given back to its base.

    Args:
        pretrained: the fine-tune: local folder or hub id.
        base: its base.
        kwargs: `ratio` (percent), or a `recipe` or `mask` file, and what else `on_load.Choice`
            knows; anything that lm-eval's `vllm` takes.
    """

    model: Any

    def __init__(self, pretrained: str, base: str, **kwargs: Any) -> None:
        if refused := [name for name in _TAKEN if kwargs.get(name)]:
            raise SettingsError(
                f"{NAME} restores the checkpoint's own weights and takes no {refused[0]}. Write "
                "the restored model with 'sftknow restore' and load that with --model vllm."
            )
        if int(kwargs.get("data_parallel_size", 1)) > 1:
            raise SettingsError(f"{NAME} is one engine; spread it with tensor_parallel_size.")
        choice, kwargs = Choice.taken_from({"base": base, **kwargs})
        revision = kwargs.get("revision")
        locate_model(pretrained, revision)
        self._choice = choice.settled(pretrained, revision)
        prepare_environment()  # again, as ranking the elements has imported numba
        extra = dict(kwargs.pop("model_loader_extra_config", None) or {})
        with keeping_set_num_threads():
            super().__init__(
                pretrained=pretrained,
                load_format="sftknow",
                model_loader_extra_config={**extra, **self._choice.given()},
                worker_extension_cls=_EXTENSION,
                **kwargs,
            )
        self._reports = [_report(found) for found in self.model.collective_rpc("sftknow_report")]
        self._check_workers()

    @property
    def report(self) -> LoadReport:
        """What was loaded last: the first worker's report."""
        return self._reports[0]

    def restore(self, choice: Choice) -> LoadReport:
        """Put another restoration of the same pair in place, on every worker.

        Raises:
            CheckpointError: it failed. The engine is ended then.
        """
        try:
            found = self.model.collective_rpc("sftknow_swap", args=(choice.given(),))
            self._reports = [_report(entry) for entry in found]
            self._check_workers()
            # Cached prompts were computed with the weights before.
            if not self.model.reset_prefix_cache():
                raise CheckpointError("vLLM could not reset its prefix cache after a swap.")
        except BaseException as error:
            self.close(str(error))
            if isinstance(error, CheckpointError) or not isinstance(error, Exception):
                raise
            raise CheckpointError(f"The swap failed and the engine was ended: {error}") from error
        return self.report

    def _check_workers(self) -> None:
        if len({report.checksum for report in self._reports}) != 1:
            raise CheckpointError("The engine's workers loaded different weights.")

    def close(self, why: str = "it was closed") -> None:
        """Stop the engine and its processes, and free its memory; again is no change."""
        engine, self.model = self.model, EndedEngine(why)
        if isinstance(engine, EndedEngine):
            return
        from vllm.distributed import cleanup_dist_env_and_memory

        engine.llm_engine.engine_core.shutdown()
        cleanup_dist_env_and_memory()

    def get_model_info(self) -> dict[str, Any]:
        """Return the record of the restoration for lm-eval's results."""
        canaries = [report.canary for report in self._reports]
        return {"restoration": {**self.report.record(), "canary": canaries}}


def _report(found: dict[str, Any]) -> LoadReport:
    return LoadReport(**found)
