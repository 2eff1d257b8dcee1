//! One client of a stream: told what it does not know yet from the database, then from the ring that all clients of its
//! session share.

use std::{convert::Infallible, sync::Arc};

use agentkeep::TenantStore;
use agentkeep_core::{Error, RunId, RunStatus, SessionId};
use bytes::Bytes;
use tokio::{
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior, interval_at, timeout},
};

use super::{
    Position,
    hub::{End, Next, PAUSE, Watch},
    item::{self, Item, Reason},
    merge::{self, Pace, Read},
    present,
};
use crate::app::App;

/// What is on its way to a client. An item gets its id when it is taken.
pub(super) enum Chunk {
    Item(Position, Arc<Item>),
    Text(Bytes),
}

/// Why a client is told no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// It was told what it wanted to know.
    Told,
    /// It is gone.
    Gone,
    /// It did not take what it was sent.
    Slow,
    /// The session cannot be told any further.
    Session(End),
}

/// A client of a stream.
pub(super) struct Client {
    pub(super) app: App,
    pub(super) tenant: TenantStore,
    pub(super) session: SessionId,
    pub(super) watch: Arc<Watch>,
    /// How far it was told.
    pub(super) position: Position,
    /// How much it is read at once.
    pub(super) pace: Pace,
    /// Up to where there was something to be told when it came.
    pub(super) present: Position,
    /// The run that it wants to see the end of.
    pub(super) until: Option<RunId>,
    pub(super) out: mpsc::Sender<Chunk>,
}

impl Client {
    /// Tells the client what there is and what comes, until that ends, the client is gone or the server stops. There is
    /// always room for the last word.
    pub(super) async fn run(mut self, last: mpsc::OwnedPermit<Chunk>) {
        let (app, out) = (self.app.clone(), self.out.clone());
        let over = tokio::select! {
            () = app.stopped() => return,
            () = out.closed() => return,
            over = self.follow() => match over {
                Ok(never) => match never {},
                Err(over) => over,
            },
        };
        let word = match over {
            Over::Told | Over::Gone => return,
            Over::Slow => item::reset(Reason::Slow, None),
            Over::Session(End::Deleted) => item::deleted(self.session),
            Over::Session(End::Gap) => {
                // Who comes back begins with what happens now.
                let present = present(&self.tenant, self.session).await.ok().flatten();
                item::reset(Reason::Gap, present)
            }
        };
        last.send(Chunk::Text(word));
    }

    async fn follow(&mut self) -> Result<Infallible, Over> {
        let mut heartbeat = self.heartbeat();
        let ended = self.has_ended(&mut heartbeat).await?;
        // What is not new is read from the database: the ring may hold what was deleted since.
        while !self.position.reaches(self.present) && self.catch_up(&mut heartbeat).await? {}
        if ended {
            while self.catch_up(&mut heartbeat).await? {}
            return Err(Over::Told);
        }
        let watch = Arc::clone(&self.watch);
        let ring = watch.ring();
        let mut moves = ring.moves();
        loop {
            let Some(mut index) = ring.index(self.position) else {
                self.catch_up(&mut heartbeat).await?;
                continue;
            };
            loop {
                moves.borrow_and_update();
                match ring.at(index) {
                    Next::Item(item) => {
                        self.tell(item, &mut heartbeat).await?;
                        index += 1;
                    }
                    // The ring is read as long as it is watched.
                    Next::Nothing => drop(self.wait(moves.changed(), &mut heartbeat).await?),
                    Next::Passed => break,
                    Next::Over(end) => return Err(Over::Session(end)),
                }
            }
        }
    }

    /// Whether the run that the client waits for ended already: its end may lie before what the client was told.
    async fn has_ended(&self, heartbeat: &mut Interval) -> Result<bool, Over> {
        let Some(run) = self.until else { return Ok(false) };
        loop {
            match self.tenant.runs().get(run).await {
                Ok(run) => return Ok(run.is_none_or(|run| run.status != RunStatus::Running)),
                Err(error) => self.pause(&error, heartbeat).await?,
            }
        }
    }

    /// Tells some of what the client does not know yet from the database; whether there may be more.
    async fn catch_up(&mut self, heartbeat: &mut Interval) -> Result<bool, Over> {
        loop {
            match Box::pin(merge::read(&self.tenant, self.session, self.position, &mut self.pace)).await {
                Ok(Read::Round(round)) => {
                    for item in round.items {
                        self.tell(Arc::new(item), heartbeat).await?;
                    }
                    self.position = self.position.and(round.end);
                    return Ok(round.more);
                }
                Ok(Read::Gap) => return Err(Over::Session(End::Gap)),
                Err(Error::NotFound { .. }) => return Err(Over::Session(End::Deleted)),
                Err(error) => self.pause(&error, heartbeat).await?,
            }
        }
    }

    /// Tells an item that the client does not know yet.
    async fn tell(&mut self, item: Arc<Item>, heartbeat: &mut Interval) -> Result<(), Over> {
        let is_new = item.is_new_to(self.position);
        self.position = self.position.and(item.after);
        if !is_new {
            return Ok(());
        }
        let ends = item.ends;
        self.send(Chunk::Item(self.position, item)).await?;
        heartbeat.reset();
        match self.until {
            Some(run) if ends == Some(run) => Err(Over::Told),
            _ => Ok(()),
        }
    }

    async fn send(&self, chunk: Chunk) -> Result<(), Over> {
        match timeout(self.app.options.stream_patience, self.out.send(chunk)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Over::Gone),
            Err(_) => Err(Over::Slow),
        }
    }

    /// Waits for something, and lets the client know now and then that the connection lives.
    async fn wait<T>(&self, what: impl Future<Output = T>, heartbeat: &mut Interval) -> Result<T, Over> {
        let mut what = std::pin::pin!(what);
        loop {
            tokio::select! {
                done = &mut what => return Ok(done),
                _ = heartbeat.tick() => self.send(Chunk::Text(item::HEARTBEAT)).await?,
            }
        }
    }

    async fn pause(&self, error: &Error, heartbeat: &mut Interval) -> Result<(), Over> {
        tracing::debug!(target: "agentkeep::stream", "session {} cannot be read: {error}", self.session);
        self.wait(tokio::time::sleep(PAUSE), heartbeat).await
    }

    fn heartbeat(&self) -> Interval {
        let pause = self.app.options.stream_heartbeat;
        let mut heartbeat = interval_at(Instant::now() + pause, pause);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat
    }
}
