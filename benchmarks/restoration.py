"""Restoration against a plain reference, a file copy and a read, as ratios in one run.

    python benchmarks/restoration.py                    # 0.4 billion weights, all ratios
    python benchmarks/restoration.py --sizes 0.05,0.1,0.25,0.5,1 --no-reference

Every measurement runs in a process of its own, on files that are in the page cache, and
counts CPU time (user and system, all threads) from after the imports and the loading of the
compiled kernels. Peak memory is the process's highest resident size, imports included. A
virtual machine gives memory that lies free back to its host, and its first use then costs ten
times of what clearing it does: all but the reference, of which memory is a part, use as much
as they need once before the clock starts. A cost a weight is over all weights of the files,
those outside the ranking included, which are read, checked and written, too.

The reference is what one would write first, in the same float32 arithmetic: both models in
memory, the relative change of all weights in one tensor, `torch.topk`, a mask for each tensor,
the checkpoint saved. It is kinder than the published procedure, which begins anew for each
ratio.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

RATIOS = [1.0, 3.0, 5.0, 10.0, 20.0, 40.0, 60.0]
HIDDEN, MLP, VOCABULARY = 1024, 2816, 8192
LAYER = 4 * HIDDEN * HIDDEN + 3 * HIDDEN * MLP
LAYERS_PER_SHARD = 20
REPEATS = 5
SMALL = "0.01"  # billions: a pair on which the kernels are loaded
MEMORY = 300 << 20  # bytes


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_megabytes() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def touch_memory() -> None:
    """Use memory and free it, so that the machine has it in hand; no peak counts it."""
    with mmap.mmap(-1, MEMORY, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for place in range(0, MEMORY, mmap.PAGESIZE):
            memory[place] = 1
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew


def weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def make_pair(folder: Path, layers: int) -> None:
    """Write a bfloat16 pair as a fine-tuning with float32 master weights leaves it.

    Weights are normal with a scale of their own per row; the steps are small and heavy-tailed,
    so that part of them is lost in bfloat16 and part of the weights does not change at all.
    """
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    shards: list[dict[str, tuple[int, ...]]] = []
    for layer in range(layers):
        at = f"model.layers.{layer}"
        shapes |= {f"{at}.self_attn.{n}_proj.weight": (HIDDEN, HIDDEN) for n in "qkvo"}
        shapes |= {f"{at}.mlp.{n}_proj.weight": (MLP, HIDDEN) for n in ("gate", "up")}
        shapes[f"{at}.mlp.down_proj.weight"] = (HIDDEN, MLP)
        shapes[f"{at}.input_layernorm.weight"] = (HIDDEN,)
        if layer % LAYERS_PER_SHARD == LAYERS_PER_SHARD - 1 or layer == layers - 1:
            shards.append(shapes)
            shapes = {}
    places = {}
    for number, shard in enumerate(shards):
        file = f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        base, finetuned = {}, {}
        for name, shape in shard.items():
            rows = torch.randn((shape[0], *[1] * (len(shape) - 1)), generator=generator)
            scale = 0.02 * torch.exp(0.25 * rows)
            p = (torch.randn(shape, generator=generator) * scale).bfloat16()
            step = torch.randn(shape, generator=generator)
            step *= torch.rand(shape, generator=generator).clamp_(min=1e-3).rsqrt_() * 2e-5
            base[name], finetuned[name] = p, (p.float() + step).bfloat16()
            places[name] = file
        for model, tensors in (("base", base), ("finetuned", finetuned)):
            (folder / model).mkdir(parents=True, exist_ok=True)
            save_file(tensors, folder / model / file)
    for model in ("base", "finetuned"):
        index = {"metadata": {}, "weight_map": places}
        (folder / model / "model.safetensors.index.json").write_text(json.dumps(index))
        (folder / model / "config.json").write_text('{"model_type": "llama"}')


def read_pair(folder: Path, *, aligned: bool) -> float:
    """CPU time of reading both models once into a buffer of 1 MiB.

    Aligned: the buffer begins at a page. Ordinary memory begins some bytes later, and then some
    processors take four times as long.
    """
    buffer = mmap.mmap(-1, 1 << 20) if aligned else bytearray(1 << 20)
    touch_memory()
    start = cpu_seconds()
    for model in ("base", "finetuned"):
        for path in weight_files(folder / model):
            with path.open("rb", buffering=0) as handle:
                while handle.readinto(buffer):
                    pass
    return cpu_seconds() - start


def copy_seven(folder: Path, *, prepared: bool) -> float:
    """CPU time of copying the fine-tune seven times by read and write.

    Prepared: space reserved before and synced after, as ours does. What is cheaper differs
    between machines and between states of the page cache; the comparison takes the cheaper.
    """
    buffer = memoryview(mmap.mmap(-1, 1 << 20))
    touch_memory()
    start = cpu_seconds()
    for number in range(len(RATIOS)):
        target = folder / f"copy-{number}"
        target.mkdir()
        for path in weight_files(folder / "finetuned"):
            with path.open("rb", buffering=0) as source, (target / path.name).open("wb", 0) as sink:
                if prepared:
                    os.posix_fallocate(sink.fileno(), 0, path.stat().st_size)
                while count := source.readinto(buffer):
                    sink.write(buffer[:count])
                if prepared:
                    os.fsync(sink.fileno())
    return cpu_seconds() - start


def ours(folder: Path, ratios: list[float], *, write: bool) -> float:
    """CPU time of `sftknow restore`, with or without checkpoints."""
    # Load the compiled kernels: seconds on the first run on a machine, cached afterwards.
    restore(folder.parent / SMALL, ratios, write=True)
    touch_memory()
    start = cpu_seconds()
    restore(folder, ratios, write=write)
    return cpu_seconds() - start


def restore(folder: Path, ratios: list[float], *, write: bool) -> None:
    from sftknow_eval.drift.scan import Ranking
    from sftknow_eval.restoration.output import save_checkpoints, save_recipes
    from sftknow_eval.restoration.pair import match
    from sftknow_eval.restoration.regions import Region
    from sftknow_eval.restoration.run import ModelName, make_recipes, opened

    names = ModelName(str(folder / "base")), ModelName(str(folder / "finetuned"))
    target = folder / f"ours-{os.getpid()}"
    with opened(*names) as models:
        pair = match(*models, Region())
        recipes = make_recipes(pair, names, Region(), ratios, Ranking())
        if write:
            save_checkpoints(pair, recipes, target)
        else:
            save_recipes(recipes, target)


def reference(folder: Path) -> float:
    """CPU time of the plain way: everything in memory, concatenated, `torch.topk`."""
    import torch
    from safetensors.torch import load_file, save_file

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    start = cpu_seconds()
    base, finetuned = (
        {n: t for path in weight_files(folder / m) for n, t in load_file(path).items()}
        for m in ("base", "finetuned")
    )
    names = sorted(n for n in base if ".layers." in n and "norm" not in n)
    wide = ((base[n].float(), finetuned[n].float()) for n in names)
    r = torch.cat([((s - p).abs() / (p.abs() + 1e-8)).flatten() for p, s in wide])
    for ratio in RATIOS:
        chosen = torch.zeros(r.numel(), dtype=torch.bool)
        chosen[torch.topk(r, int(r.numel() * ratio / 100)).indices] = True
        restored, place = dict(finetuned), 0
        for name in names:
            mask = chosen[place : place + base[name].numel()].view(base[name].shape)
            restored[name] = torch.where(mask, base[name], finetuned[name])
            place += base[name].numel()
        target = folder / f"reference-{ratio:g}"
        target.mkdir()
        save_file(restored, target / "model.safetensors")
    return cpu_seconds() - start


MEASUREMENTS = {
    "read": lambda folder: read_pair(folder, aligned=False),
    "read-aligned": lambda folder: read_pair(folder, aligned=True),
    "copy": lambda folder: copy_seven(folder, prepared=False),
    "copy-prepared": lambda folder: copy_seven(folder, prepared=True),
    "recipes": lambda folder: ours(folder, RATIOS, write=False),
    "checkpoints": lambda folder: ours(folder, RATIOS, write=True),
    "one checkpoint": lambda folder: ours(folder, [20.0], write=True),
    "reference": reference,
}


def measured(what: str, folder: Path) -> tuple[float, float]:
    """Run one measurement in a process of its own: CPU seconds and peak megabytes."""
    command = [sys.executable, __file__, "--child", what, "--folder", str(folder)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    for pattern in ("copy-*", "reference-*", "ours-*"):
        for path in {*folder.glob(pattern), *(folder.parent / SMALL).glob(pattern)}:
            shutil.rmtree(path)
    return found["cpu"], found["peak"]


def several(names: list[str], folder: Path) -> dict[str, tuple[float, float]]:
    """The least CPU time of interleaved repeats, as other work can only add; the largest peak."""
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(REPEATS):
        for name in names:
            runs[name].append(measured(name, folder))
    return {
        name: (min(c for c, _ in found), max(p for _, p in found)) for name, found in runs.items()
    }


def prepared(root: Path, billions: float) -> tuple[Path, int]:
    """Make a pair of about so many billion weights in layers; return it and all its weights."""
    layers = max(1, -(-round(billions * 1e9) // LAYER))
    folder = root / f"{billions:g}"
    command = [sys.executable, __file__, "--child", "make", "--folder", str(folder)]
    subprocess.run([*command, "--layers", str(layers)], check=True)
    measured("read", folder)  # into the page cache
    return folder, layers * LAYER + VOCABULARY * HIDDEN


def compare(root: Path, billions: float, with_reference: bool) -> None:
    """Print section by section how the seven ratios compare."""
    folder, elements = prepared(root, billions)
    found = several(
        ["read", "read-aligned", "copy", "copy-prepared", "recipes", "checkpoints"], folder
    )
    print(f"{elements / 1e9:.3f} billion bfloat16 weights, seven ratios, CPU seconds:")
    for name, (cpu, peak) in found.items():
        print(f"  {name:14s} {cpu:8.2f} s   peak {peak:7.0f} MB")
    if with_reference:
        cpu, peak = measured("reference", folder)
        print(f"  {'reference':14s} {cpu:8.2f} s   peak {peak:7.0f} MB")
        print(f"reference / checkpoints: {cpu / found['checkpoints'][0]:.1f} (at least 60)")
    copy = min(found["copy"][0], found["copy-prepared"][0])
    print(f"checkpoints / copying seven times: {found['checkpoints'][0] / copy:.2f} (at most 1.5)")
    recipes, read = found["recipes"][0], found["read"][0]
    print(f"recipes / reading once: {recipes / read:.2f} (at most 4)")
    print(f"recipes / reading once, aligned: {recipes / found['read-aligned'][0]:.2f}")
    shutil.rmtree(folder)


def scaling(root: Path, sizes: list[float]) -> None:
    """Print cost per weight and peak memory over sizes, and what they project to.

    Seven checkpoints of the largest size do not fit in the page cache, where the system's cost
    of writing is another: one is written here.
    """
    rows = []
    for billions in sizes:
        folder, elements = prepared(root, billions)
        found = several(["recipes", "one checkpoint"], folder)
        rows.append((elements, found))
        shutil.rmtree(folder)
        costs = ", ".join(f"{n} {cpu / elements * 1e9:.2f} ns" for n, (cpu, _) in found.items())
        peak = max(peak for _, peak in found.values())
        print(f"{elements / 1e9:6.3f} billion weights, each: {costs}; peak {peak:.0f} MB")
    for name in rows[0][1]:
        each = [found[name][0] / elements for elements, found in rows]
        print(f"{name}: dearest over cheapest weight {max(each) / min(each):.2f} (at most 1.1)")
        for size in (8, 70):
            print(f"  projected to {size}B at the last size's cost: {each[-1] * size * 1e9:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--elements", type=float, default=0.4, help="billions, default 0.4")
    parser.add_argument("--sizes", help="billions, for cost and memory over size: 0.05,0.1,1")
    parser.add_argument("--no-reference", action="store_true", help="leave the reference out")
    parser.add_argument("--folder", type=Path, help="where to put the files (10 to 25 GB)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--layers", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child == "make":
        make_pair(options.folder, options.layers)
    elif options.child:
        cpu = MEASUREMENTS[options.child](options.folder)
        print(json.dumps({"cpu": cpu, "peak": peak_megabytes()}))
    else:
        with tempfile.TemporaryDirectory(dir=options.folder, prefix="restoration-") as root:
            small, _ = prepared(Path(root), float(SMALL))
            measured("checkpoints", small)  # compiles the kernels, if this is the first time
            compare(Path(root), options.elements, not options.no_reference)
            if options.sizes:
                scaling(Path(root), [float(size) for size in options.sizes.split(",")])


if __name__ == "__main__":
    main()
