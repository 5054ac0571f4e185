"""From what the user calls a model to a local folder: a path, a Hugging Face hub id, or nothing for the demo model."""

import os
from pathlib import Path

from lesa_jax.base.errors import InputError

# Weights come as safetensors only: pickles (*.bin, *.pt) are never fetched, so they can never be loaded.
WANTED = [
    "*.safetensors",
    "*.safetensors.index.json",
    "*.json",
    "*.model",
    "*.txt",
    "*.tiktoken",
    "*.jinja",
    "*.py",  # goes along with the weights, and is never run
    "*.md",
    "LICENSE*",
    "NOTICE*",
]


def resolve_model(model: str, revision: str | None = None) -> Path:
    """The folder of a model: `model` itself if it is one, otherwise the hub's snapshot, fetched if not in the cache.

    Args:
      model: a folder, or a hub id such as `meta-llama/Llama-3.2-1B`.
      revision: branch, tag or commit on the hub.

    Raises:
      InputError: no such folder, no such model, or neither network nor cached copy.
    """
    if not model.strip():
        raise InputError("--model is empty; give a folder with config.json, or a hub id like org/name")
    if revision is not None and not revision.strip():
        raise InputError("--revision is empty; give a branch, tag or commit, or leave it out")
    if (folder := local_folder(model)) is not None:
        if revision is not None:
            raise InputError(f"--revision {revision}: {model} is a local folder; revisions exist only on the hub")
        return folder
    if model.startswith((".", "/", "~")) or model.count("/") > 1 or model.endswith("/"):
        raise InputError(f"--model {model}: no such folder; give a folder with config.json, or a hub id like org/name")

    from huggingface_hub import snapshot_download  # slow to import, and most runs are local
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=WANTED))
    except GatedRepoError:
        raise InputError(
            f"--model {model}: gated on the hub; accept its licence there and run `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        raise InputError(
            f"--model {model}: neither a folder here nor a model on the hub (private? `hf auth login`)"
        ) from None
    except RevisionNotFoundError:
        raise InputError(f"--revision {revision}: {model} has no such revision on the hub") from None
    except HFValidationError:
        raise InputError(f"--model {model}: no such folder, and not a hub id (org/name) either") from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError):
        raise InputError(
            f"--model {model}: no such folder, and the hub cannot be reached while the model is not in its cache; "
            "go online once, or give a local folder"
        ) from None


def model_name(model: str) -> str:
    """What an output calls its source: the hub id, or a folder's name without its path, which is nobody's business."""
    folder = Path(model).expanduser()
    return folder.resolve().name if folder.exists() else model


def local_folder(model: str) -> Path | None:
    """The folder of that name; None where nothing here has it.

    Raises InputError for what is here and no folder of a model.
    """
    path = os.path.expanduser(model)
    if os.path.isdir(path):
        if model.rstrip("/") == "~":
            raise InputError("--model ~: is your home folder; give a folder with config.json")
        return Path(path)
    if os.path.exists(path):
        raise InputError(f"--model {model}: is a file; give the folder with config.json in which it lies")
    if os.path.islink(path):
        raise InputError(f"--model {model}: links to {os.readlink(path)}, which is not there; repair the link")
    return None
