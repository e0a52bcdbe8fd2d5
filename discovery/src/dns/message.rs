//! Pure. Questions to a resolver, and what its answers say.
//!
//! By RFC 1035, 2308 (what there is not), 6891 (EDNS), 9520 (what failed is not what there is not).

use std::time::Duration;

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType},
};

/// The longest answer over UDP that is asked for, in bytes: one that no network cuts up.
pub const UDP_BYTES_MAX: u16 = 1_232;
/// As many aliases (CNAME) are followed within one answer.
pub const ALIASES_MAX: usize = 16;
/// For how long holds that there is nothing, where the answer does not say it (RFC 2308 §5).
const NOTHING_HOLDS: Duration = Duration::from_secs(5);
/// What stands before everything else in a packet.
const HEADER_BYTES: usize = 12;

/// What a packet says.
#[derive(Debug, Clone, PartialEq)]
pub enum Said {
    /// There are these, all of the sort that was asked for, for so long; none: there is nothing, for so long.
    Records(Vec<RData>, Duration),
    /// More than a datagram has room for: to be asked over TCP.
    Truncated,
    /// The resolver cannot say.
    Fault(String),
    /// It is no answer to the question.
    Stray,
}

/// A question for the records of one sort at a name.
pub fn question(id: u16, name: &Name, sort: RecordType) -> Option<Vec<u8>> {
    let mut message = Message::new(id, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name.clone(), sort));
    let mut edns = Edns::new();
    edns.set_max_payload(UDP_BYTES_MAX).set_version(0);
    message.set_edns(edns);
    message.to_vec().ok()
}

/// What `packet` says to that question.
pub fn read(packet: &[u8], id: u16, name: &Name, sort: RecordType) -> Said {
    // Before it is decoded: who only echoes the number may have anything in the rest.
    if packet.len() < HEADER_BYTES || packet[..2] != id.to_be_bytes() || packet[2] & 0x80 == 0 {
        return Said::Stray;
    }
    // What is cut off may end anywhere.
    if packet[2] & 0x02 != 0 {
        return Said::Truncated;
    }
    let Ok(message) = Message::from_vec(packet) else {
        return Said::Fault("answers what is no message".to_owned());
    };
    let code = message.metadata.response_code;
    match &message.queries[..] {
        [query] if query.name == *name && query.query_type == sort && query.query_class == DNSClass::IN => {}
        // Servers that do not understand a question need not repeat it.
        [] if code != ResponseCode::NoError && code != ResponseCode::NXDomain => {}
        _ => return Said::Stray,
    }
    match code {
        ResponseCode::NoError | ResponseCode::NXDomain => records(&message, name, sort),
        code => Said::Fault(format!("answers {code:?}")),
    }
}

/// The records where the aliases lead.
fn records(message: &Message, name: &Name, sort: RecordType) -> Said {
    let (mut owner, mut ttl) = (name, u32::MAX);
    for _ in 0..ALIASES_MAX {
        let alias = message.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(alias) if is_at(record, owner) => Some((&alias.0, record.ttl)),
            _ => None,
        });
        let Some((next, holds)) = alias else { break };
        (owner, ttl) = (next, ttl.min(holds));
    }
    let found: Vec<_> = message
        .answers
        .iter()
        .filter(|record| is_at(record, owner) && record.record_type() == sort)
        .inspect(|record| ttl = ttl.min(record.ttl))
        .map(|record| record.data.clone())
        .collect();
    if !found.is_empty() {
        return Said::Records(found, Duration::from_secs(ttl.into()));
    }
    let soa = message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    });
    let refers = message.authorities.iter().any(|record| record.record_type() == RecordType::NS);
    let nothing = message.metadata.response_code == ResponseCode::NXDomain || soa.is_some();
    // One that only knows who would know, or where an alias leads, has not said that there is nothing.
    if !nothing && !message.metadata.recursion_available && (refers || owner != name) {
        return Said::Fault("refers to others: it is no resolver for it".to_owned());
    }
    Said::Records(Vec::new(), soa.map_or(NOTHING_HOLDS, |soa| Duration::from_secs(soa.into())))
}

fn is_at(record: &Record, owner: &Name) -> bool {
    record.name == *owner && record.dns_class == DNSClass::IN
}

#[cfg(test)]
mod tests;
