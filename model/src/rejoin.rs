//! Pure. How a host comes back without a token: it files a request for a new key, and an operator who sees the same
//! fingerprint as the host shows approves it. What the cluster keeps of a request, the bodies of `/v1/ca/requests`, and how
//! a fingerprint is written for two people.

use serde::{Deserialize, Serialize};

use crate::{
    answer,
    ca::JoinAnswer,
    duration::{Millis, Timespan},
    name::Name,
    shape::choice,
};

/// So long a request waits for an operator, and so long an approved one for its host, in log time.
pub const REQUEST_LIFE: Timespan = Timespan::from_secs(60 * 60);
/// The longest reason of a denial, in bytes: a sentence.
pub const REASON_BYTES_MAX: usize = 256;
/// Hex digits of a key's fingerprint: SHA-256 over its SubjectPublicKeyInfo.
const FINGERPRINT_DIGITS: usize = 64;
/// As many digits of a fingerprint stand together: what an eye takes in at once.
const DIGITS_TOGETHER: usize = 4;

/// What the cluster keeps of a request. Times are of the log's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RejoinRecord {
    /// The host that wants to come back.
    pub node: Name,
    /// The key it asks for: SHA-256 over its SubjectPublicKeyInfo, lower-case hex.
    pub fingerprint: String,
    /// The certificate request (PEM), to be signed by whichever member the host asks when it is approved.
    pub csr: String,
    /// The address it was filed from, for people.
    pub from: String,
    /// That address, or its network where a host has a whole one: what requests are counted by.
    pub network: String,
    /// The proxy's version.
    #[serde(default)]
    pub version: String,
    /// When it was filed.
    pub filed_at: Millis,
    /// From this moment on it is worth nothing.
    pub expires_at: Millis,
    /// What an operator said.
    #[serde(default)]
    pub verdict: Option<Verdict>,
}

/// What an operator said to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Whether the host may come back.
    pub approved: bool,
    /// Who said so.
    pub by: String,
    /// When.
    pub at: Millis,
    /// Why not; empty where nothing was said.
    #[serde(default)]
    pub reason: String,
}

choice! {
    /// How a request stands.
    pub enum Standing {
        /// It waits for an operator.
        Pending = "pending",
        /// The host may have its certificate.
        Approved = "approved",
        /// It may not.
        Denied = "denied",
        /// It is too late.
        Expired = "expired",
    }
}

/// `POST /v1/ca/requests`: a host asks to come back. Sent only over a connection verified against roots that it knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RejoinRequest {
    /// Its name.
    pub node: Name,
    /// A certificate request (PEM); only its key is taken.
    pub csr: String,
    /// The proxy's version.
    #[serde(default)]
    pub version: String,
}

answer! {
    /// A request as the API shows it: to the host that polls without what is only the operators' matter.
    #[derive(Debug, Clone)]
    pub struct RejoinStatus {
        /// By what it is asked for: made of node and key, so that it cannot be guessed without knowing the key.
        "id" pub id: String,
        /// The host.
        "node" pub node: Name,
        /// SHA-256 over the SubjectPublicKeyInfo of its new key, lower-case hex.
        "fingerprint" pub fingerprint: String,
        /// How it stands.
        "state" pub state: Standing,
        /// When it was filed.
        "filedAt" pub filed_at: Millis,
        /// Until when it is worth something.
        "expiresAt" pub expires_at: Millis,
        /// Where it came from; only for operators.
        "from" #[serde(default, skip_serializing_if = "Option::is_none")] pub from: Option<String>,
        /// The proxy's version; only for operators.
        "version" #[serde(default, skip_serializing_if = "Option::is_none")] pub version: Option<String>,
        /// Who approved or denied it; only for operators.
        "by" #[serde(default, skip_serializing_if = "Option::is_none")] pub by: Option<String>,
        /// Why it was denied.
        "reason" #[serde(default, skip_serializing_if = "Option::is_none")] pub reason: Option<String>,
        /// What the host gets; only for the host, and only if it was approved.
        "joined" #[serde(default, skip_serializing_if = "Option::is_none")] pub joined: Option<JoinAnswer>,
    }
}

answer! {
    /// `GET /v1/ca/requests`.
    #[derive(Debug, Clone)]
    pub struct RejoinRequests {
        /// The server's clock: what ages are told by.
        "at" pub at: Millis,
        /// All that are kept, the oldest first.
        "items" pub items: Vec<RejoinStatus>,
    }
}

/// `POST /v1/ca/requests/{id}/approve`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Approval {
    /// The fingerprint that the host shows, in any grouping: another key is not approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// `POST /v1/ca/requests/{id}/deny`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Denial {
    /// What the host is told; at most [`REASON_BYTES_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl RejoinRecord {
    /// How it stands at `now`.
    pub fn standing(&self, now: Millis) -> Standing {
        match &self.verdict {
            _ if now >= self.expires_at => Standing::Expired,
            None => Standing::Pending,
            Some(verdict) if verdict.approved => Standing::Approved,
            Some(_) => Standing::Denied,
        }
    }

    /// As the host that polls is shown it at `now`.
    pub fn status(&self, id: &str, now: Millis) -> RejoinStatus {
        let reason = self.verdict.as_ref().map(|verdict| verdict.reason.clone());
        RejoinStatus {
            id: id.to_owned(),
            node: self.node.clone(),
            fingerprint: self.fingerprint.clone(),
            state: self.standing(now),
            filed_at: self.filed_at,
            expires_at: self.expires_at,
            from: None,
            version: None,
            by: None,
            reason: reason.filter(|reason| !reason.is_empty()),
            joined: None,
        }
    }

    /// As an operator is shown it at `now`.
    pub fn status_in_full(&self, id: &str, now: Millis) -> RejoinStatus {
        RejoinStatus {
            from: Some(self.from.clone()),
            version: Some(self.version.clone()).filter(|version| !version.is_empty()),
            by: self.verdict.as_ref().map(|verdict| verdict.by.clone()),
            ..self.status(id, now)
        }
    }
}

/// A fingerprint for two people to compare: `3f2a 91c0 …`.
pub fn grouped(fingerprint: &str) -> String {
    let digits: Vec<char> = fingerprint.chars().collect();
    let groups = digits.chunks(DIGITS_TOGETHER).map(|group| group.iter().collect::<String>());
    groups.collect::<Vec<_>>().join(" ")
}

/// A fingerprint as it was typed or copied, in any grouping and case; `None` where it is none, or only a part of one.
pub fn ungrouped(text: &str) -> Option<String> {
    let between = |c: &char| !c.is_whitespace() && !matches!(c, ':' | '-');
    let digits = text.chars().filter(between).map(|c| c.to_ascii_lowercase());
    let digits: String = digits.take(FINGERPRINT_DIGITS + 1).collect();
    let whole = digits.len() == FINGERPRINT_DIGITS && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    whole.then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(verdict: Option<bool>) -> RejoinRecord {
        let said =
            |approved| Verdict { approved, by: "ann".to_owned(), at: Millis(6), reason: String::new() };
        RejoinRecord {
            node: "host-a".parse().expect("a name"),
            fingerprint: "ab".repeat(32),
            csr: String::new(),
            from: "10.0.0.1".to_owned(),
            network: "10.0.0.1".to_owned(),
            version: "0.2.0".to_owned(),
            filed_at: Millis(5),
            expires_at: Millis(10),
            verdict: verdict.map(said),
        }
    }

    #[test]
    fn a_request_stands_as_was_said_until_it_expires() {
        for (verdict, standing) in
            [(None, Standing::Pending), (Some(true), Standing::Approved), (Some(false), Standing::Denied)]
        {
            assert_eq!(record(verdict).standing(Millis(9)), standing);
            assert_eq!(record(verdict).standing(Millis(10)), Standing::Expired);
        }
    }

    #[test]
    fn who_polls_is_not_told_what_is_the_operators_matter() {
        let record = record(Some(true));
        let polled = serde_json::to_value(record.status("r1", Millis(6))).expect("JSON");
        let listed = serde_json::to_value(record.status_in_full("r1", Millis(6))).expect("JSON");
        for field in ["from", "version", "by"] {
            assert!(polled.get(field).is_none() && listed.get(field).is_some(), "{field}");
        }
        assert_eq!((&polled["state"], &polled["id"]), (&"approved".into(), &"r1".into()));
    }

    #[test]
    fn a_fingerprint_is_the_same_however_it_is_written_and_never_a_part_of_one() {
        let fingerprint = "3f2a91c0".repeat(8);
        let shown = grouped(&fingerprint);
        assert!(shown.starts_with("3f2a 91c0 3f2a") && shown.split(' ').count() == 16, "{shown}");
        for text in [
            &fingerprint,
            &shown,
            &shown.to_uppercase(),
            &shown.replace(' ', ":"),
            "3f2a91c0\n".repeat(8).as_str(),
        ] {
            assert_eq!(ungrouped(text).as_deref(), Some(fingerprint.as_str()), "{text}");
        }
        for text in [
            "",
            "3f2a",
            &fingerprint[1..],
            &format!("{fingerprint}0"),
            &fingerprint.replace('f', "g"),
            &"é".repeat(32),
        ] {
            assert_eq!(ungrouped(text), None, "{text}");
        }
    }
}
