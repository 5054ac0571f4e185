"""What can be known of a comparison's rows, and refused, before a model is grown for them."""

import itertools
from dataclasses import replace

import jax

from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.reader import open_checkpoint
from lesa_jax.checkpoint.tokenizer import load_tokenizer
from lesa_jax.comparison.asking import check_asking
from lesa_jax.comparison.basis import called_here
from lesa_jax.comparison.folder import MODELS
from lesa_jax.comparison.grown import expand_settings
from lesa_jax.comparison.job import CompareJob
from lesa_jax.comparison.measure import run_settings
from lesa_jax.comparison.rates import named
from lesa_jax.comparison.replay import training_data
from lesa_jax.comparison.settings import optimizers, replays
from lesa_jax.comparison.variants import Variant, base_by
from lesa_jax.data.sources import find_source, read_records, split_shares, text_of
from lesa_jax.evaluation.protocol import token_rows
from lesa_jax.evaluation.targets import target_pairs
from lesa_jax.families.model import ModelConfig
from lesa_jax.growth.job import ExpandJob, prepare_jobs
from lesa_jax.models.config import read_model
from lesa_jax.parallel.mesh import parse_mesh
from lesa_jax.training.job import make_optimizer
from lesa_jax.training.parameters import choose
from lesa_jax.training.settings import check_settings
from lesa_jax.training.sharding import check_mesh


def check_work(job: CompareJob) -> None:
    """Goes through what is to come, without weights; what takes longest comes last.

    Raises:
      InputError: a text that predicts nothing, data that cannot be read, options that training refuses, tasks that no
        model can be asked; or no row that can be grown and trained. One that cannot, among others, says so in its row.
    """
    settings = job.settings
    assert settings.model is not None
    checkpoint = open_checkpoint(settings.model)
    config = read_model(checkpoint)
    rows_of, tokenizer = token_rows if config.encoder is None else target_pairs, load_tokenizer(checkpoint.folder)
    texts = (("--text", job.text_name, job.basis.text), ("--retain-text", job.retained_name, job.basis.retained))
    for option, name, text in texts:
        if text is None:
            continue
        if not rows_of(tokenizer, text.decode(), settings.ppl_protocol, config, settings.sequence_length):
            raise InputError(f"{option} {name}: holds fewer than two tokens, so that none can be predicted")
    if settings.trains:
        check_data(job)
        check_training(job, config)
    rows = [row for row in job.variants if not row.is_original]
    # Where their models will be does not matter: they may be there, and something else may be in them.
    nowhere = settings.output / MODELS / "none"
    wanted = [replace(expand_settings(settings, row, 0), output=nowhere) for row in rows]
    grown = prepare_jobs(wanted, checkpoint)
    failures = [why_not(job, row, model) for row, model in zip(rows, grown, strict=True)]
    first = next((failure for failure in failures if failure is not None), None)
    if first is not None and None not in failures:
        raise first
    check_asking(settings, checkpoint.folder, config)


def check_training(job: CompareJob, config: ModelConfig) -> None:
    """Raises InputError for options that no run takes."""
    rules = optimizers(job.settings.training)
    for rate, rule in itertools.product(named(job.settings), rules):
        run = run_settings(job.settings, base_by(rule), 0, rate)
        with called_here("--tokens", "--train-tokens"):
            check_settings(run)
            make_optimizer(run, run.batch.sequence_length or 0)
    check_mesh(parse_mesh(run.devices.mesh, jax.device_count()), config, run.batch.batch_size)


def check_data(job: CompareJob) -> None:
    """Raises InputError where a part of the training data has no text in its first record, or parts cannot be mixed."""
    training = job.settings.training
    for option, data in (("--train-data", training.train_data), ("--replay-data", training.replay_data)):
        with called_here("--data", option):
            for part, _ in split_shares(data) if data is not None else ():
                for record in itertools.islice(read_records(find_source(part)), 1):
                    text_of(record)
    for share in replays(training):
        training_data(training, share)


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
