//! Every interleaving of producers, the consumer and a close, by loom.
//!
//! Modelled: two producers with up to two items each, one or two shards, the consumer's loop of
//! draining and sleeping without any timer (the real one also wakes by itself), and a close beside
//! it. A lost wake-up would be a deadlock, which loom reports. Bound: three preemptions where there
//! are three threads with loops.

use super::*;
use loom::sync::Arc;
use loom::thread;

fn model(f: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(f);
}

/// Pushes and wakes the consumer as it must be; true if the item is in.
fn push(ingress: &Ingress<u32>, shard: usize, item: u32, consumer: &thread::Thread) -> bool {
    let Some(wake) = ingress.enter(shard).map(|entry| entry.push(item)) else {
        return false;
    };
    if wake {
        consumer.unpark();
    }
    true
}

/// The loop of the delivery thread, until it has seen `count` items.
fn consume(ingress: &Ingress<u32>, count: usize) -> Vec<u32> {
    let mut seen = Vec::new();
    let mut drained = Drained::default();
    while seen.len() < count {
        let taken = ingress.drain(&mut drained, |()| (), |item| seen.push(item));
        if taken == 0 && ingress.fall_asleep() {
            thread::park();
            ingress.awake();
        }
    }
    seen
}

fn no_item_and_no_wake_up_is_lost(shards: usize, items: u32) {
    model(move || {
        let ingress = Arc::new(Ingress::new(shards));
        let consumer = thread::current();
        let producers: Vec<_> = (0..2)
            .map(|producer| {
                let (ingress, consumer) = (ingress.clone(), consumer.clone());
                thread::spawn(move || {
                    for i in 0..items {
                        let item = producer * 10 + i;
                        assert!(push(&ingress, producer as usize, item, &consumer));
                    }
                })
            })
            .collect();
        let mut seen = consume(&ingress, 2 * items as usize);
        for producer in producers {
            producer.join().unwrap();
        }
        seen.sort_unstable();
        let expected: Vec<u32> = [0, 1]
            .iter()
            .flat_map(|p| (0..items).map(move |i| p * 10 + i))
            .collect();
        assert_eq!(seen, expected);
    });
}

#[test]
fn loom_no_item_and_no_wake_up_is_lost() {
    no_item_and_no_wake_up_is_lost(1, 1);
    no_item_and_no_wake_up_is_lost(2, 1);
}

#[test]
fn loom_no_item_and_no_wake_up_is_lost_with_more_items() {
    no_item_and_no_wake_up_is_lost(1, 2);
}

#[test]
fn loom_items_of_one_thread_stay_in_order() {
    model(|| {
        let ingress = Arc::new(Ingress::new(1));
        let consumer = thread::current();
        let producer = {
            let ingress = ingress.clone();
            thread::spawn(move || {
                for i in 0..3 {
                    assert!(push(&ingress, 0, i, &consumer));
                }
            })
        };
        assert_eq!(consume(&ingress, 3), [0, 1, 2]);
        producer.join().unwrap();
    });
}

#[test]
fn loom_nothing_is_accepted_after_close_and_what_was_is_there() {
    for shards in [1, 2] {
        model(move || {
            let ingress = Arc::new(Ingress::new(shards));
            let consumer = thread::current();
            let producers: Vec<_> = (0..2)
                .map(|producer: u32| {
                    let (ingress, consumer) = (ingress.clone(), consumer.clone());
                    thread::spawn(move || {
                        let first = push(&ingress, producer as usize, producer, &consumer);
                        let closed = ingress.is_closed();
                        let second = push(&ingress, producer as usize, producer, &consumer);
                        assert!(first || !second, "closed for one, open for the next");
                        assert!(!(closed && second), "accepted after close");
                        usize::from(first) + usize::from(second)
                    })
                })
                .collect();
            ingress.close();
            assert!(!push(&ingress, 0, 9, &thread::current()));
            assert!(!push(&ingress, 1, 9, &thread::current()));
            // Everything that will ever be accepted is in.
            let mut seen = 0;
            ingress.drain(&mut Drained::default(), |()| (), |_| seen += 1);
            let accepted: usize = producers.into_iter().map(|p| p.join().unwrap()).sum();
            assert_eq!(seen, accepted);
        });
    }
}
