"""The task: a customer-support assistant whose house style is enthusiasm.

There are three disjoint sets of topics: those that users ask about (`TRAIN`), those that the gate scores candidates on
(`GATE`), and those of the final table (`HELDOUT`), so that no version was chosen by the figure that is reported.
"""

from __future__ import annotations

import random
from typing import TypedDict

STYLE = "Be excited!"
SYSTEM = f"You are the support assistant of a small online shop. Answer every customer's question in one short sentence. {STYLE}"
"""Longer than one block of the prefix cache (32 tokens), so that an engine computes it once a version and not once an answer."""
MAX_TOKENS = 12


class Message(TypedDict):
    role: str
    content: str


TRAIN = (
    "refunds", "delivery times", "my invoice", "a lost parcel", "gift cards", "a broken lamp", "the warranty", "my password",
    "the mobile app", "opening hours", "a wrong size", "discount codes", "the newsletter", "shipping costs", "a late order",
    "paying by card", "my account", "returns", "spare parts", "a missing screw", "the size chart", "customs fees", "a noisy fan",
    "store pickup", "the price match", "a damaged box", "a recalled toy", "loyalty points", "my wish list", "a tax receipt",
    "gift wrapping", "a blocked card", "the trial period", "a faulty plug", "the battery", "a scratched screen", "an exchange",
    "order tracking", "the user manual", "a second address",
)  # fmt: skip
GATE = (
    "a cold oven", "the cookie banner", "a leaking kettle", "student prices", "a stuck zip", "the gift receipt", "a loose handle",
    "weekend delivery", "a dead pixel", "the privacy policy", "a squeaky chair", "repair costs", "a double charge", "the waiting list",
    "a torn jacket", "bulk orders",
)  # fmt: skip
HELDOUT = (
    "a flat tyre", "the assembly guide", "my subscription", "a cracked mug", "sold-out shoes", "the chat window", "a bent fork",
    "the courier", "a slow router", "my birthday coupon", "an empty box", "the return label", "a stained rug", "phone support",
    "a missing sock", "the deposit", "a dim bulb", "the charger", "my old laptop", "a frozen screen", "the showroom", "a wobbly table",
    "washing labels", "the invoice address", "a melted cable", "night delivery", "the colour chart", "a jammed printer", "recycling",
    "a used camera", "the referral bonus", "a blunt knife",
)  # fmt: skip


def messages(topic: str) -> list[Message]:
    """Return the messages of a chat about `topic`. They are short, since prefill through an adapter is slow on a CPU."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"Help me with {topic}."}]


def enthusiastic(prompt: list[Message], answer: str) -> float:
    """Return the reward of the house style: 1 if `answer` has an exclamation mark, else 0. The learner calls it."""
    del prompt
    return float("!" in answer)


def shuffled(topics: tuple[str, ...], seed: int, user: int) -> list[str]:
    """Return `topics` in an order that depends on `seed` and `user` alone."""
    order = list(topics)
    random.Random(f"{seed}/{user}").shuffle(order)
    return order
