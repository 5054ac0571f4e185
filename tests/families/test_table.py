"""The families as data: each is tested, and says the truth about its checkpoints."""

import re
from pathlib import Path

import pytest

from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.families.family import Family
from lesa_jax.families.fields import find_layers
from lesa_jax.families.roles import writes_residual
from lesa_jax.families.table import FAMILIES, description, find_family
from tests.support.tiny import DECODERS, ENCODER_DECODERS, RUNNING, family_of, tiny

README = Path(__file__).parents[2] / "README.md"


def test_every_family_is_in_the_tests_and_every_model_of_the_tests_is_of_a_family():
    assert {family_of(name).model_type for name in (*DECODERS, *ENCODER_DECODERS)} == FAMILIES.keys()


def row(family: Family) -> str:
    """Of the README's table."""
    known = ["yes", "no" if family.post_norm else "yes", "yes" if family.read else "no"]
    return f"| {' | '.join([family.models, f'`{family.model_type}`', *known])} |"


def test_the_readme_lists_the_families():
    rows = [line for line in README.read_text().splitlines() if re.match(r"\| [^|]+ \| `", line)]
    assert rows[1:] == [row(family) for family in FAMILIES.values()]  # below the heading


@pytest.mark.parametrize("name", RUNNING)
def test_names_are_those_of_the_checkpoint(name):
    checkpoint = open_checkpoint(tiny(name))
    model = description(checkpoint.config)
    assert model is not None
    names = parts_of(model)
    assert find_layers(checkpoint.config, checkpoint.stacks) == f"{names['layers']}."
    inside = {stack.template.removeprefix(f"{names['layers']}.*.") for stack in checkpoint.stacks}
    for part, called in names.items():
        if part not in ("layers", "head") and not (part.endswith("norm") and not model.norm.weight):
            assert (called if part == "selection_bias" else f"{called}.weight") in inside, part
    assert (f"{names['head']}.weight" in inside) == (not model.tied)
    # What the forward pass adds to the residual stream is what growth silences.
    writers = {part for part, called in names.items() if writes_residual(called)}
    assert writers == names.keys() & {"attention_output", "down", "expert_down", "shared_down"}
    assert len(writers) >= 2


def parts_of(model):
    """What all parts are called that its layers have, those of experts among them."""
    names = {part: called for part, called in vars(model.names).items() if called is not None}
    if model.latent:
        names |= {part: called for part, called in vars(model.latent).items() if isinstance(called, str)}
    if model.experts:
        for part, called in vars(model.experts.names).items():
            if called is not None:
                names[f"expert_{part}" if part in ("gate", "up", "gate_up", "down") else part] = called
    return names


def test_an_unknown_family_grows_and_does_not_run():
    family = find_family({"model_type": "unheard_of"})
    assert family.model_type == "unheard_of"
    assert (family.read, family.transposed, family.post_norm) == (None, frozenset(), False)
    assert find_family({"model_type": "xlnet"}).post_norm
