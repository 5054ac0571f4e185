"""What can be known of a comparison's rows, and refused, before a model is grown for them."""

from dataclasses import replace
from itertools import islice

import jax

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.checkpoint.tokenizer import load_tokenizer
from lesa_jax.comparison.basis import called_here
from lesa_jax.comparison.folder import MODELS
from lesa_jax.comparison.grown import expand_settings
from lesa_jax.comparison.job import CompareJob
from lesa_jax.comparison.measure import run_settings
from lesa_jax.comparison.rates import named
from lesa_jax.comparison.variants import BASE, Variant
from lesa_jax.data.sources import find_source, read_records, text_of
from lesa_jax.evaluation.protocol import token_rows
from lesa_jax.families.model import ModelConfig
from lesa_jax.growth.job import ExpandJob, prepare_jobs
from lesa_jax.models.config import read_model
from lesa_jax.parallel.mesh import parse_mesh
from lesa_jax.training.job import make_optimizer
from lesa_jax.training.parameters import choose
from lesa_jax.training.settings import check_settings
from lesa_jax.training.sharding import check_mesh


def check_work(job: CompareJob) -> None:
    """Goes through what is to come, without weights.

    Raises:
      InputError: a text that predicts nothing, data that cannot be read, options that training refuses; or no row that
        can be grown and trained. One that cannot, among others, says so in its row.
    """
    settings = job.settings
    assert settings.model is not None
    checkpoint = open_checkpoint(settings.model)
    config = read_model(checkpoint)
    text, length = job.basis.text.decode(), settings.sequence_length
    if not token_rows(load_tokenizer(checkpoint.folder), text, settings.ppl_protocol, config, length):
        raise InputError(f"--text {job.text_name}: holds fewer than two tokens, so that none can be predicted")
    if settings.trains:
        check_training(job, config)
        check_data(job)
    rows = [row for row in job.variants if row != BASE]
    # Where their models will be does not matter: they may be there, and something else may be in them.
    nowhere = settings.output / MODELS / "none"
    wanted = [replace(expand_settings(settings, row, 0), output=nowhere) for row in rows]
    grown = prepare_jobs(wanted, checkpoint)
    failures = [why_not(job, row, model) for row, model in zip(rows, grown, strict=True)]
    first = next((failure for failure in failures if failure is not None), None)
    if first is not None and None not in failures:
        raise first


def check_training(job: CompareJob, config: ModelConfig) -> None:
    """Raises InputError for options that no run takes."""
    for rate in named(job.settings):
        run = run_settings(job.settings, BASE, 0, rate)
        with called_here("--tokens", "--train-tokens"):
            check_settings(run)
            make_optimizer(run, run.batch.sequence_length or 0)
    check_mesh(parse_mesh(run.devices.mesh, jax.device_count()), config, run.batch.batch_size)


def check_data(job: CompareJob) -> None:
    """Raises InputError where the training data has no text in its first record."""
    data = job.settings.training.train_data
    assert data is not None
    with called_here("--data", "--train-data"):
        for record in islice(read_records(find_source(data)), 1):
            text_of(record)


def why_not(job: CompareJob, row: Variant, grown: ExpandJob | InputError) -> InputError | None:
    """Why a row cannot be grown or trained, as far as that can be known."""
    if isinstance(grown, InputError):
        return grown
    if job.settings.trains:
        try:
            choose(row.trains, read_model(grown.checkpoint, grown.config), grown.plan)
        except InputError as error:
            return error
    return None
