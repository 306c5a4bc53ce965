//! Token usage and cost of a trace: the sum over its span tree.
//!
//! A span that carries a value speaks for its whole subtree: values of its descendants are not
//! added again. Siblings add up. Spans may come in any order, in any number of batches, and again.

use super::json::Json;

type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// The keys of `mlflow.chat.tokenUsage`, in the order of [`Usage::columns`]. The first three are
/// always part of a total, the others only where some span gave them.
pub(crate) const USAGE_KEYS: [&str; 6] = [
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cache_creation_input_tokens_above_1hr",
];

/// The keys of `mlflow.llm.cost`, in the order of [`Cost::columns`].
pub(crate) const COST_KEYS: [&str; 3] = ["input_cost", "output_cost", "total_cost"];

/// A count as JSON may write it. Counts are whole numbers; MLflow accepts others and stores none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Count {
    Int(i128),
    Float(f64),
}

impl Count {
    fn add(self, other: Self) -> Self {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Self::Int(a.saturating_add(b)),
            (a, b) => Self::Float(a.as_f64() + b.as_f64()),
        }
    }

    fn as_f64(self) -> f64 {
        match self {
            Self::Int(v) => v as f64,
            Self::Float(v) => v,
        }
    }

    fn column(self) -> Option<i64> {
        match self {
            Self::Int(v) => i64::try_from(v).ok(),
            // 2^63 is the first double that does not fit.
            Self::Float(v) if v.fract() == 0.0 && v >= -(2f64.powi(63)) && v < 2f64.powi(63) => {
                Some(v as i64)
            }
            Self::Float(_) => None,
        }
    }
}

/// Token usage of a span, or of a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Usage(pub(super) [Option<Count>; 6]);

impl Usage {
    /// The usage in a decoded `mlflow.chat.tokenUsage`.
    ///
    /// # Errors
    /// The key whose value is not a number.
    pub(super) fn of(counts: &Json) -> Result<Self, &'static str> {
        let mut usage = Self::default();
        for (slot, key) in usage.0.iter_mut().zip(USAGE_KEYS) {
            *slot = match counts.get(key) {
                None => None,
                Some(Json::Int(v)) => Some(Count::Int(*v)),
                Some(Json::Bool(v)) => Some(Count::Int((*v).into())),
                Some(Json::Float(v)) => Some(Count::Float(*v)),
                Some(Json::Big(digits)) => Some(Count::Float(digits.parse().unwrap_or(f64::NAN))),
                Some(_) => return Err(key),
            };
        }
        Ok(usage)
    }

    /// The values of the token columns, in the order of [`USAGE_KEYS`]; `None` leaves a column as
    /// it is.
    pub(crate) fn columns(&self) -> [Option<i64>; 6] {
        self.0.map(|c| c.and_then(Count::column))
    }

    /// The value of the metadata row `mlflow.trace.tokenUsage`, for databases without columns.
    pub(crate) fn to_json(self) -> String {
        object(
            USAGE_KEYS
                .into_iter()
                .zip(self.columns())
                .filter_map(|(key, value)| Some((key, value?.to_string()))),
        )
    }
}

/// Cost in US dollars of a span, or of a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Cost(pub(super) [Option<f64>; 3]);

impl Cost {
    /// The cost in a decoded `mlflow.llm.cost`.
    ///
    /// # Errors
    /// The key whose value is not a number.
    pub(super) fn of(amounts: &Json) -> Result<Self, &'static str> {
        let mut cost = Self::default();
        for (slot, key) in cost.0.iter_mut().zip(COST_KEYS) {
            *slot = match amounts.get(key) {
                None => None,
                Some(Json::Int(v)) => Some(*v as f64),
                Some(Json::Float(v)) => Some(*v),
                Some(Json::Big(digits)) => digits.parse().ok(),
                // MLflow accepts these and stores none.
                Some(Json::Bool(_)) => None,
                Some(_) => return Err(key),
            };
        }
        Ok(cost)
    }

    /// The values of the cost columns, in the order of [`COST_KEYS`]; `None` leaves a column as it
    /// is.
    pub(crate) fn columns(&self) -> [Option<f64>; 3] {
        self.0.map(|c| c.filter(|v| v.is_finite()))
    }

    /// The value of the metadata row `mlflow.trace.cost`, for databases without columns.
    pub(crate) fn to_json(self) -> String {
        object(
            COST_KEYS
                .into_iter()
                .zip(self.columns())
                .filter_map(|(key, value)| Some((key, super::json::float_text(value?)))),
        )
    }
}

fn object(entries: impl Iterator<Item = (&'static str, String)>) -> String {
    let body: Vec<String> = entries.map(|(k, v)| format!("\"{k}\": {v}")).collect();
    format!("{{{}}}", body.join(", "))
}

/// Token usage and cost of one trace, kept up to date span by span.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rollup {
    nodes: Vec<Node>,
    by_id: HashMap<u64, usize>,
    /// Children by their parent's id, whether the parent is here yet or not.
    children: HashMap<u64, Vec<usize>>,
    /// Nodes that carry usage or cost.
    carriers: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq)]
struct Node {
    id: u64,
    parent: Option<u64>,
    /// Boxed, because few spans carry any.
    usage: Option<Box<Usage>>,
    cost: Option<Box<Cost>>,
    /// An ancestor carries usage.
    usage_hidden: bool,
    /// An ancestor carries cost.
    cost_hidden: bool,
}

impl Rollup {
    /// Takes a span in. A span that was there before is replaced; the same again changes nothing.
    pub(crate) fn insert(
        &mut self,
        span_id: &str,
        parent_span_id: Option<&str>,
        usage: Option<Usage>,
        cost: Option<Cost>,
    ) {
        let (id, parent) = (key(span_id), parent_span_id.map(key));
        let node = Node {
            id,
            parent,
            usage: usage.map(Box::new),
            cost: cost.map(Box::new),
            usage_hidden: false,
            cost_hidden: false,
        };
        if let Some(&index) = self.by_id.get(&id) {
            let old = &self.nodes[index];
            if (old.parent, &old.usage, &old.cost) != (parent, &node.usage, &node.cost) {
                self.nodes[index] = node;
                self.rebuild();
            }
            return;
        }
        let index = self.nodes.len();
        self.nodes.push(node);
        self.attach(index);
    }

    /// Memory the tree takes beside itself, in bytes, estimated.
    pub(crate) fn heap_bytes(&self) -> usize {
        let carried = self.carriers.len() * (size_of::<Usage>() + size_of::<Cost>());
        // A parent's list has room for four children at first.
        let children = self.children.len() * 4 * size_of::<usize>();
        self.nodes.capacity() * size_of::<Node>()
            + self.by_id.capacity() * (size_of::<(u64, usize)>() + 1)
            + self.children.capacity() * (size_of::<(u64, Vec<usize>)>() + 1)
            + self.nodes.len() * size_of::<usize>()
            + self.carriers.capacity() * size_of::<usize>()
            + children
            + carried
    }

    /// Usage of the trace so far, `None` if no span carries any.
    pub(crate) fn usage(&self) -> Option<Usage> {
        let values = self.carriers.iter().rev().filter_map(|&i| {
            let node = &self.nodes[i];
            node.usage.as_deref().filter(|_| !node.usage_hidden)
        });
        let mut total: Option<Usage> = None;
        for value in values {
            let sum = &mut total
                .get_or_insert_with(|| {
                    let zero = Some(Count::Int(0));
                    Usage([zero, zero, zero, None, None, None])
                })
                .0;
            for (sum, value) in sum.iter_mut().zip(value.0) {
                if let Some(value) = value {
                    *sum = Some(sum.map_or(value, |sum| sum.add(value)));
                }
            }
        }
        total
    }

    /// Cost of the trace so far, `None` if no span carries any.
    pub(crate) fn cost(&self) -> Option<Cost> {
        let values = self.carriers.iter().rev().filter_map(|&i| {
            let node = &self.nodes[i];
            node.cost.as_deref().filter(|_| !node.cost_hidden)
        });
        let mut total: Option<Cost> = None;
        for value in values {
            let sum = &mut total.get_or_insert(Cost([Some(0.0); 3])).0;
            for (sum, value) in sum.iter_mut().zip(value.0) {
                *sum = Some(sum.unwrap_or(0.0) + value.unwrap_or(0.0));
            }
        }
        total
    }

    /// Hooks a node that is in `nodes` into the tree, below its parent and above its children.
    fn attach(&mut self, index: usize) {
        let (id, parent) = (self.nodes[index].id, self.nodes[index].parent);
        self.by_id.insert(id, index);
        if let Some(parent) = parent {
            self.children.entry(parent).or_default().push(index);
            if let Some(above) = self.by_id.get(&parent).map(|&p| &self.nodes[p]) {
                let usage_hidden = above.usage_hidden || above.usage.is_some();
                let cost_hidden = above.cost_hidden || above.cost.is_some();
                self.nodes[index].usage_hidden = usage_hidden;
                self.nodes[index].cost_hidden = cost_hidden;
            }
        }
        let node = &self.nodes[index];
        if node.usage.is_some() || node.cost.is_some() {
            self.carriers.push(index);
        }
        self.hide_below(index);
    }

    /// Passes what hides the descendants of a node on to them. Hiding is never taken back here,
    /// so each node is visited at most twice over the life of a tree, and cycles end.
    fn hide_below(&mut self, index: usize) {
        let mut stack = vec![index];
        while let Some(index) = stack.pop() {
            let node = &self.nodes[index];
            let usage = node.usage_hidden || node.usage.is_some();
            let cost = node.cost_hidden || node.cost.is_some();
            if !usage && !cost {
                continue;
            }
            let Some(children) = self.children.get(&node.id) else {
                continue;
            };
            for &child in children {
                let node = &mut self.nodes[child];
                if (usage && !node.usage_hidden) || (cost && !node.cost_hidden) {
                    node.usage_hidden |= usage;
                    node.cost_hidden |= cost;
                    stack.push(child);
                }
            }
        }
    }

    /// Starts over after a span came again with other values.
    fn rebuild(&mut self) {
        self.by_id.clear();
        self.children.clear();
        self.carriers.clear();
        for node in &mut self.nodes {
            node.usage_hidden = false;
            node.cost_hidden = false;
        }
        for index in 0..self.nodes.len() {
            self.attach(index);
        }
    }
}

/// Span ids are 16 hex digits; a stored id of another make gets a number of its own.
fn key(span_id: &str) -> u64 {
    u64::from_str_radix(span_id, 16).unwrap_or_else(|_| {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        span_id.hash(&mut hasher);
        hasher.finish()
    })
}

/// Usage and cost in the stored JSON of a span, for a trace whose earlier spans are in the
/// database only. What cannot be read counts as nothing.
pub(crate) fn stored_values(content: &str) -> (Option<Usage>, Option<Cost>) {
    let Some(attributes) = super::json::member(content, "attributes") else {
        return (None, None);
    };
    let value = |key: &str| match attributes.get(key) {
        Some(Json::Str(text)) => super::json::loads(text),
        other => other.cloned(),
    };
    let dict = |key: &str| value(key).filter(|v| matches!(v, Json::Dict(_)));
    (
        dict(super::keys::USAGE).and_then(|v| Usage::of(&v).ok()),
        dict(super::keys::COST).and_then(|v| Cost::of(&v).ok()),
    )
}
