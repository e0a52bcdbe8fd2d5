//! Pure. What a directory says of an instance, as labels. What can be no label is left out.

use std::collections::BTreeMap;

use model::{
    object::{LABEL_VALUE_BYTES_MAX, LabelKey, Labels},
    shape::Text,
};

/// Meta as it is; of tags `key=value` as such, another one as `tag: "true"`. Meta comes before tags.
pub(crate) fn labels<'a>(
    tags: impl IntoIterator<Item = &'a String>,
    meta: &BTreeMap<String, String>,
) -> Labels {
    let tags = tags.into_iter().map(|tag| tag.split_once('=').unwrap_or((tag, "true")));
    let meta = meta.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let pair = |(key, value): (&str, &str)| {
        Some((key.parse::<LabelKey>().ok()?, Text::<LABEL_VALUE_BYTES_MAX>::new(value)?))
    };
    tags.chain(meta).filter_map(pair).collect()
}
