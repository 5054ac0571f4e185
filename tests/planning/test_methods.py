"""Which methods can be registered: their names become options and files, their parts must be known to plans."""

from dataclasses import replace

import pytest

from lesa_jax.base.errors import InputError
from lesa_jax.planning.methods import METHODS, Copy, Method, register

METHOD = Method("", "", "top", Copy())


@pytest.mark.parametrize("name", ["mine", "Mine2", "a-b", "a.b_c", "4x", "x" * 64, "not-top-of-all"])
def test_a_name_that_a_file_can_have(registry, name):
    register(name, METHOD)
    assert METHODS[name].name == name


@pytest.mark.parametrize(
    "name",
    ["", " ", "a b", "a/b", "../a", "..", ".a", "-a", "a,b", "a\n", "a\0", "ä", "x" * 65, "x" * 300,
     "base", "BASE", "all", "lesa", "LESA", "a-top", "identity-as-lesa", "lesa-even", "lesa-Ends"],
)  # fmt: skip
def test_a_name_that_no_file_can_have_or_that_means_something_else(registry, name):
    before = dict(METHODS)
    with pytest.raises(InputError, match="method") as caught:
        register(name, METHOD)
    assert "\n" not in str(caught.value)
    assert before == METHODS


def test_names_that_differ_by_case_only(registry):
    register("mine", METHOD)
    with pytest.raises(InputError, match="mine means something else already"):
        register("Mine", METHOD)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"placement": "left"}, "placement 'left'; known are top"),
        ({"placement": None}, "placement None"),
        ({"norm_source": "last"}, "norm_source 'last'; known are first"),
        ({"scale": float("nan")}, "scale nan"),
        ({"initialiser": "average"}, "no function of .*but 'average'"),
    ],
)
def test_a_part_that_there_is_not(registry, part, message):
    wrong = replace(METHOD)
    for name, value in part.items():
        object.__setattr__(wrong, name, value)  # the tests' own check of types would be first otherwise
    with pytest.raises(InputError, match=message):
        register("mine", wrong)
