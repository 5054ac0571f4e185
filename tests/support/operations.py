"""Counting what a traced program computes: the matrix products, those of a loop's body as often as it runs."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import Jaxpr, JaxprEqn
from jax.interpreters.partial_eval import dce_jaxpr


def product_operations(function: Callable[..., Any], *arguments: Any) -> int:
    """Additions and multiplications of the matrix products that the function's results depend on."""
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    jaxpr, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _operations(jaxpr)


def _operations(jaxpr: Jaxpr) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: JaxprEqn) -> int:
    match equation.primitive.name:
        case "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape  # pyright: ignore[reportAttributeAccessIssue]
            result = equation.outvars[0].aval.shape  # pyright: ignore[reportAttributeAccessIssue]
            return 2 * math.prod(result) * math.prod(shape[axis] for axis in contracted)
        case "scan":
            return equation.params["length"] * sum(map(_operations, _inner(equation)))
        case "while" | "cond" | "conv_general_dilated" as unknown if any(map(_operations, _inner(equation))):
            raise ValueError(f"no telling how much a {unknown} computes")
    return sum(map(_operations, _inner(equation)))


def _inner(equation: JaxprEqn) -> Iterator[Jaxpr]:
    """The programs that an equation calls."""
    for value in equation.params.values():
        for inner in value if isinstance(value, (tuple, list)) else (value,):
            inner = getattr(inner, "jaxpr", inner)
            if isinstance(inner, Jaxpr):
                yield inner
