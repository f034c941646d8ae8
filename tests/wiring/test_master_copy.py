"""What is trained is kept in float32, whatever the models compute in."""

import pytest

from ovd_jax.cli import flags
from ovd_jax.wiring.models import find_model, load_model, load_student


@pytest.mark.parametrize("compute", ["bfloat16", "float32"])
@pytest.mark.parametrize("rank", [0, 4])
def test_what_is_trained_is_kept_in_float32(rank, compute):
    config = flags.load_file("configs/quickstart.py")
    with config.unlocked():
        config.compute_dtype, config.lora.rank = compute, rank
    folder = find_model("quickstart", "student")
    layers = load_student(folder, config).layers
    trained = [layers.q.kernel] if not rank else [layers.q.lora_a, layers.q.lora_b]
    assert {str(weights.dtype) for weights in trained} == {"float32"}
    frozen = load_model(folder, config).layers.q.kernel
    assert str(frozen.dtype) == compute
    if rank:
        assert str(layers.q.kernel.dtype) == compute
