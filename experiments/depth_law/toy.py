"""Why loss falls as one over depth: small residual networks that imitate a deep one, by how many layers they have.

Command:   python experiments/depth_law/toy.py
Run time:  5 minutes on one CPU core, in one compiled program for all networks. A stopped run goes on where it was.
Expected:  experiments/results/toy_depth.csv, .md and .png.

The networks of "Inverse Depth Scaling From Most Layers Being Similar" (arXiv 2602.05970): x + W2 relu(W1 rmsnorm(x))^2,
width 32, a teacher of 128 layers, and students that are trained to its predictions on random inputs. The teacher's
layers are independent of one another, or one layer 128 times, which is a smooth path in small steps. The paper's claim
is that students of l layers average over what independent layers do, so that the loss goes as 1/l, as in language
models. As in its longer runs students have the teacher's head and temperature, a rate that falls with the root of
depth, and begin as the identity. Theirs see 80,000 batches of 1,024 inputs, these 4,000 of 64: the table has the
losses of earlier steps, too, so that one sees what longer training would change.
"""

import csv
import functools
import itertools
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax.serialization import from_state_dict, msgpack_restore, msgpack_serialize, to_state_dict
from jax import lax
from jaxtyping import Array, Float

from lesa_jax.base.errors import InputError
from lesa_jax.base.files import replace_file, write_text
from lesa_jax.evaluation.vectors import angles
from lesa_jax.reports.figures import open_axes, picture
from lesa_jax.reports.palette import PALETTE

HIDDEN = 4  # times the width
DECAY, LAST = 0.2, 0.1  # the share of all steps that the rate falls in, and to which share of it
TEST = 16  # batches that losses are measured on, which no student is trained on
REGIMES = ("independent", "tied")


@dataclass(frozen=True)
class Settings:
    """Which networks, and how long they learn."""

    depths: tuple[int, ...] = (6, 12, 24, 48)
    temperatures: tuple[float, ...] = (0.1, 1.0)
    seeds: int = 2
    """Teachers of each regime."""
    steps: int = 4000
    batch_size: int = 64
    rate: float = 3e-3
    """Of Adam, divided by the root of a student's depth."""
    width: int = 32
    vocabulary: int = 128
    teacher_layers: int = 128
    every: int = 250
    """Steps between measurements, after each of which everything is kept."""
    work: Path = Path("build/toy_depth")
    results: Path = Path(__file__).parents[1] / "results"


class Layers(NamedTuple):
    """Stacked layers; further axes, of networks, come first."""

    read: Float[Array, "layers hidden width"]
    bias: Float[Array, "layers hidden"]
    write: Float[Array, "layers width hidden"]


class Teachers(NamedTuple):
    """All teachers, regime by regime, and their heads."""

    layers: Layers
    head: Float[Array, "teachers vocabulary width"]


# By depth: layers with axes [teachers, temperatures, layers, ..].
Students = dict[str, Layers]


class State(NamedTuple):
    """What a step changes."""

    students: Students
    adam: Any
    step: Array


def main(settings: Settings) -> None:
    """Trains on to the end, and writes table and picture."""
    if settings.steps % settings.every:
        raise InputError(f"--steps {settings.steps}: must be a multiple of --every {settings.every}")
    teachers = make_teachers(settings)
    state, curve = restored(settings) or (first_state(settings), [])
    started = time.monotonic()
    while int(state.step) < settings.steps:
        state = train(state, teachers, settings)
        measured = {depth: own.tolist() for depth, own in test(state, teachers, settings).items()}
        curve.append([int(state.step), measured])
        keep(settings, state, curve)
        print(f"step {int(state.step)} of {settings.steps}, {time.monotonic() - started:.0f} s", flush=True)
    rows = loss_rows(settings, curve)
    turned = {depth: turns(own) for depth, own in state.students.items()}
    settings.results.mkdir(parents=True, exist_ok=True)
    output = settings.results / "toy_depth.md"
    write_text(output, page(settings, rows, turned))
    write_csv(rows, output.with_suffix(".csv"))
    draw(settings, rows, output.with_suffix(".png"))
    print(output.read_text())


def make_teachers(settings: Settings) -> Teachers:
    """Teachers by regime and seed; of a tied one all layers are the first of the independent one with its seed."""
    keys = jax.random.split(jax.random.key(0), settings.seeds)
    shape = (settings.vocabulary, settings.width)
    heads = jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, 1), shape))(keys) / settings.width**0.5
    layers = jax.vmap(lambda key: fresh(key, settings.teacher_layers, settings.width))(keys)
    independent = layers._replace(write=layers.write / settings.teacher_layers**0.5)
    tied = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf[:, :1], leaf.shape), independent)
    both = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), independent, tied)
    return Teachers(both, jnp.concatenate([heads, heads]))


def fresh(key: Array, layers: int, width: int) -> Layers:
    """Uniform within the inverse root of what a matrix reads, as torch begins."""
    hidden = HIDDEN * width
    keys = jax.random.split(key, 3)
    shapes = ((layers, hidden, width), (layers, hidden), (layers, width, hidden))
    return Layers(
        *(
            jax.random.uniform(own, shape, minval=-(reads**-0.5), maxval=reads**-0.5)
            for own, shape, reads in zip(keys, shapes, (width, width, hidden), strict=True)
        )
    )


def first_state(settings: Settings) -> State:
    """Students whose layers write nothing yet."""
    count = len(REGIMES) * settings.seeds * len(settings.temperatures)
    students = {}
    for depth in settings.depths:
        keys = jax.random.split(jax.random.fold_in(jax.random.key(1), depth), count)
        layers = jax.vmap(lambda key, depth=depth: fresh(key, depth, settings.width))(keys)
        axes = (len(REGIMES) * settings.seeds, len(settings.temperatures))
        layers = jax.tree.map(lambda leaf, axes=axes: leaf.reshape(*axes, *leaf.shape[1:]), layers)
        students[str(depth)] = layers._replace(write=jnp.zeros_like(layers.write))
    return State(students, optax.scale_by_adam().init(students), jnp.int32(0))


def restored(settings: Settings) -> tuple[State, list[Any]] | None:
    """Where an earlier run stopped, and what was measured until then; None at the beginning."""
    file = settings.work / "state.msgpack"
    if not file.exists():
        return None
    kept: Any = msgpack_restore(file.read_bytes())
    if kept["settings"] != recorded(settings):
        raise InputError(f"{file}: of a run with other settings; choose another --work")
    state: Any = from_state_dict(first_state(settings), kept["state"])
    return state, json.loads(kept["curve"])


def keep(settings: Settings, state: State, curve: list[Any]) -> None:
    settings.work.mkdir(parents=True, exist_ok=True)
    kept = {"settings": recorded(settings), "state": to_state_dict(state), "curve": json.dumps(curve)}
    data = msgpack_serialize(jax.tree.map(lambda x: np.asarray(x) if isinstance(x, jax.Array) else x, kept))
    replace_file(settings.work / "state.msgpack", lambda file: file.write_bytes(data))


def recorded(settings: Settings) -> str:
    """What a run must have in common with the one that it goes on with."""
    return json.dumps({name: value for name, value in asdict(settings).items() if name not in ("work", "results")})


def rmsnorm(x: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
    return x * lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + jnp.finfo(x.dtype).eps)


def add_layer(x: Float[Array, "batch width"], layer: Layers) -> Float[Array, "batch width"]:
    """One layer's step along the stream."""
    return x + jnp.square(jax.nn.relu(rmsnorm(x) @ layer.read.T + layer.bias[None])) @ layer.write.T


def stream(layers: Layers, x: Float[Array, "batch width"]) -> Float[Array, "batch width"]:
    """What is behind the last layer."""
    return lax.scan(lambda x, layer: (add_layer(x, layer), None), x, layers)[0]


def losses(
    students: Students, teachers: Teachers, inputs: Float[Array, "batch width"], temperatures: tuple[float, ...]
) -> dict[str, Float[Array, "teachers temperatures"]]:
    """Mean divergence of what students predict from what their teachers do, in nats, by depth."""
    x = rmsnorm(inputs)

    def of_teacher(teacher: Teachers, students: Students) -> dict[str, Array]:
        target = rmsnorm(stream(teacher.layers, x)) @ teacher.head.T

        def divergence(student: Layers, temperature: Array) -> Array:
            wanted = jax.nn.log_softmax(target / temperature)
            said = jax.nn.log_softmax(rmsnorm(stream(student, x)) @ teacher.head.T / temperature)
            return jnp.mean(jnp.sum(jnp.exp(wanted) * (wanted - said), axis=-1))

        return {depth: jax.vmap(divergence)(own, jnp.array(temperatures)) for depth, own in students.items()}

    return jax.vmap(of_teacher)(teachers, students)


@functools.partial(jax.jit, static_argnames="settings", donate_argnames="state")
def train(state: State, teachers: Teachers, settings: Settings) -> State:
    """All students, some steps on; each learns from its own loss alone, of which the sum is taken."""

    def total(students: Students, inputs: Array) -> Array:
        return sum(map(jnp.sum, losses(students, teachers, inputs, settings.temperatures).values()), jnp.array(0.0))

    def advance(_: int, state: State) -> State:
        key = jax.random.fold_in(jax.random.key(2), state.step)
        slopes = jax.grad(total)(state.students, jax.random.normal(key, (settings.batch_size, settings.width)))
        updated: Any = optax.scale_by_adam().update(slopes, state.adam)
        updates, adam = updated
        left = (settings.steps - state.step) / (DECAY * settings.steps)
        rate = settings.rate * jnp.minimum(1, LAST + (1 - LAST) * left)
        students = {
            depth: jax.tree.map(lambda w, u, depth=depth: w - rate / int(depth) ** 0.5 * u, own, updates[depth])
            for depth, own in state.students.items()
        }
        return State(students, adam, state.step + 1)

    return lax.fori_loop(0, settings.every, advance, state)


@functools.partial(jax.jit, static_argnames="settings")
def test(state: State, teachers: Teachers, settings: Settings) -> dict[str, Float[Array, "teachers temperatures"]]:
    """The losses on inputs of their own."""
    inputs = jax.random.normal(jax.random.key(3), (TEST * settings.batch_size, settings.width))
    return losses(state.students, teachers, inputs, settings.temperatures)


@jax.jit
def turns(students: Layers) -> tuple[Float[Array, "teachers temperatures"], Float[Array, "teachers temperatures"]]:
    """By how much the median layer turns the stream, and how much its addition differs from the one before; radians."""
    width = students.read.shape[-1]
    x = rmsnorm(jax.random.normal(jax.random.key(4), (TEST, width)))

    def of_student(layers: Layers) -> tuple[Array, Array]:
        def through(x: Array, layer: Layers) -> tuple[Array, Array]:
            after = add_layer(x, layer)
            return after, after

        behind = lax.scan(through, x, layers)[1]
        path = jnp.concatenate([x[None], behind])
        added = path[1:] - path[:-1]
        turned, bent = angles(path[:-1], path[1:]), angles(added[:-1], added[1:])
        return jnp.median(turned.mean(axis=1)), jnp.median(bent.mean(axis=1))

    return jax.vmap(jax.vmap(of_student))(students)


def loss_rows(settings: Settings, curve: list[Any]) -> list[dict[str, Any]]:
    """One row for each student and measurement."""
    return [
        {"step": step, "regime": regime, "seed": seed, "temperature": warm, "depth": depth, "loss": loss}
        for step, measured in curve
        for depth in settings.depths
        for (regime, seed), of_teacher in zip(
            itertools.product(REGIMES, range(settings.seeds)), measured[str(depth)], strict=True
        )
        for warm, loss in zip(settings.temperatures, of_teacher, strict=True)
    ]


def by_depth(settings: Settings, rows: list[dict[str, Any]], **wanted: Any) -> Float[np.ndarray, "seeds depths"]:
    """Losses of the rows that have these values."""
    chosen = [row["loss"] for row in rows if wanted.items() <= row.items()]
    return np.array(chosen).reshape(len(settings.depths), settings.seeds).T


def exponents(settings: Settings, losses: Float[np.ndarray, "seeds depths"]) -> Float[np.ndarray, " seeds"]:
    """Of loss falling with depth: minus the slope of logarithms, by least squares."""
    return -np.polyfit(np.log(settings.depths), np.log(losses.T), 1)[0]


def page(settings: Settings, rows: list[dict[str, Any]], turned: dict[str, Any]) -> str:
    """What came out, as Markdown."""
    paragraphs = [
        f"`experiments/depth_law/toy.py`: teachers of {settings.teacher_layers} layers, {settings.seeds} of each "
        f"regime, students trained for {settings.steps:,} steps of {settings.batch_size} inputs. The exponent is that "
        "of a power law without a floor, for each teacher; the claim is 1 for independent layers.",
        loss_table(settings, rows),
        "How the students use their depth at the end: the angle by which the median layer turns the stream, and, in "
        "brackets, that between what two successive layers add; degrees, means over teachers.",
        angle_table(settings, turned),
    ]
    return "\n\n".join(paragraphs) + "\n"


def loss_table(settings: Settings, rows: list[dict[str, Any]]) -> str:
    lines = [
        f"| teachers' layers | temperature | steps | {' | '.join(f'{depth} layers' for depth in settings.depths)} | "
        "exponents |",
        "|---" * (4 + len(settings.depths)) + "|",
    ]
    for regime, warm, step in itertools.product(REGIMES, settings.temperatures, shown_steps(settings)):
        losses = by_depth(settings, rows, regime=regime, temperature=warm, step=step)
        cells = " | ".join(f"{loss:.3g}" for loss in losses.mean(axis=0))
        found = ", ".join(f"{value:.2f}" for value in exponents(settings, losses))
        lines.append(f"| {regime} | {warm:g} | {step} | {cells} | {found} |")
    return "\n".join(lines)


def shown_steps(settings: Settings) -> list[int]:
    """A quarter of the way, half, before the rate falls, and the end."""
    every, steps = settings.every, settings.steps
    return sorted({max(every, round(steps * share / every) * every) for share in (0.25, 0.5, 1 - DECAY, 1)})


def angle_table(settings: Settings, turned: dict[str, Any]) -> str:
    lines = [
        f"| teachers' layers | temperature | {' | '.join(f'{depth} layers' for depth in settings.depths)} |",
        "|---" * (2 + len(settings.depths)) + "|",
    ]
    for number, regime in enumerate(REGIMES):
        own = slice(number * settings.seeds, (number + 1) * settings.seeds)
        for place, warm in enumerate(settings.temperatures):
            cells = (
                "{:.1f} ({:.0f})".format(*(np.degrees(angle[own, place]).mean() for angle in turned[str(depth)]))
                for depth in settings.depths
            )
            lines.append(f"| {regime} | {warm:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, "loss": f"{row['loss']:.5g}"} for row in rows)


def draw(settings: Settings, rows: list[dict[str, Any]], path: Path) -> None:
    """A panel for each regime: loss over depth, every temperature in its colour, beside the claim."""
    with picture(path, 1200, 500) as figure:
        for axes, regime in zip(figure.subplots(1, 2), REGIMES, strict=True):
            for colour, warm in enumerate(settings.temperatures):
                look = {"color": PALETTE[colour], "marker": "o"}
                losses = by_depth(settings, rows, regime=regime, temperature=warm, step=settings.steps)
                axes.plot(settings.depths, losses.mean(axis=0), label=f"temperature {warm:g}", **look)
                claim = losses[:, 0].mean() * settings.depths[0] / np.array(settings.depths)
                axes.plot(
                    settings.depths, claim, color="grey", linestyle=":", label=None if colour else "as 1 / layers"
                )
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set_xticks(settings.depths, [str(depth) for depth in settings.depths])
            axes.set_title(f"the teacher's layers are {regime}")
            axes.set_xlabel("layers of the student")
            axes.set_ylabel("loss, nats")
            axes.legend(frameon=False)
            open_axes(axes)


if __name__ == "__main__":
    main(tyro.cli(Settings))
