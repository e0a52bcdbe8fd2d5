//! The control plane as this provider talks to it: any of its servers will do. What passes by itself, a server that is gone
//! or an election, is waited out within a bound; who writes is told whether an earlier try may have done it already.

use std::{
    future::Future,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use model::client::{Client, ClientError, Settings};

/// How often each server is asked until an answer comes: with the pauses, some 20 seconds. An election takes one or two.
const ROUNDS_MAX: usize = 14;
/// The pause after the first round; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two rounds.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// As many servers are asked in turn: a control plane has five at most, each perhaps with two names.
pub(crate) const ADDRESSES_MAX: usize = 16;

/// The servers of one control plane.
#[derive(Debug)]
pub(crate) struct Control {
    servers: Vec<Client>,
    /// Whose turn it is: who answered last is asked first.
    turn: AtomicUsize,
}

/// What came of a question.
#[derive(Debug)]
pub(crate) struct Asked<T> {
    /// The last answer.
    pub(crate) answer: Result<T, ClientError>,
    /// Whether there was an earlier try whose end nobody knows.
    pub(crate) again: bool,
}

impl Control {
    /// A client of each of these servers. Nothing is dialled yet.
    ///
    /// # Errors
    /// If the settings make no client, or there are none.
    pub(crate) fn new(settings: Vec<Settings>) -> Result<Self, ClientError> {
        if settings.is_empty() || settings.len() > ADDRESSES_MAX {
            let message = format!("there must be 1 to {ADDRESSES_MAX} addresses, are {}", settings.len());
            return Err(ClientError::Settings(message));
        }
        let servers = settings.into_iter().map(Client::new).collect::<Result<_, _>>()?;
        Ok(Self { servers, turn: AtomicUsize::new(0) })
    }

    /// Asks until there is an answer, at one server after the other.
    pub(crate) async fn ask<T, F>(&self, ask: impl Fn(Client) -> F) -> Asked<T>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let (mut again, mut pause) = (false, PAUSE);
        for tried in 1..=ROUNDS_MAX * self.servers.len() {
            let turn = self.turn.load(Ordering::Relaxed);
            let answer = ask(self.servers[turn % self.servers.len()].clone()).await;
            let last = tried == ROUNDS_MAX * self.servers.len();
            if last || !answer.as_ref().is_err_and(passes) {
                return Asked { answer, again };
            }
            again = true;
            // Of many who found it gone at once, one moves on.
            _ = self.turn.compare_exchange(turn, turn + 1, Ordering::Relaxed, Ordering::Relaxed);
            if tried % self.servers.len() == 0 {
                tokio::time::sleep(pause).await;
                pause = PAUSE_MAX.min(pause * 2);
            }
        }
        unreachable!("there is a last try")
    }

    /// Asks each server at most once, without a pause.
    ///
    /// # Errors
    /// What the last one said.
    pub(crate) async fn ask_once<T, F>(&self, ask: impl Fn(Client) -> F) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        let turn = self.turn.load(Ordering::Relaxed);
        for tried in 1..=self.servers.len() {
            let answer = ask(self.servers[(turn + tried - 1) % self.servers.len()].clone()).await;
            if tried == self.servers.len() || !answer.as_ref().is_err_and(passes) {
                return answer;
            }
        }
        unreachable!("there is a last server")
    }
}

/// Whether another server, or the same one later, may answer otherwise.
fn passes(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } | ClientError::Answer(_) => true,
        ClientError::Refused(problem) => matches!(problem.status, 429 | 502 | 503 | 504),
        ClientError::Settings(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use model::problem::Problem;

    use super::*;

    fn control(servers: usize) -> Control {
        let address = |n| Settings { address: format!("https://cp{n}:8443"), ..Settings::default() };
        Control::new((0..servers).map(address).collect()).expect("settings")
    }

    fn refused(status: u16) -> ClientError {
        ClientError::Refused(Box::new(Problem::new(status, "", "")))
    }

    /// What is answered in turn, and what comes of it.
    async fn ask(control: &Control, answers: Vec<Result<u8, ClientError>>) -> (Option<u8>, bool, usize) {
        let (left, asked) = (Mutex::new(answers), Mutex::new(0));
        let done = control
            .ask(|_| {
                *asked.lock().expect("sound") += 1;
                let mut left = left.lock().expect("sound");
                let answer = if left.is_empty() { Err(refused(503)) } else { left.remove(0) };
                std::future::ready(answer)
            })
            .await;
        (done.answer.ok(), done.again, asked.into_inner().expect("sound"))
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_waited_out_and_told() {
        let control = control(3);
        let gone = || ClientError::Unreachable { address: String::new(), cause: String::new() };
        assert_eq!(ask(&control, vec![Ok(1)]).await, (Some(1), false, 1));
        let answers = vec![Err(gone()), Err(refused(503)), Err(refused(429)), Ok(2)];
        assert_eq!(ask(&control, answers).await, (Some(2), true, 4));
        assert_eq!(control.turn.load(Ordering::Relaxed) % 3, 0, "each was asked once, and the first again");
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_pass_is_answered_at_once_and_all_else_in_the_end() {
        assert_eq!(ask(&control(3), vec![Err(refused(412)), Ok(1)]).await, (None, false, 1));
        assert_eq!(ask(&control(2), Vec::new()).await, (None, true, 2 * ROUNDS_MAX));
    }

    #[test]
    fn there_are_some_servers_and_not_too_many() {
        assert!(Control::new(Vec::new()).is_err());
        let address = Settings { address: "https://cp:8443".to_owned(), ..Settings::default() };
        assert!(Control::new(vec![address; ADDRESSES_MAX + 1]).is_err());
    }
}
