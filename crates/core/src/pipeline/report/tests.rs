use super::*;
use crate::error::ErrorKind;
use crate::stats::DropReason;

fn report(locations: u64, troubled: impl Fn(u64) -> bool) -> FlushReport {
    let location = |i: u64| {
        let mut dropped = Dropped::default();
        if troubled(i) {
            dropped.add(DropReason::Failed, 2);
        }
        let uri = LocationUri::from_parts("memory", None, &format!("t-{i:05}"), []).unwrap();
        LocationReport {
            stored: 3,
            pending: 0,
            lost: dropped.total(),
            dropped,
            lost_updates: 0,
            late_updates: 0,
            open_spans: 0,
            error: troubled(i).then(|| Error::new(ErrorKind::NotFound, "open", "gone").at(&uri)),
            uri,
        }
    };
    FlushReport {
        locations: (0..locations).map(location).collect(),
        forgotten: ForgottenLocations::default(),
        unplaced: Unplaced::default(),
        undecided: crate::stats::Undecided::default(),
        timed_out: false,
        error: None,
        losses: 0,
        told: 0,
    }
}

#[test]
fn few_locations_are_shown_in_order() {
    let text = report(10, |i| i == 7).to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 10);
    assert_eq!(lines[0], "memory:t-00000: 3 stored, 0 pending, 0 dropped");
    assert!(lines[7].ends_with("2 dropped: open at memory:t-00007: gone"));
}

#[test]
fn many_locations_are_summed_up_with_trouble_first() {
    let report = report(5_000, |i| i >= 4_990 || i == 77);
    let text = report.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), SHOWN + 1);
    assert!(lines[..SHOWN].iter().all(|l| l.contains("gone")), "{text}");
    assert!(lines[0].starts_with("memory:t-00077"));
    assert_eq!(
        lines[SHOWN],
        "and 4990 more locations: 14970 stored, 0 pending, 2 dropped; 1 of them in trouble"
    );
    assert!(format!("{report:?}").len() < 10_000);
    assert!(format!("{report:#?}").contains("more_locations: 4990"));
}

#[test]
fn a_loss_is_one_line() {
    assert_eq!(report(3, |_| false).lost(), None);
    assert_eq!(
        report(3, |i| i == 1).lost().unwrap(),
        "2 spans were not stored: open at memory:t-00001: gone"
    );
    assert_eq!(
        report(5_000, |_| true).lost().unwrap(),
        "10000 spans were not stored at 5000 locations, of which one is named: open at memory:t-00000: gone"
    );
    let mut broken = report(2, |_| false);
    broken.error = Some(Error::new(ErrorKind::Internal, "deliver", "no more"));
    assert_eq!(broken.lost().unwrap(), "deliver: no more");
    assert!(!broken.is_complete() && broken.to_string().starts_with("deliver: no more\n"));
}
