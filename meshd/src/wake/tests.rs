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

#[tokio::test]
async fn many_are_woken_some_at_a_time_and_each_once() {
    let mut state = state();
    let wake = Wake::new(Arc::new(state.clone()), Counts::default());
    let watches: Vec<_> = (0..AT_ONCE * 2 + 1).map(|_| services(&wake)).collect();
    let (rounds, ringing) = mpsc::channel(1);
    let ringing = tokio::spawn(ring(ringing));
    put(&mut state, "Service default/a");
    let woken = Round(wake.judge(Arc::new(state.clone())));
    assert!(rounds.send(woken).await.is_ok());
    yield_now().await;
    let rung = |watch: &&Watch| watch.slot.bell.rung.load(Ordering::Acquire);
    assert_eq!(watches.iter().filter(rung).count(), AT_ONCE, "the others wait for these");
    for watch in &watches {
        assert_eq!(watch.changed().await, Some(()));
    }
    assert_eq!(watches.iter().filter(rung).count(), 0);
    drop(rounds);
    ringing.await.expect("it ends with who hands over");
}
