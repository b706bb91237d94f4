//! `/api/v1/things/NAME`: a thing as the running gateway sees it, its dynamic groups included.
//!
//! Members are added, not renamed.

use serde_json::{Value, json};

use crate::identity::Fleet;

/// The document; `None` if there is no such thing.
pub(super) fn document(fleet: &Fleet, name: &str) -> Option<Value> {
    let seen = fleet.see(name)?;
    let groups = seen.groups.iter();
    let groups = groups.map(|(group, from)| json!({ "group": group.as_str(), "from": from }));
    Some(json!({
        "thingName": seen.thing.name.as_str(),
        "connected": seen.is_connected,
        "groups": groups.collect::<Vec<_>>(),
    }))
}
