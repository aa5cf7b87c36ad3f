use std::time::Duration;

use longshore_core::ErrorKind;
use proptest::prelude::*;

use super::*;

static TABLE: &[OptionSpec] = &[
    OptionSpec::new("size", Kind::Bytes, Some("64KiB"), "A size."),
    OptionSpec::new("count", Kind::Number { min: 1, max: 10 }, Some("3"), "A count."),
    OptionSpec::new("wait", Kind::Duration, Some("5s"), "A wait."),
    OptionSpec::new("strict", Kind::Flag, None, "A flag."),
    OptionSpec::new("name", Kind::Text, None, "A text."),
    OptionSpec::new("token", Kind::Text, None, "A secret.").secret(),
    OptionSpec::new("mode", Kind::Choice(&["fast", "safe"]), Some("safe"), "A choice."),
];

fn read(url: &str) -> Result<Target> {
    parse(url, &["test", "tests"], TABLE)
}

#[track_caller]
fn refused(url: &str, says: &str) {
    let error = read(url).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains(says), "{url}: {error}");
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

#[test]
fn a_url_is_taken_apart() {
    let url = "tests://me%40x:hunter2%23@a.example:1,[::1]:2,c/v%2Fhost?size=1MB&count=7&wait=1h%2030m\
               &strict=true&name=n%26m&token=hunter2&mode=fast";
    let target = read(url).unwrap();
    assert_eq!(target.scheme, "tests");
    assert_eq!(target.user.as_deref(), Some("me@x"));
    assert_eq!(target.password.as_ref().unwrap().reveal(), "hunter2#");
    let hosts: Vec<_> = target.hosts.iter().map(|h| (h.name.as_str(), h.port)).collect();
    assert_eq!(hosts, [("a.example", Some(1)), ("::1", Some(2)), ("c", None)]);
    assert_eq!(target.path.as_deref(), Some("v%2Fhost"));
    assert_eq!(target.decoded_path().unwrap().as_deref(), Some("v/host"));
    let values = &target.values;
    assert_eq!(values.number("size"), Some(1_000_000));
    assert_eq!(values.number("count"), Some(7));
    assert_eq!(values.duration("wait"), Some(Duration::from_secs(5400)));
    assert!(values.flag("strict"));
    assert_eq!(values.text("name"), Some("n&m"));
    assert_eq!(values.secret("token").unwrap().reveal(), "hunter2");
    assert_eq!(values.text("mode"), Some("fast"));
    let shown = format!("{target} {target:?} {:?}", target.values);
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(target.to_string().contains("a.example:1,[::1]:2,c/"), "{target}");
}

#[test]
fn defaults_fill_what_is_not_given() {
    let target = read("test://").unwrap();
    assert!(target.hosts.is_empty());
    assert_eq!(target.path, None);
    assert_eq!(target.values.number("size"), Some(65_536));
    assert!(!target.values.given("size"));
    assert!(!target.values.flag("strict"));
    assert_eq!(target.values.text("name"), None);
    assert!(read("test://?size=1").unwrap().values.given("size"));
}

#[test]
fn faults_say_what_was_expected() {
    refused("test://u:hunter2@h?sizes=1", "size, count, wait, strict, name, token, mode");
    refused("test://u:hunter2@h?size=1&size=2", "twice");
    refused("test://u:hunter2@h?size=-1", "64KiB");
    refused("test://u:hunter2@h?size=99999999999GiB", "a size");
    refused("test://u:hunter2@h?count=0", "from 1 to 10");
    refused("test://u:hunter2@h?wait=soon", "250ms");
    refused("test://u:hunter2@h?strict=yes", "`true` or `false`");
    refused("test://u:hunter2@h?mode=other", "`fast`, `safe`");
    refused("other://u:hunter2@h", "test, tests");
    refused("u:hunter2@h", "scheme");
    refused("test://u:hunter2@h:99999", "port");
    refused("test://u:hunter2@h,,i", "empty");
    refused("test://u:%ffhunter2@h", "UTF-8");
    refused("test://u:hunter2@h#x", "%23");
}

#[test]
fn the_table_renders_for_the_docs() {
    let table = markdown(TABLE);
    assert_eq!(table.lines().count(), TABLE.len() + 2);
    assert!(table.contains("| `count` | a whole number from 1 to 10 | `3` | A count. |"));
}

proptest! {
    #[test]
    fn no_input_panics(text in ".{0,80}", query in "(size|count|wait|mode|x)=.{0,10}") {
        let _ = read(&text);
        let _ = read(&format!("test://{text}"));
        let _ = read(&format!("test://h?{query}"));
    }

    #[test]
    fn a_password_is_in_no_output(password in "[a-zA-Z0-9]{12}", tail in "[:/?#@,a-z0-9=&%]{0,20}") {
        let shown = match read(&format!("test://user:{password}@host{tail}")) {
            Ok(target) => format!("{target} {target:?}"),
            Err(error) => format!("{error:?}"),
        };
        prop_assert!(!shown.contains(&password), "{}", shown);
    }
}
