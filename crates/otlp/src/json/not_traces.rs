//! Why a JSON text is no trace request.

pub(super) const NOT_A_REQUEST: &str =
    "give an OTLP/JSON ExportTraceServiceRequest: {\"resourceSpans\": […]}";
pub(super) const SNAKE_CASE: &str = "write it as OTLP/JSON: keys in camelCase (`resourceSpans`, `traceId`) and \
                          ids in hex; protobuf's own JSON mapping writes them otherwise";

/// Why JSON is no trace request.
#[derive(Debug)]
pub(crate) enum NotTraces {
    /// It has another shape.
    Shape,
    /// It is an object without `resourceSpans` but with this.
    Key(String),
}

impl NotTraces {
    /// Whether it is a request of another signal, which a file may hold beside traces.
    pub(crate) fn is_other_signal(&self) -> bool {
        let signals = ["resourceMetrics", "resourceLogs", "resourceProfiles"];
        matches!(self, Self::Key(key) if signals.contains(&&**key))
    }

    pub(crate) fn cause(&self) -> String {
        match self {
            Self::Shape => "the JSON is not an OTLP trace request".into(),
            Self::Key(key) => {
                let key: String = key.chars().take(80).collect();
                format!(
                    "the JSON has no `resourceSpans` but `{}`: it is not an OTLP trace request",
                    key.escape_debug()
                )
            }
        }
    }

    pub(crate) fn mend(&self) -> &'static str {
        match self {
            Self::Key(key) if key == "resource_spans" => SNAKE_CASE,
            Self::Key(_) if self.is_other_signal() => {
                "send metrics and logs elsewhere; only traces are stored"
            }
            _ => NOT_A_REQUEST,
        }
    }
}
