"""Which tensors of a layer share neurons, so that what reorders the rows of one must reorder others with them."""

from typing import Literal

from lesa_jax.families.family import Family

Side = Literal["rows", "columns"]


def shared_neurons(family: Family, template: str) -> dict[Side, str]:
    """The matrices of the same layer whose rows are neurons of this tensor, by their templates.

    A bias has the "rows" of the weight that it is added to. What attention wrote into the residual stream are the
    "columns" of what reads the stream next: the norm before the feed-forward network, its gate and up projections,
    and of their biases' weights. All else that reads the stream reads it as it came into the layer; columns that read
    products (of values and attention, of gate and up) belong to no one matrix. What attention wrote is known of
    families with a forward pass only: of others every weight stands alone.

    Args:
      family: of the model.
      template: of one tensor's stack (`checkpoint.names`).
    """
    part, _, leaf = template.rpartition(".")
    found: dict[Side, str] = {"rows": f"{part}.weight"} if leaf == "bias" else {}
    if family.decoder is not None:
        names = family.decoder.names
        inside = f"{names.layers}.*."
        if part.removeprefix(inside) in (names.feed_forward_norm, names.gate, names.up):
            found["columns"] = f"{inside}{names.attention_output}.weight"
    return found
