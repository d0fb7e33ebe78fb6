//! What a component may import beside WASI proper: its configuration and the log.

mod bindings {
    wit_bindgen::generate!({
        inline: r#"
            package probe:reach;

            world reach {
                import wasi:config/store@0.2.0-rc.1;
                import wasi:logging/logging@0.1.0-draft;
            }

            package wasi:config@0.2.0-rc.1 {
                interface store {
                    variant error {
                        upstream(string),
                        io(string),
                    }
                    get: func(key: string) -> result<option<string>, error>;
                    get-all: func() -> result<list<tuple<string, string>>, error>;
                }
            }

            package wasi:logging@0.1.0-draft {
                interface logging {
                    enum level {
                        trace,
                        debug,
                        info,
                        warn,
                        error,
                        critical,
                    }
                    log: func(level: level, context: string, message: string);
                }
            }
        "#,
        generate_all,
    });
}

use bindings::wasi::config::store;
use bindings::wasi::logging::logging::{Level, log};

/// Tries what a probe asks for, if it is one of these.
pub fn answer(probe: &str) -> Option<String> {
    match probe {
        "config" => Some(config()),
        "secret" => Some(value("SECRET_CONFIG") + "\n"),
        "logging" => {
            log(Level::Warn, "wheel", "it turns");
            Some(String::new())
        }
        _ => None,
    }
}

/// One value of the configuration; empty if it has none.
pub fn value(key: &str) -> String {
    store::get(key).ok().flatten().unwrap_or_default()
}

fn config() -> String {
    let all = store::get_all().unwrap_or_default();
    format!(
        "{:?} {:?} {}\n",
        store::get("colour").ok().flatten(),
        store::get("none").ok().flatten(),
        all.len()
    )
}
