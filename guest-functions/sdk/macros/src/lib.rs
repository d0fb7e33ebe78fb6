//! The attribute of `pelton-guest`: exports one function as the handler of its component.
//!
//! **Invariant:** knows no types. It finds the function's name; what may stand in its signature is decided
//! by the traits of `pelton-guest`, whose messages the author then sees. So it needs no parser of Rust.

use proc_macro::{Group, Ident, Span, TokenStream, TokenTree};

/// Stands for the author's function in [`EXPORT`].
const PLACEHOLDER: &str = "__handler";

/// What follows the author's function: a check that works on any target, and the export itself on wasm.
const EXPORT: &str = r#"
    const _: () = ::pelton_guest::__private::check(&__handler);

    #[cfg(target_family = "wasm")]
    #[allow(unsafe_code, reason = "the export's glue is made by wit-bindgen")]
    const _: () = {
        struct Exported;

        impl ::pelton_guest::__private::Guest for Exported {
            fn handle(
                execution: ::pelton_guest::__private::wit::Execution,
                input: ::pelton_guest::__private::wit::Payload,
            ) -> ::pelton_guest::__private::wit::Outcome {
                ::pelton_guest::__private::serve(__handler, execution, input)
            }
        }

        ::pelton_guest::__private::export!(
            Exported with_types_in ::pelton_guest::__private
        );
    };
"#;

/// Makes a function the handler of its component: see the documentation of `pelton_guest`.
///
/// One per crate. The function stays an ordinary one, to be called by unit tests.
#[proc_macro_attribute]
pub fn handler(arguments: TokenStream, item: TokenStream) -> TokenStream {
    if let Some(first) = arguments.into_iter().next() {
        return complaint("`handler` takes no arguments", first.span());
    }
    let Some(name) = function_name(item.clone()) else {
        return complaint("`handler` belongs on a function", Span::call_site());
    };
    let Ok(export) = EXPORT.parse::<TokenStream>() else {
        return complaint("the export's template is broken", Span::call_site());
    };
    let mut output = item;
    output.extend(with_name(export, &name));
    output
}

/// The identifier after the first `fn` that stands outside of brackets.
fn function_name(item: TokenStream) -> Option<Ident> {
    let mut tokens = item.into_iter();
    while let Some(token) = tokens.next() {
        if let TokenTree::Ident(word) = &token
            && word.to_string() == "fn"
        {
            return match tokens.next() {
                Some(TokenTree::Ident(name)) => Some(name),
                Some(TokenTree::Group(_) | TokenTree::Punct(_) | TokenTree::Literal(_)) | None => {
                    None
                }
            };
        }
    }
    None
}

/// The template with the function's name, its span kept so that complaints point at the function.
fn with_name(template: TokenStream, name: &Ident) -> TokenStream {
    template
        .into_iter()
        .map(|token| match token {
            TokenTree::Ident(word) if word.to_string() == PLACEHOLDER => {
                TokenTree::Ident(name.clone())
            }
            TokenTree::Group(group) => {
                let mut filled = Group::new(group.delimiter(), with_name(group.stream(), name));
                filled.set_span(group.span());
                TokenTree::Group(filled)
            }
            other @ (TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_)) => other,
        })
        .collect()
}

/// A compile error at `span`.
fn complaint(message: &str, span: Span) -> TokenStream {
    let Ok(error) = format!("::core::compile_error!{{ {message:?} }}").parse::<TokenStream>()
    else {
        return TokenStream::new();
    };
    error
        .into_iter()
        .map(|mut token| {
            token.set_span(span);
            token
        })
        .collect()
}
