//! Templates over every backend of this build.

use crate::registry;
use std::fmt;
use std::ops::Deref;
use trace_destination_core::Error;

/// One or more location URIs with holes for names: the way from a tenant's name to its destination.
///
/// ```
/// # use trace_destination::Template;
/// # fn serve(name: &str) -> Result<(), trace_destination::Error> {
/// let template = Template::new("memory:agents-{tenant}")?;   // once, when the process starts
/// let destination = template.destination([("tenant", name)])?;   // for each request
/// # Ok(())
/// # }
/// # serve("acme").unwrap();
/// ```
///
/// A hole may stand only where the backend allows it, and everything else is an error when the
/// template is made:
///
/// | scheme | a name may be | which names fit |
/// |---|---|---|
/// | `sqlite:` | the value of `experiment_name` | visible text but `Default` |
/// | | one folder of the path, the file name, or a part of them | lower-case letters a to z, digits, `_`, `-`, `.` |
/// | `http:`, `https:` | the value of `experiment_name` | printable ASCII without upper case: a server's database may fold letters |
/// | | the value of `workspace` | lower-case letters a to z, digits, `_`, `-` |
/// | `uc:` | the schema, the prefix, or a part of them | the same, first a letter or digit |
/// | `databricks:` | what stands in front of `_otel_spans` in `table` | the same |
/// | `memory:` | the name | visible text |
/// | `otlp+http:`, `otlp+https:` | nowhere | |
///
/// The methods are those of [`trace_destination_core::Template`], where the rules are.
#[derive(Clone)]
pub struct Template(trace_destination_core::Template);

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// `InvalidConfig` if a hole stands where its scheme has none, if two locations of the template
    /// could become one place, if it has no hole, and as for [`destination`](crate::destination()).
    pub fn new(text: &str) -> Result<Self, Error> {
        registry().template(text).map(Self)
    }

    /// As [`trace_destination_core::Template::with_cache`].
    #[must_use]
    pub fn with_cache(self, destinations: usize) -> Self {
        Self(self.0.with_cache(destinations))
    }

    /// As [`trace_destination_core::Template::with_sampling_ratio`].
    ///
    /// # Errors
    /// `InvalidConfig` if the ratio is not between 0 and 1.
    pub fn with_sampling_ratio(self, ratio: f64) -> Result<Self, Error> {
        self.0.with_sampling_ratio(ratio).map(Self)
    }
}

impl Deref for Template {
    type Target = trace_destination_core::Template;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl From<Template> for trace_destination_core::Template {
    fn from(template: Template) -> Self {
        template.0
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
