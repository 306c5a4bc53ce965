"""What real MLflow makes of a tracking store, as JSON on stdout.

Run by the live conformance cases with the Python of a virtual environment that holds MLflow.
Standard library and mlflow only. Subcommands:

  version             the installed MLflow version
  new --db FILE       let MLflow create the file (or bring an old one to its own schema)
  dump --db FILE      let MLflow open the file (it upgrades an old schema), then give every trace
                      as its Python API shows it, and every database row
  dump --infos …      the same without spans, for an MLflow that cannot read them from a database
  rows --db FILE      the database rows alone, without MLflow and without touching the file
  dump --url BASE     every trace as the Python API shows it through a server
  search --db FILE    the span ids of every trace by experiment, as search_traces gives them
  post --url BASE --experiment ID FILE...
                      post OTLP protobuf requests to /v1/traces, in order
  experiment --url BASE --name NAME [--existing]
                      the id of a new experiment on a server, or of one that is there
  certificate --folder DIR
                      a certificate for localhost, signed by itself, and its key
"""

import argparse
import json
import math
import sqlite3
import sys
import time
import urllib.error
import urllib.request

TIMEOUT_SECONDS = 120
PAGE = 100
ATTEMPTS = 5


def plain(value):
    """A value that strict JSON can carry."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    if isinstance(value, bytes):
        return {"$bytes": value.hex()}
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    to_dict = getattr(value, "to_dict", None)
    if to_dict is not None:
        return plain(to_dict())
    return str(value)


def rows(path):
    """Every row of the tables in which traces live, keyed for comparison."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=TIMEOUT_SECONDS)
    db.row_factory = sqlite3.Row
    present = {r[0] for r in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}

    def read(table):
        if table not in present:
            return []
        return [plain(dict(r)) for r in db.execute(f"SELECT * FROM {table}")]

    traces = {}
    for row in read("trace_info"):
        traces[row["request_id"]] = {"info": row, "tags": {}, "metadata": {}, "spans": {}, "metrics": {}}
    stray = []
    for table, part in (
        ("trace_tags", "tags"),
        ("trace_request_metadata", "metadata"),
        ("trace_metrics", "metrics"),
    ):
        for row in read(table):
            trace = traces.get(row["request_id"])
            if trace is None:
                stray.append({"table": table, "row": row})
            else:
                trace[part][row["key"]] = row["value"]
    for row in read("spans"):
        trace = traces.get(row["trace_id"])
        if trace is None:
            stray.append({"table": "spans", "row": row})
            continue
        try:
            row["content"] = plain(json.loads(row["content"]))
        except ValueError:
            row["content"] = {"$not_json": row["content"]}
        trace["spans"][row["span_id"]] = row
    return {
        "revision": [r["version_num"] for r in read("alembic_version")],
        "integrity": [r[0] for r in db.execute("PRAGMA integrity_check")],
        "foreign_key_errors": [list(map(plain, r)) for r in db.execute("PRAGMA foreign_key_check")],
        "experiments": {str(r["experiment_id"]): r for r in read("experiments")},
        "traces": traces,
        "assessments": read("assessments"),
        "stray": stray,
    }


def attempt(read):
    """A value, or the error its accessor raises: both must be equal on both sides."""
    try:
        return plain(read())
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what a user would see
        return {"$error": f"{type(error).__name__}: {error}"}


def of_span(span):
    return {
        "dict": attempt(span.to_dict),
        "span_id": attempt(lambda: span.span_id),
        "parent_id": attempt(lambda: span.parent_id),
        "name": attempt(lambda: span.name),
        "type": attempt(lambda: span.span_type),
        "status": attempt(lambda: {"code": span.status.status_code.value, "description": span.status.description}),
        "inputs": attempt(lambda: span.inputs),
        "outputs": attempt(lambda: span.outputs),
        "attributes": attempt(lambda: span.attributes),
        "events": attempt(
            lambda: [{"name": e.name, "time": e.timestamp, "attributes": e.attributes} for e in span.events]
        ),
        "links": attempt(lambda: [link.to_dict() for link in span.links]),
        "model": attempt(lambda: span.model_name),
        "cost": attempt(lambda: span.llm_cost),
    }


def of_trace(trace):
    info = trace.info
    return {
        "info": attempt(info.to_dict),
        "name": info.tags.get("mlflow.traceName"),
        "session": info.trace_metadata.get("mlflow.trace.session"),
        "user": info.trace_metadata.get("mlflow.trace.user"),
        "token_usage": attempt(lambda: info.token_usage),
        "cost": attempt(lambda: info.cost),
        "span_order": [s.span_id for s in trace.data.spans],
        "spans": {s.span_id: of_span(s) for s in trace.data.spans},
    }


def api(uri, with_spans):
    """Every trace of every experiment, by search_traces and again one by one by get_trace."""
    from mlflow import MlflowClient
    from mlflow.entities import ViewType

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    experiments = {}
    searched = {}
    order = {}
    for experiment in client.search_experiments(view_type=ViewType.ALL):
        experiments[experiment.experiment_id] = {
            "name": experiment.name,
            "lifecycle_stage": experiment.lifecycle_stage,
            "artifact_location": experiment.artifact_location,
        }
        token = None
        ids = []
        while True:
            page = client.search_traces(
                [experiment.experiment_id], max_results=PAGE, page_token=token, include_spans=with_spans
            )
            for trace in page:
                searched[trace.info.trace_id] = of_trace(trace)
                ids.append(trace.info.trace_id)
            token = page.token
            if not token:
                break
        order[experiment.name] = ids
    fetched = {}
    for trace_id in searched if with_spans else ():
        fetched[trace_id] = of_trace(client.get_trace(trace_id))
    return {"experiments": experiments, "order": order, "search_traces": searched, "get_trace": fetched}


def search(uri):
    """Span ids by trace id by name of the experiment."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    found = {}
    for experiment in client.search_experiments():
        traces = found.setdefault(experiment.name, {})
        token = None
        while True:
            page = client.search_traces(
                [experiment.experiment_id], max_results=PAGE, page_token=token, include_spans=True
            )
            for trace in page:
                traces[trace.info.trace_id] = [s.span_id for s in trace.data.spans]
            token = page.token
            if not token:
                break
    return found


def post(base, experiment, files):
    """Statuses of the posted requests, with the body where it is not 200."""
    answers = []
    for name in files:
        with open(name, "rb") as file:
            body = file.read()
        request = urllib.request.Request(
            f"{base}/v1/traces",
            data=body,
            method="POST",
            headers={"Content-Type": "application/x-protobuf", "x-mlflow-experiment-id": experiment},
        )
        for attempt_number in range(ATTEMPTS):
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
                    result = {"status": answer.status}
            except urllib.error.HTTPError as error:
                result = {"status": error.code, "body": error.read().decode("utf-8", "replace")[:2000]}
            result["attempts"] = attempt_number + 1
            # MLflow's own client sends again what the server could not do at the moment.
            if result["status"] not in (429, 503):
                break
            time.sleep(0.2 * 2**attempt_number)
        answers.append(result)
    return answers


def certificate(folder):
    """Writes certificate.pem and key.pem, good for an hour."""
    import datetime
    import ipaddress
    import pathlib

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = pathlib.Path(folder)
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("version")
    for name in ("new", "rows", "search"):
        commands.add_parser(name).add_argument("--db", required=True)
    dumping = commands.add_parser("dump")
    dumping.add_argument("--infos", action="store_true")
    where = dumping.add_mutually_exclusive_group(required=True)
    where.add_argument("--db")
    where.add_argument("--url")
    posting = commands.add_parser("post")
    posting.add_argument("--url", required=True)
    posting.add_argument("--experiment", required=True)
    posting.add_argument("files", nargs="+")
    creating = commands.add_parser("experiment")
    creating.add_argument("--url", required=True)
    creating.add_argument("--name", required=True)
    creating.add_argument("--existing", action="store_true")
    certifying = commands.add_parser("certificate")
    certifying.add_argument("--folder", required=True)
    options = parser.parse_args()

    if options.command == "version":
        import mlflow

        result = {"version": mlflow.__version__}
    elif options.command == "rows":
        result = rows(options.db)
    elif options.command == "new":
        from mlflow import MlflowClient

        uri = f"sqlite:///{options.db}"
        MlflowClient(tracking_uri=uri, registry_uri=uri).search_experiments()
        result = {"revision": rows(options.db)["revision"]}
    elif options.command == "dump":
        uri = f"sqlite:///{options.db}" if options.db else options.url
        result = {"api": api(uri, not options.infos)}
        if options.db:
            result["rows"] = rows(options.db)
    elif options.command == "search":
        result = search(f"sqlite:///{options.db}")
    elif options.command == "certificate":
        certificate(options.folder)
        result = {}
    elif options.command == "post":
        result = {"answers": post(options.url, options.experiment, options.files)}
    else:
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=options.url, registry_uri=options.url)
        if options.existing:
            result = {"experiment_id": client.get_experiment_by_name(options.name).experiment_id}
        else:
            result = {"experiment_id": client.create_experiment(options.name)}
    json.dump(result, sys.stdout, allow_nan=False)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
