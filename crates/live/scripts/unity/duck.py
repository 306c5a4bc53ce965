"""DuckDB, Polars and deltalake, and what else is easy in Python, for as long as standard input is
open."""

import glob
import json
import os
import pathlib
import urllib.error
import urllib.parse
import urllib.request

import boto3
import botocore.config
import duckdb
import duckdb_extension_delta
import duckdb_extension_httpfs

import canonical


def connection(s3=None):
    """A database in memory with the extensions that came as packages; nothing is downloaded."""
    db = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    for package, name in [(duckdb_extension_httpfs, "httpfs"), (duckdb_extension_delta, "delta")]:
        folder = pathlib.Path(package.__file__).parent / "extensions" / f"v{duckdb.__version__}"
        db.execute(f"LOAD '{folder / name}.duckdb_extension'")
    if s3:
        endpoint = urllib.parse.urlsplit(s3["endpoint"])
        db.execute(
            "CREATE SECRET (TYPE s3, KEY_ID $$%s$$, SECRET $$%s$$, REGION 'us-east-1', "
            "ENDPOINT '%s', USE_SSL false, URL_STYLE 'path')"
            % (s3["key"], s3["secret"], endpoint.netloc)
        )
    return db


def rows(path):
    """The table's columns with their types, and its rows."""
    db = connection()
    described = db.execute(f"DESCRIBE SELECT * FROM delta_scan('{path}')").fetchall()
    schema = {d[0]: d[1] for d in described}
    times = " REPLACE (epoch_us(time) AS time, date::VARCHAR AS date)" if "time" in schema else ""
    # Beside each bag of attributes the same as JSON, which has all names.
    bags = (
        "attributes::JSON::VARCHAR",
        "resource.attributes::JSON::VARCHAR",
        "instrumentation_scope.attributes::JSON::VARCHAR",
        "[e.attributes::JSON::VARCHAR for e in events]",
        "[l.attributes::JSON::VARCHAR for l in links]",
    )
    found = db.execute(f"SELECT *{times}, {', '.join(bags)} FROM delta_scan('{path}')")
    names = [d[0] for d in found.description[: -len(bags)]]
    rows = []
    for values in found.fetchall():
        own, resource, scope, events, links = values[-len(bags) :]
        texts = {
            "attributes": own,
            "resource": {"attributes": resource},
            "instrumentation_scope": {"attributes": scope},
            "events": events,
            "links": links,
        }
        rows.append(canonical.row(dict(zip(names, values)), texts))
    return {"schema": schema, "rows": rows}


def ids(path, s3=None):
    """How often each span is there."""
    return connection(s3).execute(
        f"SELECT trace_id, span_id, count(*) FROM delta_scan('{path}') GROUP BY ALL"
    ).fetchall()


def sql(text, path):
    """Runs a query, in which `{table}` stands for the table at a path."""
    found = connection().execute(text.replace("{table}", f"delta_scan('{path}')"))
    return {
        "columns": [d[0] for d in found.description],
        "rows": [[canonical.plain(v) for v in r] for r in found.fetchall()],
    }


def others(path):
    """What deltalake and Polars make of the columns that both understand."""
    import deltalake
    import polars

    table = deltalake.DeltaTable(path)
    files = table.file_uris()
    columns = ["trace_id", "span_id", "name", "start_time_unix_nano"]
    frame = polars.scan_delta(path).select(columns).collect()
    return {
        "deltalake": {"version": table.version(), "files": len(files)},
        "polars": [list(r) for r in frame.rows()],
    }


def log(path):
    """Reads the Delta log as the protocol describes it, and every data file it names: which files
    are part of the table, which are in the folder and are not, and each writer's transactions."""
    db = duckdb.connect()
    commits = sorted(glob.glob(f"{path}/_delta_log/" + "[0-9]" * 20 + ".json"))
    versions = [int(os.path.basename(c)[:20]) for c in commits]
    if versions != list(range(len(versions))):
        raise ValueError(f"the versions have gaps: {versions}")
    live, ever, transactions, spans = {}, set(), {}, 0
    for commit in commits:
        actions = [json.loads(line) for line in open(commit, encoding="utf-8")]
        for action in actions:
            if add := action.get("add"):
                name = urllib.parse.unquote(add["path"])
                if name in ever and add["dataChange"]:
                    raise ValueError(f"{name} is added twice")
                ever.add(name)
                live[name] = add
            elif remove := action.get("remove"):
                live.pop(urllib.parse.unquote(remove["path"]))
            elif txn := action.get("txn"):
                before = transactions.get(txn["appId"])
                if before is not None and before >= txn["version"]:
                    raise ValueError(f"{txn} comes after version {before}")
                if not txn.get("lastUpdated"):
                    raise ValueError(f"{txn} does not say when it was")
                transactions[txn["appId"]] = txn["version"]
    for name, add in live.items():
        there = db.execute(f"SELECT count(*) FROM read_parquet('{path}/{name}')").fetchone()[0]
        if add.get("stats") and json.loads(add["stats"])["numRecords"] != there:
            raise ValueError(f"{name} has {there} rows and says {add['stats']}")
        if os.path.getsize(f"{path}/{name}") != add["size"]:
            raise ValueError(f"{name} does not have {add['size']} bytes")
        spans += there
    files = {os.path.relpath(f, path) for f in glob.glob(f"{path}/**/*.parquet", recursive=True)}
    data = {f for f in files if not f.startswith("_delta_log")}
    return {
        "versions": len(versions),
        "files": len(live),
        "rows": spans,
        "orphans": len(data - ever),
        "checkpoints": len(files) - len(data),
        "transactions": transactions,
    }


def client(s3, service="s3"):
    return boto3.client(
        service,
        endpoint_url=s3["endpoint"],
        aws_access_key_id=s3["key"],
        aws_secret_access_key=s3["secret"],
        region_name="us-east-1",
        config=botocore.config.Config(
            retries={"max_attempts": 1}, max_pool_connections=32, proxies={}
        ),
    )


def bucket(s3, name):
    """Makes a bucket."""
    client(s3).create_bucket(Bucket=name)


def conditional(s3, name, keys, writers):
    """Lets several clients create the same key at once, again and again; gives the number of keys
    for which not exactly one was told that it did, or that hold something else than what that one
    wrote."""
    import concurrent.futures
    import threading

    clients = [client(s3) for _ in range(writers)]
    wrong = []
    with concurrent.futures.ThreadPoolExecutor(writers) as pool:
        for key in range(keys):
            start = threading.Barrier(writers)

            def put(i):
                start.wait()
                try:
                    clients[i].put_object(
                        Bucket=name, Key=f"key {key}", Body=b"%d" % i * 2000, IfNoneMatch="*"
                    )
                    return i
                except clients[i].exceptions.ClientError as error:
                    if error.response["Error"]["Code"] != "PreconditionFailed":
                        raise
                    return None

            won = [i for i in pool.map(put, range(writers)) if i is not None]
            there = clients[0].get_object(Bucket=name, Key=f"key {key}")["Body"].read()
            if len(won) != 1 or there != b"%d" % won[0] * 2000:
                wrong.append([key, won])
    return wrong


def download(s3, name, prefix, folder):
    """Copies everything under a prefix into a folder; gives the number of files."""
    s3 = client(s3)
    count = 0
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name, Prefix=prefix + "/"):
        for item in page.get("Contents", []):
            target = pathlib.Path(folder) / item["Key"][len(prefix) + 1 :]
            target.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(name, item["Key"], str(target))
            count += 1
    return count


def session(s3, seconds):
    """Short-lived credentials from the store's own token service."""
    answer = client(s3, "sts").assume_role(
        RoleArn="arn:aws:iam::000000000000:role/any",
        RoleSessionName="live",
        DurationSeconds=seconds,
    )
    return answer["Credentials"] | {"Expiration": answer["Credentials"]["Expiration"].timestamp()}


def http(method, url, body=None):
    """A request with and an answer in JSON; gives the status and the answer."""
    request = urllib.request.Request(
        url,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            text = answer.read()
            return [answer.status, json.loads(text) if text else None]
    except urllib.error.HTTPError as error:
        return [error.code, json.loads(error.read())]


canonical.serve(
    {
        "rows": rows,
        "ids": ids,
        "sql": sql,
        "others": others,
        "log": log,
        "bucket": bucket,
        "conditional": conditional,
        "download": download,
        "session": session,
        "http": http,
        "version": lambda: duckdb.__version__,
    }
)
