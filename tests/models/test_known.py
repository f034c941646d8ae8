"""Shapes of well-known checkpoints: as many parameters as their cards say."""

import jax
import pytest

from ovd_jax.models.hf_config import parse_config, to_hf_config
from ovd_jax.models.known import KNOWN
from ovd_jax.models.transformer import Transformer

PARAMETERS = {  # of the safetensors on the hub, exactly
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-Math-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-3B": 3_085_938_688,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M-Instruct": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": 1_711_376_384,
}


def test_every_known_model_has_its_count_here():
    assert KNOWN.keys() == PARAMETERS.keys()


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_model_has_as_many_parameters_as_its_card_says(name):
    model = jax.eval_shape(lambda: Transformer(KNOWN[name], jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(model)) == PARAMETERS[name]


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_model_comes_back_from_its_config_json(name):
    raw = to_hf_config(KNOWN[name])
    assert parse_config(raw) == KNOWN[name]
    assert raw["model_type"] == ("llama" if "Qwen" not in name else name[5:10].lower())
