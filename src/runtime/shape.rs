//! Reads what a file of wasm is: its layer, what it imports and exports, and from that the shape it runs as.
//!
//! **Invariant:** compiles nothing, and refuses with what was found and what was expected; the lists in its
//! messages are bounded, however large the file.

use wasmparser::component_types::{ComponentAnyTypeId, ComponentEntityType};
use wasmparser::{
    ComponentExternalKind, ComponentTypeRef, ExternalKind, Parser, Payload, TypeRef, Validator,
    WasmFeatures,
};

use super::Refused;
use super::engine::Flavor;
use crate::model::Shape;

/// The interface of the typed world, without its version.
const HANDLER: &str = "pelton:function/handler";
/// Names shown of one list at most.
const NAMES_SHOWN_MAX: usize = 20;
/// Characters shown of one name at most.
const NAME_CHARS_MAX: usize = 120;

/// Items noted of one interface at most.
const ITEMS_MAX: usize = 16;

/// Interfaces that make a component runnable, in the order in which they are looked for: some files export
/// several. A version is matched by its beginning.
const INTERFACES: [(&str, &str, Shape); 5] = [
    ("wasi:http/handler", "0.3.", Shape::Http03),
    ("wasi:http/incoming-handler", "0.2.", Shape::Http02),
    (HANDLER, "0.1.", Shape::Handler),
    ("wasi:cli/run", "0.3.", Shape::Command03),
    ("wasi:cli/run", "0.2.", Shape::Command02),
];

/// What of wasm only the async engine runs.
const ASYNC: WasmFeatures = WasmFeatures::CM_ASYNC
    .union(WasmFeatures::CM_ASYNC_STACKFUL)
    .union(WasmFeatures::CM_MORE_ASYNC_BUILTINS)
    .union(WasmFeatures::CM_ERROR_CONTEXT)
    .union(WasmFeatures::CM_THREADING);

/// The interfaces by which a component calls out, up to their versions.
const OUTGOING: [&str; 2] = ["wasi:http/outgoing-handler@", "wasi:http/client@"];

/// What a file turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    /// A core module.
    Module,
    /// A component.
    Component,
}

/// Something a file asks the host for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Import {
    /// The core module's two-part name has its first part here.
    pub module: Option<String>,
    /// The name of an interface, or the second part of a core module's import.
    pub name: String,
    /// What is asked for.
    pub kind: ImportKind,
    /// Some of what an interface is asked for; known after [`Outline::validate`].
    pub items: Vec<Item>,
}

/// Something that a component wants of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// A function that is not a method.
    Function(String),
    /// A resource type, the interface's own or another's under its name.
    Resource(String),
}

/// What is imported, as far as it decides who might provide it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ImportKind {
    /// A core function.
    Function,
    /// An interface of a component.
    Interface,
    /// A type that another import of the component refers to: needs no provider.
    TypeAlias,
    /// Anything else, in words: no host provides these.
    Other(&'static str),
}

impl Import {
    /// The name as an author knows it: `module.name`, or the interface.
    pub(super) fn display_name(&self) -> String {
        match &self.module {
            Some(module) => format!("{}.{}", shorten(module), shorten(&self.name)),
            None => shorten(&self.name),
        }
    }
}

/// The outside of a file: enough to say what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outline {
    /// Module or component.
    pub layer: Layer,
    /// In the order of the file.
    pub imports: Vec<Import>,
    exports: Vec<(String, ExportKind)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ExportKind {
    Function,
    Memory,
    Interface,
    Other,
}

impl Outline {
    /// Reads the outside of a file.
    ///
    /// # Errors
    /// [`Refused::NotWasm`] if it is not wasm in binary form or ends too early.
    pub(super) fn read(wasm: &[u8]) -> Result<Self, Refused> {
        let mut outline = Self {
            layer: layer(wasm)?,
            imports: Vec::new(),
            exports: Vec::new(),
        };
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload.map_err(|error| invalid(&error))?;
            if let Payload::ModuleSection { .. } | Payload::ComponentSection { .. } = payload {
                depth += 1;
            } else if let Payload::End(_) = payload {
                depth = depth.saturating_sub(1);
            } else if depth == 0 {
                outline.note(payload).map_err(|error| invalid(&error))?;
            }
        }
        Ok(outline)
    }

    /// Takes the names out of one section at the top of the file.
    fn note(&mut self, payload: Payload<'_>) -> wasmparser::Result<()> {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the other sections say nothing of the outside, today's and tomorrow's"
        )]
        match payload {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import?;
                    self.imports.push(Import {
                        module: Some(import.module.to_owned()),
                        name: import.name.to_owned(),
                        kind: core_kind(import.ty),
                        items: Vec::new(),
                    });
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export?;
                    let kind = match export.kind {
                        ExternalKind::Func | ExternalKind::FuncExact => ExportKind::Function,
                        ExternalKind::Memory => ExportKind::Memory,
                        ExternalKind::Table | ExternalKind::Global | ExternalKind::Tag => {
                            ExportKind::Other
                        }
                    };
                    self.exports.push((export.name.to_owned(), kind));
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section {
                    let import = import?;
                    self.imports.push(Import {
                        module: None,
                        name: import.name.name.to_owned(),
                        kind: component_kind(import.ty),
                        items: Vec::new(),
                    });
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section {
                    let export = export?;
                    let kind = match export.kind {
                        ComponentExternalKind::Instance => ExportKind::Interface,
                        ComponentExternalKind::Func => ExportKind::Function,
                        ComponentExternalKind::Module
                        | ComponentExternalKind::Value
                        | ComponentExternalKind::Type
                        | ComponentExternalKind::Component => ExportKind::Other,
                    };
                    self.exports.push((export.name.name.to_owned(), kind));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Checks the whole file, with every feature that wasm has, notes what is asked of each interface, and
    /// says which engine runs it.
    ///
    /// # Errors
    /// [`Refused::NotWasm`], with the validator's reason.
    pub(super) fn validate(&mut self, wasm: &[u8]) -> Result<Flavor, Refused> {
        let validate = |features| Validator::new_with_features(features).validate_all(wasm);
        let without_async = match self.names_wasi_03() {
            true => None,
            false => validate(WasmFeatures::all().difference(ASYNC)).ok(),
        };
        let (types, flavor) = match without_async {
            Some(types) => (types, Flavor::Plain),
            None => {
                let types = validate(WasmFeatures::all()).map_err(|error| invalid(&error))?;
                (types, Flavor::Async)
            }
        };
        let types = types.as_ref();
        for import in &mut self.imports {
            let Some(ComponentEntityType::Instance(interface)) = types
                .component_item_for_import(&import.name)
                .map(|item| item.ty)
            else {
                continue;
            };
            let items = types[interface].exports.iter();
            import.items = items
                .filter_map(|(name, item)| interface_item(name, item.ty))
                .take(ITEMS_MAX)
                .collect();
        }
        Ok(flavor)
    }

    /// Whether any interface of WASI 0.3 is imported or exported.
    fn names_wasi_03(&self) -> bool {
        let imports = self.imports.iter().map(|import| &import.name);
        let exports = self.exports.iter().map(|(name, _)| name);
        self.layer == Layer::Component
            && imports.chain(exports).any(|name| {
                let version = name
                    .strip_prefix("wasi:")
                    .and_then(|rest| rest.split_once('@'));
                version.is_some_and(|(_, version)| version.starts_with("0.3."))
            })
    }

    /// The interface by which the file calls out over HTTP, if it asks for anything of one; known after
    /// [`Outline::validate`].
    pub(super) fn outgoing(&self) -> Option<String> {
        let calls_out = |import: &&Import| {
            let is_outgoing = OUTGOING.iter().any(|name| import.name.starts_with(name));
            is_outgoing && !import.items.is_empty()
        };
        self.imports
            .iter()
            .find(calls_out)
            .map(Import::display_name)
    }

    /// How the file is run.
    ///
    /// # Errors
    /// [`Refused::Unsupported`], with what was found and what was expected.
    pub(super) fn shape(&self) -> Result<Shape, Refused> {
        match self.layer {
            Layer::Module => self.core_shape(),
            Layer::Component => self.component_shape(),
        }
    }

    fn component_shape(&self) -> Result<Shape, Refused> {
        if let Some(import) = self.imports.iter().find(|import| is_http_handler(import)) {
            return Err(Refused::Unsupported(format!(
                "this component is a middleware: it imports `{}`, so it needs another component behind it. \
                 Compose the two into one file first, then upload that.",
                import.display_name()
            )));
        }
        let found = INTERFACES.iter().find(|(interface, version, _)| {
            self.exports.iter().any(|(name, kind)| {
                *kind == ExportKind::Interface && is_interface(name, interface, version)
            })
        });
        found
            .map(|(_, _, shape)| *shape)
            .ok_or_else(|| self.no_shape("component"))
    }

    fn core_shape(&self) -> Result<Shape, Refused> {
        let exports = |name: &str, kind| self.exports.iter().any(|(n, k)| n == name && *k == kind);
        if !exports("_start", ExportKind::Function) {
            return Err(self.no_shape("core module"));
        }
        if !exports("memory", ExportKind::Memory) {
            return Err(Refused::Unsupported(format!(
                "this core module exports `_start` but no memory named `memory`, without which it can read \
                 no input and write no output. Found exports: {}. {EXPECTED}",
                self.export_names()
            )));
        }
        Ok(Shape::CoreCommand)
    }

    fn no_shape(&self, what: &str) -> Refused {
        let hint = if self.exports.iter().any(|(name, _)| name == "_initialize") {
            " (`_initialize` makes it a library, not a program)"
        } else {
            ""
        };
        Refused::Unsupported(format!(
            "this {what} exports nothing that can be run. Found exports: {}{hint}. {EXPECTED}",
            self.export_names()
        ))
    }

    fn export_names(&self) -> String {
        list(self.exports.iter().map(|(name, _)| shorten(name)))
    }
}

/// What an author can do about it.
const EXPECTED: &str = "Expected one of: a component that exports `wasi:http/handler@0.3.x` or \
     `wasi:http/incoming-handler@0.2.x` (an HTTP function), `pelton:function/handler@0.1.x` (the typed handler), \
     or `wasi:cli/run@0.3.x` or `@0.2.x` (a command); or a core module that exports `_start` and `memory` (a \
     command of WASI preview 1 or of the `wasi_unstable` before it).";

/// The layer, from the first eight bytes.
fn layer(wasm: &[u8]) -> Result<Layer, Refused> {
    const MAGIC: &[u8] = b"\0asm";
    const HEADER_LEN: usize = 8;
    let not_wasm = |text: String| Err(Refused::NotWasm(text));
    if wasm.is_empty() {
        return not_wasm("the file is empty; expected wasm in its binary form".to_owned());
    }
    if !wasm.starts_with(MAGIC) {
        if MAGIC.starts_with(wasm) {
            return not_wasm("the file ends within the first bytes of wasm".to_owned());
        }
        let text = wasm
            .iter()
            .copied()
            .skip_while(u8::is_ascii_whitespace)
            .take(16)
            .collect::<Vec<_>>();
        if text.starts_with(b"(module") || text.starts_with(b"(component") {
            return not_wasm(
                "this is wasm in its text form; translate it first, for example with `wasm-tools parse`"
                    .to_owned(),
            );
        }
        if wasm.starts_with(b"\x7fELF") {
            return not_wasm(
                "this is machine code (ELF), compiled already or for another machine; upload the wasm itself"
                    .to_owned(),
            );
        }
        return not_wasm(
            "this is not wasm: the file does not begin with the bytes `\\0asm`".to_owned(),
        );
    }
    if wasm.len() < HEADER_LEN {
        return not_wasm("the file ends within the first eight bytes of wasm".to_owned());
    }
    if Parser::is_component(wasm) {
        Ok(Layer::Component)
    } else if Parser::is_core_wasm(wasm) {
        Ok(Layer::Module)
    } else {
        not_wasm(
            "the file begins like wasm, but is of a version that is neither a module (1) nor a component"
                .to_owned(),
        )
    }
}

/// The parser's own reason, for the uploader.
fn invalid(error: &wasmparser::BinaryReaderError) -> Refused {
    Refused::NotWasm(format!(
        "the file is not valid wasm: {} (at byte {})",
        error.message(),
        error.offset()
    ))
}

fn interface_item(name: &str, ty: ComponentEntityType) -> Option<Item> {
    let is_method = name.starts_with('[');
    match ty {
        ComponentEntityType::Func(_) if !is_method => Some(Item::Function(name.to_owned())),
        ComponentEntityType::Type {
            created: ComponentAnyTypeId::Resource(_),
            ..
        } => Some(Item::Resource(name.to_owned())),
        ComponentEntityType::Func(_)
        | ComponentEntityType::Type { .. }
        | ComponentEntityType::Module(_)
        | ComponentEntityType::Value(_)
        | ComponentEntityType::Instance(_)
        | ComponentEntityType::Component(_) => None,
    }
}

fn is_http_handler(import: &Import) -> bool {
    ["wasi:http/handler@", "wasi:http/incoming-handler@"]
        .iter()
        .any(|interface| import.name.starts_with(interface))
}

/// Whether `name` is `interface@version…`.
fn is_interface(name: &str, interface: &str, version: &str) -> bool {
    name.strip_prefix(interface)
        .and_then(|rest| rest.strip_prefix('@'))
        .is_some_and(|found| found.starts_with(version))
}

fn core_kind(ty: TypeRef) -> ImportKind {
    match ty {
        TypeRef::Func(_) | TypeRef::FuncExact(_) => ImportKind::Function,
        TypeRef::Memory(memory) if memory.shared => ImportKind::Other("a shared memory"),
        TypeRef::Memory(_) => ImportKind::Other("a memory"),
        TypeRef::Table(_) => ImportKind::Other("a table"),
        TypeRef::Global(_) => ImportKind::Other("a global"),
        TypeRef::Tag(_) => ImportKind::Other("an exception tag"),
    }
}

fn component_kind(ty: ComponentTypeRef) -> ImportKind {
    match ty {
        ComponentTypeRef::Instance(_) => ImportKind::Interface,
        ComponentTypeRef::Type(wasmparser::TypeBounds::Eq(_)) => ImportKind::TypeAlias,
        ComponentTypeRef::Type(wasmparser::TypeBounds::SubResource) => {
            ImportKind::Other("a resource type")
        }
        ComponentTypeRef::Func(_) => ImportKind::Other("a function outside any interface"),
        ComponentTypeRef::Module(_) => ImportKind::Other("a core module"),
        ComponentTypeRef::Component(_) => ImportKind::Other("a component"),
        ComponentTypeRef::Value(_) => ImportKind::Other("a value"),
    }
}

/// Names as a list for people, cut at [`NAMES_SHOWN_MAX`].
pub(super) fn list(names: impl ExactSizeIterator<Item = String>) -> String {
    let count = names.len();
    let shown: Vec<_> = names
        .take(NAMES_SHOWN_MAX)
        .map(|name| format!("`{name}`"))
        .collect();
    match count {
        0 => "none".to_owned(),
        _ if count > shown.len() => {
            format!("{} and {} more", shown.join(", "), count - shown.len())
        }
        _ => shown.join(", "),
    }
}

pub(super) fn shorten(name: &str) -> String {
    match name.char_indices().nth(NAME_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}
