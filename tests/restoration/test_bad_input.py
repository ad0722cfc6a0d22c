"""Every bad input has an error that names it, and leaves nothing that looks finished."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from restoration_pairs import llama_shapes, load, moved, random_tensors, same_bytes, save
from typer.testing import CliRunner

from sftknow_eval.cli.app import app
from sftknow_eval.cli.verbs import register
from sftknow_eval.errors import (
    CheckpointError,
    ModelError,
    OutOfSpace,
    SettingsError,
    SftknowError,
)
from sftknow_eval.models import safetensors_header
from sftknow_eval.restoration.checkpoint import INDEX, Checkpoint

if not app.registered_commands:
    register(app)


def run(*arguments: str | Path) -> str:
    """Run `sftknow restore`; errors are raised as the command line would report them."""
    result = CliRunner().invoke(app, ["restore", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    base = random_tensors(llama_shapes(), 1, "F32")
    finetuned = save(tmp_path / "ft", moved(base, 2), shards=3)
    return save(tmp_path / "base", base), finetuned


def break_header(path: Path, change: dict[str, object]) -> None:
    """Rewrite a file's header with one tensor's entry changed."""
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    name = next(key for key in header if key != "__metadata__")
    header[name] |= change
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size :])


def test_a_missing_shard_is_named(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (pair[1] / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match="lacks the shard model-00002-of-00003"):
        run(*pair, "--ratios", "20", "--out", tmp_path / "out")


def test_an_index_that_does_not_fit_its_shards_is_refused(pair: tuple[Path, Path]) -> None:
    index = json.loads((pair[1] / INDEX).read_text())
    index["weight_map"]["model.norm.weight"] = "model-00001-of-00003.safetensors"
    index["weight_map"]["model.more.weight"] = "model-00001-of-00003.safetensors"
    (pair[1] / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"places tensor 'model\.\w+\.weight'"):
        Checkpoint.open(pair[1])
    for text in ("[]", '{"weight_map": 3}', '{"weight_map": {"a": "../b.safetensors"}}', "{"):
        (pair[1] / INDEX).write_text(text)
        with pytest.raises(CheckpointError, match="is not an index"):
            Checkpoint.open(pair[1])


def test_the_same_tensor_in_two_shards_is_refused(pair: tuple[Path, Path]) -> None:
    shard = pair[1] / "model-00001-of-00003.safetensors"
    shard.write_bytes((pair[1] / "model-00002-of-00003.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"stands in .* and in"):
        Checkpoint.open(pair[1])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"data_offsets": [0, 10]}, "header lies about tensor"),
        ({"data_offsets": [64, 0]}, "header lies about tensor"),
        ({"data_offsets": [10**9, 10**9 + 64]}, "header lies about tensor"),
        ({"data_offsets": [0]}, "lacks a dtype, a shape or two offsets"),
        ({"data_offsets": [-64, 0]}, "lacks a dtype, a shape or two offsets"),
        ({"data_offsets": [False, 64]}, "lacks a dtype, a shape or two offsets"),
        ({"shape": [-1, 16]}, "lacks a dtype, a shape or two offsets"),
        ({"shape": [2**62, 2**62]}, "header lies about tensor"),
        ({"dtype": "F12"}, "unknown type 'F12'"),
        ({"dtype": 5}, "lacks a dtype"),
    ],
)
def test_a_header_that_lies_is_refused(
    pair: tuple[Path, Path], change: dict[str, object], fault: str
) -> None:
    break_header(pair[0] / "model.safetensors", change)
    with pytest.raises(CheckpointError, match=fault):
        Checkpoint.open(pair[0])


def test_a_truncated_file_is_refused(pair: tuple[Path, Path]) -> None:
    path = pair[0] / "model.safetensors"
    raw = path.read_bytes()
    for size in (0, 5, 8, 100, len(raw) - 1):
        path.write_bytes(raw[:size])
        with pytest.raises(CheckpointError, match="truncated"):
            Checkpoint.open(pair[0])
    path.write_bytes(raw + b"more")
    with pytest.raises(CheckpointError, match="header promises"):
        Checkpoint.open(pair[0])


def test_a_file_cut_while_it_is_read_is_noticed(pair: tuple[Path, Path]) -> None:
    with Checkpoint.open(pair[0]) as checkpoint:
        os.truncate(pair[0] / "model.safetensors", 3000)
        with pytest.raises(CheckpointError, match="cut short"):
            checkpoint.array("model.norm.weight")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "F4", "U8", "X"]) | json_values,
        "shape": st.lists(st.integers(-2, 9), max_size=3) | json_values,
        "data_offsets": st.lists(st.integers(-9, 99), max_size=3) | json_values,
    },
)


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    header=st.dictionaries(st.text(max_size=6), entries | json_values, max_size=3) | json_values,
    raw=st.none() | st.binary(max_size=60),
    size=st.none() | st.integers(0, 2**64 - 1),
    data=st.integers(0, 80),
)
def test_any_header_is_read_truly_or_refused_by_name(
    tmp_path: Path, header: object, raw: bytes | None, size: int | None, data: int
) -> None:
    """What is accepted must be what the safetensors library accepts, with the same tensors."""
    text = json.dumps(header).encode() if raw is None else raw
    length = len(text) if size is None else size
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", length) + text + bytes(data))
    try:
        found, begin = safetensors_header(path)
    except CheckpointError as error:
        assert str(path) in str(error)  # noqa: PT017 - both outcomes are right
        return
    from safetensors import safe_open

    assert begin + data == path.stat().st_size
    if all(entry["dtype"] in ("F32", "BF16", "U8") for entry in found.values()):
        with safe_open(path, "pt") as theirs:
            assert set(theirs.keys()) == set(found)
            for name, entry in found.items():
                assert list(theirs.get_slice(name).get_shape()) == entry["shape"]


def test_deeply_nested_and_repeated_headers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    entry = b'{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    for text, fault in (
        (b"[" * 100_000, "not JSON"),
        (b'{"a":' + entry + b',"a":' + entry + b"}", "'a' stands in it twice"),
        (b"\xff\xfe{}", "not JSON"),
    ):
        path.write_bytes(struct.pack("<Q", len(text)) + text)
        with pytest.raises(CheckpointError, match=fault):
            safetensors_header(path)


def test_pickled_weights_are_refused_with_the_command_that_converts_them(tmp_path: Path) -> None:
    folder = save(tmp_path / "m", random_tensors(llama_shapes(), 1))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pickled.*from_pretrained.*save_pretrained"):
        Checkpoint.open(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="holds no weights"):
        Checkpoint.open(folder)


def test_shapes_and_architectures_that_differ_are_refused(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    out = ("--ratios", "20", "--out", tmp_path / "out")
    wide = save(tmp_path / "wide", random_tensors(llama_shapes(hidden=32), 1))
    with pytest.raises(CheckpointError, match=r"mlp.*shape \[32, 64\], but \[16, 32\]"):
        run(pair[0], wide, *out)
    deep = save(tmp_path / "deep", random_tensors(llama_shapes(layers=3), 1))
    with pytest.raises(CheckpointError, match=r"base .* has no tensor 'model\.layers\.2"):
        run(pair[0], deep, *out)
    with pytest.raises(CheckpointError, match=r"fine-tune .* has no tensor 'model\.layers\.2"):
        run(deep, pair[1], *out)
    config = {"model_type": "gpt2"}
    other = save(tmp_path / "other", random_tensors(llama_shapes(), 1), config=config)
    with pytest.raises(CheckpointError, match="'gpt2' and 'llama'"):
        run(other, pair[1], *out)
    less = random_tensors(llama_shapes(vocabulary=30), 1)
    with pytest.raises(CheckpointError, match="Only a vocabulary may have grown"):
        run(pair[0], save(tmp_path / "less", less), *out, "--region", "all")


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float64, torch.int8])
def test_types_that_cannot_be_compared_are_refused_by_name(
    pair: tuple[Path, Path], tmp_path: Path, kind: torch.dtype
) -> None:
    tensors = load(pair[1])
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name] = tensors[name].to(kind)
    odd = save(tmp_path / "odd", tensors)
    with pytest.raises(CheckpointError, match=f"'{name}' has the type"):
        run(pair[0], odd, "--ratios", "20", "--out", tmp_path / "out")
    with pytest.raises(CheckpointError, match=f"'{name}' has the type"):
        run(odd, pair[1], "--ratios", "20", "--out", tmp_path / "out")


def test_quantised_models_are_refused_by_method(pair: tuple[Path, Path], tmp_path: Path) -> None:
    config = {"quantization_config": {"quant_method": "gptq"}}
    odd = save(tmp_path / "odd", load(pair[1]), config=config)
    with pytest.raises(CheckpointError, match=r"quantised \(method 'gptq'\)"):
        run(pair[0], odd, "--ratios", "20", "--out", tmp_path / "out")


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_named(
    pair: tuple[Path, Path], tmp_path: Path, wrong: float
) -> None:
    tensors = load(pair[1])
    name = "model.layers.1.mlp.up_proj.weight"
    tensors[name][3, 2] = wrong
    odd = save(tmp_path / "odd", tensors)
    out = tmp_path / "out"
    with pytest.raises(CheckpointError, match=f"'{name}' holds (nan|inf) at flat index 50"):
        run(pair[0], odd, "--ratios", "20", "--out", out)
    assert not out.exists()
    run(pair[0], odd, "--ratios", "20", "--out", out, "--exclude", name)


def test_identical_checkpoints_are_said_to_be(pair: tuple[Path, Path], tmp_path: Path) -> None:
    output = run(pair[0], pair[0], "--ratios", "20,60", "--out", tmp_path / "out")
    assert "Nothing to restore" in output
    recipe = json.loads((tmp_path / "out/ratio-20.json").read_text())
    assert (recipe["restored"], recipe["changed"], recipe["tensors"]) == (0, 0, {})
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        *(".sftknow.lock", "ratio-20.json", "ratio-60.json"),
    ]


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("--ratios", "101"), "101 is not from 0 to 100"),
        (("--ratios", "-1"), "-1 is not from 0 to 100"),
        (("--ratios", "nan"), "nan is not from 0 to 100"),
        (("--ratios", "five"), "expected numbers"),
        (("--ratios", "5", "--region", "norms"), "expected one of transformer"),
        (("--ratios", "5", "--order", "up"), "expected one of top, bottom, random"),
        (("--ratios", "5", "--arithmetic", "float16"), "expected one of float32"),
        (("--ratios", "5", "--layers", "2-1"), "expected numbers and ranges"),
        (("--ratios", "5", "--layers", "0-7"), "has no layer 2: its layers are 0 to 1"),
        (("--ratios", "5", "--include", "h.*"), "'h.\\*' fits no tensor"),
        (("--ratios", "5", "--exclude", "*"), "selects no tensor .* Names seen: lm_head.weight"),
        ((), "exactly one of --ratios, --recipe and --mask"),
        (("--recipe", "no.json"), "no.json does not exist"),
    ],
)
def test_options_out_of_range_are_refused(
    pair: tuple[Path, Path], tmp_path: Path, options: tuple[str, ...], fault: str
) -> None:
    with pytest.raises(SettingsError, match=fault):
        run(*pair, "--out", tmp_path / "out", *options)


def test_recipes_that_are_not_recipes_are_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    run(*pair, "--ratios", "20", "--out", tmp_path / "made", "--recipe-only")
    good = json.loads((tmp_path / "made/ratio-20.json").read_text())
    for change, fault in (
        ({"version": 2}, "version 2; this release knows versions up to 1"),
        ({"colour": 3}, "colour: Extra inputs"),
        ({"ratio": 120}, "ratio: Input should be less than or equal to 100"),
        ({"threshold": "12"}, "threshold: String should match"),
    ):
        path.write_text(json.dumps(good | change))
        with pytest.raises(SettingsError, match=fault):
            run(*pair, "--recipe", path, "--out", tmp_path / "out")
    path.write_text("[]")
    with pytest.raises(SettingsError, match="is not a recipe"):
        run(*pair, "--recipe", path, "--out", tmp_path / "out")


def test_a_recipe_on_other_checkpoints_names_the_tensor(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    run(*pair, "--ratios", "20", "--out", tmp_path / "made", "--recipe-only")
    recipe = tmp_path / "made/ratio-20.json"
    run(*pair, "--recipe", recipe, "--out", tmp_path / "out")
    run(*pair, "--ratios", "20", "--out", tmp_path / "direct")
    assert same_bytes(load(tmp_path / "out/ratio-20"), load(tmp_path / "direct/ratio-20"))
    tensors = load(pair[0])
    tensors["model.layers.1.mlp.up_proj.weight"][0, 0] += 1
    other = save(tmp_path / "other", tensors)
    with pytest.raises(CheckpointError, match=r"'model\.layers\.1\.mlp\.up_proj\.weight' of the b"):
        run(other, pair[1], "--recipe", recipe, "--out", tmp_path / "wrong")


def test_a_second_run_into_one_folder_is_refused(pair: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with (tmp_path / "out/.sftknow.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(SettingsError, match="Another run is writing"):
            run(*pair, "--ratios", "20", "--out", tmp_path / "out")


def test_what_is_there_is_kept_and_other_settings_are_refused(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    options = ("--out", tmp_path / "out", "--json")
    run(*pair, "--ratios", "20", *options)
    again = json.loads(run(*pair, "--ratios", "20,40", *options))
    assert [row["written"] for row in again] == [False, True]
    with pytest.raises(SettingsError, match="ratio-20 is there already"):
        run(*pair, "--ratios", "20", *options, "--order", "bottom")


def test_a_disk_that_fills_up_leaves_nothing_unfinished(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """RLIMIT_FSIZE makes every write beyond it fail as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(OutOfSpace, match="No space left while writing"):
            run(*pair, "--ratios", "20,40", "--out", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".sftknow.lock"]
    run(*pair, "--ratios", "20,40", "--out", tmp_path / "out")


def test_a_killed_run_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    """SIGKILL at several moments while 25 MB are written; the next run goes on cleanly."""
    shapes = {f"model.layers.{i}.mlp.w.weight": (1000, 1500) for i in range(3)}
    base = random_tensors(shapes, 1)
    save(tmp_path / "base", base)
    save(tmp_path / "ft", moved(base, 2))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "sftknow_eval", "restore", tmp_path / "base", tmp_path / "ft"]
    command += ["--ratios", "5,20,60", "--out", out]
    seen = set()
    for delay in (0.0, 0.02, 0.05):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        limit = time.monotonic() + 60
        while not list(out.glob(".ratio-*.partial")) and process.poll() is None:
            assert time.monotonic() < limit
            time.sleep(0.002)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for folder in out.glob("ratio-*"):
            assert (folder / "recipe.json").is_file()
            seen.add(folder.name)
    run(tmp_path / "base", tmp_path / "ft", "--ratios", "5,20,60", "--out", out)
    run(
        tmp_path / "base", tmp_path / "ft", "--ratios", "5,20,60", "--out", tmp_path / "undisturbed"
    )
    assert not list(out.glob(".ratio-*"))
    for ratio in (5, 20, 60):
        name = f"ratio-{ratio}"
        assert same_bytes(load(out / name), load(tmp_path / "undisturbed" / name))


def test_the_command_line_exits_with_code_two_and_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sftknow_eval", "restore", "./none", "./none"]
    command += ["--ratios", "5", "--out", str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "does not exist" in result.stderr
    assert "Traceback" not in result.stderr


def test_all_errors_are_of_the_projects_tree() -> None:
    for error in (CheckpointError, ModelError, OutOfSpace, SettingsError):
        assert issubclass(error, SftknowError)
