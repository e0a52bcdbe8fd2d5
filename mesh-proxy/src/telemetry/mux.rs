//! Counters of the connections that carry many streams between two proxies.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Direction, Facts};

/// One thread's counters.
#[derive(Debug, Default)]
pub struct MuxCounts {
    connections: [AtomicU64; 2],
    streams: [AtomicU64; 2],
    cut: AtomicU64,
}

impl MuxCounts {
    /// A connection was made.
    pub fn connection(&self, direction: Direction) {
        self.connections[direction as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A stream was opened on one.
    pub fn stream(&self, direction: Direction) {
        self.streams[direction as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// One was cut off because the other side broke its rules.
    pub fn cut(&self) {
        self.cut.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add(&mut self, more: &Self) {
        let own = self.connections.iter_mut().chain(&mut self.streams).chain([&mut self.cut]);
        let more = more.connections.iter().chain(&more.streams).chain([&more.cut]);
        own.zip(more).for_each(|(own, more)| *own.get_mut() += more.load(Ordering::Relaxed));
    }

    pub(super) fn facts(&self) -> Facts {
        let mut gauges = Vec::new();
        for (name, help, counted) in [
            ("mesh_mux_connections_total", "Connections of many streams that were made.", &self.connections),
            ("mesh_mux_streams_total", "Streams that were opened on them.", &self.streams),
        ] {
            for direction in [Direction::Inbound, Direction::Outbound] {
                let labels = format!("{{direction=\"{}\"}}", direction.as_str());
                gauges.push((name, help, labels, number(&counted[direction as usize])));
            }
        }
        let help = "Connections of many streams that were cut off because the other side broke the rules.";
        gauges.push(("mesh_mux_cut_total", help, String::new(), number(&self.cut)));
        Facts { gauges }
    }
}

fn number(counter: &AtomicU64) -> f64 {
    counter.load(Ordering::Relaxed) as f64
}
