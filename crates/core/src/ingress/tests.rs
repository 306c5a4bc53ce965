use super::*;

fn drain(ingress: &Ingress<u32>) -> Vec<u32> {
    let mut seen = Vec::new();
    ingress.drain(&mut Drained::default(), |()| (), |item| seen.push(item));
    seen
}

/// Whether the consumer must be woken; `None` if the ingress is closed.
fn push(ingress: &Ingress<u32>, shard: usize, item: u32) -> Option<bool> {
    ingress.enter(shard).map(|entry| entry.push(item))
}

#[test]
fn items_of_a_shard_keep_their_order_over_many_chunks() {
    let ingress = Ingress::<u32>::new(2);
    for i in 0..1_000 {
        push(&ingress, 0, i);
    }
    assert_eq!(drain(&ingress), (0..1_000).collect::<Vec<_>>());
    assert!(drain(&ingress).is_empty());
}

#[test]
fn an_entry_without_a_push_hides_nothing() {
    let ingress = Ingress::<u32>::new(1);
    for i in 0..CHUNK as u32 {
        push(&ingress, 0, i);
    }
    drop(ingress.enter(0));
    assert!(!ingress.fall_asleep(), "there is something to do");
    assert_eq!(drain(&ingress).len(), CHUNK);
    assert!(ingress.fall_asleep());
}

#[test]
fn any_number_names_a_shard() {
    let ingress = Ingress::<u32>::new(3);
    for shard in [0, 1, 2, 3, 1_000, usize::MAX] {
        assert!(push(&ingress, shard, 7).is_some());
    }
    assert_eq!(drain(&ingress).len(), 6);
    assert_eq!(push(&Ingress::new(0), 5, 1), Some(false));
}

#[test]
fn a_sleeping_consumer_is_woken_once_and_a_resting_one_at_a_burst() {
    let ingress = Ingress::<u32>::new(1);
    assert!(ingress.fall_asleep());
    assert_eq!(push(&ingress, 0, 0), Some(true));
    assert_eq!(push(&ingress, 0, 1), Some(false));
    assert!(!ingress.fall_asleep(), "there is something to do");
    drain(&ingress);
    let wakes = (0..3 * WAKE_AT as u32)
        .filter(|i| push(&ingress, 0, *i) == Some(true))
        .count();
    assert_eq!(wakes, 1);
    drain(&ingress);
    assert!(ingress.fall_asleep());
    ingress.awake();
    assert_eq!(push(&ingress, 0, 0), Some(false));
}

#[test]
fn after_close_nothing_comes_in_and_what_is_in_comes_out() {
    let ingress = Ingress::<u32>::new(2);
    push(&ingress, 0, 1);
    push(&ingress, 1, 2);
    assert!(!ingress.is_closed());
    ingress.close();
    assert!(ingress.is_closed());
    assert_eq!(push(&ingress, 0, 3), None);
    assert_eq!(push(&ingress, 1, 3), None);
    assert_eq!(drain(&ingress), [1, 2]);
}

#[test]
fn every_item_of_many_threads_comes_out_once() {
    let ingress = Ingress::<u32>::new(4);
    let seen = std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let ingress = &ingress;
            scope.spawn(move || {
                for i in 0..20_000 {
                    push(ingress, thread as usize, thread * 100_000 + i);
                }
            });
        }
        let mut seen = Vec::new();
        let mut drained = Drained::default();
        while seen.len() < 80_000 {
            ingress.drain(&mut drained, |()| (), |item| seen.push(item));
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
