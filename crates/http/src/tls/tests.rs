use super::*;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use std::time::Duration;

/// A certificate that signed itself, marked as an authority as `openssl req -x509` does.
fn own(host: &str, years: std::ops::Range<i32>) -> (CertificateDer<'static>, String) {
    let mut params = CertificateParams::new([host.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
    let key = KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    (made.der().clone(), made.pem())
}

fn takes(listed: &Listed, shown: &CertificateDer<'_>, host: &str) -> Result<(), String> {
    let name = ServerName::try_from(host.to_owned()).unwrap();
    // In the year 2027.
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
    let verified = listed.verify_server_cert(shown, &[], &name, &[], now);
    verified.map(drop).map_err(|e| e.to_string())
}

#[test]
fn a_certificate_that_is_named_as_its_own_authority_is_taken_for_its_name_and_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let with = |pem: &str| {
        std::fs::write(&file, pem).unwrap();
        Listed::new(&file, provider.clone()).unwrap()
    };
    let (mine, pem) = own("mlflow.example", 2020..2100);
    let listed = with(&pem);
    assert_eq!(takes(&listed, &mine, "mlflow.example"), Ok(()));
    let name = takes(&listed, &mine, "other.example").unwrap_err();
    assert!(name.contains("mlflow.example"), "{name}");
    // One like it that is not in the file.
    let (other, _) = own("mlflow.example", 2020..2100);
    assert!(takes(&listed, &other, "mlflow.example").is_err());
    for years in [2020..2021, 2090..2100] {
        let (dated, pem) = own("mlflow.example", years);
        let listed = with(&pem);
        assert!(takes(&listed, &dated, "mlflow.example").is_err());
    }
}
