//! The last part of a path: a name, or a name and a verb (`word-stats:invoke`).
//!
//! The router knows only that there is a segment; it is percent-decoded and split once, at its last colon.
//!
//! **Invariant:** any text splits without a panic, and the parts joined by a colon are that text again.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;

use super::error::Error;
use crate::model::{ExecutionId, FunctionName, SecretName};

/// The segment of a path that the route leaves open, percent-decoded.
#[derive(Debug)]
pub(super) struct Segment(String);

/// What can be done with one function, beside what the methods say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FunctionVerb {
    Invoke,
    Enqueue,
    Rollback,
    Redrive,
}

impl FunctionVerb {
    const WORDS: &str = "invoke, enqueue, rollback and redrive";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "invoke" => Some(Self::Invoke),
            "enqueue" => Some(Self::Enqueue),
            "rollback" => Some(Self::Rollback),
            "redrive" => Some(Self::Redrive),
            _ => None,
        }
    }
}

/// What can be done with one execution, beside showing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ExecutionVerb {
    Cancel,
    Redrive,
}

impl ExecutionVerb {
    const WORDS: &str = "cancel and redrive";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "cancel" => Some(Self::Cancel),
            "redrive" => Some(Self::Redrive),
            _ => None,
        }
    }
}

/// The methods of a path that ends in a verb.
const OF_A_VERB: &str = "POST";

/// The methods of a function's own path.
const OF_A_FUNCTION: &str = "GET,HEAD,PUT,PATCH,DELETE";

/// The methods of an execution's own path.
const OF_AN_EXECUTION: &str = "GET,HEAD";

/// The name before the last colon and the verb behind it; all of it is the name where there is no colon.
pub(super) fn split(segment: &str) -> (&str, Option<&str>) {
    match segment.rsplit_once(':') {
        Some((name, verb)) => (name, Some(verb)),
        None => (segment, None),
    }
}

impl Segment {
    /// The function that a path without a verb names.
    ///
    /// # Errors
    /// 404 where no function can be called this; 405 where the path is one of a verb.
    pub(super) fn function(&self) -> Result<FunctionName, Error> {
        let (name, verb) = split(&self.0);
        match verb {
            None => known(name),
            Some(verb) if FunctionVerb::parse(verb).is_some() => {
                Err(Error::method_not_allowed(Some(OF_A_VERB)))
            }
            Some(_) => Err(Error::unknown_function(&self.0)),
        }
    }

    /// The name of a function that may have to be created first.
    ///
    /// # Errors
    /// A sentence that says what names look like.
    pub(super) fn new_function(&self) -> Result<FunctionName, String> {
        let name: Result<FunctionName, _> = self.0.parse();
        name.map_err(|error| error.to_string())
    }

    /// The name of a secret that may have to be made first.
    ///
    /// # Errors
    /// 400 that says what names look like.
    pub(super) fn new_secret(&self) -> Result<SecretName, Error> {
        let name = self.0.parse();
        name.map_err(|error| Error::invalid_field("name", error))
    }

    /// The secret that a path names.
    ///
    /// # Errors
    /// 404 where no secret can be called this.
    pub(super) fn secret(&self) -> Result<SecretName, Error> {
        let name = self.0.parse();
        name.map_err(|_| Error::unknown_secret(&self.0))
    }

    /// The function and what is to be done with it.
    ///
    /// # Errors
    /// 404 where there is no such verb or function; 405 where the path has no verb.
    pub(super) fn function_verb(&self) -> Result<(FunctionName, FunctionVerb), Error> {
        let (name, verb) = split(&self.0);
        let verb = match verb {
            None => return Err(Error::method_not_allowed(Some(OF_A_FUNCTION))),
            Some(verb) => FunctionVerb::parse(verb),
        };
        let verb = verb.ok_or_else(|| Error::unknown_verb(&self.0, FunctionVerb::WORDS))?;
        Ok((known(name)?, verb))
    }

    /// The function of a path whose only verb is this one.
    ///
    /// # Errors
    /// 404 where the verb is another, or no function can be called this.
    pub(super) fn function_for(&self, only: &str) -> Result<FunctionName, Error> {
        known(self.before(only)?)
    }

    /// The execution that a path without a verb names.
    ///
    /// # Errors
    /// 404: an id that does not parse is unknown; 405 where the path is one of a verb.
    pub(super) fn execution(&self) -> Result<ExecutionId, Error> {
        if split(&self.0).1.and_then(ExecutionVerb::parse).is_some() {
            return Err(Error::method_not_allowed(Some(OF_A_VERB)));
        }
        ExecutionId::parse(&self.0).ok_or_else(|| Error::unknown_execution(&self.0))
    }

    /// The execution and what is to be done with it.
    ///
    /// # Errors
    /// 404 where there is no such verb, or the id does not parse; 405 where the path has no verb.
    pub(super) fn execution_verb(&self) -> Result<(ExecutionId, ExecutionVerb), Error> {
        let (id, verb) = split(&self.0);
        let verb = match verb {
            None => return Err(Error::method_not_allowed(Some(OF_AN_EXECUTION))),
            Some(verb) => ExecutionVerb::parse(verb),
        };
        let verb = verb.ok_or_else(|| Error::unknown_verb(&self.0, ExecutionVerb::WORDS))?;
        let id = ExecutionId::parse(id).ok_or_else(|| Error::unknown_execution(id))?;
        Ok((id, verb))
    }

    /// What is said of a method that no path of functions has.
    pub(super) fn other_method_of_function(&self) -> Error {
        Error::method_not_allowed(Some(match split(&self.0).1 {
            None => OF_A_FUNCTION,
            Some(_) => OF_A_VERB,
        }))
    }

    /// What is said of a method that no path of executions has.
    pub(super) fn other_method_of_execution(&self) -> Error {
        Error::method_not_allowed(Some(match split(&self.0).1 {
            None => OF_AN_EXECUTION,
            Some(_) => OF_A_VERB,
        }))
    }

    /// The execution of a path whose only verb is this one.
    ///
    /// # Errors
    /// 404 where the verb is another or missing, or the id does not parse.
    pub(super) fn execution_for(&self, only: &str) -> Result<ExecutionId, Error> {
        let id = self.before(only)?;
        ExecutionId::parse(id).ok_or_else(|| Error::unknown_execution(id))
    }

    fn before(&self, only: &str) -> Result<&str, Error> {
        match split(&self.0) {
            (name, Some(verb)) if verb == only => Ok(name),
            _ => Err(Error::unknown_verb(&self.0, only)),
        }
    }
}

fn known(name: &str) -> Result<FunctionName, Error> {
    // A name that no function can have is one that does not exist.
    name.parse().map_err(|_| Error::unknown_function(name))
}

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| Error::bad_request("the path is not UTF-8 once it is percent-decoded"))?;
        let segment = params.iter().next().map(|(_, segment)| segment.to_owned());
        segment
            .map(Self)
            .ok_or_else(|| Error::unknown_path(parts.uri.path()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_colon_decides() {
        assert_eq!(split("a:invoke"), ("a", Some("invoke")));
        assert_eq!(split("a:b:invoke"), ("a:b", Some("invoke")));
        assert_eq!(split("a"), ("a", None));
        assert_eq!(split(":"), ("", Some("")));
        assert_eq!(split(""), ("", None));
    }

    #[test]
    fn a_verb_needs_a_name_before_it() {
        let segment = |text: &str| Segment(text.to_owned());
        let (name, verb) = segment("echo:enqueue").function_verb().unwrap();
        assert_eq!((name.as_str(), verb), ("echo", FunctionVerb::Enqueue));
        assert!(segment(":invoke").function_verb().is_err());
        assert!(segment("echo:").function_verb().is_err());
        assert!(segment("echo:Invoke").function_verb().is_err());
        assert!(segment("a:b:invoke").function_verb().is_err());
        assert!(
            segment("echo:drain-once")
                .function_for("drain-once")
                .is_ok()
        );
        assert!(segment("echo").function_for("drain-once").is_err());
    }

    proptest! {
        #[test]
        fn any_text_splits_and_joins_again(text in ".*") {
            let joined = match split(&text) {
                (name, Some(verb)) => format!("{name}:{verb}"),
                (name, None) => name.to_owned(),
            };
            prop_assert_eq!(&joined, &text);
            let segment = Segment(text);
            let _ = segment.function();
            let _ = segment.new_function();
            let _ = segment.function_verb();
            let _ = segment.execution();
            let _ = segment.execution_verb();
            let _ = segment.execution_for("complete");
        }
    }
}
