"""Runs the `lesa` commands of a page, and its Python, as they are printed: `python as_printed.py README.md`.

In the current folder, which should be empty, and with the `lesa` that is found. Stand-ins are made there for what the
page names: the demo model grown to 32 layers for models, the standard library's source for texts. What needs a hub, the
compilers of GPUs, or hours is named and left out; of training that would take hours --dry-run is run. Ends with 1 if a
command fails. Needs nothing but the package.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LEFT_OUT = {  # part of a command: why
    "Qwen/": "needs the hub",
    "--push-to-hub": "needs the hub",
    "--tasks": "needs the hub",
    "--compile-for": "needs compilers of 3.4 GB",
    "--train-data": "takes hours",
}
ONLY_PLANNED = "lesa train"
MODELS = ("model", "Llama-3-8B")
TEXTS = ("sample.txt", "held-out.txt")
TEXT_LENGTH = 20_000  # characters


def main() -> int:
    page = Path(sys.argv[1]).read_text("utf-8")
    prepare()
    failed = [command for command in commands(page) if not run(command)]
    failed += [code for code in python_blocks(page) if not run_python(code)]
    for what in failed:
        print(f"FAILED: {what}")
    return 1 if failed else 0


def prepare() -> None:
    """What the page takes for granted that its reader has."""
    from lesa_jax import demo

    text = demo.evaluation_text()[:TEXT_LENGTH]
    for name in TEXTS:
        Path(name).write_text(text)
    Path("corpus").mkdir()
    Path("corpus/part.jsonl").write_text(json.dumps({"text": text}) + "\n")
    Path("plan.json").write_text(json.dumps({"gaps": [3, 5, 5]}))
    call(["lesa", "expand", "--method", "duplicate", "--layers", "32", "--eval-text", TEXTS[0], "--output", MODELS[0]])
    for name in ("growth.json", ".lesa_jax.json"):
        Path(MODELS[0], name).unlink()  # no grown model, for whoever reads the page
    for name in MODELS[1:]:
        shutil.copytree(MODELS[0], name)
    call(["lesa", "expand", "--model", MODELS[0], "--eval-text", TEXTS[0], "--output", "grown"])


def commands(page: str) -> list[str]:
    """The page's indented lines that call `lesa`, those that go on on the next line in one."""
    lines = re.sub(r"\\\n\s*", " ", page).splitlines()
    return [line.strip() for line in lines if re.match(r" {4,}lesa \w", line)]


def python_blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def run(command: str) -> bool:
    words = shlex.split(command, comments=True)
    reasons = [reason for part, reason in LEFT_OUT.items() if part in command]
    if reasons:
        print(f"left out, {reasons[0]}: {shlex.join(words)}", flush=True)
        return True
    if command.startswith(ONLY_PLANNED):
        words.append("--dry-run")
    with out_of_the_way(words):
        return call(words)


def run_python(code: str) -> bool:
    print(code, flush=True)
    for output in re.findall(r'output="([^"]+)"', code):
        shutil.rmtree(output, ignore_errors=True)
    return call([sys.executable, "-c", code])


@contextmanager
def out_of_the_way(words: list[str]) -> Iterator[None]:
    """Printed commands are alternatives, and may name the same output, which another one then reads: what an earlier
    one made goes, or for a dry run, which makes none, lies elsewhere meanwhile."""
    output = Path(words[words.index("--output") + 1]) if "--output" in words else None
    if output is None or not output.exists():
        yield
        return
    aside = output.with_name(f"{output.name}-aside")
    output.rename(aside)
    yield
    if "--dry-run" in words:
        aside.rename(output)
    else:
        shutil.rmtree(aside)


def call(words: list[str]) -> bool:
    """Whether a command ends well; what it prints is shown where it does not."""
    started = time.monotonic()
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    well = "ok" if done.returncode == 0 else f"exit code {done.returncode}"
    print(f"{well}, {time.monotonic() - started:.0f} s: {shlex.join(words)[:120]}", flush=True)
    if done.returncode:
        print(done.stdout[-4000:], flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
