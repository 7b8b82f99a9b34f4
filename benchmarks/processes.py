"""Each contender has a process of its own. They measure in turns, so that other programs slow all of them alike."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

WORKER = Path(__file__).with_name("worker.py")


class Worker:
    """One process, which measures when it is asked to."""

    def __init__(self, request: dict[str, Any], python: str = sys.executable) -> None:
        # A file, since a pipe that nobody reads would stop the process.
        self._messages = TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self._process = subprocess.Popen(
            [python, WORKER, json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            text=True,
        )

    def ready(self) -> None:
        """Wait until the process has warmed up.

        Raises:
            RuntimeError: if the process failed; the message has its output.
        """
        self._read()

    def ask(self, question: str = "") -> Any:
        """One measurement."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{question}\n")
        self._process.stdin.flush()
        return self._read()

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._messages.close()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._messages.seek(0)
            raise RuntimeError(f"a contender failed:\n{self._messages.read()[-3000:]}")
        return json.loads(line)


@contextmanager
def running(workers: Sequence[Worker]) -> Iterator[None]:
    """Wait until all are ready; end them all afterwards."""
    try:
        for worker in workers:
            worker.ready()
        yield
    finally:
        for worker in workers:
            worker.stop()


def in_turns(workers: Sequence[Worker], rounds: int, question: str = "") -> list[list[Any]]:
    """Ask all workers the same question, round by round. Returns the answers of each worker."""
    answers: list[list[Any]] = [[] for _ in workers]
    for _ in range(rounds):
        for own, worker in zip(answers, workers, strict=True):
            own.append(worker.ask(question))
    return answers
