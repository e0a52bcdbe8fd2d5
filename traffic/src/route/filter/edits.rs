//! Pure. Changes of a message's fields: some are set, some get a further value, some are taken out.

use std::fmt;

use model::resource::{HeaderModifier, HeaderPair};

/// Fields that can be changed; names are in lower case.
pub trait FieldsMut {
    /// The field has this one value.
    fn set(&mut self, name: &str, value: &str);
    /// The field has this value too.
    fn add(&mut self, name: &str, value: &str);
    /// The field is gone.
    fn remove(&mut self, name: &str);
}

/// Changes of fields, each name in one of the lists (Gateway API, HTTPHeaderFilter).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edits {
    set: Vec<(String, String)>,
    add: Vec<(String, String)>,
    remove: Vec<String>,
}

impl Edits {
    pub(super) fn new(modifier: &HeaderModifier) -> Self {
        let pairs = |pairs: &[HeaderPair]| {
            let pair =
                |pair: &HeaderPair| (pair.name.as_str().to_ascii_lowercase(), pair.value.as_str().to_owned());
            pairs.iter().map(pair).collect()
        };
        let remove = modifier.remove.iter().map(|name| name.as_str().to_ascii_lowercase()).collect();
        Self { set: pairs(&modifier.set), add: pairs(&modifier.add), remove }
    }

    /// The same with one more field that is set.
    pub(super) fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.set.push((name.to_owned(), value.into()));
        self
    }

    /// The same with one more value of a field.
    pub(super) fn add(mut self, name: &str, value: impl Into<String>) -> Self {
        self.add.push((name.to_owned(), value.into()));
        self
    }

    /// These, and `later` ones after them: what both do to a field is what is left of it in the end.
    pub(super) fn then(mut self, later: Self) -> Self {
        let Self { set, add, remove } = later;
        let overruled = |name: &String| set.iter().any(|(later, _)| later == name) || remove.contains(name);
        self.set.retain(|(name, _)| !overruled(name));
        self.add.retain(|(name, _)| !overruled(name));
        self.remove.retain(|name| !remove.contains(name));
        self.set.extend(set);
        self.add.extend(add);
        self.remove.extend(remove);
        self
    }

    /// The fields that these edits make of none.
    pub(super) fn into_fields(self) -> Vec<(String, String)> {
        self.set.into_iter().chain(self.add).collect()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    /// Makes them.
    pub fn apply(&self, fields: &mut dyn FieldsMut) {
        self.remove.iter().for_each(|name| fields.remove(name));
        self.set.iter().for_each(|(name, value)| fields.set(name, value));
        self.add.iter().for_each(|(name, value)| fields.add(name, value));
    }
}

/// `x-a is set to 1, x-b gets 2, x-c is removed`.
impl fmt::Display for Edits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.set.iter().map(|(name, value)| format!("{name} is set to {value}"));
        let add = self.add.iter().map(|(name, value)| format!("{name} gets {value}"));
        let removed = self.remove.iter().map(|name| format!("{name} is removed"));
        f.write_str(&set.chain(add).chain(removed).collect::<Vec<_>>().join(", "))
    }
}

/// Fields as pairs, names in any case.
impl FieldsMut for Vec<(String, String)> {
    fn set(&mut self, name: &str, value: &str) {
        FieldsMut::remove(self, name);
        self.push((name.to_owned(), value.to_owned()));
    }

    fn add(&mut self, name: &str, value: &str) {
        self.push((name.to_owned(), value.to_owned()));
    }

    fn remove(&mut self, name: &str) {
        self.retain(|(own, _)| !own.eq_ignore_ascii_case(name));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Pairs = Vec<(String, String)>;

    fn pairs() -> impl Strategy<Value = Pairs> {
        prop::collection::vec(("[a-d]", "[0-9]").prop_map(|pair| pair), 0..4)
    }

    fn edits() -> impl Strategy<Value = Edits> {
        (pairs(), pairs(), prop::collection::vec("[a-d]", 0..3)).prop_map(|(set, add, remove)| {
            // Each name stands in one list, as `model` sees to.
            let mut names = std::collections::BTreeSet::new();
            let mut once = |pairs: Pairs| -> Pairs {
                pairs.into_iter().filter(|(name, _)| names.insert(name.clone())).collect()
            };
            let (set, add) = (once(set), once(add));
            let remove = remove.into_iter().filter(|name| names.insert(name.clone())).collect();
            Edits { set, add, remove }
        })
    }

    /// The values of each field, in their order.
    fn sorted(mut fields: Pairs) -> Pairs {
        fields.sort_by(|(one, _), (other, _)| one.cmp(other));
        fields
    }

    proptest! {
        #[test]
        fn two_made_one_do_as_one_after_the_other(fields in pairs(), all in prop::collection::vec(edits(), 1..4)) {
            let (mut one_by_one, mut at_once) = (fields.clone(), fields);
            all.iter().for_each(|edits| edits.apply(&mut one_by_one));
            all.into_iter().fold(Edits::default(), Edits::then).apply(&mut at_once);
            prop_assert_eq!(sorted(one_by_one), sorted(at_once));
        }
    }
}
