"""Chat templates, rendered in a process of their own with limits on time and memory."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lesa_jax.base.errors import InputError
from lesa_jax.base.units import format_bytes

PROGRAM = Path(__file__).with_name("template_process.py")
SECONDS = 60  # of a processor, for one conversation; usual ones take less than a thousandth
MEMORY = 8 << 30  # bytes

Message = dict[str, Any]
Spans = tuple[tuple[int, int], ...]


class Templates:
    """The process, which starts with the first conversation and ends with `close`."""

    def __init__(self, seconds: int = SECONDS, memory: int = MEMORY):
        self.limits = seconds, memory
        self.process: subprocess.Popen[str] | None = None
        self.setup: Mapping[str, Any] = {}

    def render(
        self, messages: Sequence[Message], template: str, special: Mapping[str, Any], markers: Sequence[str]
    ) -> tuple[str, Spans]:
        """A conversation as text, and the character ranges of it that are the assistant's.

        Args:
          messages: with "role" and "content".
          template: the chat template.
          special: special tokens by the names that templates have for them.
          markers: what may end a turn: the tokens that are special.

        Raises InputError where the template cannot render it, or does not end.
        """
        setup = {"template": template, "special": special, "markers": markers}
        if self.process is None:
            self.process, self.setup = self._start(), {}
        task = {"setup": None if setup == self.setup else setup, "messages": messages}
        self.setup = setup
        answer = self._ask(self.process, json.dumps(task, default=lambda value: f"<{type(value).__name__}>"))
        if "error" in answer:
            raise InputError(answer["error"])
        return answer["text"], tuple((start, stop) for start, stop in answer["spans"])

    def close(self) -> None:
        """Ends the process."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def _start(self) -> "subprocess.Popen[str]":
        quiet = {"TRANSFORMERS_VERBOSITY": "error", "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1"}
        return subprocess.Popen(
            [sys.executable, "-P", str(PROGRAM), *map(str, self.limits)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | quiet | {"PYTHONPATH": os.pathsep.join(sys.path)},
            process_group=0,  # Ctrl-C is for the process that waits for this one
        )

    def _ask(self, process: "subprocess.Popen[str]", task: str) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(task + "\n")
            process.stdin.flush()
            if answer := process.stdout.readline():
                return json.loads(answer)
        except BrokenPipeError:
            pass
        status = process.wait()
        self.close()
        seconds, memory = self.limits
        if status == -signal.SIGPROF:
            raise InputError(
                f"the chat template takes more than {seconds} seconds for it; repair the template, split the "
                "conversation, or mark the assistant's words with {% generation %} and {% endgeneration %}, for speed"
            )
        raise InputError(
            f"the process that renders chat templates ended by itself ({status}), perhaps for want of memory: it may "
            f"have {format_bytes(memory)}; repair the template or remove the record"
        )
