"""The numbers of a run as TensorBoard reads them. They can be thrown away: metrics.jsonl has them all."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DELAY = 10.0  # seconds until an event is on the disk, where TensorBoard looks for it


class Events:
    """An open event file.

    It is written by the thread that calls: a thread of its own, as tensorboardX's SummaryWriter has it, dies of a full
    disk, and whoever hands it the next number waits forever.
    """

    def __init__(self, folder: Path, first_step: int):
        """Opens a file of the steps from `first_step` on; TensorBoard then hides what earlier files have of them."""
        from tensorboardX.event_file_writer import EventsWriter  # slow to import
        from tensorboardX.proto import event_pb2, summary_pb2

        self.event: Any = event_pb2  # classes that protobuf makes when it is imported, and no type checker sees
        self.summary: Any = summary_pb2
        folder.mkdir(parents=True, exist_ok=True)
        # Files are named by the second and would overwrite each other when a run is resumed within one.
        self.file = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        begins = self.event.SessionLog(status=self.event.SessionLog.START)
        self.file.write_event(self.event.Event(step=first_step, session_log=begins))
        self.flushed = time.monotonic()

    def write(self, step: int, values: Mapping[str, float | int]) -> None:
        Summary = self.summary.Summary
        shown = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self.file.write_event(self.event.Event(wall_time=time.time(), step=step, summary=shown))
        if time.monotonic() - self.flushed > DELAY:
            self.file.flush()
            self.flushed = time.monotonic()

    def close(self, failed: bool = False) -> None:
        self.file.close()
