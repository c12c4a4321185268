"""A slot's child without a store: it tells of each request twice before it answers with the request's own words."""

import json
import os
import sys

answers = int(sys.argv[3])
for line in sys.stdin.buffer:
    request = json.loads(line)
    for message in ({"event": request["payload"]}, {"event": request["payload"]}, {"answer": request["payload"]}):
        os.write(answers, json.dumps({"request": request["request"]} | message).encode() + b"\n")
