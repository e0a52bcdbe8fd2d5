//! Pure. Which requests are copied, and to whom.

use std::{fmt, sync::Arc};

use model::{name::Name, resource::RequestMirror};

use super::share::Share;
use crate::{
    Dice,
    route::{BackendName, Missing},
    snapshot::Backend,
};

/// Copies of a share of a rule's requests. A back end that is not there gets none.
#[derive(Debug)]
pub struct Mirror {
    backend: Option<Arc<Backend>>,
    share: Share,
}

/// The same, its back end a name.
#[derive(Debug)]
pub(crate) struct UnboundMirror {
    pub(crate) backend: BackendName,
    share: Share,
}

impl UnboundMirror {
    pub(in crate::route) fn new(spec: &RequestMirror, namespace: &Name) -> Self {
        let backend = &spec.backend_ref;
        let share = Share::new(spec.percent, spec.fraction.as_ref());
        let backend = BackendName {
            service: backend.service(namespace),
            port: backend.port.value() as u16,
            subset: backend.subset.clone(),
        };
        Self { backend, share }
    }

    pub(in crate::route) fn bound(
        &self,
        find: impl Fn(&BackendName) -> Result<Arc<Backend>, Missing>,
    ) -> Mirror {
        Mirror { backend: find(&self.backend).ok(), share: self.share }
    }
}

/// `copies of 10 of 100 to default/shadow:80`.
impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.backend {
            Some(backend) => write!(f, "copies of {} to {}", self.share, backend.name),
            None => f.write_str("copies to a back end that is not there: none are made"),
        }
    }
}

impl Mirror {
    /// Who gets a copy of this request, if anyone.
    pub fn draw(&self, dice: &mut Dice) -> Option<&Arc<Backend>> {
        self.backend.as_ref().filter(|_| self.share.draw(dice))
    }
}
