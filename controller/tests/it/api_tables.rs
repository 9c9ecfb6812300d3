use http::Method;
use serde_json::json;

use crate::world::api::{Api, CONFIG_MAPS, OPERATIONS, config_map, operation};

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
