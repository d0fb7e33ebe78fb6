//! Secrets over the API: they come in, functions are given them, and nothing shows them again.

use serde_json::{Value, json};

use crate::support::binary::{Ran, Server, pelton};
use crate::support::guests;
use crate::support::world::{Answer, Builder, World};

const KEY: &str = "0101010101010101010101010101010101010101010101010101010101010101";
const OTHER: &str = "0202020202020202020202020202020202020202020202020202020202020202";

/// Prints its environment, a variable a line.
const PRINTS_ENV: &str = r#"(module
    (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "environ_get" (func $get (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 2)
    (func (export "_start") (local $at i32) (local $end i32)
        (drop (call $sizes (i32.const 0) (i32.const 4)))
        (drop (call $get (i32.const 1024) (i32.const 4096)))
        (local.set $end (i32.add (i32.const 4096) (i32.load (i32.const 4))))
        (local.set $at (i32.const 4096))
        (loop $next
            (if (i32.eqz (i32.load8_u (local.get $at))) (then (i32.store8 (local.get $at) (i32.const 10))))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $at) (local.get $end))))
        (i32.store (i32.const 8) (i32.const 4096))
        (i32.store (i32.const 12) (i32.sub (local.get $end) (i32.const 4096)))
        (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 16)))))"#;

pub(crate) fn prints_env() -> Vec<u8> {
    wat::parse_str(PRINTS_ENV).unwrap()
}

fn with_key() -> Builder {
    World::new().setup(|setup| setup.registry.secrets.key = Some(KEY.parse().unwrap()))
}

async fn set(world: &World, name: &str, value: &str) -> Answer {
    let json = [("content-type", "application/json")];
    let body = json!({ "value": value }).to_string();
    world
        .ask("PUT", &format!("/v1/secrets/{name}"), &json, body)
        .await
}

fn names(list: &Value) -> Vec<&str> {
    let items = list.as_array().unwrap();
    items
        .iter()
        .map(|item| item["name"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn a_secret_is_set_listed_and_deleted_and_its_value_is_never_shown() {
    let world = with_key().await;
    let first = set(&world, "api-key", "hunter2").await;
    assert_eq!(first.header("content-type"), "application/json");
    let shown = first.expect(201);
    let fields: Vec<_> = shown.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["createdAt", "name", "updatedAt"]);
    set(&world, "api-key", "hunter3").await.expect(200);
    set(&world, "Another", "x").await.expect(201);
    let list = world.get("/v1/secrets").await;
    assert!(!String::from_utf8_lossy(&list.body).contains("hunter"));
    assert_eq!(names(&list.expect(200)), ["Another", "api-key"]);

    // There is no way to read one.
    world
        .get("/v1/secrets/api-key")
        .await
        .refused(405, "METHOD_NOT_ALLOWED");
    world.delete("/v1/secrets/api-key").await.expect(204);
    world
        .delete("/v1/secrets/api-key")
        .await
        .refused(404, "SECRET_NOT_FOUND");
    world
        .delete("/v1/secrets/a%20b")
        .await
        .refused(404, "SECRET_NOT_FOUND");
    assert_eq!(
        names(&world.get("/v1/secrets").await.expect(200)),
        ["Another"]
    );
}

#[tokio::test]
async fn what_is_no_secret_is_refused_without_being_repeated() {
    let world = with_key().await;
    let put = async |name: &str, headers: &[(&str, &str)], body: &str| {
        let path = format!("/v1/secrets/{name}");
        world.ask("PUT", &path, headers, body.to_owned()).await
    };
    let json = [("content-type", "application/json")];
    for body in [
        "hunter2",
        r#""hunter2""#,
        r#"{"value":["hunter2"]}"#,
        r#"{"value":"hunter2","x":1}"#,
        r#"{"value":""}"#,
    ] {
        let answer = put("api-key", &json, body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(
            !String::from_utf8_lossy(&answer.body).contains("hunter2"),
            "{body}"
        );
    }
    put("api-key", &[("content-type", "text/plain")], "hunter2")
        .await
        .refused(415, "UNSUPPORTED_MEDIA_TYPE");
    let name = put("1a", &json, r#"{"value":"hunter2"}"#)
        .await
        .refused(400, "VALIDATION_ERROR");
    assert!(
        name.contains("a secret's name starts with a letter"),
        "{name}"
    );
    assert_eq!(names(&world.get("/v1/secrets").await.expect(200)), [""; 0]);
}

#[tokio::test]
async fn a_function_is_given_its_secrets_in_its_environment() {
    let world = with_key().await;
    set(&world, "db", "postgres://u:w@db/1").await.expect(201);
    set(&world, "stripe", "sk_live_1").await.expect(201);
    let spec = json!({
        "env": {"PLAIN": "p"},
        "allowHosts": ["api.stripe.com"],
        "secrets": {
            "DB_URL": {"secret": "db", "as": "env"},
            "STRIPE": {"secret": "stripe", "as": "placeholder", "hosts": ["api.stripe.com"]},
            "IN_CONFIG": {"secret": "db", "as": "config"},
        },
    });
    let shown = world
        .upload_with("env", &spec, &prints_env())
        .await
        .expect(201);
    assert_eq!(
        shown["secrets"]["STRIPE"]["hosts"],
        json!(["https://api.stripe.com"])
    );
    assert_eq!(
        shown["secrets"]["DB_URL"],
        json!({"secret": "db", "as": "env"})
    );

    let output = async || {
        let answer = world.invoke("env", json!("")).await.expect(200);
        answer["output"].as_str().unwrap().to_owned()
    };
    let first = output().await;
    let line = |text: &str, name: &str| {
        let start = format!("{name}=");
        text.lines()
            .find_map(|line| line.strip_prefix(&start))
            .map(str::to_owned)
    };
    assert_eq!(
        line(&first, "DB_URL").as_deref(),
        Some("postgres://u:w@db/1")
    );
    assert_eq!(line(&first, "PLAIN").as_deref(), Some("p"));
    assert_eq!(line(&first, "IN_CONFIG"), None);
    // The guest never sees the secret behind a placeholder, and each attempt has another.
    let placeholder = line(&first, "STRIPE").unwrap();
    assert!(placeholder.starts_with("pelton-secret-"), "{placeholder}");
    assert!(!first.contains("sk_live_1"));

    // A new value is given from the next attempt on, without a new version.
    set(&world, "db", "postgres://elsewhere").await.expect(200);
    let second = output().await;
    assert_eq!(
        line(&second, "DB_URL").as_deref(),
        Some("postgres://elsewhere")
    );
    assert_ne!(line(&second, "STRIPE").unwrap(), placeholder);
    let function = world.get("/v1/functions/env").await.expect(200);
    assert_eq!(function["version"], 1);
    assert!(!function.to_string().contains("postgres"));
}

#[tokio::test]
async fn a_spec_names_secrets_that_exist() {
    let world = with_key().await;
    set(&world, "known", "v").await.expect(201);
    let spec = |names: &[&str]| {
        let uses: serde_json::Map<_, _> = names
            .iter()
            .map(|name| (name.to_uppercase(), json!({"secret": name, "as": "env"})))
            .collect();
        json!({ "secrets": uses })
    };
    let refused = world
        .upload_with("f", &spec(&["known", "b", "a"]), &prints_env())
        .await;
    let message = refused.refused(422, "UNKNOWN_SECRET");
    assert!(
        message.contains("there are no secrets named a, b:"),
        "{message}"
    );
    assert!(message.contains("pelton secrets set"), "{message}");
    world
        .get("/v1/functions/f")
        .await
        .refused(404, "FUNCTION_NOT_FOUND");
    world
        .upload_with("f", &spec(&["known"]), &prints_env())
        .await
        .expect(201);
    world
        .patch("/v1/functions/f", spec(&["a"]))
        .await
        .refused(422, "UNKNOWN_SECRET");
    assert_eq!(world.get("/v1/functions/f").await.expect(200)["version"], 1);

    // One that is used stays; where only an older version uses it, that version cannot come back.
    let used = world
        .delete("/v1/secrets/known")
        .await
        .refused(409, "SECRET_IN_USE");
    assert!(used.contains("used by f:"), "{used}");
    world
        .patch("/v1/functions/f", json!({"secrets": {"KNOWN": null}}))
        .await
        .expect(200);
    world.delete("/v1/secrets/known").await.expect(204);
    world
        .post("/v1/functions/f:rollback", json!({"version": 1}))
        .await
        .refused(422, "UNKNOWN_SECRET");
}

#[tokio::test]
async fn an_attempt_whose_secret_is_gone_fails_for_good_and_can_be_redriven() {
    let world = with_key().await;
    set(&world, "known", "v").await.expect(201);
    let spec = json!({"secrets": {"KNOWN": {"secret": "known", "as": "env"}}});
    world
        .upload_with("f", &spec, &prints_env())
        .await
        .expect(201);
    let id = world.enqueue("f", json!("")).await;
    world
        .patch("/v1/functions/f", json!({"secrets": null}))
        .await
        .expect(200);
    world.delete("/v1/secrets/known").await.expect(204);
    assert_eq!(world.drain("f").await, "error");
    let execution = world.execution(&id).await;
    assert_eq!(execution["error"]["code"], "SECRET_UNAVAILABLE");
    assert!(
        execution["error"]["message"]
            .as_str()
            .unwrap()
            .contains("known does not exist")
    );
    set(&world, "known", "again").await.expect(201);
    world
        .post(
            &format!("/v1/executions/{id}:redrive"),
            json!({"version": 1}),
        )
        .await
        .expect(200);
    assert_eq!(world.drain("f").await, "success");
    let output = world.execution(&id).await["output"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(output.contains("KNOWN=again"), "{output}");
}

#[tokio::test]
async fn without_a_key_there_are_no_secrets_and_it_is_said_how_to_get_one() {
    let world = World::new().await;
    let message = set(&world, "a", "v")
        .await
        .refused(422, "SECRETS_KEY_MISSING");
    assert!(message.contains("PELTON_SECRETS_KEY"), "{message}");
    let spec = json!({"secrets": {"A": {"secret": "a", "as": "env"}}});
    world
        .upload_with("f", &spec, &prints_env())
        .await
        .refused(422, "SECRETS_KEY_MISSING");
    assert_eq!(world.get("/v1/secrets").await.expect(200), json!([]));
}

#[tokio::test]
async fn a_service_behind_a_url_is_given_no_secrets() {
    let world = with_key()
        .pool("there", "http://127.0.0.1:9/")
        .echo("echo")
        .await;
    for name in ["there", "echo"] {
        let patch = json!({"secrets": {"A": {"secret": "a", "as": "env"}}, "allowHosts": []});
        let path = format!("/v1/functions/{name}");
        let message = world
            .patch(&path, patch)
            .await
            .refused(400, "VALIDATION_ERROR");
        assert!(message.contains("secrets: only wasm"), "{message}");
        assert!(message.contains("allowHosts: only wasm"), "{message}");
    }
}

#[test]
fn the_command_line_sets_secrets_and_shows_only_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (key, other) = (file("key", KEY), file("other", OTHER));
    let data = folder.path().join("data");
    let server = Server::start(&data, &["--secrets-key-file", &key]);
    let value = file("value", "hunter2\n");
    let set = server
        .run(&["secrets", "set", "api-key", &format!("@{value}")])
        .code(0);
    assert_eq!(set.stdout, "set api-key\n");
    let list = server.run(&["secrets", "ls"]).code(0);
    assert!(
        list.stdout.contains("api-key") && !list.stdout.contains("hunter2"),
        "{}",
        list.stdout
    );
    let typed = server
        .run(&["secrets", "set", "api-key", "hunter2"])
        .code(2);
    assert!(typed.stderr.contains("name a file"), "{}", typed.stderr);

    server.deploy(
        "env",
        &guests::built("roman-numeral").component,
        &["secrets.K={\"secret\": \"api-key\", \"as\": \"env\"}"],
    );
    let used = server.run(&["secrets", "rm", "api-key"]).code(3);
    assert!(used.stderr.contains("used by env"), "{}", used.stderr);
    drop(server);

    // Nothing in the folder has the value, and another key is found out before anything is served.
    assert!(!anything_has(&data, b"hunter2"));
    let wrong = pelton()
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--management-listen",
            "127.0.0.1:0",
            "--secrets-key-file",
            &other,
        ])
        .arg("--data-dir")
        .arg(&data)
        .output()
        .unwrap();
    let wrong = Ran::of(wrong).code(1);
    assert!(
        wrong.stderr.contains("the key for secrets is not the one"),
        "{}",
        wrong.stderr
    );

    // Beside the old one it takes over, for good.
    let both = ["--secrets-key-file", &other, "--secrets-old-key-file", &key];
    drop(Server::start(&data, &both));
    let server = Server::start(&data, &["--secrets-key-file", &other]);
    assert_eq!(server.run(&["secrets", "ls"]).code(0).stdout, list.stdout);
    drop(server);
    assert!(!anything_has(&data, b"hunter2"));

    // Without one it serves, and what needs no secret works.
    let server = Server::start(&data, &[]);
    tells_nobody_which_secret_it_lacks(&server);
    server.run(&["functions", "rm", "env"]).code(0);
    server.run(&["secrets", "rm", "api-key"]).code(0);
    drop(server);
    let server = Server::start(&data, &["--secrets-key-file", &other]);
    server
        .run(&["secrets", "set", "api-key", &format!("@{value}")])
        .code(0);
}

/// Whoever asks a function that needs a secret is told neither which nor how the server is set up.
fn tells_nobody_which_secret_it_lacks(server: &Server) {
    let answer = server.answer("/fn/env");
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(answer.contains("\"SECRET_UNAVAILABLE\""), "{answer}");
    for inside in ["api-key", "PELTON_SECRETS_KEY", "--secrets-key-file"] {
        assert!(!answer.contains(inside), "{answer}");
    }
    let id = answer.split_once("x-execution-id: ").unwrap().1;
    let id = id.lines().next().unwrap();
    let execution = server.get(&format!("/v1/executions/{id}"));
    assert!(
        execution.contains("the secret api-key cannot be read"),
        "{execution}"
    );
}

fn anything_has(folder: &std::path::Path, text: &[u8]) -> bool {
    let mut files = vec![folder.to_owned()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(path).unwrap();
            files.extend(entries.map(|entry| entry.unwrap().path()));
        } else if std::fs::read(path)
            .unwrap()
            .windows(text.len())
            .any(|part| part == text)
        {
            return true;
        }
    }
    false
}
