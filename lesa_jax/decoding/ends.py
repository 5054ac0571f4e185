"""What ends a text, by the files of a checkpoint."""

import json
from pathlib import Path
from typing import Any

FILES = ("generation_config.json", "config.json")


def end_tokens(folder: Path, tokenizer: Any) -> frozenset[int]:
    """The tokens that end what the model writes: those of generation_config.json, else of config.json, else the
    tokenizer's; none where nobody names one."""
    for file in (folder / name for name in FILES):
        try:
            named = json.loads(file.read_text("utf-8")).get("eos_token_id")
        except (OSError, ValueError, AttributeError):
            continue
        found = named if isinstance(named, list) else [named]
        if all(type(token) is int for token in found):
            return frozenset(found)
    return frozenset(() if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,))
