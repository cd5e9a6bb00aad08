"""Many requests at once, their answers one by one in the order of the questions."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from distillkit.interrupts import check_interrupted

Question = TypeVar("Question")
Answer = TypeVar("Answer")

# So many times as many questions as there are requests at once may be ahead of the one that is waited for.
_AHEAD = 4
_LOOK_SECONDS = 0.1


def answers_in_order(
    ask: Callable[[Question], Answer], questions: Sequence[Question], at_once: int, stop: Callable[[], None],
    idle: Callable[[], None] = lambda: None,
) -> Iterator[Answer]:  # fmt: skip
    """The answer to every question, in their order, whichever comes first.

    The threads are daemons: a request that hangs does not keep the program from ending.

    Args:
        ask: called in a thread; what it raises is raised here when the turn comes to its question, after the answers before.
        at_once: threads.
        stop: called when nobody wants an answer any more: makes `ask` return or raise soon.
        idle: called now and then while nothing comes.

    Raises:
        Interrupted: a signal arrived.
    """
    todo: queue.SimpleQueue[tuple[int, Question] | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Any, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        while (item := todo.get()) is not None:
            try:
                done.put((item[0], ask(item[1]), None))
            except BaseException as error:
                done.put((item[0], None, error))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(at_once, len(questions)))]
    for thread in threads:
        thread.start()
    arrived: dict[int, tuple[Any, BaseException | None]] = {}
    sent, failed = 0, False
    try:
        for turn in range(len(questions)):
            while sent < min(len(questions), turn + _AHEAD * len(threads)) and not failed:
                todo.put((sent, questions[sent]))
                sent += 1
            while turn not in arrived:
                check_interrupted()
                try:
                    index, answer, error = done.get(timeout=_LOOK_SECONDS)
                except queue.Empty:
                    idle()
                    continue
                arrived[index] = (answer, error)
                if error is not None and not failed:
                    failed = True
                    _drop(todo)  # What stands before the failed one is being asked already.
            answer, error = arrived.pop(turn)
            if error is not None:
                raise error
            yield answer
    finally:
        stop()
        for _ in threads:
            todo.put(None)


def _drop(todo: queue.SimpleQueue[Any]) -> None:
    while True:
        try:
            todo.get_nowait()
        except queue.Empty:
            return
