"""`POST /v1/feedback`: checked here, durable once it is answered 202."""

from __future__ import annotations

import math
from typing import Annotated, Any

from fastapi import Request
from msgspec import Meta

from gateway.api.endpoint import BodyBounds, Handlers, endpoint
from gateway.api.table import FEEDBACK
from gateway.dialects.convert import convert
from gateway.dialects.schema import Metadata, Strict
from gateway.errors import ApiError, invalid, not_found
from gateway.services import Services
from ratchet import names
from ratchet.config import MetricConfig
from ratchet.errors import TargetNotYours, TooManyParked
from ratchet.types import FeedbackPost, KeyRecord, MetricType

LONGEST_TEXT = 2**16
PARKED_SECONDS = 30


class FeedbackRequest(Strict):
    """`POST /v1/feedback`; `value` is checked against the metric's declaration."""

    target: Annotated[str, Meta(max_length=128)]
    value: Any
    metric: Annotated[str, Meta(max_length=64)] = "reward"
    choice: Annotated[int, Meta(ge=0, le=127)] = 0
    idempotency_key: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    metadata: Metadata | None = None


class Preferred(Strict):
    """The value of a `preference`: a choice of `target` was preferred to a choice of `over`."""

    target: str
    over: str
    choice: Annotated[int, Meta(ge=0, le=127)] = 0
    over_choice: Annotated[int, Meta(ge=0, le=127)] = 0


class Feedback(Handlers):
    @property
    def body_bounds(self) -> BodyBounds:
        limits = self.services.config.gateway.limits
        return BodyBounds(limits.max_feedback_bytes, limits.max_depth)

    @endpoint("POST", "/v1/feedback", FEEDBACK, status=202, counted=True)
    async def post(self, request: Request, body: FeedbackRequest) -> object:
        """Rate an answer or an episode. The feedback is durable once it is answered."""
        caller: KeyRecord = request.state.caller
        try:
            type_ = await check(self.services, body, caller.tenant)
            given = await self.services.store.feedback.post(
                FeedbackPost(
                    caller.tenant,
                    body.target,
                    body.metric,
                    body.value,
                    body.choice,
                    body.idempotency_key,
                    body.metadata or {},
                    caller.id,
                    type_,
                )
            )
        except TargetNotYours:
            raise not_found("No answer or episode of yours has that id.", "target") from None
        except TooManyParked:
            message = "Too much of your feedback waits for answers nobody has seen."
            raise ApiError(429, message, code="too_many_parked", retry_after=PARKED_SECONDS) from None
        return {"id": given, "object": "feedback"}


async def check(services: Services, post: FeedbackRequest, tenant: str) -> MetricType:
    """Return the type of the metric that the value fits.

    An answer still under way here is known by its exchange. For a target that is not known yet the value must fit some policy's
    metric, and the first that it fits counts. Raises ApiError (400) if target, choice, metric or value are not in order,
    TargetNotYours and StoreUnavailable.
    """
    if not names.is_target(post.target):
        raise invalid("'target' must be the id of an answer or of an episode.", "target")
    running = services.relay.running.get(post.target)
    if running is not None and running.request.caller.tenant != tenant:
        raise TargetNotYours(post.target)
    if running is not None:
        known: tuple[str, int | None] | None = (running.target.owner, running.ask.expected)
    else:
        known = await services.store.feedback.answered(post.target, tenant)
    owner, choices = known if known is not None else (None, None)
    if choices is not None and post.choice >= choices:
        raise invalid(f"'choice' must be below {choices}: the answer has no more choices.", "choice")
    if owner is None:
        declared = services.catalog.declarations(post.metric)
    else:
        declared = [metric for name, metric in services.catalog.metrics(owner).items() if name == post.metric]
    if not declared:
        raise invalid(f"No metric {post.metric!r} is declared for this target.", "metric", "unknown_metric")
    faults = [misfit(post.value, metric) for metric in declared]
    if all(faults):
        raise invalid(f"Invalid value for {post.metric!r}: {faults[0]}.", "value")
    return declared[faults.index("")].type


def misfit(value: Any, metric: MetricConfig) -> str:
    """Why `value` is none of the metric's; "" if it is."""
    if metric.type == "float":
        return _number(value, metric)
    if metric.type == "boolean":
        return "" if isinstance(value, bool) else "true or false"
    if metric.type == "preference":
        return _preference(value)
    if not isinstance(value, str) or not value:
        return "a text that is not empty"
    return "" if len(value) <= LONGEST_TEXT else f"a text of at most {LONGEST_TEXT} characters"


def _number(value: Any, metric: MetricConfig) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return "a finite number"
    if metric.min is not None and value < metric.min:
        return f"a number of at least {metric.min}"
    if metric.max is not None and value > metric.max:
        return f"a number of at most {metric.max}"
    return ""


def _preference(value: Any) -> str:
    try:
        pair = convert(value, Preferred)
    except ApiError:
        return 'an object {"target": id, "choice": 0, "over": id, "over_choice": 0}'
    if (pair.target, pair.choice) == (pair.over, pair.over_choice):
        return "two different answers"
    if any(names.RESPONSE_ID.fullmatch(name) is None for name in (pair.target, pair.over)):
        return "two answers' ids"
    return ""
