"""Effects: where Prefect, storage and the GPU meet.

Only ``dispatch`` and ``operations`` know Prefect. ``worker`` knows the store and the method, and runs wherever a shard
is handed over to. ``dispatch`` hands over: to the slots of this machine (``slots``) as Prefect tasks
(``prefect_tasks``), and to any machine as flow runs (``work_pool``).
"""
