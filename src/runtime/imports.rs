//! Names every import of a file that nobody provides, each with what is provided and comes nearest, or with the word that it
//! is provided with another type.
//!
//! **Invariant:** the linkers are the only source of what is provided. The names that [`near`] lists are what is
//! tried, never what is said: a suggestion is one that the linkers have.

mod near;
mod provided;
mod types;

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use wasmtime::Engine;

use self::provided::Provided;
use super::Refused;
use super::host::Linkers;
use super::shape::{Import, ImportKind, Item, Layer, shorten};

/// Imports and functions of them that are tried, and what may be meant by them, at most: a file can name millions.
const ASKS_MAX: u32 = 10_000;
/// Imports named in the refusal's list, at most.
const NAMED_MAX: usize = 100;
/// Imports named in its sentence, at most.
const SAID_MAX: usize = 20;

/// A file whose imports are to be checked.
#[derive(Clone, Copy)]
pub(super) struct File<'a> {
    /// All of it.
    pub(super) wasm: &'a [u8],
    /// What it is.
    pub(super) layer: Layer,
    /// What it imports, in its order.
    pub(super) imports: &'a [Import],
}

/// An engine and what guests of it may import.
pub(super) type Host<'a> = (&'a Engine, &'a Linkers);

/// Fails with every import that nobody provides. What is nearest to one is looked for in what `all` provides, the engine
/// that has most.
///
/// # Errors
/// [`Refused::MissingImports`].
pub(super) fn check<'a>(
    file: File<'_>,
    own: Host<'a>,
    all: impl FnOnce() -> Option<Host<'a>>,
) -> Result<(), Refused> {
    let asks_left = Cell::new(ASKS_MAX);
    let provided_by = |(engine, linkers)| Provided {
        engine,
        linkers,
        asks_left: &asks_left,
    };
    let provided = provided_by(own);
    let (missing, is_cut) = all_missing(provided, file);
    if missing.is_empty() {
        return Ok(());
    }
    let provided = all().map_or(provided, provided_by);
    let named = missing.iter().take(NAMED_MAX);
    let mut named: Vec<_> = named.map(|missing| missing.describe(provided)).collect();
    let said = bounded(&named, missing.len(), SAID_MAX).join("; ");
    let is_near = |name: &String| name.contains(NEAREST) || name.ends_with(OTHER_TYPE);
    let advice = match named.iter().any(is_near) {
        true => " Rebuild for what is provided.",
        false => "",
    };
    named = bounded(&named, missing.len(), NAMED_MAX);
    if is_cut {
        named.push("and maybe more that are provided with another type".to_owned());
    }
    Err(Refused::MissingImports {
        message: format!(
            "nobody provides these imports: {said}.{advice} A function may import interfaces of WASI 0.2 and 0.3 (a \
             component) or functions of WASI preview 1 (a core module)."
        ),
        imports: named,
    })
}

/// Everything that nobody provides, in the order of the file, and whether there may be more.
fn all_missing<'a>(provided: Provided<'_>, file: File<'a>) -> (Vec<Missing<'a>>, bool) {
    let imports = file.imports.iter();
    let mut missing: Vec<_> = imports.map(|import| missing(provided, import)).collect();
    let mut is_cut = false;
    match file.layer {
        Layer::Module => {
            for number in types::of_module(provided, file.wasm) {
                let import = file.imports.get(number).zip(missing.get_mut(number));
                if let Some((import, missing)) = import
                    && missing.is_empty()
                {
                    missing.push(Missing::Type(import, None));
                }
            }
        }
        Layer::Component => {
            let known: Known<'_> = missing.iter().flatten().map(Missing::known).collect();
            let found = types::of_component(provided, file.wasm, &known);
            is_cut = found.is_cut;
            let numbers = file.imports.iter().enumerate();
            let numbers: HashMap<_, _> = numbers
                .map(|(number, import)| (&*import.name, number))
                .collect();
            for misfit in found.misfits {
                let number = numbers.get(&*misfit.interface).copied();
                let import =
                    number.and_then(|number| file.imports.get(number).zip(missing.get_mut(number)));
                if let Some((import, missing)) = import {
                    missing.push(match misfit.is_provided {
                        true => Missing::Type(import, Some(misfit.function)),
                        false => Missing::Function(import, misfit.function.into()),
                    });
                }
            }
        }
    }
    (missing.into_iter().flatten().collect(), is_cut)
}

/// What is known to be missing: functions of interfaces, and interfaces where there is no function.
type Known<'a> = HashSet<(&'a str, Option<&'a str>)>;

/// Behind an import of the wrong type.
const OTHER_TYPE: &str = " (provided with another type)";
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
    Function(&'a Import, Cow<'a, str>),
    /// A function, of an interface if it is one of a component, is provided with another type.
    Type(&'a Import, Option<String>),
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
        .map(|function| Missing::Function(import, function.into()))
        .collect()
}

impl Missing<'_> {
    /// Its interface, and which function of it, unless it is all of it.
    fn known(&self) -> (&str, Option<&str>) {
        match self {
            Self::Import(import) => (&import.name, None),
            Self::Function(import, function) => (&import.name, Some(function)),
            Self::Type(import, function) => (&import.name, function.as_deref()),
        }
    }

    fn describe(&self, provided: Provided<'_>) -> String {
        let (name, nearest) = match self {
            Self::Type(import, None) => return format!("{}{OTHER_TYPE}", import.display_name()),
            Self::Type(import, Some(function)) => {
                let (import, function) = (import.display_name(), shorten(function));
                return format!("{import}#{function}{OTHER_TYPE}");
            }
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
