"""The process in which chat templates are rendered; `templates` starts it by its path and imports nothing of it.

A template is code that comes with a checkpoint. transformers' sandbox keeps it from doing harm, but not from going on
for ever or filling the memory, so the operating system does: SIGPROF ends the process when one conversation takes too
long, and what is too large for the memory that it may have is an error.
"""

import json
import re
import resource
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
LONGEST = 1 << 28  # characters of a rendered conversation

Message = dict[str, Any]
Spans = list[tuple[int, int]]


class UnstableError(Exception):
    """What the template writes of a message depends on those that follow."""


class SameDay(datetime):
    """Llama's own default for templates that write the date: the same data give the same tokens on every day."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return cls(2024, 7, 26, tzinfo=tz)


def rendered(messages: list[Message], template: str, special: dict[str, Any], markers: Sequence[str]) -> dict[str, Any]:
    """The text of a conversation and the assistant's spans in it, or why there is none."""
    from transformers.utils.chat_template_utils import render_jinja_template

    def draw(turns: list[Message], **options: bool) -> tuple[str, list[Any]]:
        # apply_chat_template's own renderer. That one refuses the empty conversation before an assistant's first word;
        # and its token mask loses a turn that begins with a space, and runs on after one that ends with a space.
        drawn: Any = render_jinja_template([turns], chat_template=template, **options, **special)
        texts, spans = drawn
        return texts[0], spans[0] if spans else []

    try:
        if GENERATION.search(template):
            text, spans = draw(messages, return_assistant_tokens_mask=True)
        else:
            text, spans = turns(messages, lambda turns, asks: draw(turns, add_generation_prompt=asks)[0], markers)
        if len(text) > LONGEST:
            raise ValueError(f"more than {LONGEST} characters")
    except UnstableError as error:
        return {"error": str(error)}
    except Exception as error:  # whatever foreign code raises
        reason = str(error).split("\n")[0] or type(error).__name__
        return {"error": f"the chat template cannot render it ({reason}); remove or repair the record"}
    return {"text": text, "spans": spans}


def turns(
    messages: Sequence[Message], draw: Callable[[list[Message], bool], str], markers: Iterable[str]
) -> tuple[str, Spans]:
    """The assistant's turns in a text whose template does not mark them.

    A turn is what the conversation up to it adds to the prompt that asks for it. What it ends with goes up to the
    end-of-turn token; white space after that one is the template's.
    """
    text = draw(list(messages), False)
    spans = []
    for number, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before, after = draw(list(messages[:number]), True), draw(list(messages[: number + 1]), False)
        if not (text.startswith(after) and after.startswith(before)):
            raise UnstableError(
                f"the chat template writes message {number + 1} differently when others follow, so the assistant's "
                "words cannot be told; mark them in the template with {% generation %} and {% endgeneration %}"
            )
        bare = after.rstrip()
        ended = len(bare) > len(before) and bare.endswith(tuple(markers))
        spans.append((len(before), len(bare) if ended else len(after)))
    return text, spans


def answer_tasks(seconds: int, memory: int) -> None:
    """A task on each line of stdin, its answer on stdout; each may take so many seconds of a processor, and all of them
    so many bytes."""
    sys.modules["torch"] = None  # pyright: ignore[reportArgumentType] (not needed, and seconds to import)
    from transformers.utils import chat_template_utils

    chat_template_utils.datetime = SameDay  # pyright: ignore[reportPrivateImportUsage]
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    setup: dict[str, Any] = {}
    for line in sys.stdin:
        task = json.loads(line)
        setup = task["setup"] or setup
        signal.setitimer(signal.ITIMER_PROF, seconds)
        answer = json.dumps(rendered(task["messages"], **setup))
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(answer, flush=True)


if __name__ == "__main__":
    answer_tasks(*map(int, sys.argv[1:]))
