use super::*;

fn drain(ingress: &Ingress<u32>) -> Vec<u32> {
    let mut seen = Vec::new();
    ingress.drain(&mut Drained::default(), |item| seen.push(item));
    seen
}

#[test]
fn items_of_a_shard_keep_their_order_over_many_chunks() {
    let ingress = Ingress::new(2);
    for i in 0..1_000 {
        let _ = ingress.push(0, i);
    }
    assert_eq!(drain(&ingress), (0..1_000).collect::<Vec<_>>());
    assert!(drain(&ingress).is_empty());
}

#[test]
fn any_number_names_a_shard() {
    let ingress = Ingress::new(3);
    for shard in [0, 1, 2, 3, 1_000, usize::MAX] {
        assert_ne!(ingress.push(shard, 7), Pushed::Closed);
    }
    assert_eq!(drain(&ingress).len(), 6);
    assert_eq!(Ingress::<u32>::new(0).push(5, 1), Pushed::Quietly);
}

#[test]
fn a_sleeping_consumer_is_woken_once_and_a_resting_one_at_a_burst() {
    let ingress = Ingress::new(1);
    assert!(ingress.fall_asleep());
    assert_eq!(ingress.push(0, 0), Pushed::Wake);
    assert_eq!(ingress.push(0, 1), Pushed::Quietly);
    assert!(!ingress.fall_asleep(), "there is something to do");
    drain(&ingress);
    let wakes = (0..3 * WAKE_AT as u32)
        .filter(|i| ingress.push(0, *i) == Pushed::Wake)
        .count();
    assert_eq!(wakes, 1);
    drain(&ingress);
    assert!(ingress.fall_asleep());
    ingress.awake();
    assert_eq!(ingress.push(0, 0), Pushed::Quietly);
}

#[test]
fn after_close_nothing_comes_in_and_what_is_in_comes_out() {
    let ingress = Ingress::new(2);
    let _ = ingress.push(0, 1);
    let _ = ingress.push(1, 2);
    assert!(!ingress.is_closed());
    ingress.close();
    assert!(ingress.is_closed());
    assert_eq!(ingress.push(0, 3), Pushed::Closed);
    assert_eq!(ingress.push(1, 3), Pushed::Closed);
    assert_eq!(drain(&ingress), [1, 2]);
}

#[test]
fn every_item_of_many_threads_comes_out_once() {
    let ingress = Ingress::new(4);
    let seen = std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let ingress = &ingress;
            scope.spawn(move || {
                for i in 0..20_000 {
                    let _ = ingress.push(thread as usize, thread * 100_000 + i);
                }
            });
        }
        let mut seen = Vec::new();
        let mut drained = Drained::default();
        while seen.len() < 80_000 {
            ingress.drain(&mut drained, |item| seen.push(item));
        }
        seen
    });
    for thread in 0..4 {
        let of_thread: Vec<u32> = seen
            .iter()
            .copied()
            .filter(|i| i / 100_000 == thread)
            .collect();
        assert!(of_thread.is_sorted() && of_thread.len() == 20_000);
    }
}
