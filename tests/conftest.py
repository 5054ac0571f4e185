"""Shared by all tests: annotations are enforced, ranks are not promoted silently, and small checkpoints are at hand."""

import os
import signal
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

# Workers that run beside each other share the cores out: JAX starts as many threads as a process may use, and the
# threads of several workers on the same cores keep each other waiting.
if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    cores, workers = sorted(os.sched_getaffinity(0)), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.sched_setaffinity(0, cores[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) % len(cores) :: workers])

# A shell's background jobs ignore Ctrl-C, and so would the processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs of tests are small and run a few times, so that to compile them is what takes time: so it takes half of that.
fast = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
fast += ["--xla_cpu_parallel_codegen_split_count=1"]
if version("jax").startswith("0.10."):  # later versions have one kind of code for fusions
    fast += ["--xla_cpu_use_fusion_emitters=false"]
os.environ.setdefault("XLA_FLAGS", " ".join(fast))
# They are kept with pytest's own cache: for processes that tests start, for the other workers, and for the next time.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "programs"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
os.environ["HF_HUB_OFFLINE"] = "1"

from jaxtyping import install_import_hook

install_import_hook("lesa_jax", "beartype.beartype")

import jax
import pytest
import torch
import transformers

from lesa_jax.planning.methods import METHODS
from tests.support.cloud import Cloud
from tests.support.shared import SHARED
from tests.support.training import grown_model, write_text

jax.config.update("jax_numpy_rank_promotion", "raise")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(1)  # tiny models are slower on many threads, above all beside JAX's own


@pytest.fixture(scope="module", autouse=True)
def programs() -> Iterator[None]:
    """Compiled programs go with the tests that ran them: each maps pieces of memory, of which a process may have some
    65,000 and crashes after that."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def books16() -> Path:
    """A real trained checkpoint that lies beside the project where it is developed; elsewhere these tests skip."""
    folder = SHARED / "models" / "books16"
    if not folder.exists():
        pytest.skip(f"{folder} is not on this machine")
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that a training run reads: the model `grown`, made from `base`, data.jsonl and eval.txt."""
    folder = tmp_path_factory.mktemp("training")
    grown_model(folder)
    write_text(folder / "data.jsonl")
    (folder / "eval.txt").write_text("def g(x):\n    return x\n" * 40)
    return folder


@pytest.fixture
def registry() -> Iterator[None]:
    """Methods that a test registers go when it ends."""
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    """A stand-in for gcloud."""
    return Cloud(tmp_path)
