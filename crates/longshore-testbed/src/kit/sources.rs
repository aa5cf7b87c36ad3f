//! Finding the Debian mirror that this machine uses, in both formats of apt's sources.

use std::path::Path;

/// Suites that only Debian's own archive has: a third party's source can carry any other name.
const SUITES: &[&str] = &["bullseye", "bookworm", "trixie", "forky", "duke", "sid"];

/// The address of the machine's Debian mirror, if one of its sources is Debian's.
pub(crate) fn mirror(apt: &Path) -> Option<String> {
    let mut files = vec![apt.join("sources.list")];
    let parts = std::fs::read_dir(apt.join("sources.list.d")).into_iter().flatten();
    files.extend(parts.flatten().map(|entry| entry.path()));
    files.sort();
    files.into_iter().find_map(|file| {
        let text = std::fs::read_to_string(&file).ok()?;
        match file.extension()?.to_str()? {
            "list" => text.lines().find_map(one_line),
            "sources" => text.split("\n\n").find_map(stanza),
            _ => None,
        }
    })
}

/// `deb [options] URI SUITE COMPONENT...`
fn one_line(line: &str) -> Option<String> {
    let rest = line.trim().strip_prefix("deb ")?.trim_start();
    let rest = match rest.strip_prefix('[') {
        Some(options) => options.split_once(']')?.1,
        None => rest,
    };
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    is_debian(suite, words).then(|| uri.to_owned())
}

/// `Key: value` lines.
fn stanza(text: &str) -> Option<String> {
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.map(str::split_whitespace)
    };
    let enabled = value("Enabled").is_none_or(|mut words| words.next() != Some("no"));
    let debian = |suite| is_debian(suite, value("Components").into_iter().flatten());
    let fits = enabled && value("Suites")?.any(debian);
    fits.then(|| value("URIs")?.next().map(str::to_owned)).flatten()
}

fn is_debian<'a>(suite: &str, mut components: impl Iterator<Item = &'a str>) -> bool {
    SUITES.contains(&suite) && components.any(|component| component == "main")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_own_source_is_found_in_both_formats() {
        let of = |line: &str| one_line(line);
        let mirror = Some("http://mirror/debian".to_owned());
        assert_eq!(of("deb http://mirror/debian bookworm main contrib"), mirror);
        assert_eq!(of("deb [arch=amd64 signed-by=/k] http://mirror/debian sid main"), mirror);
        assert_eq!(of("# deb http://mirror/debian bookworm main"), None);
        assert_eq!(of("deb-src http://mirror/debian bookworm main"), None);
        assert_eq!(of("deb http://mirror/security bookworm-security main"), None);
        assert_eq!(of("deb http://vendor/debian bookworm stable"), None);
        assert_eq!(of("deb http://vendor/repo nodistro main"), None);

        let text = "Types: deb\n# http://old\nURIs: http://mirror/debian\n\
                    Suites: bookworm bookworm-updates\nComponents: main";
        assert_eq!(stanza(text), mirror);
        assert_eq!(stanza(&format!("Enabled: no\n{text}")), None);
        assert_eq!(stanza(&text.replace("bookworm", "jammy")), None);
        assert_eq!(stanza("Suites: bookworm\nComponents: main"), None);
    }
}
