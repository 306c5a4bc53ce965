//! What the tests share: a strict pipeline, spans that name their tenant, and what is stored where.

#![allow(dead_code, reason = "each test program uses a part of it")]

use futures_util::{Stream, StreamExt};
use opentelemetry::KeyValue;
use opentelemetry::trace::{TraceContextExt, Tracer, TracerProvider};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use trace_destination_core::{
    Destination, FlushReport, MemoryLocation, MemoryStore, Pipeline, PipelineBuilder, Registry,
    StoredSpan, Template, TraceLocation,
};

/// Long enough for a loaded machine; nothing waits that long unless something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The authenticated tenant of a request, in its extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tenant(pub(crate) String);

/// A pipeline, and stores of its own.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) pipeline: Pipeline,
    pub(crate) tracer: SdkTracer,
    name: Arc<str>,
}

impl Stage {
    pub(crate) fn new(name: &str) -> Self {
        Self::with(name, Pipeline::builder().strict())
    }

    pub(crate) fn with(name: &str, builder: PipelineBuilder) -> Self {
        let pipeline = builder.build().unwrap();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(pipeline.processor())
            .build();
        Self {
            pipeline,
            tracer: provider.tracer("tests"),
            name: name.into(),
        }
    }

    pub(crate) fn to(&self, tenant: &str) -> Destination {
        Destination::new(MemoryLocation::new(&self.store_name(tenant)))
    }

    pub(crate) fn template(&self) -> Template {
        registry()
            .template(&format!("memory:{}-{{tenant}}", self.name))
            .unwrap()
    }

    fn store_name(&self, tenant: &str) -> String {
        format!("{}-{tenant}", self.name)
    }

    /// Starts and ends a span in the current context that names the tenant it is meant for.
    pub(crate) fn span(&self, name: &'static str, tenant: &str) {
        self.tracer.in_span(name, |cx| {
            cx.span()
                .set_attribute(KeyValue::new("tenant", tenant.to_owned()));
        });
    }

    /// A stream that makes a span before each of its items.
    pub(crate) fn chunks(
        &self,
        count: usize,
        tenant: &str,
    ) -> impl Stream<Item = String> + Send + use<> {
        let (stage, tenant) = (self.clone(), tenant.to_owned());
        futures_util::stream::iter(0..count).then(move |n| {
            let (stage, tenant) = (stage.clone(), tenant.clone());
            async move {
                tokio::task::yield_now().await;
                stage.span("chunk", &tenant);
                format!("data: {n}\n\n")
            }
        })
    }

    pub(crate) fn flush(&self) -> FlushReport {
        let report = self.pipeline.flush(PATIENCE).wait();
        assert!(report.is_complete(), "{report}");
        report
    }

    /// The names of the spans at a tenant, sorted, each of which names this tenant.
    pub(crate) fn at(&self, tenant: &str) -> Vec<String> {
        let mut names = self.traces(tenant).concat();
        names.sort();
        names
    }

    /// The same, trace by trace.
    pub(crate) fn traces(&self, tenant: &str) -> Vec<Vec<String>> {
        let mut traces: HashMap<_, Vec<String>> = HashMap::new();
        for StoredSpan { span, .. } in MemoryStore::named(&self.store_name(tenant)).spans() {
            let named = span.attributes().get("tenant");
            let named = named.and_then(|value| value.as_str());
            assert_eq!(named, Some(tenant), "{} is stored at {tenant}", span.name());
            let trace = traces.entry(span.trace_id()).or_default();
            trace.push(span.name().to_owned());
        }
        let mut traces: Vec<_> = traces.into_values().collect();
        traces.iter_mut().for_each(|trace| trace.sort());
        traces.sort();
        traces
    }

    pub(crate) fn unrouted(&self) -> u64 {
        self.pipeline.stats().unrouted
    }
}

fn registry() -> Registry {
    Registry::new()
        .with_scheme("memory", |uri| {
            MemoryLocation::from_uri(uri).map(|l| Arc::new(l) as Arc<dyn TraceLocation>)
        })
        .with_holes("memory", MemoryLocation::holes())
}

pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(async { tokio::time::timeout(PATIENCE, future).await.unwrap() })
}
