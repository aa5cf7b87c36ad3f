use lapin::types::{DecimalValue, FieldArray};
use longshore_core::HeaderName;
use proptest::prelude::*;

use super::*;

fn id() -> MessageId {
    MessageId::new("m-1").unwrap()
}

fn round(message: &Message) -> Parts {
    let (properties, body) = outgoing(message, &id(), UNIX_EPOCH + Duration::from_secs(7)).unwrap();
    assert_eq!(body, message.body);
    assert_eq!(*properties.delivery_mode(), Some(PERSISTENT));
    incoming(&properties)
}

fn table(entries: impl IntoIterator<Item = (&'static str, AMQPValue)>) -> BasicProperties {
    let entries = entries.into_iter().map(|(name, value)| (name.into(), value));
    BasicProperties::default().with_headers(FieldTable::from(entries.collect::<BTreeMap<_, _>>()))
}

#[test]
fn a_message_without_headers_writes_no_table() {
    let (properties, _) = outgoing(&Message::new("x"), &id(), SystemTime::now()).unwrap();
    assert!(properties.headers().is_none());
    assert_eq!(properties.message_id().as_ref().unwrap().as_str(), "m-1");
}

#[test]
fn everything_of_a_message_survives() {
    let name = HeaderName::from_static;
    let message = Message::new("x")
        .key(&b"\xff\x00"[..])
        .message_type("order.placed")
        .content_type("text/plain")
        .header(name("b"), "1")
        .header(name("a"), &b"\xfe"[..])
        .header(name("b"), "2")
        .header(name("longshore-retry"), "{}")
        .header(name("c"), "");
    let parts = round(&message);
    assert_eq!(parts.id, Some(id()));
    assert_eq!(parts.key.as_deref(), Some(&b"\xff\x00"[..]));
    assert_eq!(parts.message_type.as_deref(), Some("order.placed"));
    assert_eq!(parts.content_type.as_deref(), Some("text/plain"));
    assert_eq!(parts.published_at, Some(UNIX_EPOCH + Duration::from_secs(7)));
    let mut wanted = message.headers.clone();
    hygiene::strip_reserved(&mut wanted);
    assert_eq!(parts.headers, wanted);
    assert!(parts.record.is_none());
}

#[test]
fn an_id_that_fits_no_property_goes_into_a_header() {
    let long = MessageId::new("x".repeat(256)).unwrap();
    let (properties, _) = outgoing(&Message::new("x"), &long, UNIX_EPOCH).unwrap();
    assert!(properties.message_id().is_none());
    assert_eq!(incoming(&properties).id, Some(long));
}

#[test]
fn what_the_protocol_cannot_carry_is_refused_and_not_sent() {
    let long = "x".repeat(256);
    for message in [
        Message::new("").message_type(&long),
        Message::new("").content_type(&long),
        Message::new("").header(HeaderName::new(&long).unwrap(), "1"),
        Message::new("").header(HeaderName::from_static("CC"), "other"),
        Message::new("").header(HeaderName::from_static("x-death"), "1"),
        Message::new("").header(HeaderName::from_static("x-first-death-queue"), "1"),
        Message::new("").header(HeaderName::from_static("x-delivery-count"), "9"),
    ] {
        let error = outgoing(&message, &id(), UNIX_EPOCH).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidMessage, "{message:?}");
        assert_eq!(error.outcome(), Some(Outcome::NotSent));
    }
}

#[test]
fn foreign_values_become_text_and_the_servers_own_are_hidden() {
    let nested = table([("a", AMQPValue::LongInt(-1)), ("b", AMQPValue::Void)]);
    let nested = nested.headers().clone().unwrap();
    let list = vec![AMQPValue::Boolean(true), AMQPValue::LongString("x".into())];
    let inner = FieldArray::from(vec![AMQPValue::Double(0.5), nested.into()]);
    let properties = table([
        ("bool", AMQPValue::Boolean(false)),
        ("decimal", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 314 })),
        ("list", FieldArray::from(list).into()),
        ("long", AMQPValue::LongLongInt(i64::MIN)),
        ("nested", FieldArray::from(vec![AMQPValue::FieldArray(inner)]).into()),
        ("none", AMQPValue::Void),
        ("not a name", AMQPValue::Boolean(true)),
        ("time", AMQPValue::Timestamp(u64::MAX)),
        ("x-death", FieldArray::default().into()),
        ("x-delivery-count", AMQPValue::LongLongInt(3)),
        ("longshore-order", AMQPValue::Boolean(true)),
        ("longshore-key", AMQPValue::LongLongInt(5)),
    ]);
    let parts = incoming(&properties.with_timestamp(u64::MAX));
    let seen: Vec<_> = parts.headers.iter().map(|(n, v)| (n.as_str(), &v[..])).collect();
    let wanted: [(&str, &[u8]); 8] = [
        ("bool", b"false"),
        ("decimal", b"314e-2"),
        ("list", b"true"),
        ("list", b"x"),
        ("long", b"-9223372036854775808"),
        ("nested", br#"[0.5,{"a":-1,"b":null}]"#),
        ("none", b""),
        ("time", b"18446744073709551615"),
    ];
    assert_eq!(seen, wanted);
    assert_eq!(parts.key.as_deref(), Some(&b"5"[..]));
    assert_eq!((parts.id, parts.published_at), (None, None));
}

#[test]
fn a_copy_has_everything_but_what_the_server_acts_on() {
    let kept = FieldArray::from(vec![AMQPValue::Float(1.5)]);
    let original = table([
        ("kept", kept.clone().into()),
        ("x-death", FieldArray::default().into()),
        ("x-last-death-queue", AMQPValue::LongString("q".into())),
        ("x-acquired-count", AMQPValue::LongLongInt(1)),
        ("BCC", FieldArray::default().into()),
        ("longshore-retry", AMQPValue::LongString("old".into())),
        ("longshore-dl-id", AMQPValue::LongString("gone".into())),
    ])
    .with_expiration("5".into())
    .with_user_id("somebody".into())
    .with_delivery_mode(1)
    .with_priority(3)
    .with_reply_to("there".into())
    .with_correlation_id("c".into())
    .with_content_encoding("gzip".into())
    .with_app_id("app".into())
    .with_timestamp(9);
    let record = AMQPValue::LongString("new".into());
    let copy =
        copied(&original, [("longshore-retry", Some(record.clone())), ("longshore-dl-id", None)]);
    let wanted = table([("kept", kept.into()), ("longshore-retry", record)])
        .with_delivery_mode(PERSISTENT)
        .with_priority(3)
        .with_reply_to("there".into())
        .with_correlation_id("c".into())
        .with_content_encoding("gzip".into())
        .with_app_id("app".into())
        .with_timestamp(9);
    assert_eq!(copy, wanted);
}

proptest! {
    #[test]
    fn any_headers_survive_in_their_order(
        list in proptest::collection::vec(("[a-dA-D]{1,2}", any::<Vec<u8>>()), 0..12),
        key in any::<Option<Vec<u8>>>(),
    ) {
        let mut message = Message::new("x");
        message.key = key.map(Bytes::from);
        for (name, value) in list {
            if !headers::is_servers(&name) {
                message.headers.append(HeaderName::new(&name).unwrap(), value);
            }
        }
        let parts = round(&message);
        prop_assert_eq!(parts.headers, message.headers);
        prop_assert_eq!(parts.key, message.key);
    }

    #[test]
    fn no_order_header_panics_or_loses(order in ".{0,40}", names in proptest::collection::btree_set("[a-c]{1,2}", 0..5)) {
        let entries = names.iter().map(|name| (name.as_str().into(), AMQPValue::Boolean(true)));
        let mut entries: BTreeMap<ShortString, AMQPValue> = entries.collect();
        entries.insert(headers::ORDER.into(), AMQPValue::LongString(order.into()));
        let properties = BasicProperties::default().with_headers(FieldTable::from(entries));
        prop_assert_eq!(incoming(&properties).headers.len(), names.len());
    }
}
