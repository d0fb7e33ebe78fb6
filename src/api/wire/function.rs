//! A function as its clients see it.
//!
//! **Invariant:** fields that nanofaas's clients decode into enums keep to its values; what is new stands in
//! fields of its own.

use serde_json::{Map, Value, json};

use super::spec::{mode_word, to_object};
use super::time::iso;
use crate::model::{Code, Shape, Version};
use crate::registry::Function;

/// A function, as JSON.
pub(in crate::api) type FunctionView = Map<String, Value>;

/// A version, as JSON.
pub(in crate::api) type VersionView = Map<String, Value>;

/// Every field of the spec with its effective value, and what is known beside it.
pub(in crate::api) fn view(function: &Function) -> FunctionView {
    let mut view = to_object(&function.spec());
    put_facts(&mut view, &function.active);
    let ignored: Vec<_> = function.active.spec.ignored.keys().collect();
    let facts = json!({
        "name": function.name.as_str(),
        "versions": function.versions.len(),
        "createdAt": iso(function.created_at),
        "updatedAt": iso(function.updated_at),
        "ignored": ignored,
    });
    extend(&mut view, facts);
    view
}

/// One version: its number, its code and when it was deployed, without the settings of the function.
pub(in crate::api) fn version_view(function: &Function, version: &Version) -> VersionView {
    let mut view = Map::new();
    put_facts(&mut view, version);
    let facts = json!({
        "active": version.number == function.active.number,
        "createdAt": iso(version.created_at),
        "timeoutMs": version.spec.timeout_ms,
        "memoryMb": version.spec.memory_mb,
        "maxRetries": version.spec.max_retries,
        "endpointUrl": version.spec.endpoint_url,
    });
    extend(&mut view, facts);
    view
}

/// What is known of a version's code and of how it runs.
fn put_facts(view: &mut Map<String, Value>, version: &Version) {
    let effective = version.effective_mode();
    let requested = version.spec.execution_mode.unwrap_or(effective);
    let (shape, digest, size) = match &version.code {
        Code::Wasm {
            digest,
            shape,
            size,
        } => (
            Some(shape_word(*shape)),
            Some(format!("sha256:{digest}")),
            Some(*size),
        ),
        Code::Echo | Code::Endpoint { .. } => (None, None, None),
    };
    let image = version.spec.image.clone();
    let facts = json!({
        "version": version.number.0,
        "executionMode": mode_word(requested),
        "requestedExecutionMode": mode_word(requested),
        "effectiveExecutionMode": mode_word(effective),
        // nanofaas's clients list functions by name and image, so code that was uploaded has one too.
        "image": image.or_else(|| digest.clone()),
        "shape": shape,
        "digest": digest,
        "sizeBytes": size,
    });
    extend(view, facts);
}

fn extend(view: &mut Map<String, Value>, facts: Value) {
    if let Value::Object(facts) = facts {
        view.extend(facts);
    }
}

fn shape_word(shape: Shape) -> &'static str {
    match shape {
        Shape::Handler => "handler",
        Shape::Http02 => "http-0.2",
        Shape::Http03 => "http-0.3",
        Shape::Command02 => "command-0.2",
        Shape::Command03 => "command-0.3",
        Shape::CoreCommand => "core-command",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{
        Digest, ExecutionMode, FunctionId, FunctionSettings, Timestamp, VersionNumber, VersionSpec,
    };

    fn function(code: Code, spec: VersionSpec) -> Function {
        let active = Arc::new(Version {
            number: VersionNumber(2),
            code,
            spec,
            created_at: Timestamp(1_788_264_000_042),
        });
        Function {
            id: FunctionId(7),
            name: "word-stats".parse().unwrap(),
            settings: FunctionSettings::default(),
            versions: vec![Arc::clone(&active)],
            active,
            created_at: Timestamp(0),
            updated_at: Timestamp(1_788_264_000_042),
        }
    }

    #[test]
    fn a_function_shows_everything() {
        let code = Code::Wasm {
            digest: Digest::from_bytes([0xab; 32]),
            shape: Shape::Handler,
            size: 43_000,
        };
        let spec = VersionSpec {
            env: [("LANG".to_owned(), "it".to_owned())].into(),
            ignored: [("runtimeMode".to_owned(), "\"HTTP\"".to_owned())].into(),
            ..VersionSpec::default()
        };
        let view = view(&function(code, spec));
        insta::assert_snapshot!(serde_json::to_string_pretty(&view).unwrap());
    }

    #[test]
    fn a_deployment_with_a_url_says_that_it_is_a_pool() {
        let code = Code::Endpoint {
            url: "http://runtime.example/".into(),
        };
        let spec = VersionSpec {
            execution_mode: Some(ExecutionMode::Deployment),
            endpoint_url: Some("http://runtime.example/".to_owned()),
            image: Some("word-stats:test".to_owned()),
            ..VersionSpec::default()
        };
        let view = view(&function(code, spec));
        assert_eq!(view["executionMode"], "DEPLOYMENT");
        assert_eq!(view["requestedExecutionMode"], "DEPLOYMENT");
        assert_eq!(view["effectiveExecutionMode"], "POOL");
        assert_eq!(view["image"], "word-stats:test");
    }

    #[test]
    fn what_is_shown_can_be_sent_back() {
        let function = function(Code::Echo, VersionSpec::default());
        let sent_back = super::super::full_spec(view(&function), &function.name);
        assert_eq!(sent_back.unwrap().settings, function.settings);
    }
}
