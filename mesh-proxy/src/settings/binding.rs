//! Pure. Who of a host's processes speaks for a service, as its file says it: a unit, a user, a cgroup. Where several are
//! given, all have to fit.

use serde::{Deserialize, Deserializer, de::Error as _};

/// A cgroup's name is that of a folder.
const NAME_BYTES_MAX: usize = 255;
/// A cgroup's path; the kernel's own limit for paths.
const PATH_BYTES_MAX: usize = 4_095;

/// What binds a service to processes. An empty one fits none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Binding {
    /// The user, by its number.
    pub uid: Option<u32>,
    /// The unit of the system's systemd.
    pub unit: Option<Unit>,
    /// The cgroup.
    pub cgroup: Option<Cgroup>,
}

/// The whole name of a unit: `orders.service`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit(String);

/// A cgroup by its path below the root of the one hierarchy: `/system.slice/orders.service`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup(String);

/// How well a binding fits a process: of two, the greater is meant more narrowly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fit {
    /// The cgroups from the root to the one that it names.
    depth: usize,
    /// It names the user, too.
    user: bool,
}

impl Binding {
    /// Whether it binds the service to nobody.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a process's cgroup has to be known.
    pub fn asks_for_cgroup(&self) -> bool {
        self.unit.is_some() || self.cgroup.is_some()
    }

    /// Whether it fits a process, and how well; its cgroup is `None` where that is not known.
    pub fn fit(&self, uid: u32, cgroup: Option<&str>) -> Option<Fit> {
        if self.is_empty() || self.uid.is_some_and(|own| own != uid) {
            return None;
        }
        let mut fit = Fit { depth: 0, user: self.uid.is_some() };
        if let Some(unit) = &self.unit {
            fit.depth = fit.depth.max(unit.depth(cgroup?)?);
        }
        if let Some(own) = &self.cgroup {
            fit.depth = fit.depth.max(own.depth(cgroup?)?);
        }
        Some(fit)
    }

    /// Whether what it names may stand at or below this cgroup: nothing else has to be looked at.
    pub fn leads(&self, path: &str) -> bool {
        let unit = self.unit.as_ref().is_some_and(|unit| unit.leads(path));
        unit || self.cgroup.as_ref().is_some_and(|own| own.leads(path))
    }
}

impl Unit {
    /// At which depth of a path the unit stands, if it does. Only slices may stand above it: what a user's own systemd
    /// runs stands below `user@1000.service`, and would otherwise take any name that it likes.
    fn depth(&self, path: &str) -> Option<usize> {
        let mut parts = parts(path);
        let above = parts.by_ref().take_while(|part| *part != self.0);
        let (mut depth, mut slices) = (0, true);
        for part in above {
            depth += 1;
            slices &= part.ends_with(".slice");
        }
        let found = depth < self::parts(path).count();
        (found && slices).then_some(depth + 1)
    }

    fn leads(&self, path: &str) -> bool {
        parts(path).all(|part| part.ends_with(".slice")) || self.depth(path).is_some()
    }
}

impl Cgroup {
    fn depth(&self, path: &str) -> Option<usize> {
        let below = path.strip_prefix(&self.0)?;
        (below.is_empty() || below.starts_with('/')).then(|| parts(&self.0).count())
    }

    fn leads(&self, path: &str) -> bool {
        let above = path == "/" || self.0.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
        above || self.depth(path).is_some()
    }
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty())
}

impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::fmt::Display for Cgroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Unit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let kind = name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).map(|(_, kind)| kind);
        let fits = matches!(kind, Some("service" | "scope" | "slice")) && !name.contains('/');
        match fits && name.len() <= NAME_BYTES_MAX {
            true => Ok(Self(name)),
            false => Err(D::Error::custom(format!(
                "must be the whole name of a unit such as orders.service, is {name:?}"
            ))),
        }
    }
}

impl<'de> Deserialize<'de> for Cgroup {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let path = String::deserialize(deserializer)?;
        let rest = path.strip_prefix('/').unwrap_or_default();
        let fits = rest.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        match fits && path.len() <= PATH_BYTES_MAX {
            true => Ok(Self(path)),
            false => Err(D::Error::custom(format!(
                "must be a cgroup below the root such as /system.slice/orders.service, is {path:?}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding(text: &str) -> Binding {
        let mut binding = Binding::default();
        for word in text.split_whitespace() {
            let (key, value) = word.split_once('=').expect("key=value");
            match key {
                "uid" => binding.uid = Some(value.parse().expect("a number")),
                "unit" => binding.unit = Some(Unit(value.to_owned())),
                _ => binding.cgroup = Some(Cgroup(value.to_owned())),
            }
        }
        binding
    }

    /// The process: `7 /system.slice/a.service`, the cgroup left out where it is not known.
    #[track_caller]
    fn check(text: &str, process: &str, want: Option<(usize, bool)>) {
        let (uid, path) = process.split_once(' ').map_or((process, None), |(uid, path)| (uid, Some(path)));
        let fit = binding(text).fit(uid.parse().expect("a number"), path);
        assert_eq!(fit, want.map(|(depth, user)| Fit { depth, user }), "{text} and {process}");
    }

    #[test]
    fn all_that_is_given_has_to_fit() {
        check("", "7 /system.slice/a.service", None);
        check("uid=7", "7", Some((0, true)));
        check("uid=7", "8 /system.slice/a.service", None);
        check("unit=a.service", "8 /system.slice/a.service", Some((2, false)));
        check("unit=a.service", "8 /system.slice/a.service/below/it", Some((2, false)));
        check("unit=a.service", "8", None);
        check("unit=a.service", "8 /system.slice/aa.service", None);
        check("unit=a.service", "8 /a.slice/a-b.slice/a.service", Some((3, false)));
        check("cgroup=/x/y", "8 /x/y", Some((2, false)));
        check("cgroup=/x/y", "8 /x/y/z", Some((2, false)));
        check("cgroup=/x/y", "8 /x/yz", None);
        check("uid=7 unit=a.service", "7 /system.slice/a.service", Some((2, true)));
        check("uid=7 unit=a.service", "8 /system.slice/a.service", None);
    }

    #[test]
    fn a_user_s_own_units_do_not_pass_for_the_system_s() {
        let own = "/user.slice/user-8.slice/user@8.service/app.slice/a.service";
        check("unit=a.service", &format!("8 {own}"), None);
        check("unit=a.service", "8 /system.slice/other.service/a.service", None);
        check("unit=a.service", "8 /user.slice/user-8.slice/session-1.scope/a.service", None);
    }

    #[test]
    fn only_what_may_hold_a_unit_is_looked_at() {
        let bound = binding("unit=a.service");
        for (path, want) in [
            ("/", true),
            ("/system.slice", true),
            ("/system.slice/a.service", true),
            ("/system.slice/a.service/worker", true),
            ("/system.slice/b.service", false),
            ("/user.slice/user-8.slice", true),
            ("/user.slice/user-8.slice/user@8.service", false),
        ] {
            assert_eq!(bound.leads(path), want, "{path}");
        }
        let bound = binding("cgroup=/x/y");
        for (path, want) in
            [("/", true), ("/x", true), ("/x/y", true), ("/x/y/z", true), ("/x/yz", false), ("/z", false)]
        {
            assert_eq!(bound.leads(path), want, "{path}");
        }
        assert!(!binding("uid=7").leads("/"), "a user's processes are known without a cgroup");
    }
}
