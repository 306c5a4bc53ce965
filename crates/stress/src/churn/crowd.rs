//! Who makes spans: newcomers, tenants that stay, and those whose places misbehave.

use super::Plan;
use crate::Outcome;
use crate::backend::Backend;
use crate::place::{Ledger, Mode, TENANT};
use crate::report::Report;
use crate::traffic::{Application, Pace, Tenant, remote, until};
use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt, TraceId};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};
use trace_destination_core::{AnyValueRef, Destination, MemoryLocation};

const HEALTHY: usize = 10;
const HEALTHY_RATE: f64 = 100.0;
const FAULTY: usize = 16;
/// Spans a second of all faulty ones, and the bytes in each.
const FAULTY_RATE: f64 = 800.0;
const FAULTY_SPAN: usize = 4 << 10;
/// Children a second of the caller's span that stays open.
const ENDLESS_RATE: f64 = 2000.0;
const TICK: Duration = Duration::from_millis(5);
/// How long a newcomer's trace may take to a place in memory.
const LATE: Duration = Duration::from_secs(60);

/// A newcomer whose spans are looked at where they are stored.
struct Visit {
    place: MemoryLocation,
    name: String,
    spans: usize,
    at: Instant,
}

/// Everybody.
pub(super) struct Crowd<'a> {
    backend: &'a Backend,
    application: &'a Application,
    healthy: Vec<Tenant>,
    faulty: Vec<Tenant>,
    /// A tenant whose caller never ends its span.
    endless: Tenant,
    /// What newcomers with a working place of the backend stored and ended.
    visitors: Arc<Ledger>,
    visited: AtomicU64,
    newcomers: AtomicU64,
    /// Spans of all newcomers, those at dead places and in memory included.
    brought: AtomicU64,
    visits: Mutex<VecDeque<Visit>>,
    checked: AtomicU64,
}

impl<'a> Crowd<'a> {
    pub(super) fn new(backend: &'a Backend, application: &'a Application) -> Outcome<Self> {
        let stays = |name: String, number: Option<usize>, blocks: bool| {
            let place = number.map(|n| (backend, n));
            Tenant::new(name, place, Arc::default(), blocks)
        };
        Ok(Self {
            backend,
            application,
            healthy: (0..HEALTHY)
                .map(|i| stays(format!("healthy-{i}"), Some(1_000_000 + 1000 * i), false))
                .collect::<Outcome<_>>()?,
            faulty: (0..FAULTY)
                .map(|i| stays(format!("faulty-{i}"), None, true))
                .collect::<Outcome<_>>()?,
            endless: stays("endless".to_owned(), Some(2_000_000), false)?,
            visitors: Arc::default(),
            visited: AtomicU64::new(0),
            newcomers: AtomicU64::new(0),
            brought: AtomicU64::new(0),
            visits: Mutex::default(),
            checked: AtomicU64::new(0),
        })
    }

    /// Newcomers, until the run stops.
    pub(super) fn come_and_go(
        &self,
        plan: &Plan,
        traffic: &RwLock<()>,
        stop: &AtomicBool,
    ) -> Outcome {
        let mut burst = Instant::now() + plan.period / 2;
        let mut waiting = plan.flood as u64;
        let mut pace = Pace::new(plan.rate);
        // The trace that newcomers claim to continue; another one each second.
        let mut victim = Victim::new(self);
        while !stop.load(Ordering::Relaxed) {
            waiting += pace.due();
            if Instant::now() >= burst {
                burst = Instant::now() + plan.period;
                waiting += plan.burst as u64;
            }
            // A flood is let in piece by piece, so that quiet moments come between.
            let now = waiting.min(200);
            waiting -= now;
            {
                let _making = traffic.read();
                victim.renew();
                for _ in 0..now {
                    self.newcomer(victim.trace())?;
                }
            }
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// One more tenant, with one trace.
    fn newcomer(&self, running: TraceId) -> Outcome {
        let number = self.newcomers.fetch_add(1, Ordering::Relaxed);
        let name = format!("guest-{number}");
        let parent = match number % 16 {
            // A caller of its own.
            1 | 5 | 9 | 13 => Some(remote(TraceId::from(u128::from(number) + (1 << 90)), 7)),
            // One that repeats the id of a trace that runs here, for another tenant.
            3 | 11 => Some(remote(running, number + 1)),
            _ => None,
        };
        let spans = match number % 64 {
            // At a place that never answers well.
            8 | 40 => {
                let tenant = Tenant::new(name, None, Arc::default(), false)?;
                tenant.dial.set(Mode::Fail);
                self.application.request(&tenant, parent, 2, 0)
            }
            // In memory, to be looked at.
            n if n % 8 == 3 || n % 8 == 4 => {
                let place = MemoryLocation::new(&name);
                let tenant = Tenant {
                    destination: Destination::new(place.clone()),
                    name: name.clone(),
                    dial: Arc::default(),
                    ledger: Arc::default(),
                    ended: AtomicU64::new(0),
                };
                let spans = self.application.request(&tenant, parent, 2, 0);
                let visit = Visit {
                    place,
                    name,
                    spans: spans as usize,
                    at: Instant::now(),
                };
                self.visits().push_back(visit);
                spans
            }
            _ => {
                let place = Some((self.backend, number as usize));
                let tenant = Tenant::new(name, place, self.visitors.clone(), false)?;
                let spans = self.application.request(&tenant, parent, 2, 0);
                self.visited.fetch_add(spans, Ordering::Relaxed);
                spans
            }
        };
        self.brought.fetch_add(spans, Ordering::Relaxed);
        Ok(())
    }

    /// Those that stay, until the run stops.
    pub(super) fn stay(&self, traffic: &RwLock<()>, stop: &AtomicBool) {
        let caller = remote(TraceId::from(77_u128), 7);
        let open = self.application.begin(&self.endless, Some(caller), 0);
        let mut paces = [HEALTHY_RATE, FAULTY_RATE, ENDLESS_RATE].map(Pace::new);
        let mut faulty = self.faulty.iter().cycle();
        while !stop.load(Ordering::Relaxed) {
            {
                let _making = traffic.read();
                for _ in 0..paces[0].due() {
                    for tenant in &self.healthy {
                        self.application.request(tenant, None, 0, 0);
                    }
                }
                for tenant in faulty.by_ref().take(paces[1].due() as usize) {
                    self.application.request(tenant, None, 0, FAULTY_SPAN);
                }
                for _ in 0..paces[2].due() {
                    self.application.child(&self.endless, &open);
                }
            }
            thread::sleep(TICK);
        }
        self.application.end(&self.endless, &open);
    }

    /// Has each faulty place do something else.
    pub(super) fn turn(&self, turn: usize) {
        for (i, tenant) in self.faulty.iter().enumerate() {
            let modes = [Mode::Store].into_iter().chain(Mode::BAD);
            if let Some(mode) = modes.cycle().nth(i + turn) {
                tenant.dial.set(mode);
            }
        }
    }

    /// Has every place store again.
    pub(super) fn recover(&self) {
        for tenant in &self.faulty {
            tenant.dial.set(Mode::Store);
        }
    }

    /// Spans ended so far, of everybody.
    pub(super) fn ended(&self) -> u64 {
        let stays = self
            .healthy
            .iter()
            .chain(&self.faulty)
            .chain([&self.endless]);
        self.brought.load(Ordering::Relaxed) + stays.map(Tenant::ended).sum::<u64>()
    }

    fn visits(&self) -> std::sync::MutexGuard<'_, VecDeque<Visit>> {
        self.visits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what newcomers stored in memory, and frees it.
    pub(super) fn check_memory(&self, report: &mut Report) {
        let visits = std::mem::take(&mut *self.visits());
        for visit in visits {
            let store = visit.place.store();
            let spans = store.spans();
            if spans.len() < visit.spans && visit.at.elapsed() < LATE {
                self.visits().push_back(visit);
                continue;
            }
            report.require(spans.len() == visit.spans, || {
                format!(
                    "{}: {} of {} spans are stored",
                    visit.name,
                    spans.len(),
                    visit.spans
                )
            });
            let own = |value: Option<AnyValueRef<'_>>| matches!(value, Some(AnyValueRef::String(name)) if name == visit.name);
            let all = spans.iter().all(|s| own(s.span.attributes().get(TENANT)));
            report.require(all, || format!("{} has another tenant's spans", visit.name));
            self.checked.fetch_add(1, Ordering::Relaxed);
            store.forget();
        }
    }

    /// What became of everybody's spans, after the last flush.
    pub(super) fn report(&self, report: &mut Report) {
        let visited = self.visited.load(Ordering::Relaxed);
        until(Duration::from_secs(30), || {
            self.visitors.stored() >= visited
        });
        until(Duration::from_secs(30), || {
            self.check_memory(report);
            self.visits().is_empty()
        });
        let newcomers = self.newcomers.load(Ordering::Relaxed);
        report.figure("tenants that came", newcomers as f64, "");
        report.figure("spans ended", self.ended() as f64, "");
        let endless = self.endless.ended() as f64;
        report.figure("children of the caller that stays open", endless, "");
        let checked = self.checked.load(Ordering::Relaxed);
        report.figure("tenants looked at in memory", checked as f64, "");
        report.require(checked > 0, || "no newcomer was looked at".to_owned());
        let left = self.visits().len();
        report.require(left == 0, || {
            format!("{left} newcomers in memory do not have all their spans")
        });
        let mut account = |name: &str, ledger: &Ledger, ended: u64| {
            let (stored, refused) = (ledger.stored(), ledger.refused());
            report.require(stored == ended && refused == 0, || {
                format!("{name}: {ended} spans ended, {stored} stored, {refused} refused")
            });
            report.require(ledger.misplaced() == 0, || {
                format!("{name}: {} spans of other tenants", ledger.misplaced())
            });
        };
        account("newcomers", &self.visitors, visited);
        for tenant in self.healthy.iter().chain([&self.endless]) {
            account(&tenant.name, &tenant.ledger, tenant.ended());
        }
        for tenant in &self.faulty {
            let strangers = tenant.ledger.misplaced();
            report.require(strangers == 0, || {
                format!("{}: {strangers} spans of other tenants", tenant.name)
            });
        }
    }
}

/// A healthy tenant's trace that is open while newcomers repeat its id.
struct Victim<'a> {
    crowd: &'a Crowd<'a>,
    open: Context,
    since: Instant,
    number: usize,
}

impl<'a> Victim<'a> {
    fn new(crowd: &'a Crowd<'a>) -> Self {
        Self {
            crowd,
            open: crowd.application.begin(&crowd.healthy[0], None, 0),
            since: Instant::now(),
            number: 0,
        }
    }

    fn tenant(&self) -> &'a Tenant {
        &self.crowd.healthy[self.number % HEALTHY]
    }

    fn trace(&self) -> TraceId {
        self.open.span().span_context().trace_id()
    }

    /// Ends the trace and begins the next tenant's, where a second is over.
    fn renew(&mut self) {
        if self.since.elapsed() < Duration::from_secs(1) {
            return;
        }
        self.end();
        self.number += 1;
        self.open = self.crowd.application.begin(self.tenant(), None, 0);
        self.since = Instant::now();
    }

    fn end(&self) {
        self.crowd.application.child(self.tenant(), &self.open);
        self.crowd.application.end(self.tenant(), &self.open);
    }
}

impl Drop for Victim<'_> {
    fn drop(&mut self) {
        self.end();
    }
}
