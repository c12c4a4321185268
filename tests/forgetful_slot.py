"""A slot's child without a store: it makes each pack once, and dies the first time that it is asked for the pack `b`.

What it has made is kept as files of the folder that is its store, so that a next child knows it.
"""

import os
import sys
from pathlib import Path

from tasks.messages import TrainAnswer, from_line, to_line

folder, answers = Path(sys.argv[2]), int(sys.argv[3])
for line in sys.stdin.buffer:
    request, job = from_line(line)
    pack_id = job.pack_id
    made, died = folder / pack_id, folder / "died"
    if pack_id == "b" and not died.exists():
        died.touch()
        os._exit(9)
    answer = TrainAnswer() if made.exists() else TrainAnswer(trained=(pack_id,), train_seconds=2.0)
    made.touch()
    os.write(answers, to_line(request, answer))
