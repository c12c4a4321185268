"""A slot's child without a store: it makes each pack once, and dies the first time that it is asked for the pack `b`.

What it has made is kept as files of the folder that is its store, so that a next child knows it.
"""

import json
import os
import sys
from pathlib import Path

folder, answers = Path(sys.argv[2]), int(sys.argv[3])
for line in sys.stdin.buffer:
    request = json.loads(line)
    pack_id = request["payload"]["pack_id"]
    made, died = folder / pack_id, folder / "died"
    if pack_id == "b" and not died.exists():
        died.touch()
        os._exit(9)
    answer = {"trained": [] if made.exists() else [pack_id], "train_seconds": 0.0 if made.exists() else 2.0}
    made.touch()
    os.write(answers, json.dumps({"request": request["request"], "answer": answer}).encode() + b"\n")
