//! `mtnlg serve`: a model behind OpenAI's `/v1/completions`.
//!
//! Two threads: one speaks HTTP ([`http`]), the other has the model and runs the steps of a [`Batcher`](super::Batcher) as long as there is work ([`engine`]). Between them are a queue of
//! bounded length and, for each request, a channel of its events; a client that has gone away closes its channel, and its sequences end with the next step.

pub mod completion;
pub mod engine;
pub mod http;
pub mod metrics;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use self::engine::Engine;
use self::http::{Front, Limits};
use self::metrics::Metrics;
use super::loaded::{Loaded, ModelArgs, Needs};
use crate::{Error, Result};

/// `mtnlg serve`.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Address to listen on; anything but loopback lets others in
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port; 0 for any that is free
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    port: u16,
    /// The model's name for clients [default: the checkpoint's path]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Sequences that the model works on at once
    #[arg(long, value_name = "N", default_value_t = 16)]
    slots: usize,
    /// Tokens that the model reads at once
    #[arg(long, value_name = "N", default_value_t = 256)]
    batch_tokens: usize,
    /// Requests that may wait; more are refused with 503
    #[arg(long, value_name = "N", default_value_t = 256)]
    queue: usize,
    /// Connections at once; more have to wait
    #[arg(long, value_name = "N", default_value_t = 1024)]
    connections: usize,
    /// Largest request, in KiB
    #[arg(long, value_name = "KIB", default_value_t = 1024)]
    body_limit: usize,
    /// How long a client may take to send a request, or to take in a piece of the answer, and a stop waits for answers that are being written
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    patience: u64,
    /// Seed of requests that give none
    #[arg(long, value_name = "N", default_value_t = 1234)]
    seed: u64,
}

impl ServeArgs {
    /// Serves until it is told to stop.
    ///
    /// # Errors
    /// The user's mistakes, an address that is taken, those of the ranks.
    pub fn run(&self) -> Result<()> {
        let mut loaded = Loaded::open(&self.model)?;
        let length = loaded.model().seq_len;
        let tokens = self.batch_tokens.max(self.slots);
        loaded.reserve(Needs { slots: self.slots, length, tokens, rows: tokens.min(256).max(self.slots) });
        let address = SocketAddr::new(self.host, self.port);
        let taken = |error: std::io::Error| {
            Error::user(format!("cannot listen: {error}"))
                .value(address.to_string())
                .remedy("choose another --host or --port")
        };
        let loaded = Arc::new(loaded);
        let name = self.name.clone().unwrap_or_else(|| loaded.name());
        super::run(&loaded, &self.model, |model| {
            // On the rank that has the say alone.
            let listener = TcpListener::bind(address).map_err(taken)?;
            let local = listener.local_addr().map_err(taken)?;
            let metrics = Arc::new(Metrics::default());
            let (engine, handle) = Engine::new(model.capacity(), self.queue, Arc::clone(&metrics));
            let patience = Duration::from_secs(self.patience);
            let limits = Limits { body: self.body_limit * 1024, connections: self.connections, patience };
            let front = Front { loaded: Arc::clone(&loaded), name, limits, seed: self.seed, metrics, handle };
            std::thread::scope(|scope| {
                let http = scope.spawn(move || http::serve(listener, front));
                eprintln!("{} on http://{local}/v1/completions; Ctrl-C stops", loaded.name());
                let served = engine.run(model);
                let stopped = http.join().unwrap_or_else(|_| Err(Error::other("the HTTP thread died")));
                served.and(stopped)
            })
        })?;
        Ok(())
    }
}
