//! Those who write while the power goes: through all members, over connections that are kept, one operation at a time
//! each. What was answered goes to the ledger.

use std::sync::{Arc, Mutex};

use mesh_tests::cluster::Cluster;
use model::{
    client::{Client, ClientError},
    object::Object,
};
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    chance::Chance,
    ledger::{GROUP_OBJECTS, Ledger, Value},
};

/// Writers of each member: together they make groups in the log.
const PER_MEMBER: usize = 3;
/// Single objects that each writer has.
const OBJECTS: u64 = 6;
/// Groups that each writer applies.
const GROUPS: u64 = 2;
/// After a failure a writer rests so long: whoever has lost its member must not spin.
const REST: std::time::Duration = std::time::Duration::from_millis(10);

/// The annotation with the count.
pub(crate) const COUNT: &str = "count";

/// What all writers share.
pub(crate) type Shared = Arc<Mutex<Ledger>>;

/// One operation.
struct Operation {
    slot: String,
    objects: Vec<String>,
    value: Value,
}

/// Starts all writers; dropping the set ends them.
pub(crate) fn start(cluster: &Cluster, ledger: &Shared, chance: &mut Chance) -> anyhow::Result<JoinSet<()>> {
    let mut writers = JoinSet::new();
    for member in 0..cluster.members.len() {
        for number in 0..PER_MEMBER {
            let client = cluster.client(member)?;
            let name = format!("{member}-{number}");
            writers.spawn(write(client, name, ledger.clone(), Chance::new(chance.next())));
        }
    }
    Ok(writers)
}

async fn write(client: Client, writer: String, ledger: Shared, mut chance: Chance) {
    loop {
        let operation = Operation::draw(&writer, &mut chance);
        let begun = ledger.lock().expect("nobody panics with it").begin(
            &operation.slot,
            &operation.objects,
            operation.value,
        );
        if !begun {
            // All of its slots may rest; the runtime must go on.
            tokio::time::sleep(REST).await; // Pace: a writer whose member is gone.
            continue;
        }
        match operation.send(&client).await {
            Ok(revision) => {
                ledger.lock().expect("nobody panics with it").acknowledge(&operation.slot, revision)
            }
            Err(_) => tokio::time::sleep(REST).await, // Pace: as above.
        }
    }
}

impl Operation {
    fn draw(writer: &str, chance: &mut Chance) -> Self {
        // Never the same twice, so that nothing is «unchanged».
        let count = chance.next() >> 12;
        match chance.below(10) {
            0..2 => {
                let slot = format!("group-{writer}-{}", chance.below(GROUPS));
                let objects = (0..GROUP_OBJECTS).map(|number| format!("{slot}-{number}")).collect();
                Self { slot, objects, value: Some(count) }
            }
            kind => {
                let slot = format!("one-{writer}-{}", chance.below(OBJECTS));
                let value = (kind > 2).then_some(count);
                Self { objects: vec![slot.clone()], slot, value }
            }
        }
    }

    /// At which revision it was done; `None` for a deletion.
    async fn send(&self, client: &Client) -> Result<Option<u64>, ClientError> {
        let objects: Vec<_> = self.objects.iter().map(|name| object(name, self.value.unwrap_or(0))).collect();
        if self.value.is_none() {
            return match client.delete(&objects[0].key()).await {
                Ok(_) => Ok(None),
                Err(error) if error.status() == Some(404) => Ok(None),
                Err(error) => Err(error),
            };
        }
        if let [single] = objects.as_slice() {
            return Ok(Some(client.put(single).await?.0.metadata.revision));
        }
        let manifest = json!({"items": objects}).to_string();
        let applied = client.apply(manifest, false).await?;
        Ok(applied.items.iter().map(|object| object.metadata.revision).max())
    }
}

fn object(name: &str, count: u64) -> Object {
    serde_json::from_value(json!({"kind": "Service",
        "metadata": {"namespace": "default", "name": name, "annotations": {COUNT: count.to_string()}},
        "spec": {"ports": [{"port": 80, "protocol": "http"}]}}))
    .expect("an object")
}
