"""On trained models the methods stand in the published order, and transformers computes what we compute."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from lesa_jax import demo
from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.models.decoder import logits
from lesa_jax.models.load import load_model
from tests.support.shared import SHARED
from tests.support.tiny import torch_logits

TOP = {
    "llama_pro": {"placement": "top"},
    "lesa_published": {},
    "lesa": {},
    "solar": {},
    "duplicate": {"placement": "top"},
}


@pytest.fixture(scope="module")
def grown(tmp_path_factory, books16) -> dict[str, tuple[Path, float, float]]:
    """Folder, perplexity before and after for each method, 16 -> 24 layers, on 300 kB of held-out books."""
    folder = tmp_path_factory.mktemp("books16")
    text = folder / "text.txt"
    text.write_text((SHARED / "data" / "books-val.txt").read_text("utf-8")[:300_000], "utf-8")
    results = {}
    for method, options in TOP.items():
        output = folder / method
        settings = ExpandSettings(str(books16), output, method=method, eval_text=text, sequence_length=256, **options)
        perplexity = expand(settings).perplexity
        results[method] = (output, perplexity["before"], perplexity["after"])
    return results


@pytest.mark.slow
def test_initial_perplexity_has_the_published_order(grown):
    base = grown["lesa_published"][1]
    after = {method: perplexity for method, (_, _, perplexity) in grown.items()}
    assert after["llama_pro"] == base, "LLaMA Pro does not change the function"
    assert after["llama_pro"] <= after["lesa_published"] < after["solar"] < after["duplicate"]
    assert after["lesa_published"] < 1.02 * base
    assert after["lesa"] < 1.001 * base, "as loud as predictions are right, it is nearly silent"


@pytest.mark.slow
@pytest.mark.parametrize("method", TOP)
def test_transformers_gives_our_logits_on_the_grown_model(grown, method):
    folder, _, _ = grown[method]
    tokens = np.random.default_rng(0).integers(0, 4096, (2, 128))
    params, config = load_model(folder)
    ours = logits(params, jnp.asarray(tokens), config)
    np.testing.assert_allclose(ours, torch_logits(folder, tokens.tolist()).numpy(), atol=1e-4)


def test_the_demo_model_grows_and_keeps_its_perplexity(tmp_path, monkeypatch):
    """What `make expand` does, on less text and with the method that must not change anything."""
    text = demo.evaluation_text()[:20_000]
    monkeypatch.setattr(demo, "evaluation_text", lambda: text)
    perplexity = expand(ExpandSettings(output=tmp_path / "out", method="llama_pro", placement="top")).perplexity
    assert perplexity["after"] == perplexity["before"] < 60
