//! Names every import of a file that nobody provides, and says where only the version differs.
//!
//! **Invariant:** the linkers are the only source of what is provided: no list is kept beside them. A linker
//! says only which import it misses *first*, so each import is tried alone, in the smallest file that has it.

use wasmtime::component::Component;
use wasmtime::{Engine, Module, UnknownImportError};

use super::Refused;
use super::host::{Linkers, PREVIEWS};
use super::shape::{Import, ImportKind, Item, list};

/// Versions in which the interfaces of WASI were published: where a name is missing in one version, the
/// others are tried.
const VERSIONS: [&str; 5] = ["0.2.0", "0.3.0", "0.1.0", "0.2.0-rc.1", "0.1.0-draft"];
/// What wasmtime says of an item that a linker does not have, as opposed to one of another type.
const MISSING: &str = "implementation is missing";
/// Imports tried, at most: a file can name millions.
const TRIED_MAX: usize = 10_000;
/// Imports named in the refusal, at most.
const NAMED_MAX: usize = 100;
/// Imports for which another version is looked for, at most.
const NEAR_MATCHES_MAX: usize = 5;

/// Fails with every import that nobody provides.
///
/// # Errors
/// [`Refused::MissingImports`].
pub(super) fn check(engine: &Engine, linkers: &Linkers, imports: &[Import]) -> Result<(), Refused> {
    let missing: Vec<_> = imports
        .iter()
        .take(TRIED_MAX)
        .filter(|import| !is_provided(engine, linkers, import))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|import| describe(import)).collect();
    let mut message = format!(
        "nobody provides these imports: {}.",
        list(names.iter().cloned())
    );
    for import in missing.iter().take(NEAR_MATCHES_MAX) {
        if let Some(near) = near_match(engine, linkers, import) {
            message.push_str(&format!(" Provided is `{near}`: rebuild for that version."));
        }
    }
    message.push_str(
        " A function may import interfaces of WASI 0.2 and 0.3 (a component) or functions of WASI preview 1 (a \
         core module).",
    );
    let mut imports = names;
    imports.truncate(NAMED_MAX);
    Err(Refused::MissingImports { message, imports })
}

fn describe(import: &Import) -> String {
    match import.kind {
        ImportKind::Other(what) => format!("{} ({what})", import.display_name()),
        ImportKind::Function | ImportKind::Interface | ImportKind::TypeAlias => {
            import.display_name()
        }
    }
}

fn is_provided(engine: &Engine, linkers: &Linkers, import: &Import) -> bool {
    match (import.kind, &import.module) {
        (ImportKind::TypeAlias, _) => true,
        (ImportKind::Other(_), _) => false,
        (ImportKind::Function | ImportKind::Interface, Some(module)) => {
            provides_function(engine, linkers, module, &import.name)
        }
        (ImportKind::Function | ImportKind::Interface, None) => {
            provides_interface(engine, linkers, &import.name, &import.items)
        }
    }
}

/// The same interface in another version, or the same function of another preview, if that is provided.
fn near_match(engine: &Engine, linkers: &Linkers, import: &Import) -> Option<String> {
    match &import.module {
        Some(module) if module.starts_with("wasi") => {
            let others = PREVIEWS.iter().filter(|preview| *preview != module);
            others
                .filter(|preview| provides_function(engine, linkers, preview, &import.name))
                .map(|preview| format!("{preview}.{}", import.name))
                .next()
        }
        Some(_) => None,
        None => {
            let (interface, _) = import.name.split_once('@')?;
            VERSIONS
                .iter()
                .map(|version| format!("{interface}@{version}"))
                .find(|name| provides_interface(engine, linkers, name, &import.items))
        }
    }
}

/// Whether the linker has an interface of this name, in a compatible version, with any of `items`: an
/// interface may list the types of others, so one that is found is enough. One that only names types needs
/// no provider.
fn provides_interface(engine: &Engine, linkers: &Linkers, name: &str, items: &[Item]) -> bool {
    items.is_empty()
        || items
            .iter()
            .any(|item| provides_item(engine, linkers, name, item))
}

fn provides_item(engine: &Engine, linkers: &Linkers, interface: &str, item: &Item) -> bool {
    let Some(probe) = component_importing(interface, item) else {
        return false;
    };
    let Ok(probe) = Component::from_binary(engine, &probe) else {
        return false;
    };
    match linkers.component.instantiate_pre(&probe) {
        Ok(_) => true,
        // The probe's function has a type of its own; only that there is none says that it is missing.
        Err(error) => !error.root_cause().to_string().contains(MISSING),
    }
}

/// Whether the linker has a function of this name; its type is not asked for.
fn provides_function(engine: &Engine, linkers: &Linkers, module: &str, name: &str) -> bool {
    let Some(probe) = module_importing(module, name) else {
        return false;
    };
    let Ok(probe) = Module::from_binary(engine, &probe) else {
        return false;
    };
    match linkers.module.instantiate_pre(&probe) {
        Ok(_) => true,
        Err(error) => !error.is::<UnknownImportError>(),
    }
}

/// `(component (import "INTERFACE" (instance (export "ITEM" (func)))))`, or with a resource type.
fn component_importing(interface: &str, item: &Item) -> Option<Vec<u8>> {
    // One type, of an instance.
    let mut types = vec![1, 0x42];
    match item {
        Item::Function(name) => {
            // Two declarations: the type of a function without parameters and results, and the export.
            types.extend([2, 1, 0x40, 0, 1, 0, 4, 0]);
            push_text(&mut types, name)?;
            types.extend([1, 0]);
        }
        Item::Resource(name) => {
            types.extend([1, 4, 0]);
            push_text(&mut types, name)?;
            types.extend([3, 1]);
        }
    }
    let mut import = vec![1, 0];
    push_text(&mut import, interface)?;
    import.extend([5, 0]);
    let mut file = b"\0asm\x0d\0\x01\0".to_vec();
    push_section(&mut file, 7, &types)?;
    push_section(&mut file, 10, &import)?;
    Some(file)
}

/// `(module (import "MODULE" "NAME" (func)))`.
fn module_importing(module: &str, name: &str) -> Option<Vec<u8>> {
    let mut import = vec![1];
    push_text(&mut import, module)?;
    push_text(&mut import, name)?;
    import.extend([0, 0]);
    let mut file = b"\0asm\x01\0\0\0".to_vec();
    push_section(&mut file, 1, &[1, 0x60, 0, 0])?;
    push_section(&mut file, 2, &import)?;
    Some(file)
}

fn push_section(file: &mut Vec<u8>, id: u8, body: &[u8]) -> Option<()> {
    file.push(id);
    push_length(file, body.len())?;
    file.extend(body);
    Some(())
}

fn push_text(file: &mut Vec<u8>, text: &str) -> Option<()> {
    push_length(file, text.len())?;
    file.extend(text.as_bytes());
    Some(())
}

/// A length as unsigned LEB128.
fn push_length(file: &mut Vec<u8>, length: usize) -> Option<()> {
    let mut rest = u32::try_from(length).ok()?;
    loop {
        let [low, ..] = (rest & 0x7f).to_le_bytes();
        rest >>= 7;
        if rest == 0 {
            file.push(low);
            return Some(());
        }
        file.push(low | 0x80);
    }
}
