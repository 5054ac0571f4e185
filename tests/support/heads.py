"""Heads as families have them: whether there is a bias, and at what logits are capped."""

HEADS = {"llama": (False, None), "phi": (True, None), "gemma2": (False, 3.0), "with both": (True, 3.0)}
