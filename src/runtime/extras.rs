//! Imports beside those of WASI proper: configuration and logging, in each version that toolchains know.
//!
//! They are linked function by function, because all versions of one have the same functions and differ in name only.
//!
//! **Invariant:** both are always granted: what can be read is the spec's own, what is written goes to the
//! attempt's log under its limit.

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Lower};

use super::host::Ctx;

/// The names that the store of configuration goes by.
const CONFIG: [&str; 3] = [
    "wasi:config/store@0.2.0-rc.1",
    "wasi:config/store@0.2.0-draft",
    "wasi:config/runtime@0.2.0-draft",
];
/// The names that the log goes by.
const LOGGING: [&str; 2] = ["wasi:logging/logging@0.1.0-draft", "wasi:logging/logging"];

/// Why a value cannot be read; it always can.
#[derive(ComponentType, Lower)]
#[component(variant)]
#[expect(
    dead_code,
    reason = "the interface has these, and nothing here goes wrong"
)]
enum ConfigError {
    #[component(name = "upstream")]
    Upstream(String),
    #[component(name = "io")]
    Io(String),
}

/// How much a message matters.
#[derive(Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "lifting makes them")]
enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
    #[component(name = "critical")]
    Critical,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// Links both.
///
/// # Errors
/// Two definitions of one import: a mistake of ours.
pub(super) fn link(linker: &mut Linker<Ctx>) -> wasmtime::Result<()> {
    for name in CONFIG {
        let mut interface = linker.instance(name)?;
        interface.func_wrap(
            "get",
            |store: StoreContextMut<'_, Ctx>, (key,): (String,)| {
                let value = store.data().surroundings().config_value(&key);
                Ok((Ok::<_, ConfigError>(value.map(str::to_owned)),))
            },
        )?;
        interface.func_wrap("get-all", |store: StoreContextMut<'_, Ctx>, (): ()| {
            let values = store.data().surroundings().config();
            let owned = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
            let values: Vec<_> = values.map(owned).collect();
            Ok((Ok::<_, ConfigError>(values),))
        })?;
    }
    for name in LOGGING {
        let mut interface = linker.instance(name)?;
        interface.func_wrap(
            "log",
            |store: StoreContextMut<'_, Ctx>,
             (level, context, message): (Level, String, String)| {
                let surroundings = store.data().surroundings();
                surroundings.log(level.as_str(), &context, &message);
                Ok(())
            },
        )?;
    }
    Ok(())
}
