//! Pure. What is answered to a query for a name of the mesh: a packet comes in, what to do about it goes out. Names are
//! looked up in the snapshot of the moment; nothing is asked of anybody. A name is `orders.default.mesh`, with A, AAAA and,
//! below `_<port's name or protocol>._tcp`, SRV. Whose name stands elsewhere is another resolver's to answer.
//!
//! By RFC 1035, 2308 (what there is not), 2782 (SRV), 6891 (EDNS), 8020 (nothing is below what there is not).

use hickory_proto::{
    op::{Edns, Message, Metadata, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{SOA, SRV},
    },
};
use traffic::snapshot::{Destination, Port, Snapshot};

/// What names of the mesh end in.
const ZONE: &str = "mesh";
/// For how long an answer may be kept, in seconds: a service's virtual IPs stay, but it may go.
const TTL: u32 = 30;
/// For how long may be kept that there is no such name, in seconds: it may be made at any time.
const NEGATIVE_TTL: u32 = 5;
/// The longest answer over UDP, in bytes, whatever a client says it takes: one that no network cuts up.
pub const UDP_BYTES_MAX: u16 = 1_232;
/// The longest answer over UDP to a client that says nothing, in bytes (RFC 1035 §4.2.1).
const UDP_BYTES: u16 = 512;
/// Records in one answer: a service has as many ports of one protocol only by mistake.
pub const ANSWERS_MAX: usize = 128;
/// What stands before everything else in a packet.
const HEADER_BYTES: usize = 12;

/// How a query came, which bounds its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// In a datagram.
    Udp,
    /// In a stream.
    Tcp,
}

/// What names are looked up in.
#[derive(Debug, Clone, Copy)]
pub struct Zone<'a> {
    /// The mesh as it is known now.
    pub snapshot: &'a Snapshot,
    /// Whether another resolver answers for names that are not of the mesh.
    pub forwards: bool,
}

/// What to do about a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: it is no query.
    Ignored,
    /// Send this back.
    Answered(Vec<u8>, Counted),
    /// Ask another resolver.
    Elsewhere(Sort),
}

/// As what a query is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// What it was for.
    pub sort: Sort,
    /// What it came to.
    pub end: End,
}

/// What a query is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// An address of IPv4.
    A,
    /// One of IPv6.
    Aaaa,
    /// Ports and hosts.
    Srv,
    /// Anything else, or what could not be read.
    Other,
}

/// What a query came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// There is such a record.
    Found,
    /// There is the name, and no such record.
    NoData,
    /// There is no such name.
    NoName,
    /// It could not be read, or asks for what no server here does.
    Malformed,
    /// It is not for us.
    Refused,
    /// Nobody could answer.
    Failed,
    /// Another resolver answered.
    Forwarded,
}

/// Where in the mesh a name stands.
enum Place<'a> {
    /// Not below `mesh`.
    Outside,
    /// `mesh` itself.
    Apex,
    /// A name that only has others below it.
    Between,
    Service(&'a Destination),
    /// Ports of a service, with their service.
    Ports(&'a Destination, Vec<&'a Port>),
    Nowhere,
}

/// What is answered.
#[derive(Default)]
struct Found {
    answers: Vec<Record>,
    /// What whoever asked will ask next.
    additionals: Vec<Record>,
    code: ResponseCode,
    /// Whether the mesh says so: then it says for how long there is nothing, too.
    authoritative: bool,
}

/// What to do about `packet`.
pub fn answer(packet: &[u8], over: Over, zone: Zone<'_>) -> Verdict {
    let (query, message) = match read(packet) {
        Ok(read) => read,
        Err(None) => return Verdict::Ignored,
        Err(Some(code)) => {
            let counted = Counted { sort: Sort::Other, end: End::Malformed };
            return Verdict::Answered(bare(packet, code), counted);
        }
    };
    let sort = Sort::of(query.query_type);
    let labels = labels(&query.name);
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let (found, end) = match place(&labels, zone.snapshot) {
        _ if message.edns.as_ref().is_some_and(|edns| edns.version() > 0) => {
            (Found::only(ResponseCode::BADVERS), End::Malformed)
        }
        Place::Outside if zone.forwards => return Verdict::Elsewhere(sort),
        Place::Outside => (Found::only(ResponseCode::Refused), End::Refused),
        _ if !matches!(query.query_class, DNSClass::IN | DNSClass::ANY) => {
            (Found::only(ResponseCode::Refused), End::Refused)
        }
        // Nothing is known yet: that there is no such name would be a lie.
        _ if zone.snapshot.revision == 0 => (Found::only(ResponseCode::ServFail), End::Failed),
        place => look_up(&place, &query, zone.snapshot),
    };
    Verdict::Answered(write(&message, over, found, zone), Counted { sort, end })
}

/// What whoever asked is told if nobody else answered.
pub fn failed(packet: &[u8], over: Over, zone: Zone<'_>) -> Vec<u8> {
    match read(packet) {
        Ok((_, message)) => write(&message, over, Found::only(ResponseCode::ServFail), zone),
        Err(_) => bare(packet, ResponseCode::ServFail),
    }
}

/// Whether a packet answers a query: it has its number and its question.
pub fn answers(answer: &[u8], query: &[u8]) -> bool {
    let question = |packet: &[u8]| {
        let message = Message::from_vec(packet).ok().filter(|_| packet[4..6] == [0, 1])?;
        let question = message.queries.into_iter().next()?;
        Some((message.metadata.id, question))
    };
    let is_answer = answer.len() >= HEADER_BYTES && answer[2] & 0x80 != 0;
    is_answer && question(answer).is_some_and(|answered| Some(answered) == question(query))
}

/// The one question of a query; `Err(None)` if it is none, otherwise why it cannot be answered.
fn read(packet: &[u8]) -> Result<(Query, Message), Option<ResponseCode>> {
    if packet.len() < HEADER_BYTES || packet[2] & 0x80 != 0 {
        return Err(None);
    }
    if packet[2] & 0x78 != 0 {
        return Err(Some(ResponseCode::NotImp));
    }
    // Before it is decoded: room is made for as many questions as it says it has.
    if packet[4..6] != [0, 1] {
        return Err(Some(ResponseCode::FormErr));
    }
    let message = Message::from_vec(packet).map_err(|_| ResponseCode::FormErr)?;
    let query = message.queries.first().cloned().ok_or(ResponseCode::FormErr)?;
    Ok((query, message))
}

/// A name's labels, in lower case. One that is no text is like no name of ours.
fn labels(name: &Name) -> Vec<String> {
    name.iter().map(|label| String::from_utf8_lossy(label).to_ascii_lowercase()).collect()
}

fn place<'a>(labels: &[&str], snapshot: &'a Snapshot) -> Place<'a> {
    let Some((&ZONE, inner)) = labels.split_last() else { return Place::Outside };
    let service = |name: &str, namespace: &str| {
        snapshot.by_hostname(&format!("{name}.{namespace}.{ZONE}")).map(|found| &**found)
    };
    match *inner {
        [] => Place::Apex,
        [namespace] => {
            let known = namespace.parse().is_ok_and(|namespace| snapshot.has_services_in(&namespace));
            if known { Place::Between } else { Place::Nowhere }
        }
        [name, namespace] => service(name, namespace).map_or(Place::Nowhere, Place::Service),
        ["_tcp", name, namespace] => service(name, namespace).map_or(Place::Nowhere, |_| Place::Between),
        [port, "_tcp", name, namespace] => service(name, namespace).map_or(Place::Nowhere, |service| {
            let ports: Vec<_> = service.ports().iter().filter(|own| is_called(own, port)).collect();
            if ports.is_empty() { Place::Nowhere } else { Place::Ports(service, ports) }
        }),
        _ => Place::Nowhere,
    }
}

/// Whether `_http` means this port: by its name, or by what it speaks.
fn is_called(port: &Port, label: &str) -> bool {
    let Some(called) = label.strip_prefix('_') else { return false };
    port.name().is_some_and(|name| name.as_str() == called) || port.protocol().to_string() == called
}

fn look_up(place: &Place<'_>, query: &Query, snapshot: &Snapshot) -> (Found, End) {
    let mut found = Found { authoritative: true, ..Found::default() };
    let wanted = |kind: RecordType| [kind, RecordType::ANY].contains(&query.query_type);
    match place {
        Place::Apex if wanted(RecordType::SOA) => found.answers.push(authority(snapshot)),
        Place::Service(service) => {
            let addresses = addresses(service, &query.name);
            found.answers.extend(addresses.filter(|record| wanted(record.record_type())));
        }
        Place::Ports(service, ports) if wanted(RecordType::SRV) => {
            let host = host(service);
            let ports = ports.iter().take(ANSWERS_MAX).map(|port| {
                let srv = SRV::new(0, 0, port.number(), host.clone());
                Record::from_rdata(query.name.clone(), TTL, RData::SRV(srv))
            });
            found.answers.extend(ports);
            found.additionals.extend(addresses(service, &host));
        }
        Place::Nowhere | Place::Outside => {
            found.code = ResponseCode::NXDomain;
            return (found, End::NoName);
        }
        Place::Apex | Place::Between | Place::Ports(..) => {}
    }
    let end = if found.answers.is_empty() { End::NoData } else { End::Found };
    (found, end)
}

fn host(service: &Destination) -> Name {
    Name::from_ascii(format!("{}.", service.hostname())).expect("two labels and the zone are a name")
}

fn addresses<'a>(service: &'a Destination, owner: &'a Name) -> impl Iterator<Item = Record> + 'a {
    service.virtual_ips().iter().map(|ip| Record::from_rdata(owner.clone(), TTL, RData::from(*ip)))
}

/// Who says what names there are, and for how long it holds that one is not there (RFC 2308 §3).
fn authority(snapshot: &Snapshot) -> Record {
    let name = |text: &str| Name::from_ascii(text).expect("it is a name");
    let serial = u32::try_from(snapshot.revision & u64::from(u32::MAX)).expect("it was cut to 32 bits");
    let (refresh, retry, expire) = (60, 60, 86_400);
    let soa = SOA::new(name("mesh."), name("nobody.invalid."), serial, refresh, retry, expire, NEGATIVE_TTL);
    Record::from_rdata(name("mesh."), NEGATIVE_TTL, RData::SOA(soa))
}

/// An answer as bytes, no longer than whoever asked takes: without what it did not ask for if that is needed, and if that is
/// not enough, with nothing but the word that it is longer.
fn write(query: &Message, over: Over, found: Found, zone: Zone<'_>) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata = Metadata::response_from_request(&query.metadata);
    message.metadata.response_code = found.code;
    message.metadata.authoritative = found.authoritative;
    message.metadata.recursion_available = zone.forwards;
    message.queries = query.queries.clone();
    message.edns = query.edns.as_ref().map(|asked| {
        let mut edns = Edns::new();
        edns.set_max_payload(UDP_BYTES_MAX).set_dnssec_ok(asked.flags().dnssec_ok);
        edns
    });
    if found.authoritative && found.answers.is_empty() {
        message.authorities.push(authority(zone.snapshot));
    }
    (message.answers, message.additionals) = (found.answers, found.additionals);
    let limit = match over {
        Over::Tcp => usize::from(u16::MAX),
        Over::Udp => usize::from(
            query.edns.as_ref().map_or(UDP_BYTES, |edns| edns.max_payload().clamp(UDP_BYTES, UDP_BYTES_MAX)),
        ),
    };
    let fitting = |message: &Message| message.to_vec().ok().filter(|bytes| bytes.len() <= limit);
    if let Some(whole) = fitting(&message) {
        return whole;
    }
    message.additionals.clear();
    fitting(&message).unwrap_or_else(|| {
        message.metadata.truncation = true;
        message.answers.clear();
        message.authorities.clear();
        fitting(&message).expect("a header, one question and an empty option have at most 512 bytes")
    })
}

/// An answer to what could not be read, or not be answered: its number, and the reason.
fn bare(packet: &[u8], code: ResponseCode) -> Vec<u8> {
    // An answer with the query's opcode, and whether recursion was asked for.
    let mut answer = vec![packet[0], packet[1], 0x80 | packet[2] & 0x79, code.low()];
    answer.resize(HEADER_BYTES, 0);
    answer
}

impl Found {
    fn only(code: ResponseCode) -> Self {
        Self { code, ..Self::default() }
    }
}

impl Sort {
    /// All of them, as they are numbered.
    pub const ALL: [Self; 4] = [Self::A, Self::Aaaa, Self::Srv, Self::Other];

    fn of(asked: RecordType) -> Self {
        match asked {
            RecordType::A => Self::A,
            RecordType::AAAA => Self::Aaaa,
            RecordType::SRV => Self::Srv,
            _ => Self::Other,
        }
    }

    /// As in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Srv => "SRV",
            Self::Other => "other",
        }
    }
}

impl End {
    /// All of them, as they are numbered.
    pub const ALL: [Self; 7] = [
        Self::Found,
        Self::NoData,
        Self::NoName,
        Self::Malformed,
        Self::Refused,
        Self::Failed,
        Self::Forwarded,
    ];

    /// As in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::NoData => "nodata",
            Self::NoName => "nxdomain",
            Self::Malformed => "malformed",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Forwarded => "forwarded",
        }
    }
}

#[cfg(test)]
mod tests;
