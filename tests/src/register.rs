//! Objects of the real API as the registers of [`crate::linear`]: one call, and what its answer says. A namespace `rN` is
//! a register; its description is the value.

use std::{path::Path, time::Duration};

use model::problem::Problem;
use reqwest::{Certificate, Method, RequestBuilder, Response, header};
use serde_json::{Value, json};

use crate::linear::{Call, Expect, Outcome};

/// So long a client waits: a server answers within its own five seconds, or is gone.
const CALL_TIMEOUT: Duration = Duration::from_secs(6);
/// So long it may take to connect: who is cut off is not waited for.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A client with connections of its own.
#[derive(Debug, Clone)]
pub struct Registers {
    http: reqwest::Client,
    token: String,
}

impl Registers {
    /// A client that trusts this root, and shows this token.
    ///
    /// # Errors
    /// If the file holds no certificate.
    pub fn new(cacert: &Path, token: &str) -> anyhow::Result<Self> {
        let roots = Certificate::from_pem_bundle(&std::fs::read(cacert)?)?;
        let http = reqwest::Client::builder()
            .tls_certs_only(roots)
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .build()?;
        Ok(Self { http, token: token.to_owned() })
    }

    /// Does one call at the server of this address.
    ///
    /// # Errors
    /// The answer is none that the API promises.
    pub async fn call(&self, address: &str, key: u32, call: Call) -> anyhow::Result<Outcome> {
        let request = self.request(address, key, call).bearer_auth(&self.token);
        let lost = if matches!(call, Call::Get { .. }) { Outcome::Refused } else { Outcome::Unknown };
        let Ok(response) = request.send().await else { return Ok(lost) };
        let (status, of) = (response.status().as_u16(), revision_of(&response));
        let Ok(body) = response.bytes().await else { return Ok(lost) };
        outcome(call, status, of, &body).ok_or_else(|| {
            anyhow::anyhow!("{call:?} at {address}: {status} {}", String::from_utf8_lossy(&body))
        })
    }

    fn request(&self, address: &str, key: u32, call: Call) -> RequestBuilder {
        let url = format!("{address}/v1/namespaces/r{key}");
        match call {
            Call::Get { consistency, least } => {
                let least = least.map(|least| ("minRevision", least.to_string()));
                let query = [("consistency", consistency.to_string())].into_iter().chain(least);
                self.http.get(url).query(&query.collect::<Vec<_>>())
            }
            Call::Put { value, expect } => {
                let object = json!({"spec": {"description": value.to_string()}});
                expecting(self.http.put(url).json(&object), expect)
            }
            Call::Delete { expect } => expecting(self.http.request(Method::DELETE, url), expect),
        }
    }
}

fn expecting(request: RequestBuilder, expect: Expect) -> RequestBuilder {
    match expect {
        Expect::Any => request,
        Expect::Absent => request.header(header::IF_NONE_MATCH, "*"),
        Expect::Revision(revision) => request.header(header::IF_MATCH, format!("\"{revision}\"")),
    }
}

/// `Mesh-Revision`.
fn revision_of(response: &Response) -> Option<u64> {
    response.headers().get("mesh-revision")?.to_str().ok()?.parse().ok()
}

fn outcome(call: Call, status: u16, of: Option<u64>, body: &[u8]) -> Option<Outcome> {
    let shown = || -> Option<(u64, u64)> {
        let object: Value = serde_json::from_slice(body).ok()?;
        let value = object["spec"]["description"].as_str()?.parse().ok()?;
        Some((value, object["metadata"]["revision"].as_u64()?))
    };
    Some(match (call, status) {
        (_, 503 | 429) => refused(call, body),
        (Call::Get { .. }, 200) => {
            let (value, revision) = shown()?;
            Outcome::Found { value, revision, of: of? }
        }
        (Call::Get { .. }, 404) => Outcome::Nothing { of: of? },
        (Call::Put { .. }, 200 | 201) => Outcome::Written { revision: shown()?.1, created: status == 201 },
        (Call::Delete { .. }, 200) => {
            let (value, revision) = shown()?;
            Outcome::Removed { value, revision }
        }
        (Call::Delete { .. }, 404) => Outcome::NothingToRemove,
        (Call::Put { .. } | Call::Delete { .. }, 412) => Outcome::Mismatch,
        _ => return None,
    })
}

/// A server that says that nothing was done is taken at its word; in any other case a write may have been.
fn refused(call: Call, body: &[u8]) -> Outcome {
    let detail = serde_json::from_slice::<Problem>(body).map(|problem| problem.detail).unwrap_or_default();
    let nothing = ["has no leader", "too many changes waiting"].iter().any(|words| detail.contains(words));
    if nothing || matches!(call, Call::Get { .. }) { Outcome::Refused } else { Outcome::Unknown }
}

#[cfg(test)]
mod tests {
    use model::read::Consistency;

    use super::*;

    #[test]
    fn answers_are_taken_for_what_they_say() {
        let get = Call::Get { consistency: Consistency::Linearizable, least: None };
        let put = Call::Put { value: 7, expect: Expect::Any };
        let object = br#"{"spec":{"description":"7"},"metadata":{"revision":3}}"#;
        let found = Outcome::Found { value: 7, revision: 3, of: 5 };
        assert_eq!(outcome(get, 200, Some(5), object), Some(found));
        assert_eq!(outcome(put, 201, None, object), Some(Outcome::Written { revision: 3, created: true }));
        assert_eq!(outcome(put, 412, None, b""), Some(Outcome::Mismatch));
        let unavailable = |detail: &str| Problem::new(503, "Unavailable", detail.to_owned());
        let said = |detail: &str| serde_json::to_vec(&unavailable(detail)).expect("JSON");
        let none = said("the control plane has no leader; try again in 1s");
        assert_eq!(outcome(put, 503, None, &none), Some(Outcome::Refused));
        let lost = said("the leader was lost before it answered; whether the change was made is not known");
        assert_eq!(outcome(put, 503, None, &lost), Some(Outcome::Unknown));
        assert_eq!(outcome(get, 500, None, b""), None, "nobody promised that");
    }
}
