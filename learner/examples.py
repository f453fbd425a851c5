"""Convert examples to the sequences that a model scores, and find the examples that cannot be learned from. No tensors here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ratchet.types import Choice, Example, Interaction


@dataclass(frozen=True)
class Sequence:
    """A prompt and one answer to it, as the model reads them.

    `example` is the place of its example in the batch. `logprobs` are the engine's, in nats, one a token; empty where the answer
    was not sampled. `reward` is None where it has none of its own.
    """

    example: int
    prompt_ids: list[int]
    token_ids: list[int]
    logprobs: list[float]
    temperature: float = 1.0
    reward: float | None = None


def rated(example: Example) -> list[tuple[Interaction, Choice, float]]:
    """The answers that numeric signals of the example are about, in the order of the signals, each with its number.

    A signal about an answer that was not recorded is left out.
    """
    answers = {(found.id, choice.index): (found, choice) for found in example.interactions for choice in found.choices}
    numbers = [((s.target, s.choice), float(s.value)) for s in example.signals if isinstance(s.value, (bool, int, float))]
    return [(*answers[place], number) for place, number in numbers if place in answers]


def answers(example: Example, place: int) -> list[Sequence]:
    """The rated answers of an example as sequences. `place`: the example's in the batch."""
    return [
        Sequence(place, found.prompt_ids, choice.token_ids, choice.logprobs, found.sampling.temperature, reward)
        for found, choice, reward in rated(example)
    ]


def defect(example: Example, window: int) -> str:
    """Why a policy gradient cannot learn from the example, in one word to count by; empty if it can.

    - `incomplete`: an answer has no reward, no exact ids, or not one log-prob for each id. Nothing is filled in.
    - `not_sampled`: an answer is greedy, or its sampling was reshaped (`Interaction.untrainable`).
    - `not_finite`: a reward or a log-prob is no finite number.
    - `too_long`: prompt and answer do not fit into the `window` (tokens) of the model.
    """
    found = rated(example)
    wanted = sum(len(item.choices) for item in example.interactions) if example.kind == "group" else len(example.signals)
    if not found or len(found) != wanted or not all(_recorded(item, choice) for item, choice, _ in found):
        return "incomplete"
    if any(item.untrainable or item.sampling.temperature <= 0 for item, _, _ in found):
        return "not_sampled"
    if not all(math.isfinite(number) for _, choice, reward in found for number in (reward, *choice.logprobs)):
        return "not_finite"
    # The last token of an answer is predicted and never read.
    return "too_long" if any(len(item.prompt_ids) + len(choice.token_ids) - 1 > window for item, choice, _ in found) else ""


def flat(example: Example) -> bool:
    """Whether all its rewards are equal. They are compared, not their deviation: the mean of three 0.1 rounds."""
    return max(example.rewards) == min(example.rewards)


def mean_reward(examples: Iterable[Example]) -> float | None:
    """The mean of all finite rewards, also of examples that teach nothing; None if there are none."""
    rewards = [reward for example in examples for reward in example.rewards if math.isfinite(reward)]
    return sum(rewards) / len(rewards) if rewards else None


def _recorded(item: Interaction, choice: Choice) -> bool:
    return bool(item.prompt_ids) and 0 < len(choice.token_ids) == len(choice.logprobs)
