"""Restoration on load and in a live engine over a plain load, as ratios in one run.

    python benchmarks/on_load.py                  # 0.43 billion bfloat16 weights, HF and vLLM
    python benchmarks/on_load.py --layers 4       # a quick look

Every measurement runs in a process of its own, on files that are in the page cache, with the
compiled kernels loaded before. Times are CPU time (user and system, all threads) unless they
say otherwise; each is the least of several rounds, plain and restored loads in turn, as what other
work on the machine adds is never negative; memory is the most. A load is
all that happens between the model's class and its filled weights, until each of these has been
read once: transformers maps files and reads nothing before that. A restored load includes the
canary. Memory is anonymous memory (files that are mapped do not count): the highest during a
load less that of the loaded model, and the highest during a swap less that before.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HIDDEN, MLP, VOCABULARY = 1024, 2816, 8192
RATIOS = [20.0, 5.0, 60.0]
ROUNDS = 5
MEMORY = 3 << 29  # bytes
LIMITS = {"load": 2.0, "swap": 2.5, "start": 0.2}


def make_pair(folder: Path, layers: int) -> None:
    """Write a Llama and a fine-tune of it as float32 masters leave it, rounded to bfloat16."""
    import torch
    from safetensors.torch import load_file, save_file
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: number for number, word in enumerate(["<s>", "</s>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(words, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=MLP,
        num_hidden_layers=layers,
        num_attention_heads=16,
        num_key_value_heads=16,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).bfloat16()
    for name in ("base", "finetuned"):
        model.save_pretrained(folder / name)
        fast.save_pretrained(folder / name)
    file = folder / "finetuned" / "model.safetensors"
    tensors = load_file(file)
    for tensor in tensors.values():
        step = torch.randn(tensor.shape) * torch.rand(tensor.shape).clamp_(min=1e-3).rsqrt_()
        tensor.copy_((tensor.float() + step * 2e-5).bfloat16())
    save_file(tensors, file, metadata={"format": "pt"})


class Meter:
    """CPU time, wall time and the highest anonymous memory of a block."""

    def __enter__(self) -> Meter:
        self.before = anonymous_megabytes()
        self._highest, self._done = self.before, threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)
        self._watch.start()
        self._cpu, self._wall = cpu_seconds(), time.perf_counter()
        return self

    def _look(self) -> None:
        while not self._done.wait(0.005):
            self._highest = max(self._highest, anonymous_megabytes())

    def __exit__(self, *_: object) -> None:
        self.cpu = cpu_seconds() - self._cpu
        self.wall = time.perf_counter() - self._wall
        self._done.set()
        self._watch.join()
        self.after = anonymous_megabytes()
        self.over_after = self._highest - self.after
        self.over_before = self._highest - self.before


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def anonymous_megabytes() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no RssAnon in /proc/self/status")


def touch_memory() -> None:
    """Use as much memory as a load takes and free it, so that the machine has it in hand.

    A virtual machine gives memory that lies free back to its host within seconds. The first use
    after that costs about ten times of what clearing the pages does, which is the host's affair.
    """
    with mmap.mmap(-1, MEMORY, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for place in range(0, MEMORY, mmap.PAGESIZE):
            memory[place] = 1


def read_all(model: Any) -> None:
    """Read every weight once."""
    import torch

    for parameter in model.parameters():
        parameter.detach().view(torch.int16).max()


def metered(
    owner: Any, name: str, found: list[Meter], after: Callable[[Any], None] = lambda self: None
) -> None:
    """Meter every call of a method, and what is to be done after it."""
    method: Callable[..., Any] = getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        touch_memory()
        with Meter() as meter:
            result = method(*args, **kwargs)
            after(args[0])
        found.append(meter)
        return result

    setattr(owner, name, call)


def load_kernels() -> None:
    """Compile or load the kernels on a few weights, so that no measurement holds that."""
    import numpy as np

    from sftknow_eval.drift.scan import Ranking
    from sftknow_eval.restoration.blocks import BlockRestorer

    few = np.zeros(8, np.uint16)
    BlockRestorer(Ranking(), "a", [(0, 0, 0)]).block(few, few, 0, np.zeros((1, 8), np.uint16))


def choice_of(folder: Path, ratio: float) -> Any:
    from sftknow_eval.restoration.on_load import Choice

    return Choice(base=str(folder / "base"), recipe=str(folder / f"recipe-{ratio:g}.json"))


def hf_plain(folder: Path) -> dict[str, Any]:
    from lm_eval.models.huggingface import HFLM

    loads: list[Meter] = []
    metered(HFLM, "_create_model", loads, lambda lm: read_all(lm._model))
    HFLM(pretrained=str(folder / "finetuned"), device="cpu")
    return {"load": loads[0].cpu, "load_extra": loads[0].over_after}


def hf_restored(folder: Path) -> dict[str, Any]:
    load_kernels()
    from sftknow_eval.restoration.hf_model import RestoredHF

    loads: list[Meter] = []
    metered(RestoredHF, "_create_model", loads, lambda lm: read_all(lm._model))
    choice = choice_of(folder, RATIOS[0])
    model = RestoredHF(pretrained=str(folder / "finetuned"), device="cpu", **choice.given())
    return {"load": loads[0].cpu, "load_extra": loads[0].over_after} | swaps(model, folder)


def swaps(model: Any, folder: Path) -> dict[str, Any]:
    found = []
    for ratio in RATIOS[1:]:
        with Meter() as meter:
            model.restore(choice_of(folder, ratio))
        found.append(meter)
    return {
        "swap": statistics.mean(meter.cpu for meter in found),
        "swap_wall": statistics.mean(meter.wall for meter in found),
        "swap_extra": max(meter.over_before for meter in found),
    }


VLLM: dict[str, Any] = {
    "enforce_eager": True,
    "block_size": 32,
    "max_model_len": 512,
    "max_num_seqs": 64,
    "max_num_batched_tokens": 4096,
    "kv_cache_memory_bytes": 1 << 28,
    "use_tqdm_on_load": False,
}


def vllm_plain(folder: Path) -> dict[str, Any]:
    from sftknow_eval.vllm_support import import_vllm

    vllm = import_vllm("The benchmark")
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

    loads: list[Meter] = []
    metered(DefaultModelLoader, "load_model", loads)
    began = time.perf_counter()
    vllm.LLM(str(folder / "finetuned"), **VLLM)
    start = time.perf_counter() - began
    # An engine in a process of its own loads there, out of sight.
    measured = {"load": loads[0].cpu, "load_extra": loads[0].over_after} if loads else {}
    return measured | {"start": start}


def vllm_restored(folder: Path) -> dict[str, Any]:
    load_kernels()
    from sftknow_eval.restoration.vllm_loader import RestoringLoader
    from sftknow_eval.restoration.vllm_model import RestoredVLLM

    loads: list[Meter] = []
    metered(RestoringLoader, "load_model", loads)
    choice = choice_of(folder, RATIOS[0])
    began = time.perf_counter()
    model = RestoredVLLM(pretrained=str(folder / "finetuned"), **choice.given(), **VLLM)
    start = time.perf_counter() - began
    load = {"load": loads[0].cpu, "load_extra": loads[0].over_after, "start": start}
    return load | swaps(model, folder)


CASES = {case.__name__: case for case in (hf_plain, hf_restored, vllm_plain, vllm_restored)}


def measure(case: str, folder: Path, **environment: str) -> dict[str, float]:
    """Run one case in a process of its own."""
    command = [sys.executable, __file__, "--case", case, "--folder", str(folder)]
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_OFFLINE": "1", "SFTKNOW_CACHE": str(folder)}
    # As `sftknow` sets it (vllm_support); it is read when torch is loaded, which is earlier here.
    quiet["OMP_WAIT_POLICY"] = "passive"
    done = subprocess.run(
        command,
        env={**os.environ, **quiet, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    # vLLM may end with an error after all is said: what counts is what was printed.
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"')]
    if not lines:
        raise SystemExit(f"{case} failed:\n{done.stderr[-4000:]}")
    found: dict[str, float] = json.loads(lines[-1])
    return found


def rounds(plain: str, restored: str, folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Measure two cases in turn; return the least times and the most memory."""
    pairs = [(measure(plain, folder), measure(restored, folder)) for _ in range(ROUNDS)]
    found = []
    for side in zip(*pairs, strict=True):
        pick = {key: max if key.endswith("_extra") else min for key in side[0]}
        found.append({key: pick[key](entry[key] for entry in side) for key in pick})
    return found[0], found[1]


def report(name: str, plain: dict[str, float], ours: dict[str, float]) -> None:
    load, swap = ours["load"] / plain["load"], ours["swap"] / plain["load"]
    print(f"{name}")
    print(f"  plain load {plain['load']:.2f} CPU-s, restored load {ours['load']:.2f} CPU-s")
    print(f"  restored load over plain load   {load:.2f}   (at most {LIMITS['load']})")
    print(f"  swap over plain load            {swap:.2f}   (at most {LIMITS['swap']})")
    print(f"  swap, wall time                 {ours['swap_wall']:.2f} s")
    print(
        f"  memory beyond the loaded model  {plain['load_extra']:.0f} MB plain, "
        f"{ours['load_extra']:.0f} MB restored"
    )
    print(f"  memory of a swap                {ours['swap_extra']:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--backends", default="hf,vllm")
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.case:
        found = CASES[options.case](options.folder)
        print(json.dumps(found), flush=True)
        os._exit(0)  # an engine's own way out takes seconds and may fail
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        make_pair(folder, options.layers)
        from sftknow_eval.restoration.on_load import Choice

        choice = Choice(base=str(folder / "base"), ratio=0)
        recipes = choice.recipes(str(folder / "finetuned"), None, RATIOS)
        for recipe in recipes:
            recipe.write(folder / f"recipe-{recipe.ratio:g}.json")
        largest = MLP * HIDDEN * 2 / (1 << 20)
        print(
            f"{recipes[0].elements / 1e9:.3f} billion weights in the region, "
            f"{100 * recipes[0].changed_fraction:.0f}% changed, {os.cpu_count()} cores; the "
            f"largest tensor of the region takes {largest:.1f} MB"
        )
        if "hf" in options.backends:
            report("transformers", *rounds("hf_plain", "hf_restored", folder))
        if "vllm" in options.backends:
            plain, ours = rounds("vllm_plain", "vllm_restored", folder)
            report("vLLM", plain, ours)
            apart = measure("vllm_plain", folder, VLLM_ENABLE_V1_MULTIPROCESSING="1")
            for what, start in (("in this process", plain), ("in a process of its own", apart)):
                share = ours["swap_wall"] / start["start"]
                print(
                    f"  swap over engine start          {share:.2f}   (at most "
                    f"{LIMITS['start']}; {what}, {start['start']:.1f} s)"
                )


if __name__ == "__main__":
    main()
