//! Pure. Reads a TOML table field by field: each fault with its line and key, all of them, unknown keys among them.

use std::{fmt::Display, str::FromStr};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::Fault;

/// Where faults are gathered while a text is read.
pub(super) struct Faults<'t> {
    text: &'t str,
    pub(super) found: Vec<Fault>,
}

/// A table of the text (absent ones count as empty), and which of its keys were asked for.
pub(super) struct Table<'a, 't> {
    fields: Option<&'a DeTable<'t>>,
    /// With its final dot, or empty for the whole text.
    path: String,
    asked: Vec<&'static str>,
}

impl<'t> Faults<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, found: Vec::new() }
    }

    /// Notes a fault at a byte of the text.
    pub(super) fn report(&mut self, at: usize, key: String, message: impl Display) {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        self.found.push(Fault { line, key, message: message.to_string() });
    }
}

impl<'a, 't> Table<'a, 't> {
    pub(super) fn whole(fields: &'a DeTable<'t>) -> Self {
        Self { fields: Some(fields), path: String::new(), asked: Vec::new() }
    }

    /// The table under `key`.
    pub(super) fn table(&mut self, key: &'static str, faults: &mut Faults<'t>) -> Self {
        let path = format!("{}{key}.", self.path);
        let fields = self.value(key).and_then(|value| {
            let table = value.get_ref().as_table();
            if table.is_none() {
                let found = value.get_ref().type_str();
                faults.report(
                    value.span().start,
                    self.name(key),
                    format!("must be a table ([{key}]), is of type {found}"),
                );
            }
            table
        });
        Self { fields, path, asked: Vec::new() }
    }

    /// The text under `key`, parsed.
    pub(super) fn parsed<T: FromStr<Err: Display>>(
        &mut self,
        key: &'static str,
        faults: &mut Faults<'t>,
    ) -> Option<T> {
        let value = self.value(key)?;
        let at = value.span().start;
        let Some(text) = value.get_ref().as_str() else {
            faults.report(
                at,
                self.name(key),
                format!("must be a text in quotes, is of type {}", value.get_ref().type_str()),
            );
            return None;
        };
        match text.parse() {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                faults.report(at, self.name(key), format!("'{text}': {error}"));
                None
            }
        }
    }

    /// The whole number under `key`, within bounds.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        (least, most): (i64, i64),
        faults: &mut Faults<'t>,
    ) -> Option<i64> {
        let value = self.value(key)?;
        let number = value.get_ref().as_integer();
        let number = number.and_then(|number| i64::from_str_radix(number.as_str(), number.radix()).ok());
        let number = number.filter(|number| (least..=most).contains(number));
        if number.is_none() {
            let what = format!("must be a whole number from {least} to {most}");
            faults.report(value.span().start, self.name(key), what);
        }
        number
    }

    /// Where the value of `key` stands, or the table if it is absent.
    pub(super) fn at(&self, key: &str) -> usize {
        self.fields.and_then(|fields| fields.get(key)).map_or(0, |value| value.span().start)
    }

    /// Reports every key that nobody asked for.
    pub(super) fn finish(self, faults: &mut Faults<'t>) {
        for key in self.fields.iter().flat_map(|fields| fields.keys()) {
            if !self.asked.contains(&key.get_ref().as_ref()) {
                let name = self.name(key.get_ref());
                faults.report(
                    key.span().start,
                    name,
                    format!("is not a key here; known are {}", self.asked.join(", ")),
                );
            }
        }
    }

    pub(super) fn name(&self, key: &str) -> String {
        format!("{}{key}", self.path)
    }

    fn value(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'t>>> {
        self.asked.push(key);
        self.fields?.get(key)
    }
}
