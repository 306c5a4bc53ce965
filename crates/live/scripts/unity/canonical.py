"""Rows of a spans table as JSON in which types show: what two engines read can be compared with
what was written, value by value."""

import datetime
import decimal
import json
import math
import os
import struct
import sys

# The answers alone go to standard output: what a library prints, or the JVM that it starts (Delta's
# VACUUM does), belongs to the log.
answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)


def typed(value, names=None):
    """A value of an attribute. `names` is the same as JSON without types: DuckDB gives an object in
    which a key is empty as a tuple of its values, and only there it says the keys."""
    if hasattr(value, "toPython"):
        value = value.toPython()
    if value is None:
        return {"null": True}
    if isinstance(value, bool):
        return {"bool": value}
    if isinstance(value, int):
        return {"int": str(value)}
    if isinstance(value, float):
        return {"double": "nan" if math.isnan(value) else struct.pack(">d", value).hex()}
    if isinstance(value, str):
        return {"string": value}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, tuple) and isinstance(names, dict) and len(names) == len(value):
        value = dict(zip(names, value))
    if isinstance(value, list):
        inner = names if isinstance(names, list) else [None] * len(value)
        return {"array": [typed(v, n) for v, n in zip(value, inner)]}
    if isinstance(value, dict):
        inner = names if isinstance(names, dict) else {}
        return {"object": {k: typed(v, inner.get(k)) for k, v in value.items()}}
    raise TypeError(f"{type(value).__name__} {value!r} is no attribute's value")


def plain(value):
    """A value of any other column."""
    if isinstance(value, datetime.datetime):
        # Spark's have no zone, and are in that of the process, which is UTC.
        return str(value.astimezone(datetime.timezone.utc))
    if isinstance(value, (datetime.date, decimal.Decimal)):
        return str(value)
    if hasattr(value, "asDict"):
        value = value.asDict()
    if hasattr(value, "toPython"):
        value = value.toPython()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    return value


def row(value, names=None):
    """A row, or a struct in it: `attributes` are typed, everything else is plain. `names` has the
    attributes as JSON text, in the same places."""
    if hasattr(value, "asDict"):
        value = value.asDict()
    if isinstance(value, dict):
        inner = names or {}
        return {
            k: bag(v, inner.get(k)) if k == "attributes" else row(v, inner.get(k))
            for k, v in value.items()
        }
    if isinstance(value, list):
        inner = names or [None] * len(value)
        return [row(v, {"attributes": n}) for v, n in zip(value, inner)]
    return plain(value)


def bag(value, text):
    """The attributes of one thing."""
    if value is None:
        return None
    return typed(value, json.loads(text) if text and has_tuple(value) else None)


def has_tuple(value):
    if isinstance(value, dict):
        return any(has_tuple(v) for v in value.values())
    if isinstance(value, list):
        return any(has_tuple(v) for v in value)
    return isinstance(value, tuple)


def serve(operations):
    """Answers requests, one JSON document per line, until standard input ends. An operation that
    fails is answered with its error; the next one may succeed."""
    answers.write('{"ready": true}\n')
    answers.flush()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": operations[request.pop("op")](**request)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
