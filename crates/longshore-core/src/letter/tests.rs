use super::codec::{MAX_LETTER, PREFIX};
use super::*;
use crate::{Headers, HistoryEntry};
use std::time::{Duration, UNIX_EPOCH};

fn letter() -> Letter {
    let at = UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    let entry = HistoryEntry {
        n: 1,
        at: Some(at),
        delay_ms: Some(100),
        error_type: "E".into(),
        instance: "i-1".into(),
    };
    Letter {
        id: "0123".into(),
        reason: Reason::AttemptsExhausted,
        reason_detail: Some("two\nlines".into()),
        cause: Some(Cause {
            error_type: "E".into(),
            message: "card declined".into(),
            code: Some("declined".into()),
            transient: true,
            chain: vec!["socket closed".into()],
            backtrace: Some("at main".into()),
        }),
        source: "orders".into(),
        source_backend: "memory".into(),
        source_group: "billing".into(),
        position: Position::Sequence(7),
        original_id: "id-1".into(),
        original_published_at: Some(at),
        attempts: 6,
        deliveries: 8,
        delayed_retries: 3,
        first_failed_at: at,
        last_failed_at: at,
        dead_lettered_at: at,
        history: vec![entry; 10],
        handler: "bill".into(),
        message_type: None,
        instance: "i-1".into(),
        lib_version: "0.1.0".into(),
        policy: "abcd".into(),
        redrive_count: 0,
        redrive_of: None,
        payload_sha256: Letter::payload_sha256(b"{}"),
    }
}

fn decode(headers: &Headers) -> Option<Letter> {
    Letter::decode(headers.iter().map(|(name, value)| (name.as_str(), &value[..])))
}

#[test]
fn a_letter_survives_its_codec_with_control_characters_escaped() {
    let mut wanted = letter();
    let read = decode(&wanted.encode(usize::MAX).unwrap()).unwrap();
    wanted.reason_detail = Some("two\\nlines".into());
    assert_eq!(read, wanted);
}

#[test]
fn it_is_dropped_in_the_stated_order_until_it_fits() {
    let mut letter = letter();
    let cause = letter.cause.as_mut().unwrap();
    cause.backtrace = Some("b".repeat(100_000));
    cause.message = "m".repeat(1_000_000);
    cause.chain = vec!["c".repeat(5_000); 20];
    let full = letter.encode(usize::MAX).unwrap();
    assert!(full.size() <= MAX_LETTER, "{}", full.size());
    let has = |headers: &Headers, name: &str| headers.get(&format!("{PREFIX}{name}")).is_some();
    let sizes: Vec<_> = (100..full.size()).rev().step_by(50).collect();
    for room in sizes {
        let headers = letter.encode(room).unwrap();
        assert!(headers.size() <= room);
        assert!(!has(&headers, "error-backtrace") || has(&headers, "history"));
        assert!(!has(&headers, "history") || has(&headers, "error-chain"));
        assert!(!has(&headers, "error-chain") || has(&headers, "source"));
        assert_eq!(decode(&headers).unwrap().id, "0123");
    }
    assert!(letter.encode(50).is_none());
}

#[test]
fn the_id_tells_every_part_from_its_neighbour() {
    let topic = |name| TopicName::new(name).unwrap();
    let group = |name| GroupName::new(name).unwrap();
    let id = MessageId::new("m").unwrap();
    let base = dead_letter_id(&topic("a"), &group("b"), "1", Some(&id), 0);
    assert_eq!(base.len(), 32);
    assert_eq!(base, dead_letter_id(&topic("a"), &group("b"), "1", Some(&id), 0));
    for other in [
        dead_letter_id(&topic("ab"), &group("b"), "1", Some(&id), 0),
        dead_letter_id(&topic("a"), &group("c"), "1", Some(&id), 0),
        dead_letter_id(&topic("a"), &group("b"), "2", Some(&id), 0),
        dead_letter_id(&topic("a"), &group("b"), "1", None, 0),
        dead_letter_id(&topic("a"), &group("b"), "1", Some(&id), 1),
    ] {
        assert_ne!(base, other);
    }
}

#[test]
fn foreign_or_damaged_headers_are_no_letter() {
    assert_eq!(Letter::decode([]), None);
    let headers = [
        ("longshore-dl-version", &b"1"[..]),
        ("longshore-dl-id", b"x"),
        ("longshore-dl-reason", b"because"),
    ];
    assert_eq!(Letter::decode(headers), None);
    let headers = [
        ("longshore-dl-version", &b"1"[..]),
        ("longshore-dl-id", b"x"),
        ("longshore-dl-reason", b"permanent"),
        ("longshore-dl-attempts", b"-5"),
        ("longshore-dl-history", b"[[["),
    ];
    assert_eq!(Letter::decode(headers).unwrap().attempts, 0);
}
