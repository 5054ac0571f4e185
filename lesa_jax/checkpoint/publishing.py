"""A finished folder on its way to the Hugging Face hub."""

import sys
from pathlib import Path

from lesa_jax.base.errors import InputError
from lesa_jax.base.folders import MANIFEST

LOG_IN = "run `hf auth login` with a token that may write"
READ_ONLY = "read"  # the role of a token that may not


def check_push(repository: str) -> None:
    """Finds out before hours of work whether somebody is signed in who may write to a model repository.

    Nothing is made on the hub yet. What a fine-grained token may do only the upload shows.

    Args:
      repository: ORG/NAME, or USER/NAME.

    Raises:
      InputError: no such name can be, nobody is signed in or somebody who may not, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi  # slow to import, and most runs are local
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
    )
    from huggingface_hub.utils import validate_repo_id

    asked = f"--push-to-hub {repository}"
    try:
        validate_repo_id(repository)
    except HFValidationError:
        raise InputError(f"{asked}: is no name of a model on the hub; give ORG/NAME") from None
    owner, slash, _ = repository.partition("/")
    if not slash:
        raise InputError(f"{asked}: does not say whose it is; give ORG/NAME, where ORG may be your user name")
    try:
        known = HfApi().whoami()
    except LocalTokenNotFoundError:
        raise InputError(f"{asked}: nobody is signed in to the hub; {LOG_IN}") from None
    except OfflineModeIsEnabled:
        raise InputError(f"{asked}: HF_HUB_OFFLINE is set; unset it, or leave out --push-to-hub") from None
    except HfHubHTTPError as error:
        if error.response.status_code == 401:
            raise InputError(f"{asked}: the hub does not know the token; {LOG_IN}, or correct HF_TOKEN") from None
        raise InputError(f"{asked}: the hub refuses to say who is signed in ({_line(error)}); try later") from None
    except Exception as error:  # of the network; its kinds are those of whatever client huggingface_hub uses
        raise InputError(
            f"{asked}: the hub cannot be reached ({_line(error)}); go online, or leave out --push-to-hub"
        ) from None
    if known.get("auth", {}).get("accessToken", {}).get("role") == READ_ONLY:
        raise InputError(f"{asked}: the token may only read; {LOG_IN}")
    owners = [known["name"], *(org["name"] for org in known.get("orgs", []))]
    if owner.casefold() not in map(str.casefold, owners):
        raise InputError(f"{asked}: {known['name']} is not of {owner}; choose of {', '.join(owners)}")


def push(folder: Path, repository: str) -> None:
    """Uploads a finished folder as one model, and says where it is.

    The repository is made where it is missing, as public or private as its owner's account has it by default; one that
    exists stays what it is.

    Raises:
      InputError: the upload failed; the folder is as it was.
      KeyboardInterrupt: with what is left to do.
    """
    from huggingface_hub import HfApi  # slow to import, and most runs are local

    api, by_hand = HfApi(), f"{folder} is complete; upload it with `hf upload {repository} {folder}`"
    try:
        made = api.create_repo(repository, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            commit_message=f"Upload of {folder.name} by lesa_jax",
            ignore_patterns=[MANIFEST],
        )
    except Exception as error:  # of the hub, the network or their clients; nothing of it touches the folder
        raise InputError(f"--push-to-hub {repository}: the upload failed ({_line(error)}), but {by_hand}") from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt(by_hand) from None
    print(f"pushed to {made}", file=sys.stderr)


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
