//! Asks the linkers what they have. One says only which import it misses *first*, so each is tried alone, in the
//! smallest file that has it.
//!
//! **Invariant:** what is said to be there is there by its name; whether its type fits is not asked here.

use std::cell::Cell;

use wasmtime::component::Component;
use wasmtime::{Engine, Module, UnknownImportError};

use crate::runtime::host::Linkers;
use crate::runtime::shape::Item;

/// What wasmtime says of an item that a linker does not have, as opposed to one of another type.
pub(super) const MISSING: &str = "implementation is missing";

/// What guests of an engine may import.
#[derive(Clone, Copy)]
pub(super) struct Provided<'a> {
    pub(super) engine: &'a Engine,
    pub(super) linkers: &'a Linkers,
    /// How often they may still be asked: a file can name millions. After that everything counts as provided, for the
    /// linker of the whole file to judge.
    pub(super) asks_left: &'a Cell<u32>,
}

impl Provided<'_> {
    /// Whether what is said to be there may not be.
    pub(super) fn is_spent(self) -> bool {
        self.asks_left.get() == 0
    }

    fn spend(self) -> bool {
        let left = self.asks_left.get();
        self.asks_left.set(left.saturating_sub(1));
        left > 0
    }

    /// Whether there is an interface of this name, in a compatible version, with any of `items`: an interface may
    /// list the types of others, so one that is found is enough. One that only names types needs no provider.
    pub(super) fn has_interface(self, name: &str, items: &[Item]) -> bool {
        items.is_empty() || items.iter().any(|item| self.has_item(name, item))
    }

    /// Whether an interface of this name, in a compatible version, has this item.
    pub(super) fn has_item(self, interface: &str, item: &Item) -> bool {
        if !self.spend() {
            return true;
        }
        let Some(probe) = component_importing(interface, item) else {
            return false;
        };
        let Ok(probe) = Component::from_binary(self.engine, &probe) else {
            return false;
        };
        match self.linkers.component.instantiate_pre(&probe) {
            Ok(_) => true,
            // The probe's function has a type of its own; only that there is none says that it is missing.
            Err(error) => !error.root_cause().to_string().contains(MISSING),
        }
    }

    /// Whether core modules have a function of this name; its type is not asked for.
    pub(super) fn has_function(self, module: &str, name: &str) -> bool {
        if !self.spend() {
            return true;
        }
        let Some(probe) = module_importing(module, name) else {
            return false;
        };
        let Ok(probe) = Module::from_binary(self.engine, &probe) else {
            return false;
        };
        match self.linkers.module.instantiate_pre(&probe) {
            Ok(_) => true,
            Err(error) => !error.is::<UnknownImportError>(),
        }
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

pub(super) fn push_section(file: &mut Vec<u8>, id: u8, body: &[u8]) -> Option<()> {
    file.push(id);
    push_length(file, body.len())?;
    file.extend(body);
    Some(())
}

pub(super) fn push_text(file: &mut Vec<u8>, text: &str) -> Option<()> {
    push_length(file, text.len())?;
    file.extend(text.as_bytes());
    Some(())
}

/// A length as unsigned LEB128.
pub(super) fn push_length(file: &mut Vec<u8>, length: usize) -> Option<()> {
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
