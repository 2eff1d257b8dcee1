//! Who waits for jobs and sessions, who wants to know what changed, and who tells them.
//!
//! Those of the same process are told as soon as what was written is committed, those of others through the database,
//! by one task that says at most once in a while what happened. All of it is a hint: who waits also looks by himself
//! now and then.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use agentkeep_core::{AgentId, SessionId, TenantId};
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Notify, broadcast},
};
use uuid::Uuid;

use crate::engine::{Engine, News};

/// What happens in this time is said together.
const SAY_TOGETHER: Duration = Duration::from_millis(10);
/// Bytes that are said at once: PostgreSQL takes 8,000.
const WORDS: usize = 7_000;
/// Changes that somebody who does not look can fall behind.
const CHANGES: usize = 4_096;
/// Entries of those that wait, before it is looked for the first time which of them are gone.
const FIRST_SWEEP: usize = 64;

/// What changed: for those that keep copies. See [`Store::changes`](crate::Store::changes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Change {
    /// A session, its messages, events or runs.
    Session(TenantId, SessionId),
    /// An agent.
    Agent(TenantId, AgentId),
    /// Nobody knows what: something was written that did not say so, or may have been said while nobody listened.
    /// Whatever is kept may be out of date.
    Anything,
}

/// What can be waited for, or told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Topic {
    Queue(TenantId, String),
    Session(TenantId, SessionId),
    Agent(TenantId, AgentId),
}

impl Topic {
    fn words(&self) -> String {
        match self {
            Self::Queue(tenant, queue) => format!("queue:{tenant}:{queue}"),
            Self::Session(tenant, session) => format!("session:{tenant}:{session}"),
            Self::Agent(tenant, agent) => format!("agent:{tenant}:{agent}"),
        }
    }

    fn of(words: &str) -> Option<Self> {
        let (kind, rest) = words.split_once(':')?;
        let (tenant, name) = rest.split_once(':')?;
        let tenant = tenant.parse().ok()?;
        match kind {
            "queue" => Some(Self::Queue(tenant, name.to_owned())),
            "session" => Some(Self::Session(tenant, name.parse().ok()?)),
            "agent" => Some(Self::Agent(tenant, name.parse().ok()?)),
            _ => None,
        }
    }

    fn change(&self) -> Option<Change> {
        match self {
            Self::Queue(..) => None,
            Self::Session(tenant, session) => Some(Change::Session(*tenant, *session)),
            Self::Agent(tenant, agent) => Some(Change::Agent(*tenant, *agent)),
        }
    }
}

/// Those of this process that wait, and what others are still to be told.
pub(crate) struct Wakes {
    engine: Engine,
    /// Tells what this process says from what others say.
    own: String,
    waiting: Mutex<Waiting>,
    changes: broadcast::Sender<Change>,
    untold: Mutex<Untold>,
    listening: AtomicBool,
}

#[derive(Default)]
struct Untold {
    topics: BTreeSet<Topic>,
    /// A task is about to tell them.
    telling: bool,
}

/// Those that wait, as long as they do.
#[derive(Default)]
struct Waiting {
    topics: HashMap<Topic, Vec<Weak<Notify>>>,
    /// Entries there may be before those that wait no longer are looked for.
    sweep_at: usize,
    entries: usize,
}

impl Waiting {
    fn add(&mut self, topic: Topic, notify: &Arc<Notify>) {
        if self.entries >= self.sweep_at.max(FIRST_SWEEP) {
            self.sweep();
            self.sweep_at = self.entries * 2;
        }
        self.topics.entry(topic).or_default().push(Arc::downgrade(notify));
        self.entries += 1;
    }

    /// Forgets those that wait no longer.
    fn sweep(&mut self) {
        let mut entries = 0;
        self.topics.retain(|_, waiting| {
            waiting.retain(|notify| notify.strong_count() > 0);
            entries += waiting.len();
            !waiting.is_empty()
        });
        self.entries = entries;
    }

    fn somebody_is_there(&self) -> bool {
        self.topics.values().flatten().any(|notify| notify.strong_count() > 0)
    }

    fn wake(&self, topic: &Topic) {
        if let Some(waiting) = self.topics.get(topic) {
            wake(waiting);
        }
    }

    fn wake_all(&self, which: impl Fn(&Topic) -> bool) {
        self.topics.iter().filter(|(topic, _)| which(topic)).for_each(|(_, waiting)| wake(waiting));
    }
}

fn wake(waiting: &[Weak<Notify>]) {
    waiting.iter().filter_map(Weak::upgrade).for_each(|notify| notify.notify_one());
}

impl Wakes {
    /// `own` is an id that no other process has.
    pub(crate) fn new(engine: Engine, own: Uuid) -> Arc<Self> {
        Arc::new(Self {
            engine,
            own: own.simple().to_string(),
            waiting: Mutex::default(),
            changes: broadcast::channel(CHANGES).0,
            untold: Mutex::default(),
            listening: AtomicBool::new(false),
        })
    }

    /// Wakes whoever waits for one of these queues, here and in other processes.
    pub(crate) fn wake(self: &Arc<Self>, tenant: TenantId, queues: &BTreeSet<String>) {
        for queue in queues {
            self.say(Topic::Queue(tenant, queue.clone()));
        }
    }

    /// Tells whoever waits for a session or wants to know, here and in other processes.
    pub(crate) fn session_changed(self: &Arc<Self>, tenant: TenantId, session: SessionId) {
        self.say(Topic::Session(tenant, session));
    }

    /// Tells whoever wants to know, here and in other processes.
    pub(crate) fn agent_changed(self: &Arc<Self>, tenant: TenantId, agent: AgentId) {
        self.say(Topic::Agent(tenant, agent));
    }

    fn say(self: &Arc<Self>, topic: Topic) {
        self.hear(&topic);
        let start = {
            let mut untold = self.untold.lock();
            untold.topics.insert(topic);
            !std::mem::replace(&mut untold.telling, true)
        };
        // Without a runtime nobody of this process waits, and others look by themselves.
        if start && let Ok(runtime) = Handle::try_current() {
            runtime.spawn(Arc::clone(self).tell());
        }
    }

    async fn tell(self: Arc<Self>) {
        loop {
            let topics = {
                let mut untold = self.untold.lock();
                untold.telling = !untold.topics.is_empty();
                std::mem::take(&mut untold.topics)
            };
            if topics.is_empty() {
                return;
            }
            for words in together(&self.own, topics.iter().map(Topic::words)) {
                if let Err(error) = self.engine.tell(&words).await {
                    tracing::debug!(target: "agentkeep::wake", "nobody was told of changes: {error}");
                }
            }
            tokio::time::sleep(SAY_TOGETHER).await;
        }
    }

    fn hear(&self, topic: &Topic) {
        self.waiting.lock().wake(topic);
        if let Some(change) = topic.change() {
            self.send(change);
        }
    }

    fn send(&self, change: Change) {
        // Nobody may want to know.
        let _ = self.changes.send(change);
    }

    /// Something was said, or something may have changed. Whether anybody waits or wants to know.
    fn heard(&self, news: News<'_>) -> bool {
        match news {
            News::Words(words) => {
                self.understand(words);
                true
            }
            News::Look => {
                self.waiting.lock().wake_all(|topic| matches!(topic, Topic::Queue(..)));
                self.somebody_is_there()
            }
            News::Unknown => {
                self.waiting.lock().wake_all(|_| true);
                self.send(Change::Anything);
                self.somebody_is_there()
            }
        }
    }

    /// One line with who says it, and one for each thing that changed.
    fn understand(&self, words: &str) {
        let mut lines = words.lines();
        if lines.next() == Some(&self.own) {
            // Told here already.
            return;
        }
        for line in lines {
            match Topic::of(line) {
                Some(topic) => self.hear(&topic),
                // Said by a later version, or a name of several lines.
                None => drop(self.heard(News::Unknown)),
            }
        }
    }

    fn somebody_is_there(&self) -> bool {
        let waiting = self.waiting.lock();
        let there = self.changes.receiver_count() > 0 || waiting.somebody_is_there();
        if !there {
            // Under the lock, as who comes next looks at it.
            self.listening.store(false, Ordering::Release);
        }
        there
    }

    /// What is notified when there may be jobs in a queue, for as long as it is kept.
    pub(crate) fn queue_waiter(self: &Arc<Self>, tenant: TenantId, queue: &str) -> Arc<Notify> {
        self.waiter(Topic::Queue(tenant, queue.to_owned()))
    }

    /// What is notified when a session may have changed, for as long as it is kept.
    pub(crate) fn session_waiter(self: &Arc<Self>, tenant: TenantId, session: SessionId) -> Arc<Notify> {
        self.waiter(Topic::Session(tenant, session))
    }

    fn waiter(self: &Arc<Self>, topic: Topic) -> Arc<Notify> {
        let notify = Arc::new(Notify::new());
        let mut waiting = self.waiting.lock();
        waiting.add(topic, &notify);
        self.listen();
        notify
    }

    /// What changes from now on.
    pub(crate) fn changes(self: &Arc<Self>) -> broadcast::Receiver<Change> {
        let _waiting = self.waiting.lock();
        let changes = self.changes.subscribe();
        self.listen();
        changes
    }

    /// Listens to other processes, from here on until nobody is there. Called under the lock of those that wait.
    fn listen(self: &Arc<Self>) {
        if !self.listening.swap(true, Ordering::AcqRel) {
            let wakes = Arc::downgrade(self);
            let heard = move |news: News<'_>| wakes.upgrade().is_some_and(|wakes| wakes.heard(news));
            self.engine.listen(Arc::new(heard));
        }
    }
}

/// What is said, in as few texts as it fits in.
fn together(own: &str, words: impl Iterator<Item = String>) -> Vec<String> {
    let mut texts: Vec<String> = Vec::new();
    for words in words {
        match texts.last_mut() {
            Some(text) if text.len() + words.len() < WORDS => {
                text.push('\n');
                text.push_str(&words);
            }
            _ => texts.push(format!("{own}\n{words}")),
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics() -> [Topic; 4] {
        let session = SessionId(Uuid::from_u128(7));
        [
            Topic::Queue(TenantId(1), "a:b".to_owned()),
            Topic::Queue(TenantId(1), String::new()),
            Topic::Session(TenantId(2), session),
            Topic::Agent(TenantId(3), AgentId(5)),
        ]
    }

    #[test]
    fn what_is_said_is_understood() {
        for topic in topics() {
            assert_eq!(Topic::of(&topic.words()), Some(topic));
        }
        for words in ["", "x", "session:1", "session:1:x", "agent:1:x", "queue:x:y", "user:1:2"] {
            assert_eq!(Topic::of(words), None, "{words}");
        }
    }

    #[test]
    fn what_is_said_together_fits() {
        let words: Vec<String> = (0..2_000).map(|number| format!("agent:1:{number}")).collect();
        let texts = together("me", words.iter().cloned());
        assert!(texts.len() > 1 && texts.iter().all(|text| text.len() < 7_100));
        let said: Vec<&str> = texts.iter().flat_map(|text| text.lines().skip(1)).collect();
        assert_eq!(said, words);
    }

    #[test]
    fn those_that_wait_no_longer_are_forgotten() {
        let mut waiting = Waiting::default();
        let kept: Vec<Arc<Notify>> = (0..10).map(|_| Arc::new(Notify::new())).collect();
        for notify in &kept {
            waiting.add(topics()[2].clone(), notify);
        }
        for number in 0..10_000 {
            waiting.add(Topic::Session(TenantId(1), SessionId(Uuid::from_u128(number))), &Arc::new(Notify::new()));
            // Of one session as well as of many.
            waiting.add(topics()[2].clone(), &Arc::new(Notify::new()));
        }
        assert!(waiting.topics.len() < 200 && waiting.entries < 200, "{} {}", waiting.topics.len(), waiting.entries);
        waiting.sweep();
        assert_eq!((waiting.topics.len(), waiting.entries), (1, 10));
    }
}
