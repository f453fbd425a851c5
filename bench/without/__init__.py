"""The gateway without one of its optimisations: for each, the code that a plain implementation would have in its place.

`python -m bench.without.run NAME -- ARGUMENTS` starts the gateway so; `bench/ablation.py` measures what that costs. Each alternative
is complete and correct: a gateway without any one of them passes the same checks.
"""

from __future__ import annotations

from bench.without import capturing, client, metrics, process, recording, requests, timers, upstream
from bench.without.optimisation import Optimisation

OPTIMISATIONS: dict[str, Optimisation] = {
    found.name: found
    for module in (upstream, client, timers, requests, capturing, recording, metrics, process)
    for found in vars(module).values()
    if isinstance(found, Optimisation)
}
"""By name, in the order in which they are measured and listed."""
