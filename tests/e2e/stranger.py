"""A stranger's script: the `openai` package and what the ready file says, nothing of Ratchet.

python stranger.py READY_FILE POLICY    prints one JSON object
"""

import json
import sys
from pathlib import Path

from openai import OpenAI

ready = json.loads(Path(sys.argv[1]).read_text())
policy = sys.argv[2]
client = OpenAI(base_url=ready["gateway"] + "/v1", api_key=ready["keys"]["client"], max_retries=0, timeout=240)

models = [model.id for model in client.models.list()]
stream = client.chat.completions.create(
    model=policy,
    messages=[{"role": "user", "content": "Name one fruit."}],
    max_tokens=12,
    temperature=1.0,
    stream=True,
    metadata={"origin": "stranger"},
)
chunks = list(stream)
said = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
ended = next(choice.finish_reason for chunk in reversed(chunks) for choice in chunk.choices if choice.finish_reason)
feedback = client.post("/feedback", body={"target": chunks[0].id, "metric": "reward", "value": 0.5}, cast_to=object)
stored = client.chat.completions.retrieve(chunks[0].id)
listed = [one.id for one in client.chat.completions.list(metadata={"origin": "stranger"})]
sys.stdout.write(
    json.dumps(
        {
            "models": models,
            "ids": sorted({chunk.id for chunk in chunks}),
            "chunks": len(chunks),
            "said": said,
            "ended": ended,
            "leaked": [chunk.model_dump() for chunk in chunks if "token_ids" in chunk.model_dump_json()],
            "feedback": feedback,
            "stored": {"id": stored.id, "said": stored.choices[0].message.content},
            "listed": listed,
        }
    )
)
