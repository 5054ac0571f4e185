"""table.json and table.md."""

import json
import re
from dataclasses import fields, replace

from lesa_jax.comparison.rows import Row
from lesa_jax.comparison.statistics import Statistics, summarise
from lesa_jax.comparison.table import COLUMNS, markdown, records
from tests.support.comparisons import BASE, BASE_LOSS, HOSTILE, curve, grown, statistics, trained, trained_base


def test_records_are_rows():
    found = summarise(trained())
    for record, row in zip(records(found), found.rows, strict=True):
        assert "step_cost_over_base" not in record
        assert record.pop("differences") is not None
        assert Row(**record, step_cost_over_base=None) == row
    names = [field.name for field in fields(Row) if field.name != "step_cost_over_base"]
    assert [*records(found)[1]] == [*names, "differences"]


def test_the_cost_of_steps_is_there_where_base_was_trained():
    base = replace(BASE, curves=(curve([BASE_LOSS, BASE_LOSS - 0.3]),), step_flops=4e6)
    lesa = grown(curves=(curve([BASE_LOSS + 0.1, BASE_LOSS - 0.1]),), step_flops=5e6)
    found = statistics(lesa, grown("solar"), base=base)
    assert [record["step_cost_over_base"] for record in records(found)] == [1.0, 1.25, None]
    assert "(1.25 x)" in markdown(found)


def test_a_failed_row_comes_last_and_says_why():
    failed = grown("solar", "stacked", (), error="out of | memory\nat layer 3")
    last = markdown(statistics(failed, grown(curves=(curve([4.0, 3.0]),)))).strip().split("\n")[-1]
    assert last.startswith("| solar |")
    assert r"out of \| memory at layer 3" in last


def test_one_seed_has_no_deviation():
    assert "+-" not in markdown(statistics(grown(curves=(curve([4.0, 3.0]),))))
    assert "+-" in markdown(summarise(trained()))


def test_hostile_strings():
    attack = grown(HOSTILE, HOSTILE, curves=(curve([4.0, 3.0]),), error=HOSTILE)
    table = markdown(statistics(attack, grown(HOSTILE, "_top"), model=HOSTILE, text=HOSTILE, train_data=HOSTILE))
    assert "<" not in table
    lines = [line for line in table.split("\n") if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {10}


def test_records_are_json():
    assert json.loads(json.dumps(records(summarise(trained()))))[1]["new_layers"] == [4, 5]


def cells(found: Statistics, name: str) -> dict[str, str]:
    """Of the row of that name in the first table of table.md, by heading."""
    first = next(part for part in markdown(found).split("\n\n") if part.startswith("|"))
    lines = [line.strip("| ").split(" | ") for line in first.strip().split("\n")]
    [row] = [line for line in lines[2:] if line[0] == name]
    return dict(zip(lines[0], row, strict=True))


def test_zero_tokens_to_base_are_told_from_a_measurement():
    silent = grown("llama_pro", curves=(curve([BASE_LOSS, BASE_LOSS - 0.2]),))
    late = grown(curves=(curve([BASE_LOSS + 0.1, BASE_LOSS - 0.1]),))
    found = statistics(silent, late, base=trained_base([0.0, -0.2]))
    assert cells(found, "llama_pro")["tokens to base"] == "0 (starts there)"
    assert cells(found, "lesa")["tokens to base"] == "50"
    assert cells(found, "base")["tokens to base"] == "-"
    assert cells(found, "llama_pro")["tokens to trained base"] == "100"
    assert cells(found, "lesa")["tokens to trained base"] == "not reached"


def test_columns_that_say_nothing_are_left_out():
    heading = markdown(statistics(grown())).split("\n| ---")[0].split("\n")[-1]
    assert heading == "| method | initial perplexity | placement | layers | parameters |"


def test_rate_and_scope_are_columns():
    lesa = grown(curves=(curve([4.0, 3.0]),), learning_rate=8e-4, trained="everything")
    row = cells(statistics(lesa), "lesa")
    assert (row["rate"], row["trained"]) == ("0.0008", "everything")


def test_every_column_is_of_a_row():
    names = {field.name for field in fields(Row)}
    assert {column.key for column in COLUMNS} <= names
    assert len({column.heading for column in COLUMNS}) == len(COLUMNS)
