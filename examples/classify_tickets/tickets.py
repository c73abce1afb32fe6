"""Write a batch of tickets to classify: `python tickets.py 1000 > tickets.jsonl`."""

import json
import sys

COUNT = int(sys.argv[1]) if sys.argv[1:] else 1000
ASSISTANT = sys.argv[2] if sys.argv[2:] else "asst_tickets"
KINDS = "refund, delivery, invoice, other"
TEXTS = (
    "I sent the lamp back three weeks ago. Where is my money?",
    "The parcel says delivered, and nobody here has seen it.",
    "Please put our new address on the invoice of May.",
    "Do you still make the blue one?",
)

for number in range(1, COUNT + 1):
    text = TEXTS[number % len(TEXTS)]
    message = {"role": "user", "content": f"Ticket {number}: {text}"}
    request = {
        "assistant_id": ASSISTANT,
        "instructions": f"Answer with one word, the kind of the ticket: {KINDS}.",
        "max_completion_tokens": 500,
        "metadata": {"ticket": str(number)},
        "thread": {"messages": [message]},
    }
    line = {
        "custom_id": f"ticket-{number}",
        "method": "POST",
        "url": "/v1/threads/runs",
        "body": request,
    }
    print(json.dumps(line))
