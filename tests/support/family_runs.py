"""Run by tests/families/test_running.py in processes of their own: a frozen run of each family that is named.

    python -m tests.support.family_runs FOLDER FAMILY...

Prints the losses of all steps by family, as JSON.
"""

import json
import shutil
import sys
from pathlib import Path

import jax

from lesa_jax.families.model import ModelConfig
from lesa_jax.growth.run import expand
from lesa_jax.growth.settings import ExpandSettings
from lesa_jax.models.config import read_config
from lesa_jax.training.run import train
from lesa_jax.training.settings import TrainSettings
from tests.support.settings import nest
from tests.support.tokenizers import tiny_tokenizer

STEPS = 5


def place_of(folder: Path, family: str) -> Path:
    """A folder with the family's tiny model, grown, and a text; the tokens of both are few."""
    from tests.support.tiny import ENCODER_DECODERS, tiny  # needs torch, which the processes do without

    place = folder / family
    shutil.copytree(tiny(family), place / "base")
    tiny_tokenizer(sentinels=20 if family in ENCODER_DECODERS else 0).save_pretrained(place / "base")
    gaps = "1,2" if family in ENCODER_DECODERS else "2,3"  # between like layers, where sizes differ
    expand(ExpandSettings(str(place / "base"), place / "grown", method="average", gaps=gaps))
    words = [{"text": f"{'abc def ghi '[i % 7 :]} jkl {i} " * (1 + i % 5)} for i in range(300)]
    (place / "data.jsonl").write_text("".join(json.dumps(word) + "\n" for word in words))
    return place


def config_of(place: Path) -> ModelConfig:
    return read_config(json.loads((place / "grown" / "config.json").read_text()))


def mesh_of(place: Path) -> str:
    """All axes, where the heads can be shared."""
    config = config_of(place)
    if jax.device_count() == 1:
        return "data=1"
    if config.experts is not None:
        return "fsdp=2,expert=4" if config.latent is None else "fsdp=2,expert=2,tensor=2"
    return "data=2,fsdp=4" if config.num_kv_heads % 2 else "data=2,fsdp=2,tensor=2"


def main(folder: Path, families: list[str]) -> None:
    losses = {}
    for family in families:
        place, devices = folder / family, jax.device_count()
        options = {
            "steps": STEPS,
            "batch_size": 8,
            "sequence_length": 32,
            # Which experts are chosen may hang on a rounding, and Adam makes much of a small gradient's.
            "learning_rate": 1e-2 if config_of(place).experts is None else 1e-3,
            "mesh": mesh_of(place),
        }
        output = place / f"run-{devices}"
        model, data = str(place / "grown"), str(place / "data.jsonl")
        train(nest(TrainSettings, model=model, data=data, output=output, **options))
        rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
        losses[family] = [row["loss"] for row in rows if row["step"] > 0]
    print(json.dumps(losses))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
