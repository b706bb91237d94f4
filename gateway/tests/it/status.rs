//! `portcullis status` asks the gateway that runs.

use serde_json::Value;

use crate::{
    device::Device,
    served::{Served, eventually, get},
};

#[test]
fn status_tells_how_the_running_gateway_is() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    let silent = served.site.run(&["status"]);
    assert_eq!(silent.code, 1, "{silent:?}");
    assert!(silent.stderr.contains("no gateway answers"), "{silent:?}");

    served.start();
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    device.publish("dt/sensor-1/t", "1");
    let ask =
        || -> Value { serde_json::from_str(&served.site.done(&["status", "--json"])).unwrap() };
    eventually("the record is shipped", || {
        ask()["uplink"]["sent_records"] != 0
    });
    let status = ask();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["ready"], true);
    assert_eq!(status["connections"], 1);
    assert_eq!(status["configuration"]["refused"], false);
    assert!(status["configuration"]["things"].as_u64() >= Some(1));
    assert_eq!(status["uplink"]["online"], true);
    assert_eq!(status["uplink"]["state"], "online");
    assert_eq!(status["denials"]["total"], 0);
    let over_http = get(served.http, "/api/v1/status").unwrap();
    assert!(over_http.contains("application/json"), "{over_http}");

    // The settings may be broken meanwhile; the gateway that runs answers all the same.
    served.site.write("registry.toml", "[[thing]]\nname = 7\n");
    eventually("the change is refused", || {
        ask()["configuration"]["refused"] == true
    });
    let shown = served.site.done(&["status"]);
    assert!(shown.contains("THE LAST CHANGE IS REFUSED"), "{shown}");
}

#[test]
fn the_running_gateway_says_in_which_dynamic_groups_a_thing_is() {
    let mut served = Served::new();
    let own = served.enrol("sensor-1", "cold-chain");
    served.site.append(
        "registry.toml",
        "\n[[dynamic-group]]\nname = \"online\"\nquery = 'connectivity.connected:true'\n\
         [[dynamic-group]]\nname = \"offline\"\nquery = 'NOT connectivity.connected:true'\n",
    );
    let shown = |served: &Served| served.site.done(&["thing", "show", "sensor-1"]);
    let stopped = shown(&served);
    assert_eq!(
        stopped
            .matches("undecided while the gateway is stopped")
            .count(),
        2,
        "{stopped}"
    );

    served.start();
    let text = shown(&served);
    assert!(
        text.contains("group         offline  (dynamic: NOT connectivity"),
        "{text}"
    );
    assert!(
        !text.contains("online") && !text.contains("undecided"),
        "{text}"
    );
    let mut device = Device::tls(served.mqtt, "sensor-1", &own);
    device.publish("dt/sensor-1/t", "1");
    eventually("it is online", || {
        let text = shown(&served);
        text.contains("group         online") && !text.contains("offline")
    });
    let over_http = get(served.http, "/api/v1/things/sensor-1").unwrap();
    let (_, body) = over_http.split_once("\r\n\r\n").unwrap();
    let document: Value = serde_json::from_str(body).unwrap();
    assert_eq!(document["connected"], true);
    let groups: Vec<_> = document["groups"].as_array().unwrap().iter().collect();
    assert!(
        groups.contains(&&serde_json::json!({"group": "devices", "from": "registry.toml"})),
        "{document}"
    );
    assert!(get(served.http, "/api/v1/things/nobody").is_none_or(|answer| answer.contains("404")));
}
