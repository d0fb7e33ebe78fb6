//! What the client commands read from the server's answers. Fields they do not know are left alone.
//!
//! **Invariant:** nearly every field may be missing: an older or newer server is read as far as it goes. What
//! every Pelton says has to be there, so that another server's answer is not taken for one of ours.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

/// An answer that can be told from what other servers say.
pub(crate) trait Recognised: DeserializeOwned {
    /// Whether it has what every Pelton says.
    fn is_recognised(&self) -> bool;
}

/// The body of every error.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    /// The code.
    pub(crate) error: String,
    /// For people.
    pub(crate) message: String,
    /// Particulars: a list or an object.
    pub(crate) details: serde_json::Value,
}

impl Problem {
    /// The particulars, a line each.
    pub(crate) fn detail_lines(&self) -> Vec<String> {
        let show = |value: &serde_json::Value| match value.as_str() {
            Some(text) => text.to_owned(),
            None => value.to_string(),
        };
        match &self.details {
            serde_json::Value::Null => Vec::new(),
            serde_json::Value::Array(items) => items.iter().map(show).collect(),
            serde_json::Value::Object(fields) => fields
                .iter()
                .map(|(name, value)| format!("{name}: {}", show(value)))
                .collect(),
            serde_json::Value::Bool(_)
            | serde_json::Value::Number(_)
            | serde_json::Value::String(_) => vec![show(&self.details)],
        }
    }
}

/// Why an execution failed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Failure {
    /// Short and stable.
    pub(crate) code: String,
    /// For people.
    pub(crate) message: String,
}

/// An execution, of whichever answer shows one.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Execution {
    pub(crate) execution_id: String,
    pub(crate) function: String,
    pub(crate) version: Option<u64>,
    pub(crate) status: String,
    pub(crate) attempts: Option<u64>,
    pub(crate) faults: Option<u64>,
    pub(crate) requeues: Option<u64>,
    pub(crate) created_at: Option<String>,
    pub(crate) started_at: Option<String>,
    pub(crate) finished_at: Option<String>,
    pub(crate) due_at: Option<String>,
    pub(crate) output: Option<Box<RawValue>>,
    pub(crate) output_encoding: Option<String>,
    pub(crate) error: Option<Failure>,
}

impl Recognised for Execution {
    fn is_recognised(&self) -> bool {
        !self.execution_id.is_empty() && !self.status.is_empty()
    }
}

impl Execution {
    /// Whether nothing will change any more.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(
            self.status.as_str(),
            "success" | "error" | "timeout" | "cancelled"
        )
    }
}

/// A secret, as far as it is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Secret {
    pub(crate) name: String,
    pub(crate) created_at: Option<String>,
    pub(crate) updated_at: Option<String>,
}

impl Recognised for Secret {
    fn is_recognised(&self) -> bool {
        !self.name.is_empty()
    }
}

/// A page of a list.
#[derive(Debug, Deserialize)]
pub(crate) struct Page<T> {
    /// The rows.
    pub(crate) items: Vec<T>,
    /// Where the next page begins, if there is one.
    #[serde(default)]
    pub(crate) next: Option<String>,
}

impl<T: Recognised> Recognised for Page<T> {
    fn is_recognised(&self) -> bool {
        self.items.iter().all(T::is_recognised)
    }
}

/// One dispatch of a drain.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct DrainedItem {
    pub(crate) execution_id: String,
    pub(crate) status: String,
}

/// What a drain did.
#[derive(Debug, Deserialize)]
pub(crate) struct Drained {
    pub(crate) dispatched: bool,
    #[serde(default)]
    pub(crate) reason: Option<String>,
    #[serde(default)]
    pub(crate) items: Vec<DrainedItem>,
}

impl Recognised for Drained {
    fn is_recognised(&self) -> bool {
        true
    }
}

/// What a bulk redrive did, or would do. Several answers add up to one.
#[derive(Debug, Deserialize, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Redriven {
    pub(crate) dry_run: bool,
    pub(crate) redriven: u64,
    #[serde(default)]
    pub(crate) input_not_kept: u64,
    #[serde(default)]
    pub(crate) skipped: u64,
    #[serde(default)]
    pub(crate) sample: Vec<String>,
    #[serde(default)]
    pub(crate) next: Option<String>,
}

impl Recognised for Redriven {
    fn is_recognised(&self) -> bool {
        true
    }
}

/// Whether a server is ready.
#[derive(Debug, Deserialize)]
pub(crate) struct Health {
    status: String,
}

impl Recognised for Health {
    fn is_recognised(&self) -> bool {
        self.status == "UP"
    }
}

/// What all attempts of an execution wrote.
#[derive(Debug, Deserialize)]
pub(crate) struct ExecutionLogs {
    pub(crate) attempts: Vec<AttemptLogs>,
}

impl Recognised for ExecutionLogs {
    fn is_recognised(&self) -> bool {
        true
    }
}

/// What one attempt wrote.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AttemptLogs {
    pub(crate) attempt: u64,
    pub(crate) outcome: String,
    pub(crate) error: Option<Failure>,
    pub(crate) lines: Vec<Line>,
    pub(crate) truncated: bool,
}

/// One line of a log.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Line {
    pub(crate) stream: String,
    pub(crate) text: String,
    pub(crate) level: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) fields: serde_json::Map<String, serde_json::Value>,
}

impl Line {
    /// Level, message and fields where the line has them, else the text it is.
    pub(crate) fn for_people(&self) -> String {
        if self.level.is_none() && self.message.is_none() {
            return self.text.clone();
        }
        let level = self.level.as_deref().unwrap_or("-").to_uppercase();
        let mut text = format!("{level} {}", self.message.as_deref().unwrap_or_default());
        for (name, value) in &self.fields {
            text.push_str(&format!(" {name}={value}"));
        }
        text
    }
}

/// A list that is an array, or a page with `items`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Listed<T> {
    /// The array.
    All(Vec<T>),
    /// The page.
    Page(Page<T>),
}

impl<T: Recognised> Recognised for Listed<T> {
    fn is_recognised(&self) -> bool {
        match self {
            Self::All(items) => items.iter().all(T::is_recognised),
            Self::Page(page) => page.is_recognised(),
        }
    }
}

impl<T> Listed<T> {
    /// The rows.
    pub(crate) fn into_items(self) -> Vec<T> {
        match self {
            Self::All(items) => items,
            Self::Page(page) => page.items,
        }
    }
}

/// A function, of whichever answer shows one.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) version: Option<u64>,
    pub(crate) shape: Option<String>,
    pub(crate) image: Option<String>,
    pub(crate) endpoint_url: Option<String>,
    pub(crate) size_bytes: Option<u64>,
    pub(crate) updated_at: Option<String>,
    pub(crate) ignored: Vec<String>,
}

impl Recognised for Function {
    fn is_recognised(&self) -> bool {
        !self.name.is_empty()
    }
}

impl Function {
    /// Name, version and code in a line.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{} version {}: {}",
            self.name,
            self.version_text(),
            self.code_text()
        )
    }

    /// The number of the active version.
    pub(crate) fn version_text(&self) -> String {
        self.version
            .map(|number| number.to_string())
            .unwrap_or_default()
    }

    /// What runs: the shape and size of the wasm, a URL or an image.
    pub(crate) fn code_text(&self) -> String {
        match (&self.shape, self.size_bytes) {
            (Some(shape), Some(size)) => format!("{shape}, {}", super::output::bytes(size)),
            (Some(shape), None) => shape.clone(),
            (None, _) => {
                let shown = self.endpoint_url.as_ref().or(self.image.as_ref());
                shown.cloned().unwrap_or_default()
            }
        }
    }

    /// The fields that were taken and mean nothing.
    pub(crate) fn ignored(&self) -> Option<String> {
        (!self.ignored.is_empty()).then(|| self.ignored.join(", "))
    }
}

/// A version, as the list of versions shows it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Version {
    pub(crate) version: Option<u64>,
    pub(crate) active: bool,
    pub(crate) digest: Option<String>,
    pub(crate) image: Option<String>,
    pub(crate) endpoint_url: Option<String>,
    pub(crate) created_at: Option<String>,
}

impl Recognised for Version {
    fn is_recognised(&self) -> bool {
        self.version.is_some()
    }
}

/// The runtime config: every value by its name, and the revision among them.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct RuntimeConfig(pub(crate) serde_json::Map<String, serde_json::Value>);

impl Recognised for RuntimeConfig {
    fn is_recognised(&self) -> bool {
        self.0.contains_key("revision")
    }
}

/// A change of the runtime config.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct RuntimeChange {
    pub(crate) effective_config: RuntimeConfig,
    pub(crate) warnings: Vec<String>,
}

impl Recognised for RuntimeChange {
    fn is_recognised(&self) -> bool {
        self.effective_config.is_recognised()
    }
}

/// That the runtime config could be changed so.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RuntimeConfigValid {
    pub(crate) valid: bool,
    pub(crate) warnings: Vec<String>,
}

impl Recognised for RuntimeConfigValid {
    fn is_recognised(&self) -> bool {
        self.valid
    }
}
