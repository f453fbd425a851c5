"""Routes of the public contract that are not built yet. They exist, so that a key's scope is checked, and answer 501."""

from __future__ import annotations

from gateway.api.endpoint import Planned
from gateway.api.table import OPERATOR

JOB = "/v1/fine_tuning/jobs/{id}"
GRADERS = "/v1/fine_tuning/alpha/graders"
RUNS = "/v1/evals/{id}/runs"

DATA = (
    Planned("GET POST", "/v1/files", OPERATOR),
    Planned("GET DELETE", "/v1/files/{id}", OPERATOR),
    Planned("GET", "/v1/files/{id}/content", OPERATOR),
    Planned("GET POST", "/v1/fine_tuning/jobs", OPERATOR),
    Planned("GET", JOB, OPERATOR),
    *(Planned("GET", f"{JOB}/{part}", OPERATOR) for part in ("events", "checkpoints")),
    *(Planned("POST", f"{JOB}/{action}", OPERATOR) for action in ("cancel", "pause", "resume")),
    *(Planned("POST", f"{GRADERS}/{action}", OPERATOR) for action in ("validate", "run")),
    Planned("GET POST", "/v1/evals", OPERATOR),
    Planned("GET POST DELETE", "/v1/evals/{id}", OPERATOR),
    Planned("GET POST", RUNS, OPERATOR),
    Planned("GET POST DELETE", RUNS + "/{run}", OPERATOR),
    Planned("GET", RUNS + "/{run}/output_items", OPERATOR),
    Planned("GET", RUNS + "/{run}/output_items/{item}", OPERATOR),
)
"""Of the data plane."""

ADMIN = (Planned("POST", "/admin/erase", OPERATOR),)
"""Of the control plane."""
