"""Which tensors of a layer share neurons, so that what reorders the rows of one must reorder others with them."""

from typing import Literal

from lesa_jax.families.model import ModelConfig

Side = Literal["rows", "columns"]


def shared_neurons(model: ModelConfig | None, template: str) -> dict[Side, str]:
    """The matrices of the same layer whose rows are neurons of this tensor, by their templates.

    A bias has the "rows" of the weight that it is added to. What attention wrote into the residual stream are the
    "columns" of what reads the stream next: the norm before the feed-forward network, its gate and up projections,
    and of their biases' weights. All else that reads the stream reads it as it came into the layer; columns that read
    products (of values and attention, of gate and up) belong to no one matrix. What attention wrote is known of
    models with a forward pass only: of others every weight stands alone, as it does where attention and feed-forward
    network read the same stream, and in an encoder-decoder, whose stacks differ in what reads attention.

    Args:
      model: its description; None where there is none.
      template: of one tensor's stack (`checkpoint.names`).
    """
    part, _, leaf = template.rpartition(".")
    found: dict[Side, str] = {"rows": f"{part}.weight"} if leaf == "bias" else {}
    if model is not None and not model.parallel and model.encoder is None:
        names = model.names
        layers, star, inside = part.partition(".*.")
        if inside in (names.feed_forward_norm, names.gate, names.up, names.gate_up):
            found["columns"] = f"{layers}{star}{names.attention_output}.weight"
    return found
