use model::kind::Kind;

use super::*;
use crate::api::testing::{put, state};

fn services(wake: &Arc<Wake>) -> Watch {
    wake.watch(Interest { topics: BTreeSet::from([Topic::Everywhere(Kind::Service)]), ..Interest::default() })
}

#[tokio::test]
async fn a_write_of_a_role_wakes_no_watcher_of_services() {
    let mut state = state();
    let counts = Counts::default();
    let wake = Wake::new(Arc::new(state.clone()), counts.clone());
    let watches: Vec<_> = (0..3).map(|_| services(&wake)).collect();
    assert_eq!(counts.watches.get(), 3);
    put(&mut state, "Role r {}");
    wake.advance(Arc::new(state.clone()));
    assert_eq!(counts.wakeups.get(), 0);
    put(&mut state, "Service default/a");
    wake.advance(Arc::new(state.clone()));
    assert_eq!(counts.wakeups.get(), 3);
    for watch in watches {
        assert_eq!(watch.changed().await, Some(()));
        assert_eq!(watch.look(0).state.revision(), 2);
    }
    assert_eq!(counts.watches.get(), 0);
}

#[tokio::test]
async fn what_comes_between_a_look_and_the_wait_ends_the_wait() {
    let mut state = state();
    let wake = Wake::new(Arc::new(state.clone()), Counts::default());
    let watch = services(&wake);
    let look = watch.look(0);
    watch.told(look.state.revision());
    put(&mut state, "Service default/a");
    wake.advance(Arc::new(state.clone()));
    assert_eq!(watch.changed().await, Some(()));
    assert_eq!((watch.look(0).place, wake.at_least(1).await.revision()), (0, 1));
}
