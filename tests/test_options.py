"""The commands' options: their names and defaults are a promise, wherever the settings behind them are nested."""

import re
from pathlib import Path

import pytest

from lesa_jax import (
    AnalyzeSettings,
    CompareSettings,
    EvaluateSettings,
    ExpandSettings,
    GenerateSettings,
    HarnessSettings,
    ProfileSettings,
    TrainSettings,
    UngrowSettings,
    WidenSettings,
)
from lesa_jax.base.settings import flatten, option
from lesa_jax.command import run_command

OPTIONS = {
    ExpandSettings: {
        "model": None, "output": Path("expanded"), "revision": None, "method": "llama_pro", "layers": None,
        "gaps": None, "placement_text": None,
        "stack": None, "plan": None, "placement": None, "every": None, "output_scale": None, "calibrate": None,
        "keep_profile": False, "norm_source": None, "fit_routers": None, "match_experts": None, "seed": 0,
        "epochs": 10, "batch_size": 64, "learning_rate": 0.001, "norm_weight": 0.0005, "hidden_size": 256, "rank": None,
        "eval_text": None, "ppl_protocol": "corpus", "sequence_length": None, "shard_size": 5.0, "memory": None,
        "dry_run": False,
        "overwrite": False, "push_to_hub": None,
    },
    TrainSettings: {
        "model": None, "data": None, "output": Path("run"), "tokens": None, "steps": None, "stage": "pretrain",
        "train": "new", "balance_loss": None, "z_loss": 0.0,
        "revision": None, "init": "checkpoint", "config": None, "profile": None, "parameters": None,
        "batch_size": 16, "accumulate": 1,
        "sequence_length": None, "optimizer": "adamw", "learning_rate": 0.0002,
        "output_rate": 1.0, "new_rate": 1.0, "schedule": "cosine", "warmup": None, "betas": (0.9, 0.95),
        "weight_decay": 0.1, "moments": "float32", "mask_steps": 0, "clip": 1.0, "ema": 0.0, "dtype": None,
        "remat": "block",
        "mesh": "data=1,fsdp=-1,tensor=1", "distributed": False, "seed": 0, "save_every": 500, "keep": 2,
        "eval_every": 500, "eval_text": None, "hold_out": 64, "retain_text": None, "ppl_protocol": "corpus",
        "token_cache": None,
        "export": "hf", "push_to_hub": None, "tracker": "tensorboard",
        "resume": False, "dry_run": False, "compile_for": None, "report": None,
    },
    UngrowSettings: {
        "model": None, "output": Path("ungrown"), "revision": None, "layers": None, "stack": None, "idle": None,
        "below": 0.0, "overwrite": False, "push_to_hub": None,
    },
    WidenSettings: {
        "model": None, "output": Path("widened"), "revision": None, "width": "2x", "method": "lemon", "noise_db": None,
        "seed": 0, "overwrite": False, "push_to_hub": None,
    },
    AnalyzeSettings: {
        "model": None, "text": None, "base": None, "output": Path("analysis"), "tokens": "2048", "revision": None,
        "overwrite": False,
    },
    EvaluateSettings: {
        "model": None, "text": None, "ppl_protocol": "corpus", "sequence_length": None, "batch_size": 8,
        "loop": None, "revision": None,
    },
    CompareSettings: {
        "model": None, "text": None, "output": Path("comparison"), "methods": "all", "layers": None, "stack": None,
        "placements": None, "seeds": 1, "revision": None, "train_data": None, "train_tokens": None, "train": "new",
        "retain_text": None, "replay_data": None, "replay": None,
        "optimizer": "adamw", "lora": False, "eval_every": "100k", "learning_rate": 0.0002,
        "controls": True, "batch_size": 16, "sequence_length": None, "ppl_protocol": "corpus", "tasks": None,
        "keep_models": False,
    },
    HarnessSettings: {
        "model": None, "tasks": "lesa", "text": None, "include_path": None, "num_fewshot": None, "limit": None,
        "chat": False, "batch_size": 16, "max_length": None, "dtype": "float32",
        "mesh": "data=1,fsdp=-1,tensor=1", "output": None, "revision": None,
    },
    GenerateSettings: {
        "model": None, "prompt": "def ", "chat": False, "max_tokens": 64, "temperature": 0.0, "top_p": 1.0, "seed": 0,
        "revision": None,
    },
    ProfileSettings: {
        "profile": "all", "layers": 18, "hidden_size": 768, "head_dim": 64, "kv_ratio": 3, "ffn": None, "heads": None,
        "parameters": None, "vocab_size": 32000, "tied": True, "ffn_divisor": 256, "rounding": "openelm",
        "qk_norm": "head", "norm_scaling": False,
        "config": None, "json": False,
    },
}  # fmt: skip
for _options in OPTIONS.values():
    _options["debug"] = False
SWITCHES = {"chat", "controls", "debug", "distributed", "dry_run", "json", "keep_models", "lora", "overwrite", "resume"}
SWITCHES |= {"keep_profile", "norm_scaling", "tied"}
POSITIONAL = {ProfileSettings: {"profile"}}  # it stands first, without a name


@pytest.mark.parametrize("settings", OPTIONS, ids=lambda settings: settings.__name__)
def test_names_and_defaults_stay(settings):
    assert flatten(settings()) == OPTIONS[settings]


@pytest.mark.parametrize("settings", OPTIONS, ids=lambda settings: settings.__name__)
def test_the_help_has_every_option_by_its_plain_name_and_says_what_it_is(settings, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as ended:
        run_command(print, settings, print, ["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    expected = {"--help", *map(option, OPTIONS[settings].keys() - POSITIONAL.get(settings, set()))}
    expected |= {f"--no-{name.replace('_', '-')}" for name in SWITCHES & OPTIONS[settings].keys()}
    found = set(re.findall(r"(?m)(?:^\W |, )(--[a-z][a-z-]+)", shown))
    assert found - {"--recipe"} == expected  # which stands in a sentence


def test_options_reach_the_groups(capsys):
    got = []
    argv = ["--learning-rate", "0.5", "--betas", "0.1", "0.2", "--eval-text", "t", "--mesh", "fsdp=2", "--keep", "7"]
    assert run_command(got.append, TrainSettings, lambda result: None, argv) == 0
    [settings] = got
    assert (settings.optimizer.learning_rate, settings.optimizer.betas) == (0.5, (0.1, 0.2))
    assert (settings.held_out.eval_text, settings.devices.mesh, settings.keeping.keep) == (Path("t"), "fsdp=2", 7)
