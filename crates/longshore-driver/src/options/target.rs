use std::fmt;

use longshore_core::{Error, Result};
use url::Url;

use super::Values;
use crate::Secret;

/// One server of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Name or address; an IPv6 address without its brackets.
    pub name: String,
    /// The port, where it is given.
    pub port: Option<u16>,
}

/// A connection URL, read. `Display` and `Debug` show it with `***` in place of the
/// password and of the values of secret options.
#[derive(Clone)]
pub struct Target {
    /// The scheme.
    pub scheme: String,
    /// The user, percent-decoded.
    pub user: Option<String>,
    /// The password, percent-decoded.
    pub password: Option<Secret>,
    /// The servers, at least none: `memory://` has no host.
    pub hosts: Vec<Host>,
    /// What stands behind the first `/`, as written.
    pub path: Option<String>,
    /// The options.
    pub values: Values,
    shown: String,
}

impl Target {
    pub(super) fn new(url: &Url, hosts: Vec<Host>, values: Values) -> Result<Self> {
        let user = Some(url.username()).filter(|user| !user.is_empty()).map(decode).transpose()?;
        let password = url.password().map(decode).transpose()?.map(Secret::new);
        let path = url.path().strip_prefix('/').unwrap_or(url.path());
        Ok(Self {
            scheme: url.scheme().to_owned(),
            user,
            password,
            path: (!path.is_empty()).then(|| path.to_owned()),
            shown: shown(url, &hosts, &values),
            hosts,
            values,
        })
    }

    /// The path, percent-decoded.
    ///
    /// # Errors
    /// `Config` where it is not percent-encoded UTF-8.
    pub fn decoded_path(&self) -> Result<Option<String>> {
        self.path.as_deref().map(decode).transpose()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.shown).finish()
    }
}

/// Parses `text`. The `url` crate knows one host; the others of a list are parsed one by one.
pub(super) fn read(text: &str) -> Result<(Url, Vec<Host>)> {
    let (scheme, rest) =
        text.split_once("://").ok_or_else(|| Error::config("the URL has no `scheme://`"))?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let (userinfo, list) = match authority.rfind('@') {
        Some(at) => authority.split_at(at + 1),
        None => ("", authority),
    };
    let (first, others) = match list.split_once(',') {
        Some((first, others)) => (first, others.split(',').collect()),
        None => (list, Vec::new()),
    };
    let url = parse(&format!("{scheme}://{userinfo}{first}{tail}"))?;
    if url.fragment().is_some() {
        return Err(Error::config("a `#` has no meaning in the URL; in a password write it `%23`"));
    }
    let mut hosts: Vec<_> = host(&url)?.into_iter().collect();
    for other in others {
        let other = host(&parse(&format!("{scheme}://{other}"))?)?;
        hosts.push(other.ok_or_else(|| Error::config("a host in the URL's list is empty"))?);
    }
    Ok((url, hosts))
}

fn parse(text: &str) -> Result<Url> {
    // The parser's error names the rule and never quotes the URL.
    Url::parse(text).map_err(|error| Error::config(format!("the URL cannot be read: {error}")))
}

fn host(url: &Url) -> Result<Option<Host>> {
    let Some(name) = url.host_str().filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let name = decode(name.trim_start_matches('[').trim_end_matches(']'))?;
    Ok(Some(Host { name, port: url.port() }))
}

fn decode(text: &str) -> Result<String> {
    let wrong = || Error::config("a part of the URL is not percent-encoded UTF-8");
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|b| char::from(b).to_digit(16));
        let (high, low) = (digit().ok_or_else(wrong)?, digit().ok_or_else(wrong)?);
        // Two hexadecimal digits are at most 255.
        out.push((high * 16 + low) as u8);
    }
    String::from_utf8(out).map_err(|_| wrong())
}

fn shown(url: &Url, hosts: &[Host], values: &Values) -> String {
    let mut out = format!("{}://", url.scheme());
    if url.password().is_some() {
        out.push_str(url.username());
        out.push_str(":***@");
    } else if !url.username().is_empty() {
        out.push_str(url.username());
        out.push('@');
    }
    let list: Vec<_> = hosts
        .iter()
        .map(|Host { name, port }| {
            let name = if name.contains(':') { format!("[{name}]") } else { name.clone() };
            port.map_or(name.clone(), |port| format!("{name}:{port}"))
        })
        .collect();
    out.push_str(&list.join(","));
    out.push_str(url.path());
    for (index, (name, value)) in url.query_pairs().enumerate() {
        let value = if values.is_secret(&name) { "***" } else { &*value };
        out.push_str(&format!("{}{name}={value}", if index == 0 { '?' } else { '&' }));
    }
    out
}
