"""The documentation is true: links lead somewhere, commands parse, examples run, tables are complete."""

import ast
import importlib
import io
import re
import shlex
import tomllib
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import tyro
import yaml

from lesa_jax.base.recipes import RECIPE, taken_out, with_recipe
from lesa_jax.base.settings import flatten, option
from lesa_jax.planning.methods import METHODS

ROOT = Path(__file__).parents[2]
NAMES = ("README", "CONTRIBUTING", "CHANGELOG", "SECURITY", "experiments/README", "tpu_scripts/README")
PAGES = [*(ROOT / f"{name}.md" for name in NAMES), *sorted((ROOT / "docs").glob("*.md"))]
DOORS = ("expand", "widen", "ungrow", "train", "evaluate", "generate", "harness", "compare", "analyze", "profile")

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:\S+/)?(?:python -m lesa_jax\.|lesa )(\w+)(.*)$")
PATH = re.compile(r"`((?:lesa_jax|examples|experiments|tests|docs|tpu_scripts)/[\w./-]*)`")


def each(pages: list[Path]) -> Any:
    return pytest.mark.parametrize("page", pages, ids=lambda page: str(page.relative_to(ROOT)))


def prose(page: Path) -> str:
    """The page without its code blocks."""
    return re.sub(r"^ {4,}.*$", "", FENCE.sub("", page.read_text()), flags=re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def python_blocks(page: Path) -> list[str]:
    return [code for language, code in FENCE.findall(page.read_text()) if language == "python"]


def command_lines(page: Path) -> list[tuple[str, list[str]]]:
    """Door and options of every command of this package in the page's code blocks."""
    text = page.read_text()
    blocks = [code for language, code in FENCE.findall(text) if language in ("", "sh", "bash")]
    indented = re.findall(r"^ {4,}(.*)$", FENCE.sub("", text), re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", "\n".join([*blocks, *indented])).splitlines()
    found = []
    for line in lines:
        for part in re.split(r"[;&|]| do ", line):
            match = COMMAND.match(re.sub(r"^\s*(\w+=\S+ )*", "", part))
            if match:
                found.append((match[1], shlex.split(match[2], comments=True)))
    return found


def settings_of(door: str) -> type:
    return getattr(importlib.import_module(f"lesa_jax.{door}"), f"{door.capitalize()}Settings")


def option_names(door: str) -> set[str]:
    settings = flatten(settings_of(door)())
    switches = {option(f"no_{name}") for name, value in settings.items() if isinstance(value, bool)}
    return {option(name) for name in settings} | switches | {RECIPE}


@each(PAGES)
def test_links_lead_somewhere(page: Path):
    broken = []
    for link in LINK.findall(prose(page)):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_links_are_found():
    """The test above proves nothing about a page in which it sees no link."""
    assert "docs/images/report.png" in LINK.findall(prose(ROOT / "README.md"))
    assert "metricsjsonl" in anchors(ROOT / "docs" / "file-formats.md")
    assert "a-grids-time" in anchors(ROOT / "experiments" / "README.md")


@each(PAGES)
def test_paths_in_the_text_exist(page: Path):
    assert [path for path in PATH.findall(prose(page)) if not (ROOT / path).exists()] == []


@each(PAGES)
def test_commands_parse(page: Path):
    for door, words in command_lines(page):
        assert door in DOORS, door
        rest, recipe = taken_out(words)
        if recipe is not None and recipe.parts[0] == "examples":
            rest = with_recipe([*rest, RECIPE, str(ROOT / recipe)], settings_of(door))
        said = io.StringIO()
        try:
            with redirect_stdout(said), redirect_stderr(said):
                tyro.cli(settings_of(door), args=rest, config=(tyro.conf.OmitArgPrefixes,))
        except SystemExit:
            pytest.fail(f"{door} {shlex.join(words)}: {said.getvalue()}")


def test_commands_are_found():
    in_readme, in_training = (command_lines(ROOT / name) for name in ("README.md", "docs/training.md"))
    assert {door for door, _ in in_readme} == set(DOORS)
    assert ("train", ["--model", "run/final", "--data", "chat.jsonl", "--stage", "sft", "--train", "all"]) in [
        (door, words[:8]) for door, words in in_training
    ]


@each([ROOT / "README.md", *(page for page in PAGES if page.parent.name == "docs" and page.name != "tpu.md")])
def test_options_in_the_text_exist(page: Path):
    """Of this package's commands; tpu.md speaks of its scripts' own, too."""
    known = set().union(*map(option_names, DOORS)) | {"--help", "--version"}
    code = re.findall(r"`([^`]+)`", prose(page))
    said = {word for span in code for word in re.findall(r"(?<!\S)--[a-z][a-z-]*", span)}
    assert said - known == set()


@each(PAGES)
def test_python_in_the_text_compiles_and_names_what_there_is(page: Path):
    for code in python_blocks(page):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "lesa_jax":
                for alias in node.names:
                    assert hasattr(importlib.import_module(node.module), alias.name), ast.unparse(node)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Settings"):
                known = {field.name for field in fields(settings_of(node.func.id.removesuffix("Settings").lower()))}
                assert {keyword.arg for keyword in node.keywords} <= known, ast.unparse(node)


def test_the_table_of_methods_is_complete():
    readme = (ROOT / "README.md").read_text()
    table = readme[readme.index("| `--method` |") :].partition("\n\n")[0]
    first = [row.split("|")[1] for row in table.splitlines()[2:]]
    assert sorted(name for cell in first for name in re.findall(r"`(\w+)`", cell)) == sorted(METHODS)


def test_the_citation_agrees_with_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert [citation[key] for key in ("title", "version", "license")] == [
        project[key] for key in ("name", "version", "license")
    ]


def test_the_added_method_keeps_the_contract(registry):
    """The page's own checks, on what its first example registers."""
    add, look, between, _ = python_blocks(ROOT / "docs" / "add-a-method.md")
    names: dict[str, Any] = {"__name__": "noisy_copy"}
    for code in (add, look, between):
        exec(compile(code, "add-a-method.md", "exec"), names)
    assert METHODS["noisy_copy"].initialiser is names["noisy_copy"]
    weights, gaps = names["weights"], names["gaps"]
    np = names["np"]
    blended = np.asarray(names["blend"](weights, gaps, names["jax"].random.key(0)))
    np.testing.assert_allclose(blended[1], weights[2] + (weights[3] - weights[2]) * 2 / 3, atol=1e-5)
    np.testing.assert_array_equal(blended[2], weights[5])


@pytest.mark.slow
def test_the_added_method_is_compared(registry, tmp_path, monkeypatch, capsys):
    """The page's file as a command, on a short text."""
    (tmp_path / "text.txt").write_text("def f(x):\n    return x + 1\n" * 40)
    add = python_blocks(ROOT / "docs" / "add-a-method.md")[0]
    options = "--methods noisy_copy,duplicate,identity --placements top --text text.txt --output noisy"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["noisy_copy.py", *options.split()])
    with pytest.raises(SystemExit) as ended:
        exec(compile(add, "noisy_copy.py", "exec"), {"__name__": "__main__"})
    assert ended.value.code == 0
    rows = {line.split(" | ")[0].strip("| "): line for line in capsys.readouterr().out.splitlines() if "|" in line}
    assert {"base", "noisy_copy", "duplicate", "identity"} <= rows.keys()
    assert (tmp_path / "noisy" / "report.html").exists()
