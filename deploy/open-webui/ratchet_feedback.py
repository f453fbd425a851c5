"""
title: Ratchet feedback
description: Sends the thumbs of a chat to POST /v1/feedback, where they become rewards.
version: 1.0
required_open_webui_version: 0.12.0
"""

# An Open WebUI function of the kind "event". The connection to the gateway has to carry the header
#   x-ratchet-episode-id: owui.{{MESSAGE_ID}}{{TASK}}
# so that each answer is an episode of the gateway's, named after the message that shows it; see docs/clients.md.

import logging
from typing import Any

import aiohttp
from open_webui.models.feedbacks import Feedbacks
from pydantic import BaseModel, Field

log = logging.getLogger(__name__)
RATED = ("feedback.created", "feedback.updated")
SECONDS = 30


class Event:
    class Valves(BaseModel):
        url: str = Field(default="http://127.0.0.1:8080/v1", description="The gateway's URL, /v1 included.")
        key: str = Field(default="", description="A key with the scope `feedback`, of the same tenant as the connection's.")
        metric: str = Field(default="reward", description="The policy's metric.")
        up: float = Field(default=1.0, description="What a thumb up is worth.")
        down: float = Field(default=0.0, description="What a thumb down is worth.")

    def __init__(self) -> None:
        self.valves = self.Valves()

    async def event(self, event: dict[str, Any]) -> None:
        """A rating that was made or changed; the gateway takes a later one as the earlier one's revision."""
        if event["event"] not in RATED:
            return
        rating = await Feedbacks.get_feedback_by_id(id=event["subject"]["id"])
        message = ((rating and rating.meta) or {}).get("message_id")
        thumb = ((rating and rating.data) or {}).get("rating")
        if message is None or thumb not in (1, -1):
            return
        body = {"target": f"owui.{message}", "metric": self.valves.metric, "value": self.valves.up if thumb == 1 else self.valves.down}
        headers = {"authorization": f"Bearer {self.valves.key}"}
        timeout = aiohttp.ClientTimeout(total=SECONDS)
        url = self.valves.url.rstrip("/") + "/feedback"
        async with aiohttp.ClientSession(timeout=timeout) as session, session.post(url, json=body, headers=headers) as answer:
            if answer.status != 202:
                log.error("the gateway refused a rating: %s %s", answer.status, (await answer.text())[:500])
