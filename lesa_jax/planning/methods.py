"""Growth methods: where new layers go (placement), what they start as (initialiser), how loud they are (scale).

The published ones, and the controls that every comparison needs, stand in the table at the end; `register` adds more.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from importlib import import_module
from typing import Any, ClassVar, Literal, get_args

from lesa_jax.base.errors import InputError, did_you_mean
from lesa_jax.planning.plan import Plan

Placement = Literal["top", "even", "middle", "bottom", "ends", "periods", "importance", "influence"]
# Those that follow what the model's layers do on a text.
MEASURED = ("importance", "influence")
NormSource = Literal["first", "previous", "next", "mean"]
# Rules for a whole plan, which have no gaps to choose.
Stacking = Literal["overlap", "cycle", "repeat"]
Scope = Literal["new", "all"]

# (weights [layers, out, in], gaps, key) -> [new, out, in]: the new matrices of one kind of weight, one for each gap in
# order. Gap g lies between layers g and g + 1; the last layer's number stands for a place above it.
Initialiser = Callable[..., Any]


@dataclass(frozen=True)
class PredictorSettings:
    """What LESA's predictor learns, its shape and training; the defaults are those of the public code."""

    epochs: int = 10
    """lesa: passes over the samples. The paper's text says 5, its code 10."""
    batch_size: int = 64
    """lesa: samples per step."""
    learning_rate: float = 1e-3
    """lesa: AdamW's step size."""
    norm_weight: float = 5e-4
    """lesa: weight of the norm term in the loss. The paper's text says 5e-5, its code 5e-4."""
    hidden_size: int = 256
    """lesa: width of the predictor."""
    rank: int | None = None
    """lesa: learn from and predict the so many largest singular directions of a kind only, found by random projections;
    by default all. Saves most of the time on a large model; the report says what is left out."""


PUBLISHED = PredictorSettings()

# Settings of an expansion that mean something to some methods only, and to which.
OWNERS = {
    **dict.fromkeys(("norm_source", "seed", "fit_routers"), "methods that compute their layers"),
    **dict.fromkeys((setting.name for setting in fields(PredictorSettings)), "--method lesa"),
    "match_experts": "methods that match experts",
}


class Start:
    """What a new layer starts as, and what a method that starts so answers for.

    Attributes:
      computed: whether its matrices are computed, one kind of weight at a time; if not, they are copied.
      random: whether another seed gives other matrices, whatever the method says.
      least_layers: that the original must have.
      options: those of `OWNERS` that mean something to it.
      remedy: what a user can do about matrices that are not finite.
      anywhere: whether a new layer may lie anywhere above the original that it names, not only between that one and the
        next.
    """

    computed: ClassVar[bool] = True
    random: ClassVar[bool] = False
    least_layers: ClassVar[int] = 1
    options: ClassVar[frozenset[str]] = frozenset(("norm_source", "seed", "fit_routers"))
    remedy: ClassVar[str] = "look at the initialiser"

    @property
    def anywhere(self) -> bool:
        return False

    def sources(self, plan: Plan) -> Plan:
        """The plan as it is read: each new layer has the tensors and the config entries of its slot's layer there."""
        return plan


@dataclass(frozen=True)
class Copy(Start):
    """A new layer is a copy of the layer below it, norms and all, or of the layer above it.

    Attributes:
      source: which of the two; there is nothing above the last layer, of which it is a copy there in any case.
    """

    computed: ClassVar[bool] = False
    options: ClassVar[frozenset[str]] = frozenset()

    source: Literal["below", "above"] = "below"

    @property
    def anywhere(self) -> bool:
        return self.source == "below"

    def sources(self, plan: Plan) -> Plan:
        return plan.from_above() if self.source == "above" else plan


@dataclass(frozen=True)
class Formula(Start):
    """A function computes the new matrices of one kind of weight from the old ones.

    Attributes:
      function: that one.
      matched: whether experts are numbered anew before, by which is like which from layer to layer, and rows of routers
        are computed with their experts (`growth.experts`).
    """

    function: Initialiser
    matched: bool = False


@dataclass(frozen=True)
class Aligned(Formula):
    """A formula that moves neurons, and is shown the matrices of the same layers which must move along.

    As `columns` the function gets what attention wrote and the columns of this kind read, as `rows` the weight that a
    bias belongs to: [layers, neurons, ..], neurons in rows. With the norm source "mean" it makes the vectors that have
    one of them, too: [layers, n]. For families without a forward pass it is not known what reads attention, and there
    are no `columns` (`families.neurons`).
    """


@dataclass(frozen=True)
class Lesa(Start):
    """Matrices predicted from both neighbours (arXiv 2502.13794).

    Attributes:
      space: what is predicted: "svd", rows of V in the singular basis that all layers share; "raw", the weights' rows.
      shuffled: the predictor learns from the layers in a random order, a control: it can learn no trend with depth.
      matched: as of a `Formula`.
      shrunk: matrices that write into the residual stream are scaled by how far the predictor's predictions of layers
        that exist agree with these, as published they are not.
    """

    random: ClassVar[bool] = True
    least_layers: ClassVar[int] = 3  # a target between two inputs
    options: ClassVar[frozenset[str]] = Start.options | {setting.name for setting in fields(PredictorSettings)}
    remedy: ClassVar[str] = "lower --learning-rate"

    space: Literal["svd", "raw"] = "svd"
    shuffled: bool = False
    matched: bool = False
    shrunk: bool = True


@dataclass(frozen=True)
class Method:
    """What makes a growth method.

    Attributes:
      summary: one line for --help.
      source: where it is defined.
      placement: where the new layers go unless told otherwise, or the rule of a whole plan: "overlap" (SOLAR), "cycle"
        (layer j is original j mod L), "repeat" (layer j is original floor(j L / L')).
      initialiser: what a new layer starts as; a function for its matrices, the rest being taken by `norm_source`.
      scale: factor on everything that a new layer writes into the residual stream; 0 makes it the identity.
      norm_source: whose norm weights and biases a new layer gets, if it is not a copy; see `recipe.norm_sources`.
      after_last: whether placement "even" also uses the place above the last layer, as LLaMA Pro does.
      every: whether "even" means after every K layers, a shorter last group having none (TLI).
      seeded: whether the seed changes new layers; that of LESA always does.
      trains: what its paper trains afterwards, the new layers or everything; new where the paper is not known to say.
      mask: share of the training in which what new layers do counts for more and more, from nothing to all (MSG).
      name: that it is known by; `register` says so.
    """

    summary: str
    source: str
    placement: Placement | Stacking
    initialiser: Start | Initialiser
    scale: float = 1.0
    norm_source: NormSource = "first"
    after_last: bool = False
    every: bool = False
    seeded: bool = False
    trains: Scope = "new"
    mask: float = 0.0
    name: str = ""

    @property
    def start(self) -> Start:
        """What a new layer starts as; a function is a formula."""
        return self.initialiser if isinstance(self.initialiser, Start) else Formula(self.initialiser)

    @property
    def matches_experts(self) -> bool:
        """Whether it is for mixtures of experts, whose experts it finds again from layer to layer."""
        return isinstance(self.start, Formula | Lesa) and self.start.matched

    @property
    def options(self) -> frozenset[str]:
        """Those of `OWNERS` that mean something to it."""
        return self.start.options | {"match_experts"} if self.matches_experts else self.start.options

    @property
    def stacking(self) -> Stacking | None:
        """The rule of a whole plan; None where new layers fill gaps."""
        return self.placement if self.placement in get_args(Stacking) else None  # pyright: ignore[reportReturnType]

    @property
    def random(self) -> bool:
        """Whether another seed grows another model."""
        return self.seeded or self.start.random


METHODS: dict[str, Method] = {}

# Options and files are named by methods, a file of a comparison NAME or NAME-PLACEMENT.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
OTHER_MEANINGS = ("base", "lora", "all")  # rows of the original model in a comparison, and every method


def register(name: str, method: Method) -> None:
    """Makes a method known under a name, to `expand` and to `compare`.

    Raises:
      InputError: the name is taken or no name, or the method has a part that there is not.
    """
    check_name(name)
    check_method(name, method)
    METHODS[name] = replace(method, name=name)


def check_name(name: str) -> None:
    """Refuses a name that an option or a file cannot have, or that means something else already."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InputError(
            f"method {name!r}: a name has 1 to 64 letters, digits, _ - and . and begins with a letter or a digit"
        )
    if name in METHODS:
        raise InputError(f"a method {name} is registered already; choose another name")
    taken = next((other for other in (*METHODS, *OTHER_MEANINGS) if other.lower() == name.lower()), None)
    if taken is not None:  # on some disks their files would be the same
        raise InputError(f"method {name}: {taken} means something else already; choose another name")
    if name.lower().endswith(tuple(f"-{place}" for place in get_args(Placement))):
        raise InputError(f"method {name}: what follows the - is a placement; choose a name that does not end in one")
    for part, what in (("-as-", "controls"), ("-by-", "rows of other optimisers")):
        if part in name.lower():
            raise InputError(f"method {name}: a comparison calls its {what} so; choose a name without {part}")


def check_method(name: str, method: Method) -> None:
    """Refuses what plans and recipes do not know."""
    places = (*get_args(Placement), *get_args(Stacking))
    if method.placement not in places:
        raise InputError(f"method {name}: placement {method.placement!r}; known are {', '.join(places)}")
    if method.norm_source not in get_args(NormSource):
        known = ", ".join(get_args(NormSource))
        raise InputError(f"method {name}: norm_source {method.norm_source!r}; known are {known}")
    if not isinstance(method.scale, int | float) or not math.isfinite(method.scale):
        raise InputError(f"method {name}: scale {method.scale!r}; expected a finite number")
    if not isinstance(method.initialiser, Start) and not callable(method.initialiser):
        raise InputError(
            f"method {name}: the initialiser is no function of (weights, gaps, key), but {method.initialiser!r}"
        )


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
      InputError: there is none; lists those that there are.
    """
    if name not in METHODS:
        hint = did_you_mean(name, METHODS) or "."
        raise InputError(f"no method {name}{hint} Known are {', '.join(METHODS)}")
    return METHODS[name]


def imported(module: str, name: str) -> Initialiser:
    """An initialiser that imports its module, and JAX with it, when it is first called: copying needs neither."""

    def initialiser(weights: Any, gaps: Sequence[int], key: Any, **beside: Any) -> Any:
        return getattr(import_module(f"lesa_jax.initializers.{module}"), name)(weights, gaps, key, **beside)

    return initialiser


TLI = "arXiv 2410.11654"
OPT_DEUS = "arXiv 2508.08011"
CONTROL = "a control"
MATCHED = "lesa_jax, for mixtures of experts"

for _name, _method in {
    "lesa": Method(
        "layers predicted from both neighbours, as loud as the predictor is right", "arXiv 2502.13794", "top", Lesa()
    ),
    "lesa_published": Method("the same at full loudness, as published", "arXiv 2502.13794", "top", Lesa(shrunk=False)),
    "lesa_raw": Method(
        "the same without SVD", "arXiv 2502.13794, ablation", "top", Lesa(space="raw", shrunk=False)
    ),
    "llama_pro": Method(
        "copies with silenced outputs: the function does not change", "arXiv 2401.02415", "even", Copy(), 0.0,
        after_last=True,
    ),
    "solar": Method(
        "two overlapping copies of the model stacked", "arXiv 2312.15166", "overlap", Copy(), trains="all"
    ),
    "duplicate": Method("plain copies in place", "arXiv 2510.08008", "even", Copy(), after_last=True, trains="all"),
    "tli": Method("a copy after every K layers", TLI, "even", Copy(), every=True, after_last=True),
    "tli_zero": Method("the same, silenced", TLI, "even", Copy(), 0.0, every=True, after_last=True),
    "average": Method(
        "the mean of both neighbours", OPT_DEUS, "top", imported("average", "average"), norm_source="mean"
    ),
    "average_scaled": Method(
        "the same, brought to the neighbours' norm", CONTROL, "top", imported("average", "average_scaled"),
        norm_source="mean",
    ),
    "lesa_matched": Method(
        "lesa of experts matched by their weights, routers predicted with them", MATCHED, "top", Lesa(matched=True)
    ),
    "average_matched": Method(
        "the mean of experts matched so, and of their routers", MATCHED, "top",
        Formula(imported("average", "average"), matched=True), norm_source="mean",
    ),
    "opt_deus": Method(
        "neurons aligned by optimal transport, averaged, silenced", OPT_DEUS, "top",
        Aligned(imported("transport", "transport")), 0.0, "mean",
    ),
    "opt_deus_published": Method(
        "the same with the public code's scaling", OPT_DEUS, "top",
        Aligned(imported("transport", "transport_published")), 0.0, "mean",
    ),
    "g_stack": Method("the whole stack once more on top", "arXiv 2405.15319", "cycle", Copy(), trains="all"),
    "interpolate": Method("every layer repeated in place", "arXiv 2510.08008", "repeat", Copy(), trains="all"),
    "msg": Method(
        "the same, faded in by a mask while it trains", "arXiv 2305.02869", "repeat", Copy(), trains="all", mask=0.2
    ),
    "lemon": Method(
        "every layer repeated, copies silenced", "arXiv 2310.07999", "repeat", Copy(), 0.0, trains="all"
    ),
    "identity": Method("silenced copies where lesa puts its layers", CONTROL, "top", Copy(), 0.0),
    "identity_next": Method("silenced copies of the layer above instead", CONTROL, "top", Copy("above"), 0.0),
    "random": Method(
        "Gaussian matrices of the neighbours' norm", CONTROL, "top", imported("controls", "random"), seeded=True
    ),
    "random_lowrank": Method(
        "the same of the rank that lesa's have", CONTROL, "top", imported("controls", "random_lowrank"), seeded=True
    ),
    "shuffled": Method("lesa trained on layers in a random order", CONTROL, "top", Lesa(shuffled=True)),
}.items():  # fmt: skip
    register(_name, _method)

BUILT_IN = frozenset(METHODS)  # whose code is this package's
