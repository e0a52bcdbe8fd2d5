//! Lines on their way to where they are written. Each runtime thread leaves them in a place of its own; one writer comes
//! by, takes all that lie there, and writes them with one system call.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle, Thread},
    time::Duration,
};

use parking_lot::Mutex;

/// Lines of one runtime thread that wait to be written, of some 500 bytes each: a second of a busy host.
pub const ACCESS_LOG_LINES_MAX: usize = 8_192;
/// How long the writer waits for more once it has written: to wake it for each line costs more than the line.
const GATHERING: Duration = Duration::from_millis(50);
/// So much of one thread is written at once however short it lay there, in bytes: some hundred lines.
const MUCH_BYTES: usize = 64 * 1_024;
/// Memory that is kept for the lines to come, in bytes.
const KEPT_BYTES: usize = 2 * MUCH_BYTES;

/// What one thread left.
#[derive(Default)]
pub(super) struct Lines(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    text: Vec<u8>,
    count: usize,
}

/// Where all threads leave theirs. When it is dropped, all is written.
pub(super) struct Desk {
    inner: Arc<Inner>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Inner {
    threads: Mutex<Vec<Arc<Lines>>>,
    /// The writer sleeps until it is woken.
    sleeps: AtomicBool,
    closed: AtomicBool,
    dropped: AtomicU64,
}

impl Desk {
    /// Starts a thread that writes to `writer`.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub(super) fn open(writer: impl Write + Send + 'static) -> io::Result<Self> {
        Self::gathering(writer, GATHERING)
    }

    fn gathering(writer: impl Write + Send + 'static, gathering: Duration) -> io::Result<Self> {
        let inner = Arc::<Inner>::default();
        let own = inner.clone();
        let named = thread::Builder::new().name("access-log".to_owned());
        let writer = named.spawn(move || own.write_all(writer, gathering))?;
        Ok(Self { inner, writer: Some(writer) })
    }

    /// A place for one thread's.
    pub(super) fn lines(&self) -> Arc<Lines> {
        let lines = Arc::<Lines>::default();
        self.inner.threads.lock().push(lines.clone());
        lines
    }

    pub(super) fn dropped(&self) -> u64 {
        self.inner.dropped.load(Ordering::Relaxed)
    }

    /// Leaves a line, which `write` writes, or drops it.
    pub(super) fn leave(&self, lines: &Lines, write: impl FnOnce(&mut Vec<u8>)) {
        let much = {
            let mut waiting = lines.0.lock();
            if waiting.count >= ACCESS_LOG_LINES_MAX {
                self.inner.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            let before = waiting.text.len();
            waiting.count += 1;
            write(&mut waiting.text);
            waiting.text.push(b'\n');
            before < MUCH_BYTES && waiting.text.len() >= MUCH_BYTES
        };
        // Either this sees that the writer sleeps, or the writer saw the line before it fell asleep.
        let asleep =
            self.inner.sleeps.load(Ordering::SeqCst) && self.inner.sleeps.swap(false, Ordering::SeqCst);
        if much || asleep {
            self.wake();
        }
    }

    fn wake(&self) {
        self.writer.as_ref().map(JoinHandle::thread).into_iter().for_each(Thread::unpark);
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.inner.closed.store(true, Ordering::SeqCst);
        self.wake();
        if self.writer.take().is_some_and(|writer| writer.join().is_err()) {
            tracing::error!("the writer of the access log has failed");
        }
    }
}

impl Inner {
    fn write_all(&self, mut writer: impl Write, gathering: Duration) {
        let mut text = Vec::new();
        loop {
            let closed = self.closed.load(Ordering::SeqCst);
            if self.write(&mut writer, &mut text) {
                // Who ended it waits, and nothing more comes.
                if !closed {
                    thread::park_timeout(gathering);
                }
            } else if closed {
                return;
            } else {
                self.sleeps.store(true, Ordering::SeqCst);
                if !self.write(&mut writer, &mut text) && !self.closed.load(Ordering::SeqCst) {
                    thread::park();
                }
                self.sleeps.store(false, Ordering::SeqCst);
            }
        }
    }

    /// Writes what lies there; whether that was anything. `text` is an empty buffer, for the next lines.
    fn write(&self, writer: &mut impl Write, text: &mut Vec<u8>) -> bool {
        let threads = self.threads.lock().clone();
        let mut any = false;
        for lines in threads {
            let count = {
                let mut waiting = lines.0.lock();
                std::mem::swap(&mut waiting.text, text);
                std::mem::take(&mut waiting.count)
            };
            if count > 0 {
                any = true;
                let written = writer.write_all(text).and_then(|()| writer.flush());
                if written.is_err() {
                    self.dropped.fetch_add(count as u64, Ordering::Relaxed);
                }
            }
            text.clear();
            text.shrink_to(KEPT_BYTES);
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn all_lines_of_all_threads_are_written_whole_and_in_order_before_it_ends() {
        let written = Written::default();
        let desk = Desk::open(written.clone()).expect("a thread");
        thread::scope(|scope| {
            for name in 0..4 {
                let (desk, lines) = (&desk, desk.lines());
                scope.spawn(move || {
                    for n in 0..2_000 {
                        desk.leave(&lines, |text| write!(text, "{name} {n}").expect("memory"));
                    }
                });
            }
        });
        drop(desk);
        let text = String::from_utf8(written.0.lock().clone()).expect("text");
        for name in 0..4 {
            let own = text.lines().filter_map(|line| line.strip_prefix(&format!("{name} ")));
            let numbers: Vec<usize> = own.map(|n| n.parse().expect("a number")).collect();
            assert_eq!(numbers, (0..2_000).collect::<Vec<_>>(), "of {name}");
        }
        assert_eq!(text.lines().count(), 8_000);
    }

    /// Who says how much it was given.
    struct Telling(std::sync::mpsc::SyncSender<usize>);

    impl Write for Telling {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(bytes.len());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// With an hour to gather, whatever comes in time comes by itself.
    #[test]
    fn the_first_line_is_written_at_once_and_much_before_the_time_is_over() {
        let (tell, told) = std::sync::mpsc::sync_channel(8);
        let desk = Desk::gathering(Telling(tell), Duration::from_secs(3_600)).expect("a thread");
        let (lines, line) = (desk.lines(), vec![b'x'; 1_023]);
        let leave = |count| (0..count).for_each(|_| desk.leave(&lines, |text| text.extend_from_slice(&line)));
        let in_time = || told.recv_timeout(Duration::from_secs(10)).expect("it is written");
        leave(1);
        assert_eq!(in_time(), 1_024);
        // Some of it goes by itself if the writer has fallen asleep meanwhile.
        leave(3 * MUCH_BYTES / 1_024);
        let mut written = 0;
        while written < MUCH_BYTES {
            written += in_time();
        }
        drop(desk);
        assert_eq!(written + told.iter().sum::<usize>(), 3 * MUCH_BYTES, "the rest as it ends");
    }

    /// Somebody who lets nobody pass until he is told.
    struct Stuck(std::sync::mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_writer_that_is_stuck_holds_up_nobody_and_what_is_lost_is_counted() {
        let (go_on, stuck) = std::sync::mpsc::sync_channel(0);
        let desk = Desk::open(Stuck(stuck)).expect("a thread");
        let lines = desk.lines();
        // It may take what lies there once, and no more.
        for _ in 0..2 * ACCESS_LOG_LINES_MAX + 1 {
            desk.leave(&lines, |text| text.push(b'x'));
        }
        assert!((1..=ACCESS_LOG_LINES_MAX as u64 + 1).contains(&desk.dropped()), "{} lost", desk.dropped());
        drop(go_on);
    }
}
