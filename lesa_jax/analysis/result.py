"""What an analysis found, as data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from lesa_jax.analysis.blocks import Block, best_blocks, nearly_one
from lesa_jax.analysis.effective import (
    by_cosine,
    by_divergence,
    by_last_divergence,
    by_overlap,
    depth_score,
    weighted_layer,
)
from lesa_jax.analysis.measure import Measured
from lesa_jax.analysis.weights import KindMeasures
from lesa_jax.planning.placement import insert, place
from lesa_jax.planning.plan import Plan
from lesa_jax.reports.facts import Fact, Facts

SIGNIFICANT = 0.05  # chance that shuffled layers alone make any kind of a model look continuous


@dataclass(frozen=True, repr=False)
class Analysis(Facts):
    """Of one model on one text.

    Attributes:
      model, text: their names.
      tokens: that were looked at.
      plan: by which it was grown, if growth.json tells.
      measured: on the text.
      weights: of its matrices, kind by kind.
      seconds: on the clock.
      base: the same of the model that it was grown from, if that was named.
    """

    model: str
    text: str
    tokens: int
    plan: Plan | None
    measured: Measured
    weights: tuple[KindMeasures, ...]
    seconds: float
    base: "Analysis | None" = None

    @property
    def count(self) -> int:
        """How many layers there are."""
        return len(self.measured.layers)

    @property
    def new(self) -> tuple[int, ...]:
        """Positions of the layers that growth.json calls new."""
        return () if self.plan is None else self.plan.new_layers

    @property
    def old(self) -> tuple[int, ...]:
        """Positions of the others: of each original, in order."""
        return tuple(range(self.count)) if self.plan is None else self.plan.old_layers

    @property
    def effective_depth(self) -> Mapping[str, float | int | None]:
        """By each measure, as a layer's number."""
        layers, effects = self.measured.layers, self.measured.effects
        return {
            "cosine": by_cosine(layers),
            "divergence": by_divergence(layers),
            "last_divergence": by_last_divergence(layers),
            "overlap": by_overlap(layers),
            "depth_score": depth_score(effects.layers),
            "output_score": weighted_layer(effects.output),
        }

    @property
    def ways(self) -> tuple[float, ...]:
        """The share of the way from the embedding to the end that each layer makes; together 1."""
        places = [*(layer.projection for layer in self.measured.layers), 1.0]
        return tuple(after - before for before, after in pairwise(places))

    @property
    def continuous(self) -> tuple[KindMeasures, ...]:
        """The kinds whose layers lie in the order of depth, with an error of `SIGNIFICANT` over all kinds together."""
        asked = [kind for kind in self.weights if kind.continuity is not None]
        return tuple(kind for kind in asked if kind.continuity and kind.continuity.p < SIGNIFICANT / len(asked))

    @property
    def nearly_one(self) -> Block | None:
        """The longest block of layers that is little more than one, see `blocks.nearly_one`."""
        return nearly_one(self.measured.blocks)

    @property
    def ranking(self) -> tuple[int, ...]:
        """The layers, those that are missed least first."""
        return tuple(int(layer) for layer in self.measured.importance.argsort(kind="stable"))

    @property
    def recommended(self) -> Plan | None:
        """Half as many new layers again, above the layers that are missed least (ADEPT's rule); None for one layer."""
        if self.count == 1:
            return None
        return insert(self.count, place(self.count, self.count // 2, "importance", False, self.ranking))

    @property
    def facts(self) -> tuple[Fact, ...]:
        depths = ((name.replace("_", " "), depth) for name, depth in self.effective_depth.items())
        known = {
            "model": self.model,
            "layers": str(self.count),
            "missed least": f"layers {', '.join(map(str, self.ranking[:5]))}",
            "effective depth": ", ".join(f"{depth:.3g} ({name})" for name, depth in depths if depth is not None),
            "recommended plan": "" if self.recommended is None else str(self.recommended),
            "tokens": f"{self.tokens:,} of {self.text}",
            "seconds": f"{self.seconds:.1f}",
        }
        return tuple((name, value) for name, value in known.items() if value)

    def to_json(self) -> dict[str, Any]:
        """analysis.json."""
        measured, plan = self.measured, self.recommended
        layers = [
            {
                "layer": number,
                "new": number in self.new,
                **asdict(layer),
                "importance": float(measured.importance[number]),
                "output_effect": float(measured.effects.output[number]),
                "skip_effect": [float(value) for value in measured.effects.layers[number]],
            }
            for number, layer in enumerate(measured.layers)
        ]
        blocks = [block._asdict() | {"distances": of_size.tolist()} for block, of_size in self.sized_blocks]
        return {
            "format": 1,
            "model": self.model,
            "text": self.text,
            "tokens": self.tokens,
            "layers": layers,
            "blocks": blocks,
            "weights": [asdict(kind) for kind in self.weights],
            "effective_depth": dict(self.effective_depth),
            "recommendation": {"rule": "importance", "gaps": [] if plan is None else list(plan.gaps)},
            "seconds": round(self.seconds, 3),
        } | ({} if self.base is None else {"base": self.base.to_json()})

    @property
    def sized_blocks(self) -> list[tuple[Block, Any]]:
        """Of each size the block that turns the stream least, and the distances of all."""
        return list(zip(best_blocks(self.measured.blocks), self.measured.blocks, strict=True))
