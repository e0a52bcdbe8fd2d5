//! Pure. What a filter must and must not say, and which filters a rule may have beside each other and beside the rest of
//! it: Gateway API's rules, and ours for `DirectResponse`.

use super::{
    Cors, FAULT_DELAY_MAX, FaultInjection, FilterType, Fraction, HeaderModifier, HeaderPair, PathModifier,
    PathModifierType, RequestRedirect, RouteFilter,
};
use crate::shape::{Decoder, Path, Text};

/// What else stands where some filters do.
#[derive(Clone, Copy)]
pub(in crate::resource) struct Beside {
    /// Whose they are, in words: `rule`.
    owner: &'static str,
    /// It is a rule that has back ends.
    backends: bool,
    /// The rule's only match has a path of type PathPrefix, or none at all, which is the prefix `/`.
    one_prefix: bool,
}

/// Filters that a rule has at most once.
const ONCE: [FilterType; 7] = [
    FilterType::RequestHeaderModifier,
    FilterType::ResponseHeaderModifier,
    FilterType::RequestRedirect,
    FilterType::UrlRewrite,
    FilterType::Cors,
    FilterType::DirectResponse,
    FilterType::FaultInjection,
];

/// Filters that cannot stand in one rule: the first answers, and nothing is left for the second to do.
const APART: [(FilterType, FilterType); 5] = [
    (FilterType::RequestRedirect, FilterType::UrlRewrite),
    (FilterType::RequestRedirect, FilterType::DirectResponse),
    (FilterType::RequestRedirect, FilterType::RequestMirror),
    (FilterType::DirectResponse, FilterType::UrlRewrite),
    (FilterType::DirectResponse, FilterType::RequestMirror),
];

impl Beside {
    /// Of a rule's filters.
    pub(in crate::resource) fn of_rule(backends: bool, one_prefix: bool) -> Self {
        Self { owner: "rule", backends, one_prefix }
    }

    /// Of the filters of one of its back ends.
    pub(super) fn of_backend(one_prefix: bool) -> Self {
        Self { owner: "back end", backends: false, one_prefix }
    }
}

/// Reports what is wrong with the filters of one rule or back end, which stand at `at`.
pub(in crate::resource) fn check_filters(
    filters: &[RouteFilter],
    beside: Beside,
    at: &Path<'_>,
    decoder: &mut Decoder,
) {
    for (index, filter) in filters.iter().enumerate() {
        let filter_at = Path::Index(at, index);
        check_together(filter, &filters[..index], beside, &filter_at, decoder);
        check_fields(filter, &filter_at, decoder);
        check_filter(filter, beside, &filter_at, decoder);
    }
}

fn check_together(
    filter: &RouteFilter,
    before: &[RouteFilter],
    beside: Beside,
    at: &Path<'_>,
    decoder: &mut Decoder,
) {
    let kind_at = Path::Field(at, "type");
    let (kind, owner) = (filter.kind, beside.owner);
    if ONCE.contains(&kind) && before.iter().any(|other| other.kind == kind) {
        decoder.report(&kind_at, format_args!("must be there once: a {owner} has one {kind}"));
    }
    let apart = |other: FilterType| APART.contains(&(kind, other)) || APART.contains(&(other, kind));
    if let Some(other) = before.iter().find(|other| apart(other.kind)) {
        decoder.report(&kind_at, format_args!("must not be {kind} in a {owner} with {}", other.kind));
    }
    if beside.backends && matches!(kind, FilterType::RequestRedirect | FilterType::DirectResponse) {
        decoder.report(&kind_at, format_args!("must not be {kind} in a rule with backendRefs"));
    }
}

/// The field of the filter's type is there, and no other.
fn check_fields(filter: &RouteFilter, at: &Path<'_>, decoder: &mut Decoder) {
    let fields = [
        (
            FilterType::RequestHeaderModifier,
            "requestHeaderModifier",
            filter.request_header_modifier.is_some(),
        ),
        (
            FilterType::ResponseHeaderModifier,
            "responseHeaderModifier",
            filter.response_header_modifier.is_some(),
        ),
        (FilterType::RequestRedirect, "requestRedirect", filter.request_redirect.is_some()),
        (FilterType::UrlRewrite, "urlRewrite", filter.url_rewrite.is_some()),
        (FilterType::RequestMirror, "requestMirror", filter.request_mirror.is_some()),
        (FilterType::Cors, "cors", filter.cors.is_some()),
        (FilterType::DirectResponse, "directResponse", filter.direct_response.is_some()),
        (FilterType::FaultInjection, "faultInjection", filter.fault_injection.is_some()),
    ];
    for (kind, field, is_there) in fields {
        let (field_at, own) = (Path::Field(at, field), kind == filter.kind);
        if own && !is_there {
            decoder.report(&field_at, format_args!("is required with type {kind}"));
        } else if !own && is_there {
            decoder.report(&field_at, format_args!("must be left out with type {}", filter.kind));
        }
    }
}

fn check_filter(filter: &RouteFilter, beside: Beside, at: &Path<'_>, decoder: &mut Decoder) {
    let field = |name| Path::Field(at, name);
    if let Some(modifier) = &filter.request_header_modifier {
        check_headers(modifier, &field("requestHeaderModifier"), decoder);
    }
    if let Some(modifier) = &filter.response_header_modifier {
        check_headers(modifier, &field("responseHeaderModifier"), decoder);
    }
    if let Some(redirect) = &filter.request_redirect {
        check_redirect(redirect, beside, &field("requestRedirect"), decoder);
    }
    if let Some(rewrite) = &filter.url_rewrite {
        let rewrite_at = field("urlRewrite");
        check_hostname(rewrite.hostname.as_ref(), &rewrite_at, decoder);
        check_path(rewrite.path.as_ref(), beside, &rewrite_at, decoder);
        if rewrite.hostname.is_none() && rewrite.path.is_none() {
            decoder.report(&rewrite_at, "must have hostname or path");
        }
    }
    if let Some(mirror) = &filter.request_mirror {
        check_share(mirror.percent.is_some(), mirror.fraction.as_ref(), &field("requestMirror"), decoder);
    }
    if let Some(cors) = &filter.cors {
        check_cors(cors, &field("cors"), decoder);
    }
    if let Some(fault) = &filter.fault_injection {
        check_fault(fault, &field("faultInjection"), decoder);
    }
    if let Some(direct) = &filter.direct_response {
        let direct_at = field("directResponse");
        check_pairs(&direct.headers, &Path::Field(&direct_at, "headers"), decoder);
        if direct.body.is_some() && matches!(direct.status.value(), 204 | 205 | 304) {
            decoder.report(
                &Path::Field(&direct_at, "body"),
                format_args!("must be left out with status {}", direct.status),
            );
        }
    }
}

fn check_headers(modifier: &HeaderModifier, at: &Path<'_>, decoder: &mut Decoder) {
    check_pairs(&modifier.set, &Path::Field(at, "set"), decoder);
    check_pairs(&modifier.add, &Path::Field(at, "add"), decoder);
    let remove_at = Path::Field(at, "remove");
    for (index, name) in modifier.remove.iter().enumerate() {
        check_name(name.as_str(), &Path::Index(&remove_at, index), decoder);
    }
    let pairs = modifier.set.iter().chain(&modifier.add).map(|pair| pair.name.as_str());
    let mut names: Vec<_> =
        pairs.chain(modifier.remove.iter().map(Text::as_str)).map(str::to_ascii_lowercase).collect();
    names.sort_unstable();
    if names.is_empty() {
        decoder.report(at, "must set, add or remove something");
    }
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        decoder.report(at, format_args!("must name each header once, names {} again", twice[0]));
    }
}

fn check_pairs(pairs: &[HeaderPair], at: &Path<'_>, decoder: &mut Decoder) {
    for (index, pair) in pairs.iter().enumerate() {
        let pair_at = Path::Index(at, index);
        check_name(pair.name.as_str(), &Path::Field(&pair_at, "name"), decoder);
        if !pair.value.as_str().bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            decoder.report(&Path::Field(&pair_at, "value"), "must be printable ASCII (RFC 9110 §5.5)");
        }
    }
}

/// A header's name is a token.
pub(in crate::resource) fn check_name(name: &str, at: &Path<'_>, decoder: &mut Decoder) {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        decoder.report(at, "must be a header's name (RFC 9110 §5.1)");
    }
}

fn check_redirect(redirect: &RequestRedirect, beside: Beside, at: &Path<'_>, decoder: &mut Decoder) {
    check_hostname(redirect.hostname.as_ref(), at, decoder);
    check_path(redirect.path.as_ref(), beside, at, decoder);
    if !matches!(redirect.status_code.value(), 301 | 302 | 303 | 307 | 308) {
        decoder.report(&Path::Field(at, "statusCode"), "must be 301, 302, 303, 307 or 308");
    }
}

fn check_hostname(hostname: Option<&Text<253>>, at: &Path<'_>, decoder: &mut Decoder) {
    let label = |label: &str| {
        let inner =
            label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        (1..=63).contains(&label.len()) && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    if hostname.is_some_and(|hostname| !hostname.as_str().split('.').all(label)) {
        decoder.report(
            &Path::Field(at, "hostname"),
            "must be a host name in lower case (RFC 1123), without a port",
        );
    }
}

fn check_path(path: Option<&PathModifier>, beside: Beside, at: &Path<'_>, decoder: &mut Decoder) {
    let Some(path) = path else { return };
    let at = Path::Field(at, "path");
    let fields = [
        (PathModifierType::ReplaceFullPath, "replaceFullPath", &path.replace_full_path),
        (PathModifierType::ReplacePrefixMatch, "replacePrefixMatch", &path.replace_prefix_match),
    ];
    for (kind, field, text) in fields {
        let field_at = Path::Field(&at, field);
        match text {
            None if kind == path.kind => {
                decoder.report(&field_at, format_args!("is required with type {kind}"));
            }
            Some(_) if kind != path.kind => {
                decoder.report(&field_at, format_args!("must be left out with type {}", path.kind));
            }
            Some(text) => {
                let nothing = text.as_str().is_empty() && kind == PathModifierType::ReplacePrefixMatch;
                if !text.as_str().starts_with('/') && !nothing {
                    decoder.report(&field_at, "must start with '/'");
                }
            }
            None => {}
        }
    }
    if path.kind == PathModifierType::ReplacePrefixMatch && !beside.one_prefix {
        decoder.report(
            &Path::Field(&at, "type"),
            "must be ReplaceFullPath unless the rule has one match, and that has a path of type PathPrefix",
        );
    }
}

fn check_fault(fault: &FaultInjection, at: &Path<'_>, decoder: &mut Decoder) {
    if fault.delay.is_none() && fault.abort.is_none() {
        decoder.report(at, "must have delay or abort");
    }
    if let Some(delay) = &fault.delay {
        let delay_at = Path::Field(at, "delay");
        if delay.duration > FAULT_DELAY_MAX {
            decoder.report(
                &Path::Field(&delay_at, "duration"),
                format_args!("must be at most {FAULT_DELAY_MAX}"),
            );
        }
        check_share(delay.percent.is_some(), delay.fraction.as_ref(), &delay_at, decoder);
    }
    if let Some(abort) = &fault.abort {
        let abort_at = Path::Field(at, "abort");
        if abort.status.is_none() && abort.grpc_status.is_none() {
            decoder.report(&abort_at, "must have status or grpcStatus");
        }
        check_share(abort.percent.is_some(), abort.fraction.as_ref(), &abort_at, decoder);
    }
}

/// A share is said once, and is at most the whole.
fn check_share(percent: bool, fraction: Option<&Fraction>, at: &Path<'_>, decoder: &mut Decoder) {
    let fraction_at = Path::Field(at, "fraction");
    let Some(fraction) = fraction else { return };
    if percent {
        decoder.report(&fraction_at, "must be left out with percent");
    }
    if fraction.numerator.value() > fraction.denominator.value() {
        decoder.report(
            &Path::Field(&fraction_at, "numerator"),
            format_args!("must be at most the denominator, {}", fraction.denominator),
        );
    }
}

fn check_cors(cors: &Cors, at: &Path<'_>, decoder: &mut Decoder) {
    let origins_at = Path::Field(at, "allowOrigins");
    for (index, origin) in cors.allow_origins.iter().enumerate() {
        if !is_origin(origin.as_str()) {
            decoder.report(
                &Path::Index(&origins_at, index),
                "must be an origin such as https://shop.example:8443, https://*.shop.example, or *",
            );
        }
    }
    let methods_at = Path::Field(at, "allowMethods");
    for (index, method) in cors.allow_methods.iter().enumerate() {
        let method = method.as_str();
        let word = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-');
        if !word && method != "*" {
            decoder.report(&Path::Index(&methods_at, index), "must be a method in upper case, or *");
        }
    }
    let lists = [("allowHeaders", &cors.allow_headers), ("exposeHeaders", &cors.expose_headers)];
    for (field, names) in lists {
        let list_at = Path::Field(at, field);
        for (index, name) in names.iter().enumerate() {
            check_name(name.as_str(), &Path::Index(&list_at, index), decoder);
        }
    }
    alone(&cors.allow_origins, &origins_at, decoder);
    alone(&cors.allow_methods, &methods_at, decoder);
    alone(&cors.allow_headers, &Path::Field(at, "allowHeaders"), decoder);
    alone(&cors.expose_headers, &Path::Field(at, "exposeHeaders"), decoder);
}

/// `*` is everything: beside it others would say nothing.
fn alone<const MAX: usize>(list: &[Text<MAX>], at: &Path<'_>, decoder: &mut Decoder) {
    if list.len() > 1 && list.iter().any(|text| text.as_str() == "*") {
        decoder.report(at, "must have * alone, or not at all");
    }
}

/// Gateway API's CORSOrigin: `*`, or `<scheme>://<host>[:<port>]`, where the host may begin with `*.` or be `*`.
fn is_origin(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return false;
    };
    let (host, port) = rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)));
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let host_fits = host == "*" || host.strip_prefix("*.").unwrap_or(host).split('.').all(label);
    host_fits && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::{kind::Kind, object::Parsed};

    /// A rule of an HTTPRoute (YAML in flow form) and what is wrong with it: `path: message`, a line each, the paths from
    /// the rule on, the messages by their start.
    #[track_caller]
    fn check(rule: &str, want: &[&str]) {
        let rule: Value = serde_saphyr::from_str(rule).expect("YAML");
        let input = json!({"metadata": {"namespace": "default", "name": "r"},
            "spec": {"parentRefs": [{"name": "web"}], "rules": [rule]}});
        let got: Vec<_> = match Parsed::from_input(&input, Some(Kind::HTTPRoute)) {
            Ok(_) => Vec::new(),
            Err(invalid) => {
                invalid.errors.iter().map(|error| format!("{}: {}", error.path, error.message)).collect()
            }
        };
        assert_eq!(got.len(), want.len(), "{got:#?}");
        for (got, want) in got.iter().zip(want) {
            let want = format!("spec.rules[0].{want}");
            assert!(got.starts_with(&want), "{got}\nis not\n{want}");
        }
    }

    #[test]
    fn a_filter_has_the_field_of_its_type_and_no_other() {
        check("{filters: [{type: URLRewrite, urlRewrite: {hostname: a.example}}]}", &[]);
        check(
            "{filters: [{type: URLRewrite, requestRedirect: {port: 1}}]}",
            &[
                "filters[0].requestRedirect: must be left out with type URLRewrite",
                "filters[0].urlRewrite: is required with type URLRewrite",
            ],
        );
        check("{filters: [{type: Magic}]}", &["filters[0].type: must be one of RequestHeaderModifier, "]);
        check(
            "{filters: [{type: URLRewrite, urlRewrite: {}}]}",
            &["filters[0].urlRewrite: must have hostname or path"],
        );
    }

    #[test]
    fn what_cannot_stand_together_is_refused() {
        let redirect = "{type: RequestRedirect, requestRedirect: {scheme: https}}";
        let rewrite = "{type: URLRewrite, urlRewrite: {hostname: a.example}}";
        let direct = "{type: DirectResponse, directResponse: {body: x}}";
        let mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}}}";
        check(&format!("{{filters: [{mirror}, {mirror}, {rewrite}]}}"), &[]);
        for (first, second, says) in [
            (redirect, redirect, "must be there once: a rule has one RequestRedirect"),
            (redirect, rewrite, "must not be URLRewrite in a rule with RequestRedirect"),
            (rewrite, redirect, "must not be RequestRedirect in a rule with URLRewrite"),
            (direct, rewrite, "must not be URLRewrite in a rule with DirectResponse"),
            (direct, mirror, "must not be RequestMirror in a rule with DirectResponse"),
            (redirect, direct, "must not be DirectResponse in a rule with RequestRedirect"),
        ] {
            check(&format!("{{filters: [{first}, {second}]}}"), &[&format!("filters[1].type: {says}")]);
        }
        for own in [redirect, direct] {
            check(
                &format!("{{backendRefs: [{{name: a, port: 1}}], filters: [{own}]}}"),
                &["filters[0].type: must not be "],
            );
        }
    }

    #[test]
    fn a_prefix_is_replaced_where_the_one_match_has_one() {
        let with = |matches: &str| {
            format!(
                "{{matches: [{matches}], filters: [{{type: URLRewrite, urlRewrite: {{path: {{type: ReplacePrefixMatch, replacePrefixMatch: /x}}}}}}]}}"
            )
        };
        check(&with(""), &[]);
        check(&with("{path: {value: /a}, method: GET}"), &[]);
        for unfit in
            ["{path: {value: /a}}, {path: {value: /b}}", "{path: {type: Exact, value: /a}}", "{method: GET}"]
        {
            check(&with(unfit), &["filters[0].urlRewrite.path.type: must be ReplaceFullPath unless"]);
        }
        check(
            "{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replacePrefixMatch: /x}}}]}",
            &[
                "filters[0].urlRewrite.path.replaceFullPath: is required with type ReplaceFullPath",
                "filters[0].urlRewrite.path.replacePrefixMatch: must be left out with type ReplaceFullPath",
            ],
        );
        check(
            "{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: x}}}]}",
            &["filters[0].urlRewrite.path.replaceFullPath: must start with '/'"],
        );
    }

    #[test]
    fn every_wrong_field_of_a_filter_is_named() {
        check(
            "{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: 'a b', value: x}], add: [{name: X-A, value: é}], remove: [x-a, '']}}]}",
            &[
                "filters[0].requestHeaderModifier.set[0].name: must be a header's name",
                "filters[0].requestHeaderModifier.add[0].value: must be printable ASCII",
                "filters[0].requestHeaderModifier.remove[1]: must be a header's name",
                "filters[0].requestHeaderModifier: must name each header once, names x-a again",
            ],
        );
        check(
            "{filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {}}]}",
            &["filters[0].responseHeaderModifier: must set, add or remove something"],
        );
        check(
            "{filters: [{type: RequestRedirect, requestRedirect: {hostname: 'A.example:80', statusCode: 304, port: 0, scheme: ftp}}]}",
            &[
                "filters[0].requestRedirect.scheme: must be one of http, https",
                "filters[0].requestRedirect.port: must be a whole number",
            ],
        );
        check(
            "{filters: [{type: RequestRedirect, requestRedirect: {hostname: 'A.example:80', statusCode: 304}}]}",
            &[
                "filters[0].requestRedirect.hostname: must be a host name in lower case",
                "filters[0].requestRedirect.statusCode: must be 301, 302, 303, 307 or 308",
            ],
        );
        check(
            "{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1}, percent: 5, fraction: {numerator: 7, denominator: 5}}}]}",
            &[
                "filters[0].requestMirror.fraction: must be left out with percent",
                "filters[0].requestMirror.fraction.numerator: must be at most the denominator, 5",
            ],
        );
        check(
            "{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 1, weight: 2}}}]}",
            &["filters[0].requestMirror.backendRef.weight: unknown field"],
        );
        check(
            "{filters: [{type: FaultInjection, faultInjection: {until: tomorrow}}]}",
            &["filters[0].faultInjection.until: "],
        );
        check(
            "{filters: [{type: FaultInjection, faultInjection: {delay: {duration: 61s, percent: 1, fraction: {numerator: 1}}, abort: {}}}]}",
            &[
                "filters[0].faultInjection.delay.duration: must be at most 1m",
                "filters[0].faultInjection.delay.fraction: must be left out with percent",
                "filters[0].faultInjection.abort: must have status or grpcStatus",
            ],
        );
        check(
            "{filters: [{type: FaultInjection, faultInjection: {}}]}",
            &["filters[0].faultInjection: must have delay or abort"],
        );
        check(
            "{filters: [{type: DirectResponse, directResponse: {status: 204, body: x}}]}",
            &["filters[0].directResponse.body: must be left out with status 204"],
        );
    }

    #[test]
    fn origins_are_origins_and_stars_stand_alone() {
        let with =
            |origins: &str| format!("{{filters: [{{type: CORS, cors: {{allowOrigins: [{origins}]}}}}]}}");
        for fit in ["'*'", "'https://*'", "'http://a.example:8080', 'https://*.b.example'"] {
            check(&with(fit), &[]);
        }
        for unfit in [
            "a.example",
            "'https://a.example/x'",
            "'ftp://a'",
            "'https://a*.b'",
            "'https://a:0'",
            "'https://'",
        ] {
            check(&with(unfit), &["filters[0].cors.allowOrigins[0]: must be an origin such as"]);
        }
        check(&with("'*', 'https://a'"), &["filters[0].cors.allowOrigins: must have * alone"]);
        check(
            "{filters: [{type: CORS, cors: {allowMethods: [get, '*'], allowHeaders: ['*', a], maxAge: 0}}]}",
            &["filters[0].cors.maxAge: must be a whole number from 1"],
        );
        check(
            "{filters: [{type: CORS, cors: {allowMethods: [get, '*'], allowHeaders: ['*', a]}}]}",
            &[
                "filters[0].cors.allowMethods[0]: must be a method in upper case, or *",
                "filters[0].cors.allowMethods: must have * alone",
                "filters[0].cors.allowHeaders: must have * alone",
            ],
        );
    }
}
