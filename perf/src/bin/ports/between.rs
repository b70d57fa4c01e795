//! What stands between the generator's two ports.

use anyhow::Result;
use dataplane::stages::Stage;

/// Something that forwards from each of the generator's ports to the other, on a core that it shares with others of its kind: only
/// one of them is awake at a time.
pub trait Between {
    /// As in the tables.
    fn name(&self) -> &'static str;

    /// Lets it run.
    fn wake(&self) -> Result<()>;

    /// Stops it where it is.
    fn freeze(&self) -> Result<()>;

    /// What it has counted until now, if it is the gateway. It must be awake.
    fn counts(&self) -> Result<Counts>;
}

/// What the gateway counts since it was started.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Packets received by its ports.
    pub received: f64,
    /// Cycles that its worker has spent on polls with packets.
    pub busy: f64,
    /// Cycles that its worker has spent on each stage of packets' way; zero unless its build counts them.
    pub stages: [f64; Stage::ALL.len()],
    /// Sessions now.
    pub sessions: f64,
    /// What was dropped, by reason.
    pub drops: Vec<String>,
}
