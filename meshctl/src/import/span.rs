//! Pure. Spans of time as Go writes them (`1m30s`, `1.5s`, `100us`), which Consul and Kuma have from it.

use model::duration::Timespan;

use super::fields::At;

/// The span at a place; what is finer than a millisecond is rounded up, and told.
pub(crate) fn of(at: &At<'_>) -> Option<String> {
    let text = at.text()?;
    let Some(micros) = micros(&text) else {
        at.lost("it must be a duration such as 15s or 1m30s", "correct it, and import again");
        return None;
    };
    let span = Timespan::from_millis(micros.div_ceil(1_000)).to_string();
    if micros % 1_000 != 0 {
        at.differs("the mesh knows whole milliseconds", &format!("{span} is taken"));
    }
    Some(span)
}

/// So many milliseconds.
pub(crate) fn of_millis(at: &At<'_>) -> Option<String> {
    Some(Timespan::from_millis(at.whole(0, 86_400_000)?).to_string())
}

fn micros(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let (mut rest, mut micros) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.find(|next: char| !next.is_ascii_digit() && next != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let units =
            [("ms", 1e3), ("us", 1.0), ("µs", 1.0), ("ns", 1e-3), ("h", 3.6e9), ("m", 6e7), ("s", 1e6)];
        let (unit, size) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        micros += number * size;
        rest = &rest[unit.len()..];
    }
    (!text.is_empty()).then_some(micros.ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_go_writes_them() {
        for (text, want) in [
            ("15s", Some(15_000_000)),
            ("1m30s", Some(90_000_000)),
            ("1.5s", Some(1_500_000)),
            ("1h0m0s", Some(3_600_000_000)),
            ("100us", Some(100)),
            ("20ms", Some(20_000)),
            ("1ns", Some(1)),
            ("0", Some(0)),
            ("0s", Some(0)),
            ("", None),
            ("15", None),
            ("fast", None),
            ("-1s", None),
        ] {
            assert_eq!(micros(text), want, "{text}");
        }
    }
}
