//! The faults: what each breaks, and the edits that build it into a copy of the workspace. An edit
//! whose text is not there exactly once is an error.

/// One way to break one promise of the design.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) name: &'static str,
    /// The number of the promise, from 1 to 15.
    pub(super) promise: u8,
    pub(super) breaks: &'static str,
    pub(super) edits: &'static [Edit],
}

/// Text of a file that is replaced.
#[derive(Debug)]
pub(super) struct Edit {
    /// Below `crates/core/src/`.
    pub(super) file: &'static str,
    pub(super) find: &'static str,
    pub(super) replace: &'static str,
}

/// One for each promise, in the order of the promises. Each asks whether it is the one that is on,
/// so that one build has them all.
pub(super) const FAULTS: [Fault; 15] = [
    Fault {
        name: "EnvironmentBeforeGlobal",
        promise: 1,
        breaks: "the environment outranks the global destination",
        edits: &[Edit {
            file: "scope/mod.rs",
            find: "        self.global.with(|global| match global {\n",
            replace: r#"        if crate::fault::is_on("EnvironmentBeforeGlobal") && self.environment.is_some() {
            return f(self.environment.as_ref());
        }
        self.global.with(|global| match global {
"#,
        }],
    },
    Fault {
        name: "CurrentContextIgnored",
        promise: 2,
        breaks: "a local root never asks the current context",
        edits: &[
            Edit {
                file: "scope/mod.rs",
                find: "match with_local(cx, Clone::clone) {",
                replace: r#"match if crate::fault::is_on("CurrentContextIgnored") {
            in_scope(cx).map(Clone::clone)
        } else {
            with_local(cx, Clone::clone)
        } {"#,
            },
            Edit {
                file: "scope/mod.rs",
                find: "        with_local(cx, route).flatten()\n",
                replace: r#"        if crate::fault::is_on("CurrentContextIgnored") {
            return in_scope(cx).map(route).flatten();
        }
        with_local(cx, route).flatten()
"#,
            },
        ],
    },
    Fault {
        name: "GlobalFrozen",
        promise: 3,
        breaks: "the first global destination stays for good",
        edits: &[Edit {
            file: "scope/mod.rs",
            find: "if (memo >> 32) as u32 == version {",
            replace: r#"if (memo >> 32) as u32 == version
            || (memo as u32 != 0 && crate::fault::is_on("GlobalFrozen"))
        {"#,
        }],
    },
    Fault {
        name: "OrphanTakesGlobal",
        promise: 4,
        breaks: "a child without binding takes the current global",
        edits: &[Edit {
            file: "processor.rs",
            find: "            Some(route) => self.start_root(trace, span, false, route),\n",
            replace: r#"            Some(route) => self.start_root(trace, span, false, route),
            None if crate::fault::is_on("OrphanTakesGlobal") => {
                let route = self.levels.route(cx, &self.routes);
                self.start_root(trace, span, false, route);
            }
"#,
        }],
    },
    Fault {
        name: "NeighboursLane",
        promise: 5,
        breaks: "now and then a span goes into its neighbour's lane",
        edits: &[Edit {
            file: "pipeline/admission.rs",
            find: "        let bytes = Span::sdk_bytes(span);\n",
            replace: r#"        let route = match crate::fault::is_on("NeighboursLane") {
            true => RouteId(crate::fault::neighbour(self.writer.as_u128(), route.0)),
            false => route,
        };
        let bytes = Span::sdk_bytes(span);
"#,
        }],
    },
    Fault {
        name: "SuppressionIgnored",
        promise: 6,
        breaks: "what a sink does is traced",
        edits: &[Edit {
            file: "processor.rs",
            find: "        if suppressed {\n",
            replace: r#"        if suppressed && !crate::fault::is_on("SuppressionIgnored") {
"#,
        }],
    },
    Fault {
        name: "EndWaitsForSink",
        promise: 7,
        breaks: "ending a span waits until it is stored",
        edits: &[Edit {
            file: "processor.rs",
            find: "shared.put(place, lane, bytes, Payload::Sdk(self.source, span.into()));\n",
            replace: r#"shared.put(place, lane, bytes, Payload::Sdk(self.source, span.into()));
                    if crate::fault::is_on("EndWaitsForSink") {
                        let _ = self.pipeline.flush(Duration::from_secs(2)).wait();
                    }
"#,
        }],
    },
    Fault {
        name: "OneWriterForAll",
        promise: 8,
        breaks: "one location is written at a time",
        edits: &[
            Edit {
                file: "lane/retry.rs",
                find: "        // Made before the attempt, so that a flush that comes meanwhile is not missed.\n",
                replace: r#"        let one_writer = match crate::fault::is_on("OneWriterForAll") {
            true => Some(crate::fault::one_writer(Arc::as_ptr(shared) as usize).await),
            false => None,
        };
        // Made before the attempt, so that a flush that comes meanwhile is not missed.
"#,
            },
            Edit {
                file: "lane/retry.rs",
                find: "        let Failure { error, of_batch } = match attempted {\n",
                replace: r#"        drop(one_writer);
        let Failure { error, of_batch } = match attempted {
"#,
            },
        ],
    },
    Fault {
        name: "NoRetry",
        promise: 9,
        breaks: "a passing failure is taken for a permanent one",
        edits: &[Edit {
            file: "lane/retry.rs",
            find: "        let (phase, own, delay) = match error.retry() {\n",
            replace: r#"        let (phase, own, delay) = match error.retry() {
            _ if crate::fault::is_on("NoRetry") => return Err((DropReason::Failed, error)),
"#,
        }],
    },
    Fault {
        name: "DropsUncounted",
        promise: 10,
        breaks: "drops at a byte budget are not counted",
        edits: &[Edit {
            file: "pipeline/admission.rs",
            find: "        lane.drop_spans(self.ingress.is_closed(), spans);\n        false\n",
            replace: r#"        if !crate::fault::is_on("DropsUncounted") {
            lane.drop_spans(self.ingress.is_closed(), spans);
        }
        false
"#,
        }],
    },
    Fault {
        name: "ShutdownForgets",
        promise: 11,
        breaks: "spans after shutdown are not counted",
        edits: &[Edit {
            file: "pipeline/admission.rs",
            find: "        lane.drop_spans(true, spans);\n        None\n",
            replace: r#"        if !crate::fault::is_on("ShutdownForgets") {
            lane.drop_spans(true, spans);
        }
        None
"#,
        }],
    },
    Fault {
        name: "StoredBeforeWritten",
        promise: 12,
        breaks: "a batch counts as stored before it is",
        edits: &[
            Edit {
                file: "lane/write.rs",
                find: "    let outcome = match flying.is_empty() {\n",
                replace: r#"    let early = crate::fault::is_on("StoredBeforeWritten");
    if early {
        count_stored(lane, flying.spans);
        lane.state().writing = None;
        shared.lane_progressed();
    }
    let outcome = match flying.is_empty() {
"#,
            },
            Edit {
                file: "lane/write.rs",
                find: "            count_stored(lane, spans - count);\n",
                replace: r#"            if !early {
                count_stored(lane, spans - count);
            }
"#,
            },
        ],
    },
    Fault {
        name: "MetricsHideFailures",
        promise: 13,
        breaks: "spans not stored appear in no metric",
        edits: &[Edit {
            file: "metrics.rs",
            find: "                    if dropped > 0 {\n",
            replace: r#"                    if dropped > 0 && !crate::fault::is_on("MetricsHideFailures") {
"#,
        }],
    },
    Fault {
        name: "IdleStaysOpen",
        promise: 14,
        breaks: "an idle lane is never closed",
        edits: &[Edit {
            file: "pipeline/delivery/sweep.rs",
            find: "        let excess = self.excess(now);\n",
            replace: r#"        if crate::fault::is_on("IdleStaysOpen") {
            return;
        }
        let excess = self.excess(now);
"#,
        }],
    },
    Fault {
        name: "ErrorSwallowed",
        promise: 15,
        breaks: "why a location fails is not reported",
        edits: &[Edit {
            file: "pipeline/snapshot.rs",
            find: "guard.last_error.clone();\n",
            replace: r#"guard.last_error.clone();
                let last_error = last_error.filter(|_| !crate::fault::is_on("ErrorSwallowed"));
"#,
        }],
    },
];
