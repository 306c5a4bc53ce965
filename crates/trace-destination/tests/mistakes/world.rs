//! Where mistakes are made: folders, files and servers on this machine.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;
use trace_destination_testkit::{Hostile, Reply};

/// Everything that the list names in braces.
pub(crate) struct World {
    folder: TempDir,
    places: Vec<(&'static str, String)>,
    _servers: Vec<Hostile>,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().canonicalize().unwrap().join(name);
        std::fs::write(
            at("notes.txt"),
            "this is no database, and long enough to be one\n",
        )
        .unwrap();
        let other = rusqlite::Connection::open(at("shop.db")).unwrap();
        other
            .execute_batch("CREATE TABLE orders (id INTEGER)")
            .unwrap();
        drop(other);
        std::fs::write(at("empty.pem"), "").unwrap();
        std::fs::write(
            at("profiles"),
            "[DEFAULT]\nhost = h.example\ntoken = hunter2\n",
        )
        .unwrap();
        let mut servers = Vec::new();
        let mut places: Vec<(&'static str, String)> = Vec::new();
        let mut serve = |name, answer: fn(&str) -> Reply| {
            let server = Hostile::start(move |seen| answer(seen.path()));
            places.push((name, server.url().trim_start_matches("http://").to_owned()));
            servers.push(server);
        };
        serve("{web}", |_| {
            Reply::new(200, "text/html", "<html>Welcome</html>")
        });
        serve("{nothing}", |_| {
            Reply::json(404, "{\"detail\":\"Not Found\"}")
        });
        serve("{locked}", |_| {
            Reply::json(401, "{\"message\":\"who are you\"}")
        });
        serve("{forbidden}", |_| {
            Reply::json(403, "{\"message\":\"not for you\"}")
        });
        serve("{old}", |path| match path {
            "/version" => Reply::new(200, "text/plain", "2.9.0"),
            _ => Reply::json(404, "{}"),
        });
        serve("{moved}", |_| {
            Reply::redirect(301, "https://mlflow.example/")
        });
        serve("{gotls}", |_| {
            let body = "Client sent an HTTP request to an HTTPS server.\n";
            Reply::new(400, "text/plain", body)
        });
        serve("{mlflow}", |path| match path {
            "/version" => Reply::new(200, "text/plain", "3.17.2"),
            _ => Reply::json(
                404,
                "{\"error_code\":\"RESOURCE_DOES_NOT_EXIST\",\"message\":\"No Experiment with id=99 exists\"}",
            ),
        });
        serve("{proxy407}", |_| Reply::new(407, "text/plain", "sign in"));
        serve("{proxy403}", |_| Reply::new(403, "text/plain", "no"));
        places.push(("{closed}", closed()));
        places.push((
            "{grpc}",
            raw(b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x05\x00\x00\x40\x00"),
        ));
        places.push(("{alert}", raw(b"\x15\x03\x03\x00\x02\x02\x46")));
        places.push(("{plain}", raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")));
        places.push(("{silent}", silent()));
        let (own, listed) = tls("localhost");
        places.push(("{tls}", own));
        std::fs::write(at("own.pem"), listed).unwrap();
        let (named, listed) = tls("mlflow.example");
        places.push(("{othername}", named));
        std::fs::write(at("named.pem"), listed).unwrap();
        Self {
            folder,
            places,
            _servers: servers,
        }
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    /// A value of the list, with what stands in braces put in.
    pub(crate) fn fill(&self, text: &str) -> String {
        let mut text = text.replace("{dir}", &self.dir().display().to_string());
        for (name, address) in &self.places {
            let port = address.rsplit(':').next().unwrap_or_default();
            text = text.replace(name, address);
            text = text.replace(&name.replace('{', "{port of "), port);
        }
        text
    }

    /// A message, with what differs from run to run as it is in the list.
    pub(crate) fn shown(&self, text: &str) -> String {
        let mut text = text.replace(&self.dir().display().to_string(), "/srv");
        for (_, address) in &self.places {
            let port = address.rsplit(':').next().unwrap_or_default();
            text = text.replace(&format!(":{port}"), ":5000");
        }
        text
    }
}

/// A port that nothing listens at.
fn closed() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten().take(100) {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// A server that answers whatever comes with these bytes.
fn raw(answer: &'static [u8]) -> String {
    listen(move |mut stream| {
        let mut asked = [0; 4096];
        let _ = stream.read(&mut asked);
        let _ = stream.write_all(answer);
        let _ = stream.flush();
        // Closed by the client: what it has not read would be lost otherwise.
        let _ = stream.read(&mut asked);
    })
}

/// A server that never answers.
fn silent() -> String {
    listen(|mut stream| {
        let mut asked = Vec::new();
        let _ = stream.read_to_end(&mut asked);
    })
}

/// A server with a certificate of its own making for a host; and that certificate.
fn tls(host: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let config = Arc::new(config);
    let address = listen(move |stream| {
        let connection = rustls::ServerConnection::new(config.clone()).unwrap();
        let mut stream = rustls::StreamOwned::new(connection, stream);
        let _ = stream.read(&mut [0; 4096]);
    });
    (address, made.cert.pem())
}
