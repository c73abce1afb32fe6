"""Write a batch of claims, each 25th of them a big one: `python claims.py 50 > claims.jsonl`."""

import json
import sys

COUNT = int(sys.argv[1]) if sys.argv[1:] else 50

for number in range(1, COUNT + 1):
    big = number % 25 == 0
    lost = "the whole set, for 250 euros," if big else "one cup, for 25 euros,"
    request = {
        # In model.toml each has its way with claims. Of a real model, one assistant is enough.
        "assistant_id": "asst_big_claims" if big else "asst_claims",
        "instructions": "Pay back what the customer lost.",
        "thread": {"messages": [{"role": "user", "content": f"Claim {number}: {lost} broke."}]},
    }
    line = {
        "custom_id": f"claim-{number}",
        "method": "POST",
        "url": "/v1/threads/runs",
        "body": request,
    }
    print(json.dumps(line))
