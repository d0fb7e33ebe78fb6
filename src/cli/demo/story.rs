//! The story that the demo tells, one chapter after another, and what must be true in each.
//!
//! **Invariant:** every request that it makes stands on the screen as a curl line, and every result is
//! checked before it is shown as one.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use serde_json::{Map, Value, json};

use super::super::client::{Client, action};
use super::super::deploy::Beside;
use super::super::exit::Failure;
use super::super::wire::{Drained, Execution, ExecutionLogs, Function};
use super::super::{deploy, logs, output};
use crate::guests::Built;

/// How often a waiting chapter looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a chapter waits for what it expects.
const PATIENCE: Duration = Duration::from_secs(60);
/// Delay between the attempts of order-intake: long enough to be seen.
const RETRY_DELAY_MS: u64 = 250;
/// Characters of the README that a curl line shows.
const EXCERPT_CHARS: usize = 40;

/// Tells the story to standard output.
pub(super) struct Story {
    client: Client,
    server: String,
}

impl Story {
    pub(super) fn new(client: Client, server: String) -> Self {
        Self { client, server }
    }

    /// All chapters.
    ///
    /// # Errors
    /// The first request that failed, or the first result that was not what it should be.
    pub(super) async fn tell(&self, guests: &[Built], readme: &str) -> Result<(), Failure> {
        output::print(&format!(
            "A plane is listening on {}, with a temporary folder.",
            self.server
        ))?;
        self.deploy_all(guests).await?;
        let counted = self.call(readme).await?;
        self.queue(readme, &counted).await?;
        self.retry().await?;
        self.requeue_and_drain().await?;
        self.web(readme, &counted).await?;
        output::print("\nEverything came out as it should.")
    }

    async fn deploy_all(&self, guests: &[Built]) -> Result<(), Failure> {
        chapter("1. Deploy: each wasm file becomes version 1 of a function")?;
        for built in guests {
            let name = built.guest.name;
            let file = &built.component;
            let wasm =
                std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            let spec = spec_of(name);
            self.show_deploy(name, file, spec.as_ref())?;
            let beside = spec.map_or(Beside::Nothing, Beside::Spec);
            let answer = deploy::upload(&self.client, name, wasm.into(), beside).await?;
            expect(answer.status == 201, "a new function is answered with 201")?;
            let function: Function = answer.read()?;
            expect(function.version == Some(1), "a new function has version 1")?;
            output::print(&format!("    {}", function.summary()))?;
        }
        Ok(())
    }

    /// Calls word-stats over the README and waits; returns what it counted.
    async fn call(&self, readme: &str) -> Result<Value, Failure> {
        chapter("2. Call and wait: word-stats over this project's README")?;
        let body = word_stats_body(readme);
        self.show_post("/v1/functions/word-stats:invoke", &shortened(&body))?;
        let execution = self.post_call("word-stats", "invoke", &body).await?;
        expect(execution.status == "success", "the call ends in success")?;
        let counted = output_of(&execution)?;
        let words = readme
            .to_lowercase()
            .split(|symbol: char| !symbol.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .count();
        expect(
            counted["wordCount"] == words,
            "word-stats counts every word of the README",
        )?;
        print_output(&execution)?;
        Ok(counted)
    }

    /// The same from the queue.
    async fn queue(&self, readme: &str, counted: &Value) -> Result<(), Failure> {
        chapter("3. Queue: the answer comes once the execution is on disk, the result later")?;
        let body = word_stats_body(readme);
        let id = self.enqueue("word-stats", &body, &shortened(&body)).await?;
        self.show_get(&format!("/v1/executions/{id}"))?;
        let ended = self.follow(&id, Execution::has_ended).await?;
        expect(
            ended.status == "success",
            "the queued execution ends in success",
        )?;
        expect(
            &output_of(&ended)? == counted,
            "the queued call counts the same words",
        )?;
        output::print("    the same words were counted")
    }

    /// An order that the warehouse takes at the third attempt.
    async fn retry(&self) -> Result<(), Failure> {
        chapter("4. Retry: the warehouse of order-intake is busy for two attempts")?;
        let order = json!({"input": {
            "orderId": "A-1001",
            "items": [{"sku": "wheel", "quantity": 1}, {"sku": "bucket", "quantity": 20}],
            "warehouse": "busy",
            "busyForAttempts": 2,
        }});
        let id = self
            .enqueue("order-intake", &order, &order.to_string())
            .await?;
        let ended = self.follow(&id, Execution::has_ended).await?;
        expect(
            ended.status == "success",
            "the order is accepted in the end",
        )?;
        expect(ended.attempts == Some(3), "the order takes three attempts")?;
        self.show_get(&format!("/v1/executions/{id}/logs"))?;
        let logs: ExecutionLogs = self
            .client
            .get(&["v1", "executions", &id, "logs"], &[])
            .await?
            .read()?;
        let outcomes: Vec<&str> = logs
            .attempts
            .iter()
            .map(|attempt| &*attempt.outcome)
            .collect();
        expect(
            outcomes == ["retry", "retry", "success"],
            "the logs show two retries and a success",
        )?;
        for attempt in &logs.attempts {
            logs::print_attempt(attempt, "    ")?;
        }
        print_output(&ended)
    }

    /// An order that comes too early, and is then run by hand an hour before its time.
    async fn requeue_and_drain(&self) -> Result<(), Failure> {
        chapter("5. Requeue: it is eight o'clock, and orders are taken from nine")?;
        let order = json!({"input": {
            "orderId": "A-1002",
            "items": [{"sku": "nozzle", "quantity": 2}],
            "now": "08:00",
            "notBefore": "09:00",
        }});
        let id = self
            .enqueue("order-intake", &order, &order.to_string())
            .await?;
        let put_back = |execution: &Execution| {
            execution.has_ended() || (execution.requeues == Some(1) && execution.status == "queued")
        };
        let waiting = self.follow(&id, put_back).await?;
        expect(!waiting.has_ended(), "the order waits for its time")?;
        expect(waiting.attempts == Some(0), "a requeue spends no attempt")?;
        let due = waiting.due_at.unwrap_or_default();
        output::print(&format!("    it waits in the queue until {due}"))?;

        chapter("6. Drain: run it by hand now, and wait until that is recorded")?;
        let path = action("order-intake", "drain-once");
        let path = ["v1", "internal", "functions", path.as_str()];
        self.show_post(&format!("/{}", path.join("/")), "{}")?;
        let answer = self.client.post(&path, HeaderMap::new(), "{}").await?;
        let drained: Drained = answer.read()?;
        let expected = matches!(drained.items.as_slice(),
            [item] if item.execution_id == id && item.status == "success");
        expect(
            expected,
            "the drain runs this order, and has its result when it answers",
        )?;
        output::print(&format!("    {}", answer.text()))?;
        self.show_get(&format!("/v1/executions/{id}"))?;
        let ended = self.execution(&id).await?;
        expect(
            ended.status == "success",
            "what was drained reads as success at once",
        )?;
        expect(ended.attempts == Some(1), "the order took one attempt")?;
        output::print(&state_line(&ended, Duration::ZERO))?;
        print_output(&ended)
    }

    /// A web service and a site, each at its own address.
    async fn web(&self, readme: &str, counted: &Value) -> Result<(), Failure> {
        chapter("7. Web: functions that speak HTTP have addresses of their own")?;
        shell(&format!(
            "curl -H 'content-type: text/plain' --data-binary @README.md {}/fn/word-stats-http",
            self.server
        ))?;
        let request = self
            .client
            .request(Method::POST, &["fn", "word-stats-http"])
            .header(CONTENT_TYPE, "text/plain")
            .body(readme.to_owned());
        let answer = self.client.send(request).await?;
        let answer: Value = serde_json::from_slice(&answer.body)
            .context("the web service answers something that is no JSON")?;
        expect(
            answer["wordCount"] == counted["wordCount"],
            "the web service counts the same words",
        )?;
        output::print("    the same words were counted")?;
        self.show_get("/fn/static-site/")?;
        let page = self.client.get(&["fn", "static-site", ""], &[]).await?;
        expect(
            page.text().contains("<h1>The Pelton wheel</h1>"),
            "the site shows its first page",
        )?;
        let size = u64::try_from(page.body.len()).unwrap_or(u64::MAX);
        output::print(&format!(
            "    a page of {}, whose style and picture come out of the same file",
            output::bytes(size)
        ))
    }

    async fn post_call(
        &self,
        function: &str,
        verb: &str,
        body: &Value,
    ) -> Result<Execution, Failure> {
        let path = action(function, verb);
        let path = ["v1", "functions", path.as_str()];
        let answer = self
            .client
            .post(&path, HeaderMap::new(), body.to_string())
            .await?;
        answer.read()
    }

    async fn enqueue(&self, function: &str, body: &Value, shown: &str) -> Result<String, Failure> {
        let path = action(function, "enqueue");
        self.show_post(&format!("/v1/functions/{path}"), shown)?;
        let execution = self.post_call(function, "enqueue", body).await?;
        expect(
            !execution.execution_id.is_empty(),
            "a queued call is answered with its id",
        )?;
        output::print(&format!("    202: execution {}", execution.execution_id))?;
        Ok(execution.execution_id)
    }

    async fn execution(&self, id: &str) -> Result<Execution, Failure> {
        self.client
            .get(&["v1", "executions", id], &[])
            .await?
            .read()
    }

    /// Watches an execution until it is as wanted, and shows each state that was seen.
    async fn follow(
        &self,
        id: &str,
        wanted: impl Fn(&Execution) -> bool,
    ) -> Result<Execution, Failure> {
        let begun = Instant::now();
        let mut shown = None;
        loop {
            let execution = self.execution(id).await?;
            let seen = (
                execution.status.clone(),
                execution.attempts,
                execution.requeues,
            );
            if shown.as_ref() != Some(&seen) {
                output::print(&state_line(&execution, begun.elapsed()))?;
                shown = Some(seen);
            }
            if wanted(&execution) {
                return Ok(execution);
            }
            expect(
                begun.elapsed() < PATIENCE,
                "an execution moves within a minute",
            )?;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn show_post(&self, path: &str, body: &str) -> Result<(), Failure> {
        shell(&format!(
            "curl -H 'content-type: application/json' -d {} {}{path}",
            quoted(body),
            self.server
        ))
    }

    fn show_get(&self, path: &str) -> Result<(), Failure> {
        shell(&format!("curl {}{path}", self.server))
    }

    fn show_deploy(
        &self,
        name: &str,
        file: &Path,
        spec: Option<&Map<String, Value>>,
    ) -> Result<(), Failure> {
        let url = format!("{}/v1/functions/{name}", self.server);
        let file = file.display();
        shell(&match spec {
            None => format!(
                "curl -X PUT -H 'content-type: application/wasm' --data-binary {} {url}",
                quoted(&format!("@{file}"))
            ),
            Some(spec) => format!(
                "curl -X PUT -F {} -F {} {url}",
                quoted(&format!(
                    "spec={};type=application/json",
                    Value::Object(spec.clone())
                )),
                quoted(&format!("wasm=@{file};type=application/wasm"))
            ),
        })
    }
}

/// order-intake retries slowly enough to be watched; the others keep the defaults.
fn spec_of(function: &str) -> Option<Map<String, Value>> {
    let delay = json!({"baseDelayMs": RETRY_DELAY_MS, "maxDelayMs": RETRY_DELAY_MS});
    (function == "order-intake").then(|| Map::from_iter([("retryBackoff".to_owned(), delay)]))
}

fn word_stats_body(text: &str) -> Value {
    json!({"input": {"text": text, "topN": 5}})
}

/// The body with the README cut short, for a line on the screen.
fn shortened(body: &Value) -> String {
    let mut body = body.clone();
    if let Some(Value::String(text)) = body.pointer_mut("/input/text") {
        *text = text
            .chars()
            .take(EXCERPT_CHARS)
            .chain("…".chars())
            .collect();
    }
    body.to_string()
}

/// A word of a shell's line.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn chapter(title: &str) -> Result<(), Failure> {
    output::print(&format!("\n{title}"))
}

fn shell(line: &str) -> Result<(), Failure> {
    output::print(&format!("  $ {line}"))
}

/// The output of an execution, as the function wrote it.
fn print_output(execution: &Execution) -> Result<(), Failure> {
    let raw = execution.output.as_ref().map_or("", |raw| raw.get());
    for line in output::indent_json(raw).lines() {
        output::print(&format!("    {line}"))?;
    }
    Ok(())
}

fn state_line(execution: &Execution, after: Duration) -> String {
    format!(
        "    +{:>4} ms  {:<8} attempts {}, requeues {}",
        after.as_millis(),
        execution.status,
        execution.attempts.unwrap_or_default(),
        execution.requeues.unwrap_or_default(),
    )
}

fn output_of(execution: &Execution) -> Result<Value, Failure> {
    let raw = execution
        .output
        .as_ref()
        .context("an execution that succeeded has no output")?;
    Ok(serde_json::from_str(raw.get()).context("an output that is no JSON")?)
}

/// Ends the demo if what it says is not so.
fn expect(holds: bool, what: &str) -> Result<(), Failure> {
    if holds {
        Ok(())
    } else {
        Err(anyhow!("the demo failed. It should be so that {what}, and it was not").into())
    }
}
