"""Comparisons of numbers made up here, and what reads the files that are made of them."""

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

from lesa_jax.comparison.result import Comparison, Outcome, Point
from lesa_jax.comparison.statistics import Row, Statistics, summarise

HOSTILE = "<script>alert(\"x\")</script> | 'y' & </table> $a_1$ \\"
BASE_LOSS = math.log(40.0)
BASE = Outcome("base", "-", 4, (), 1000, 0, (40.0,))
VOID = {"meta", "br", "link", "img", "input", "hr"}


def curve(losses: Iterable[float], step: int = 100) -> tuple[Point, ...]:
    """Evaluations `step` tokens apart, at 10 operations and half a second a token."""
    return tuple(Point(i * step, 10.0 * i * step, 0.5 * i * step, loss) for i, loss in enumerate(losses))


def trained_base(falls: Iterable[float]) -> Outcome:
    """Base with a curve that is so much above its start."""
    return replace(BASE, curves=(curve([BASE_LOSS + fall for fall in falls]),))


def grown(
    method: str = "lesa", placement: str = "top", initial: tuple[float, ...] = (44.0,), curves: Any = (), **more: Any
) -> Outcome:
    return Outcome(method, placement, 6, (4, 5), 1500, 500, initial, curves, **more)


def comparison(*outcomes: Outcome, base: Outcome = BASE, seeds: tuple[int, ...] = (0,), **more: Any) -> Comparison:
    values = {
        "model": "demo",
        "text": "held-out.txt",
        "protocol": "corpus",
        "sequence_length": 64,
        "train_data": "train.txt",
        "train_tokens": 200,
        "trained": "new layers",
        "command": "python -m lesa_jax.compare",
        "versions": {"lesa_jax": "0.1.0"},
    }
    return Comparison(seeds=seeds, outcomes=(base, *outcomes), **{**values, **more})


def trained() -> Comparison:
    """Two methods, three seeds."""
    falls = [BASE_LOSS + 0.1, BASE_LOSS - 0.1, BASE_LOSS - 0.2]
    stays = [BASE_LOSS + 0.5, BASE_LOSS + 0.2, BASE_LOSS + 0.1]
    curves = [
        tuple(curve([loss + noise for loss in losses]) for noise in (-0.01, 0.0, 0.01)) for losses in (falls, stays)
    ]
    first = grown(initial=(44.0, 44.5, 43.5), curves=curves[0], step_flops=5e6, backward_depth=2)
    return comparison(first, grown("solar", "stacked", (66.0,), curves[1], step_flops=6e6), seeds=(0, 1, 2))


def statistics(*outcomes: Outcome, **more: Any) -> Statistics:
    return summarise(comparison(*outcomes, **more))


def rows(*outcomes: Outcome, **more: Any) -> tuple[Row, ...]:
    return statistics(*outcomes, **more).rows


class Walk(HTMLParser):
    """Checks that tags close in order; keeps tags, attributes and text."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


def strict(text: str) -> Any:
    """JSON without NaN and infinities."""

    def refuse(name: str) -> None:
        raise AssertionError(name)

    return json.loads(text, parse_constant=refuse)
