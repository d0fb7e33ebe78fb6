//! What a version's code asks for, held against what its spec grants.
//!
//! **Invariant:** whatever is not granted is refused before the version exists, and the refusal names the field that
//! would grant it.

use super::Error;
use crate::model::{Code, Reuse, Shape, VersionSpec};

/// Checks a version that is about to become the active one. `outgoing` is the interface by which its code calls out.
///
/// # Errors
/// [`Error::NotGranted`]; [`Error::Invalid`] where the spec grants what its code can make no use of.
pub(super) fn check(code: &Code, outgoing: Option<&str>, spec: &VersionSpec) -> Result<(), Error> {
    may_be_reused(code, spec)?;
    match code {
        Code::Wasm { shape, .. } => may_call_out(*shape, outgoing, spec),
        Code::Echo | Code::Endpoint { .. } => no_wasm(spec),
    }
}

/// HTTP functions have this import whether they use it or not: their world says so. Theirs is refused at each call
/// instead, as long as nobody is listed.
fn may_call_out(shape: Shape, outgoing: Option<&str>, spec: &VersionSpec) -> Result<(), Error> {
    let of_its_world = match shape {
        Shape::Http02 | Shape::Http03 => true,
        Shape::Handler | Shape::Command02 | Shape::Command03 | Shape::CoreCommand => false,
    };
    match outgoing {
        Some(interface) if !of_its_world && spec.allow_hosts.is_none() => {
            Err(Error::NotGranted(format!(
                "this code imports `{interface}`, so it may want to call out, and nothing grants it that: set \
                 allowHosts to the hosts that it calls, such as [\"https://api.example.org\"], or to [] if it \
                 calls nobody"
            )))
        }
        Some(_) | None => Ok(()),
    }
}

/// What has one end, or runs elsewhere, has no instance that could answer again.
fn may_be_reused(code: &Code, spec: &VersionSpec) -> Result<(), Error> {
    let Some(reuse) = spec.reuse else {
        return Ok(());
    };
    let why = match code {
        Code::Wasm { shape, .. } => match shape {
            Shape::Http03 => return Ok(()),
            Shape::Handler => return one_at_a_time("handler", reuse),
            Shape::Http02 => return one_at_a_time("http-0.2", reuse),
            Shape::Command02 | Shape::Command03 | Shape::CoreCommand => {
                "a command's instance ends with its call, so it cannot be used again"
            }
        },
        Code::Echo | Code::Endpoint { .. } => "only wasm has instances here",
    };
    Err(Error::Invalid(vec![format!("reuse: {why}: leave it out")]))
}

/// Only what is asynchronous in itself can begin a call before it has ended the one before.
fn one_at_a_time(shape: &str, reuse: Reuse) -> Result<(), Error> {
    if reuse.max_concurrent == 1 {
        return Ok(());
    }
    Err(Error::Invalid(vec![format!(
        "reuse.maxConcurrent: must be 1 for the shape {shape}, not {}: its instances answer one call after another, and \
         calls at once have an instance each; only http-0.3 takes several in one instance",
        reuse.max_concurrent,
    )]))
}

/// A service behind a URL is not ours to give anything to.
fn no_wasm(spec: &VersionSpec) -> Result<(), Error> {
    let mut complaints = Vec::new();
    if !spec.secrets.is_empty() {
        complaints.push("secrets: only wasm is given secrets: leave them out".to_owned());
    }
    if spec.allow_hosts.is_some() {
        complaints.push("allowHosts: only wasm is held to it: leave it out".to_owned());
    }
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(Error::Invalid(complaints))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Digest;

    fn judged(
        shape: Shape,
        outgoing: Option<&str>,
        allow_hosts: Option<&[&str]>,
    ) -> Result<(), Error> {
        let code = Code::Wasm {
            digest: Digest::from_bytes([0; 32]),
            shape,
            size: 1,
        };
        let hosts = |hosts: &[&str]| hosts.iter().map(|host| host.parse().unwrap()).collect();
        let spec = VersionSpec {
            allow_hosts: allow_hosts.map(hosts),
            ..VersionSpec::default()
        };
        check(&code, outgoing, &spec)
    }

    #[test]
    fn what_has_no_instance_that_answers_twice_is_not_reused() {
        let spec = VersionSpec {
            reuse: Some(crate::model::Reuse::default()),
            allow_hosts: Some(Vec::new()),
            ..VersionSpec::default()
        };
        let wasm = |shape| Code::Wasm {
            digest: Digest::from_bytes([0; 32]),
            shape,
            size: 1,
        };
        for shape in [Shape::Handler, Shape::Http02, Shape::Http03] {
            assert!(check(&wasm(shape), None, &spec).is_ok());
        }
        for shape in [Shape::Command02, Shape::Command03, Shape::CoreCommand] {
            let refused = check(&wasm(shape), None, &spec).unwrap_err();
            assert!(matches!(&refused, Error::Invalid(texts) if texts[0].contains("a command's")));
        }
        let refused = check(&Code::Echo, None, &spec).unwrap_err();
        assert!(matches!(refused, Error::Invalid(_)));
    }

    #[test]
    fn only_what_is_asynchronous_takes_several_calls_at_once() {
        let spec = VersionSpec {
            reuse: Some(Reuse {
                max_concurrent: 2,
                ..Reuse::default()
            }),
            ..VersionSpec::default()
        };
        let wasm = |shape| Code::Wasm {
            digest: Digest::from_bytes([0; 32]),
            shape,
            size: 1,
        };
        assert!(check(&wasm(Shape::Http03), None, &spec).is_ok());
        for (shape, word) in [(Shape::Handler, "handler"), (Shape::Http02, "http-0.2")] {
            let refused = check(&wasm(shape), None, &spec).unwrap_err();
            let named = format!("for the shape {word}, not 2");
            assert!(matches!(&refused, Error::Invalid(texts) if texts[0].contains(&named)));
        }
    }

    #[test]
    fn code_that_may_call_out_is_granted_it_or_refused_by_the_name_of_the_field() {
        const CLIENT: Option<&str> = Some("wasi:http/outgoing-handler@0.2.3");
        for shape in [Shape::Handler, Shape::Command02, Shape::Command03] {
            let refused = judged(shape, CLIENT, None).unwrap_err();
            assert!(matches!(&refused, Error::NotGranted(text) if text.contains("allowHosts")));
            assert!(
                refused
                    .to_string()
                    .contains("wasi:http/outgoing-handler@0.2.3")
            );
            assert!(judged(shape, CLIENT, Some(&[])).is_ok());
            assert!(judged(shape, CLIENT, Some(&["a.example"])).is_ok());
            assert!(judged(shape, None, None).is_ok());
        }
        for shape in [Shape::Http02, Shape::Http03] {
            assert!(judged(shape, CLIENT, None).is_ok());
        }
    }
}
