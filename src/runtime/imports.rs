//! Names every import of a file that nobody provides, each with what is provided and comes nearest.
//!
//! **Invariant:** the linkers are the only source of what is provided. The names that [`near`] lists are what is
//! tried, never what is said: a suggestion is one that the linkers have.

mod near;
mod provided;

use std::cell::Cell;

use wasmtime::Engine;

use self::provided::Provided;
use super::Refused;
use super::host::Linkers;
use super::shape::{Import, ImportKind, Item, shorten};

/// Imports and functions of them that are tried, and what may be meant by them, at most: a file can name millions.
const ASKS_MAX: u32 = 10_000;
/// Imports named in the refusal's list, at most.
const NAMED_MAX: usize = 100;
/// Imports named in its sentence, at most.
const SAID_MAX: usize = 20;

/// Fails with every import that nobody provides.
///
/// # Errors
/// [`Refused::MissingImports`].
pub(super) fn check(engine: &Engine, linkers: &Linkers, imports: &[Import]) -> Result<(), Refused> {
    let asks_left = Cell::new(ASKS_MAX);
    let provided = Provided {
        engine,
        linkers,
        asks_left: &asks_left,
    };
    let missing: Vec<_> = imports
        .iter()
        .flat_map(|import| missing(provided, import))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let named = missing.iter().take(NAMED_MAX);
    let mut named: Vec<_> = named.map(|missing| missing.describe(provided)).collect();
    let said = bounded(&named, missing.len(), SAID_MAX).join("; ");
    let has_near = named.iter().any(|name| name.contains(NEAREST));
    let advice = match has_near {
        true => " Rebuild for what is provided.",
        false => "",
    };
    named = bounded(&named, missing.len(), NAMED_MAX);
    Err(Refused::MissingImports {
        message: format!(
            "nobody provides these imports: {said}.{advice} A function may import interfaces of WASI 0.2 and 0.3 (a \
             component) or functions of WASI preview 1 (a core module)."
        ),
        imports: named,
    })
}

/// Between an import and what comes nearest to it.
const NEAREST: &str = ", the nearest that is provided: ";

/// At most `max` of the names, and how many more there are of all.
fn bounded(names: &[String], all: usize, max: usize) -> Vec<String> {
    let mut shown: Vec<_> = names.iter().take(max).cloned().collect();
    if all > shown.len() {
        shown.push(format!("and {} more", all - shown.len()));
    }
    shown
}

/// Something that nobody provides.
enum Missing<'a> {
    /// All of an import.
    Import(&'a Import),
    /// A function of an interface that is provided otherwise.
    Function(&'a Import, &'a str),
}

/// What of an import nobody provides: all of it, or some functions of an interface.
fn missing<'a>(provided: Provided<'_>, import: &'a Import) -> Vec<Missing<'a>> {
    let is_provided = match (import.kind, &import.module) {
        (ImportKind::TypeAlias, _) => true,
        (ImportKind::Other(_), _) => false,
        (ImportKind::Function | ImportKind::Interface, Some(module)) => {
            provided.has_function(module, &import.name)
        }
        (ImportKind::Function | ImportKind::Interface, None) => {
            provided.has_interface(&import.name, &import.items)
        }
    };
    if !is_provided {
        return vec![Missing::Import(import)];
    }
    let functions = import.items.iter().filter_map(|item| match item {
        Item::Function(name) if !provided.has_item(&import.name, item) => Some(&**name),
        Item::Function(_) | Item::Resource(_) => None,
    });
    functions
        .map(|function| Missing::Function(import, function))
        .collect()
}

impl Missing<'_> {
    fn describe(&self, provided: Provided<'_>) -> String {
        let (name, nearest) = match self {
            Self::Import(import) => {
                let name = match import.kind {
                    ImportKind::Other(what) => format!("{} ({what})", import.display_name()),
                    ImportKind::Function | ImportKind::Interface | ImportKind::TypeAlias => {
                        import.display_name()
                    }
                };
                (name, near::of_import(provided, import))
            }
            Self::Function(import, function) => {
                let name = format!("{}#{}", import.display_name(), shorten(function));
                (name, near::of_function(provided, &import.name, function))
            }
        };
        match nearest.filter(|_| !provided.is_spent()) {
            Some(nearest) => format!("{name}{NEAREST}{nearest}"),
            None => name,
        }
    }
}
