"""Datasets of the Hugging Face hub: `hf://NAME[@REVISION][:SPLIT]`.

A dataset may change under its name, so it is told, and read, by the commit that the name means today.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from lesa_jax.base.errors import InputError

HUB = "hf://"
ADDRESS = re.compile(r"hf://(?P<name>[^@:]+)(@(?P<revision>[^@:]+))?(:(?P<split>.+))?")
COMMIT = re.compile(r"[0-9a-f]{40}")


def commit_of(data: str) -> str:
    """The commit of a dataset; asked for on the hub unless `data` names it.

    Raises InputError where there is no such dataset, or the hub cannot be reached.
    """
    name, revision, _ = _parts(data)
    if revision is not None and COMMIT.fullmatch(revision):
        return revision

    from huggingface_hub import HfApi  # slow to import, and most runs are local

    try:
        commit = HfApi().dataset_info(name, revision=revision).sha
    except Exception as error:  # of the network, the hub, or its client, whose kinds have no common name
        raise InputError(
            f"--data {data}: its commit cannot be asked for ({_line(error)}); check its name and the network, or name "
            f"the commit: hf://{name}@COMMIT"
        ) from None
    if commit is None:
        raise InputError(f"--data {data}: the hub names no commit of it; name one: hf://{name}@COMMIT")
    return commit


def hub_rows(data: str, commit: str, datasets: Any) -> Iterator[Mapping[str, Any]]:
    """The rows of a dataset at a commit, streamed.

    Args:
      data: hf://NAME[@REVISION][:SPLIT].
      commit: as `commit_of` gives it.
      datasets: the package of that name, which need not be installed.
    """
    name, _, split = _parts(data)
    try:
        yield from datasets.load_dataset(name, split=split or "train", streaming=True, revision=commit)
    except Exception as error:  # as above
        raise InputError(f"--data {data}: cannot be read ({_line(error)}); check its name and split") from None


def _parts(data: str) -> tuple[str, str | None, str | None]:
    address = ADDRESS.fullmatch(data)
    if address is None:
        raise InputError(f"--data {data}: expected hf://NAME[@REVISION][:SPLIT]")
    return address["name"], address["revision"], address["split"]


def _line(error: Exception) -> str:
    return str(error).split("\n")[0] or type(error).__name__
