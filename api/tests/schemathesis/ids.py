"""Puts ids of what exists where a generated request has ids of nothing, so that more than 404 is seen;
and nobody waits for long, for what may not come because another request wants something else.

GANTRY_IDS: a JSON object of ids by the start of the path, and by the name of the field of a body.
"""

import json
import os
import re

import schemathesis

IDS = json.loads(os.environ["GANTRY_IDS"])
ID = re.compile("[0-9a-f]{24}")
WAIT_S = 2
# More than that is wrong, and stays.
WAIT_MAX_S = 300


def is_id(value):
    return isinstance(value, str) and ID.fullmatch(value) is not None


@schemathesis.hook
def before_call(context, case, kwargs):
    path = case.operation.path.removeprefix("/api/v1/")
    known = next((IDS[start] for start in IDS if path.startswith(start + "/{id}")), None)
    # What everything else stands on must stay.
    deletes = case.method.upper() == "DELETE" and path.endswith("/{id}")
    given = case.path_parameters or {}
    if known is not None and not deletes and is_id(given.get("id")):
        case.path_parameters["id"] = known
    query = case.query or {}
    if str(query.get("timeout", "")).isdecimal() and WAIT_S < int(query["timeout"]) <= WAIT_MAX_S:
        query["timeout"] = WAIT_S
    if isinstance(case.body, dict):
        for name in case.body.keys() & IDS.keys():
            if is_id(case.body[name]):
                case.body[name] = IDS[name]
