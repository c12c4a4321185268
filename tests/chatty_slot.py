"""A slot's child without a store: it tells of each training twice before it answers that the pack is trained."""

import os
import sys

from tasks.messages import Advance, TrainAnswer, TrainPack, from_line, to_line

answers = int(sys.argv[3])
for line in sys.stdin.buffer:
    request, job = from_line(line)
    assert isinstance(job, TrainPack)
    for done in (1, 2):
        os.write(answers, to_line(request, Advance("train", job.pack_id, done, 2)))
    os.write(answers, to_line(request, TrainAnswer(trained=(job.pack_id,))))
