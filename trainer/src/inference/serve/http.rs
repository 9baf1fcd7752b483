//! The thread that speaks HTTP.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use data::tokenizer::Tokenizer;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::completion::{Choice, Completion, Logprobs, Refused, Request, Rules, Task, Usage};
use super::engine::Handle;
use super::metrics::Metrics;
use crate::inference::batcher::{Event, Finish, Likelihood, Prompt};
use crate::inference::loaded::Loaded;
use crate::inference::text::TextStream;
use crate::{Error, Result};

/// What clients may do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a request.
    pub body: usize,
    /// Connections at once.
    pub connections: usize,
    /// How long a client may keep us waiting.
    pub patience: Duration,
}

/// What the thread is given.
pub struct Front {
    /// The model's tokenizer and shape.
    pub loaded: Arc<Loaded>,
    /// Its name.
    pub name: String,
    /// What clients may do.
    pub limits: Limits,
    /// Seed of requests that give none.
    pub seed: u64,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The way to the model.
    pub handle: Handle,
}

/// What handlers share.
struct Shared {
    front: Front,
    requests: AtomicU64,
    started: u64,
}

/// Pieces of a streamed answer that wait for a slow reader.
const PIECES: usize = 32;

/// One of them.
type Piece = std::result::Result<Bytes, Infallible>;

/// Serves until Ctrl-C or SIGTERM, then lets answers that are being written end.
///
/// # Errors
/// The system gives no thread or no socket.
pub fn serve(listener: TcpListener, front: Front) -> Result<()> {
    let failed = |error: std::io::Error| Error::other(format!("the HTTP server: {error}"));
    let handle = front.handle.clone();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(failed)?;
    let served = runtime.block_on(accept(listener, front)).map_err(failed);
    // Nobody is answered any more.
    handle.stop();
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

async fn accept(listener: TcpListener, front: Front) -> std::io::Result<()> {
    let Limits { connections, patience, .. } = front.limits;
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let shared = Arc::new(Shared { front, requests: AtomicU64::new(0), started: now() });
    let router = Router::new()
        .route("/v1/completions", post(completions))
        .route("/v1/models", get(models))
        .route("/health", get(async || "ok\n"))
        .route("/metrics", get(metrics))
        .fallback(async || error(404, None, "there is no such path; /v1/completions is"))
        .method_not_allowed_fallback(async || error(405, None, "another method is wanted here"))
        .with_state(shared);
    let places = Arc::new(Semaphore::new(connections.max(1)));
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop_signal());
    loop {
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place,
            () = &mut stop => break,
        };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        // Too many files, or a client that is gone again: others may come.
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(patience);
        let service = TowerToHyperService::new(router.clone());
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            // What a client does wrong on the wire ends its connection.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(patience, graceful.shutdown()).await;
    Ok(())
}

/// Ctrl-C, or what an init system sends.
async fn stop_signal() {
    #[cfg(unix)]
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending::<()>().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminate => {}
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// An error as OpenAI's clients read it.
fn error(status: u16, param: Option<&str>, message: &str) -> Response {
    let kind = if status < 500 { "invalid_request_error" } else { "server_error" };
    let body = serde_json::json!({
        "error": { "message": message, "type": kind, "param": param, "code": status }
    });
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    json(status, &body)
}

fn json(status: StatusCode, body: &impl serde::Serialize) -> Response {
    let text = serde_json::to_string(body).unwrap_or_default();
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], text).into_response()
}

async fn models(State(shared): State<Arc<Shared>>) -> Response {
    let model = serde_json::json!({
        "id": shared.front.name, "object": "model", "created": shared.started, "owned_by": "mtnlg",
        "max_model_len": shared.front.handle.capacity.length,
    });
    json(StatusCode::OK, &serde_json::json!({ "object": "list", "data": [model] }))
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let kind = HeaderValue::from_static("text/plain; version=0.0.4");
    ([(header::CONTENT_TYPE, kind)], shared.front.metrics.text()).into_response()
}

async fn completions(State(shared): State<Arc<Shared>>, body: Body) -> Response {
    let begun = Instant::now();
    let response = complete(&shared, body, begun).await.unwrap_or_else(|refused| {
        let mut response = error(refused.status, refused.param, &refused.message);
        if refused.status == 503 {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    });
    shared.front.metrics.answered(response.status().as_u16(), begun.elapsed());
    response
}

async fn complete(
    shared: &Arc<Shared>,
    body: Body,
    begun: Instant,
) -> std::result::Result<Response, Refused> {
    let Front { limits, ref loaded, ref handle, ref name, seed, .. } = shared.front;
    let refused = |status, message: String| Refused { status, param: None, message };
    let read = tokio::time::timeout(limits.patience, axum::body::to_bytes(body, limits.body)).await;
    let bytes = match read {
        Err(_) => return Err(refused(408, "the request did not come in time".to_owned())),
        Ok(Err(_)) => return Err(refused(413, format!("a request has at most {} bytes here", limits.body))),
        Ok(Ok(bytes)) => bytes,
    };
    let request: Request = serde_json::from_slice(&bytes)
        .map_err(|error| refused(400, format!("it is no completion request: {error}")))?;
    let number = shared.requests.fetch_add(1, Ordering::Relaxed);
    let rules = Rules {
        name,
        tokenizer: loaded.tokenizer(),
        capacity: handle.capacity,
        most: handle.most(),
        seed: (seed, number + 1),
    };
    let task = request.resolve(&rules)?;
    let (sender, events) = mpsc::unbounded_channel();
    handle
        .submit(task.prompts.clone(), sender)
        .map_err(|_| refused(503, "there is no room for more requests; try again in a moment".to_owned()))?;
    let answer = Answer::new(shared, number, begun, events, task);
    match answer.stream {
        true => Ok(answer.streamed()),
        false => answer.whole().await.map(|completion| json(StatusCode::OK, &completion)),
    }
}

/// An answer that is being written.
struct Answer {
    shared: Arc<Shared>,
    id: String,
    begun: Instant,
    events: mpsc::UnboundedReceiver<(usize, Event)>,
    usage: Usage,
    stream: bool,
    include_usage: bool,
    drafts: Vec<Draft>,
    /// Pieces that are ready.
    ready: VecDeque<Choice>,
    /// Continuations that have not ended.
    left: usize,
}

/// One of its continuations.
struct Draft {
    prompt: Prompt,
    text: TextStream,
    logprobs: Option<Logprobs>,
    /// Characters and tokens of the prompt that were told so far.
    characters: usize,
    echoed: usize,
    /// Whether its tokens still count: those behind a stop string do not.
    open: bool,
}

impl Answer {
    fn new(
        shared: &Arc<Shared>,
        number: u64,
        begun: Instant,
        events: mpsc::UnboundedReceiver<(usize, Event)>,
        task: Task,
    ) -> Self {
        let tokenizer = shared.front.loaded.tokenizer();
        let Task { prompts, n, stops, stream, include_usage } = task;
        let prompt_tokens = prompts.iter().step_by(n).map(|prompt| prompt.tokens.len()).sum();
        let usage = Usage { prompt_tokens, ..Usage::default() };
        let mut ready = VecDeque::new();
        let draft = |(index, prompt): (usize, Prompt)| {
            let mut draft = Draft {
                text: TextStream::new(&stops),
                logprobs: prompt.likelihoods.map(|_| Logprobs::default()),
                characters: 0,
                echoed: 0,
                open: true,
                prompt,
            };
            if draft.prompt.echo {
                draft.tell(tokenizer, draft.prompt.tokens[0], None);
                let text = tokenizer.decode(&draft.prompt.tokens);
                ready.push_back(Choice { text, index, logprobs: None, finish_reason: None });
            }
            draft
        };
        let drafts: Vec<Draft> = prompts.into_iter().enumerate().map(draft).collect();
        Self {
            shared: Arc::clone(shared),
            id: format!("cmpl-{}-{number}", shared.started),
            begun,
            events,
            usage,
            stream,
            include_usage,
            left: drafts.len(),
            drafts,
            ready,
        }
    }

    fn completion(&self, choices: Vec<Choice>, usage: Option<Usage>) -> Completion {
        Completion {
            id: self.id.clone(),
            object: "text_completion",
            created: now(),
            model: self.shared.front.name.clone(),
            choices,
            usage,
        }
    }

    /// The next piece; `None` once all continuations have ended.
    async fn next(&mut self) -> std::result::Result<Option<Choice>, Refused> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some(piece));
            }
            if self.left == 0 {
                return Ok(None);
            }
            let Some((index, event)) = self.events.recv().await else {
                return Err(Refused { status: 503, param: None, message: "the server stops".to_owned() });
            };
            self.hear(index, event);
        }
    }

    /// What an event adds.
    fn hear(&mut self, index: usize, event: Event) {
        let tokenizer = self.shared.front.loaded.tokenizer();
        let draft = &mut self.drafts[index];
        let (text, finish_reason) = match event {
            Event::Echoed { likelihood, .. } => {
                draft.echoed += 1;
                return draft.tell(tokenizer, draft.prompt.tokens[draft.echoed], Some(&likelihood));
            }
            _ if !draft.open => return,
            Event::Token { token, likelihood, .. } => {
                if self.usage.completion_tokens == 0 {
                    self.shared.front.metrics.first_token(self.begun.elapsed());
                }
                self.usage.completion_tokens += 1;
                let text = draft.text.push(tokenizer, token);
                draft.tell(tokenizer, token, likelihood.as_ref());
                (text, draft.text.stopped().then_some("stop"))
            }
            Event::Finished { why, .. } => {
                let text = draft.text.finish(tokenizer);
                let length = why == Finish::Length && !draft.text.stopped();
                (text, Some(if length { "length" } else { "stop" }))
            }
        };
        if finish_reason.is_some() {
            draft.open = false;
            self.left -= 1;
        } else if text.is_empty() {
            // What it says of its tokens goes with the next text.
            return;
        }
        let logprobs = match self.stream || finish_reason.is_some() {
            true => draft.logprobs.as_mut().map(std::mem::take),
            false => None,
        };
        self.ready.push_back(Choice { text, index, logprobs, finish_reason });
    }

    /// All of it at once.
    async fn whole(mut self) -> std::result::Result<Completion, Refused> {
        let none = |index| Choice { text: String::new(), index, logprobs: None, finish_reason: None };
        let mut choices: Vec<Choice> = (0..self.drafts.len()).map(none).collect();
        while let Some(piece) = self.next().await? {
            let choice = &mut choices[piece.index];
            choice.text.push_str(&piece.text);
            choice.logprobs = piece.logprobs;
            choice.finish_reason = piece.finish_reason;
        }
        let usage = self.total();
        Ok(self.completion(choices, Some(usage)))
    }

    fn total(&self) -> Usage {
        Usage { total_tokens: self.usage.prompt_tokens + self.usage.completion_tokens, ..self.usage }
    }

    /// Piece by piece, as server-sent events.
    fn streamed(self) -> Response {
        let (sender, pieces) = mpsc::channel(PIECES);
        tokio::spawn(self.write(sender));
        let kind = HeaderValue::from_static("text/event-stream");
        ([(header::CONTENT_TYPE, kind)], Body::from_stream(ReceiverStream::new(pieces))).into_response()
    }

    /// Writes the pieces. A reader who takes longer than patience allows loses the rest, and the sequences end.
    async fn write(mut self, sender: mpsc::Sender<Piece>) {
        let line = |completion: &Completion| serde_json::to_string(completion).unwrap_or_default();
        let mut done = false;
        while !done {
            let text = match self.next().await {
                Ok(Some(piece)) => line(&self.completion(vec![piece], None)),
                Ok(None) if std::mem::take(&mut self.include_usage) => {
                    line(&self.completion(Vec::new(), Some(self.total())))
                }
                Ok(None) => {
                    done = true;
                    "[DONE]".to_owned()
                }
                Err(refused) => {
                    done = true;
                    serde_json::json!({ "error": { "message": refused.message, "code": refused.status } })
                        .to_string()
                }
            };
            let bytes = Bytes::from(format!("data: {text}\n\n"));
            let sent = tokio::time::timeout(self.shared.front.limits.patience, sender.send(Ok(bytes))).await;
            done |= !matches!(sent, Ok(Ok(())));
        }
    }
}

impl Draft {
    /// Notes a token, where tokens are told.
    fn tell(&mut self, tokenizer: &Tokenizer, token: u32, likelihood: Option<&Likelihood>) {
        if let Some(logprobs) = &mut self.logprobs {
            logprobs.push(tokenizer, token, likelihood, self.characters);
            self.characters += tokenizer.decode(&[token]).chars().count();
        }
    }
}
