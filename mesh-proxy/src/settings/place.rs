//! Pure. Where in a TOML file an error stands: its line and its key.

/// What is wrong with a settings file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {}{message}", key.as_deref().map(|key| format!("{key}: ")).unwrap_or_default())]
pub struct SettingsError {
    /// The file, as it was called.
    pub file: String,
    /// The line, counted from 1.
    pub line: usize,
    /// The key, with its tables; none where the text is no TOML.
    pub key: Option<String>,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl SettingsError {
    /// The error with its place in `text`.
    pub(super) fn locate(file: &str, text: &str, error: &toml::de::Error) -> Self {
        let offset = error.span().map_or(0, |span| span.start).min(text.len());
        let before = text.get(..offset).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let message = error.message().trim().replace('\n', ", ");
        Self { file: file.to_owned(), line, key: key(text, line), message }
    }

    /// An error about `key`, at the line where it stands.
    pub(super) fn about(file: &str, text: &str, key: &str, message: String) -> Self {
        let last = key.rsplit('.').next().unwrap_or(key);
        let stands = |line: &str| own_key(line) == Some(last) || header(line) == Some(key);
        let line = text.lines().position(stands).map_or(1, |index| index + 1);
        Self { file: file.to_owned(), line, key: Some(key.to_owned()), message }
    }
}

/// The key on a line, with the table that it stands in.
fn key(text: &str, line: usize) -> Option<String> {
    let lines: Vec<&str> = text.lines().take(line).collect();
    let current = lines.last()?;
    let table = lines.iter().rev().find_map(|line| header(line));
    match (table, own_key(current)) {
        (Some(table), _) if header(current).is_some() => Some(table.to_owned()),
        (Some(table), Some(key)) => Some(format!("{table}.{key}")),
        (None, Some(key)) => Some(key.to_owned()),
        (_, None) => None,
    }
}

/// `listen` of `[listen]`, `upstream` of `[[upstream]]`.
fn header(line: &str) -> Option<&str> {
    let inner = line.trim().strip_prefix('[')?;
    let name = inner.trim_start_matches('[').split(']').next()?.trim();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-\"' ".contains(&byte);
    (!name.is_empty() && name.bytes().all(plain)).then_some(name)
}

/// `port` of `port = 80`.
fn own_key(line: &str) -> Option<&str> {
    let key = line.split_once('=')?.0.trim();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-\"'".contains(&byte);
    (!key.is_empty() && key.bytes().all(plain)).then_some(key)
}
