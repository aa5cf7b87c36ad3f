//! Decentralised logins, made in the test: an operator, an account with JetStream, a user.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use serde_json::{Value, json};

/// An account of an operator's, and the configuration of a server that trusts the operator.
pub(crate) struct Account {
    key: KeyPair,
    pub(crate) config: String,
}

impl Account {
    pub(crate) fn new() -> Self {
        let (operator, system, account) =
            (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
        let unlimited = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "conn": -1,
            "leaf": -1, "wildcards": true, "mem_storage": -1, "disk_storage": -1, "streams": -1,
            "consumer": -1,
        });
        let no_storage = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "conn": -1,
            "leaf": -1, "wildcards": true,
        });
        let of = |key: &KeyPair, limits: Value| {
            sign(&operator, &key.public_key(), &json!({ "type": "account", "limits": limits }))
        };
        let operator_jwt = sign(&operator, &operator.public_key(), &json!({ "type": "operator" }));
        let (system_key, key) = (system.public_key(), account.public_key());
        let config = format!(
            "operator: {operator_jwt}\nsystem_account: {system_key}\nresolver: MEMORY\n\
             resolver_preload: {{\n{system_key}: {}\n{key}: {}\n}}",
            of(&system, no_storage),
            of(&account, unlimited),
        );
        Self { key: account, config }
    }

    /// The credentials file of a new user whom this account has signed.
    pub(crate) fn user(&self) -> String {
        let user = KeyPair::new_user();
        let rights = json!({ "type": "user", "subs": -1, "data": -1, "payload": -1 });
        let jwt = sign(&self.key, &user.public_key(), &rights);
        file(&jwt, &user.seed().unwrap())
    }

    /// One whose seed is another's than the one that the JWT names.
    pub(crate) fn user_with_another_seed(&self) -> String {
        let (user, other) = (KeyPair::new_user(), KeyPair::new_user());
        let rights = json!({ "type": "user", "subs": -1, "data": -1, "payload": -1 });
        file(&sign(&self.key, &user.public_key(), &rights), &other.seed().unwrap())
    }
}

fn file(jwt: &str, seed: &str) -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}

fn sign(issuer: &KeyPair, subject: &str, rights: &Value) -> String {
    let mut rights = rights.clone();
    rights["version"] = 2.into();
    let claims = json!({
        "jti": subject, "iat": 1_700_000_000, "iss": issuer.public_key(), "name": "test",
        "sub": subject, "nats": rights,
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text =
        format!("{}.{}", part(&json!({ "typ": "JWT", "alg": "ed25519-nkey" })), part(&claims));
    let signature = issuer.sign(text.as_bytes()).unwrap();
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}
