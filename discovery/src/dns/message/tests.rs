//! Answers in a tiny language: `name ttl sort data`, one record a line; `authority ` before one puts it there.

use std::net::Ipv4Addr;

use hickory_proto::rr::rdata::{A, CNAME, NS, SOA, SRV};

use super::*;

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).expect("a name");
    name.set_fqdn(true);
    name
}

fn record(line: &str) -> Record {
    let words: Vec<&str> = line.split(' ').collect();
    let [owner, ttl, sort, data] = words[..] else { panic!("{line}") };
    let data = match sort {
        "A" => RData::A(A(data.parse::<Ipv4Addr>().expect("an address"))),
        "CNAME" => RData::CNAME(CNAME(name(data))),
        "NS" => RData::NS(NS(name(data))),
        "SOA" => RData::SOA(SOA::new(name("ns"), name("host"), 1, 2, 3, 4, data.parse().expect("a number"))),
        "SRV" => RData::SRV(SRV::new(1, 2, 3, name(data))),
        other => panic!("{other}"),
    };
    Record::from_rdata(name(owner), ttl.parse().expect("a number"), data)
}

fn reply(code: ResponseCode, lines: &[&str]) -> Message {
    let mut message = Message::response(7, OpCode::Query);
    message.metadata.response_code = code;
    message.add_query(Query::query(name("orders.example"), RecordType::A));
    for line in lines {
        match line.strip_prefix("authority ") {
            Some(line) => message.add_authority(record(line)),
            None => message.add_answer(record(line)),
        };
    }
    message
}

fn said(message: &Message) -> Said {
    let packet = message.to_vec().expect("a packet");
    read(&packet, 7, &name("orders.example"), RecordType::A)
}

#[track_caller]
fn check(code: ResponseCode, lines: &[&str], want: Result<(&[&str], u64), &str>) {
    let got = match said(&reply(code, lines)) {
        Said::Records(found, ttl) => Ok((found.iter().map(ToString::to_string).collect(), ttl.as_secs())),
        Said::Fault(fault) => Err(fault),
        other => panic!("{other:?}"),
    };
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    assert_eq!(got, want.map(|(found, ttl)| (texts(found), ttl)).map_err(str::to_owned), "{lines:?}");
}

#[test]
fn records_are_found_where_aliases_lead_and_the_shortest_time_holds() {
    use ResponseCode::NoError;
    check(
        NoError,
        &["orders.example 60 A 10.0.0.1", "ORDERS.example 30 A 10.0.0.2", "other.example 1 A 10.0.0.3"],
        Ok((&["10.0.0.1", "10.0.0.2"], 30)),
    );
    check(
        NoError,
        &["orders.example 20 CNAME b.example", "c.example 60 A 10.0.0.1", "b.example 90 CNAME c.example"],
        Ok((&["10.0.0.1"], 20)),
    );
    check(NoError, &["orders.example 20 SRV b.example"], Ok((&[], 5)));
    // Round and round.
    check(
        NoError,
        &["orders.example 20 CNAME b.example", "b.example 20 CNAME orders.example", "authority . 9 SOA 8"],
        Ok((&[], 8)),
    );
}

#[test]
fn what_there_is_not_is_told_apart_from_what_cannot_be_said() {
    use ResponseCode::{FormErr, NXDomain, NoError, Refused, ServFail};
    check(NXDomain, &["authority example 600 SOA 60"], Ok((&[], 60)));
    check(NXDomain, &["authority example 30 SOA 60"], Ok((&[], 30)));
    check(NXDomain, &[], Ok((&[], 5)));
    check(NoError, &[], Ok((&[], 5)));
    check(ServFail, &[], Err("answers ServFail"));
    check(Refused, &["orders.example 60 A 10.0.0.1"], Err("answers Refused"));
    check(FormErr, &[], Err("answers FormErr"));
    let refers = Err("refers to others: it is no resolver for it");
    check(NoError, &["authority example 60 NS ns.example"], refers);
    check(NoError, &["orders.example 60 CNAME elsewhere.test"], refers);
    check(NoError, &["authority example 60 NS ns.example", "authority example 600 SOA 60"], Ok((&[], 60)));
    check(NXDomain, &["orders.example 60 CNAME elsewhere.test"], Ok((&[], 5)));
}

#[test]
fn what_is_no_answer_to_the_question_is_passed_over() {
    let good = reply(ResponseCode::NoError, &["orders.example 60 A 10.0.0.1"]);
    assert!(matches!(said(&good), Said::Records(..)));
    for change in [
        |message: &mut Message| message.metadata.id = 8,
        |message: &mut Message| message.metadata.message_type = MessageType::Query,
        |message: &mut Message| message.queries[0].name = name("order.example"),
        |message: &mut Message| message.queries[0].query_type = RecordType::AAAA,
        |message: &mut Message| message.queries[0].query_class = DNSClass::CH,
        |message: &mut Message| message.queries.clear(),
        |message: &mut Message| {
            message.add_query(Query::query(name("x"), RecordType::A));
        },
    ] {
        let mut stray = good.clone();
        change(&mut stray);
        assert_eq!(said(&stray), Said::Stray);
    }
    let mut cut = good.clone();
    cut.metadata.truncation = true;
    assert_eq!(said(&cut), Said::Truncated);
    let packet = good.to_vec().expect("a packet");
    for end in 0..packet.len() {
        let said = read(&packet[..end], 7, &name("orders.example"), RecordType::A);
        assert!(!matches!(said, Said::Records(..)), "{end}: {said:?}");
    }
}

#[test]
fn a_question_asks_for_recursion_and_says_what_it_takes() {
    let packet = question(7, &name("orders.example"), RecordType::SRV).expect("a packet");
    let message = Message::from_vec(&packet).expect("a message");
    assert!(message.metadata.recursion_desired && message.metadata.id == 7);
    assert_eq!(message.queries, [Query::query(name("orders.example"), RecordType::SRV)]);
    assert_eq!(message.max_payload(), UDP_BYTES_MAX);
}
