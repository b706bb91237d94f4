use proptest::{collection::vec, prelude::*};

use super::*;

fn datum(name: &str, reading: Reading) -> Datum {
    Datum {
        name: name.to_owned(),
        dimensions: vec![("Gateway".to_owned(), "gw-1".to_owned())],
        unit: Unit::COUNT,
        reading,
    }
}

fn fit(change: impl FnOnce(&mut Datum)) -> bool {
    let mut datum = datum("Publishes", Reading::one(1.0));
    change(&mut datum);
    datum.is_fit()
}

#[test]
fn what_the_service_would_refuse_is_known_before_it_is_asked() {
    assert!(fit(|_| {}));
    for good in ["a", "Bytes in", &"n".repeat(255)] {
        assert!(fit(|datum| good.clone_into(&mut datum.name)), "{good}");
    }
    for bad in ["", "  ", ":a", "a\n", "ä", &"n".repeat(256)] {
        assert!(!fit(|datum| bad.clone_into(&mut datum.name)), "{bad}");
        let named = |datum: &mut Datum| bad.clone_into(&mut datum.dimensions[0].0);
        assert!(!fit(named), "{bad}");
    }
    assert!(fit(|datum| datum.dimensions[0].1 = "v".repeat(1024)));
    for bad in ["", " ", "a\tb", "\u{7f}", "ü", &"v".repeat(1025)] {
        let valued = |datum: &mut Datum| bad.clone_into(&mut datum.dimensions[0].1);
        assert!(!fit(valued), "{bad}");
    }
    let dimensions = |n: usize| (0..n).map(|n| (format!("d{n}"), "v".to_owned())).collect();
    assert!(fit(|datum| datum.dimensions = dimensions(30)));
    assert!(!fit(|datum| datum.dimensions = dimensions(31)));
    assert!(!fit(|datum| {
        let same = datum.dimensions[0].clone();
        datum.dimensions.push(same);
    }));
}

#[test]
fn values_that_the_service_would_refuse_are_known_before_it_is_asked() {
    let takes = |reading: Reading| fit(|datum| datum.reading = reading);
    for good in [0.0, -1.5, value_max(), -value_max(), f64::MIN_POSITIVE] {
        assert!(takes(Reading::one(good)), "{good}");
    }
    for bad in [
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        value_max() * 2.0,
    ] {
        assert!(!takes(Reading::one(bad)), "{bad}");
        assert!(!takes(Reading::Values(vec![(1.0, bad)])), "{bad}");
    }
    let values = |n: u32| Reading::Values((0..n).map(|n| (f64::from(n), 1.0)).collect());
    assert!(takes(values(150)));
    assert!(!takes(values(151)));
    assert!(!takes(values(0)));
    assert!(!takes(Reading::Values(vec![(1.0, 0.0)])));
    let statistics = |count, min, max| Reading::Statistics {
        count,
        sum: 1.0,
        min,
        max,
    };
    assert!(takes(statistics(2.0, 0.0, 1.0)));
    assert!(!takes(statistics(0.0, 0.0, 1.0)));
    assert!(!takes(statistics(2.0, 1.0, 0.0)));
    assert!(!takes(statistics(2.0, 0.0, f64::NAN)));
}

#[test]
fn a_body_is_read_as_it_was_written_with_the_dimensions_of_all() {
    let at = Timestamp::from_millis(1_795_341_600_000);
    let point = Point {
        namespace: "Portcullis".to_owned(),
        at,
        data: vec![
            datum("A", Reading::one(3.0)),
            datum("B", Reading::Values(vec![(1.0, 2.0), (2.5, 4.0)])),
            datum(
                "C",
                Reading::Statistics {
                    count: 4.0,
                    sum: 10.0,
                    min: 1.0,
                    max: 4.0,
                },
            ),
            datum("unfit\n", Reading::one(3.0)),
        ],
    };
    let common = BTreeMap::from([("Site".to_owned(), "north".to_owned())]);
    let members = point.members(&common);
    let text = format!("{{{}}}", std::str::from_utf8(&members).unwrap());
    assert!(
        text.starts_with(
            r#"{"at":"2026-11-22T10:00:00.000Z","period_seconds":60,"namespace":"Portcullis","dimensions":{"Site":"north"},"metrics":[{"name":"A","unit":"Count","dimensions":{"Gateway":"gw-1"},"value":3.0},"#
        ),
        "{text}"
    );
    let mut expected = point;
    expected.data.pop();
    for datum in &mut expected.data {
        datum.dimensions.push(("Site".into(), "north".into()));
    }
    assert_eq!(Point::read(text.as_bytes()), Some(expected));
    for bad in [
        "",
        "{}",
        "[]",
        r#"{"at":"yesterday","period_seconds":60,"namespace":"P","dimensions":{},"metrics":[]}"#,
    ] {
        assert_eq!(Point::read(bad.as_bytes()), None, "{bad}");
    }
}

fn points() -> impl Strategy<Value = Vec<Point>> {
    let datum = (1_usize..60, 0_usize..4, 1_u32..20).prop_map(|(name, dimensions, values)| Datum {
        name: "n".repeat(name),
        dimensions: (0..dimensions)
            .map(|n| (format!("d{n}"), "v".repeat(name)))
            .collect(),
        unit: Unit::NONE,
        reading: Reading::Values((0..values).map(|n| (f64::from(n), 1.0)).collect()),
    });
    let point = ("[AB]", vec(datum, 0..12)).prop_map(|(namespace, data)| Point {
        namespace,
        at: Timestamp::default(),
        data,
    });
    vec(point, 0..12)
}

fn bytes(point: &Point) -> usize {
    64 + point.namespace.len() + point.data.iter().map(Datum::wire_bytes).sum::<usize>()
}

proptest! {
    #[test]
    fn calls_keep_all_limits_and_the_order_and_lose_nothing(
        points in points(),
        data_max in 1_usize..20,
        bytes_max in 3000_usize..8000,
        points_max in 1_usize..6,
    ) {
        let limits = CallLimits { points_max, data_max, bytes_max };
        let all: Vec<_> = points.iter().flat_map(|point| point.data.clone()).collect();
        let mut waiting = points;
        let mut sent = Vec::new();
        while let Some(taken) = first(&waiting, limits) {
            let call: Vec<Point> = match taken {
                Taken::Points(points) => {
                    prop_assert!((1..=points_max).contains(&points));
                    waiting.drain(..points).collect()
                }
                Taken::Part(data) => {
                    let alone = &waiting[0];
                    prop_assert!(alone.data.len() > data_max || bytes(alone) > bytes_max);
                    let data = waiting[0].data.drain(..data).collect();
                    vec![Point { data, ..waiting[0].clone() }]
                }
            };
            prop_assert!(call.iter().all(|point| point.namespace == call[0].namespace));
            let together = Point {
                data: call.iter().flat_map(|point| point.data.clone()).collect(),
                ..call[0].clone()
            };
            prop_assert!(together.data.len() <= data_max);
            prop_assert!(bytes(&together) <= bytes_max);
            sent.extend(together.data);
        }
        prop_assert_eq!(sent, all);
    }
}
