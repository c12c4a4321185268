"""Effects: the only room where Prefect, storage and the GPU meet.

``plan``, ``train``, ``generate``, ``score`` and ``collect`` know the store and the method but not Prefect: they run
wherever a shard is handed over to. ``steps`` wraps them as Prefect tasks; ``slots`` is the hand-over on one machine.
"""
