"""Weights in files: cut into shards, found again, and read in pieces onto devices."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ovd_jax.models import hf, shards

ROOT = Path(__file__).resolve().parents[2]
INDEX = "model.safetensors.index.json"


def saved(model, folder, max_shard_bytes=2000):
    hf.save(model, folder, max_shard_bytes=max_shard_bytes)
    return folder


def test_no_shard_is_larger_than_asked_unless_it_holds_one_tensor(model, tmp_path):
    saved(model, tmp_path)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 3
    index = json.loads((tmp_path / INDEX).read_text())
    total, found = 0, {}
    for number, path in enumerate(files, start=1):
        assert path.name == f"model-{number:05}-of-{len(files):05}.safetensors"
        tensors = load_file(path)
        size = sum(tensor.nbytes for tensor in tensors.values())
        assert size <= 2000 or len(tensors) == 1
        total += size
        found |= dict.fromkeys(tensors, path.name)
    assert index == {"metadata": {"total_size": total}, "weight_map": found}
    assert total == sum(leaf.nbytes for leaf in jax.tree.leaves(model))
    chex.assert_trees_all_equal(hf.load(tmp_path), model)


def test_a_model_that_fits_is_one_file_and_old_shards_go(model, tmp_path):
    saved(model, tmp_path / "out")
    saved(model, tmp_path / "out", max_shard_bytes=10**6)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"config.json", "model.safetensors"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]  # no scratch folder


def test_a_folder_that_holds_no_model_is_not_written_over(model, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is left alone"):
        hf.save(model, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_save_that_fails_leaves_the_model_before_it(model, tmp_path):
    hf.save(model, tmp_path / "out")
    with pytest.raises(AttributeError):
        hf.save(model, tmp_path / "out", tokenizer=object())
    chex.assert_trees_all_equal(hf.load(tmp_path / "out"), model)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_only_files_of_the_index_are_read(model, tmp_path):
    """Some folders on the hub hold the weights a second time, under other names."""
    saved(model, tmp_path)
    save_file({"model.norm.weight": np.zeros(3)}, tmp_path / "consolidated.safetensors")
    chex.assert_trees_all_equal(hf.load(tmp_path), model)
    (tmp_path / INDEX).unlink()
    (tmp_path / "consolidated.safetensors").unlink()
    chex.assert_trees_all_equal(hf.load(tmp_path), model)  # nor is the index needed


def test_a_missing_shard_is_named(model, tmp_path):
    first = sorted(saved(model, tmp_path).glob("*.safetensors"))[0]
    first.unlink()
    with pytest.raises(ValueError, match=f"lacks {first.name}.*fetch the folder again"):
        hf.load(tmp_path)


def test_a_file_cut_short_is_named(model, tmp_path):
    saved(model, tmp_path, max_shard_bytes=10**6)
    os.truncate(tmp_path / "model.safetensors", 3000)
    with pytest.raises(ValueError, match=r"model\.safetensors is no whole safetensors"):
        hf.load(tmp_path)


def test_a_folder_in_a_file_s_place_is_named(model, tmp_path):
    saved(model, tmp_path, max_shard_bytes=10**6)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(ValueError, match=r"model\.safetensors is no whole safetensors"):
        hf.load(tmp_path)


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float32"])
def test_weights_of_every_dtype_become_float32(dtype, model, tmp_path):
    saved(model, tmp_path, max_shard_bytes=10**6)
    path = tmp_path / "model.safetensors"
    save_file({k: v.astype(dtype) for k, v in load_file(path).items()}, path)
    loaded = jax.tree.leaves(hf.load(tmp_path, jnp.bfloat16))
    assert {leaf.dtype for leaf in loaded} == {jnp.dtype("float32")}
    chex.assert_trees_all_equal(
        loaded, [np.asarray(x).astype(dtype) for x in jax.tree.leaves(model)]
    )


def test_quantised_weights_are_refused_by_name(model, tmp_path):
    saved(model, tmp_path, max_shard_bytes=10**6)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.int8)
    save_file(tensors, path)
    with pytest.raises(ValueError, match=r"model\.norm\.weight is stored as I8"):
        hf.load(tmp_path)


def test_a_dtype_that_is_not_written_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match=r"'int8' is not one of float32, bfloat16"):
        hf.save(model, tmp_path / "out", dtype=jnp.int8)
    assert not (tmp_path / "out").exists()


def test_a_slice_is_read_without_the_rest(tmp_path):
    whole = np.arange(12.0, dtype=np.float32).reshape(3, 4)
    save_file({"a": whole}, tmp_path / "model.safetensors")
    tensors = shards.Tensors(tmp_path)
    index = (slice(1, 3), slice(None, 2))
    np.testing.assert_array_equal(tensors.read("a", index), whole[index])
    np.testing.assert_array_equal(tensors.read("a"), whole)


MEMORY = r"""
import re, sys
import jax, jax.numpy as jnp
from pathlib import Path
from ovd_jax.models import hf

def peak():  # not getrusage's: it begins with what the parent process had
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024

jax.block_until_ready(jax.jit(lambda x: x + 1)(jnp.ones(3)))
before = peak()
model = hf.load(Path(sys.argv[1]))
loaded = peak()
hf.save(model, Path(sys.argv[2]), dtype=jnp.float32, max_shard_bytes=10**8)
sizes = sum(leaf.nbytes for leaf in jax.tree.leaves(model))
print(sizes, loaded - before, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_and_saving_need_the_model_and_a_tensor(dtype, tmp_path):
    """765 MiB, of which a stack of layers is 192 and the largest tensor 32: neither a
    second copy of a stack nor the mapped file has room in the bound."""
    sizes = dict(
        model_type="qwen3", vocab_size=8192, hidden_size=1024, num_hidden_layers=16,
        num_attention_heads=16, num_key_value_heads=4, head_dim=64,
        intermediate_size=3072, tie_word_embeddings=True,
    )  # fmt: skip
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(sizes))
    shape = jax.eval_shape(
        lambda: hf.Transformer(hf.read_config(folder), jax.random.key(0))
    )
    noise = np.random.default_rng(0).standard_normal(8192 * 1024).astype(dtype)

    def random(tensor):
        count = int(np.prod(tensor.shape))
        fetch = lambda: noise[:count].reshape(tensor.shape)  # noqa: E731
        return shards.Tensor(tensor.name, tensor.shape, fetch)

    tensors = [random(tensor) for tensor in hf.stored_tensors(shape, dtype)]
    shards.write(folder, tensors, dtype=dtype, max_shard_bytes=10**8)
    command = [sys.executable, "-c", MEMORY, str(folder), str(tmp_path / "saved")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    model, loaded, saved = map(int, done.stdout.split())
    tensor, constant = 2**25, 2**27  # compiled code and buffers are in the second
    assert model > 7 * 10**8
    assert model < loaded < model + tensor + constant
    assert saved < model + tensor + constant


DEVICES = """
import json, sys
from pathlib import Path
import jax
folder, out, process, processes, port = sys.argv[1:]
if processes != "1":
    jax.distributed.initialize(f"127.0.0.1:{port}", int(processes), int(process))
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from ovd_jax.models import hf, shards
from ovd_jax.models.transformer import Transformer

read = shards.Tensors.read
bytes_read = []

def counted(self, *arguments):
    value = read(self, *arguments)
    bytes_read.append(value.nbytes)
    return value

shards.Tensors.read = counted
mesh = jax.make_mesh((2, 2), ("fsdp", "tp"), axis_types=(AxisType.Auto,) * 2)

def place(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if "embed" in name or "head" in name:
        spec = P("tp", "fsdp")
    elif "kernel" in name:
        spec = P(None, "tp", "fsdp") if "/o/" in name else P(None, "fsdp", "tp")
    else:
        spec = P()
    return NamedSharding(mesh, spec)

config = hf.read_config(folder)
abstract = jax.eval_shape(lambda: Transformer(config, jax.random.key(0)))
places = jax.tree_util.tree_map_with_path(place, abstract)
model = hf.load(Path(folder), shardings=places)
for leaf, sharding in zip(jax.tree.leaves(model), jax.tree.leaves(places), strict=True):
    assert leaf.sharding == sharding, (leaf.sharding, sharding)
hf.save(model, Path(out), max_shard_bytes=2000)
print(json.dumps(sum(bytes_read)))
"""


@pytest.mark.multiprocess
@pytest.mark.parametrize("processes", [1, 2])
def test_every_device_reads_its_own_slices_and_all_are_saved_again(
    processes, config, make_model, tmp_path
):
    """Of the matrices each of two processes reads half; norms and biases are small."""
    model = make_model(config)
    hf.save(model, tmp_path / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = f"--xla_force_host_platform_device_count={4 // processes}"
    env = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    folders = [str(tmp_path / "model"), str(tmp_path / "out")]
    pipes = dict(text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    command = [sys.executable, "-c", DEVICES, *folders]
    started = [
        subprocess.Popen(
            [*command, str(i), str(processes), str(port)], cwd=ROOT, env=env, **pipes
        )
        for i in range(processes)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(model))
    for process, (out, errors) in zip(started, outputs, strict=True):
        assert process.returncode == 0, errors
        assert int(out.splitlines()[-1]) < 1.2 * whole / processes
    chex.assert_trees_all_equal(hf.load(tmp_path / "out"), model)
    assert (tmp_path / "out" / INDEX).is_file()
