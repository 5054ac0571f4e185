"""Makes trained language models deeper: LESA and other depth growth methods in JAX, on Hugging Face checkpoints."""

import os

# transformers is here for tokenizers and configs; that it finds no torch is as intended and needs no advice.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
