//! Pure. The lines by which two texts differ, as a unified diff: what went, what came, and some lines around.

/// Lines around a change.
const AROUND: usize = 3;
/// The most pairs of lines that are compared: two objects of two thousand lines each. Beyond, all of it counts as changed.
const PAIRS_MAX: usize = 4_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Gone(&'a str),
    New(&'a str),
}

/// Hunks with their heads; nothing where the texts are alike.
pub(crate) fn unified(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<_>, Vec<_>) = (old.lines().collect(), new.lines().collect());
    let lines = lines(&old, &new);
    let changed: Vec<_> = (0..lines.len()).filter(|&at| !matches!(lines[at], Line::Same(_))).collect();
    let mut out = Vec::new();
    let mut rest = changed.as_slice();
    while let Some(&first) = rest.first() {
        let mut count = 1;
        while count < rest.len() && rest[count] - rest[count - 1] <= 2 * AROUND {
            count += 1;
        }
        let (from, to) = (first.saturating_sub(AROUND), (rest[count - 1] + AROUND + 1).min(lines.len()));
        out.push(head(&lines, from, to));
        out.extend(lines[from..to].iter().map(Line::text));
        rest = &rest[count..];
    }
    out
}

impl Line<'_> {
    fn text(&self) -> String {
        match self {
            Self::Same(text) => format!(" {text}"),
            Self::Gone(text) => format!("-{text}"),
            Self::New(text) => format!("+{text}"),
        }
    }

    fn in_old(&self) -> bool {
        !matches!(self, Self::New(_))
    }

    fn in_new(&self) -> bool {
        !matches!(self, Self::Gone(_))
    }
}

/// `@@ -1,4 +1,5 @@`.
fn head(lines: &[Line<'_>], from: usize, to: usize) -> String {
    let side = |stands: &dyn Fn(&Line<'_>) -> bool| {
        let before = lines[..from].iter().filter(|&line| stands(line)).count();
        let within = lines[from..to].iter().filter(|&line| stands(line)).count();
        format!("{},{within}", if within == 0 { before } else { before + 1 })
    };
    format!("@@ -{} +{} @@", side(&|line| line.in_old()), side(&|line| line.in_new()))
}

/// All lines of both, by their longest common sequence.
fn lines<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let same = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let (head, old, new) = (&old[..same], &old[same..], &new[same..]);
    let mut lines: Vec<_> = head.iter().map(|text| Line::Same(text)).collect();
    if old.len() * new.len() > PAIRS_MAX {
        lines.extend(old.iter().map(|text| Line::Gone(text)));
        lines.extend(new.iter().map(|text| Line::New(text)));
        return lines;
    }
    let width = new.len() + 1;
    // How many lines the rests from (i, j) on have in common.
    let mut common = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            let (down, right) = (common[(i + 1) * width + j], common[i * width + j + 1]);
            let both = common[(i + 1) * width + j + 1] + 1;
            common[i * width + j] = if old[i] == new[j] { both } else { down.max(right) };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(Line::Same(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if i < old.len()
            && (j == new.len() || common[(i + 1) * width + j] >= common[i * width + j + 1])
        {
            lines.push(Line::Gone(old[i]));
            i += 1;
        } else {
            lines.push(Line::New(new[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(old: &str, new: &str, want: &[&str]) {
        let text =
            |words: &str| words.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join("\n");
        assert_eq!(unified(&text(old), &text(new)), want);
    }

    #[test]
    fn what_went_and_what_came() {
        check("a b c", "a b c", &[]);
        check("", "a b", &["@@ -0,0 +1,2 @@", "+a", "+b"]);
        check("a b", "", &["@@ -1,2 +0,0 @@", "-a", "-b"]);
        check("a b c", "a x c", &["@@ -1,3 +1,3 @@", " a", "-b", "+x", " c"]);
        check("1 2 3 4 5 6", "1 2 3 4 5 6 7", &["@@ -4,3 +4,4 @@", " 4", " 5", " 6", "+7"]);
    }

    #[test]
    fn changes_far_apart_are_hunks_of_their_own() {
        let hunks = |old: &str, new: &str| {
            let text = |words: &str| words.replace(' ', "\n");
            unified(&text(old), &text(new)).iter().filter(|line| line.starts_with("@@")).count()
        };
        assert_eq!(hunks("a 1 2 3 4 5 6 b", "x 1 2 3 4 5 6 y"), 2);
        assert_eq!(hunks("a 1 2 3 4 5 b", "x 1 2 3 4 5 y"), 1);
    }
}
