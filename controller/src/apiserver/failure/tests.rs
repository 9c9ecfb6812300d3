use super::*;

fn operations() -> Resource {
    Resource("operations.gantry.dev".into())
}

#[test]
fn an_invalid_object_is_told_field_by_field() {
    let cause = |field: &str| Cause {
        field: field.to_owned(),
        reason: CauseReason::Required,
        message: "Required value".to_owned(),
    };
    let failure = Failure::invalid(
        "gantry.dev",
        "Operation",
        "x",
        vec![cause("spec.action"), cause("spec.instanceRef")],
    );

    insta::assert_json_snapshot!(failure.status(), @r#"
    {
      "apiVersion": "v1",
      "kind": "Status",
      "code": 422,
      "details": {
        "causes": [
          {
            "field": "spec.action",
            "message": "Required value",
            "reason": "FieldValueRequired"
          },
          {
            "field": "spec.instanceRef",
            "message": "Required value",
            "reason": "FieldValueRequired"
          }
        ],
        "group": "gantry.dev",
        "kind": "Operation",
        "name": "x"
      },
      "message": "Operation.gantry.dev \"x\" is invalid: [spec.action: Required value, spec.instanceRef: Required value]",
      "metadata": {},
      "reason": "Invalid",
      "status": "Failure"
    }
    "#);
}

#[test]
fn a_stale_write_is_told_in_the_words_of_kubernetes() {
    insta::assert_json_snapshot!(Failure::conflict(&operations(), "x").status(), @r#"
    {
      "apiVersion": "v1",
      "kind": "Status",
      "code": 409,
      "details": {
        "group": "gantry.dev",
        "kind": "operations",
        "name": "x"
      },
      "message": "Operation cannot be fulfilled on operations.gantry.dev \"x\": the object has been modified; please apply your changes to the latest version and try again",
      "metadata": {},
      "reason": "Conflict",
      "status": "Failure"
    }
    "#);
}

#[test]
fn every_reason_is_written_as_kubernetes_writes_it() {
    let said = [
        Failure::unauthorized(),
        Failure::no_such_path(),
        Failure::not_found(&operations(), "x"),
        Failure::too_large(3),
        Failure::version_too_large(9, 3),
        Failure::namespace_terminating(&operations(), "x", "n"),
    ]
    .map(|failure| format!("{} {:?}: {failure}", failure.code().as_u16(), failure.reason));

    insta::assert_snapshot!(said.join("\n"), @r#"
    401 Unauthorized: Unauthorized
    404 NotFound: the server could not find the requested resource
    404 NotFound: operations.gantry.dev "x" not found
    413 RequestEntityTooLarge: Request entity too large: limit is 3
    504 Timeout: Too large resource version: 9, current: 3
    403 Forbidden: operations.gantry.dev "x" is forbidden: unable to create new content in namespace n because it is being terminated
    "#);
}

#[test]
fn an_answer_tells_a_few_mistakes_in_few_words() {
    let cause = |number: usize| Cause {
        field: "f".repeat(1 << 16),
        reason: CauseReason::Invalid,
        message: format!("{number} {}", "m".repeat(1 << 16)),
    };

    let status = Failure::invalid("", "ConfigMap", "x", (0..1_000).map(cause).collect()).status();

    assert_eq!(status.details.as_ref().and_then(|details| details.causes.as_ref()).map(Vec::len), Some(20));
    assert!(serde_json::to_vec(&status).expect("serializes").len() < 128 << 10);
}
