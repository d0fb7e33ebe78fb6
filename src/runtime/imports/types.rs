//! Which functions a file imports with another type than they are provided with. A linker tells only the first thing that it
//! does not like about a file: so it is asked again and again, about files that import fewer of the functions.
//!
//! **Invariant:** a function is named only if the linker refuses its import alone, and takes the file's other interfaces
//! without any function.

use std::collections::HashMap;

use wasmparser::{
    BinaryReader, ComponentAlias, ComponentExternalKind, ComponentImport, ComponentOuterAliasKind,
    ComponentType, ComponentTypeRef, InstanceTypeDeclaration, Parser, Payload, TypeRef,
};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, Linker, ResourceType};
use wasmtime::{Module, UnknownImportError};

use super::Known;
use super::provided::{MISSING, Provided, push_length, push_section, push_text};
use crate::runtime::host::Ctx;

/// Files that a linker is asked about, at most: a file can import thousands of functions with wrong types.
const TRIES_MAX: u32 = 1000;
/// Larger type sections of core modules are not looked into: no program has one.
const CORE_TYPES_BYTES_MAX: usize = 16_384;
/// Imports of a core module that are looked at, at most: each is a module of its own, with all types of the file.
const CORE_IMPORTS_MAX: usize = 1000;

/// Sections of a component and of a core module, by the numbers that they have in a file.
const ALIASES: u8 = 6;
const TYPES: u8 = 7;
const IMPORTS: u8 = 10;
const CORE_TYPES_OF_COMPONENT: u8 = 3;
const CORE_TYPES: u8 = 1;
const CORE_IMPORTS: u8 = 2;

/// How an instance type begins.
const INSTANCE_TYPE: u8 = 0x42;

/// A function that a linker does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Misfit {
    /// Of which interface.
    pub(super) interface: String,
    /// Its name there, or that of a method.
    pub(super) function: String,
    /// Whether it is there with another type, or not at all.
    pub(super) is_provided: bool,
}

/// What was found of a file.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In the order of the file.
    pub(super) misfits: Vec<Misfit>,
    /// Whether there may be more.
    pub(super) is_cut: bool,
}

/// The functions of a component that do not fit. What is missing by its name is known already.
///
/// Only what stands before the first code is looked at, which is where toolchains write all imports, and types that two
/// imports share are not: the rest is left for the linker of the whole file to find.
pub(super) fn of_component(provided: Provided<'_>, wasm: &[u8], known: &Known<'_>) -> Found {
    let Some(outside) = Outside::read(wasm) else {
        return Found::default();
    };
    let wanted = outside.functions.iter().enumerate();
    let wanted = wanted.filter(|(_, function)| {
        !known.contains(&(function.interface, None))
            && !known.contains(&(function.interface, Some(function.name)))
    });
    let wanted: Vec<usize> = wanted.map(|(number, _)| number).collect();
    let mut search = Search {
        provided,
        outside: &outside,
        linker: provided.linkers.component.clone(),
        tries_left: TRIES_MAX,
        found: Found::default(),
    };
    let fits = search.stub(known);
    // Where it is not a function that does not fit, leaving functions out tells nothing.
    if fits.is_some() && search.takes(&[]).is_ok() {
        search.among(&wanted);
    }
    search.found
}

/// Which imports of a core module are functions that are provided with another type, by their numbers.
pub(super) fn of_module(provided: Provided<'_>, wasm: &[u8]) -> Vec<usize> {
    let Some((types, imports)) = core_imports(wasm) else {
        return Vec::new();
    };
    if types.len() > CORE_TYPES_BYTES_MAX {
        return Vec::new();
    }
    let looked_at = imports.iter().enumerate().take(CORE_IMPORTS_MAX);
    let misfits = looked_at.filter(|(_, import)| {
        let probe = import.as_ref().and_then(|import| import.alone(types));
        let probe = probe.and_then(|probe| Module::from_binary(provided.engine, &probe).ok());
        let linker = &provided.linkers.module;
        probe.is_some_and(|probe| match linker.instantiate_pre(&probe) {
            Ok(_) => false,
            Err(error) => !error.is::<UnknownImportError>(),
        })
    });
    misfits.map(|(number, _)| number).collect()
}

/// A function that a core module imports.
struct CoreImport<'a> {
    module: &'a str,
    name: &'a str,
    /// The number of its type.
    ty: u32,
}

impl CoreImport<'_> {
    /// A module with this import alone.
    fn alone(&self, types: &[u8]) -> Option<Vec<u8>> {
        let mut import = vec![1];
        push_text(&mut import, self.module)?;
        push_text(&mut import, self.name)?;
        import.push(0);
        push_length(&mut import, usize::try_from(self.ty).ok()?)?;
        let mut file = b"\0asm\x01\0\0\0".to_vec();
        push_section(&mut file, CORE_TYPES, types)?;
        push_section(&mut file, CORE_IMPORTS, &import)?;
        Some(file)
    }
}

/// The type section of a core module, and its imports: none for what is no function.
fn core_imports(wasm: &[u8]) -> Option<(&[u8], Vec<Option<CoreImport<'_>>>)> {
    let mut types: &[u8] = &[0];
    let mut imports = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the other sections say nothing of imports, today's and tomorrow's"
        )]
        match payload.ok()? {
            Payload::TypeSection(section) => types = wasm.get(section.range())?,
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.ok()?;
                    imports.push(match import.ty {
                        TypeRef::Func(ty) => Some(CoreImport {
                            module: import.module,
                            name: import.name,
                            ty,
                        }),
                        TypeRef::FuncExact(_)
                        | TypeRef::Table(_)
                        | TypeRef::Memory(_)
                        | TypeRef::Global(_)
                        | TypeRef::Tag(_) => None,
                    });
                }
                break;
            }
            _ => {}
        }
    }
    Some((types, imports))
}

/// The types and imports of a component, as far as they stand before anything that is made of them.
struct Outside<'a> {
    header: &'a [u8],
    sections: Vec<(u8, Section<'a>)>,
    /// The functions that can be left out, by their numbers.
    functions: Vec<Function<'a>>,
}

enum Section<'a> {
    /// As it is.
    Whole(&'a [u8]),
    /// One by one.
    Entries(Vec<Entry<'a>>),
}

enum Entry<'a> {
    Whole(&'a [u8]),
    /// An instance type, by what it declares.
    Instance(Vec<Declaration<'a>>),
}

struct Declaration<'a> {
    bytes: &'a [u8],
    /// The number of the function that it is.
    function: Option<usize>,
}

/// A function of an imported interface.
struct Function<'a> {
    interface: &'a str,
    name: &'a str,
}

/// What is known while a component is read.
#[derive(Default)]
struct Reading<'a> {
    /// How many types there are so far.
    types: u32,
    /// The name of each function, and the number of its instance type.
    functions: Vec<(&'a str, u32)>,
    /// Who imports an instance type; none where several do.
    importers: HashMap<u32, Option<&'a str>>,
}

impl<'a> Outside<'a> {
    fn read(wasm: &'a [u8]) -> Option<Self> {
        let mut reading = Reading::default();
        let mut sections = Vec::new();
        for payload in Parser::new(0).parse_all(wasm) {
            #[expect(
                clippy::wildcard_enum_match_arm,
                reason = "code begins with whatever else there is, today's and tomorrow's"
            )]
            let section = match payload.ok()? {
                Payload::Version { .. } | Payload::CustomSection(_) => continue,
                Payload::CoreTypeSection(section) => {
                    let body = wasm.get(section.range())?;
                    (CORE_TYPES_OF_COMPONENT, Section::Whole(body))
                }
                Payload::ComponentTypeSection(section) => {
                    let body = wasm.get(section.range())?;
                    (TYPES, reading.types(body)?)
                }
                Payload::ComponentAliasSection(section) => {
                    let body = wasm.get(section.range())?;
                    (ALIASES, reading.aliases(body)?)
                }
                Payload::ComponentImportSection(section) => {
                    let body = wasm.get(section.range())?;
                    (IMPORTS, reading.imports(body)?)
                }
                _ => break,
            };
            sections.push(section);
        }
        // Functions of shared types, and of those that nobody imports, stay where they are.
        let mut functions = Vec::new();
        let mut numbers = HashMap::new();
        for (number, (name, ty)) in reading.functions.iter().enumerate() {
            if let Some(Some(interface)) = reading.importers.get(ty) {
                numbers.insert(number, functions.len());
                functions.push(Function { interface, name });
            }
        }
        for (_, section) in &mut sections {
            let Section::Entries(entries) = section else {
                continue;
            };
            for entry in entries {
                let Entry::Instance(declarations) = entry else {
                    continue;
                };
                for declaration in declarations {
                    let number = declaration.function.take();
                    declaration.function = number.and_then(|number| numbers.get(&number).copied());
                }
            }
        }
        Some(Self {
            header: wasm.get(..8)?,
            sections,
            functions,
        })
    }

    /// The same with these functions alone, whose numbers are in order.
    fn with(&self, kept: &[usize]) -> Option<Vec<u8>> {
        let is_kept = |declaration: &&Declaration<'_>| {
            let function = declaration.function;
            function.is_none_or(|number| kept.binary_search(&number).is_ok())
        };
        let mut file = self.header.to_vec();
        for (id, section) in &self.sections {
            let entries = match section {
                Section::Whole(body) => {
                    push_section(&mut file, *id, body)?;
                    continue;
                }
                Section::Entries(entries) => entries,
            };
            let mut body = Vec::new();
            push_length(&mut body, entries.len())?;
            for entry in entries {
                match entry {
                    Entry::Whole(bytes) => body.extend(*bytes),
                    Entry::Instance(declarations) => {
                        body.push(INSTANCE_TYPE);
                        push_length(&mut body, declarations.iter().filter(is_kept).count())?;
                        for declaration in declarations.iter().filter(is_kept) {
                            body.extend(declaration.bytes);
                        }
                    }
                }
            }
            push_section(&mut file, *id, &body)?;
        }
        Some(file)
    }
}

impl<'a> Reading<'a> {
    fn types(&mut self, body: &'a [u8]) -> Option<Section<'a>> {
        let mut entries = Vec::new();
        for_each(body, |ty: ComponentType<'a>, bytes| {
            let is_instance = matches!(ty, ComponentType::Instance(_));
            entries.push(match is_instance {
                true => Entry::Instance(self.declarations(bytes)?),
                false => Entry::Whole(bytes),
            });
            self.types = self.types.checked_add(1)?;
            Some(())
        })?;
        Some(Section::Entries(entries))
    }

    /// What an instance type declares.
    fn declarations(&mut self, bytes: &'a [u8]) -> Option<Vec<Declaration<'a>>> {
        let list = bytes.strip_prefix(&[INSTANCE_TYPE])?;
        let mut declarations = Vec::new();
        for_each(list, |declared: InstanceTypeDeclaration<'a>, bytes| {
            let function = match declared {
                InstanceTypeDeclaration::Export {
                    name,
                    ty: ComponentTypeRef::Func(_),
                } => {
                    self.functions.push((name.name, self.types));
                    Some(self.functions.len() - 1)
                }
                InstanceTypeDeclaration::Export { .. }
                | InstanceTypeDeclaration::CoreType(_)
                | InstanceTypeDeclaration::Type(_)
                | InstanceTypeDeclaration::Alias(_) => None,
            };
            declarations.push(Declaration { bytes, function });
            Some(())
        })?;
        Some(declarations)
    }

    /// Without the functions: only code makes use of their numbers.
    fn aliases(&mut self, body: &'a [u8]) -> Option<Section<'a>> {
        let mut entries = Vec::new();
        for_each(body, |alias: ComponentAlias<'a>, bytes| {
            let is_type = match alias {
                ComponentAlias::InstanceExport {
                    kind: ComponentExternalKind::Func,
                    ..
                } => return Some(()),
                ComponentAlias::InstanceExport { kind, .. } => kind == ComponentExternalKind::Type,
                ComponentAlias::Outer { kind, .. } => kind == ComponentOuterAliasKind::Type,
                ComponentAlias::CoreInstanceExport { .. } => return None,
            };
            self.types = self.types.checked_add(is_type.into())?;
            entries.push(Entry::Whole(bytes));
            Some(())
        })?;
        Some(Section::Entries(entries))
    }

    /// Those of interfaces and types: nobody provides the others, and only code makes use of their numbers.
    fn imports(&mut self, body: &'a [u8]) -> Option<Section<'a>> {
        let mut entries = Vec::new();
        for_each(body, |import: ComponentImport<'a>, bytes| {
            match import.ty {
                ComponentTypeRef::Instance(ty) => {
                    let importer = self.importers.entry(ty);
                    let importer = importer.and_modify(|importer| *importer = None);
                    importer.or_insert(Some(import.name.name));
                }
                ComponentTypeRef::Type(_) => self.types = self.types.checked_add(1)?,
                ComponentTypeRef::Func(_)
                | ComponentTypeRef::Module(_)
                | ComponentTypeRef::Component(_)
                | ComponentTypeRef::Value(_) => return Some(()),
            }
            entries.push(Entry::Whole(bytes));
            Some(())
        })?;
        Some(Section::Entries(entries))
    }
}

/// Reads a list, giving each entry with its bytes.
fn for_each<'a, T: wasmparser::FromReader<'a>>(
    list: &'a [u8],
    mut take: impl FnMut(T, &'a [u8]) -> Option<()>,
) -> Option<()> {
    let mut reader = BinaryReader::new(list, 0);
    for _ in 0..reader.read_var_u32().ok()? {
        let start = reader.current_position();
        let entry = reader.read().ok()?;
        take(entry, list.get(start..reader.current_position())?)?;
    }
    Some(())
}

/// What a linker has against a file.
enum Against {
    /// Something is not there.
    Missing,
    /// Something is of another type.
    Type,
    /// It was not asked.
    Unknown,
}

/// The search for the functions that do not fit: half of them, and half of that.
struct Search<'a> {
    provided: Provided<'a>,
    outside: &'a Outside<'a>,
    /// With stand-ins for what is known to be missing.
    linker: Linker<Ctx>,
    tries_left: u32,
    found: Found,
}

impl Search<'_> {
    /// Has the linker provide the resources of interfaces that are missing: functions of others may name them.
    fn stub(&mut self, known: &Known<'_>) -> Option<()> {
        let engine = self.provided.engine;
        let bare = Component::from_binary(engine, &self.outside.with(&[])?).ok()?;
        let mut seen: Vec<ResourceType> = Vec::new();
        for (name, item) in bare.component_type().imports(engine) {
            let ComponentItem::ComponentInstance(interface) = item.ty else {
                continue;
            };
            for (resource, item) in interface.exports(engine) {
                let ComponentItem::Resource(ty) = item.ty else {
                    continue;
                };
                // One that was there before is that of another interface, by another name.
                if seen.contains(&ty) {
                    continue;
                }
                seen.push(ty);
                if known.contains(&(name, None)) {
                    let mut stubs = self.linker.instance(name).ok()?;
                    let stub = ResourceType::host::<()>();
                    stubs.resource(resource, stub, |_, _| Ok(())).ok()?;
                }
            }
        }
        Some(())
    }

    /// Whether the linker takes the file with these functions alone.
    fn takes(&mut self, kept: &[usize]) -> Result<(), Against> {
        let Some(left) = self.tries_left.checked_sub(1) else {
            self.found.is_cut = true;
            return Err(Against::Unknown);
        };
        self.tries_left = left;
        let file = self.outside.with(kept).ok_or(Against::Unknown)?;
        let file = Component::from_binary(self.provided.engine, &file);
        let file = file.map_err(|_| Against::Unknown)?;
        match self.linker.instantiate_pre(&file) {
            Ok(_) => Ok(()),
            Err(error) if error.root_cause().to_string().contains(MISSING) => Err(Against::Missing),
            Err(_) => Err(Against::Type),
        }
    }

    fn among(&mut self, functions: &[usize]) {
        let is_provided = match self.takes(functions) {
            Ok(()) | Err(Against::Unknown) => return,
            Err(Against::Missing) => false,
            Err(Against::Type) => true,
        };
        if let [number] = functions {
            if let Some(Function { interface, name }) = self.outside.functions.get(*number) {
                self.found.misfits.push(Misfit {
                    interface: (*interface).to_owned(),
                    function: (*name).to_owned(),
                    is_provided,
                });
            }
            return;
        }
        let (left, right) = functions.split_at(functions.len() / 2);
        self.among(left);
        self.among(right);
    }
}
