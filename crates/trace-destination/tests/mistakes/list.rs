//! The list. What stands in braces is put in by the world.

/// Something that people get wrong.
pub(crate) struct Mistake {
    pub(crate) what: &'static str,
    pub(crate) vars: &'static [(&'static str, &'static str)],
    /// Variables that are read from the process alone.
    pub(crate) of_process: &'static [(&'static str, &'static str)],
    pub(crate) is_slow: bool,
    /// What the message has to say, so that it can be mended.
    pub(crate) mend: &'static str,
}

pub(crate) type Mistakes = fn() -> Vec<Mistake>;

pub(crate) const SECTIONS: &[(&str, Mistakes)] = &[
    ("URIs", uris),
    ("Local files", files),
    ("Tables", tables),
    ("Servers", servers),
    ("Certificates and proxies", ways),
    ("Variables", variables),
];

const DESTINATION: &str = "MLFLOW_TRACING_DESTINATION";

macro_rules! mistakes {
    ($($what:literal, $uri:literal => $mend:literal;)*) => {
        vec![$(Mistake {
            what: $what,
            vars: &[(DESTINATION, $uri)],
            of_process: &[],
            is_slow: false,
            mend: $mend,
        }),*]
    };
}

macro_rules! variables {
    ($($what:literal, [$(($name:literal, $value:literal)),*] => $mend:literal;)*) => {
        vec![$(Mistake {
            what: $what,
            vars: &[$(($name, $value)),*],
            of_process: &[],
            is_slow: false,
            mend: $mend,
        }),*]
    };
}

fn uris() -> Vec<Mistake> {
    mistakes! {
        "a file without a scheme", "mlflow.db" => "write sqlite:///mlflow.db";
        "a path without a scheme", "/srv/traces/mlflow.db" => "write sqlite:////srv/traces/mlflow.db";
        "a server without a scheme", "localhost:5000" => "write http://localhost:5000";
        "an address without a scheme", "127.0.0.1:5000" => "write http://127.0.0.1:5000";
        "a letter too few", "sqlit:///mlflow.db?experiment_name=x" => "did you mean `sqlite:`?";
        "a letter too few", "htp://h:5000?experiment_name=x" => "did you mean `http:`?";
        "an unknown scheme", "redis://h" => "use one of databricks:, http:";
        "a database server", "postgresql://db/mlflow" => "http://host:5000";
        "MLflow's file store", "file:///srv/mlruns" => "sqlite:///mlflow.db";
        "OTLP without a transport", "otlp://h:4318" => "otlp+http://host:4318";
        "gRPC", "grpc://h:4317" => "otlp+http://host:4318";
        "the port of gRPC", "otlp+http://h:4317" => "otlp+http://h:4318";
        "a bucket", "s3://bucket/traces" => "?root=s3://";
        "a drive of Windows", "C:\\traces\\mlflow.db" => "sqlite:///C:/path";
        "quotation marks", "\"sqlite:///mlflow.db?experiment_name=x\"" => "leave the quotation marks out";
        "half a quotation", "'memory:x" => "leave the quotation marks out";
        "a password in the address", "http://me:hunter2@h:5000?experiment_name=x" => "never in a URI";
        "a token as a parameter", "http://h:5000?experiment_name=x&token=hunter2" => "use one of experiment_name";
        "a key as a parameter", "otlp+http://h:4318?api_key=hunter2" => "headers come from the environment";
        "a parameter that is nearly one", "http://h:5000?experiment=x" => "did you mean `experiment_name`?";
        "a port that is none", "http://h:99999?experiment_name=x" => "up to 65535";
        "no host", "http:///x?experiment_name=x" => "scheme://host:port";
        "no experiment", "http://h:5000" => "?experiment_name=";
        "a name for an id", "http://h:5000?experiment_id=checkout" => "experiment_name";
        "the same twice", "http://h:5000?experiment_id=1&experiment_id=2" => "given twice";
        "a fragment", "http://h:5000#/experiments/3" => "%23";
        "a comma in a name", "sqlite:///{dir}/a.db?experiment_name=a,b" => "%2C";
        "a word in a list", "memory:a,discard" => "scheme";
        "a template as a destination", "memory:{tenant}" => "`Template`";
        "no name", "memory:" => "memory:name";
        "two experiments of one store", "sqlite:///{dir}/a.db?experiment_id=1,sqlite:///{dir}/a.db?experiment_id=2" => "another store";
        "four parts", "main.traces.shop.x" => "catalog.schema";
        "a name where an id belongs", "checkout" => "MLFLOW_EXPERIMENT_NAME";
    }
}

fn files() -> Vec<Mistake> {
    mistakes! {
        "two slashes", "sqlite://mlflow.db?experiment_name=x" => "sqlite:///";
        "no slash", "sqlite:mlflow.db?experiment_name=x" => "sqlite:///";
        "no file", "sqlite:///?experiment_name=x" => "sqlite:///relative.db";
        "a database in memory", "sqlite:///:memory:?experiment_name=x" => "memory:<name>";
        "no experiment", "sqlite:///{dir}/a.db" => "?experiment_name=";
        "a parameter that is nearly one", "sqlite:///{dir}/a.db?experiment=x" => "did you mean `experiment_name`?";
        "another word than true or false", "sqlite:///{dir}/a.db?experiment_name=x&create=no" => "write true or false";
        "a name for an id", "sqlite:///{dir}/a.db?experiment_id=checkout" => "whole number";
        "a home folder", "sqlite:///~/mlflow.db?experiment_name=x" => "write the folder itself";
        "a variable", "sqlite:///$HOME/mlflow.db?experiment_name=x" => "write the folder itself";
        "a path of Windows", "sqlite:///C:\\traces\\mlflow.db?experiment_name=x" => "sqlite:////absolute";
        "a folder for a file", "sqlite:///{dir}?experiment_name=x" => "name a file in it";
        "folders that are missing", "sqlite:///{dir}/no/such/a.db?experiment_name=x" => "create it";
        "a file that is not there", "sqlite:///{dir}/b.db?experiment_name=x&create=false" => "create";
        "an experiment that is not there", "sqlite:///{dir}/c.db?experiment_id=99" => "experiment_name";
        "a text", "sqlite:///{dir}/notes.txt?experiment_name=x" => "name a file that MLflow made";
        "the database of another program", "sqlite:///{dir}/shop.db?experiment_name=x" => "name a file that MLflow made";
        "a file as a folder", "sqlite:///{dir}/notes.txt/a.db?experiment_name=x" => "folder";
        "a folder that nobody may write", "sqlite:////proc/a.db?experiment_name=x" => "folder";
    }
}

fn tables() -> Vec<Mistake> {
    mistakes! {
        "one part", "uc://main?root={dir}/lake" => "catalog.schema";
        "four parts", "uc://main.traces.a.b?root={dir}/lake" => "catalog.schema.prefix";
        "a sign in a name", "uc://main.traces.sh$op?root={dir}/lake" => "letters";
        "a home folder", "uc://main.traces.shop?root=~/lake" => "shell";
        "a slash too few", "uc://main.traces.shop?root=s3:/bucket" => "slashes";
        "a file system that is none", "uc://main.traces.shop?root=hdfs://h/x" => "store";
        "a root and a server", "uc://main.traces.shop?root={dir}/lake&server=http://h" => "leave one of them out";
        "a parameter that is nearly one", "uc://main.traces.shop?roots={dir}/lake" => "did you mean `root`?";
        "another word than true or false", "uc://main.traces.shop?root={dir}/lake&create=maybe" => "write true or false";
        "a file for a folder", "uc://main.traces.shop?root={dir}/notes.txt" => "root";
        "a table that is not there", "uc://main.traces.shop?root={dir}/lake&create=false" => "create";
        "a catalog server that is none", "uc://main.traces.shop?server={web}" => "http://host:8080";
        "a catalog server that is not there", "uc://main.traces.shop?server=http://{closed}" => "start the server";
        "no table", "databricks://" => "table=catalog.schema";
        "a schema for a table", "databricks://?table=main.traces" => "catalog.schema";
    }
}

fn servers() -> Vec<Mistake> {
    let mut all = mistakes! {
        "nothing listens there", "http://{closed}?experiment_name=x" => "start the server, or correct host and port";
        "another server", "http://{web}?experiment_name=x" => "address";
        "a path that is not there", "http://{nothing}/mlflow?experiment_name=x" => "path";
        "no credentials", "http://{locked}?experiment_name=x" => "MLFLOW_TRACKING_USERNAME";
        "no rights", "http://{forbidden}?experiment_name=x" => "right";
        "an old server", "http://{old}?experiment_name=x" => "3.4";
        "an experiment that is not there", "http://{mlflow}?experiment_id=99" => "experiment";
        "a server that moved", "http://{moved}?experiment_name=x" => "redirects to";
        "https at a port for http", "https://{plain}?experiment_name=x" => "write http://";
        "http at a port for https", "http://{gotls}?experiment_name=x" => "write https://";
        "http at a port for https", "otlp+http://{gotls}" => "write https://";
        "http at a port for https", "otlp+http://{alert}" => "https://";
        "a port of gRPC", "otlp+http://{grpc}" => "4317";
        "no OTLP receiver", "otlp+http://{web}" => "4318";
        "a path without a receiver", "otlp+http://{nothing}" => "path";
        "no key", "otlp+http://{locked}" => "credentials";
        "a receiver that is not there", "otlp+http://{closed}" => "start the server";
    };
    all.push(Mistake {
        what: "a server that does not answer",
        vars: &[(DESTINATION, "otlp+http://{silent}")],
        of_process: &[],
        is_slow: true,
        mend: "reachable",
    });
    all
}

fn ways() -> Vec<Mistake> {
    let mut all = variables! {
        "a certificate that nobody vouches for", [("MLFLOW_TRACING_DESTINATION", "https://localhost:{port of tls}?experiment_name=x")] => "MLFLOW_TRACKING_SERVER_CERT_PATH";
        "a certificate for another host", [("MLFLOW_TRACKING_URI", "https://localhost:{port of othername}"), ("MLFLOW_TRACKING_SERVER_CERT_PATH", "{dir}/named.pem")] => "mlflow.example";
        "a file that is not there", [("MLFLOW_TRACKING_URI", "https://h:5000"), ("MLFLOW_TRACKING_SERVER_CERT_PATH", "{dir}/gone.pem")] => "name a readable PEM file";
        "a file that is empty", [("MLFLOW_TRACKING_URI", "https://h:5000"), ("MLFLOW_TRACKING_SERVER_CERT_PATH", "{dir}/empty.pem")] => "name a readable PEM file";
        "a certificate without its key", [("MLFLOW_TRACKING_URI", "https://h:5000"), ("MLFLOW_TRACKING_CLIENT_CERT_PATH", "{dir}/own.pem")] => "PEM";
        "two that contradict each other", [("MLFLOW_TRACKING_URI", "https://h:5000"), ("MLFLOW_TRACKING_SERVER_CERT_PATH", "{dir}/own.pem"), ("MLFLOW_TRACKING_INSECURE_TLS", "true")] => "unset one of them";
    };
    let proxied = |what, of_process, uri, mend| Mistake {
        what,
        vars: uri,
        of_process,
        is_slow: false,
        mend,
    };
    all.extend([
        proxied(
            "a proxy that is not there",
            &[("HTTP_PROXY", "http://me:hunter2@{closed}")],
            &[(DESTINATION, "otlp+http://collector.example:4318")],
            "from HTTP_PROXY",
        ),
        proxied(
            "a proxy that asks for credentials",
            &[("HTTPS_PROXY", "http://{proxy407}")],
            &[(DESTINATION, "otlp+https://collector.example")],
            "user and password",
        ),
        proxied(
            "a proxy that refuses",
            &[("ALL_PROXY", "http://{proxy403}")],
            &[(DESTINATION, "otlp+https://collector.example")],
            "NO_PROXY",
        ),
        proxied(
            "a proxy that is none",
            &[("HTTPS_PROXY", "ftp://me:hunter2@proxy:3128")],
            &[(DESTINATION, "otlp+https://collector.example")],
            "write http://host:port",
        ),
        proxied(
            "an `@` in a password",
            &[("HTTPS_PROXY", "http://me:hunter2@hunter2@proxy:3128")],
            &[(DESTINATION, "otlp+https://collector.example")],
            "write %40",
        ),
    ]);
    all
}

fn variables() -> Vec<Mistake> {
    variables! {
        "a name that is nearly one", [("MLFLOW_EXPERIMENT_NAM", "x")] => "did you mean MLFLOW_EXPERIMENT_NAME?";
        "a name that is nearly one", [("MLFLOW_TRACKING_URL", "http://h:5000")] => "did you mean MLFLOW_TRACKING_URI?";
        "a name in lower case", [("mlflow_tracking_uri", "http://h:5000")] => "did you mean MLFLOW_TRACKING_URI?";
        "a name that nobody reads", [("MLFLOW_TRACE_SAMPLE_RATE", "0.1")] => "did you mean MLFLOW_TRACE_SAMPLING_RATIO?";
        "a variable of MLflow without effect", [("MLFLOW_TRACE_TIMEOUT_SECONDS", "60")] => "with_max_trace_age";
        "a folder", [("MLFLOW_TRACKING_URI", "./mlruns")] => "sqlite:///";
        "Databricks as a store", [("MLFLOW_TRACKING_URI", "databricks")] => "table=catalog";
        "a server without a scheme", [("MLFLOW_TRACKING_URI", "localhost:5000")] => "write http://localhost:5000";
        "a letter too few", [("MLFLOW_TRACKING_URI", "sqlit:///mlflow.db")] => "did you mean `sqlite:`?";
        "a database server", [("MLFLOW_TRACKING_URI", "mysql+pymysql://db/mlflow")] => "http://host:5000";
        "a destination as a store", [("MLFLOW_TRACKING_URI", "otlp+http://h:4318")] => "MLFLOW_TRACING_DESTINATION";
        "quotation marks", [("MLFLOW_TRACKING_URI", "\"http://h:5000\"")] => "leave the quotation marks out";
        "quotation marks", [("MLFLOW_EXPERIMENT_NAME", "\"checkout\""), ("MLFLOW_TRACKING_URI", "sqlite:///{dir}/q.db")] => "leave them out";
        "a line break", [("MLFLOW_EXPERIMENT_NAME", "checkout\n"), ("MLFLOW_TRACKING_URI", "sqlite:///{dir}/q.db")] => "leave them out";
        "a name for an id", [("MLFLOW_EXPERIMENT_ID", "checkout")] => "experiment_name";
        "a percentage", [("MLFLOW_TRACE_SAMPLING_RATIO", "50%")] => "a number from 0 to 1";
        "a percentage", [("MLFLOW_TRACE_SAMPLING_RATIO", "50")] => "MLFLOW_TRACE_SAMPLING_RATIO";
        "a unit", [("OTEL_BSP_SCHEDULE_DELAY", "5s")] => "whole number of milliseconds";
        "none at all", [("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0")] => "at least 1";
        "another word than true or false", [("MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT", "yes")] => "true, false, 1 or 0";
        "no endpoint", [("MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT", "true")] => "set OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        "an endpoint alone", [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4318")] => "MLFLOW_TRACING_DESTINATION=otlp+http://";
        "an endpoint without a scheme", [("MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT", "true"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4318")] => "http://localhost:4318";
        "the port of gRPC", [("MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT", "true"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h:4317")] => "4318";
        "a compression that is none", [("MLFLOW_TRACING_DESTINATION", "otlp+http://h:4318"), ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd")] => "write gzip or none";
        "headers that are none", [("MLFLOW_TRACING_DESTINATION", "otlp+http://h:4318"), ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2")] => "key=value";
        "half of the credentials", [("MLFLOW_TRACKING_USERNAME", "me")] => "MLFLOW_TRACKING_PASSWORD is not";
        "a token with a line break", [("MLFLOW_TRACKING_URI", "http://h:5000"), ("MLFLOW_TRACKING_TOKEN", "hunter2\n")] => "line break";
        "credentials that are wrong", [("MLFLOW_TRACKING_URI", "http://{locked}"), ("MLFLOW_TRACKING_TOKEN", "hunter2")] => "correct or renew it";
        "credentials without their host", [("MLFLOW_TRACING_DESTINATION", "http://{locked}?experiment_name=x"), ("MLFLOW_TRACKING_TOKEN", "hunter2")] => "set MLFLOW_TRACKING_URI=http://";
        "a way to authenticate that is not spoken", [("MLFLOW_TRACKING_URI", "http://h:5000"), ("MLFLOW_TRACKING_AUTH", "kerberos")] => "MLFLOW_TRACKING_TOKEN";
        "a profile that is not there", [("MLFLOW_TRACING_DESTINATION", "databricks://prod?table=a.b.c_otel_spans"), ("DATABRICKS_CONFIG_FILE", "{dir}/profiles")] => "~/.databrickscfg";
        "no workspace", [("MLFLOW_TRACING_DESTINATION", "databricks://?table=a.b.c_otel_spans")] => "set DATABRICKS_HOST";
        "a workspace without credentials", [("MLFLOW_TRACING_DESTINATION", "databricks://?table=a.b.c_otel_spans"), ("DATABRICKS_HOST", "h.example")] => "set DATABRICKS_TOKEN";
        "two catalogs", [("MLFLOW_TRACING_DESTINATION", "uc://a.b.c"), ("UNITY_CATALOG_ROOT", "/srv/lake"), ("UNITY_CATALOG_URI", "http://h:8080")] => "unset one of them";
        "half of an OAuth client", [("MLFLOW_TRACING_DESTINATION", "uc://a.b.c"), ("UNITY_CATALOG_URI", "http://h:8080"), ("UNITY_CATALOG_CLIENT_ID", "me")] => "set both";
        "a unit", [("MLFLOW_TRACING_DESTINATION", "uc://a.b.c"), ("UNITY_CATALOG_URI", "http://h:8080"), ("UNITY_CATALOG_TIMEOUT", "30s")] => "whole number of seconds";
    }
}
