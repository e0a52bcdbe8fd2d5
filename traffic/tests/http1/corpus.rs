//! Requests that two readers could read in two ways, and what becomes of each: forwarded exactly as the case says, or
//! refused. Most are families: one place of a message, and everything that may stand there. Behind each stands a second
//! request, for `/second`: a reader that is wrong about the first takes it for something else.

/// A case.
pub(crate) struct Case {
    /// What stands where, for whoever reads a failure.
    pub(crate) name: String,
    /// What is sent.
    pub(crate) bytes: Vec<u8>,
    /// The requests that go on: `METHOD target host body`.
    pub(crate) forwarded: Vec<String>,
    /// Whether what follows is refused.
    pub(crate) refused: bool,
}

/// What stands behind the request of a case.
const SECOND: &str = "GET /second HTTP/1.1\r\nHost: a\r\n\r\n";
const SECOND_SEEN: &str = "GET /second a ";

fn case(name: impl Into<String>, bytes: impl Into<Vec<u8>>, forwarded: &[&str], refused: bool) -> Case {
    let forwarded = forwarded.iter().map(|seen| (*seen).to_owned()).collect();
    Case { name: name.into(), bytes: bytes.into(), forwarded, refused }
}

/// It is refused, and nothing behind it is looked at.
fn refused(name: impl Into<String>, first: impl AsRef<[u8]>) -> Case {
    case(name, [first.as_ref(), SECOND.as_bytes()].concat(), &[], true)
}

/// It goes on as `seen`, and the one behind it, too.
fn goes_on(name: impl Into<String>, first: impl AsRef<[u8]>, seen: &str) -> Case {
    case(name, [first.as_ref(), SECOND.as_bytes()].concat(), &[seen, SECOND_SEEN], false)
}

/// It goes on as `seen`, and the connection ends: the one behind it is not read.
fn the_last(name: impl Into<String>, first: impl AsRef<[u8]>, seen: &str) -> Case {
    case(name, [first.as_ref(), SECOND.as_bytes()].concat(), &[seen], false)
}

/// All cases.
pub(crate) fn cases() -> Vec<Case> {
    let families = [
        content_lengths(),
        two_lengths(),
        codings(),
        coding_beside_length(),
        names_of_what_frames(),
        line_ends(),
        bytes_in_names(),
        bytes_in_values(),
        bytes_in_the_first_line(),
        chunk_sizes(),
        chunk_ends(),
        trailers(),
        hosts(),
        targets(),
        versions(),
        beginnings(),
        methods_and_bodies(),
        expectations(),
        ends_of_connections(),
        classics(),
    ];
    families.into_iter().flatten().collect()
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}")
}

fn content_lengths() -> Vec<Case> {
    let bad = [
        "",
        "+5",
        "-5",
        "--5",
        "5 5",
        "5,5",
        "5, 5",
        "5,6",
        "0x5",
        "5h",
        "5;",
        "5;q=1",
        "\"5\"",
        "'5'",
        "5.0",
        "5e0",
        "1e1",
        "5_0",
        "_5",
        "five",
        "\u{ff15}",
        "5\u{660}",
        "NaN",
        "inf",
        "0b101",
        "0o5",
        "5\t5",
        "5 ,",
        ",5",
        "[5]",
        "5/1",
        "%35",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "18446744073709551621",
        "99999999999999999999999999",
        "00000000000000000000000000000000000000000x",
        "5\u{a0}",
    ];
    let good = [
        ("5", "hello"),
        (" 5", "hello"),
        ("5 ", "hello"),
        ("\t5\t", "hello"),
        ("005", "hello"),
        ("0", ""),
        ("00", ""),
    ];
    let names = ["Content-Length", "content-length", "CONTENT-LENGTH"];
    let bad = bad.iter().zip(names.iter().cycle()).map(|(value, name)| {
        refused(format!("{name}: {value:?}"), post(&format!("{name}: {value}"), "hello"))
    });
    let good = good.iter().zip(names.iter().cycle()).map(|((value, body), name)| {
        let seen = format!("POST /x a {body}");
        goes_on(format!("{name}: {value:?}"), post(&format!("{name}:{value}"), body), &seen)
    });
    bad.chain(good).collect()
}

fn two_lengths() -> Vec<Case> {
    let values = ["0", "5", "6", "05", "+5", "40", ""];
    let between = ["", "X-Between: 1\r\n"];
    let mut cases = Vec::new();
    for first in values {
        for second in values {
            for between in between {
                let fields = format!("Content-Length: {first}\r\n{between}content-length: {second}");
                cases.push(refused(format!("two lengths: {fields:?}"), post(&fields, "hello")));
            }
        }
    }
    cases
}

const BAD_CODINGS: [&str; 36] = [
    "",
    "gzip",
    "identity",
    "deflate",
    "compress",
    "cow",
    "trailers",
    "chunk",
    "chunkedx",
    "xchunked",
    "chunked1",
    "chunked,",
    ",chunked",
    "chunked, chunked",
    "chunked,chunked",
    "gzip, chunked",
    "chunked, gzip",
    "chunked, identity",
    "identity, chunked",
    "chunked;q=1",
    "chunked; q=0",
    "chunked chunked",
    "chunked gzip",
    "chun ked",
    "\"chunked\"",
    "'chunked'",
    "chunked\u{a0}",
    "\u{a0}chunked",
    "c\u{401}unked",
    "chunked\u{0}",
    "\u{b}chunked",
    "chunked\u{c}",
    "chunked\u{8}",
    "(x) chunked",
    "chunked/1",
    "%63hunked",
];

const CHUNKED: &str = "5\r\nhello\r\n0\r\n\r\n";

fn codings() -> Vec<Case> {
    let bad = BAD_CODINGS.iter().map(|value| {
        refused(
            format!("Transfer-Encoding: {value:?}"),
            post(&format!("Transfer-Encoding: {value}"), CHUNKED),
        )
    });
    let good = ["chunked", "Chunked", "CHUNKED", " chunked", "chunked ", "\tchunked\t", "cHuNkEd"]
        .into_iter()
        .map(|value| {
            let first = post(&format!("Transfer-Encoding:{value}"), CHUNKED);
            goes_on(format!("Transfer-Encoding:{value:?}"), first, "POST /x a hello")
        });
    let twice = ["chunked", "identity", "gzip", "", "x"].into_iter().flat_map(|other| {
        [
            format!("Transfer-Encoding: chunked\r\nTransfer-Encoding: {other}"),
            format!("Transfer-Encoding: {other}\r\nTransfer-Encoding: chunked"),
        ]
    });
    let twice = twice.map(|fields| refused(format!("two codings: {fields:?}"), post(&fields, CHUNKED)));
    let old = ["chunked", "identity", "gzip"].into_iter().map(|value| {
        let first = format!("POST /x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nTransfer-Encoding: {value}\r\n\r\n{CHUNKED}");
        refused(format!("HTTP/1.0, Transfer-Encoding: {value}"), first)
    });
    bad.chain(good).chain(twice).chain(old).collect()
}

fn coding_beside_length() -> Vec<Case> {
    let codings = ["chunked", "Chunked", "identity", "chunked, identity", "xchunked", ""];
    let lengths = ["0", "4", "5", "15", "+5"];
    let mut cases = Vec::new();
    for coding in codings {
        for length in lengths {
            for fields in [
                format!("Content-Length: {length}\r\nTransfer-Encoding: {coding}"),
                format!("Transfer-Encoding: {coding}\r\nContent-Length: {length}"),
            ] {
                cases.push(refused(format!("{fields:?}"), post(&fields, CHUNKED)));
            }
        }
    }
    cases
}

fn names_of_what_frames() -> Vec<Case> {
    let wrong = |name: &str, value: &str| {
        [
            format!("{name} : {value}"),
            format!("{name}\t: {value}"),
            format!(" {name}: {value}"),
            format!("\t{name}: {value}"),
            format!("{name}\u{0}: {value}"),
            format!("{name}\r: {value}"),
            format!("\u{b}{name}: {value}"),
            format!("{name}\u{b}: {value}"),
            format!("{name}\u{a0}: {value}"),
            name.to_owned(),
            format!("{name} {value}"),
            format!(":{name}: {value}"),
            format!("\"{name}\": {value}"),
            format!("({name}): {value}"),
            format!("{name}\u{7f}: {value}"),
            format!("{name}@: {value}"),
            name.replace('-', "_") + ": " + value,
            format!("X: y\r\n {name}: {value}"),
            format!("X: y\r\r\n{name}: {value}"),
            format!("X: y\u{0}\r\n{name}: {value}"),
            format!(": y\r\n{name}: {value}"),
            format!("X:\n{name}: {value}"),
            format!("X: y\n{name}: {value}"),
            format!("X: y\n\r{name}: {value}"),
            format!("X: y\r{name}: {value}"),
        ]
    };
    let bad = wrong("Transfer-Encoding", "chunked")
        .into_iter()
        .map(|field| refused(format!("{field:?}"), post(&format!("Content-Length: 15\r\n{field}"), CHUNKED)));
    let bad_lengths = wrong("Content-Length", "40")
        .into_iter()
        .map(|field| refused(format!("{field:?}"), post(&format!("Content-Length: 5\r\n{field}"), "hello")));
    let others = [
        "X-Transfer-Encoding: chunked",
        "TransferEncoding: chunked",
        "Transfer-Encoding2: chunked",
        "Transfer.Encoding: chunked",
        "Transfer--Encoding: chunked",
        "X-Content-Length: 40",
        "ContentLength: 40",
        "Content-Length-: 40",
        "Content.Length: 40",
        "X: Content-Length: 40",
        "X: y, Transfer-Encoding: chunked",
        "Content-Encoding: chunked",
        "TE: chunked",
    ];
    let good = others.into_iter().map(|field| {
        goes_on(
            format!("{field:?}"),
            post(&format!("{field}\r\nContent-Length: 5"), "hello"),
            "POST /x a hello",
        )
    });
    bad.chain(bad_lengths).chain(good).collect()
}

/// Each end of a line in turn is something else.
fn line_ends() -> Vec<Case> {
    let lines = ["POST /x HTTP/1.1", "Host: a", "Content-Length: 5", "X-Last: 1", ""];
    let ends = [
        "\n",
        "\r",
        "\n\r",
        "\r\r\n",
        "\r\n ",
        "\r\n\t",
        "\u{0}\r\n",
        "\r\n\u{0}",
        "\u{b}",
        "\u{85}",
        "\u{2028}",
        "\r \n",
    ];
    let mut cases = Vec::new();
    for at in 0..lines.len() {
        for end in ends {
            // Behind the empty line stands the body: there it is only another one.
            if at == lines.len() - 1 && end.starts_with("\r\n") {
                continue;
            }
            let text: String = lines
                .iter()
                .enumerate()
                .map(|(n, line)| format!("{line}{}", if n == at { end } else { "\r\n" }))
                .collect();
            cases.push(refused(format!("line {at} ends with {end:?}"), text + "hello"));
        }
    }
    cases
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn around(before: &str, byte: u8, after: &str) -> Vec<u8> {
    [before.as_bytes(), &[byte], after.as_bytes()].concat()
}

fn bytes_in_names() -> Vec<Case> {
    (0..=255)
        .filter(|&byte| byte != b':' && byte != b'\n')
        .map(|byte| {
            let first = around("GET /x HTTP/1.1\r\nHost: a\r\nX-", byte, "Y: 1\r\n\r\n");
            let name = format!("0x{byte:02x} in a name");
            if is_token(byte) { goes_on(name, first, "GET /x a ") } else { refused(name, first) }
        })
        .collect()
}

fn bytes_in_values() -> Vec<Case> {
    (0..=255)
        .filter(|&byte| byte != b'\n')
        .map(|byte| {
            let first = around("GET /x HTTP/1.1\r\nHost: a\r\nX: 1", byte, "2\r\n\r\n");
            let name = format!("0x{byte:02x} in a value");
            let fine = matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
            if fine { goes_on(name, first, "GET /x a ") } else { refused(name, first) }
        })
        .collect()
}

fn bytes_in_the_first_line() -> Vec<Case> {
    let bad: Vec<u8> = (0..=b' ').chain([0x7f]).filter(|&byte| byte != b'\n').collect();
    let targets = bad.iter().map(|&byte| {
        refused(format!("0x{byte:02x} in a target"), around("GET /x", byte, "y HTTP/1.1\r\nHost: a\r\n\r\n"))
    });
    let methods = (0..=255).filter(|&byte| !is_token(byte) && byte != b'\n').map(|byte| {
        refused(format!("0x{byte:02x} in a method"), around("GE", byte, "T /x HTTP/1.1\r\nHost: a\r\n\r\n"))
    });
    targets.chain(methods).collect()
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked", body)
}

fn chunk_sizes() -> Vec<Case> {
    let bad = [
        "",
        " 5",
        "\t5",
        "5 ",
        "5\t",
        "+5",
        "-5",
        "0x5",
        "0X5",
        "x5",
        "5h",
        "5x",
        "5_",
        "5,",
        "5.0",
        "\"5\"",
        "5\u{0}",
        "\u{0}5",
        "00000000000000005",
        "10000000000000005",
        "8000000000000000",
        "ffffffffffffffff",
        "fffffffffffffffffffff",
        "5\r",
        "5 ;a",
        "5;a\u{0}",
        "5;a\u{7f}",
        "5;a\rb",
        "5\u{b}",
        "\u{ff15}",
        "5;\u{e9}",
        "g",
        "5:",
        "5=",
        "5\r\r",
        "(5)",
        "5 5",
        "5\u{a0}",
    ];
    let long = format!("5;{}", "x".repeat(5_000));
    let bad = bad.into_iter().chain([long.as_str()]).map(|size| {
        refused(
            format!("a chunk of size {:.30}", format!("{size:?}")),
            chunked(&format!("{size}\r\nhello\r\n0\r\n\r\n")),
        )
    });
    let bare = [
        "5\nhello\r\n0\r\n\r\n",
        "5;a\nhello\r\n0\r\n\r\n",
        "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\n\rhello\r\n0\r\n\r\n",
    ];
    let bare = bare.into_iter().map(|body| refused(format!("{body:?}"), chunked(body)));
    let good = ["5", "05", "0000000000000005", "5;", "5;a", "5;a=b", "5;a=\"b c\"", "5;a;b=c", "5; a = b"];
    let good = good.into_iter().map(|size| {
        goes_on(
            format!("a chunk of size {size:?}"),
            chunked(&format!("{size}\r\nhello\r\n0\r\n\r\n")),
            "POST /x a hello",
        )
    });
    bad.chain(bare).chain(good).collect()
}

fn chunk_ends() -> Vec<Case> {
    let bad = [
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhello\r\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello \r\n0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
        "6\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n\r0\r\n\r\n",
        "5\r\nhello\u{0}\r\n0\r\n\r\n",
        "5\r\nhello\r\n\r\n0\r\n\r\n",
        "5\r\n\r\nhello\r\n0\r\n\r\n",
        "1\r\nh\r\n4ello\r\n0\r\n\r\n",
    ];
    let bad = bad.into_iter().map(|body| refused(format!("{body:?}"), chunked(body)));
    let good = [
        ("0\r\n\r\n", ""),
        ("00\r\n\r\n", ""),
        ("0;a\r\n\r\n", ""),
        ("1\r\nh\r\n4\r\nello\r\n0\r\n\r\n", "hello"),
        ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n"),
        ("A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("a\r\n0123456789\r\n0000\r\n\r\n", "0123456789"),
        ("5\r\n0\r\n\r\n\r\n0\r\n\r\n", "0\r\n\r\n"),
    ];
    let good = good
        .into_iter()
        .map(|(body, whole)| goes_on(format!("{body:?}"), chunked(body), &format!("POST /x a {whole}")));
    bad.chain(good).collect()
}

fn trailers() -> Vec<Case> {
    let bad = [
        "0\n\n",
        "0\r\n\n",
        "0\n\r\n",
        "0\r\n\r\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nX: y\r\n\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\nX: y\r\n Z: w\r\n\r\n",
        "0\r\nX\r\n\r\n",
        "0\r\nX: \u{0}\r\n\r\n",
        "0\r\n: y\r\n\r\n",
        "0\r\nX: y\rz\r\n\r\n",
        "0\r\n\u{0}\r\n\r\n",
        "0\r\nX y\r\n\r\n",
        "0\r\n\tX: y\r\n\r\n",
    ];
    let long = format!("0\r\nX: {}\r\n\r\n", "y".repeat(66_000));
    let many = format!("0\r\n{}\r\n", "X: y\r\n".repeat(129));
    let bad = bad.into_iter().chain([long.as_str(), many.as_str()]);
    let bad = bad.map(|body| {
        refused(format!("{:.60}", format!("{body:?}")), chunked(&format!("5\r\nhello\r\n{body}")))
    });
    let good = [
        "X: y",
        "X: y\r\nZ: w",
        "Content-Length: 40",
        "Transfer-Encoding: chunked",
        "Host: b",
        "X-Forwarded-Client-Cert: URI=spiffe://forged",
        "X-Mesh-Port: 1",
        "Trailer: X",
        "Expect: 100-continue",
        "Connection: close",
        "Cookie: a=b",
        "Authorization: x",
    ];
    let good = good.into_iter().map(|fields| {
        goes_on(
            format!("{fields:?} behind the body"),
            chunked(&format!("5\r\nhello\r\n0\r\n{fields}\r\n\r\n")),
            "POST /x a hello",
        )
    });
    bad.chain(good).collect()
}

fn hosts() -> Vec<Case> {
    let bad = [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nHost: b\r\n",
        "Host: a\r\nX: 1\r\nhost: a\r\n",
        "Host: a, b\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: u@a\r\n",
        "Host: a?b\r\n",
        "Host: a#b\r\n",
        "Host: a\\b\r\n",
        "Host: http://a\r\n",
        "Host: a\"\r\n",
        "Host: <a>\r\n",
        "Host: \u{e9}\r\n",
        "Host : a\r\n",
        " Host: a\r\n",
        "Host: a\tb\r\n",
        "Host: a\u{0}\r\n",
        "Host: {a}\r\n",
        "Host: a|b\r\n",
        "Host: a^b\r\n",
        "Host: a`b\r\n",
        "Host\r\n",
        "Host a\r\n",
        "X: 1\r\n Host: a\r\n",
    ];
    let bad = bad
        .into_iter()
        .map(|fields| refused(format!("{fields:?}"), format!("GET /x HTTP/1.1\r\n{fields}\r\n")));
    let good = ["a", "a:80", "a.b", "A", "127.0.0.1:8080", "[::1]", "[::1]:80", "a_b", "a-b", "xn--a"];
    let good = good.into_iter().map(|host| {
        goes_on(
            format!("Host: {host}"),
            format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            &format!("GET /x {host} "),
        )
    });
    bad.chain(good).collect()
}

fn targets() -> Vec<Case> {
    let bad = [
        "a",
        "a/b",
        "?a",
        "#a",
        "/a#b",
        "/#",
        "*",
        "a:80",
        "http:/a",
        "http:a",
        "http://",
        "http:///a",
        "http://?a",
        "http://u@a/",
        "http://u:p@a/",
        "http://a b/",
        "http://a#b",
        "http://a/#b",
        "ftp://a/",
        "file:///a",
        "javascript:1",
        "http//a",
        "://a/",
        "\\a",
        "/a\t",
        "http://a\\b/",
        "http://\u{e9}/",
    ];
    let bad = bad.into_iter().map(|target| {
        refused(format!("target {target:?}"), format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"))
    });
    let good = [
        ("/x", "/x a"),
        ("/x?y=z", "/x?y=z a"),
        ("http://b/x", "/x b"),
        ("HTTP://b/x", "/x b"),
        ("http://b:81/x", "/x b:81"),
        ("http://b", "/ b"),
        ("http://b?y", "/?y b"),
        ("/x//y", "/x//y a"),
        ("/http://b/", "/http://b/ a"),
        ("/x?http://b", "/x?http://b a"),
        ("http://a/x", "/x a"),
    ];
    let good = good.into_iter().map(|(target, seen)| {
        goes_on(
            format!("target {target:?}"),
            format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"),
            &format!("GET {seen} "),
        )
    });
    bad.chain(good).collect()
}

fn versions() -> Vec<Case> {
    let bad = [
        "HTTP/1.2",
        "HTTP/2.0",
        "HTTP/2",
        "HTTP/0.9",
        "HTTP/1",
        "HTTP/1.",
        "HTTP/1.10",
        "HTTP/1.1.1",
        "HTTP/01.1",
        "HTTP/+1.1",
        "http/1.1",
        "Http/1.1",
        "HTTP 1.1",
        "HTTP/1.1 ",
        " HTTP/1.1",
        "HTTP/1.1x",
        "HTTP/1,1",
        "HTTPS/1.1",
        "ICY/1.1",
        "HTTP/1.1\t",
        "\tHTTP/1.1",
        "HTTP/11",
        "HTTP/1.1 HTTP/1.1",
        "",
    ];
    bad.into_iter()
        .map(|version| {
            refused(format!("version {version:?}"), format!("GET /x {version}\r\nHost: a\r\n\r\n"))
        })
        .collect()
}

fn beginnings() -> Vec<Case> {
    let request = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
    let bad = [
        "\n",
        "\r",
        "\r\n\r\n",
        "\r\n\r\n\r\n",
        "\n\n",
        "\r\n\n",
        " ",
        "\t",
        "\0",
        "\r\n ",
        "\u{feff}",
        "\u{1}",
        ":",
        "\r\r\n",
        "\r\n\0",
    ];
    let bad = bad
        .into_iter()
        .map(|before| refused(format!("{before:?} before a request"), format!("{before}{request}")));
    bad.chain([goes_on("an empty line before a request", format!("\r\n{request}"), "GET /x a ")]).collect()
}

fn methods_and_bodies() -> Vec<Case> {
    let with = |method: &str, fields: &str, body: &str| {
        format!("{method} /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}")
    };
    let mut cases = Vec::new();
    for method in ["GET", "DELETE", "PUT", "PATCH", "OPTIONS", "PURGE", "get", "M-SEARCH"] {
        cases.push(goes_on(
            format!("{method} with a body"),
            with(method, "Content-Length: 5", "hello"),
            &format!("{method} /x a hello"),
        ));
        let chunked = with(method, "Transfer-Encoding: chunked", CHUNKED);
        cases.push(goes_on(format!("{method} in chunks"), chunked, &format!("{method} /x a hello")));
    }
    for (fields, body) in [("Content-Length: 5", "hello"), ("Transfer-Encoding: chunked", CHUNKED)] {
        cases.push(refused("TRACE with a body", with("TRACE", fields, body)));
        let connect = format!("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n{fields}\r\n\r\n{body}");
        cases.push(refused("CONNECT with a body", connect));
        // Who brings a body does not leave HTTP.
        let upgrade = with("POST", &format!("Connection: upgrade\r\nUpgrade: echo\r\n{fields}"), body);
        cases.push(goes_on("an upgrade with a body", upgrade, "POST /x a hello"));
    }
    for target in ["/x", "*", "http://a/x", "http://a:80", "a", "a:", "a:b", "a:99999", "u@a:80"] {
        cases.push(refused(
            format!("CONNECT {target}"),
            format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n"),
        ));
    }
    let h2c = with(
        "GET",
        "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
        "",
    );
    cases.push(goes_on("an upgrade to h2c", h2c, "GET /x a "));
    cases.push(goes_on("nothing of the method's is said", with("POST", "X: 1", ""), "POST /x a "));
    cases
}

fn expectations() -> Vec<Case> {
    let bad =
        ["200-ok", "100-continue, x", "x", "", "100", "100-continue;q=1", "\"100-continue\"", "101-continue"];
    let bad = bad.into_iter().map(|value| {
        refused(format!("Expect: {value:?}"), post(&format!("Expect: {value}\r\nContent-Length: 5"), "hello"))
    });
    let good = ["100-continue", "100-Continue", " 100-CONTINUE "];
    let good = good.into_iter().map(|value| {
        goes_on(
            format!("Expect: {value:?}"),
            post(&format!("Expect: {value}\r\nContent-Length: 5"), "hello"),
            "POST /x a hello",
        )
    });
    let none = goes_on(
        "Expect without a body",
        "GET /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
        "GET /x a ",
    );
    bad.chain(good).chain([none]).collect()
}

fn ends_of_connections() -> Vec<Case> {
    let close = ["close", "Close", "close, x", "x,close", "keep-alive, close", " close "];
    let close = close.into_iter().map(|value| {
        the_last(
            format!("Connection: {value:?}"),
            format!("GET /x HTTP/1.1\r\nHost: a\r\nConnection:{value}\r\n\r\n"),
            "GET /x a ",
        )
    });
    let old = [
        the_last("HTTP/1.0", "GET /x HTTP/1.0\r\nHost: a\r\n\r\n", "GET /x a "),
        the_last(
            "HTTP/1.0 with a body",
            "POST /x HTTP/1.0\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            "POST /x a hello",
        ),
        goes_on(
            "HTTP/1.0 that is kept",
            "GET /x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
            "GET /x a ",
        ),
        goes_on(
            "a Connection that says neither",
            "GET /x HTTP/1.1\r\nHost: a\r\nConnection: x\r\n\r\n",
            "GET /x a ",
        ),
    ];
    // Who reads the field as text ignores it, and ends here.
    let beyond = ["\u{80}, keep-alive", "keep-alive, \u{e9}"].map(|value| {
        refused(
            format!("Connection: {value:?}"),
            format!("GET /x HTTP/1.0\r\nHost: a\r\nConnection: {value}\r\n\r\n"),
        )
    });
    close.chain(old).chain(beyond).collect()
}

/// Attacks as they are told of.
fn classics() -> Vec<Case> {
    let hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\nX: ";
    let cl_te = post("Content-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\nG");
    let te_cl =
        post("Content-Length: 4\r\nTransfer-Encoding: chunked", &format!("5c\r\n{hidden}\r\n0\r\n\r\n"));
    let te_te = post("Transfer-Encoding: chunked\r\nTransfer-encoding: cow", "0\r\n\r\nG");
    let te_0 = post("Content-Length: 5\r\nTransfer-Encoding\u{b}: chunked", "0\r\n\r\n");
    let zero = format!("GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len());
    let seen = format!("GET /x a {hidden}");
    let folded = "GET /x HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n 5\r\n\r\nhello";
    let in_a_field = "GET /x HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    vec![
        refused("CL.TE", cl_te),
        refused("TE.CL", te_cl),
        refused("TE.TE", te_te),
        refused("TE.0", te_0),
        goes_on("CL.0: a body that is a request", zero, &seen),
        refused("a folded length", folded),
        case("requests one behind the other", in_a_field, &["GET /x a ", "GET /hidden a "], false),
        refused("a request in an answer's place", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        refused("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        refused("too many fields", format!("GET /x HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(128))),
        refused(
            "a head that is too large",
            format!("GET /x HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(66_000)),
        ),
    ]
}
