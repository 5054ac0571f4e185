"""What the user reads on the terminal: sizes layer by layer, or the five profiles side by side, or JSON."""

import json

from rich.console import Console
from rich.table import Table

from lesa_jax.base.console import report_console
from lesa_jax.profiles.result import Made, ProfileResult


def print_report(result: ProfileResult, console: Console | None = None) -> None:
    """Prints a table, or one JSON object: the model's, or by name those of all five."""
    console = console or report_console()
    one = len(result.made) == 1
    if result.json:
        made = result.made[0].to_json() if one else {each.name: each.to_json() for each in result.made}
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in made.items()]
        print("{\n" + ",\n".join(lines) + "\n}")
        return
    console.print(layer_table(result.made[0]) if one else profile_table(result))
    for made in result.made if one else ():
        console.print(
            f"{made.name}{points(made)}: {made.parameters:,} parameters{off(made, result.budget)}", soft_wrap=True
        )
    if result.config is not None:
        console.print(f"written to {result.config}", soft_wrap=True)


def layer_table(made: Made) -> Table:
    table = table_of("layer", "ffn", "query heads", "key-value heads")
    for layer, sizes in enumerate(zip(made.sizes.ffn, made.sizes.q_heads, made.sizes.kv_heads, strict=True)):
        table.add_row(str(layer), *map(str, sizes))
    return table


def profile_table(result: ProfileResult) -> Table:
    table = table_of("profile", "ffn", "heads", "parameters", "off")
    for made in result.made:
        assert made.profile is not None
        ffn, qkv = words(made.profile.ffn), words(made.profile.qkv)
        table.add_row(made.name, ffn, qkv, f"{made.parameters:,}", share(made, result.budget or made.parameters))
    return table


def table_of(first: str, *rest: str) -> Table:
    table = Table()
    table.add_column(first)
    for name in rest:
        table.add_column(name, justify="right")
    return table


def points(made: Made) -> str:
    return "" if made.profile is None else f", ffn {words(made.profile.ffn)}, heads {words(made.profile.qkv)}"


def words(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def off(made: Made, budget: int | None) -> str:
    return "" if budget is None else f" ({share(made, budget)} of {budget:,})"


def share(made: Made, budget: int) -> str:
    return f"{made.parameters / budget - 1:+.2%}"
