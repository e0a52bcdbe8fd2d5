//! Pure. The set of objects that a proxy holds: always as of one revision. What a stream brings is kept aside until the
//! stream says that it is complete.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use imbl::OrdMap;
use model::{
    kind::Kind,
    name::ServiceName,
    object::{Key, Object},
    proxy::Line,
    trust::TrustBundle,
};
use serde::{Deserialize, Serialize};

/// Destinations that are subscribed: each is a part of the configuration that is held and kept on disk.
pub const SUBSCRIPTIONS_MAX: usize = 5_000;

/// What is held, as of a revision.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Held {
    /// The cluster's history; revisions of others say nothing.
    pub epoch: String,
    /// As of which revision; 0 before anything came.
    pub revision: u64,
    /// The destinations whose endpoints and routes are in it.
    pub subscribed: Arc<BTreeSet<ServiceName>>,
    /// The kinds that were understood when it came: objects of others were passed over.
    pub kinds: BTreeSet<String>,
    /// The objects. Copies share what did not change.
    #[serde(with = "as_list")]
    pub objects: OrdMap<Key, Arc<Object>>,
}

/// What a stream has brought since the last sync.
#[derive(Debug)]
pub struct Coming {
    /// It brings everything; otherwise what changed.
    whole: bool,
    subscribed: Arc<BTreeSet<ServiceName>>,
    changes: BTreeMap<Key, Option<Arc<Object>>>,
}

/// What a line means.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// More is to come.
    Nothing,
    /// The set is complete; whether it differs from before.
    Complete {
        /// Something changed, or more is subscribed.
        changed: bool,
    },
    /// Whom to trust from now on.
    Trust(Box<TrustBundle>),
    /// The stream has to begin anew, without resuming.
    Restart,
}

impl Held {
    /// Whether nothing was passed over that this program understands; what an older one held may lack objects.
    pub fn is_whole(&self) -> bool {
        Kind::ALL.iter().all(|kind| self.kinds.contains(kind.as_str()))
    }

    /// How to ask for a stream that goes on from here, with `wanted` subscribed too; and what takes its lines. What is
    /// added stands among the subscribed ones, too.
    pub fn ask(&self, wanted: &BTreeSet<ServiceName>, resume: bool) -> (String, Coming) {
        let list = |services: &BTreeSet<ServiceName>| {
            services.iter().take(SUBSCRIPTIONS_MAX).map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        let resume = resume && self.revision > 0;
        let all: BTreeSet<_> = self.subscribed.union(wanted).cloned().collect();
        let path = if resume {
            let added: BTreeSet<_> = wanted.difference(&self.subscribed).cloned().collect();
            let add = if added.is_empty() { String::new() } else { format!("&add={}", list(&added)) };
            format!("/v1/proxy/watch?subscribe={}{add}&from={}", list(&all), self.revision)
        } else {
            format!("/v1/proxy/watch?subscribe={}", list(&all))
        };
        let more = all.len() > self.subscribed.len();
        let subscribed = if more { Arc::new(all) } else { Arc::clone(&self.subscribed) };
        (path, Coming { whole: !resume, subscribed, changes: BTreeMap::new() })
    }

    /// Takes a line of the stream.
    pub fn step(&mut self, coming: &mut Coming, line: Line) -> Step {
        match line {
            Line::Put { object } => drop(coming.changes.insert(object.key(), Some(Arc::new(object)))),
            Line::Delete { object } => drop(coming.changes.insert(object.key(), None)),
            Line::Trust { trust } => return Step::Trust(Box::new(trust)),
            Line::Sync { revision } => return self.complete(coming, revision),
            Line::Error { .. } => return Step::Restart,
        }
        Step::Nothing
    }

    fn complete(&mut self, coming: &mut Coming, revision: u64) -> Step {
        let more = !Arc::ptr_eq(&self.subscribed, &coming.subscribed) && self.subscribed != coming.subscribed;
        let before = (self.objects.clone(), self.revision == 0);
        if std::mem::take(&mut coming.whole) {
            self.kinds = Kind::ALL.iter().map(|kind| kind.as_str().to_owned()).collect();
            let old = std::mem::take(&mut self.objects);
            // An object that did not change stays the same one: nothing is compiled anew for it.
            for (key, object) in std::mem::take(&mut coming.changes) {
                let Some(object) = object else { continue };
                let same = old.get(&key).filter(|old| **old == object).cloned();
                self.objects.insert(key, same.unwrap_or(object));
            }
        } else {
            self.kinds.retain(|kind| Kind::named(kind).is_some());
            for (key, object) in std::mem::take(&mut coming.changes) {
                match object {
                    Some(object) => drop(self.objects.insert(key, object)),
                    None => drop(self.objects.remove(&key)),
                }
            }
        }
        self.revision = revision;
        self.subscribed = Arc::clone(&coming.subscribed);
        let (objects, first) = before;
        // What the two share is not compared.
        Step::Complete { changed: first || more || objects != self.objects }
    }
}

/// A map whose keys stand in its values, as a list of the values.
mod as_list {
    use super::*;

    pub(super) fn serialize<S: serde::Serializer>(
        objects: &OrdMap<Key, Arc<Object>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(objects.values())
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<OrdMap<Key, Arc<Object>>, D::Error> {
        let objects = Vec::<Arc<Object>>::deserialize(deserializer)?;
        Ok(objects.into_iter().map(|object| (object.key(), object)).collect())
    }
}

#[cfg(test)]
mod tests {
    use model::proxy::parse_line;

    use super::*;

    fn line(text: &str) -> Line {
        parse_line(text.as_bytes()).expect("a line")
    }

    fn put(name: &str, n: u32) -> Line {
        let spec = format!("{{\"ports\":[{{\"port\":{n}}}]}}");
        let metadata = format!("{{\"namespace\":\"default\",\"name\":\"{name}\"}}");
        line(&format!(
            "{{\"type\":\"put\",\"object\":{{\"kind\":\"Service\",\"metadata\":{metadata},\"spec\":{spec}}}}}"
        ))
    }

    fn delete(name: &str) -> Line {
        let Line::Put { object } = put(name, 1) else { panic!("a put") };
        Line::Delete { object }
    }

    fn names(held: &Held) -> String {
        let name =
            |(key, object): (&Key, &Arc<Object>)| format!("{}:{}", key.name, object.spec["ports"][0]["port"]);
        held.objects.iter().map(name).collect::<Vec<_>>().join(" ")
    }

    fn services(text: &str) -> BTreeSet<ServiceName> {
        text.split_whitespace().map(|name| format!("default/{name}").parse().expect("a name")).collect()
    }

    #[test]
    fn a_set_is_complete_only_at_its_sync() {
        let mut held = Held::default();
        let (path, mut coming) = held.ask(&services("a b"), true);
        assert_eq!(path, "/v1/proxy/watch?subscribe=default/a,default/b");
        assert_eq!(held.step(&mut coming, put("a", 1)), Step::Nothing);
        assert_eq!((names(&held).as_str(), held.revision), ("", 0));
        assert_eq!(held.step(&mut coming, Line::Sync { revision: 7 }), Step::Complete { changed: true });
        assert_eq!((names(&held).as_str(), held.revision), ("a:1", 7));
        held.step(&mut coming, put("b", 1));
        held.step(&mut coming, delete("a"));
        assert_eq!(names(&held), "a:1");
        assert_eq!(held.step(&mut coming, Line::Sync { revision: 9 }), Step::Complete { changed: true });
        assert_eq!(names(&held), "b:1");
        assert_eq!(held.step(&mut coming, Line::Sync { revision: 10 }), Step::Complete { changed: false });
        assert_eq!(held.revision, 10);
    }

    #[test]
    fn a_stream_resumes_and_adds_what_is_new() {
        let mut held = Held::default();
        let (_, mut coming) = held.ask(&services("a"), true);
        held.step(&mut coming, put("a", 1));
        held.step(&mut coming, Line::Sync { revision: 7 });
        // Broken off before its sync: nothing of it counts.
        held.step(&mut coming, put("x", 1));
        let (path, mut coming) = held.ask(&services("b"), true);
        assert_eq!(path, "/v1/proxy/watch?subscribe=default/a,default/b&add=default/b&from=7");
        assert_eq!(held.step(&mut coming, Line::Sync { revision: 8 }), Step::Complete { changed: true });
        assert_eq!((names(&held).as_str(), &*held.subscribed), ("a:1", &services("a b")));
        assert_eq!(held.ask(&services("a"), true).0, "/v1/proxy/watch?subscribe=default/a,default/b&from=8");
    }

    #[test]
    fn a_stream_without_from_is_everything_and_what_it_does_not_bring_is_gone() {
        let mut held = Held::default();
        let (_, mut coming) = held.ask(&services("a b"), true);
        held.step(&mut coming, put("a", 1));
        held.step(&mut coming, put("b", 1));
        held.step(&mut coming, Line::Sync { revision: 7 });
        assert_eq!(held.step(&mut coming, Line::Error { status: 410 }), Step::Restart);
        let kept = held.objects.values().next().expect("a").clone();
        let (path, mut coming) = held.ask(&services(""), false);
        assert_eq!(path, "/v1/proxy/watch?subscribe=default/a,default/b");
        held.step(&mut coming, put("a", 1));
        assert_eq!(names(&held), "a:1 b:1", "the old set stands until the new one is whole");
        held.step(&mut coming, Line::Sync { revision: 3 });
        assert_eq!((names(&held).as_str(), held.revision), ("a:1", 3));
        assert!(
            Arc::ptr_eq(&kept, held.objects.values().next().expect("a")),
            "what did not change is the same"
        );
    }

    #[test]
    fn what_a_program_held_that_knew_fewer_kinds_is_not_whole() {
        let mut held: Held =
            serde_json::from_str(r#"{"epoch":"e","revision":7,"objects":[]}"#).expect("of 0.1.0");
        let (_, mut coming) = held.ask(&services(""), true);
        held.step(&mut coming, Line::Sync { revision: 8 });
        assert!(!held.is_whole(), "changes bring nothing that was passed over before");
        let (path, mut coming) = held.ask(&services(""), held.is_whole());
        assert_eq!(path, "/v1/proxy/watch?subscribe=");
        held.step(&mut coming, Line::Sync { revision: 9 });
        assert!(held.is_whole());
        held.kinds.insert("Later".to_owned());
        let (_, mut coming) = held.ask(&services(""), true);
        held.step(&mut coming, Line::Sync { revision: 10 });
        assert!(!held.kinds.contains("Later"), "this program passed its changes over");
    }

    #[test]
    fn it_is_kept_as_json_and_read_again() {
        let mut held = Held { epoch: "e".to_owned(), ..Held::default() };
        let (_, mut coming) = held.ask(&services("a"), true);
        held.step(&mut coming, put("a", 1));
        held.step(&mut coming, Line::Sync { revision: 7 });
        let text = serde_json::to_string(&held).expect("it serialises");
        let read: Held = serde_json::from_str(&text).expect("it parses");
        assert_eq!((read.revision, read.epoch.as_str(), names(&read).as_str()), (7, "e", "a:1"));
        assert!(serde_json::from_str::<Held>("{\"later\":1}").is_ok(), "unknown fields are passed over");
    }
}
