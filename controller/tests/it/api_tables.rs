use http::Method;
use serde_json::json;

use crate::world::api::{Api, CONFIG_MAPS, EVENTS, OPERATIONS, config_map, operation};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

#[tokio::test]
async fn a_list_of_operations_prints_as_kubectl_shows_it() {
    let api = Api::new().await;
    api.post(OPERATIONS, &operation("x", "Stop")).await;

    let table =
        api.call(Method::GET, &format!("{OPERATIONS}?includeObject=None"), &[("accept", TABLE)], "").await;

    let columns: Vec<_> = table.body["columnDefinitions"]
        .as_array()
        .expect("columns")
        .iter()
        .map(|column| format!("{} {} {}", column["name"], column["type"], column["priority"]))
        .collect();
    insta::assert_snapshot!(columns.join("\n"), @r#"
    "Name" "string" 0
    "Instance" "string" 0
    "Action" "string" 0
    "Target" "string" 0
    "Phase" "string" 0
    "Message" "string" 0
    "Age" "string" 0
    "Attempts" "integer" 1
    "Target Id" "string" 1
    "Completed" "string" 1
    "#);
    insta::assert_snapshot!(table.body["rows"], @r#"[{"cells":["x","nuc-01","Stop","web",null,null,"0s",null,null,null]}]"#);
}

#[tokio::test]
async fn a_row_carries_as_much_of_the_object_as_asked() {
    let api = Api::new().await;
    api.post(CONFIG_MAPS, &config_map("a")).await;
    let row = async |query: &str| {
        let path = format!("{CONFIG_MAPS}/a?{query}");
        api.call(Method::GET, &path, &[("accept", TABLE)], "").await.body["rows"][0]["object"].clone()
    };

    assert_eq!(row("").await["kind"], "PartialObjectMetadata");
    assert_eq!(row("includeObject=Object").await["data"], json!({"k": "v"}));
    assert!(row("includeObject=None").await.is_null());
}

#[tokio::test]
async fn metadata_alone_is_served_for_objects_and_lists() {
    let api = Api::new().await;
    api.post(CONFIG_MAPS, &config_map("a")).await;
    let accept = |kind: &str| format!("application/json;as={kind};g=meta.k8s.io;v=v1");

    let one = api
        .call(Method::GET, &format!("{CONFIG_MAPS}/a"), &[("accept", &accept("PartialObjectMetadata"))], "")
        .await;
    let list =
        api.call(Method::GET, CONFIG_MAPS, &[("accept", &accept("PartialObjectMetadataList"))], "").await;

    assert_eq!(
        (&one.body["kind"], &one.body["metadata"]["name"]),
        (&json!("PartialObjectMetadata"), &json!("a"))
    );
    assert!(one.body.get("data").is_none());
    assert_eq!(list.body["kind"], "PartialObjectMetadataList");
    assert_eq!(list.body["items"][0], one.body);
}

#[tokio::test]
async fn events_print_as_kubectl_shows_those_of_kubernetes() {
    let api = Api::new().await;
    let about = json!({"kind": "Operation", "name": "x", "namespace": "default", "fieldPath": "spec.target"});
    let old = json!({"metadata": {"name": "a"}, "involvedObject": about, "type": "Normal", "reason": "Done", "message": "m",
        "count": 2, "firstTimestamp": "2026-06-01T11:00:00Z", "lastTimestamp": "2026-06-01T11:59:00Z",
        "source": {"component": "gantry"}});
    let new = json!({"metadata": {"name": "b"}, "involvedObject": about, "type": "Normal", "reason": "Done", "message": "m",
        "eventTime": "2026-06-01T11:00:00.000000Z", "reportingComponent": "gantry",
        "series": {"count": 5, "lastObservedTime": "2026-06-01T11:58:00.000000Z"}});
    let single = json!({"metadata": {"name": "c"}, "involvedObject": about, "message": "m",
        "eventTime": "2026-06-01T11:50:00.000000Z"});
    for event in [old, new, single] {
        let made = api.post(EVENTS, &event).await;
        assert_eq!(made.code, 201, "{made:?}");
    }

    let table =
        api.call(Method::GET, &format!("{EVENTS}?includeObject=None"), &[("accept", TABLE)], "").await;

    let columns: Vec<_> = table.body["columnDefinitions"]
        .as_array()
        .expect("columns")
        .iter()
        .map(|column| format!("{} {}", column["name"], column["priority"]))
        .collect();
    insta::assert_snapshot!(columns.join(", "), @r#""Last Seen" 0, "Type" 0, "Reason" 0, "Object" 0, "Subobject" 1, "Source" 1, "Message" 0, "First Seen" 1, "Count" 1, "Name" 1"#);
    let rows: Vec<_> =
        table.body["rows"].as_array().expect("rows").iter().map(|row| row["cells"].to_string()).collect();
    insta::assert_snapshot!(rows.join("\n"), @r#"
    ["60s","Normal","Done","Operation/x","spec.target","gantry","m","60m",2,"a"]
    ["2m","Normal","Done","Operation/x","spec.target","gantry","m","60m",5,"b"]
    ["10m",null,null,"Operation/x","spec.target",null,"m","10m",null,"c"]
    "#);
}
