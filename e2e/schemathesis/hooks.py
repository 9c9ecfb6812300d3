"""What Schemathesis has to know of the API beside its documents."""

import os
import random

import schemathesis

# Half of what is asked is asked of these, so that something is there to be read, changed and deleted.
KNOWN = {"namespace": ["default"], "name": ["a", "b", "c"]}

with open(os.environ["GANTRY_TOKEN_FILE"], encoding="utf-8") as file:
    TOKEN = file.read().strip()


@schemathesis.hook
def before_call(context, case, kwargs):
    case.headers["Authorization"] = f"Bearer {TOKEN}"
    # A watch is no list, and its end would be waited for.
    if isinstance(case.query, dict):
        case.query.pop("watch", None)
    choose = random.Random(repr((case.path_parameters, case.body)))
    if choose.random() < 0.5:
        return
    for parameter, names in KNOWN.items():
        if parameter in (case.path_parameters or {}):
            case.path_parameters[parameter] = choose.choice(names)
    if case.method in ("POST", "PUT") and isinstance(case.body, dict):
        fit(case, choose)


def fit(case, choose):
    """Gives an object what no document says: a kind that is that of its path, and a name that can be one."""
    name = case.path_parameters.get("name") if case.path_parameters else None
    for field in ("apiVersion", "kind"):
        case.body.pop(field, None)
    case.body["metadata"] = {"name": name or choose.choice(KNOWN["name"]), "labels": {"app": "a"}}
