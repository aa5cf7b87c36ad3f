use proptest::prelude::*;

use super::*;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn policy() -> Builder {
    Policy::builder()
        .max_attempts(5)
        .fast_delays([MS(1), MS(2)])
        .delayed([MS(10), MS(20)])
        .jitter(0.5)
}

fn run(attempt: u32) -> Run {
    Run { attempt, deliveries: attempt, age: Duration::ZERO, redrives: 0 }
}

#[test]
fn every_row_of_the_table() {
    let policy = policy().build().unwrap();
    let redriven = Run { redrives: 3, ..run(5) };
    let old = Run { age: MS(24 * 3600 * 1000 + 1), ..run(2) };
    let fast = |ms| Verdict::RetryInProcess { after: MS(ms) };
    let slow = |ms| Verdict::Retry { after: MS(ms) };
    let dead = |reason| Verdict::DeadLetter { reason };
    let rows: Vec<(&str, Run, Failure, Verdict)> = vec![
        ("first fast gap", run(1), "e".into(), fast(1)),
        ("second fast gap", run(2), "e".into(), fast(2)),
        ("first delayed gap", run(3), "e".into(), slow(10)),
        ("second delayed gap", run(4), "e".into(), slow(20)),
        ("attempts run out", run(5), "e".into(), dead(Reason::AttemptsExhausted)),
        ("beyond the maximum", run(9), "e".into(), dead(Reason::AttemptsExhausted)),
        ("after the last redrive", redriven, "e".into(), dead(Reason::RedriveExhausted)),
        ("the last run panicked", run(5), Failure::panicked("p".into()), dead(Reason::Panicked)),
        ("the last run timed out", run(5), Failure::timed_out(MS(1)), dead(Reason::TimedOut)),
        ("a panic is transient", run(1), Failure::panicked("p".into()), fast(1)),
        ("a time-out is transient", run(3), Failure::timed_out(MS(1)), slow(10)),
        ("permanent", run(1), Failure::permanent("e"), dead(Reason::Permanent)),
        ("rejected", run(1), Failure::reject("c", "e"), dead(Reason::Rejected)),
        ("undecodable", run(1), Failure::undecodable("e"), dead(Reason::Undecodable)),
        ("discarded", run(1), Failure::discard("e"), Verdict::Discard),
        ("too old", old, "e".into(), dead(Reason::TooOld)),
        ("the handler's gap is durable", run(1), Failure::retry_after(MS(7), "e"), slow(7)),
        ("and capped", run(1), Failure::retry_after(MS(9_999), "e"), slow(30)),
        ("and no hot loop", run(1), Failure::retry_after(MS(0), "e"), slow(1)),
        (
            "and costs an attempt",
            run(5),
            Failure::retry_after(MS(7), "e"),
            dead(Reason::AttemptsExhausted),
        ),
    ];
    for (name, run, failure, wanted) in rows {
        assert_eq!(policy.decide(&run, &failure, 0.0), wanted, "{name}");
    }
}

#[test]
fn jitter_is_additive() {
    let policy = policy().build().unwrap();
    let gap = |roll| policy.decide(&run(3), &"e".into(), roll);
    assert_eq!(gap(0.5), Verdict::Retry { after: Duration::from_micros(12_500) });
    assert_eq!(gap(1.0), Verdict::Retry { after: MS(15) });
}

#[test]
fn without_a_queue_the_dead_are_discarded() {
    let off = DeadLetters { enabled: false, ..DeadLetters::default() };
    let policy = policy().dead_letter(off).build().unwrap();
    assert_eq!(policy.decide(&run(1), &Failure::permanent("e"), 0.0), Verdict::Discard);
    assert_eq!(policy.decide(&run(5), &"e".into(), 0.0), Verdict::Discard);
}

#[test]
fn the_unknown_can_be_permanent() {
    let policy = policy().unknown_error(UnknownError::Permanent).build().unwrap();
    let dead = Verdict::DeadLetter { reason: Reason::Permanent };
    assert_eq!(policy.decide(&run(1), &"e".into(), 0.0), dead);
    assert_ne!(policy.decide(&run(1), &Failure::transient("e"), 0.0), dead);
    assert_ne!(policy.decide(&run(1), &Failure::panicked("p".into()), 0.0), dead);
}

#[test]
fn the_first_override_that_matches_wins() {
    let io = std::any::type_name::<std::io::Error>();
    let slow = Override {
        code: Some("rate".into()),
        max_attempts: Some(50),
        fast_delays: Some(vec![]),
        delayed: Some(vec![MS(500)]),
        ..Override::default()
    };
    let fatal = Override {
        error_type: Some(io.into()),
        class: Some(UnknownError::Permanent),
        ..Override::default()
    };
    let policy = policy().with_override(slow).with_override(fatal).build().unwrap();
    let rate = Failure::transient("e").with_code("rate");
    assert_eq!(policy.decide(&run(1), &rate, 0.0), Verdict::Retry { after: MS(500) });
    assert_eq!(policy.decide(&run(49), &rate, 0.0), Verdict::Retry { after: MS(500) });
    let failure = Failure::from(std::io::Error::other("disk"));
    let dead = Verdict::DeadLetter { reason: Reason::Permanent };
    assert_eq!(policy.decide(&run(1), &failure, 0.0), dead);
    assert_eq!(policy.highest_max_attempts(), 50);
    assert_eq!(policy.longest_delay(), MS(750));
}

#[test]
fn the_contracts_toml_reads() {
    let text = r#"
        max_attempts   = 6
        fast_delays    = ["100ms", "400ms"]
        delayed        = ["10s", "30s", "60s"]
        jitter         = 0.25
        max_retry_age  = "24h"
        handler_timeout = "60s"
        unknown_error  = "transient"
        crash_suspect_after = 2
        ordering       = "unordered"
        dead_letter    = { enabled = true, retention = "14d", max_redrives = 3 }
        breaker        = { window = "60s", min = 20, ratio = 0.5, open = "30s", max_open = "5m", probes = 1 }
        rate_limit     = "none"
        drain          = "25s"
    "#;
    assert_eq!(Policy::from_toml(text).unwrap(), Policy::default());
    assert_eq!(Policy::from_toml("breaker = \"none\"").unwrap().breaker(), None);
    assert_eq!(Policy::from_toml("").unwrap(), Policy::default());
}

#[test]
fn shapes_rates_and_overrides_read() {
    let policy = Policy::from_toml(
        r#"
        fast_delays = []
        delayed = { exponential = { first = "1s", factor = 2, max = "5s" } }
        rate_limit = "100/1s"
        [[overrides]]
        code = "rate"
        delayed = { linear = { first = "1s", step = "1s", max = "3s" } }
        [[overrides]]
        error_type = "std::fmt::Error"
        class = "permanent"
        delayed = { fixed = "9s" }
        "#,
    )
    .unwrap();
    assert_eq!(policy.delayed(), [MS(1000), MS(2000), MS(4000), MS(5000)]);
    assert_eq!(policy.rate_limit(), Some(&RateLimit { count: 100, per: MS(1000) }));
    assert_eq!(policy.overrides()[0].delayed.as_ref().unwrap().len(), 3);
    assert_eq!(policy.overrides()[1].class, Some(UnknownError::Permanent));
}

#[test]
fn an_invalid_policy_lists_all_its_faults() {
    let text = r#"
        max_attempt = 3
        max_attempts = 0
        fast_delays = ["0s", "soon"]
        delayed = { fibonacci = "1s" }
        jitter = 7
        max_retry_age = 24
        handler_timeout = "0s"
        unknown_error = "maybe"
        crash_suspect_after = 1
        ordering = "sorted"
        drain = "900000d"
        dead_letter = { enabled = "yes", keep = 1 }
        breaker = { ratio = 0, min = 0 }
        rate_limit = "fast"
        overrides = [ { max_attempts = -1 } ]
    "#;
    let error = Policy::from_toml(text).unwrap_err();
    let settings: Vec<_> = error.faults.iter().map(|fault| fault.setting.as_str()).collect();
    for setting in [
        "max_attempt",
        "max_attempts",
        "fast_delays",
        "delayed",
        "jitter",
        "max_retry_age",
        "handler_timeout",
        "unknown_error",
        "crash_suspect_after",
        "ordering",
        "drain",
        "dead_letter.enabled",
        "dead_letter.keep",
        "breaker.ratio",
        "breaker.min",
        "rate_limit",
        "overrides[0]",
        "overrides[0].max_attempts",
    ] {
        assert!(settings.contains(&setting), "{setting} is not among {settings:?}");
    }
    let error = crate::Error::from(error);
    assert_eq!(error.kind(), crate::ErrorKind::Config);
    assert!(error.native::<InvalidPolicy>().is_some());
    assert!(Policy::from_toml("= 3").unwrap_err().faults[0].setting == "toml");
}

#[test]
fn more_attempts_than_gaps_is_a_fault() {
    let error = Policy::builder().max_attempts(4).fast_delays([MS(1)]).delayed([]).build();
    assert_eq!(error.unwrap_err().faults[0].setting, "delayed");
    assert!(Policy::builder().max_attempts(2).fast_delays([MS(1)]).delayed([]).build().is_ok());
    assert!(Policy::builder().max_attempts(1).fast_delays([]).delayed([]).build().is_ok());
}

#[test]
fn a_policy_reads_back_from_what_it_writes_and_its_fingerprint_tells_policies_apart() {
    let special = Override { code: Some("c".into()), max_attempts: Some(9), ..Override::default() };
    let full = policy()
        .breaker(Some(Breaker::default()))
        .rate_limit(Some(RateLimit { count: 5, per: MS(90_000) }))
        .with_override(special)
        .build()
        .unwrap();
    let bare = Policy::builder().breaker(None).build().unwrap();
    for policy in [full, bare, Policy::default()] {
        let text = toml::to_string(&policy).unwrap();
        assert_eq!(Policy::from_toml(&text).unwrap(), policy, "{text}");
        let text = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), policy, "{text}");
    }
    assert_ne!(policy().build().unwrap().fingerprint(), Policy::default().fingerprint());
}

proptest! {
    #[test]
    fn runs_never_exceed_the_maximum_and_no_gap_is_early(
        max in 1u32..20, fast in proptest::collection::vec(1u64..1000, 0..4),
        delayed in proptest::collection::vec(1u64..100_000, 1..4), roll in 0.0..=1.0
    ) {
        let fast: Vec<_> = fast.into_iter().map(MS).collect();
        let delayed: Vec<_> = delayed.into_iter().map(MS).collect();
        let policy = Policy::builder()
            .max_attempts(max).fast_delays(fast.clone()).delayed(delayed.clone()).build().unwrap();
        let mut runs = 0;
        let mut was_delayed = false;
        loop {
            runs += 1;
            let index = runs as usize - 1;
            match policy.decide(&run(runs), &"e".into(), roll) {
                Verdict::RetryInProcess { after } => {
                    prop_assert!(!was_delayed && after >= fast[index]);
                }
                Verdict::Retry { after } => {
                    was_delayed = true;
                    let gap = delayed[(index - fast.len()).min(delayed.len() - 1)];
                    prop_assert!(after >= gap && after <= policy.longest_delay());
                }
                Verdict::DeadLetter { .. } => break,
                Verdict::Discard => prop_assert!(false),
            }
        }
        prop_assert_eq!(runs, max);
    }
}
