"""A model as lm-evaluation-harness wants it: requests in text, answers as numbers and text.

What is tokenised how is that of its own adapter for transformers (`lm_eval --model hf`), so that scores are the same.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from lesa_jax.base.console import progress_bars
from lesa_jax.base.errors import InputError
from lesa_jax.checkpoint.tokenizer import check_vocabulary
from lesa_jax.decoding.continuation import continuations
from lesa_jax.decoding.sampling import LIKELIEST, Sampling
from lesa_jax.families.model import ModelConfig
from lesa_jax.tasks.scoring import Row, Score, row_of, scores

WRITTEN = 256  # tokens at most, where a task does not say
SAMPLING = {"do_sample": False, "temperature": 0.0, "top_p": 1.0}  # what a task may say of how tokens are chosen

Found = TypeVar("Found")


class HarnessModel(TemplateLM):
    """A decoder, its weights in memory.

    Attributes:
      tokenizer: the model's own.
      max_length: tokens that it can read at most.
      ends: tokens that end what it writes.
    """

    backend = "causal"

    def __init__(
        self,
        params: dict[str, Any],
        config: ModelConfig,
        tokenizer: Any,
        ends: frozenset[int],
        batch_size: int,
        max_length: int | None = None,
        dtype: DTypeLike = jnp.float32,
    ):
        super().__init__()
        self.params, self.config, self.tokenizer, self.ends = params, config, tokenizer, ends
        self.batch_size, self.dtype = batch_size, dtype
        self.max_length = config.max_position_embeddings if max_length is None else max_length

    @property
    def eot_token_id(self) -> int:
        """What ends a text."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has no context."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    @property
    def tokenizer_name(self) -> str:
        return self.tokenizer.name_or_path.replace("/", "__")

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """The tokens of a text, by default with what the tokenizer puts before one that does not begin so already."""
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self.tokenizer.decode(self.prefix_token_id))
        tokens = self.tokenizer(string, add_special_tokens=add_special_tokens, verbose=False)["input_ids"]
        check_vocabulary(max(tokens, default=0), self.config.vocab_size)
        return tokens

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Of continuations behind their contexts, and whether each is what would be written."""
        return super().loglikelihood(requests, disable_tqdm=True)  # the bar is that of `_scores`

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        rows = [row_of(context, after, self.max_length) for _, context, after in requests]
        found = [(score.log_likelihood, score.likeliest) for score in self._scores("likelihoods", rows)]
        for (texts, *_), score in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", texts, score)
        return found

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Of whole texts: each token once, behind as many others as the model can read."""
        rows, owners = [], []
        for number, text in enumerate(request.args[0] for request in requests):
            windows = get_rolling_token_windows(
                self.tok_encode(text), self.prefix_token_id, max_seq_len=self.max_length, context_len=1
            )
            rows += [row_of(*make_disjoint_window(window), self.max_length) for window in windows]
            owners += [number] * (len(rows) - len(owners))
        totals = [0.0] * len(requests)
        for owner, score in zip(owners, self._scores("whole texts", rows), strict=True):
            totals[owner] += score.log_likelihood
        for request, total in zip(requests, totals, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return totals

    def _scores(self, what: str, rows: Sequence[Row]) -> list[Score]:
        def score(advance: Callable[[int], None]) -> list[Score]:
            return scores(self.params, self.config, rows, self.batch_size, self.dtype, advance)

        return with_bar(what, len(rows), score)

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """What the model writes behind each context, up to what ends it."""

        def write(advance: Callable[[int], None]) -> list[str]:
            found = [""] * len(requests)
            groups: dict[str, list[int]] = {}
            for number, request in enumerate(requests):
                groups.setdefault(repr(sorted(request.args[1].items())), []).append(number)
            for members in groups.values():
                members.sort(key=lambda number: -len(requests[number].args[0]))
                for start in range(0, len(members), self.batch_size):
                    batch = members[start : start + self.batch_size]
                    texts = self._write([requests[number].args[0] for number in batch], requests[batch[0]].args[1])
                    for number, text in zip(batch, texts, strict=True):
                        found[number] = text
                        self.cache_hook.add_partial("generate_until", requests[number].args, text)
                    advance(len(batch))
            return found

        return with_bar("written texts", len(requests), write)

    def _write(self, contexts: list[str], options: dict[str, Any]) -> list[str]:
        """Texts of one way to write."""
        limit, sampling, stops = writing(options)
        room = self.max_length - limit
        if room < 1:
            raise InputError(
                f"a task has {limit} tokens written, and the model can read {self.max_length} in all; leave it out"
            )
        stops = [*stops, self.tokenizer.decode([self.eot_token_id])]
        texts = [self.tok_encode(context)[-room:] for context in contexts]
        texts += [texts[0]] * (self.batch_size - len(texts))  # the last batch is no smaller: no program of its own

        def finished(number: int, tokens: list[int]) -> bool:
            return number >= len(contexts) or any(stop in self.tokenizer.decode(tokens) for stop in stops if stop)

        *_, written = continuations(self.params, self.config, texts, limit, sampling, ends=self.ends, finished=finished)
        return [
            before_stop(self.tokenizer.decode(own, skip_special_tokens=True), stops) for own in written[: len(contexts)]
        ]

    def get_model_info(self) -> dict[str, Any]:
        """What the results say of the model."""
        leaves = jax.tree.leaves(self.params)
        return {"model_num_parameters": sum(leaf.size for leaf in leaves), "model_dtype": str(jnp.dtype(self.dtype))}


def writing(options: dict[str, Any]) -> tuple[int, Sampling, list[str]]:
    """How a task wants text written: at most so many tokens, chosen so, up to one of these texts.

    Raises InputError for what is asked and not known.
    """
    known: dict[str, Any] = dict(normalize_gen_kwargs(options, WRITTEN))
    limit, stops = known.pop("max_gen_toks"), known.pop("until")
    warm, temperature, top_p = (known.pop(name, default) for name, default in SAMPLING.items())
    for name, value in known.items():
        raise InputError(f"a task has text written with {name}={value!r}, which is not known here; leave the task out")
    return limit, Sampling(float(temperature), float(top_p)) if warm else LIKELIEST, stops


def before_stop(text: str, stops: Sequence[str]) -> str:
    """The text before the first of what stops it."""
    for stop in stops:
        text = text.split(stop)[0] if stop else text
    return text


def with_bar(what: str, total: int, work: Callable[[Callable[[int], None]], Found]) -> Found:
    """What the work finds, with a bar over its parts."""
    with progress_bars() as progress:
        task = progress.add_task(what, total=total, note="")
        return work(lambda done: progress.advance(task, done))
