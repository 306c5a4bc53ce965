"""Rows of a spans table as JSON in which types show: what two engines read can be compared with
what was written, value by value."""

import datetime
import decimal
import json
import math
import struct
import sys


def typed(value):
    """A value of an attribute."""
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
    if isinstance(value, (list, tuple)):
        return {"array": [typed(v) for v in value]}
    if isinstance(value, dict):
        return {"object": {k: typed(v) for k, v in value.items()}}
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


def row(value):
    """A row, or a struct in it: `attributes` are typed, everything else is plain."""
    if hasattr(value, "asDict"):
        value = value.asDict()
    if isinstance(value, dict):
        return {
            k: (None if v is None else typed(v)) if k == "attributes" else row(v)
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [row(v) for v in value]
    return plain(value)


def serve(operations):
    """Answers requests, one JSON document per line, until standard input ends. An operation that
    fails is answered with its error; the next one may succeed."""
    out = sys.stdout
    # Whatever a library prints belongs to the log.
    sys.stdout = sys.stderr
    out.write('{"ready": true}\n')
    out.flush()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": operations[request.pop("op")](**request)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        out.write(json.dumps(answer) + "\n")
        out.flush()
