//! Three etcd with TLS for peers and clients, and just enough of its gRPC API (protobuf by hand) to load it.
//! Source: etcd's rpc.proto, messages PutRequest and WatchRequest.

use std::{net::Ipv4Addr, path::Path, process::Command};

use anyhow::Context as _;
use bytes::{BufMut, Bytes, BytesMut};
use http::Request;
use mesh_tests::{loopback::Network, process::Process};

use crate::certificates::Certificates;

/// A running cluster.
pub(crate) struct Etcd {
    /// Where its members are.
    pub(crate) addresses: Vec<Ipv4Addr>,
    /// Their processes.
    pub(crate) processes: Vec<Process>,
    /// Whom clients trust, and who they are.
    pub(crate) certificates: Certificates,
}

/// Starts three members in `folder`.
pub(crate) fn start(folder: &Path) -> anyhow::Result<Etcd> {
    let network = Network::claim();
    let addresses: Vec<_> = (1..=3).map(|n| network.address(n)).collect();
    let hosts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    // Peers dial from 127.0.0.1, and etcd wants that address in their certificates too.
    let names = [&hosts[..], &["127.0.0.1".to_owned()]].concat();
    let certificates = Certificates::make(&folder.join("etcd-certificates"), &["member", "client"], &names)?;
    let cluster: Vec<_> =
        hosts.iter().enumerate().map(|(n, host)| format!("e{n}=https://{host}:2380")).collect();
    let mut processes = Vec::new();
    for (n, host) in hosts.iter().enumerate() {
        let data = folder.join(format!("etcd-{n}"));
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(data).args([
            "--name",
            &format!("e{n}"),
            "--initial-cluster",
            &cluster.join(","),
        ]);
        for (flag, port) in [("client", 2_379), ("peer", 2_380)] {
            let url = format!("https://{host}:{port}");
            let advertise =
                if flag == "client" { "--advertise-client-urls" } else { "--initial-advertise-peer-urls" };
            command.args([&format!("--listen-{flag}-urls"), &url, advertise, &url]);
        }
        for prefix in ["", "peer-"] {
            command.args([
                &format!("--{prefix}cert-file"),
                &certificates.file("member.crt"),
                &format!("--{prefix}key-file"),
                &certificates.file("member.key"),
            ]);
            command.args([
                &format!("--{prefix}trusted-ca-file"),
                &certificates.file("ca.crt"),
                &format!("--{prefix}client-cert-auth"),
            ]);
        }
        if n == 0 {
            println!("etcd: {command:?}");
        }
        processes.push(Process::spawn(&format!("etcd-{n}"), folder, &mut command)?);
    }
    Ok(Etcd { addresses, processes, certificates })
}

/// `KV/Put` as a gRPC call.
pub(crate) fn put(authority: &str, key: &str, value: &str) -> anyhow::Result<Request<Bytes>> {
    let mut message = BytesMut::new();
    field(&mut message, 1, key.as_bytes());
    field(&mut message, 2, value.as_bytes());
    call(authority, "/etcdserverpb.KV/Put", frame(&message))
}

/// `Watch/Watch` of one key, as a gRPC call whose request stream holds this one message.
pub(crate) fn watch(authority: &str, key: &str) -> anyhow::Result<Request<Bytes>> {
    let mut create = BytesMut::new();
    field(&mut create, 1, key.as_bytes());
    let mut message = BytesMut::new();
    field(&mut message, 1, &create);
    call(authority, "/etcdserverpb.Watch/Watch", frame(&message))
}

/// `Maintenance/Status` as a gRPC call.
pub(crate) fn status(authority: &str) -> anyhow::Result<Request<Bytes>> {
    call(authority, "/etcdserverpb.Maintenance/Status", frame(&[]))
}

/// Whether the member that gave this answer to [`status`] leads: its own id (field 2 of the header, which is field 1)
/// is the leader's (field 4).
pub(crate) fn leads(answer: &[u8]) -> anyhow::Result<bool> {
    let message = answer.get(5..).context("a gRPC frame has a head of 5 bytes")?;
    let header = fields(message)?.into_iter().find_map(|(number, field)| match field {
        Field::Bytes(bytes) if number == 1 => Some(bytes),
        _ => None,
    });
    let number_of = |wanted, message: &[u8]| {
        let found = fields(message)?.into_iter().find_map(|(number, field)| match field {
            Field::Number(value) if number == wanted => Some(value),
            _ => None,
        });
        found.with_context(|| format!("no field {wanted}"))
    };
    Ok(number_of(2, header.context("no header")?)? == number_of(4, message)?)
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a protobuf message, of wire types 0 and 2.
fn fields(mut message: &[u8]) -> anyhow::Result<Vec<(u64, Field<'_>)>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let value = varint(&mut message)?;
        let field = match tag & 7 {
            0 => Field::Number(value),
            2 => {
                let (bytes, rest) = message.split_at_checked(value as usize).context("a field is cut off")?;
                message = rest;
                Field::Bytes(bytes)
            }
            other => anyhow::bail!("a field of wire type {other}"),
        };
        fields.push((tag >> 3, field));
    }
    Ok(fields)
}

fn varint(message: &mut &[u8]) -> anyhow::Result<u64> {
    let mut value = 0;
    for place in 0..10 {
        let (byte, rest) = message.split_first().context("a number is cut off")?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    anyhow::bail!("a number of more than 64 bits")
}

fn call(authority: &str, method: &str, body: Bytes) -> anyhow::Result<Request<Bytes>> {
    let request = Request::post(format!("https://{authority}{method}"));
    Ok(request.header("content-type", "application/grpc").header("te", "trailers").body(body)?)
}

/// A length-delimited protobuf field (wire type 2).
fn field(message: &mut BytesMut, number: u8, bytes: &[u8]) {
    message.put_u8(number << 3 | 2);
    let mut length = bytes.len();
    while length >= 0x80 {
        message.put_u8(length as u8 | 0x80);
        length >>= 7;
    }
    message.put_u8(length as u8);
    message.put_slice(bytes);
}

/// A gRPC message: flag, length, bytes.
fn frame(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(message);
    framed.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_protobuf_in_grpc_frames() {
        let request = put("h", "k", &"v".repeat(200)).expect("a request");
        let body = request.body();
        assert_eq!(&body[..8], &[0, 0, 0, 0, 206, 0x0a, 1, b'k']);
        assert_eq!(&body[8..11], &[0x12, 200 | 0x80, 1], "200 is two bytes as a varint");
        assert_eq!(body.len(), 5 + 206);
    }

    #[test]
    fn a_leader_is_told_from_a_follower() {
        let status = |leader: u8| vec![0, 0, 0, 0, 9, 0x0a, 3, 0x10, 0xac, 2, 0x18, 7, 0x20, leader, 2];
        assert!(leads(&status(0xac)).expect("a status"));
        assert!(!leads(&status(0xad)).expect("a status"));
        assert!(leads(&[0; 5]).is_err());
    }
}
