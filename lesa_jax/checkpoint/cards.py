"""What stands at the head of a model card: for the hub, which shows and finds models by it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

# What is true of a model that was made from another as of that one.
KEPT = ("license", "license_name", "license_link", "language", "pipeline_tag")
TAGS = ("depth-up-scaling", "lesa_jax")


def front_matter(
    original: Path | None, base: str | None = None, encoder_decoder: bool = False, tags: Sequence[str] = TAGS
) -> str:
    """The YAML block of a card: licence and language of the original, what the model is for, what it comes from.

    Args:
      original: folder of the model that this one was made from, if there is one.
      base: its name; a hub id is named as the base model.
      encoder_decoder: whether it is one.
      tags: by which the hub finds it.
    """
    import yaml  # slow to import, and most commands write no card

    task = "text2text-generation" if encoder_decoder else "text-generation"
    head: dict[str, Any] = {}
    if base is not None and base.count("/") == 1 and not base.startswith((".", "/")):
        head["base_model"] = base
    head |= {"pipeline_tag": task} | ({} if original is None else kept(original))
    head |= {"library_name": "transformers", "tags": list(tags)}
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True, default_flow_style=None).strip()}\n---"


def kept(folder: Path) -> dict[str, Any]:
    """What the card of a model says that is kept; nothing where it has none, or one that cannot be read."""
    import yaml

    try:
        text = (folder / "README.md").read_text("utf-8")
        opening, head, *_ = text.split("---", 2)
        value = yaml.safe_load(head) if not opening.strip() else None
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    if not isinstance(value, dict):
        return {}
    return {name: value[name] for name in KEPT if is_words(value.get(name))}


def is_words(value: Any) -> bool:
    """A word, or a list of words."""
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(word, str) for word in value))
