//! Clients that queue work on a server that dies again and again, and the book they keep of what they were
//! promised.
//!
//! Every call carries a token of its own, which its output (or its failure) must have in it. An id goes into
//! the book when a 202 has arrived, not before.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::programs::{self, program};

/// The server went away before it answered.
#[derive(Debug)]
pub(crate) struct Gone;

/// What is asked for at once when all executions are looked at.
const LOOKS_AT_ONCE: usize = 8;

/// A function and how its executions end.
struct Kind {
    name: &'static str,
    /// Its program; none for the built-in echo.
    start: Option<&'static str>,
    spec: Value,
    status: &'static str,
    code: Option<&'static str>,
}

/// All of them: what ends well, what ends badly, and what takes several runs to its end.
fn kinds() -> Vec<Kind> {
    let kind = |name, start, spec, status, code| Kind {
        name,
        start,
        spec,
        status,
        code,
    };
    let soon = json!({"baseDelayMs": 2, "maxDelayMs": 10});
    let often = json!({"maxRetries": 100, "queueSize": 100_000, "retryBackoff": soon});
    let twice = json!({"maxRetries": 2, "queueSize": 100_000, "retryBackoff": soon});
    let once = json!({"maxRetries": 1, "queueSize": 100_000, "retryBackoff": soon});
    let few = json!({"concurrency": 2, "queueSize": 100_000, "retryBackoff": soon});
    vec![
        kind("echoes", None, once.clone(), "success", None),
        kind(
            "copies",
            Some(programs::COPIES),
            once.clone(),
            "success",
            None,
        ),
        kind("naps", Some(programs::NAPS), few, "success", None),
        kind("wavers", Some(programs::WAVERS), often, "success", None),
        kind(
            "refuses",
            Some(programs::REFUSES),
            once,
            "error",
            Some("EXIT_65"),
        ),
        kind(
            "fails",
            Some(programs::FAILS),
            twice,
            "error",
            Some("EXIT_1"),
        ),
    ]
}

/// One call.
#[derive(Debug, Clone)]
struct Call {
    function: &'static str,
    token: String,
    key: Option<String>,
    /// Known once a 202 has arrived.
    id: Option<String>,
}

#[derive(Default)]
struct Book {
    calls: Vec<Call>,
    /// Executions that were seen to have ended, as they were seen.
    ended: HashMap<String, Value>,
}

/// The clients and their book.
pub(crate) struct Load {
    http: reqwest::Client,
    kinds: Vec<Kind>,
    book: Mutex<Book>,
    /// How many were accepted so far.
    pub(crate) accepted: watch::Sender<usize>,
    /// How many were seen to have ended so far.
    pub(crate) ended: watch::Sender<usize>,
}

impl Load {
    pub(crate) fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build();
        Self {
            http: http.unwrap(),
            kinds: kinds(),
            book: Mutex::default(),
            accepted: watch::Sender::default(),
            ended: watch::Sender::default(),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap()
    }

    async fn send(&self, request: RequestBuilder) -> Result<(StatusCode, Value), Gone> {
        let answer = request.send().await.map_err(|_| Gone)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(|_| Gone)?;
        Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
    }

    async fn get(&self, url: &str, path: &str) -> Result<Value, Gone> {
        let (status, body) = self.send(self.http.get(format!("{url}{path}"))).await?;
        assert_eq!(status, 200, "{path}: {body}");
        Ok(body)
    }

    /// Makes the functions.
    pub(crate) async fn deploy(&self, url: &str) {
        for kind in &self.kinds {
            let path = format!("{url}/v1/functions/{}", kind.name);
            let mut spec = kind.spec.clone();
            if let Some(start) = kind.start {
                let wasm = self.http.put(&path).body(program(start));
                let wasm = wasm.header("content-type", "application/wasm");
                let (status, body) = self.send(wasm).await.unwrap();
                assert_eq!(status, 201, "{body}");
                let patch = with_json(self.http.patch(&path), &spec);
                let (status, body) = self.send(patch).await.unwrap();
                assert_eq!(status, 200, "{body}");
            } else {
                spec["name"] = json!(kind.name);
                spec["image"] = json!("builtin:echo");
                let create = self.http.post(format!("{url}/v1/functions"));
                let create = with_json(create, &spec);
                let (status, body) = self.send(create).await.unwrap();
                assert_eq!(status, 201, "{body}");
            }
        }
    }

    /// One client: queues, repeats itself and looks, until the server is gone.
    pub(crate) async fn client(&self, url: &str, seed: u64) {
        let mut random = StdRng::seed_from_u64(seed);
        loop {
            let done = match random.random_range(0..10) {
                0..=4 => self.enqueue_new(url, &mut random).await,
                5 => self.repeat(url, &mut random).await,
                _ => self.look(url, &mut random).await,
            };
            if done.is_err() {
                return;
            }
        }
    }

    async fn enqueue_new(&self, url: &str, random: &mut StdRng) -> Result<(), Gone> {
        let function = self.kinds[random.random_range(0..self.kinds.len())].name;
        let keyed = random.random_bool(0.4);
        let (call, index) = {
            let mut book = self.book();
            let token = format!("token-{}-of-{function}", book.calls.len());
            let call = Call {
                function,
                key: keyed.then(|| format!("key-{token}")),
                token,
                id: None,
            };
            book.calls.push(call.clone());
            (call, book.calls.len() - 1)
        };
        self.enqueue(url, &call, index).await
    }

    /// Sends a call, for the first time or again, and notes its id.
    async fn enqueue(&self, url: &str, call: &Call, index: usize) -> Result<(), Gone> {
        let (status, body) = self.post(url, call, &call.token).await?;
        assert_eq!(status, 202, "{call:?}: {body}");
        let id = body["executionId"].as_str().unwrap();
        let is_new = {
            let known = &mut self.book().calls[index].id;
            let is_new = known.is_none();
            let known = known.get_or_insert_with(|| id.to_owned());
            assert_eq!(known, id, "the key of {call:?} was forgotten");
            is_new
        };
        if is_new {
            self.accepted.send_modify(|accepted| *accepted += 1);
        }
        Ok(())
    }

    async fn post(&self, url: &str, call: &Call, input: &str) -> Result<(StatusCode, Value), Gone> {
        let path = format!("{url}/v1/functions/{}:enqueue", call.function);
        let mut request = with_json(self.http.post(path), &json!({ "input": input }));
        if let Some(key) = &call.key {
            request = request.header("idempotency-key", key);
        }
        self.send(request).await
    }

    /// Says again what was said with a key, whether it was answered then or not; or something else.
    async fn repeat(&self, url: &str, random: &mut StdRng) -> Result<(), Gone> {
        let found = {
            let book = self.book();
            let start = random.random_range(0..book.calls.len().max(1));
            let mut calls = book.calls.iter().enumerate().skip(start);
            let found = calls.find(|(_, call)| call.key.is_some());
            found.map(|(index, call)| (index, call.clone()))
        };
        let Some((index, call)) = found else {
            return Ok(());
        };
        if call.id.is_some() && random.random_bool(0.3) {
            let (status, body) = self.post(url, &call, "something else").await?;
            assert_eq!(status, 422, "{call:?}: {body}");
            assert_eq!(body["error"], "IDEMPOTENCY_KEY_REUSED");
            return Ok(());
        }
        self.enqueue(url, &call, index).await
    }

    /// Looks at an execution that was promised, most of the time one that was not seen to have ended.
    async fn look(&self, url: &str, random: &mut StdRng) -> Result<(), Gone> {
        let id = {
            let book = self.book();
            let accepted = book.calls.iter().filter_map(|call| call.id.as_ref());
            let open = accepted.clone().filter(|id| !book.ended.contains_key(*id));
            let of: Vec<_> = if random.random_bool(0.8) {
                open.collect()
            } else {
                accepted.collect()
            };
            let Some(index) = of.len().checked_sub(1) else {
                return Ok(());
            };
            of[random.random_range(0..=index)].clone()
        };
        self.see(url, &id).await.map(drop)
    }

    /// An execution as it stands. One that had ended must look as it did then.
    async fn see(&self, url: &str, id: &str) -> Result<Value, Gone> {
        let execution = self.get(url, &format!("/v1/executions/{id}")).await?;
        let mut book = self.book();
        if let Some(before) = book.ended.get(id) {
            assert_eq!(*before, execution, "it had ended");
        } else if execution["finishedAt"].is_string() {
            book.ended.insert(id.to_owned(), execution.clone());
            drop(book);
            self.ended.send_modify(|ended| *ended += 1);
        }
        Ok(execution)
    }

    /// The ids on all pages of the list, each once.
    async fn listed(&self, url: &str, filter: &str) -> Vec<String> {
        let mut ids = Vec::new();
        let mut path = format!("/v1/executions?limit=100{filter}");
        loop {
            let page = self.get(url, &path).await.unwrap();
            let items = page["items"].as_array().unwrap();
            ids.extend(
                items
                    .iter()
                    .map(|item| item["executionId"].as_str().unwrap().to_owned()),
            );
            let Some(next) = page["next"].as_str() else {
                break;
            };
            path = format!("/v1/executions?limit=100{filter}&cursor={next}");
        }
        let mut unique = ids.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), ids.len(), "an execution is listed twice");
        ids
    }

    /// Returns once nothing waits or runs.
    pub(crate) async fn settled(&self, url: &str) {
        for status in ["queued", "running", "queued"] {
            while let Some(id) = self.listed(url, &format!("&status={status}")).await.first() {
                while self.see(url, id).await.unwrap()["finishedAt"].is_null() {}
            }
        }
    }

    /// Looks at everything there is, and holds it against the book. Returns what was seen, by id.
    pub(crate) async fn audit(&self, url: &str, faults_max: u64) -> BTreeMap<String, Value> {
        let mut ids = self.listed(url, "").await;
        let mut seen = BTreeMap::new();
        while !ids.is_empty() {
            let some = ids.split_off(ids.len().saturating_sub(LOOKS_AT_ONCE));
            let looks = some.iter().map(|id| self.see(url, id));
            let looked = futures_util::future::try_join_all(looks).await.unwrap();
            seen.extend(some.into_iter().zip(looked));
        }
        let mut tokens = HashMap::new();
        for (id, execution) in &seen {
            let token = self.judge(execution, faults_max);
            let other = tokens.insert(token.clone(), id.clone());
            assert_eq!(other, None, "{token} ran twice");
        }
        for call in &self.book().calls {
            if let Some(id) = &call.id {
                assert_eq!(tokens.get(&call.token), Some(id), "{call:?} was lost");
            }
        }
        seen
    }

    /// The token of an ended execution, if it ended as its function does.
    fn judge(&self, execution: &Value, faults_max: u64) -> String {
        let function = execution["function"].as_str().unwrap();
        let kind = self.kinds.iter().find(|kind| kind.name == function);
        let kind = kind.unwrap();
        assert_eq!(execution["status"], kind.status, "{execution}");
        assert_eq!(
            execution["error"]["code"].as_str(),
            kind.code,
            "{execution}"
        );
        let said = match kind.code {
            None => execution["output"].as_str().unwrap(),
            Some(_) => execution["error"]["message"].as_str().unwrap(),
        };
        let from = said.find("token-").unwrap_or_else(|| panic!("{execution}"));
        let token = &said[from..];
        assert!(token.ends_with(&format!("-of-{function}")), "{execution}");
        let faults = execution["faults"].as_u64().unwrap();
        assert!(faults <= faults_max, "{execution}");
        let attempts_max = kind.spec["maxRetries"].as_u64().unwrap_or(3);
        let attempts = execution["attempts"].as_u64().unwrap();
        assert!((1..=attempts_max).contains(&attempts), "{execution}");
        token.to_owned()
    }

    /// Says everything that had a key once more.
    pub(crate) async fn repeat_all(&self, url: &str) {
        let keyed: Vec<_> = {
            let book = self.book();
            let calls = book.calls.iter().enumerate();
            let answered = calls.filter(|(_, call)| call.key.is_some() && call.id.is_some());
            answered
                .map(|(index, call)| (index, call.clone()))
                .collect()
        };
        for (index, call) in keyed {
            self.enqueue(url, &call, index).await.unwrap();
        }
    }
}

fn with_json(request: RequestBuilder, body: &Value) -> RequestBuilder {
    let request = request.header("content-type", "application/json");
    request.body(body.to_string())
}

/// Runs so many clients until the server is gone.
pub(crate) fn clients(load: &Arc<Load>, url: &str, count: u64, seed: u64) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for number in 0..count {
        let (load, url) = (Arc::clone(load), url.to_owned());
        clients.spawn(async move { load.client(&url, seed.wrapping_add(number)).await });
    }
    clients
}
