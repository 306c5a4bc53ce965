"""Spark with Delta Lake, for as long as standard input is open: `spark.py JARS WAREHOUSE`."""

import glob
import sys

# Before Spark: it takes the standard output away from what is started later.
import canonical

from pyspark.sql import SparkSession

jars, warehouse = sys.argv[1:]
spark = (
    SparkSession.builder.master("local[2]")
    .config("spark.jars", ",".join(sorted(glob.glob(f"{jars}/*.jar"))))
    .config("spark.driver.memory", "1g")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.driver.host", "127.0.0.1")
    .config("spark.ui.enabled", "false")
    .config("spark.ui.showConsoleProgress", "false")
    .config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
    .config(
        "spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog"
    )
    .config("spark.sql.warehouse.dir", warehouse)
    .config("spark.sql.session.timeZone", "UTC")
    .config("spark.sql.shuffle.partitions", "2")
    .config("spark.databricks.delta.snapshotPartitions", "1")
    # VACUUM lists a folder with as many tasks as this, 10,000 unless told otherwise.
    .config("spark.sql.sources.parallelPartitionDiscovery.parallelism", "2")
    .getOrCreate()
)
spark.sparkContext.setLogLevel("ERROR")


def rows(path):
    """The table's columns with their types, and its rows."""
    frame = spark.read.format("delta").load(path)
    schema = {f.name: f.dataType.simpleString() for f in frame.schema.fields}
    if "time" in schema:
        frame = frame.selectExpr(
            "* except (time, date)", "unix_micros(time) time", "cast(date as string) date"
        )
    return {"schema": schema, "rows": [canonical.row(r) for r in frame.collect()]}


def ids(path):
    """How often each span is there."""
    frame = spark.read.format("delta").load(path)
    found = frame.groupBy("trace_id", "span_id").count().collect()
    return [[r[0], r[1], r[2]] for r in found]


def sql(text, path=None):
    """Runs statements, in which `{table}` stands for the table at a path; gives what the last one
    selects."""
    answer = None
    for statement in text.split(";"):
        if statement.strip():
            if path is not None:
                statement = statement.replace("{table}", f"delta.`{path}`")
            answer = spark.sql(statement)
    return {"columns": answer.columns, "rows": [[canonical.plain(v) for v in r] for r in answer.collect()]}


def version():
    return spark.version


canonical.serve({"rows": rows, "ids": ids, "sql": sql, "version": version})
