"""The `lesa` script: `lesa expand ...` is `python -m lesa_jax.expand ...`, and so on."""

import sys
from difflib import get_close_matches
from importlib import import_module

# What each one does; its module is imported when it is called, for JAX takes its time.
COMMANDS = {
    "expand": "make a trained checkpoint deeper",
    "widen": "make a trained checkpoint wider",
    "ungrow": "take new layers out of a grown model again",
    "train": "train a grown model's new layers, or all of it",
    "analyze": "see what a model's layers do, and where a new one would matter",
    "evaluate": "measure a checkpoint's perplexity on a text",
    "harness": "score a checkpoint on tasks of lm-evaluation-harness",
    "generate": "let a checkpoint go on with a text",
    "profile": "lay out layers of different sizes, at a given number of parameters",
    "compare": "compare growth methods on one model, before training and after",
}


def main() -> int:
    """Calls the command that is named first, with the options after it; returns its exit code."""
    name, *options = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name == "--version":
        from lesa_jax import __version__

        print(f"lesa_jax {__version__}")
        return 0
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, 1, cutoff=0.0)[0]
        print(f"error: no command {name}: did you mean {near}? Known are {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    sys.argv = [f"lesa {name}", *options]
    return import_module(f"lesa_jax.{name}").main()


def usage() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(
        [
            "usage: lesa COMMAND [OPTIONS]",
            "",
            "Grow language models: from a Hugging Face checkpoint to a deeper one, trained and measured.",
            "",
            *(f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()),
            "",
            "lesa COMMAND --help shows a command's options; lesa --version the version.",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
