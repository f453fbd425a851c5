"""What schemathesis cannot guess: names that exist, and bodies that are good, for about half of its valid cases.

Each case's status goes to the file in STATUSES.
"""

import json
import os
from pathlib import Path

import schemathesis

KNOWN = json.loads(os.environ["KNOWN"])
"""Names by the path they belong to. What a case deletes is not used again."""
FIELDS = json.loads(os.environ["FIELDS"])
"""Fields of a body by path."""


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict) -> None:
    if (case.path_parameters or {}).get("id") == os.environ["KEY_ID"]:
        case.path_parameters["id"] = "gone"  # the key that all cases use is not theirs to revoke
    if case.id < "V" or case.meta is None or not case.meta.generation.mode.is_positive:  # an id is of letters and digits: about half
        return
    for path, names in KNOWN.items():
        if case.path.startswith(path + "/{") and case.path_parameters and len(names) > 1:
            first = case.path[len(path) + 2 :].split("}")[0]
            case.path_parameters[first] = names.pop() if case.method == "DELETE" else names[0]
    if isinstance(case.body, dict):
        case.body.update(FIELDS.get(case.path, {}))


@schemathesis.hook
def after_call(context: schemathesis.HookContext, case: schemathesis.Case, response: schemathesis.Response) -> None:
    with Path(os.environ["STATUSES"]).open("a") as file:
        file.write(f"{case.id} {case.method} {case.path} {response.status_code}\n")
