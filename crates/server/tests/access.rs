//! Getting in: credentials, headers, TLS, proxies; and that none of it is ever shown.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use base64::Engine as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use support::http::{Reply, Request, Server};
use support::script::mlflow_prelude;
use support::{batch, builder, location, open, root, write};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use trace_destination_core::{EnvSource, Error, ErrorKind, LocationUri, Retry};
use trace_destination_server::ServerLocation;

const SECRET: &str = "hunter2-do-not-show";

fn mlflow(request: &Request) -> Reply {
    mlflow_prelude(request).unwrap_or_else(Reply::stored)
}

fn env(vars: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    pairs.collect()
}

fn from_env(uri: &str, env: &dyn EnvSource) -> Result<ServerLocation, Error> {
    let uri: LocationUri = uri.parse()?;
    ServerLocation::builder()
        .with_uri(&uri)
        .with_env(env)
        .build()
}

/// The headers of the request for spans.
async fn sent(server: &Server, location: &ServerLocation) -> Request {
    write(location, &batch([root(1)])).await.unwrap();
    server.requests_to("/v1/traces").pop().unwrap()
}

fn basic(user: &str, password: &str) -> String {
    let pair = format!("{user}:{password}");
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(pair)
    )
}

#[tokio::test]
async fn mlflow_variables_in_mlflow_order() {
    let server = Server::start(mlflow);
    let uri = format!("{}?experiment_id=7", server.url());
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".mlflow")).unwrap();
    std::fs::write(
        home.path().join(".mlflow/credentials"),
        "# mine\n[mlflow]\nmlflow_tracking_username = filed\nmlflow_tracking_password = p=w\n",
    )
    .unwrap();
    let home = home.path().to_str().unwrap();
    let user = ("MLFLOW_TRACKING_USERNAME", "u");
    let password = ("MLFLOW_TRACKING_PASSWORD", "p");
    let token = ("MLFLOW_TRACKING_TOKEN", "t");
    let empty = tempfile::tempdir().unwrap();
    let nowhere = ("HOME", empty.path().to_str().unwrap());
    let url = server.url();
    let this = ("MLFLOW_TRACKING_URI", &*url);
    for (vars, expected) in [
        (vec![this, user, password, token], Some(basic("u", "p"))),
        (
            vec![this, user, token, ("HOME", home)],
            Some("Bearer t".into()),
        ),
        (
            vec![this, user, ("HOME", home)],
            Some(basic("filed", "p=w")),
        ),
        (vec![this, nowhere], None),
        (vec![], None),
    ] {
        let location = from_env(&uri, &env(&vars)).unwrap();
        let request = sent(&server, &location).await;
        assert_eq!(
            request.header("authorization"),
            expected.as_deref(),
            "{vars:?}"
        );
    }
    // Code beats the environment.
    let uri: LocationUri = uri.parse().unwrap();
    let location = ServerLocation::builder()
        .with_uri(&uri)
        .with_bearer_token("mine")
        .with_env(&env(&[token]))
        .build()
        .unwrap();
    let request = sent(&server, &location).await;
    assert_eq!(request.header("authorization"), Some("Bearer mine"));
}

/// Credentials of the environment go to the host that the configuration names for them; where nothing
/// is named they go nowhere, and a refusal says what to set.
#[tokio::test]
async fn credentials_go_to_the_host_they_are_for_and_to_no_other() {
    let server = Server::start(|r| match (r.path(), r.header("authorization")) {
        ("/version", _) => Reply::text(200, "3.17.2"),
        (_, None) if r.header("api-key").is_none() => Reply::text(401, "who is asking?"),
        _ => mlflow(r),
    });
    let (url, port) = (server.url(), server.address.port());
    let upper = format!("HTTP://127.0.0.1:{port}/base/");
    let names = |name, value| vec![(name, value)];
    let https = format!("https://127.0.0.1:{port}");
    let tail = format!("http://127.0.0.1:{port}.example");
    let user = format!("http://127.0.0.1:{port}@example");
    let other_port = "http://127.0.0.1:1".to_owned();
    let others = [
        "",
        "sqlite:///x.db",
        "mlruns",
        "/data/mlruns",
        "file:///m",
        "databricks",
        &https,
        &tail,
        &user,
        &other_port,
        "http://",
        "http:",
        "127.0.0.1",
    ];
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".mlflow")).unwrap();
    std::fs::write(
        home.path().join(".mlflow/credentials"),
        format!("[mlflow]\nmlflow_tracking_username = u\nmlflow_tracking_password = {SECRET}\n"),
    )
    .unwrap();
    let home = home.path().to_str().unwrap();
    let mlflow_sets = [
        (
            vec![("MLFLOW_TRACKING_TOKEN", SECRET)],
            "MLFLOW_TRACKING_TOKEN",
        ),
        (
            vec![
                ("MLFLOW_TRACKING_USERNAME", "u"),
                ("MLFLOW_TRACKING_PASSWORD", SECRET),
            ],
            "MLFLOW_TRACKING_USERNAME",
        ),
        (vec![("HOME", home)], "~/.mlflow/credentials"),
    ];
    let otlp_sets = [
        (
            vec![("OTEL_EXPORTER_OTLP_HEADERS", "api-key=hunter2-do-not-show")],
            "OTEL_EXPORTER_OTLP_HEADERS",
        ),
        (
            vec![(
                "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
                "api-key=hunter2-do-not-show",
            )],
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        ),
    ];
    let of_mlflow = mlflow_sets.iter().map(|(set, from)| {
        (
            format!("{url}?experiment_id=7"),
            "MLFLOW_TRACKING_URI",
            set,
            *from,
        )
    });
    let of_otlp = otlp_sets.iter().map(|(set, from)| {
        (
            format!("otlp+{url}"),
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            set,
            *from,
        )
    });
    for (uri, variable, set, from) in of_mlflow.chain(of_otlp) {
        for other in others {
            let vars: Vec<_> = set.iter().copied().chain(names(variable, other)).collect();
            let location = from_env(&uri, &env(&vars)).unwrap();
            let error = write(&location, &batch([root(1)])).await.unwrap_err();
            let text = format!("{error} {error:?}");
            assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{text}");
            assert!(
                text.contains(from) && text.contains(&format!("set {variable}={url}")),
                "{text}"
            );
            assert!(!text.contains(SECRET), "{text}");
        }
        for request in server.requests() {
            assert!(!format!("{request:?}").contains("hunter2"), "{request:?}");
        }
        // As it is named, however it is written, and where code names it.
        for this in [&*url, &*upper] {
            let vars: Vec<_> = set.iter().copied().chain(names(variable, this)).collect();
            sent(&server, &from_env(&uri, &env(&vars)).unwrap()).await;
        }
        let named = builder(&uri)
            .with_credential_host(&url)
            .with_env(&env(set))
            .build()
            .unwrap();
        sent(&server, &named).await;
        server.forget();
    }
    // The endpoint of traces counts before the general one.
    let uri = format!("otlp+{url}");
    for (specific, general, is_sent) in [(&*url, "http://e:1", true), ("http://e:1", &*url, false)]
    {
        let vars = env(&[
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", specific),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", general),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=x"),
        ]);
        let done = write(&from_env(&uri, &vars).unwrap(), &batch([root(1)])).await;
        assert_eq!(done.is_ok(), is_sent, "{done:?}");
    }
}

#[test]
fn variables_that_cannot_be_followed_are_named() {
    let missing = "/nonexistent/ca.pem";
    for (scheme, name, value, kind) in [
        (
            "http",
            "MLFLOW_TRACKING_AUTH",
            "my-plugin",
            ErrorKind::Unsupported,
        ),
        (
            "http",
            "MLFLOW_TRACKING_AWS_SIGV4",
            "true",
            ErrorKind::Unsupported,
        ),
        (
            "http",
            "MLFLOW_TRACKING_INSECURE_TLS",
            "perhaps",
            ErrorKind::InvalidConfig,
        ),
        (
            "http",
            "MLFLOW_HTTP_REQUEST_TIMEOUT",
            "long",
            ErrorKind::InvalidConfig,
        ),
        (
            "otlp+http",
            "OTEL_EXPORTER_OTLP_HEADERS",
            "no-pair",
            ErrorKind::InvalidConfig,
        ),
        (
            "otlp+http",
            "OTEL_EXPORTER_OTLP_COMPRESSION",
            "zstd",
            ErrorKind::InvalidConfig,
        ),
        (
            "otlp+http",
            "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
            "1s",
            ErrorKind::InvalidConfig,
        ),
    ] {
        let query = if scheme == "http" {
            "?experiment_id=1"
        } else {
            ""
        };
        let error = from_env(&format!("{scheme}://h{query}"), &env(&[(name, value)])).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
    for (scheme, name) in [
        ("https", "MLFLOW_TRACKING_SERVER_CERT_PATH"),
        ("https", "MLFLOW_TRACKING_CLIENT_CERT_PATH"),
    ] {
        let uri = format!("{scheme}://h?experiment_id=1");
        let error = from_env(&uri, &env(&[(name, missing)])).unwrap_err();
        assert!(error.to_string().contains(missing), "{error}");
    }
}

#[tokio::test]
async fn workspace_and_further_headers_go_with_every_request() {
    let server = Server::start(|r| match r.path() {
        "/api/3.0/mlflow/server-info" => {
            Reply::json(200, serde_json::json!({"workspaces_enabled": true}))
        }
        _ => mlflow(r),
    });
    let uri = format!("{}?experiment_id=7&workspace=team", server.url());
    let location = builder(&uri)
        .with_header("X-Api-Key", SECRET)
        .build()
        .unwrap();
    assert_eq!(location.to_string(), uri);
    let request = sent(&server, &location).await;
    assert_eq!(request.header("x-mlflow-workspace"), Some("team"));
    for request in server.requests() {
        assert_eq!(
            request.header("x-api-key"),
            Some(SECRET),
            "{}",
            request.path()
        );
        let rest = request.path().contains("/experiments/");
        assert_eq!(
            rest,
            rest && request.header("x-mlflow-workspace") == Some("team")
        );
    }
    let server = Server::start(mlflow);
    let uri = format!("{}?experiment_id=7", server.url());
    let from = from_env(&uri, &env(&[("MLFLOW_WORKSPACE", "team")])).unwrap();
    assert_eq!(
        from.to_string(),
        format!("{uri}&workspace=team"),
        "part of the identity"
    );
}

#[tokio::test]
async fn secrets_are_never_shown() {
    // A server that repeats whatever it was sent, as some proxies do.
    let server = Server::start(|r| {
        let said = format!("{:?} {:?}", r.header("authorization"), r.header("x-key"));
        match r.path() {
            "/version" => Reply::text(200, "3.17.2"),
            _ => Reply::json(401, serde_json::json!({"message": said})),
        }
    });
    let uri: LocationUri = format!("{}?experiment_name=x", server.url())
        .parse()
        .unwrap();
    let encoded = basic("u", SECRET).split(' ').nth(1).unwrap().to_owned();
    let with = || {
        ServerLocation::builder()
            .with_uri(&uri)
            .with_header("x-key", SECRET)
    };
    for builder in [
        with().with_basic_auth("u", SECRET),
        with().with_bearer_token(SECRET),
        with().with_env(&env(&[("MLFLOW_TRACKING_TOKEN", SECRET)])),
        with().with_databricks_oauth("id", SECRET),
    ] {
        let mut shown = format!("{builder:?} {builder:#?}");
        let location = builder.build().unwrap();
        shown += &format!("{location:?} {location} ");
        let error = open(&location).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
        shown += &format!("{error:?} {error}");
        assert!(
            shown.contains("[secret]"),
            "the server's words were kept: {shown}"
        );
        assert!(
            !shown.contains(SECRET) && !shown.contains(&encoded),
            "{shown}"
        );
    }
    // Not even where it cannot be used.
    for result in [
        with().with_bearer_token(format!("{SECRET}\n")).build(),
        with().with_header("x", format!("{SECRET}\u{7}")).build(),
        from_env(
            "otlp+http://h",
            &env(&[("OTEL_EXPORTER_OTLP_HEADERS", SECRET)]),
        ),
    ] {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
    }
    // Nor in a parameter that nobody knows, whatever else is wrong.
    for query in [
        format!("experiment_id=7&token={SECRET}"),
        format!("token={SECRET}"),
        format!("experiment_id=x&create=perhaps&a={SECRET}"),
        format!("experiment_id=7&workspace=%0A&sig={SECRET}"),
    ] {
        for scheme in ["http://h", "otlp+https://h/p", "databricks://p", "ftp://h"] {
            let uri: LocationUri = format!("{scheme}?{query}").parse().unwrap();
            let builder = ServerLocation::builder().with_uri(&uri);
            let mut text = format!("{builder:?}");
            let error = builder.build().unwrap_err();
            text += &format!("{error} {error:?} {:?}", error.location());
            assert!(!text.contains(SECRET), "{text}");
        }
    }
}

/// A certificate authority, and PEM files with what it issued.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Issues a certificate; writes it to `<name>.pem` with its key.
    fn issue(&self, name: &str) -> PathBuf {
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = self.file(&format!("{name}.pem"));
        std::fs::write(
            &file,
            format!("{}{}", certificate.pem(), key.serialize_pem()),
        )
        .unwrap();
        file
    }

    fn acceptor(&self, client_certificates: bool) -> TlsAcceptor {
        let file = self.issue("server");
        let chain = support::certificates(&file);
        let key = PrivateKeyDer::from_pem_file(&file).unwrap();
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match client_certificates {
            false => builder.with_no_client_auth(),
            true => {
                let mut roots = RootCertStore::empty();
                roots.add(self.issuer.der().clone()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
    }
}

fn https(server: &Server) -> String {
    format!("https://{}?experiment_id=7", server.address)
}

async fn open_error(location: &ServerLocation) -> Error {
    open(location).await.err().expect("it cannot be opened")
}

#[tokio::test]
async fn a_servers_certificate_is_checked() {
    let authority = Authority::new();
    let server = Server::start_with(Some(authority.acceptor(false)), true, mlflow);
    let uri = https(&server);
    let error = open_error(&location(&uri)).await;
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::Unauthenticated, Retry::Never)
    );
    assert!(
        error.to_string().contains("certificate is not trusted"),
        "{error}"
    );
    let other = Authority::new();
    let wrong = builder(&uri).with_certificate_authorities(other.file("ca.pem"));
    let error = open_error(&wrong.build().unwrap()).await;
    assert!(
        error.to_string().contains("certificate is not trusted"),
        "{error}"
    );
    let path = authority.file("ca.pem");
    let trusted = env(&[("MLFLOW_TRACKING_SERVER_CERT_PATH", path.to_str().unwrap())]);
    sent(&server, &from_env(&uri, &trusted).unwrap()).await;
    let insecure = env(&[("MLFLOW_TRACKING_INSECURE_TLS", "true")]);
    sent(&server, &from_env(&uri, &insecure).unwrap()).await;
    // A name the certificate was not issued for.
    let renamed = uri.replace("127.0.0.1", "localhost");
    let renamed = builder(&renamed).with_certificate_authorities(path);
    let error = open_error(&renamed.build().unwrap()).await;
    assert!(
        error.to_string().contains("host name it was issued for"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_may_ask_for_a_certificate() {
    let authority = Authority::new();
    let server = Server::start_with(Some(authority.acceptor(true)), true, mlflow);
    let ca = authority.file("ca.pem");
    let mine = authority.issue("client");
    let with = || builder(&https(&server)).with_certificate_authorities(&ca);
    let error = open_error(&with().build().unwrap()).await;
    assert!(
        matches!(
            error.kind(),
            ErrorKind::Unauthenticated | ErrorKind::Unavailable
        ),
        "{error:?}"
    );
    sent(
        &server,
        &with().with_client_certificate(&mine).build().unwrap(),
    )
    .await;
    // Certificate and key apart, from the environment of an OTLP endpoint.
    let otlp = format!("otlp+https://{}", server.address);
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (ca, mine) = (text(&ca), text(&mine));
    let vars = env(&[
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", &ca),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &mine),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", &mine),
    ]);
    sent(&server, &from_env(&otlp, &vars).unwrap()).await;
}

/// Certificates that are replaced in their files count for locations that are open.
#[tokio::test]
async fn certificates_are_read_again_when_they_change() {
    let (old, new) = (Authority::new(), Authority::new());
    let server = Server::start_with(Some(new.acceptor(true)), true, mlflow);
    let folder = tempfile::tempdir().unwrap();
    let (ca, mine) = (folder.path().join("ca.pem"), folder.path().join("me.pem"));
    let replace = |from: &Path, to: &Path| {
        let next = to.with_extension("next");
        std::fs::copy(from, &next).unwrap();
        std::fs::rename(next, to).unwrap();
    };
    replace(&old.file("ca.pem"), &ca);
    replace(&old.issue("me"), &mine);
    let location = builder(&format!("otlp+https://{}", server.address))
        .with_certificate_authorities(&ca)
        .with_client_certificate(&mine)
        .build()
        .unwrap();
    let sink = open(&location).await.unwrap();
    let error = sink.write(&batch([root(1)])).await.unwrap_err();
    assert!(error.to_string().contains("not trusted"), "{error}");
    // Half of the way: the server is trusted, and does not take the client's.
    replace(&new.file("ca.pem"), &ca);
    sink.write(&batch([root(1)])).await.unwrap_err();
    // A file that is being written is passed over until it is whole.
    std::fs::write(&mine, "-----BEGIN CERTIFICATE-----\n").unwrap();
    sink.write(&batch([root(1)])).await.unwrap_err();
    replace(&new.issue("me"), &mine);
    // The server's refusal of a certificate may come as a broken connection, which is no reason to
    // read files; looking at them once a second is.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    sink.write(&batch([root(1)])).await.unwrap();
    assert_eq!(server.requests_to("/v1/traces").len(), 1);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let target = Server::start(mlflow);
    let moved = target.url();
    let server = Server::start(move |_| Reply::text(308, "").with_header("location", &moved));
    let location = builder(&format!("{}?experiment_id=7", server.url()))
        .with_bearer_token(SECRET)
        .build()
        .unwrap();
    let error = open_error(&location).await;
    assert!(error.to_string().contains("redirects"), "{error}");
    assert_eq!(target.requests().len(), 0);
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let server = Server::start(|_| Reply::Hang);
    let location = builder(&format!("{}?experiment_id=7", server.url()))
        .with_timeout(Duration::from_millis(200))
        .build()
        .unwrap();
    let error = open_error(&location).await;
    assert_eq!(
        (error.kind(), error.retry()),
        (ErrorKind::Timeout, Retry::Backoff)
    );
}

const PROXIED: &str = "SERVER_TEST_PROXIED";

#[test]
fn a_proxy_of_the_environment_is_used() {
    let proxy = Server::start(|request| {
        let mut direct = request.clone();
        let target = request.target.strip_prefix("http://tracking.invalid:5000");
        direct.target = target.expect("asked for by its name").to_owned();
        mlflow(&direct)
    });
    // Variables of a process are read by all of it, so it is one of its own.
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_proxied_process", "--ignored"])
        .env(PROXIED, "http://tracking.invalid:5000?experiment_id=7")
        .env("HTTP_PROXY", proxy.url())
        .env("http_proxy", proxy.url())
        .env_remove("no_proxy")
        .env_remove("NO_PROXY")
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(proxy.requests_to("/v1/traces").len(), 1);
}

#[tokio::test]
#[ignore = "no test: the process that the proxy test starts"]
async fn the_proxied_process() {
    let uri = std::env::var(PROXIED).expect("the proxy test names a location");
    write(&location(&uri), &batch([root(1)])).await.unwrap();
}
