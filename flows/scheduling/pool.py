"""The work pool as a place: items are handed over as flow runs, which workers on any machine take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from flows.scheduling.place import Answer, Batch, Finish, Job, item_id
from flows.scheduling.refusals import Refusal
from tasks.dispatch.work_pool import FlowRunEnd, WorkPool


class Pool:
    """A work pool: some items a flow run, more while much is left: few runs are started, and all end together."""

    def __init__(self, work_pool: WorkPool, at_once: int, most: int = 64) -> None:
        """Hand over through `work_pool`, at most `at_once` flow runs of at most `most` items."""
        self._work_pool, self._at_once, self._most = work_pool, at_once, most

    def has_room(self, job: Job, in_flight: Counter[Job]) -> bool:
        """See `Place.has_room`."""
        return in_flight.total() < self._at_once

    def size(self, waiting: int) -> int:
        """See `Place.size`; half of what each would get if all were handed over now."""
        return max(1, min(self._most, -(-waiting // (2 * self._at_once))))

    def submit(self, batch: Batch, ended: Callable[[Finish], None]) -> None:
        """See `Place.submit`."""
        ids = tuple(item_id(item) for item in batch.items)
        self.watch(self._work_pool.start(batch.job == "train", ids, batch.only, f"{batch.job} {batch.names}"), ended)

    def going_on(self) -> Mapping[str, frozenset[str]]:
        """See `Place.going_on`; by the ids of the flow runs."""
        return self._work_pool.going_on()

    def watch(self, name: str, ended: Callable[[Finish], None]) -> None:
        """See `Place.watch`."""

        def finish(end: FlowRunEnd) -> None:
            attempt = end.attempt
            if attempt is None:
                answer = Answer(failed=end.reason, transient=True, lost=not end.cancelled)
            elif attempt.refusal:
                answer = Answer(refused=Refusal(attempt.host, attempt.refusal))
            else:
                answer = Answer(attempt.spent, attempt.faults, elsewhere=True)
            ended(lambda: answer)

        self._work_pool.watch(name, finish)
