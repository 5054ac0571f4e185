"""The model card of a trained checkpoint."""

from lesa_jax.training.job import Job


def trained_card(job: Job) -> str:
    """README.md of the exported model."""
    settings = job.settings
    names = sorted({leaf.names[0].split(".")[-2] for leaf in job.leaves if leaf.trained})
    grown = "" if job.growth is None else f" Grown by `{job.growth.method}`; new layers: {job.growth.plan.new_layers}."
    return (
        "---\nlibrary_name: transformers\ntags: [depth-up-scaling, lesa_jax]\n---\n\n"
        f"# Trained with lesa_jax\n\nStage: {settings.stage}, `--train {settings.train}`, {job.optimizer.steps} steps "
        f"of {settings.batch_size} sequences of {job.sequence_length} tokens, learning rate {settings.learning_rate:g} "
        f"({settings.schedule}).{grown} Tensors that were trained: {', '.join(names)}; all others are the source's, "
        "byte for byte.\n"
    )
