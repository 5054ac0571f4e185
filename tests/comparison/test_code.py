"""What a registered method computes, told by its code and by what the code refers to."""

import functools
import importlib.util
import subprocess
import sys
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest

from lesa_jax.comparison.code import method_digest
from lesa_jax.planning.methods import METHODS, Method

NUMBERS = count()
START = """
import functools
import jax
import numpy as np
import {helper}
SCALE = 2.0
TABLE = np.arange(3.0)

def help(x):
    return x * SCALE

def factor(scale):
    def initialiser(weights, gaps, key, shift=0.5):
        return help(weights[np.array(gaps)]) * scale + TABLE.sum() + {helper}.CONSTANT
    return initialiser

class Object:
    def __init__(self, scale):
        self.scale = scale
    def __call__(self, weights, gaps, key):
        return weights[np.array(gaps)] * self.scale

inner = factor(3.0)
inner_jitted = jax.jit(inner)
part = functools.partial(inner, shift=1.0)
thing = Object(2.0)
"""


def load(folder: Path, text: str, helper: str = "CONSTANT = 1") -> ModuleType:
    """A module of its own with this text, beside one that it imports."""
    name = f"module_{next(NUMBERS)}"
    (folder / "helper_of_test.py").write_text(helper)
    sys.modules.pop("helper_of_test", None)
    (folder / f"{name}.py").write_text(text.format(helper="helper_of_test"))
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    sys.path.insert(0, str(folder))
    try:
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module


def of(initialiser) -> str:
    return method_digest(Method("", "", "top", initialiser))


@pytest.mark.parametrize("name", ["inner", "inner_jitted", "part", "thing"])
@pytest.mark.parametrize(
    ("before", "after"),
    [("SCALE = 2.0", "SCALE = 2.5"), ("arange(3.0)", "arange(4.0)"), ("x * SCALE", "x / SCALE"), ("3.0)\n", "3.5)\n")],
)
def test_another_file_is_another_method(tmp_path, name, before, after):
    first, second = load(tmp_path, START), load(tmp_path, START.replace(before, after))
    assert of(getattr(first, name)) != of(getattr(second, name))


@pytest.mark.parametrize("name", ["inner", "inner_jitted", "part", "thing"])
def test_the_same_file_is_the_same_method(tmp_path, name):
    first, second = load(tmp_path, START), load(tmp_path, START)
    assert of(getattr(first, name)) == of(getattr(first, name)) == of(getattr(second, name))


def test_values_count_where_the_file_is_the_same(tmp_path):
    """They may come from anywhere: an argument, the environment, another module."""
    module = load(tmp_path, START)
    before = {name: of(getattr(module, name)) for name in ("inner", "part", "thing")}
    assert of(module.factor(4.0)) != before["inner"]
    assert of(functools.partial(module.inner, shift=2.0)) != before["part"]
    module.thing.scale = 3.0
    assert of(module.thing) != before["thing"]
    module.SCALE = 7.0
    assert of(module.inner) != before["inner"]
    module.SCALE = 2.0
    assert of(module.inner) == before["inner"]
    module.TABLE[0] = 1.0
    assert of(module.inner) != before["inner"]
    assert of(load(tmp_path, START, "CONSTANT = 2").inner) != before["inner"]


def test_code_without_a_file_counts(tmp_path):
    """As in a notebook."""

    def make(text):
        space = {"np": np}
        exec(text, space)
        return space["f"]

    first = "def f(weights, gaps, key):\n    return weights[np.array(gaps)] * 2"
    assert of(make(first)) == of(make(first))
    assert of(make(first)) != of(make(first.replace("2", "3")))
    assert of(make(first)) != of(make(first.replace("*", "+")))


def test_every_part_of_a_method_counts_but_prose():
    method = METHODS["average"]
    assert method_digest(replace(method, summary="x", source="y")) == method_digest(method)
    for part in ({"scale": 0.5}, {"norm_source": "first"}, {"placement": "even"}, {"seeded": True}):
        assert method_digest(replace(method, **part)) != method_digest(method), part


def test_methods_of_the_package_differ():
    assert len({method_digest(replace(method, name="")) for method in METHODS.values()}) > 10


def test_what_refers_to_itself_ends():
    @dataclass
    class Ring:
        ring: "Ring | None" = None

    ring = Ring()
    ring.ring = ring

    def recursive(weights, gaps, key):
        return weights if ring else recursive(weights, gaps, jax.random.key(0))

    assert of(recursive) == of(recursive)


def test_other_processes_find_the_same(tmp_path):
    """With code that was just compiled, and with code that was kept."""
    (tmp_path / "helper_of_test.py").write_text("CONSTANT = 1")
    (tmp_path / "mine.py").write_text(START.format(helper="helper_of_test"))
    ask = "import mine; from lesa_jax.comparison.code import method_digest as d; from lesa_jax import Method as M;" + (
        "print(*(d(M('', '', 'top', getattr(mine, n))) for n in ('inner', 'inner_jitted', 'part', 'thing')))"
    )
    root = str(Path(__file__).parents[2])
    environment = {"PYTHONPATH": f"{root}:{tmp_path}", "JAX_PLATFORMS": "cpu"}
    answers = [
        subprocess.run([sys.executable, "-c", ask], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
