//! Pure. Hosts that ask to come back without a token. Strangers may ask, too, so that what they can take is bounded: not
//! by node, else one of them would keep its host out, but by where they come from.

use std::sync::Arc;

use model::{
    duration::Millis,
    identity::Identity,
    kind::Kind,
    name::Name,
    object::Key,
    rejoin::{REQUEST_LIFE, RejoinRecord, Standing, Verdict},
};

use super::{State, table::digest};
use crate::command::{Filing, Judgement, Refusal, Refused, RejoinStep, Reply};

/// The command version since which hosts come back by approval.
pub const REJOIN_REQUESTS_SINCE: u32 = 4;
/// The most requests at once, some 1 KiB each and never more than 9: far more than operators look through within the hour that each is kept.
pub const REJOIN_REQUESTS_MAX: usize = 256;
/// Of these from one address (of IPv6: one /64): a rack behind one address comes back in some turns, and a stranger at one address leaves room
/// for all others.
pub const REJOIN_REQUESTS_PER_NETWORK_MAX: usize = 16;
/// Hex digits of a request's id: 80 bits, which nobody guesses, and short enough to be typed.
const ID_DIGITS: usize = 20;
/// What the host of a request is told when another one of its name was approved.
const SUPERSEDED: &str = "another key of this node was approved";

impl State {
    pub(super) fn rejoin(&mut self, step: RejoinStep) -> Result<Reply, Refusal> {
        match step {
            RejoinStep::File(filing) => self.file(*filing),
            RejoinStep::Judge(judgement) => self.judge(*judgement),
        }
    }

    /// A request to come back; expired ones are kept for a while.
    pub fn rejoin_request(&self, id: &str) -> Option<&Arc<RejoinRecord>> {
        self.requests.get(id)
    }

    /// All requests to come back, by id.
    pub fn rejoin_requests(&self) -> impl Iterator<Item = (&str, &Arc<RejoinRecord>)> {
        self.requests.iter().map(|(id, record)| (id.as_str(), record))
    }

    /// Whether a host may ask at `now`: the request that its key has already, or none where there is room for it.
    ///
    /// # Errors
    /// There is no such node, or there are too many requests.
    pub fn may_file(&self, filing: &Filing, now: Millis) -> Result<Option<Arc<RejoinRecord>>, Refusal> {
        let key = Key::mesh_wide(Kind::Node, filing.node.clone());
        if self.objects.get(&key).is_none() {
            return Err(Refusal::NotFound { key });
        }
        let counts = |record: &&Arc<RejoinRecord>| record.standing(now) != Standing::Expired;
        let kept = self.requests.get(&rejoin_request_id(&filing.node, &filing.fingerprint)).filter(counts);
        if kept.is_some() {
            return Ok(kept.cloned());
        }
        let all = || self.requests.iter().map(|(_, record)| record).filter(counts);
        let near = all().filter(|record| record.network == filing.network).count();
        for (whose, count, limit) in [
            (format!("from {}", filing.network), near, REJOIN_REQUESTS_PER_NETWORK_MAX),
            ("in all".to_owned(), all().count(), REJOIN_REQUESTS_MAX),
        ] {
            if count >= limit {
                return Err(Refusal::Crowded {
                    what: format!("requests to rejoin {whose}"),
                    limit: limit as u64,
                });
            }
        }
        Ok(None)
    }

    fn file(&mut self, filing: Filing) -> Result<Reply, Refusal> {
        let id = rejoin_request_id(&filing.node, &filing.fingerprint);
        if let Some(record) = self.may_file(&filing, self.time)? {
            return Ok(Reply::Requested { id, record });
        }
        let now = self.time;
        self.drop_requests(|record| record.standing(now) == Standing::Expired);
        let Filing { node, fingerprint, csr, from, network, version } = filing;
        let (filed_at, expires_at, verdict) = (now, now.after(REQUEST_LIFE.duration()), None);
        let record =
            RejoinRecord { node, fingerprint, csr, from, network, version, filed_at, expires_at, verdict };
        Ok(self.keep_request(id, record))
    }

    /// Said twice is said once. Who was denied stays so; who was approved may still be denied.
    fn judge(&mut self, judgement: Judgement) -> Result<Reply, Refusal> {
        let Judgement { id, node, fingerprint, approved, reason, actor } = judgement;
        let unknown = || Refusal::NoRequest { id: id.clone() };
        let known = self.requests.get(&id).cloned().ok_or_else(unknown)?;
        if (&known.node, &known.fingerprint) != (&node, &fingerprint) {
            return Err(unknown());
        }
        let wanted = if approved { Standing::Approved } else { Standing::Denied };
        match known.standing(self.time) {
            standing if standing == wanted => return Ok(Reply::Requested { id, record: known }),
            Standing::Expired => return Err(Refusal::RequestExpired { id, node, at: known.expires_at }),
            Standing::Denied => return Err(Refusal::RequestDenied { id, node }),
            Standing::Pending | Standing::Approved => {}
        }
        let mut record = (*known).clone();
        if approved {
            record.expires_at = self.time.after(REQUEST_LIFE.duration());
            self.supersede(&id, &node, &actor);
        }
        record.verdict = Some(Verdict { approved, by: actor, at: self.time, reason });
        Ok(self.keep_request(id, record))
    }

    /// One key of a node is approved: all others are not.
    fn supersede(&mut self, id: &str, node: &Name, by: &str) {
        let others = self.requests.iter().filter(|(other, record)| *other != id && record.node == *node);
        let others: Vec<_> = others.map(|(id, record)| (id.clone(), (**record).clone())).collect();
        for (id, mut record) in others {
            let (by, at, reason) = (by.to_owned(), self.time, SUPERSEDED.to_owned());
            record.verdict = Some(Verdict { approved: false, by, at, reason });
            self.requests.insert(id, record);
        }
    }

    /// What was asked for in a node's name, or approved, is void: the node is gone, or distrusted since.
    pub(super) fn withdraw_requests(&mut self, node: &Name) {
        self.drop_requests(|record| record.node == *node);
    }

    /// The same, where what is refused is a node.
    pub(super) fn withdraw_refused(&mut self, refused: &Refused) {
        match refused {
            Refused::Node(node) => self.withdraw_requests(node),
            Refused::Id(id) => {
                if let Identity::Node(node) = id.identity() {
                    self.withdraw_requests(node);
                }
            }
            Refused::Intermediate(_) => {}
        }
    }

    /// What does not hold of a request.
    pub(super) fn misfiled(&self) -> Option<String> {
        if self.requests.len() > REJOIN_REQUESTS_MAX {
            return Some("there are more requests to rejoin than there may be".to_owned());
        }
        let wrong = self.requests.iter().find(|(id, record)| {
            !self.has_node(&record.node) || **id != rejoin_request_id(&record.node, &record.fingerprint)
        });
        wrong.map(|(id, record)| format!("request {id} outlived node {}, or is another's", record.node))
    }

    fn keep_request(&mut self, id: String, record: RejoinRecord) -> Reply {
        let record = Arc::new(record);
        self.requests.insert(id.clone(), record.clone());
        self.touched = true;
        Reply::Requested { id, record }
    }

    fn drop_requests(&mut self, gone: impl Fn(&RejoinRecord) -> bool) {
        let gone = self.requests.iter().filter(|(_, record)| gone(record));
        for id in gone.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.requests.remove(&id);
            self.touched = true;
        }
    }
}

/// The id of the request of a node for a key: who knows neither cannot guess it, and no two have one.
pub fn rejoin_request_id(node: &Name, fingerprint: &str) -> String {
    let mut id = format!("{:032x}", digest(node.as_str().as_bytes(), fingerprint.as_bytes()));
    id.truncate(ID_DIGITS);
    id
}
