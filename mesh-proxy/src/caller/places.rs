//! Which cgroup a number is: the kernel names a socket's cgroup by the number of its folder. What was seen is remembered,
//! and the folders are walked again for a number that nobody knows, rarely enough that whoever makes cgroups can keep us
//! busy with no more than that.

use std::{
    collections::{HashMap, HashSet},
    os::unix::fs::DirEntryExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{sync::Mutex, time::sleep_until};

use crate::clock;

/// From the start of one walk to the next: a walk takes a millisecond or two, so that a user who makes cgroups without
/// end costs a fiftieth of a core; and a service that was just started waits no longer than this at its first call.
pub const WALK_PAUSE: Duration = Duration::from_millis(100);
/// Cgroups that are looked at in one walk; only what may hold a bound service is.
pub const CGROUPS_MAX: usize = 16_384;
/// Numbers that are known to be elsewhere; when there are more, all are forgotten and learned anew.
pub const ELSEWHERE_MAX: usize = 1_024;
/// Where the one hierarchy may be: by itself, or beside those of old.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The cgroups that may matter, by number.
#[derive(Debug, Default)]
pub(super) struct Places {
    root: Option<PathBuf>,
    known: ArcSwap<Known>,
    /// When the last walk began; held during one.
    walked: Mutex<Option<Instant>>,
}

#[derive(Debug, Default, Clone)]
struct Known {
    paths: HashMap<u64, Arc<str>>,
    /// They are no place that matters. A cgroup is never moved, and its number never used again.
    elsewhere: HashSet<u64>,
}

/// Where this system has the one hierarchy of cgroups.
pub fn root() -> Option<PathBuf> {
    // `CGROUP2_SUPER_MAGIC` of linux/magic.h; its type differs between architectures.
    let is_cgroup2 = |path: &str| rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == 0x6367_7270);
    ROOTS.into_iter().find(|path| is_cgroup2(path)).map(PathBuf::from)
}

impl Places {
    /// Nothing is known yet of what stands below `root`.
    pub(super) fn new(root: Option<PathBuf>) -> Self {
        Self { root, ..Self::default() }
    }

    /// The path of a cgroup, if it is one to which `leads` leads.
    pub(super) async fn path<F>(&self, number: u64, leads: F) -> Option<Arc<str>>
    where
        F: Fn(&str) -> bool + Send + 'static,
    {
        let root = self.root.clone()?;
        if let Some(found) = self.known.load().find(number) {
            return found;
        }
        let asked = clock::now();
        let mut walked = self.walked.lock().await;
        // Others walked while this one waited; if they began after the socket was there, they saw its cgroup.
        if let Some(found) = self.known.load().find(number) {
            return found;
        }
        if walked.is_none_or(|began| began <= asked) {
            if let Some(began) = *walked {
                sleep_until((began + WALK_PAUSE).into()).await;
            }
            *walked = Some(clock::now());
            let seen = tokio::task::spawn_blocking(move || walk(&root, &leads)).await;
            let elsewhere = self.known.load().elsewhere.clone();
            self.known.store(Arc::new(Known { paths: seen.unwrap_or_default(), elsewhere }));
        }
        self.known.rcu(|known| known.with(number));
        self.known.load().find(number).flatten()
    }
}

impl Known {
    /// `None` is a number that was never seen.
    fn find(&self, number: u64) -> Option<Option<Arc<str>>> {
        let path = self.paths.get(&number).map(|path| Some(path.clone()));
        path.or_else(|| self.elsewhere.contains(&number).then_some(None))
    }

    /// With a number that is elsewhere, unless it is known.
    fn with(&self, number: u64) -> Self {
        let mut known = self.clone();
        if !known.paths.contains_key(&number) {
            if known.elsewhere.len() >= ELSEWHERE_MAX {
                known.elsewhere.clear();
            }
            known.elsewhere.insert(number);
        }
        known
    }
}

/// The cgroups to which `leads` leads, by number.
fn walk(root: &Path, leads: &dyn Fn(&str) -> bool) -> HashMap<u64, Arc<str>> {
    let (mut paths, mut waiting) = (HashMap::new(), vec![String::new()]);
    while let Some(above) = waiting.pop() {
        // What is gone by now holds no process any more.
        let entries = std::fs::read_dir(root.join(above.trim_start_matches('/')));
        for entry in entries.into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = format!("{above}/{name}");
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || !leads(&path) {
                continue;
            }
            if paths.len() >= CGROUPS_MAX {
                return paths;
            }
            paths.insert(entry.ino(), Arc::from(path.as_str()));
            waiting.push(path);
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn folder(root: &Path, path: &str) -> u64 {
        let path = root.join(path);
        std::fs::create_dir_all(&path).expect("made");
        std::fs::metadata(path).expect("it is there").ino()
    }

    fn leads(path: &str) -> bool {
        !path.starts_with("/elsewhere")
    }

    #[tokio::test(start_paused = true)]
    async fn a_number_is_found_once_its_folder_is_there_and_what_is_elsewhere_is_not() {
        let root = tempfile::tempdir().expect("a folder");
        let (a, other) = (folder(root.path(), "x/a"), folder(root.path(), "elsewhere/a"));
        let places = Places::new(Some(root.path().to_owned()));
        assert_eq!(places.path(a, leads).await.as_deref(), Some("/x/a"));
        assert_eq!(places.path(other, leads).await, None);
        let later = folder(root.path(), "x/b");
        assert_eq!(places.path(later, leads).await.as_deref(), Some("/x/b"));
        assert_eq!(Places::new(None).path(a, leads).await, None);
    }

    #[tokio::test]
    async fn numbers_without_end_cost_a_bounded_number_of_walks() {
        let root = tempfile::tempdir().expect("a folder");
        let a = folder(root.path(), "x/a");
        let places = Arc::new(Places::new(Some(root.path().to_owned())));
        let walks = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let began = clock::now();
        let ask = |number: u64| {
            let (places, walks) = (places.clone(), walks.clone());
            async move {
                let counted = move |path: &str| {
                    walks.fetch_add(usize::from(path == "/x"), std::sync::atomic::Ordering::Relaxed);
                    true
                };
                places.path(number, counted).await
            }
        };
        // Whoever asks at once shares a walk, and a bound service waits no longer than one.
        let hostile = (0..3 * ELSEWHERE_MAX as u64).map(|number| ask(u64::MAX - number));
        let found = futures_util::future::join_all(hostile.chain([ask(a)])).await;
        assert_eq!(found.last().expect("one").as_deref(), Some("/x/a"));
        assert_eq!(found.iter().flatten().count(), 1);
        let spent = clock::now() - began;
        let most = 2 + usize::try_from(spent.as_millis() / WALK_PAUSE.as_millis()).expect("few");
        let walks = walks.load(std::sync::atomic::Ordering::Relaxed);
        assert!(walks <= most, "{walks} walks in {spent:?}");
        assert!(places.known.load().elsewhere.len() <= ELSEWHERE_MAX);
    }
}
