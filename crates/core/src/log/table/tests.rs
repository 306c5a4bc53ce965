use super::*;

fn uri(host: &str, name: usize) -> LocationUri {
    let path = format!("/{name}");
    LocationUri::from_parts("script", Some(host), &path, []).unwrap()
}

fn down() -> Error {
    Error::new(ErrorKind::Unavailable, "write", "not now")
}

fn retrying(host: &str, name: usize) -> Event {
    Event::new(What::Retrying, &uri(host, name)).because(&down())
}

fn lost(host: &str, name: usize, spans: u64) -> Event {
    Event::new(What::Failing, &uri(host, name))
        .because(&down())
        .of(spans)
}

/// Tells everything that is due over `time`, in steps.
fn lines(table: &mut Table, from: Instant, time: Duration) -> Lines {
    let mut told = Vec::new();
    for step in 0..=time.as_millis() / 50 {
        let now = from + Duration::from_millis(50) * step as u32;
        told.extend(table.take_due(now, Hurry::No));
        assert!(table.next_due(now).is_none_or(|at| at > now));
    }
    told
}

#[test]
fn few_locations_have_a_line_each_and_many_have_one() {
    for (locations, expected) in [(1, 1), (FEW, FEW), (FEW + 1, 1), (5_000, 1)] {
        let (mut table, now) = (Table::default(), Instant::now());
        for i in 0..locations {
            table.push(retrying("dead", i), now);
        }
        let told = lines(&mut table, now, Duration::from_secs(1));
        assert_eq!(told.len(), expected, "{locations}");
        let sum: u64 = told.iter().map(|l| l.locations).sum();
        assert_eq!(sum, locations as u64);
        assert!(told.iter().all(|l| l.error.is_some() && l.uri.is_some()));
    }
}

#[test]
fn a_line_is_not_repeated_within_the_interval_whatever_the_number_of_locations() {
    for locations in [2, 20_000] {
        let (mut table, begin) = (Table::default(), Instant::now());
        let mut told = 0;
        for second in 0..60 {
            let now = begin + Duration::from_secs(second);
            for i in 0..locations {
                table.push(lost("dead", i, 3), now);
            }
            told += lines(&mut table, now, Duration::from_millis(950)).len();
        }
        // 6 intervals, each with a line per location or one for all of them.
        assert!(told <= 6 * FEW.min(locations) + 2, "{locations}: {told}");
    }
}

#[test]
fn every_span_is_in_one_line() {
    for locations in [1, 2, 3, 4, 7, 500] {
        let (mut table, begin) = (Table::default(), Instant::now());
        let (mut sent, mut told) = (0, 0);
        for second in 0..45 {
            let now = begin + Duration::from_secs(second);
            for i in 0..locations {
                // Some all the time, some now and then.
                if (second as usize).is_multiple_of(i + 1) {
                    table.push(lost("dead", i, 5), now);
                    sent += 5;
                }
            }
            let lines = lines(&mut table, now, Duration::from_millis(950));
            told += lines.iter().map(|l| l.spans).sum::<u64>();
        }
        let rest = table.take_due(begin + Duration::from_secs(45), Hurry::All);
        told += rest.iter().map(|l| l.spans).sum::<u64>();
        assert_eq!(told, sent, "{locations}");
        assert_eq!(table.next_due(begin), None);
    }
}

#[test]
fn a_loss_that_follows_from_a_failure_is_one_line_with_it() {
    let (mut table, now) = (Table::default(), Instant::now());
    let mut failing = lost("dead", 1, 0);
    failing.failing = true;
    table.push(failing, now);
    table.push(lost("dead", 1, 7), now);
    let told = table.take_due(now, Hurry::Due);
    assert_eq!(told.len(), 1);
    assert!(told[0].failing && told[0].spans == 7);
    // What follows is held back for the interval, also from a flush.
    table.push(lost("dead", 1, 2), now);
    assert!(table.take_due(now + GATHER, Hurry::Due).is_empty());
    let told = table.take_due(now + INTERVAL, Hurry::No);
    assert_eq!((told.len(), told[0].spans, told[0].failing), (1, 2, false));
}

#[test]
fn hosts_are_told_apart_while_they_are_few() {
    let (mut table, now) = (Table::default(), Instant::now());
    for i in 0..1_000 {
        table.push(retrying(if i % 2 == 0 { "one" } else { "two" }, i), now);
    }
    let told = lines(&mut table, now, Duration::from_secs(1));
    assert_eq!(told.len(), 2);
    assert!(told.iter().all(|l| l.locations == 500));
}

#[test]
fn made_up_hosts_kinds_and_schemes_are_bounded() {
    let (mut table, now) = (Table::default(), Instant::now());
    for i in 0..5_000 {
        table.push(retrying(&format!("host-{i}"), i), now);
    }
    let told = lines(&mut table, now, Duration::from_secs(1));
    assert!(told.len() <= HOSTS + 1, "{}", told.len());
    assert_eq!(told.iter().map(|l| l.locations).sum::<u64>(), 5_000);
    for i in 0..20_000 {
        let uri = LocationUri::from_parts(&format!("s{i}"), None, "x", []).unwrap();
        table.push(Event::new(What::Overflow, &uri).of(1), now);
    }
    assert!(table.groups.len() <= GROUPS + 1, "{}", table.groups.len());
    let much_later = now + 2 * INTERVAL;
    let _ = table.take_due(much_later, Hurry::All);
    table.push(retrying("another", 1), much_later + 2 * INTERVAL);
    assert_eq!(table.groups.len(), 1, "what is over is forgotten");
}
