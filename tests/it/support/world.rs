//! A plane with the real runtime and the embedded store, whose API is called in process: built in a sentence,
//! asked in sentences.
//!
//! ```ignore
//! let world = World::new().function("echo", guests::wasm("echo")).spec(json!({"maxRetries": 1})).await;
//! let id = world.enqueue("echo", json!("hi")).await;
//! assert_eq!(world.drain("echo").await, "success");
//! ```

use std::fs;
use std::future::{Future, IntoFuture};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::LazyLock;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use pelton::api;
use pelton::runtime::Runtime;
use pelton::testing::{Harness, Home, Movement, Setup, open_runtime};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::api::Routes;

/// How long anything that a test waits for may take. Nothing comes near it unless it hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// The runtime of all tests of this process, so that each guest is compiled once.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| open_runtime(&code_folder()).unwrap());

/// A folder for this process, beside those of others that run; what dead ones left is removed.
fn code_folder() -> PathBuf {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("code");
    for left in fs::read_dir(&all).into_iter().flatten().flatten() {
        let owner = Path::new("/proc").join(left.file_name());
        if !owner.exists() {
            let _ = fs::remove_dir_all(left.path());
        }
    }
    all.join(std::process::id().to_string())
}

/// A plane and its API.
pub(crate) struct World {
    pub(crate) plane: Harness,
    router: Routes,
    movement: Movement,
    _folder: tempfile::TempDir,
}

/// A world to be: `.await` makes it.
pub(crate) struct Builder {
    folder: tempfile::TempDir,
    setup: Setup,
    options: api::Options,
    functions: Vec<Planned>,
}

struct Planned {
    name: String,
    code: Code,
    spec: Value,
}

enum Code {
    Wasm(Bytes),
    Url(String),
    Echo,
}

impl World {
    /// A world in which nothing moves unless it is drained, with the real limits of the API, in a folder of
    /// its own.
    #[expect(
        clippy::new_ret_no_self,
        reason = "reads as a sentence: World::new().background().await"
    )]
    pub(crate) fn new() -> Builder {
        let folder = tempfile::tempdir().unwrap();
        Builder {
            setup: Setup {
                home: Home::Folder(folder.path().to_owned()),
                runtime: Some(RUNTIME.clone()),
                ..Setup::default()
            },
            folder,
            options: api::Options::default(),
            functions: Vec::new(),
        }
    }
}

impl Builder {
    /// Work moves by itself.
    pub(crate) fn background(mut self) -> Self {
        self.setup.movement = Movement::Background;
        self
    }

    /// Another setup of the plane.
    pub(crate) fn setup(mut self, change: impl FnOnce(&mut Setup)) -> Self {
        change(&mut self.setup);
        self
    }

    /// Other limits of the API.
    pub(crate) fn options(mut self, change: impl FnOnce(&mut api::Options)) -> Self {
        change(&mut self.options);
        self
    }

    /// A function of wasm.
    pub(crate) fn function(self, name: &str, wasm: impl Into<Bytes>) -> Self {
        self.planned(name, Code::Wasm(wasm.into()))
    }

    /// A function behind a URL.
    pub(crate) fn pool(self, name: &str, url: &str) -> Self {
        self.planned(name, Code::Url(url.to_owned()))
    }

    /// nanofaas's LOCAL function.
    pub(crate) fn echo(self, name: &str) -> Self {
        self.planned(name, Code::Echo)
    }

    /// The spec of the function named last.
    pub(crate) fn spec(mut self, spec: Value) -> Self {
        self.functions.last_mut().unwrap().spec = spec;
        self
    }

    fn planned(mut self, name: &str, code: Code) -> Self {
        self.functions.push(Planned {
            name: name.to_owned(),
            code,
            spec: json!({}),
        });
        self
    }

    async fn build(self) -> World {
        let movement = self.setup.movement;
        let plane = Harness::with(self.setup).await.unwrap();
        let state = api::State::new(
            plane.registry.clone(),
            plane.scheduler.clone(),
            plane.metrics.clone(),
            plane.store.clone(),
            self.options,
        );
        let world = World {
            plane,
            router: Routes::new(api::router(state)),
            movement,
            _folder: self.folder,
        };
        for planned in self.functions {
            world.plant(planned).await;
        }
        world
    }
}

impl IntoFuture for Builder {
    type Output = World;
    type IntoFuture = Pin<Box<dyn Future<Output = World>>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.build())
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// The body; null where there is none, or where it is no JSON.
    pub(crate) json: Value,
    pub(crate) body: Bytes,
}

impl Answer {
    /// A header's text; empty where there is none.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    /// The body, if the status is this one.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{text}");
        self.json
    }

    /// The message and the details, if this is an error of this status and code, in the one error shape.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> String {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{text}");
        assert_eq!(self.header("content-type"), "application/json", "{text}");
        assert_eq!(self.json["error"], code, "{text}");
        let message = self.json["message"].as_str().unwrap();
        assert!(!message.is_empty(), "{text}");
        let details = self.json["details"].as_array().cloned().unwrap_or_default();
        let details = details.iter().map(|detail| detail.as_str().unwrap());
        std::iter::once(message)
            .chain(details)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// The id of the execution that it is about, which stands in the header too.
    #[track_caller]
    pub(crate) fn id(&self) -> String {
        let id = self.json["executionId"].as_str().unwrap();
        assert_eq!(self.header("x-execution-id"), id);
        id.to_owned()
    }
}

impl World {
    /// The answer to a request as it stands.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            json: serde_json::from_slice(&body).unwrap_or_default(),
            body,
        }
    }

    /// The response to a request, its body unread.
    pub(crate) async fn open(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    /// The answer to a request with these headers beside `Host`.
    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], Body::empty()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, &[], Body::empty()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.post_with(path, &[], body).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        let json = [("content-type", "application/json")];
        self.ask("PATCH", path, &json, body.to_string()).await
    }

    pub(crate) async fn post_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> Answer {
        let json = ("content-type", "application/json");
        let headers: Vec<_> = [json].into_iter().chain(headers.iter().copied()).collect();
        self.ask("POST", path, &headers, body.to_string()).await
    }

    /// Uploads wasm, or what a test takes for it.
    pub(crate) async fn upload(&self, name: &str, wasm: impl Into<Body>) -> Answer {
        let headers = [("content-type", "application/wasm")];
        self.ask("PUT", &format!("/v1/functions/{name}"), &headers, wasm)
            .await
    }

    /// Uploads a spec and wasm together.
    pub(crate) async fn upload_with(&self, name: &str, spec: &Value, wasm: &[u8]) -> Answer {
        let mut body = Vec::new();
        body.extend_from_slice(b"--cut\r\ncontent-disposition: form-data; name=\"spec\"\r\n\r\n");
        body.extend_from_slice(spec.to_string().as_bytes());
        body.extend_from_slice(
            b"\r\n--cut\r\ncontent-disposition: form-data; name=\"wasm\"\r\n\r\n",
        );
        body.extend_from_slice(wasm);
        body.extend_from_slice(b"\r\n--cut--\r\n");
        let headers = [("content-type", "multipart/form-data; boundary=cut")];
        self.ask("PUT", &format!("/v1/functions/{name}"), &headers, body)
            .await
    }

    /// Removes an uploaded file from the folder of code, as a purge or an accident would.
    pub(crate) fn forget_code(&self, digest: &str) {
        let digest = digest.strip_prefix("sha256:").unwrap();
        let mut gone = 0;
        for file in fs::read_dir(code_folder()).unwrap() {
            let path = file.unwrap().path();
            if path
                .file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(digest)
            {
                fs::remove_file(path).unwrap();
                gone += 1;
            }
        }
        assert!(gone > 0, "there is no code {digest}");
    }

    async fn plant(&self, planned: Planned) {
        let Planned { name, code, spec } = planned;
        let with = |field: &str, value: &str| {
            let mut spec = spec.clone();
            spec["name"] = json!(name);
            spec[field] = json!(value);
            spec
        };
        let answer = match &code {
            Code::Wasm(wasm) => self.upload_with(&name, &spec, wasm).await,
            Code::Url(url) => self.post("/v1/functions", with("endpointUrl", url)).await,
            Code::Echo => {
                let spec = with("image", "builtin:echo");
                self.post("/v1/functions", spec).await
            }
        };
        answer.expect(201);
    }

    /// Calls a function and waits; where nothing moves by itself, drains it meanwhile.
    pub(crate) async fn invoke(&self, name: &str, input: Value) -> Answer {
        self.invoke_with(name, &[], input).await
    }

    /// The same, with headers.
    pub(crate) async fn invoke_with(
        &self,
        name: &str,
        headers: &[(&str, &str)],
        input: Value,
    ) -> Answer {
        let call = self.call(name, headers, input);
        if self.movement == Movement::Background {
            return within("an answer", call).await;
        }
        let mut call = pin!(call);
        within("an answer", async {
            loop {
                if let Some(answer) = call.as_mut().now_or_never() {
                    return answer;
                }
                self.drain_answer(name, json!({})).await;
                tokio::task::yield_now().await;
            }
        })
        .await
    }

    /// Calls a function and waits; somebody else has to move it.
    pub(crate) async fn call(&self, name: &str, headers: &[(&str, &str)], input: Value) -> Answer {
        let path = format!("/v1/functions/{name}:invoke");
        self.post_with(&path, headers, json!({ "input": input }))
            .await
    }

    /// Queues a call; its id.
    pub(crate) async fn enqueue(&self, name: &str, input: Value) -> String {
        let answer = self.enqueue_with(name, &[], input).await;
        let id = answer.id();
        answer.expect(202);
        id
    }

    /// Queues a call with headers.
    pub(crate) async fn enqueue_with(
        &self,
        name: &str,
        headers: &[(&str, &str)],
        input: Value,
    ) -> Answer {
        let path = format!("/v1/functions/{name}:enqueue");
        self.post_with(&path, headers, json!({ "input": input }))
            .await
    }

    /// The answer to a drain.
    pub(crate) async fn drain_answer(&self, name: &str, options: Value) -> Value {
        let path = format!("/v1/internal/functions/{name}:drain-once");
        self.post(&path, options).await.expect(200)
    }

    /// Drains one execution and says where it stands; `nothing` where there was none. What the drain says
    /// must be what the execution reads once it has answered.
    pub(crate) async fn drain(&self, name: &str) -> String {
        let answer = self.drain_answer(name, json!({})).await;
        let Some(status) = answer["status"].as_str() else {
            assert_eq!(answer["dispatched"], false);
            return "nothing".to_owned();
        };
        assert_eq!(
            (&answer["dispatched"], &answer["count"]),
            (&json!(true), &json!(1))
        );
        let id = answer["executionId"].as_str().unwrap();
        assert_eq!(self.execution(id).await["status"], status);
        status.to_owned()
    }

    /// An execution as it stands.
    pub(crate) async fn execution(&self, id: &str) -> Value {
        let answer = self.get(&format!("/v1/executions/{id}")).await;
        answer.expect(200)
    }

    /// Its status.
    pub(crate) async fn status(&self, id: &str) -> String {
        let execution = self.execution(id).await;
        execution["status"].as_str().unwrap().to_owned()
    }

    /// Its attempts with what they wrote.
    pub(crate) async fn attempts(&self, id: &str) -> Vec<Value> {
        let answer = self.get(&format!("/v1/executions/{id}/logs")).await;
        let logs = answer.expect(200);
        logs["attempts"].as_array().unwrap().clone()
    }

    /// The execution once it has ended.
    pub(crate) async fn ended(&self, id: &str) -> Value {
        within("an end", async {
            loop {
                let execution = self.execution(id).await;
                if !["queued", "running"].contains(&execution["status"].as_str().unwrap()) {
                    return execution;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }

    /// Waits until an execution has this status.
    pub(crate) async fn reached(&self, id: &str, status: &str) {
        within(status, async {
            while self.status(id).await != status {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// All executions of a function, newest first.
    pub(crate) async fn executions_of(&self, name: &str) -> Vec<Value> {
        let answer = self.get(&format!("/v1/executions?function={name}")).await;
        let page = answer.expect(200);
        page["items"].as_array().unwrap().clone()
    }

    /// A line of the metrics; nothing where there is none.
    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        let answer = self.get("/actuator/prometheus").await;
        let text = std::str::from_utf8(&answer.body).unwrap();
        let mut lines = text.lines();
        let line = lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }
}

/// What comes of it, unless it hangs.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, future).await;
    waited.unwrap_or_else(|_| panic!("waited in vain for: {what}"))
}
