//! What a resolver answers: any packet is records of the sort that was asked for, no answer, or a fault, and one that has
//! another number is never taken. The first byte says which sort was asked for.
#![no_main]

use std::sync::LazyLock;

use hickory_proto::rr::{Name, RecordType};
use source::message::{Said, question, read};

// By file: to link the crate would build its HTTP client a second time for one pure module.
#[allow(dead_code, reason = "how much is asked for is not looked at")]
#[path = "../../discovery/src/dns"]
mod source {
    pub mod message;
}

const ID: u16 = 0x6d65;
/// What EDNS adds to a question.
const OPT_BYTES: usize = 11;

static NAME: LazyLock<Name> = LazyLock::new(|| Name::from_ascii("orders.example.").expect("a name"));

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((mode, rest)) = data.split_first() else { return };
    let sort = [RecordType::A, RecordType::AAAA, RecordType::SRV][usize::from(mode % 3)];
    // Half of all begin as an answer to the question does: few would get there by themselves.
    let mut packet = rest.to_vec();
    if mode & 0x80 != 0 {
        packet = question(ID, &NAME, sort).expect("a packet");
        packet.truncate(packet.len() - OPT_BYTES);
        packet[2] |= 0x80;
        packet[7] = mode >> 4 & 3;
        packet[9] = mode >> 6 & 1;
        packet[11] = 0;
        packet.extend_from_slice(rest);
    }
    match read(&packet, ID, &NAME, sort) {
        Said::Records(found, _) => {
            assert_eq!(packet[..2], ID.to_be_bytes());
            assert!(found.iter().all(|data| data.record_type() == sort));
        }
        Said::Truncated | Said::Fault(_) => assert_eq!(packet[..2], ID.to_be_bytes()),
        Said::Stray => {}
    }
});
