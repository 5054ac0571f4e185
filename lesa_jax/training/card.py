"""The model card of a trained checkpoint."""

from lesa_jax.checkpoint.cards import front_matter
from lesa_jax.training.job import TrainJob


def trained_card(job: TrainJob) -> str:
    """README.md of the exported model."""
    settings, batch, optimizer = job.settings, job.settings.batch, job.settings.optimizer
    names = sorted({leaf.names[0].split(".")[-2] for leaf in job.leaves if leaf.trained})
    grown = ""
    if job.growth is not None:
        new = ", ".join(f"{name}{plan.new_layers}" for name, plan in job.growth.plan.named if plan.new_layers)
        grown = f" Grown by `{job.growth.method}`; new layers: {new}."
    return (
        f"{front_matter(job.folder, encoder_decoder=job.config.encoder is not None)}\n\n"
        f"# Trained with lesa_jax\n\nStage: {settings.stage}, `--train {settings.train}`, {job.optimizer.steps} steps "
        f"of {batch.batch_size} sequences of {job.sequence_length} tokens, learning rate {optimizer.learning_rate:g} "
        f"({optimizer.schedule}).{grown} Tensors that were trained: {', '.join(names)}; all others are the source's, "
        "byte for byte.\n"
    )
