"""vLLM's load format `sftknow`: a fine-tune that is restored while its weights load.

    LLM(FT, load_format="sftknow", model_loader_extra_config={"base": BASE, "ratio": 20})
    vllm serve FT --load-format sftknow --model-loader-extra-config '{"base": ..., "ratio": 20}'

The keys are the attributes of `on_load.Choice`. vLLM hands whole tensors, under their names
in the checkpoint, to its models, which fuse, reorder and slice them; the restoration comes
before that and so is the same under tensor parallelism: every rank restores all it reads.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from vllm.config.load import LoadConfig
from vllm.distributed import (
    get_pp_group,
    get_tensor_model_parallel_rank,
    get_tensor_model_parallel_world_size,
)
from vllm.model_executor.layers.linear import LinearBase
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    VocabParallelEmbedding,
)
from vllm.model_executor.model_loader import (
    _LOAD_FORMAT_TO_MODEL_LOADER,
    register_model_loader,
)
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.platforms import current_platform

from sftknow_eval.errors import CheckpointError, SettingsError
from sftknow_eval.models import locate_model
from sftknow_eval.restoration.canary import Expectation, Rows, columns_of, taken

if TYPE_CHECKING:
    from sftknow_eval.restoration.on_load import Blender, LoadReport

# `on_load` is imported where it is used: vLLM imports this module in all of its processes,
# whatever they load, and numba takes half a second.
FORMAT = "sftknow"
_REPORT = "sftknow_report"


class RestoringLoader(DefaultModelLoader):  # type: ignore[misc]
    """vLLM's loader of safetensors files, with every tensor restored as it passes."""

    def __init__(self, load_config: LoadConfig) -> None:
        from sftknow_eval.restoration.on_load import Choice

        extra = dict(load_config.model_loader_extra_config or {})
        if "base" not in extra:
            raise SettingsError(
                f"The load format '{FORMAT}' needs a base: --model-loader-extra-config "
                '\'{"base": "BASE", "ratio": 20}\' (or "recipe" or "mask" with a file).'
            )
        self.choice, extra = Choice.taken_from(extra)
        self._blender: Blender | None = None
        super().__init__(
            dataclasses.replace(
                load_config, load_format="safetensors", model_loader_extra_config=extra
            )
        )

    def load_model(self, vllm_config: Any, model_config: Any, prefix: str = "") -> torch.nn.Module:
        """Load, and make sure that the model computes with the restored weights."""
        if model_config.quantization is not None:
            raise SettingsError(
                f"The load format '{FORMAT}' restores unquantised weights; quantization is "
                f"'{model_config.quantization}'. Leave it out."
            )
        model = super().load_model(vllm_config, model_config, prefix)
        self.verify(model)
        return model  # type: ignore[no-any-return]

    def get_all_weights(
        self, model_config: Any, model: torch.nn.Module
    ) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield every tensor of the checkpoint, restored."""
        from sftknow_eval.restoration.on_load import Blender

        self._blender = None
        restoration = self.choice.restoration(model_config.model, model_config.revision)
        ranks, rank = get_tensor_model_parallel_world_size(), get_tensor_model_parallel_rank()
        expectation = Expectation(model_config.dtype, ranks, rank)
        folders = (
            self.choice.base_folder(),
            locate_model(model_config.model, model_config.revision),
        )
        with Blender(*folders, restoration, expectation) as blender:
            for name, tensor in super().get_all_weights(model_config, model):
                yield name, blender.blend(name, tensor)
            self._blender = blender

    def verify(self, model: torch.nn.Module) -> LoadReport:
        """Return the report of the finished load, and leave it with the model.

        Raises:
            CheckpointError: not all was loaded, or this worker computes with other weights.
        """
        if self._blender is None:
            raise CheckpointError(
                "vLLM did not read the checkpoint to its end, so the model is not restored."
            )
        report = self._blender.finish()
        expectation = self._blender.expectation
        assert expectation is not None
        canary = expectation.check(
            computed_rows(model),
            [p.detach() for p in model.parameters() if p.dim() < 2 and p.numel()],
            whole=get_pp_group().world_size == 1,
        )
        report = dataclasses.replace(report, canary=canary)
        setattr(model, _REPORT, report)
        return report


def report_of(model: torch.nn.Module) -> LoadReport:
    """Return the report that the last load left with a model.

    Raises:
        CheckpointError: the model was not loaded by this format.
    """
    report: LoadReport | None = getattr(model, _REPORT, None)
    if report is None:
        raise CheckpointError(
            f"The model was not loaded by the load format '{FORMAT}': nothing says what it is."
        )
    return report


@torch.inference_mode()
def computed_rows(model: torch.nn.Module) -> Iterator[Rows]:
    """Yield rows of every weight matrix as the layers compute with it.

    On the CPU matrices are packed for the kernel, and the parameters that are left are empty
    or no longer read: there a layer is applied to rows of the identity matrix. Elsewhere the
    parameters are what is computed with.
    """
    for name, layer in model.named_modules():
        method = getattr(layer, "quant_method", None)
        if method is not None and isinstance(layer, VocabParallelEmbedding):
            # Its own rows only: an output head is padded, and its rows are looked up by none.
            held = layer.shard_indices.num_org_elements
            if isinstance(layer, ParallelLMHead):
                yield _applied(name, layer, layer.embedding_dim, held)
            else:
                yield from Rows.of(name, layer.weight[:held])
        elif isinstance(layer, LinearBase) and method is not None:
            k = getattr(layer, "input_size_per_partition", layer.input_size)
            yield _applied(name, layer, int(k), None)
        elif current_platform.is_cpu() and hasattr(layer, "w13_weight"):
            raise CheckpointError(
                f"vLLM packs the experts '{name}' for the CPU in a form that cannot be compared, "
                "so it cannot be shown that they are the restored ones. Use --model sftknow-hf, "
                "or write the restored model with 'sftknow restore'."
            )
        else:
            for parameter, weight in layer.named_parameters(recurse=False):
                if weight.dim() > 1 and weight.numel():
                    yield from Rows.of(f"{name}.{parameter}", weight)


def _applied(name: str, layer: Any, k: int, held: int | None) -> Rows:
    if not current_platform.is_cpu():
        return Rows(name, taken(layer.weight[:held]), k)
    dtype = layer.params_dtype if hasattr(layer, "params_dtype") else layer.weight.dtype
    values_CN = layer.quant_method.apply(layer, _identity_rows(k, dtype), bias=None)
    return Rows(name, values_CN.t()[:held], k)


@functools.lru_cache(maxsize=8)
def _identity_rows(k: int, dtype: torch.dtype) -> torch.Tensor:
    columns = columns_of(k)
    rows_CK = torch.zeros(len(columns), k, dtype=dtype)
    rows_CK[torch.arange(len(columns)), columns] = 1
    return rows_CK


def pack_tied_heads(model: torch.nn.Module) -> None:
    """Pack an output head that is tied to an embedding anew, after weights were reloaded.

    On the CPU a head computes with a packed copy. When vLLM 0.32 reloads weights it fills the
    embedding that both share, and leaves the copy as it was.
    """
    if not current_platform.is_cpu():
        return
    layers = [layer for layer in model.modules() if isinstance(layer, VocabParallelEmbedding)]
    embeddings = {
        layer.weight.data_ptr() for layer in layers if not isinstance(layer, ParallelLMHead)
    }
    for layer in layers:
        if isinstance(layer, ParallelLMHead) and layer.weight.data_ptr() in embeddings:
            layer.quant_method.process_weights_after_loading(layer)


def register() -> None:
    """Make the load format known to vLLM; it calls this in each of its processes."""
    if _LOAD_FORMAT_TO_MODEL_LOADER.get(FORMAT) is not RestoringLoader:
        register_model_loader(FORMAT)(RestoringLoader)
