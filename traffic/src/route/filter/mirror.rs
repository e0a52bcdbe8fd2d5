//! Pure. Which requests are copied, and to whom.

use std::sync::Arc;

use model::{name::Name, resource::RequestMirror};

use crate::{
    Dice,
    route::{BackendName, Missing},
    snapshot::Backend,
};

/// Copies of a share of a rule's requests. A back end that is not there gets none.
#[derive(Debug)]
pub struct Mirror {
    backend: Option<Arc<Backend>>,
    share: (u64, u64),
}

/// The same, its back end a name.
#[derive(Debug)]
pub(crate) struct UnboundMirror {
    pub(crate) backend: BackendName,
    share: (u64, u64),
}

impl UnboundMirror {
    pub(in crate::route) fn new(spec: &RequestMirror, namespace: &Name) -> Self {
        let backend = &spec.backend_ref;
        let share = match (&spec.fraction, &spec.percent) {
            (Some(fraction), _) => (fraction.numerator.value(), fraction.denominator.value()),
            (None, Some(percent)) => (percent.value(), 100),
            (None, None) => (1, 1),
        };
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

impl Mirror {
    /// Who gets a copy of this request, if anyone.
    pub fn draw(&self, dice: &mut Dice) -> Option<&Arc<Backend>> {
        let (numerator, denominator) = self.share;
        self.backend.as_ref().filter(|_| dice.below(denominator) < numerator)
    }
}
