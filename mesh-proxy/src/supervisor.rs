//! `mesh-proxy supervise`: the process that systemd starts. It serves nothing itself. It hands the listening sockets that
//! systemd kept to a new worker, waits until that one serves, and only then lets the workers before it drain. Told to
//! end, it leaves at once, and its worker goes on: the next supervisor finds both in systemd's store. So neither a
//! restart, nor an upgrade, nor a new version that cannot start loses a call; docs/operating.md has the whole of it.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    signal::unix::{self, SignalKind, signal},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::handover::{Channel, Order, Report, SocketName};

mod systemd;

/// Workers that drain beside the one that serves: each holds its memory until its last connection ends. Of more, those
/// that have drained for longest are cut off.
pub const OLD_WORKERS_MAX: usize = 8;
/// How long a worker may take beyond its time before it is ended by force.
const OVERDUE: Duration = Duration::from_secs(5);
/// How often the worker is asked whether it is there, where systemd does not ask us.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// What systemd told this process and no other.
const NOT_FOR_WORKERS: [&str; 6] =
    ["NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC"];

/// Why the supervisor ended.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// The system.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The worker ended by itself: its last words say why. systemd starts anew.
    #[error("the worker ended ({0})")]
    WorkerEnded(ExitStatus),
}

/// Runs a worker by `program` until this process is told to end. Workers before it get `patience` to drain. To be called on
/// the main thread, on a runtime of one thread.
///
/// # Errors
/// If no worker comes to serve, or the one that does ends.
pub async fn supervise(program: Command, patience: Duration) -> Result<(), SupervisorError> {
    let mut signals = Signals::new().map_err(io_error("signals"))?;
    let left = systemd::adopt().map_err(io_error("the sockets that systemd kept"))?;
    let old = left.workers.into_iter().map(|(pid, channel)| Ok(Link::new(pid, Channel::adopt(channel)?)));
    let old: Vec<Link> = old.collect::<io::Result<_>>().map_err(io_error("the workers before this one"))?;
    tracing::info!(sockets = left.sockets.len(), workers = old.len(), "starting a worker");
    let mut worker = Worker::start(program).map_err(io_error("the worker"))?;
    systemd::keep_worker(worker.link.pid, &worker.link.channel);
    worker.hand(&left.sockets).await.map_err(io_error("the worker"))?;
    drop(left.sockets);
    if !worker.until_ready(&mut signals).await? {
        // One that never served must not be taken for one that does.
        worker.child.kill().await.map_err(io_error("the worker"))?;
        return Ok(());
    }
    systemd::ready(worker.link.pid);
    let mut leaving = JoinSet::new();
    let surplus = old.len().saturating_sub(OLD_WORKERS_MAX);
    for (n, old) in old.iter().enumerate() {
        let patience = if n < surplus { Duration::ZERO } else { patience };
        leaving.spawn(old.clone().drain(patience));
    }
    worker.link.say(&Order::Go).await;
    match worker.until_told(&mut signals).await? {
        Told::Leave | Told::Reload => Ok(()),
        Told::Stop => {
            tracing::info!("the proxy ends");
            systemd::stopping();
            worker.link.say(&Order::Stop).await;
            for old in &old {
                old.say(&Order::Stop).await;
            }
            let ended = worker.child.wait().await;
            while leaving.join_next().await.is_some() {}
            ended.map(drop).map_err(io_error("the worker"))
        }
    }
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> SupervisorError {
    move |source| SupervisorError::Io { what, source }
}

/// What this process is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// To go, for a successor: SIGTERM.
    Leave,
    /// That the proxy ends for good: SIGUSR1, or SIGINT at a terminal.
    Stop,
    /// To read `services.d` again: SIGHUP.
    Reload,
}

struct Signals {
    terminate: unix::Signal,
    stop: unix::Signal,
    interrupt: unix::Signal,
    reload: unix::Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            stop: signal(SignalKind::user_defined1())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
        })
    }

    async fn told(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Leave,
            _ = self.stop.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.reload.recv() => Told::Reload,
        }
    }
}

/// The worker that serves, or is to.
struct Worker {
    child: Child,
    link: Link,
}

impl Worker {
    fn start(mut program: Command) -> io::Result<Self> {
        let (channel, there) = Channel::pair()?;
        // It is found on standard input; what systemd told us is not for it.
        program.stdin(Stdio::from(there)).kill_on_drop(false);
        for name in NOT_FOR_WORKERS {
            program.env_remove(name);
        }
        let child = program.spawn()?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.ok_or_else(|| io::Error::other("it ended at once"))?;
        Ok(Self { child, link: Link::new(pid, channel) })
    }

    /// Hands over what there is, and lets it begin.
    async fn hand(&self, sockets: &[(SocketName, OwnedFd)]) -> io::Result<()> {
        let channel = &self.link.channel;
        for (name, socket) in sockets {
            channel.send(&Order::Socket(*name).to_string(), Some(socket.as_fd())).await?;
        }
        channel.send(&Order::Begin.to_string(), None).await
    }

    /// Waits until it serves; `false` if this process is told to end before.
    async fn until_ready(&mut self, signals: &mut Signals) -> Result<bool, SupervisorError> {
        loop {
            tokio::select! {
                ended = self.child.wait() => return Err(ended_by_itself(ended)),
                told = signals.told() => if told != Told::Reload { return Ok(false) },
                report = self.link.report() => if report == Some(Report::Ready) { return Ok(true) },
            }
        }
    }

    /// Looks after it until this process is told to end.
    async fn until_told(&mut self, signals: &mut Signals) -> Result<Told, SupervisorError> {
        let every = systemd::watchdog().map_or(PING_INTERVAL, |every| every / 3);
        let mut ping = interval(every);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                ended = self.child.wait() => return Err(ended_by_itself(ended)),
                told = signals.told() => match told {
                    Told::Reload => self.link.say(&Order::Reload).await,
                    told => return Ok(told),
                },
                _ = ping.tick() => self.link.say(&Order::Ping).await,
                report = self.link.report() => if report == Some(Report::Pong) { systemd::alive() },
            }
        }
    }
}

fn ended_by_itself(ended: io::Result<ExitStatus>) -> SupervisorError {
    match ended {
        Ok(status) => SupervisorError::WorkerEnded(status),
        Err(source) => SupervisorError::Io { what: "the worker", source },
    }
}

/// The way to a worker, this supervisor's or one's before it.
#[derive(Clone)]
struct Link {
    pid: Pid,
    channel: Arc<Channel>,
}

impl Link {
    fn new(pid: Pid, channel: Channel) -> Self {
        Self { pid, channel: Arc::new(channel) }
    }

    async fn say(&self, order: &Order) {
        if let Err(error) = self.channel.send(&order.to_string(), None).await {
            tracing::debug!(%error, pid = self.pid.as_raw_nonzero(), %order, "a worker does not listen");
        }
    }

    /// What it says next; what concerns sockets is done. Where it says nothing any more, this never ends.
    async fn report(&self) -> Option<Report> {
        let Ok(Some((text, descriptor))) = self.channel.receive().await else {
            return std::future::pending().await;
        };
        let report =
            text.parse().inspect_err(|error| tracing::warn!(%error, "a word of the worker is passed over"));
        match (report.ok()?, descriptor) {
            (Report::Keep(name), Some(socket)) => systemd::keep(name, &socket),
            (Report::Keep(name), None) => tracing::warn!(%name, "a socket did not come along"),
            (Report::Forget(name), _) => systemd::forget(&name.to_string()),
            (report, _) => return Some(report),
        }
        None
    }

    /// Lets it end what it carries; by force, if it takes longer.
    async fn drain(self, patience: Duration) {
        self.say(&Order::Drain(patience)).await;
        if timeout(patience.saturating_add(OVERDUE), self.gone()).await.is_ok() {
            return;
        }
        tracing::warn!(pid = self.pid.as_raw_nonzero(), "a worker did not end in its time; it is killed");
        if let Err(error) = kill_process(self.pid, Signal::KILL) {
            tracing::warn!(%error, "it could not be killed");
        }
    }

    /// Its end of the channel is open for as long as it lives. What it still has to say concerns nobody: the sockets are
    /// another's.
    async fn gone(&self) {
        while matches!(self.channel.receive().await, Ok(Some(_))) {}
    }
}
