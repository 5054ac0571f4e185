"""config.json becomes checked values: as transformers resolves them, or one line that names the entry."""

import json
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import transformers as hf

from lesa_jax.base.errors import InputError
from lesa_jax.families.model import Linear, Llama3, Rope
from lesa_jax.models.config import read_config
from lesa_jax.models.decoder import logits
from lesa_jax.models.load import load_model
from lesa_jax.models.rope import inverse_frequencies
from tests.support.tiny import save, torch_logits

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
QWEN2 = LLAMA | {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 3}
MISTRAL = LLAMA | {"model_type": "mistral"}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LINEAR = {"rope_type": "linear", "factor": 4.0}

# What a config.json may say of the rotation, in one place, in two that differ, or beside.
ROTATIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "theta beside": {"rope_theta": 500.0},
    "new": {"rope_parameters": LINEAR | {"rope_theta": 500.0}},
    "old": {"rope_scaling": {"type": "linear", "factor": 2}, "rope_theta": 500.0},
    "both types": {"rope_scaling": {"type": "default", "rope_type": "linear", "factor": 2}},
    "scaling wins": {"rope_scaling": LINEAR, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "scaling wins, whole": {
        "rope_scaling": LLAMA3 | {"original_max_position_embeddings": 32},
        "rope_parameters": LINEAR | {"rope_theta": 500.0},
        "rope_theta": 700.0,
    },
    "empty scaling": {"rope_scaling": {}, "rope_parameters": LINEAR | {"rope_theta": 500.0}, "rope_theta": 700.0},
    "null scaling": {"rope_scaling": None, "rope_parameters": {"rope_theta": 500.0}},
    "null parameters": {"rope_parameters": None, "rope_theta": 500.0},
    "theta inside wins": {"rope_scaling": LINEAR | {"rope_theta": 300.0}, "rope_theta": 700.0},
    "positions from the model": {"rope_scaling": LLAMA3},
    "positions inside": {"rope_scaling": LLAMA3 | {"original_max_position_embeddings": 32}},
    "positions beside": {"rope_scaling": LLAMA3, "original_max_position_embeddings": 16},
    "positions beside win": {
        "rope_parameters": LLAMA3 | {"original_max_position_embeddings": 64},
        "original_max_position_embeddings": 16,
    },
    "whole head": {"partial_rotary_factor": 1.0},
}


@pytest.mark.parametrize("name", ROTATIONS)
@pytest.mark.parametrize("base", [LLAMA, QWEN2, MISTRAL], ids=lambda base: base["model_type"])
def test_the_rotation_is_resolved_as_transformers_does(tmp_path, base, name):
    (tmp_path / "config.json").write_text(json.dumps(base | ROTATIONS[name]))
    theirs = hf.AutoConfig.from_pretrained(tmp_path)
    theirs.standardize_rope_params()  # as each rotary embedding does once more
    expected = theirs.rope_parameters
    (rope,) = read_config(base | ROTATIONS[name]).ropes
    assert rope is not None
    assert rope.theta == expected["rope_theta"]
    kind = {None: "default", Linear: "linear", Llama3: "llama3"}[rope.scaling and type(rope.scaling)]
    assert kind == expected["rope_type"]
    for key, value in vars(rope.scaling).items() if rope.scaling else ():
        assert expected.get(key) == value


@pytest.mark.parametrize("name", ["scaling wins, whole", "positions beside win", "empty scaling"])
def test_logits_follow_the_same_rotation(tmp_path, name):
    save(tmp_path, "llama")
    config = json.loads((tmp_path / "config.json").read_text())
    del config["rope_parameters"]
    (tmp_path / "config.json").write_text(json.dumps(config | ROTATIONS[name]))
    tokens = np.random.default_rng(0).integers(0, 64, (1, 100))
    expected = torch_logits(tmp_path, tokens.tolist()).numpy()
    params, ours = load_model(tmp_path)
    np.testing.assert_allclose(logits(params, jnp.asarray(tokens), ours), expected, atol=1e-5)
    frequencies = [inverse_frequencies(read.ropes[0]) for read in (ours, read_config(config))]
    assert not np.allclose(*frequencies)


NOT_INTEGERS = ["16", 1e3, 2.5, True, -1, 0, [16], {"a": 1}, 10**400, float("nan"), float("inf"), "x" * 1000]
NOT_NUMBERS = ["x", True, -1.0, 0, [1.0], {}, float("nan"), float("inf"), 10**400, None]
NOT_FLAGS = ["true", 1, [], {}, None]
WRONG: list[tuple[dict[str, Any], str, list[Any]]] = [
    *((LLAMA, key, [None, *NOT_INTEGERS]) for key in LLAMA if key not in ("model_type", "num_key_value_heads")),
    (LLAMA, "num_key_value_heads", NOT_INTEGERS),
    (LLAMA, "head_dim", [*NOT_INTEGERS, 7]),
    (LLAMA, "num_hidden_layers", [10**9]),
    (LLAMA, "rms_norm_eps", NOT_NUMBERS),
    (LLAMA, "rope_theta", NOT_NUMBERS),
    (LLAMA, "tie_word_embeddings", NOT_FLAGS),
    (LLAMA, "attention_bias", NOT_FLAGS),
    (LLAMA, "mlp_bias", NOT_FLAGS),
    (LLAMA, "hidden_act", [1, None, ["silu"], {}]),
    (LLAMA, "rope_scaling", ["linear", 3, [LINEAR]]),
    (LLAMA, "rope_parameters", ["linear", 3, [LINEAR]]),
    (LLAMA, "partial_rotary_factor", ["x", 0.5, 0, [1]]),
    (MISTRAL, "sliding_window", NOT_INTEGERS),
    (QWEN2, "sliding_window", NOT_INTEGERS),
    (QWEN2, "use_sliding_window", NOT_FLAGS),
    (QWEN2, "max_window_layers", [value for value in [None, *NOT_INTEGERS] if value != 0 or value is True]),
    (QWEN2, "layer_types", ["full_attention", 6, {}, [1] * 6, [["full_attention"]] * 6]),
]


@pytest.mark.parametrize(
    ("base", "key", "value"),
    [(base, key, value) for base, key, values in WRONG for value in values],
    ids=lambda value: str(value)[:24] if not isinstance(value, dict) or len(value) < 2 else value["model_type"],
)
def test_an_entry_of_a_wrong_type_or_size_is_named(base, key, value):
    with pytest.raises(InputError, match=key) as caught:
        read_config(base | {key: value})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("key", ["factor", "low_freq_factor", "original_max_position_embeddings", "rope_theta"])
@pytest.mark.parametrize("value", [value for value in NOT_NUMBERS if value != {}], ids=lambda value: str(value)[:12])
def test_an_entry_of_the_rotation_is_named(key, value):
    rotation = LLAMA3 | {"original_max_position_embeddings": 32, key: value}
    with pytest.raises(InputError, match=key) as caught:
        read_config(LLAMA | {"rope_parameters": rotation})
    assert "\n" not in str(caught.value)


def test_frequencies_that_leave_no_blend_are_refused():
    with pytest.raises(InputError, match="less than high_freq_factor"):
        read_config(LLAMA | {"rope_parameters": LLAMA3 | {"low_freq_factor": 4.0}})


def test_what_is_absent_or_null_means_what_transformers_takes():
    small = {key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}
    assert read_config(small).num_kv_heads == 4
    assert read_config(MISTRAL | {"num_key_value_heads": None}).num_kv_heads == 4
    assert read_config(LLAMA | {"head_dim": None}).head_dim == 8
    assert read_config(MISTRAL).windows == (4096,) * 6
    assert read_config(MISTRAL | {"sliding_window": None}).windows == (None,) * 6
    assert read_config(QWEN2 | {"sliding_window": 0, "use_sliding_window": False}).windows == (None,) * 6
    assert read_config(LLAMA).ropes == (Rope(10000.0, 8),)
