//! What structured-merge-diff promises, in scenes; and what holds whatever is written, in [`properties`], under any schema in
//! [`arbitrary_schemas`].

mod arbitrary_schemas;
mod properties;

use insta::assert_snapshot;
use serde_json::{Value, json};

use super::*;

fn schema() -> Value {
    let text = json!({"type": "string"});
    let port = json!({"type": "object", "properties": {
        "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}, "note": text, "more": text}});
    json!({"type": "object", "properties": {
        "apiVersion": text, "kind": text,
        "metadata": {"type": "object", "properties": {
            "name": text, "uid": text, "creationTimestamp": text,
            "labels": {"type": "object", "additionalProperties": text},
            "annotations": {"type": "object", "additionalProperties": text},
            "finalizers": {"type": "array", "items": text, "x-kubernetes-list-type": "set"}}},
        "spec": {"type": "object", "properties": {
            "a": text, "b": text,
            "inner": {"type": "object", "properties": {"x": text, "y": text}},
            "whole": {"type": "object", "properties": {"x": text, "y": text}, "x-kubernetes-map-type": "atomic"},
            "list": {"type": "array", "items": text},
            "ports": {"type": "array", "items": port, "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["port", "protocol"]},
            "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
        "status": {"type": "object", "properties": {"phase": text}}}})
}

/// One object and who writes it.
struct Scene {
    schema: Value,
    object: Option<Value>,
    minute: i64,
}

impl Scene {
    fn new() -> Self {
        Self { schema: schema(), object: None, minute: 0 }
    }

    fn writer<'a>(&'a self, manager: &'a str, subresource: Option<&'a str>) -> Writer<'a> {
        let now = Timestamp::from_second(self.minute * 60).expect("a time");
        Writer { manager, api_version: "v1", schema: &self.schema, subresource, has_status: true, now }
    }

    fn try_apply(&mut self, manager: &str, config: &Value, is_forced: bool) -> Result<bool, Refusal> {
        self.apply_to(manager, None, config, is_forced)
    }

    /// True if the object is another one afterwards.
    fn apply_to(
        &mut self,
        manager: &str,
        subresource: Option<&str>,
        config: &Value,
        is_forced: bool,
    ) -> Result<bool, Refusal> {
        self.minute += 1;
        let mut config = config.clone();
        config.as_object_mut().expect("an object").entry("metadata").or_insert_with(|| json!({}));
        let writer = self.writer(manager, subresource);
        let applied = apply(&writer, self.object.as_ref(), config, is_forced)?;
        let mut object = applied.object.clone();
        let is_same = self.object.clone().is_some_and(|old| without_managed_fields(old) == object);
        let stored = self.object.as_ref().and_then(managed_fields_of);
        if let Some(list) = applied.managed_fields(stored, is_same) {
            object["metadata"]["managedFields"] = list;
        }
        let is_other = self.object.as_ref() != Some(&object);
        self.object = Some(object);
        Ok(is_other)
    }

    fn apply(&mut self, manager: &str, config: Value) -> &mut Self {
        self.try_apply(manager, &config, false).expect("applies");
        self
    }

    fn refused(&mut self, manager: &str, config: Value) -> String {
        match self.try_apply(manager, &config, false) {
            Err(Refusal::Conflicts(conflicts)) => conflicts.to_string(),
            other => format!("{other:?}"),
        }
    }

    fn update(&mut self, manager: &str, change: impl FnOnce(&mut Value)) -> &mut Self {
        self.update_to(manager, None, change)
    }

    fn update_to(
        &mut self,
        manager: &str,
        subresource: Option<&str>,
        change: impl FnOnce(&mut Value),
    ) -> &mut Self {
        self.minute += 1;
        let mut new = self.object.clone().unwrap_or_else(|| json!({"metadata": {}}));
        change(&mut new);
        let given = new["metadata"].as_object_mut().expect("metadata").remove("managedFields");
        let writer = self.writer(manager, subresource);
        if let Some(list) = track(&writer, self.object.as_ref(), &new, given.as_ref()) {
            new["metadata"]["managedFields"] = list;
        }
        self.object = Some(new);
        self
    }

    fn spec(&self) -> Value {
        self.object.as_ref().map(|object| object["spec"].clone()).unwrap_or_default()
    }

    /// A line each: manager, operation, minute, fields.
    fn owners(&self) -> String {
        let list = self.object.as_ref().and_then(managed_fields_of).cloned().unwrap_or_default();
        let Some(managers) = Managers::read(&list) else { return String::new() };
        assert_eq!(managers.clone().print().as_ref(), Some(&list), "the order is kept");
        let lines = managers.entries().map(|entry| {
            let fields: Vec<_> = entry.fields.paths(usize::MAX).iter().map(ToString::to_string).collect();
            let time = entry.time.as_deref().and_then(|time| time.get(14..16)).unwrap_or("never");
            let Manager { operation, name, subresource, .. } = &entry.manager;
            format!("{name} {operation:?} {subresource} {time}: {}", fields.join(" "))
        });
        lines.collect::<Vec<_>>().join("\n")
    }
}

#[test]
fn fields_have_owners_and_equal_values_are_shared() {
    let mut scene = Scene::new();
    scene
        .apply("one", json!({"spec": {"a": "1", "inner": {"x": "1"}}}))
        .apply("two", json!({"spec": {"a": "1", "b": "2"}, "metadata": {"labels": {"l": "v"}}}));

    assert_eq!(scene.spec(), json!({"a": "1", "b": "2", "inner": {"x": "1"}}));
    assert_snapshot!(scene.owners(), @"
    one Apply  01: .spec.a .spec.inner.x
    two Apply  02: .metadata.labels.l .spec.a .spec.b
    ");
}

#[test]
fn another_value_for_somebody_elses_field_is_a_conflict_in_the_words_of_kubernetes() {
    let mut scene = Scene::new();
    scene.apply("one", json!({"spec": {"a": "1", "ports": [{"port": 80, "note": "x"}]}}));
    scene.update("edit", |object| object["spec"]["b"] = json!("2"));
    scene.update_to("agent", Some("status"), |object| object["status"] = json!({"phase": "Up"}));

    let alone = scene.refused("two", json!({"spec": {"a": "2"}}));
    let updater = scene.refused("two", json!({"spec": {"b": "3"}}));
    let several =
        scene.refused("two", json!({"spec": {"a": "2", "b": "3", "ports": [{"port": 80, "note": "y"}]}}));
    let minute = scene.minute;
    scene.minute += 1;
    let of_status = scene.apply_to("two", Some("status"), &json!({"status": {"phase": "Down"}}), false);

    assert_snapshot!(alone, @r#"Apply failed with 1 conflict: conflict with "one": .spec.a"#);
    assert_snapshot!(updater, @r#"Apply failed with 1 conflict: conflict with "edit" using v1: .spec.b"#);
    assert_snapshot!(several, @r#"
    Apply failed with 3 conflicts: conflicts with "one":
    - .spec.a
    - .spec.ports[port=80,protocol="TCP"].note
    conflicts with "edit" using v1:
    - .spec.b
    "#);
    let Err(Refusal::Conflicts(of_status)) = of_status else { panic!("{of_status:?}") };
    assert_snapshot!(of_status.to_string(), @r#"Apply failed with 1 conflict: conflict with "agent" with subresource "status" using v1: .status.phase"#);
    assert!(scene.minute > minute);
}

#[test]
fn force_takes_the_fields_and_leaves_the_rest_to_their_owner() {
    let mut scene = Scene::new();
    scene.apply("one", json!({"spec": {"a": "1", "b": "1"}}));

    scene.try_apply("two", &json!({"spec": {"a": "2"}}), true).expect("forced");

    assert_eq!(scene.spec(), json!({"a": "2", "b": "1"}));
    assert_snapshot!(scene.owners(), @"
    one Apply  01: .spec.b
    two Apply  02: .spec.a
    ");
}

#[test]
fn what_is_no_longer_applied_goes_unless_somebody_else_owns_it() {
    let mut scene = Scene::new();
    let ports = |ports: &[i64]| -> Value { ports.iter().map(|port| json!({"port": port})).collect() };
    scene
        .apply("one", json!({"spec": {"a": "1", "b": "1", "ports": ports(&[80, 81])}, "metadata": {"finalizers": ["g/a", "g/b"], "labels": {"l": "v"}}}))
        .apply("two", json!({"spec": {"b": "1", "ports": ports(&[81])}, "metadata": {"finalizers": ["g/b"]}}))
        .update("defaulter", |object| object["spec"]["ports"][0]["more"] = json!("m"))
        .apply("one", json!({"spec": {"inner": {"x": "1"}}}));

    assert_eq!(scene.spec(), json!({"b": "1", "inner": {"x": "1"}, "ports": [{"port": 81}]}));
    let object = scene.object.as_ref().expect("is there");
    assert_eq!(object["metadata"]["finalizers"], json!(["g/b"]));
    assert!(object["metadata"].get("labels").is_none(), "{object}");
    assert_snapshot!(scene.owners(), @r#"
    two Apply  02: .metadata.finalizers[="g/b"] .spec.b .spec.ports[port=81,protocol="TCP"] .spec.ports[port=81,protocol="TCP"].port
    one Apply  04: .spec.inner.x
    "#);
}

#[test]
fn what_nobody_owns_stays_when_its_neighbours_go() {
    let mut scene = Scene::new();
    scene.apply("one", json!({"spec": {"a": "1", "inner": {"x": "1"}}}));
    // As a default that the server filled in: nobody's.
    scene.object.as_mut().expect("is there")["spec"]["inner"]["y"] = json!("default");

    scene.apply("one", json!({"spec": {"a": "1", "inner": {}}}));

    assert_eq!(scene.spec(), json!({"a": "1", "inner": {"y": "default"}}));
}

#[test]
fn the_last_field_of_the_last_manager_takes_the_entry_with_it() {
    let mut scene = Scene::new();
    scene.apply("one", json!({"spec": {"a": "1"}})).apply("two", json!({"spec": {"b": "1"}}));

    scene.apply("one", json!({}));

    assert_eq!(scene.spec(), json!({"b": "1"}));
    assert_snapshot!(scene.owners(), @"two Apply  02: .spec.b");
}

#[test]
fn whole_maps_and_lists_are_one_field() {
    let mut scene = Scene::new();
    scene.apply("one", json!({"spec": {"whole": {"x": "1"}, "list": ["a"], "open": {"k": {"deep": [1]}}}}));

    let refused = scene.refused("two", json!({"spec": {"whole": {"x": "1", "y": "2"}, "list": ["a", "b"]}}));

    assert_snapshot!(refused, @r#"
    Apply failed with 2 conflicts: conflicts with "one":
    - .spec.list
    - .spec.whole
    "#);
    assert_snapshot!(scene.owners(), @"one Apply  01: .spec.list .spec.open.k .spec.open.k.deep .spec.whole");
}

#[test]
fn items_come_in_the_applied_order_and_others_stay_before_whom_they_stood() {
    let names = |list: &[&str]| json!({"metadata": {"finalizers": list}});
    let mut scene = Scene::new();
    scene.apply("one", names(&["A", "x", "B", "y"])).apply("two", names(&["B", "new", "A"]));

    let object = scene.object.as_ref().expect("is there");
    assert_eq!(object["metadata"]["finalizers"], json!(["x", "B", "y", "new", "A"]));
}

#[test]
fn a_list_whose_items_cannot_be_told_apart_is_refused() {
    let mut scene = Scene::new();
    let ports = |ports: Value| json!({"spec": {"ports": ports}});
    let mut said = |config: Value| match scene.try_apply("one", &config, true) {
        Err(Refusal::BadList(BadList::Duplicate(path))) => format!("twice {path}"),
        Err(Refusal::BadList(BadList::Unkeyed(path))) => format!("unkeyed {path}"),
        other => format!("{other:?}"),
    };

    let said = [
        said(ports(json!([{"port": 80}, {"port": 80, "protocol": "TCP"}]))),
        said(ports(json!(["x"]))),
        said(json!({"metadata": {"finalizers": ["a", "a"]}})),
        said(json!({"metadata": {"finalizers": [null]}})),
    ];

    assert_snapshot!(said.join("\n"), @r#"
    twice .spec.ports[port=80,protocol="TCP"]
    unkeyed .spec.ports
    twice .metadata.finalizers[="a"]
    unkeyed .metadata.finalizers
    "#);
}

#[test]
fn an_update_takes_what_it_changes_and_forgets_what_it_removes() {
    let mut scene = Scene::new();
    scene.apply("one", json!({"spec": {"a": "1", "b": "1", "inner": {"x": "1"}}}));

    scene.update("edit", |object| {
        object["spec"]["a"] = json!("2");
        object["spec"].as_object_mut().expect("a map").remove("inner");
        object["metadata"]["labels"] = json!({"l": "v"});
    });

    assert_snapshot!(scene.owners(), @"
    one Apply  01: .spec.b
    edit Update  02: .metadata.labels .metadata.labels.l .spec.a
    ");
}

#[test]
fn an_update_of_a_shared_field_takes_it_from_who_applied_it() {
    let mut scene = Scene::new();
    scene
        .update("edit", |object| object["spec"] = json!({"a": "1", "b": "1"}))
        .apply("one", json!({"spec": {"a": "1", "b": "1"}}))
        .update("edit", |object| object["spec"]["a"] = json!("2"));

    assert_snapshot!(scene.owners(), @"
    one Apply  02: .spec.b
    edit Update  03: .spec .spec.a .spec.b
    ");
}

#[test]
fn an_update_that_changes_nothing_keeps_every_time() {
    let mut scene = Scene::new();
    scene.apply("one", json!({"spec": {"a": "1"}})).update("edit", |object| object["spec"]["b"] = json!("2"));
    let before = scene.object.clone();

    scene.update("edit", |_| {}).update("other", |_| {});

    assert_eq!(scene.object, before);
}

#[test]
fn status_and_the_rest_have_managers_of_their_own() {
    let mut scene = Scene::new();
    scene.update("edit", |object| {
        *object = json!({"metadata": {"name": "x"}, "spec": {"a": "1"}, "status": {"phase": "lost"}});
    });
    scene.update_to("edit", Some("status"), |object| object["status"] = json!({"phase": "Up"}));
    let both = json!({"spec": {"a": "2"}, "status": {"phase": "Up"}});

    scene.apply_to("one", Some("status"), &both, false).expect("applies");

    assert_eq!(scene.spec(), json!({"a": "1"}));
    assert_snapshot!(scene.owners(), @"
    one Apply status 03: .status.phase
    edit Update  01: .spec .spec.a
    edit Update status 02: .status.phase
    ");
}

#[test]
fn the_eleventh_updater_makes_the_oldest_two_ancient() {
    let mut scene = Scene::new();
    scene.apply("one", json!({"spec": {"a": "1"}}));
    for number in 0..12 {
        scene.update(&format!("m{number}"), |object| {
            object["metadata"]["labels"][format!("l{number}")] = json!("v");
        });
    }

    assert_snapshot!(scene.owners(), @"
    one Apply  01: .spec.a
    ancient-changes Update  04: .metadata.labels .metadata.labels.l0 .metadata.labels.l1 .metadata.labels.l2
    m3 Update  05: .metadata.labels.l3
    m4 Update  06: .metadata.labels.l4
    m5 Update  07: .metadata.labels.l5
    m6 Update  08: .metadata.labels.l6
    m7 Update  09: .metadata.labels.l7
    m8 Update  10: .metadata.labels.l8
    m9 Update  11: .metadata.labels.l9
    m10 Update  12: .metadata.labels.l10
    m11 Update  13: .metadata.labels.l11
    ");
}

#[test]
fn an_object_of_nobody_stays_so_until_somebody_applies_to_it() {
    let mut scene = Scene::new();
    scene.object = Some(json!({"metadata": {"name": "x"}, "spec": {"a": "1", "b": "1"}}));
    scene.update("edit", |object| object["spec"]["b"] = json!("2"));
    assert_snapshot!(scene.owners(), @"");

    let refused = scene.refused("one", json!({"spec": {"a": "2"}}));
    scene.apply("one", json!({"spec": {"a": "1"}}));

    assert_snapshot!(refused, @r#"Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .spec.a"#);
    assert_snapshot!(scene.owners(), @"
    one Apply  03: .spec.a
    before-first-apply Update  03: .spec .spec.a .spec.b
    ");
}

#[test]
fn the_list_of_managers_can_be_forgotten_or_rewritten_and_not_garbled() {
    let mut scene = Scene::new();
    let with = |list: Value| move |object: &mut Value| object["metadata"]["managedFields"] = list;
    scene.apply("one", json!({"spec": {"a": "1"}}));
    let (applied, list) = (scene.object.clone(), scene.owners());

    scene.update("edit", with(json!([{"manager": "x", "operation": "Sing"}])));
    scene.update("edit", with(json!([{"manager": "x", "operation": "Update", "apiVersion": "v1", "time": "soon", "fieldsType": "FieldsV1"}])));
    scene.update("edit", with(json!(7)));
    assert_eq!(scene.owners(), list);
    scene.update_to("edit", Some("status"), with(json!([])));
    assert_eq!(scene.owners(), list);
    scene.update(
        "edit",
        with(json!([{"manager": "two", "operation": "Apply", "apiVersion": "v1",
        "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:a": {}}}}])),
    );
    assert_snapshot!(scene.owners(), @"two Apply  never: .spec.a");
    for nothing in [json!([]), json!([{}])] {
        scene.object.clone_from(&applied);
        scene.update("edit", with(nothing));
        assert_eq!(scene.owners(), "");
    }
}

#[test]
fn an_identical_apply_changes_nothing_and_no_time() {
    let mut scene = Scene::new();
    let config = json!({"spec": {"a": "1", "ports": [{"port": 80}]}, "metadata": {"labels": {"l": "v"}}});
    scene.apply("one", config.clone()).apply("two", json!({"spec": {"a": "1"}}));

    assert_eq!(scene.try_apply("one", &config, false), Ok(false));
    assert_eq!(scene.try_apply("one", &config, true), Ok(false));
}

#[test]
fn what_kubectl_applied_by_itself_is_no_conflict_with_kubectl() {
    let mut scene = Scene::new();
    let last =
        json!({"metadata": {"name": "x", "annotations": {}}, "spec": {"a": "1", "b": "1"}}).to_string();
    scene.update("kubectl-client-side-apply", |object| {
        *object = json!({"metadata": {"name": "x", "annotations": {"kubectl.kubernetes.io/last-applied-configuration": last}},
            "spec": {"a": "1", "b": "1"}});
    });
    scene.update("edit", |object| object["spec"]["b"] = json!("2"));

    let somebody = scene.refused("ci", json!({"spec": {"a": "3"}}));
    let edited = scene.refused("kubectl", json!({"spec": {"a": "3", "b": "3"}}));
    scene.apply("kubectl", json!({"metadata": {"name": "x"}, "spec": {"a": "3"}}));

    assert_snapshot!(somebody, @r#"Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using v1: .spec.a"#);
    assert_snapshot!(edited, @r#"Apply failed with 1 conflict: conflict with "edit" using v1: .spec.b"#);
    assert_eq!(scene.spec(), json!({"a": "3", "b": "2"}));
    let annotations = &scene.object.as_ref().expect("is there")["metadata"]["annotations"];
    assert_eq!(
        annotations["kubectl.kubernetes.io/last-applied-configuration"],
        "{\"metadata\":{\"name\":\"x\"},\"spec\":{\"a\":\"3\"}}\n"
    );
}
