//! A build without any backend: run by `cargo xtask test` with `--no-default-features`.

#![cfg(not(feature = "memory"))]

use longshore::ErrorKind;

#[tokio::test]
async fn a_known_scheme_names_its_feature() {
    let error = longshore::connect("memory://").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    let wanted = "scheme `memory` needs feature `memory`; no backend is built in";
    assert_eq!(error.to_string(), wanted);
}

#[tokio::test]
async fn an_unknown_one_is_unknown() {
    let error = longshore::connect("gopher://").await.unwrap_err();
    assert_eq!(error.to_string(), "scheme `gopher` is unknown; no backend is built in");
}
