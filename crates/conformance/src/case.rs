//! The table of cases.

use crate::cases::{
    application, around, binding, budget, delivery, fidelity, flush, foreign_ids, input, isolation,
    lanes, observe, runtimes, scope,
};
use crate::failure::Failure;
use crate::world::World;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// One case: what it checks, and what a backend must have for it to apply.
pub struct Case {
    /// `module::function`, unique.
    pub name: &'static str,
    /// The promise of the design it belongs to, from 1 to 15.
    pub promise: u8,
    /// What must hold, in a sentence.
    pub says: &'static str,
    /// What the backend must declare for the case to apply.
    pub needs: &'static [Need],
    /// Whether it takes long; such cases run alone.
    pub heavy: bool,
    pub(crate) run: Run,
}

type Run = fn(Arc<World>) -> Pin<Box<dyn Future<Output = Result<(), Failure>>>>;

/// Something a backend or its harness must have for a case to apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// A batch written twice is stored once.
    Idempotent,
    /// A trace id can exist only once in a store.
    ExclusiveStore,
    /// The harness can make the real place fail for a while.
    Unavailable,
    /// The harness can break the real place.
    Broken,
    /// A location has a second name.
    Alias,
    /// Locations keep trace-level values, and the harness reads them back.
    TraceValues,
    /// Locations keep no trace-level values.
    NoTraceValues,
    /// The harness starts another process that writes.
    Writer,
    /// URIs of locations may have holes for names.
    Templates,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("name", &self.name)
            .field("promise", &self.promise)
            .finish_non_exhaustive()
    }
}

macro_rules! case {
    ($promise:literal, $module:ident :: $name:ident, $says:literal $(, needs $($need:ident)|+)? $(; $heavy:ident)?) => {
        Case {
            name: concat!(stringify!($module), "::", stringify!($name)),
            promise: $promise,
            says: $says,
            needs: &[$($(Need::$need),+)?],
            heavy: case!(@heavy $($heavy)?),
            run: |world| Box::pin($module::$name(world)),
        }
    };
    (@heavy) => { false };
    (@heavy heavy) => { true };
}

/// Every case, by promise.
pub fn table() -> &'static [Case] {
    TABLE
}

#[rustfmt::skip] // One row, one line or two: this is a table.
const TABLE: &[Case] = &[
    // 1. Precedence
    case!(1, scope::precedence, "context-local, then global, then environment decide"),
    case!(1, scope::no_destination_is_counted_and_stores_nothing, "with no destination anywhere, spans are unrouted and nothing is written"),
    case!(1, scope::strict_has_nothing_below_context_local, "strict: neither global nor environment apply"),
    case!(1, scope::unset_falls_through, "`unset` leaves the decision to the next level, at every level"),
    case!(1, scope::discard_stores_nothing, "`discard` stores nothing and is counted"),
    // 2. The scope is the context
    case!(2, scope::start_context_before_current_context, "a root takes the destination of its own context, else of the current one"),
    case!(2, scope::guards_nest_and_restore, "scopes replace, restore when left, also by a panic, and tolerate any order"),
    case!(2, scope::carried_by_whatever_carries_a_context, "the destination follows attach guards and with_context to other threads and tasks"),
    case!(2, scope::future_keeps_the_trace_whole, "a scoped future overlays the destination alone and never splits a trace"),
    case!(2, scope::futures_do_not_leak_into_each_other, "tasks that switch scopes on shared threads keep apart"),
    case!(2, scope::future_is_dropped_inside_its_scope, "clean-up of a cancelled future still sees its destination"),
    case!(2, scope::stream_scope, "everything a scoped stream does has its destination"),
    case!(2, scope::one_root_with_its_own_destination, "one root span can be given a destination explicitly"),
    case!(2, runtimes::plain_threads, "scopes and flush work from plain threads"),
    case!(2, runtimes::current_thread_runtime, "scopes and flush work on a current-thread runtime"),
    case!(2, runtimes::multi_thread_runtime, "scopes and flush work on a multi-thread runtime"),
    case!(2, runtimes::through_tracing, "scopes work through tracing and tracing-opentelemetry"),
    // 3. The global destination
    case!(3, scope::global_is_replaced_and_cleared, "the global destination can be set, replaced and cleared, returning the old one"),
    case!(3, scope::global_changes_while_a_place_is_stuck, "changing the global waits for nobody and flushes nothing"),
    // 4. Binding
    case!(4, binding::follows_its_root, "a span ended on another thread, after its scope, after the global changed, follows its root"),
    case!(4, binding::global_change_does_not_reach_open_traces, "set, replaced or cleared, the global has no effect on an open trace, also one bound to none"),
    case!(4, binding::late_child_follows, "a child started late by a detached task follows its root"),
    case!(4, binding::orphan_never_takes_the_global, "a child without binding takes its own context's destination, else is dropped as orphan"),
    case!(4, binding::foreign_trace_id_is_no_key, "a second local root with the same foreign trace id starts its own segment"),
    case!(4, foreign_ids::only_code_of_a_trace_sets_its_values, "nobody sets values of a trace but code that runs in a span which is open and was bound here", needs TraceValues),
    case!(4, foreign_ids::spans_under_a_foreign_provider, "a span whose parent is of a provider without a processor goes where its own context says"),
    case!(4, binding::unrecorded_parent_makes_a_root, "a span whose local parent is not recorded is a local root"),
    case!(4, binding::bindings_end, "bindings end with the last open span and do not leak"),
    case!(4, binding::bindings_expire, "a binding older than max_trace_age expires and is counted"),
    case!(4, binding::scope_inside_an_open_trace, "a scope entered inside a trace bound elsewhere has no effect and is counted"),
    case!(4, binding::new_root_detaches, "new_root starts a new trace with a link to the old one"),
    case!(4, binding::unsampled_spans_neither_bind_nor_are_stored, "recorded-but-unsampled spans neither bind nor are stored"),
    case!(4, binding::links_are_data, "links are never followed, rewritten or used for routing"),
    // 5. Isolation
    case!(5, isolation::tenants_side_by_side, "spans of tenants that run side by side never meet"),
    case!(5, isolation::one_foreign_trace_under_many_tenants, "one foreign trace id under many tenants at once reaches each tenant's own place"),
    case!(5, isolation::a_trace_id_made_here_keeps_its_place, "whoever repeats the id of a trace made here is refused in its store, at once, alone and without naming anybody", needs ExclusiveStore),
    case!(5, isolation::stress, "1,000 destinations, 200,000 spans, 8 tasks and 4 threads at random: none misrouted, lost, doubled or dropped"; heavy),
    // 6. Re-entry
    case!(6, application::what_a_sink_does_is_not_traced, "spans made inside a sink, on any of its threads, go nowhere"),
    case!(6, application::suppressed_contexts_are_ignored, "a span started while telemetry is suppressed is ignored, whatever its own context says"),
    // 7. Application threads
    case!(7, application::application_threads_never_wait, "ending spans goes on while a sink is stuck, blocks its thread or panics"),
    case!(7, application::span_ends_in_thread_teardown, "a span that ends while its thread is torn down harms nothing and is stored"),
    // 8. Lanes
    case!(8, lanes::visible_while_the_trace_runs, "children are stored while their root is open, and the trace is complete when it ends"),
    case!(8, lanes::one_stuck_place_delays_no_other, "a place that is dead, slow, throttled or blocks its thread delays no other"),
    case!(8, lanes::many_blocking_places_delay_no_other, "many sinks that block their threads at once delay no other"),
    case!(8, lanes::fan_out_legs_have_their_own_fate, "each leg of a destination gets every span, whatever becomes of the others"),
    case!(8, lanes::equal_uris_share_a_lane, "locations with equal URIs are one place with one lane"),
    case!(8, lanes::two_names_of_one_place, "two names of one place are two lanes on one store, both correct", needs Alias),
    case!(8, lanes::sets_flatten_and_merge, "lists flatten, duplicates merge, order is irrelevant"),
    case!(8, lanes::beside_other_processors, "other span processors may run beside this one"),
    case!(8, lanes::providers_share_a_pipeline, "several tracer providers share one pipeline"),
    // 9. At least once, exactly once at rest
    case!(9, delivery::passing_failures_are_retried, "a batch that fails for a while is stored in the end, with the same id on every attempt"),
    case!(9, delivery::panicking_sink_is_survived, "a sink that panics loses nothing but time"),
    case!(9, delivery::server_delays_are_honoured, "a delay the place asks for is kept, also when flush is called"),
    case!(9, delivery::flush_skips_the_own_backoff, "flush ends the lane's own backoff once"),
    case!(9, delivery::retry_deadline, "a batch that never succeeds is given up at the retry deadline, and counted"),
    case!(9, delivery::a_condemned_batch_is_not_retried_and_condemns_no_other, "an answer that condemns a batch drops that batch alone, at once, and counted"),
    case!(9, delivery::one_bad_span_is_refused_alone, "a refused span is counted with its reason; the rest of its batch is stored"),
    case!(9, delivery::repetition_keeps_the_guarantee, "a batch written again after an unknown outcome is stored as often as declared"),
    case!(9, delivery::repetition_after_reopening, "the same holds when the sink was closed and opened in between", needs Idempotent),
    case!(9, delivery::batches_come_one_at_a_time_in_sequence, "batches of a lane are written one at a time, with ids that rise strictly"),
    case!(9, delivery::real_place_recovers, "the real place fails for a while: nothing is lost", needs Unavailable),
    case!(9, delivery::several_processes_share_a_place, "several processes write one place at once; nothing is lost or doubled", needs Writer; heavy),
    case!(9, fidelity::hostile_spans, "huge, empty, odd spans are stored or refused one by one; the rest of the batch is stored"),
    // 10. Budgets
    case!(10, budget::drop_newest, "at the byte budget new spans are dropped and counted; memory stays bounded"),
    case!(10, budget::lane_budget_protects_other_lanes, "a lane at its budget takes no room from another"),
    case!(10, budget::process_budget, "the budget of the process bounds all lanes together"),
    case!(10, budget::many_places_that_do_not_drain_cost_no_other, "dozens of places that are down, refusing, throttled or blocked cost three healthy ones nothing"),
    case!(10, budget::block_waits_for_room, "with `block` a thread waits for room and nothing is dropped"),
    case!(10, budget::block_gives_up, "with `block` a span is dropped and counted after max_wait"),
    case!(10, budget::memory_is_given_back, "what is stored, refused or dropped counts no longer"),
    // 11. Flush and shutdown
    case!(11, flush::covers_what_ended_before, "flush stores every span that ended before the call"),
    case!(11, flush::reports_per_location, "flush says per location what was stored, refused, failed, and why"),
    case!(11, flush::deadline_reports_pending, "a flush that runs out of time says what is pending, and loses nothing"),
    case!(11, flush::works_everywhere, "flush works awaited and blocking, on any runtime and on none, many at once"),
    case!(11, flush::through_the_provider, "force_flush and shutdown of a provider work"),
    case!(11, flush::shutdown_is_final_and_idempotent, "shutdown stores, closes every sink, may be called again; later spans are counted as dropped"),
    case!(11, flush::shutdown_is_bounded_by_its_deadline, "shutdown does not wait for a stuck place beyond its deadline; what is cut off is counted"),
    case!(11, flush::open_spans_are_counted_at_shutdown, "spans still open at shutdown are counted per location"),
    case!(11, flush::guard_flushes_on_drop, "a flush guard flushes when dropped"),
    // 12. Stored means stored
    case!(12, flush::stored_is_said_after_the_sink_said_so, "nothing counts as stored before its sink returned"),
    case!(12, flush::stored_is_readable_at_once, "what flush reported as stored can be read from outside at once"),
    case!(12, flush::stored_survives_kill, "what a returned flush reported stored survives kill -9", needs Writer; heavy),
    // 13. Observable
    case!(13, observe::stats_follow_a_span, "stats say accepted, queued, stored and the state of each location"),
    case!(13, observe::metrics, "metrics carry the semantic-convention names, by reason, also for what failed"),
    // 14. Many and idle
    case!(14, observe::idle_lane_is_closed_and_reopened, "an idle location is closed and opened again; counters and sequence numbers go on"),
    case!(14, observe::ten_thousand_locations, "ten thousand locations in one process are served and closed again"),
    // 15. Bad input
    case!(15, input::permanent_failure_says_why_and_disturbs_nobody, "flush and stats name location, operation, cause and mend; other places go on"),
    case!(15, input::a_place_that_fails_for_good_keeps_its_spans_and_is_asked_again, "a permanently failing place says so at once, keeps its spans, holds up no flush, and recovers by itself"),
    case!(15, input::a_place_that_fails_for_good_gives_up_in_the_end, "a permanently failing place drops its spans after the retry deadline, counted"),
    case!(15, input::malformed_uris, "a malformed URI is an error that says so and shows no secret"),
    case!(15, input::equal_uris, "URIs that mean one place are equal, and lists of them are sets"),
    case!(15, input::names_of_tenants, "a hostile name in a template is refused or confined, and two names never give one place", needs Templates),
    case!(15, input::misconfigured_places, "each wrong configuration is an error with a mend, and nothing is written"),
    case!(15, input::real_place_breaks, "the real place breaks: the error says why, and it goes on when mended", needs Broken),
    case!(15, input::two_legs_in_one_store, "two legs in one store are a configuration error", needs ExclusiveStore),
    case!(15, input::second_segment_in_one_store_is_refused, "a second segment of one trace in one store is refused as a conflict, never merged", needs ExclusiveStore),
    // Completeness: what 8 calls complete
    case!(8, fidelity::sdk_spans, "a span of the SDK comes back with everything the backend keeps"),
    case!(8, fidelity::otlp_spans, "an ingested OTLP span of every value kind comes back with everything the backend keeps"),
    case!(8, around::trace_values, "session, user, tags, name, previews, run and request id set inside a trace come back, merged, and none is lost"),
    case!(8, around::values_after_the_root, "trace-level values that come too late for a place are counted as lost, with the reason", needs NoTraceValues),
    case!(8, around::transform_hook, "a transform hook edits and drops spans per location; a panic in it drops the span"),
    case!(8, around::sampling_per_destination, "a destination's own sampling ratio applies to its traces"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_promise_has_a_case_and_names_are_unique() {
        let promises: BTreeSet<u8> = TABLE.iter().map(|c| c.promise).collect();
        assert_eq!(promises, (1..=15).collect());
        let names: BTreeSet<_> = TABLE.iter().map(|c| c.name).collect();
        assert_eq!(names.len(), TABLE.len());
    }
}
